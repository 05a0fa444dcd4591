//! Groups: several people in the origin, several portals.

use super::*;
use crate::conversation::Home;

/// The people of the origin are Alice and Bob, who came later.
fn with_bob() -> Conversation {
    let mut state = going_on();
    state.people.push(person("bob").build());
    state.direct = false;
    state
}

#[test]
fn a_message_in_a_group_is_forwarded_once_to_every_other_room() {
    let added = decide(going_on(), &kim_was_added(&[]));
    let state = added.state.unwrap();
    assert!(!state.direct);
    let bob = (
        Ghost::new(owned_user_id!("@_dm_.pbob:hs.test")),
        "Someone".to_owned(),
        true,
    );
    let came = Input::Member {
        role: RoomRole::Origin,
        user: owned_user_id!("@bob:hs.test"),
        membership: "join".to_owned(),
        by_others: false,
        redacts: false,
        ghost: Some(bob),
    };
    let state = decide(state, &came).state.unwrap();
    let said = decide(state, &said(PORTAL, "sam", &one()));
    let to: Vec<_> = said
        .effects
        .iter()
        .filter_map(|(_, effect)| match effect {
            Effect::ForwardEvent {
                target, is_last, ..
            } => Some((*target, *is_last)),
            _ => None,
        })
        .collect();
    assert_eq!(to, [(RoomRole::Origin, false), (RoomRole::Portal(2), true)]);
}

#[test]
fn the_number_of_ghosts_is_bounded_and_newcomers_beyond_it_are_told() {
    let mut state = going_on();
    for number in 0..300 {
        let came = Input::Member {
            role: RoomRole::Origin,
            user: OwnedUserId::try_from(format!("@guest{number}:hs.test")).unwrap(),
            membership: "join".to_owned(),
            by_others: false,
            redacts: false,
            ghost: Some((
                Ghost::new(format!("@_dm_.p{number}:hs.test").try_into().unwrap()),
                "Someone".to_owned(),
                true,
            )),
        };
        let decision = decide(state, &came);
        // Nobody joins without a notice: they can read messages, but are not shown to their
        // senders.
        let said = decision
            .effects
            .iter()
            .filter_map(|(_, effect)| match effect {
                Effect::SendNotice {
                    notice: Notice::Full,
                    cause,
                } => Some(cause.as_str()),
                _ => None,
            });
        // The newcomer reads it, whom nothing that was sent before was encrypted for. The portals
        // are told once.
        let own = format!("full-@guest{number}:hs.test");
        let expected = if number < 98 {
            vec![]
        } else {
            vec![own.as_str(), "full"]
        };
        assert_eq!(said.collect::<Vec<_>>(), expected, "{number}");
        state = decision.state.unwrap();
    }
    assert_eq!(state.people.len(), 100);
}

#[test]
fn messages_that_a_new_person_has_missed_are_forwarded_to_them_alone_and_from_their_sender() {
    let added = Input::Added {
        person: Box::new(masked("kim").build()),
        by: Person::new(owned_user_id!("@bob:hs.test")),
        invited_at: Timestamp(0),
        earlier: vec![one()],
    };
    let added = decide(with_bob(), &added);
    let forwarded: Vec<_> = added
        .effects
        .iter()
        .filter_map(|(_, effect)| match effect {
            Effect::ForwardEvent {
                sender,
                target,
                is_last,
                ..
            } => Some((*sender, *target, *is_last)),
            _ => None,
        })
        .collect();
    assert_eq!(forwarded, [(2, RoomRole::Portal(3), true)]);
    // The masked people who were there before are not announced again.
    let said = added.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::SendNotice { notice, .. } => Some(notice.clone()),
        _ => None,
    });
    let (handle, person) = ("@kim".to_owned(), 3);
    let said: Vec<_> = said.collect();
    assert_eq!(said, [Notice::MaskedInGroup { handle, person }]);
}

#[test]
fn a_person_who_takes_the_mask_off_leaves_a_group_to_the_others() {
    let closed = |name: &str| Input::HandleClosed {
        ghost: Ghost::new(format!("@_dm_{name}:hs.test").try_into().unwrap()),
    };
    let group = decide(with_bob(), &kim_was_added(&[])).state.unwrap();
    let one = decide(group, &closed("kim"));
    let state = one.state.unwrap();
    assert!(!state.ended && !state.people[3].takes_part());
    assert!(state.people[1].takes_part());
    let again = decide(state.clone(), &closed("kim"));
    assert!(again.effects.is_empty(), "{again:?}");
    assert_eq!(again.state, Some(state.clone()));
    assert!(decide(state, &closed("sam")).state.unwrap().ended);
    assert!(decide(going_on(), &closed("sam")).state.unwrap().ended);
    // This ghost shows the asker.
    assert!(decide(going_on(), &closed("alice")).state.unwrap().ended);
}

#[test]
fn a_portal_that_is_created_for_a_person_who_has_left_is_left_again() {
    let closed = Input::HandleClosed {
        ghost: Ghost::new(owned_user_id!("@_dm_kim:hs.test")),
    };
    let state = after(with_bob(), &[kim_was_added(&[one()]), closed]).state;
    let room = room_id!("!kims:hs.test").to_owned();
    let made = Input::PortalCreated {
        person: 3,
        room: room.clone(),
    };
    let made = decide(state.unwrap(), &made);
    assert_eq!(made.effects, [(room, Effect::LeaveRoom)]);
    // Until that is done nothing is forwarded from there.
    let said = decide(
        made.state.unwrap(),
        &said(RoomRole::Portal(3), "kim", &one()),
    );
    assert!(said.effects.is_empty(), "{said:?}");
}

#[test]
fn a_person_shown_by_one_handle_in_two_rooms_ends_the_conversation_by_giving_it_up() {
    let mut alice = masked("alice").alias().build();
    alice.ghost = Ghost::new(owned_user_id!("@_dm_alice:hs.test"));
    let added = Input::Added {
        person: Box::new(alice),
        by: Person::new(owned_user_id!("@bob:hs.test")),
        invited_at: Timestamp(0),
        earlier: Vec::new(),
    };
    let closed = Input::HandleClosed {
        ghost: Ghost::new(owned_user_id!("@_dm_alice:hs.test")),
    };
    assert!(after(with_bob(), &[added, closed]).state.unwrap().ended);
}

/// That nothing happened would tell whose handle it is.
#[test]
fn the_handle_of_somebody_in_the_origin_is_added_like_any_other() {
    let mut group = with_bob();
    group.people[0].ghost = Ghost::new(owned_user_id!("@_dm_alice:hs.test"));
    let mut alice = masked("alice").build();
    alice.ghost = Ghost::new(owned_user_id!("@_dm_alice:hs.test"));
    let added = Input::Added {
        person: Box::new(alice),
        by: Person::new(owned_user_id!("@bob:hs.test")),
        invited_at: Timestamp::default(),
        earlier: vec![one()],
    };
    let decision = decide(group, &added);
    let state = decision.state.unwrap();
    let (before, added) = state.people.split_at(3);
    assert!(
        matches!(before[0].home, Home::Origin { .. })
            && matches!(added[0].home, Home::Portal { .. })
    );
    let told = decision.effects.iter().any(|(room, effect)| {
        *room == origin()
            && matches!(
                effect,
                Effect::SendNotice {
                    notice: Notice::MaskedInGroup { .. },
                    ..
                }
            )
    });
    assert!(told, "{:?}", decision.effects);
}

#[test]
fn a_handle_stands_for_its_new_owner() {
    let group = decide(with_bob(), &kim_was_added(&[])).state.unwrap();
    let ghost = Ghost::new(owned_user_id!("@_dm_kim:hs.test"));
    let released = Input::HandleClosed {
        ghost: ghost.clone(),
    };
    let mut lea = masked("lea").build();
    lea.ghost = ghost.clone();
    let added = Input::Added {
        person: Box::new(lea),
        by: Person::new(owned_user_id!("@alice:hs.test")),
        invited_at: Timestamp(0),
        earlier: Vec::new(),
    };
    let state = after(group, &[released, added]).state.unwrap();
    assert!(!state.people[3].takes_part() && state.people[4].takes_part());
    assert!(state.needs(&ghost));
    let sent_away = Input::Member {
        role: RoomRole::Origin,
        user: ghost.into(),
        membership: "leave".to_owned(),
        by_others: true,
        redacts: false,
        ghost: None,
    };
    let gone = decide(state, &sent_away);
    let leave = Effect::RemoveGhost { person: 4 };
    assert!(gone.effects.contains(&(origin(), leave)), "{gone:?}");
    assert!(!gone.state.unwrap().people[4].takes_part());
}

#[test]
fn a_person_who_is_removed_from_a_group_with_their_words_takes_the_copies_along() {
    let removed = |redacts| Input::Member {
        role: RoomRole::Origin,
        user: owned_user_id!("@bob:hs.test"),
        membership: "ban".to_owned(),
        by_others: true,
        redacts,
        ghost: None,
    };
    let redact = Effect::RedactCopiesOf {
        person: 2,
        target: PORTAL,
    };
    let decision = decide(with_bob(), &removed(true));
    assert_eq!(decision.effects[0], (origin(), redact.clone()));
    let kept = decide(with_bob(), &removed(false));
    assert!(kept.effects.iter().all(|(_, effect)| *effect != redact));
    // Nobody can do it to the other in a chat of two.
    let mut removed = removed(true);
    if let Input::Member { user, .. } = &mut removed {
        *user = owned_user_id!("@alice:hs.test");
    }
    let direct = decide(going_on(), &removed);
    let redacts = |effect: &Effect| matches!(effect, Effect::RedactCopiesOf { .. });
    assert!(!direct.effects.iter().any(|(_, effect)| redacts(effect)));
}

#[test]
fn a_masked_person_who_is_removed_with_their_words_takes_the_copies_along() {
    let kims = owned_room_id!("!kims:hs.test");
    let inputs = [
        kim_was_added(&[]),
        Input::PortalCreated {
            person: 3,
            room: kims.clone(),
        },
        Input::PortalReady { person: 3 },
    ];
    let group = after(with_bob(), &inputs).state.unwrap();
    let removed = |redacts| Input::Member {
        role: RoomRole::Origin,
        user: owned_user_id!("@_dm_sam:hs.test"),
        membership: "ban".to_owned(),
        by_others: true,
        redacts,
        ghost: None,
    };
    let redact =
        |(_, effect): &&(OwnedRoomId, Effect)| matches!(effect, Effect::RedactCopiesOf { .. });
    let decision = decide(group.clone(), &removed(true));
    let redacted: Vec<_> = decision.effects.iter().filter(redact).collect();
    let expected = Effect::RedactCopiesOf {
        person: 1,
        target: RoomRole::Portal(3),
    };
    assert_eq!(redacted, [&(portal(), expected)]);
    // What waits in the portal is left with it, so the words go first.
    let leaves =
        |(room, effect): &(OwnedRoomId, Effect)| *room == portal() && *effect == Effect::LeaveRoom;
    let left = decision.effects.iter().position(leaves);
    let first = decision.effects.iter().position(|it| redact(&it));
    assert!(first < left, "{:?}", decision.effects);
    let kept = decide(group, &removed(false));
    assert_eq!(kept.effects.iter().filter(redact).count(), 0);
}

#[test]
fn a_masked_person_who_was_sent_away_from_a_group_can_be_invited_again() {
    let sent_away = Input::Member {
        role: RoomRole::Origin,
        user: owned_user_id!("@_dm_kim:hs.test"),
        membership: "leave".to_owned(),
        by_others: true,
        redacts: false,
        ghost: None,
    };
    let gone = after(with_bob(), &[kim_was_added(&[]), sent_away]);
    let said: Vec<_> = kinds(&gone);
    assert!(said.contains(&(ORIGIN, "leave")), "{said:?}");
    let state = gone.state.unwrap();
    assert!(!state.ended && !state.people[3].takes_part());
    // No late input brings her back.
    for late in [
        Input::PortalReady { person: 3 },
        Input::PortalFailed { person: 3 },
        member(RoomRole::Portal(3), owned_user_id!("@kim:hs.test"), "join"),
    ] {
        let nothing = decide(state.clone(), &late);
        assert!(nothing.effects.is_empty(), "{late:?}: {nothing:?}");
        assert_eq!(nothing.state, Some(state.clone()), "{late:?}");
    }
    let back = decide(state.clone(), &kim_was_added(&[one()]));
    assert!(kinds(&back).contains(&(ORIGIN, "carry")), "{back:?}");
    // The homeserver would take the same cause for the same notice.
    let causes = [0, 1].map(|at| {
        let back = decide(state.clone(), &kim_was_added_at(Timestamp(at), &[]));
        let mut effects = back.effects.into_iter();
        effects.find_map(|(_, effect)| match effect {
            Effect::SendNotice { cause, .. } => Some(cause),
            _ => None,
        })
    });
    assert!(causes[0].is_some());
    assert_ne!(causes[0], causes[1]);
    assert_eq!(back.state.unwrap().people.len(), 4);
}

#[test]
fn the_group_is_told_each_time_that_a_masked_person_is_sent_away() {
    let sent_away = Input::Member {
        role: RoomRole::Origin,
        user: owned_user_id!("@_dm_kim:hs.test"),
        membership: "leave".to_owned(),
        by_others: true,
        redacts: false,
        ghost: None,
    };
    // She has no portal, neither the first time nor the second.
    let told = |decision: &Decision| {
        let mut effects = decision.effects.iter();
        effects.find_map(|(_, effect)| match effect {
            Effect::SendNotice {
                notice: Notice::PersonLeft { .. },
                cause,
            } => Some(cause.clone()),
            _ => None,
        })
    };
    let first = after(with_bob(), &[kim_was_added(&[]), sent_away.clone()]);
    let state = first.state.clone().unwrap();
    let again = after(state, &[kim_was_added_at(Timestamp(1), &[]), sent_away]);
    assert!(told(&first).is_some());
    assert!(told(&again).is_some());
    assert_ne!(told(&first), told(&again));
}

#[test]
fn one_masked_person_fewer_does_not_end_a_group() {
    let inputs = [
        kim_was_added(&[one()]),
        Input::PortalCreated {
            person: 2,
            room: room_id!("!kims:hs.test").to_owned(),
        },
        Input::PortalReady { person: 2 },
        member(RoomRole::Portal(2), owned_user_id!("@kim:hs.test"), "leave"),
    ];
    let declined = after(going_on(), &inputs);
    assert_eq!(
        kinds(&declined),
        [
            ("!kims:hs.test", "relay-say"),
            ("!kims:hs.test", "depart"),
            (ORIGIN, "relay-say"),
            (ORIGIN, "leave"),
            // Sam's portal shows that Kim is no longer there.
            (ORIGIN, "furnish"),
        ]
    );
    let state = declined.state.unwrap();
    assert!(!state.ended);
    assert_eq!(state.targets_of(RoomRole::Origin), [PORTAL]);
}
