//! Properties that hold for any inputs in any order.

use proptest::prelude::*;

use super::*;

fn role() -> impl Strategy<Value = RoomRole> {
    prop_oneof![
        Just(RoomRole::Origin),
        (0..4usize).prop_map(RoomRole::Portal)
    ]
}

fn user() -> impl Strategy<Value = OwnedUserId> {
    let names = ["alice", "sam", "kim", "_dm_alice", "_dm_sam"];
    (0..names.len())
        .prop_map(move |at| OwnedUserId::try_from(format!("@{}:hs.test", names[at])).unwrap())
}

fn anything() -> impl Strategy<Value = Input> {
    let event = (0..9u8).prop_map(|n| OwnedEventId::try_from(format!("$e{n}")).unwrap());
    let room = (0..3u8).prop_map(|n| OwnedRoomId::try_from(format!("!r{n}:hs.test")).unwrap());
    let kind = prop_oneof![
        8 => Just(EventKind::Forwardable),
        1 => event.clone().prop_map(|of| EventKind::Redaction { of }),
        1 => Just(EventKind::Unencrypted),
        1 => proptest::option::of(user()).prop_map(|of| EventKind::Verification { of }),
        1 => Just(EventKind::MatrixRtc),
        1 => Just(EventKind::RoomInfo),
        1 => Just(EventKind::RoomOnly),
    ];
    let heard = (role(), user(), event.clone(), kind).prop_map(|(role, sender, event, kind)| {
        Input::Event {
            role,
            sender,
            event,
            kind,
        }
    });
    let memberships = ["join", "leave", "ban", "invite", "knock"];
    let member = (role(), user(), 0..memberships.len(), any::<(bool, bool)>()).prop_map(
        move |(role, user, at, (by_others, redacts))| {
            let name = (user.clone(), "Someone".to_owned(), true);
            Input::Member {
                role,
                user,
                by_others,
                redacts,
                membership: memberships[at].to_owned(),
                ghost: Some((Ghost::new(name.0), name.1, name.2)),
            }
        },
    );
    prop_oneof![
        8 => heard,
        4 => member,
        // A clock that jumps, in both directions.
        1 => (0..4usize, any::<u64>()).prop_map(|(person, at)| Input::ReturnedToRoom {
            at: Timestamp(at % (1 << 50)), person,
        }),
        1 => (0..4usize).prop_map(|person| Input::InvitingOwner { person }),
        1 => user().prop_map(|ghost| Input::HandleClosed { ghost: Ghost::new(ghost) }),
        1 => (0..4usize).prop_map(|person| Input::OriginRenamed { person }),
        1 => (0..4usize).prop_map(|person| Input::PortalLost { person }),
        1 => (0..4usize, 0..3u8).prop_map(|(person, name)| Input::Renamed {
            person,
            name: format!("Kim {name}"),
        }),
        1 => (0..4usize, 0..20u8).prop_map(|(person, name)| Input::NameSeen {
            person,
            name: format!("Alice {name}"),
        }),
        1 => (role(), room.clone(), user()).prop_map(|(role, to, by)| Input::RoomUpgraded {
            role, to, by: Person::new(by),
        }),
        1 => room.clone().prop_map(|room| Input::UpgradeFollowed { room }),
        1 => (room.clone(), user()).prop_map(|(to, by)| Input::UpgradeFailed { to, by: Person::new(by) }),
        1 => Just(Input::Started { earlier: Vec::new() }),
        1 => (0..4usize).prop_map(|person| Input::PortalReady { person }),
        1 => (0..4usize, room.clone()).prop_map(|(person, room)| Input::PortalCreated { person, room }),
        1 => (0..4usize).prop_map(|person| Input::PortalFailed { person }),
        1 => room.clone().prop_map(|room| Input::OriginReplaced { room, earlier: Vec::new() }),
        1 => room.prop_map(|room| Input::RoomLeft { room }),
        1 => (role(), 0..4usize).prop_map(|(role, person)| Input::CannotRead { role, person, day: 1 }),
        1 => Just(kim_was_added(&[one()])),
        1 => Just(Input::End),
        1 => (role(), event).prop_map(|(role, event)| Input::NotForwarded {
            role, event, text: "no".to_owned(),
        }),
    ]
}

proptest! {
    /// No event is forwarded to the room where it was sent, or twice to one room; one forward of
    /// each event is the last; what a participant says is forwarded or answered; after the end
    /// rooms are only left; and the index of a person never changes.
    #[test]
    fn no_event_is_forwarded_twice_or_back(inputs in prop::collection::vec(anything(), 1..60)) {
        let mut state = going_on();
        for input in inputs {
            let people: Vec<_> = state.people.iter().map(|person| person.user.clone()).collect();
            let ended = state.ended;
            let decision = decide(state.clone(), &input);
            let mut roles = Vec::new();
            let mut lasts = 0;
            for (_, effect) in &decision.effects {
                if let Effect::ForwardEvent { target, is_last, sender, .. } = effect {
                    prop_assert!(!ended);
                    prop_assert_ne!(*target, state.people[*sender].room_role(*sender));
                    prop_assert!(!roles.contains(target));
                    roles.push(*target);
                    lasts += usize::from(*is_last);
                }
            }
            prop_assert_eq!(lasts, usize::from(!roles.is_empty()));
            if let Input::Event { role, sender, event, kind: EventKind::Forwardable } = &input
                && let Some(by) = state.person_at(*role, sender)
                && !ended && state.people[by].takes_part() && state.room(*role).is_some()
            {
                let says_why = |effect: &Effect| {
                    matches!(effect, Effect::SendNotice { cause, .. } if cause == event.as_str())
                };
                let is_answered = decision.effects.iter().any(|(_, effect)| says_why(effect));
                prop_assert!(!roles.is_empty() || is_answered, "{event} is lost");
            }
            let Some(next) = decision.state else { break };
            prop_assert!(next.people.iter().map(|p| &p.user).take(people.len()).eq(people.iter()));
            prop_assert!(!ended || next.ended);
            // The service may stop here: what is written is what it goes on with.
            let written = serde_json::to_string(&next).unwrap();
            state = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(&state, &next);
        }
    }
}
