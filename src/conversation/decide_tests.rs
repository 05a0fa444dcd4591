//! What is decided on a conversation, told as little stories.

use proptest::prelude::*;
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, event_id, owned_room_id, owned_user_id, room_id,
};

use super::{
    Conversation, Decision, Effect, EventKind, Home, Input, Notice, Participant, PortalStatus,
    RoomRole, Secret, decide,
};
use crate::clock::Timestamp;

const PORTAL: RoomRole = RoomRole::Portal(1);

fn origin() -> OwnedRoomId {
    owned_room_id!("!origin:hs.test")
}

fn portal() -> OwnedRoomId {
    owned_room_id!("!portal:hs.test")
}

fn person(name: &str, home: Home) -> Participant {
    Participant {
        user: OwnedUserId::try_from(format!("@{name}:hs.test")).unwrap(),
        ghost: OwnedUserId::try_from(format!("@_dm_{name}:hs.test")).unwrap(),
        name: format!("@{name}"),
        is_alias: name == "alice",
        home,
        former_names: Vec::new(),
    }
}

fn masked(name: &str) -> Participant {
    let home = Home::Portal {
        room: None,
        status: PortalStatus::NotInvited,
    };
    person(name, home)
}

/// Alice has written to `@sam`, who is masked; nothing has followed from it yet.
fn new() -> Conversation {
    Conversation {
        id: "c0ffee".to_owned(),
        origin: Some(origin()),
        direct: true,
        secret: Secret([7; 32]),
        people: vec![
            person("alice", Home::Origin { is_present: true }),
            masked("sam"),
        ],
        started_at: Timestamp(0),
        last_return_at: None,
        rtc_notice_sent_in: Vec::new(),
        ended: false,
    }
}

fn said(role: RoomRole, name: &str, event: &OwnedEventId) -> Input {
    Input::Event {
        role,
        sender: OwnedUserId::try_from(format!("@{name}:hs.test")).unwrap(),
        event: event.clone(),
        kind: EventKind::Forwardable,
    }
}

fn member(role: RoomRole, user: OwnedUserId, membership: &str) -> Input {
    Input::Member {
        role,
        by_others: false,
        membership: membership.to_owned(),
        user,
        ghost: None,
    }
}

/// Alice has invited the ghost of `@kim`, who is masked too.
fn kim_was_added(earlier: &[OwnedEventId]) -> Input {
    Input::Added {
        person: Box::new(masked("kim")),
        by: owned_user_id!("@alice:hs.test"),
        earlier: earlier.to_vec(),
    }
}

fn one() -> OwnedEventId {
    event_id!("$one").to_owned()
}

/// Lets a row of things happen; the last one's decision is returned.
fn after(mut state: Conversation, inputs: &[Input]) -> Decision {
    let mut last = None;
    for input in inputs {
        let decision = decide(state.clone(), input);
        state = decision.state.clone().unwrap_or(state);
        last = Some(decision);
    }
    last.unwrap()
}

/// Alice and Sam talk.
fn going_on() -> Conversation {
    let inputs = [
        Input::Started {
            earlier: vec![one()],
        },
        Input::PortalCreated {
            person: 1,
            room: portal(),
        },
        Input::PortalReady { person: 1 },
        member(PORTAL, owned_user_id!("@sam:hs.test"), "join"),
    ];
    after(new(), &inputs).state.unwrap()
}

fn kinds(decision: &Decision) -> Vec<(&str, &'static str)> {
    let effects = decision.effects.iter();
    effects
        .map(|(room, effect)| (room.as_str(), effect.kind()))
        .collect()
}

const ORIGIN: &str = "!origin:hs.test";
const SAMS: &str = "!portal:hs.test";

#[test]
fn the_asker_is_told_at_once_and_the_portal_is_made_for_the_first_message() {
    let opened = decide(
        new(),
        &Input::Started {
            earlier: Vec::new(),
        },
    );
    assert_eq!(kinds(&opened), [(ORIGIN, "relay-say")]);
    let (_, Effect::SendNotice { notice, .. }) = &opened.effects[0] else {
        panic!("{opened:?}");
    };
    assert!(notice.text().contains("can read it"), "{notice:?}");
    let first = decide(
        opened.state.unwrap(),
        &said(RoomRole::Origin, "alice", &one()),
    );
    assert_eq!(kinds(&first), [(ORIGIN, "furnish"), (ORIGIN, "carry")]);
    // A second message does not make it again, and waits behind the first in the same outbox.
    let second = decide(
        first.state.unwrap(),
        &said(RoomRole::Origin, "alice", &one()),
    );
    assert_eq!(kinds(&second), [(ORIGIN, "carry")]);
}

#[test]
fn what_was_heard_at_the_door_is_carried_in_order() {
    let two = event_id!("$two").to_owned();
    let earlier = vec![one(), two.clone()];
    let opened = decide(new(), &Input::Started { earlier });
    let carried: Vec<_> = opened
        .effects
        .iter()
        .filter_map(|(_, effect)| match effect {
            Effect::ForwardEvent { event, is_last, .. } => Some((event.clone(), *is_last)),
            _ => None,
        })
        .collect();
    assert_eq!(carried, [(one(), true), (two, true)]);
}

#[test]
fn both_ways_go_into_the_outbox_of_the_room_where_it_was_said() {
    let answer = decide(going_on(), &said(PORTAL, "sam", &one()));
    assert_eq!(kinds(&answer), [(SAMS, "carry")]);
    assert_eq!(
        answer.effects[0].1,
        Effect::ForwardEvent {
            event: one(),
            sender: 1,
            target: RoomRole::Origin,
            is_last: true,
        }
    );
}

#[test]
fn nobody_is_carried_but_the_people_of_the_room() {
    for (role, name) in [
        (RoomRole::Origin, "sam"),
        (RoomRole::Origin, "kim"),
        (PORTAL, "alice"),
        (PORTAL, "_dm_alice"),
    ] {
        let decision = decide(going_on(), &said(role, name, &one()));
        assert!(decision.effects.is_empty(), "{name}: {decision:?}");
    }
}

#[test]
fn a_message_in_clear_and_a_room_call_are_answered_and_not_carried() {
    for kind in [EventKind::Unencrypted, EventKind::MatrixRtc] {
        let input = Input::Event {
            role: PORTAL,
            sender: owned_user_id!("@sam:hs.test"),
            event: one(),
            kind,
        };
        let decision = decide(going_on(), &input);
        assert_eq!(kinds(&decision), [(SAMS, "relay-say")]);
    }
}

#[test]
fn what_works_instead_of_a_room_call_is_said_once_in_each_room() {
    let call = |role, name: &str| Input::Event {
        role,
        sender: OwnedUserId::try_from(format!("@{name}:hs.test")).unwrap(),
        event: one(),
        kind: EventKind::MatrixRtc,
    };
    let mut state = going_on();
    for (role, name, told) in [
        (PORTAL, "sam", true),
        (PORTAL, "sam", false),
        (RoomRole::Origin, "alice", true),
        (RoomRole::Origin, "alice", false),
    ] {
        let decision = decide(state, &call(role, name));
        assert_eq!(decision.effects.len(), usize::from(told), "{decision:?}");
        state = decision.state.unwrap();
    }
    // Another room has not been told.
    let moved = Input::OriginReplaced {
        room: owned_room_id!("!another:hs.test"),
        earlier: Vec::new(),
    };
    let state = after(state, &[moved]).state.unwrap();
    assert_eq!(
        decide(state, &call(RoomRole::Origin, "alice"))
            .effects
            .len(),
        1
    );
}

#[test]
fn who_left_after_joining_is_invited_again_by_the_next_message_and_only_then() {
    let left = decide(
        going_on(),
        &member(PORTAL, owned_user_id!("@sam:hs.test"), "leave"),
    );
    assert!(left.effects.is_empty(), "{left:?}");
    let next = decide(
        left.state.unwrap(),
        &said(RoomRole::Origin, "alice", &one()),
    );
    assert_eq!(kinds(&next), [(ORIGIN, "furnish"), (ORIGIN, "carry")]);
}

#[test]
fn who_left_and_starts_a_chat_from_their_side_is_invited_again() {
    let left = decide(
        going_on(),
        &member(PORTAL, owned_user_id!("@sam:hs.test"), "leave"),
    );
    let back = Input::ReturnedToRoom {
        at: Timestamp(9),
        person: 1,
    };
    let led = decide(left.state.unwrap(), &back);
    assert_eq!(kinds(&led), [(SAMS, "furnish")]);
    // Whoever is there needs nothing but the link.
    let there = decide(going_on(), &back);
    assert!(there.effects.is_empty());
    assert_eq!(there.state.unwrap().last_return_at, Some(Timestamp(9)));
}

#[test]
fn who_declines_ends_the_conversation_and_the_asker_hears_no_more_than_that() {
    let inputs = [
        Input::Started {
            earlier: vec![one()],
        },
        Input::PortalCreated {
            person: 1,
            room: portal(),
        },
        Input::PortalReady { person: 1 },
        member(PORTAL, owned_user_id!("@sam:hs.test"), "leave"),
    ];
    let declined = after(new(), &inputs);
    let ended = decide(going_on(), &Input::End);
    assert_eq!(declined.effects, ended.effects);
    assert_eq!(
        kinds(&ended),
        [
            (ORIGIN, "relay-say"),
            (ORIGIN, "depart"),
            (SAMS, "relay-say"),
            (SAMS, "depart"),
        ]
    );
    let cannot_be_made = decide(going_on(), &Input::PortalFailed { person: 1 });
    assert_eq!(cannot_be_made.effects, ended.effects);
}

#[test]
fn ghosts_go_only_when_the_last_room_is_left_and_nothing_is_kept_then() {
    let ended = decide(going_on(), &Input::End).state.unwrap();
    // Whatever is said meanwhile reaches nobody.
    let said = decide(ended.clone(), &said(RoomRole::Origin, "alice", &one()));
    assert!(said.effects.is_empty());
    let first = decide(
        ended,
        &Input::RoomLeft {
            role: RoomRole::Origin,
        },
    );
    assert!(first.effects.is_empty(), "{first:?}");
    let last = decide(first.state.unwrap(), &Input::RoomLeft { role: PORTAL });
    assert_eq!(last.state, None);
    let ghosts = vec![owned_user_id!("@_dm_alice:hs.test")];
    assert_eq!(last.effects, [(portal(), Effect::DeleteGhosts { ghosts })]);
}

#[test]
fn an_asker_who_leaves_finds_the_same_portal_again() {
    let left = decide(
        going_on(),
        &member(RoomRole::Origin, owned_user_id!("@alice:hs.test"), "leave"),
    );
    assert_eq!(kinds(&left), [(SAMS, "relay-say"), (ORIGIN, "depart")]);
    let gone = decide(
        left.state.unwrap(),
        &Input::RoomLeft {
            role: RoomRole::Origin,
        },
    );
    // Meanwhile nobody is there to read.
    let alone = decide(gone.state.clone().unwrap(), &said(PORTAL, "sam", &one()));
    assert!(matches!(
        &alone.effects[..],
        [(
            _,
            Effect::SendNotice {
                notice: Notice::NobodyThere,
                ..
            }
        )]
    ));
    let room = room_id!("!new:hs.test").to_owned();
    let back = decide(
        gone.state.unwrap(),
        &Input::OriginReplaced {
            room: room.clone(),
            earlier: vec![one()],
        },
    );
    assert_eq!(
        kinds(&back),
        [
            ("!new:hs.test", "relay-say"),
            ("!new:hs.test", "dress"),
            ("!new:hs.test", "carry")
        ]
    );
    assert_eq!(back.state.unwrap().origin, Some(room));
}

#[test]
fn who_moves_to_another_room_is_not_followed_in_two() {
    let room = room_id!("!new:hs.test").to_owned();
    let moved = decide(
        going_on(),
        &Input::OriginReplaced {
            room,
            earlier: Vec::new(),
        },
    );
    assert_eq!(
        kinds(&moved),
        [
            (ORIGIN, "depart"),
            ("!new:hs.test", "relay-say"),
            ("!new:hs.test", "dress")
        ]
    );
}

#[test]
fn a_name_that_somebody_chooses_is_their_ghosts_and_no_handles() {
    let called = |person, name: &str| Input::Renamed {
        person,
        name: name.to_owned(),
    };
    let kim = decide(going_on(), &called(0, "Kim"));
    assert_eq!(kinds(&kim), [(ORIGIN, "call"), (ORIGIN, "dress")]);
    let state = kim.state.unwrap();
    assert_eq!(state.people[0].name, "Kim");
    // The same again is nothing new, and a masked handle stays what it is.
    for again in [called(0, "Kim"), called(1, "Sammy"), called(9, "Lou")] {
        let nothing = decide(state.clone(), &again);
        assert!(nothing.effects.is_empty(), "{again:?}");
        assert_eq!(nothing.state.as_ref(), Some(&state));
    }
}

fn upgraded(role: RoomRole, to: &str) -> Input {
    Input::RoomUpgraded {
        role,
        to: OwnedRoomId::try_from(to).unwrap(),
        by: owned_user_id!("@alice:hs.test"),
    }
}

#[test]
fn an_origin_is_followed_behind_what_was_said_in_it_and_left() {
    let to = "!new:hs.test";
    let said = decide(going_on(), &said(RoomRole::Origin, "alice", &one()));
    let upgraded = decide(said.state.unwrap(), &upgraded(RoomRole::Origin, to));
    assert_eq!(kinds(&upgraded), [(ORIGIN, "follow")]);
    let room = OwnedRoomId::try_from(to).unwrap();
    let followed = decide(upgraded.state.unwrap(), &Input::UpgradeFollowed { room });
    assert_eq!(kinds(&followed), [(ORIGIN, "depart"), (to, "dress")]);
    let state = followed.state.unwrap();
    assert_eq!(state.origin.as_deref().map(ruma::RoomId::as_str), Some(to));
    // The old room is left: that ends nothing.
    let role = RoomRole::Portal(usize::MAX);
    let left = decide(state, &Input::RoomLeft { role });
    assert!(left.effects.is_empty(), "{left:?}");
    assert!(left.state.unwrap().origin.is_some());
}

#[test]
fn where_nobody_can_follow_everybody_hears_it_and_the_conversation_stays() {
    let (to, by) = (
        room_id!("!new:hs.test").to_owned(),
        owned_user_id!("@alice:hs.test"),
    );
    let not = decide(going_on(), &Input::UpgradeFailed { to, by });
    assert_eq!(
        kinds(&not),
        [
            ("!new:hs.test", "depart"),
            (ORIGIN, "relay-say"),
            (SAMS, "relay-say")
        ]
    );
    assert_eq!(not.state.unwrap().origin, Some(origin()));
    // Nor is an origin led into a portal, whatever its tombstone says.
    let into_portal = decide(going_on(), &upgraded(RoomRole::Origin, SAMS));
    assert!(into_portal.effects.is_empty(), "{into_portal:?}");
    let (to, by) = (portal(), owned_user_id!("@alice:hs.test"));
    let not = decide(going_on(), &Input::UpgradeFailed { to, by });
    assert!(not.effects.is_empty(), "{not:?}");
}

#[test]
fn what_ended_on_its_way_into_another_room_leaves_that_room_too() {
    let (to, by) = (
        room_id!("!new:hs.test").to_owned(),
        owned_user_id!("@alice:hs.test"),
    );
    let ended = decide(going_on(), &Input::End).state.unwrap();
    let not = decide(ended, &Input::UpgradeFailed { to, by });
    assert_eq!(kinds(&not), [("!new:hs.test", "depart")]);
}

#[test]
fn in_the_room_that_has_replaced_another_one_it_is_said_again_what_calls_work() {
    let call = |event: &str| Input::Event {
        role: RoomRole::Origin,
        sender: owned_user_id!("@alice:hs.test"),
        event: OwnedEventId::try_from(event).unwrap(),
        kind: EventKind::MatrixRtc,
    };
    let room = OwnedRoomId::try_from("!new:hs.test").unwrap();
    let inputs = [call("$one"), Input::UpgradeFollowed { room }, call("$two")];
    let again = after(going_on(), &inputs);
    assert_eq!(kinds(&again), [("!new:hs.test", "relay-say")]);
}

#[test]
fn who_declines_a_portal_that_was_made_anew_ends_the_conversation() {
    let inputs = [
        Input::PortalLost { person: 1 },
        Input::PortalCreated {
            person: 1,
            room: room_id!("!second:hs.test").to_owned(),
        },
        Input::PortalReady { person: 1 },
        member(PORTAL, owned_user_id!("@sam:hs.test"), "leave"),
    ];
    assert!(after(going_on(), &inputs).state.unwrap().ended);
}

#[test]
fn a_portal_is_made_anew_and_never_followed() {
    let replaced = decide(going_on(), &upgraded(PORTAL, "!sams-own:hs.test"));
    assert_eq!(kinds(&replaced), [(SAMS, "furnish")]);
    let lost = decide(replaced.state.unwrap(), &Input::PortalLost { person: 1 });
    assert_eq!(kinds(&lost), [(SAMS, "depart")]);
    let inputs = [
        Input::PortalCreated {
            person: 1,
            room: room_id!("!second:hs.test").to_owned(),
        },
        Input::PortalReady { person: 1 },
        said(RoomRole::Origin, "alice", &one()),
    ];
    let said = after(lost.state.unwrap(), &inputs);
    assert_eq!(kinds(&said), [(ORIGIN, "carry")]);
    // Who is out of the conversation gets none.
    let gone = decide(going_on(), &Input::PortalFailed { person: 1 });
    let gone = decide(gone.state.unwrap(), &Input::PortalLost { person: 1 });
    assert!(gone.effects.is_empty(), "{gone:?}");
}

fn named(role: RoomRole, name: &str) -> Input {
    Input::Event {
        role,
        sender: OwnedUserId::try_from(format!("@{name}:hs.test")).unwrap(),
        event: one(),
        kind: EventKind::RoomInfo,
    }
}

#[test]
fn a_name_of_the_origin_is_every_portals_in_the_order_of_what_is_said() {
    let renamed = decide(going_on(), &named(RoomRole::Origin, "alice"));
    assert_eq!(kinds(&renamed), [(ORIGIN, "dress")]);
    // A portal that is still to be made is named when it is.
    let early = decide(new(), &named(RoomRole::Origin, "alice"));
    assert!(early.effects.is_empty(), "{early:?}");
    // Nobody but those whose words are carried.
    let stranger = decide(going_on(), &named(RoomRole::Origin, "kim"));
    assert!(stranger.effects.is_empty(), "{stranger:?}");
}

#[test]
fn a_name_of_a_portal_is_first_the_origins_and_then_the_other_portals() {
    let group = [
        kim_was_added(&[]),
        Input::PortalCreated {
            person: 2,
            room: room_id!("!kims:hs.test").to_owned(),
        },
    ];
    let group = after(going_on(), &group).state.unwrap();
    let renamed = decide(group.clone(), &named(PORTAL, "sam"));
    assert_eq!(kinds(&renamed), [(SAMS, "rename")]);
    // Once that is done, by whatever may be said there, it goes on, and never back.
    let done = decide(group, &Input::OriginRenamed { person: 1 });
    let cause = None;
    assert_eq!(
        done.effects,
        [(portal(), Effect::SyncPortalInfo { person: 2, cause })]
    );
    let ghost = decide(going_on(), &named(PORTAL, "_dm_alice"));
    assert!(ghost.effects.is_empty(), "{ghost:?}");
}

#[test]
fn in_a_group_everybody_is_carried_to_everybody_once() {
    let added = decide(going_on(), &kim_was_added(&[]));
    let state = added.state.unwrap();
    assert!(!state.direct);
    let bob = (
        owned_user_id!("@_dm_.pbob:hs.test"),
        "Someone".to_owned(),
        true,
    );
    let came = Input::Member {
        role: RoomRole::Origin,
        user: owned_user_id!("@bob:hs.test"),
        membership: "join".to_owned(),
        by_others: false,
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
fn nobody_can_make_us_make_ghosts_without_end() {
    let mut state = going_on();
    for number in 0..300 {
        let came = Input::Member {
            role: RoomRole::Origin,
            user: OwnedUserId::try_from(format!("@guest{number}:hs.test")).unwrap(),
            membership: "join".to_owned(),
            by_others: false,
            ghost: Some((
                OwnedUserId::try_from(format!("@_dm_.p{number}:hs.test")).unwrap(),
                "Someone".to_owned(),
                true,
            )),
        };
        let decision = decide(state, &came);
        // Nobody comes in without a word, and may read what they are not shown to read.
        let said = decision.effects.iter().filter(|(_, effect)| {
            matches!(effect, Effect::SendNotice { notice: Notice::Full, cause } if cause == "full")
        });
        assert_eq!(said.count(), if number < 98 { 0 } else { 2 }, "{number}");
        state = decision.state.unwrap();
    }
    assert_eq!(state.people.len(), 100);
}

/// The people of the origin are Alice and Bob, who came later.
fn with_bob() -> Conversation {
    let mut state = going_on();
    state
        .people
        .push(person("bob", Home::Origin { is_present: true }));
    state.direct = false;
    state
}

#[test]
fn what_somebody_new_has_missed_is_carried_to_them_alone_and_from_whoever_said_it() {
    let added = Input::Added {
        person: Box::new(masked("kim")),
        by: owned_user_id!("@bob:hs.test"),
        earlier: vec![one()],
    };
    let added = decide(with_bob(), &added);
    let carried: Vec<_> = added
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
    assert_eq!(carried, [(2, RoomRole::Portal(3), true)]);
    // Whoever was there before is not told of the others again.
    let said = added.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::SendNotice { notice, .. } => Some(notice.clone()),
        _ => None,
    });
    let handle = "@kim".to_owned();
    let said: Vec<_> = said.collect();
    assert_eq!(said, [Notice::MaskedInGroup { handle }]);
}

#[test]
fn whoever_takes_the_mask_off_leaves_a_group_to_the_others() {
    let closed = |name: &str| Input::HandleClosed {
        ghost: OwnedUserId::try_from(format!("@_dm_{name}:hs.test")).unwrap(),
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
    // By whom the asker is seen.
    assert!(decide(going_on(), &closed("alice")).state.unwrap().ended);
}

#[test]
fn a_portal_that_is_made_for_somebody_who_is_gone_is_left_again() {
    let closed = Input::HandleClosed {
        ghost: owned_user_id!("@_dm_kim:hs.test"),
    };
    let state = after(with_bob(), &[kim_was_added(&[one()]), closed]).state;
    let room = room_id!("!kims:hs.test").to_owned();
    let made = Input::PortalCreated {
        person: 3,
        room: room.clone(),
    };
    let made = decide(state.unwrap(), &made);
    assert_eq!(made.effects, [(room, Effect::LeaveRoom)]);
    // Until that is done nothing is carried from there.
    let said = decide(
        made.state.unwrap(),
        &said(RoomRole::Portal(3), "kim", &one()),
    );
    assert!(said.effects.is_empty(), "{said:?}");
}

#[test]
fn whoever_speaks_by_two_seats_of_a_handle_is_not_heard_by_it_once_it_is_given_up() {
    let mut alice = masked("alice");
    alice.ghost = owned_user_id!("@_dm_alice:hs.test");
    let added = Input::Added {
        person: Box::new(alice),
        by: owned_user_id!("@bob:hs.test"),
        earlier: Vec::new(),
    };
    let closed = Input::HandleClosed {
        ghost: owned_user_id!("@_dm_alice:hs.test"),
    };
    assert!(after(with_bob(), &[added, closed]).state.unwrap().ended);
}

#[test]
fn a_handle_that_another_one_holds_now_stands_for_them() {
    let group = decide(with_bob(), &kim_was_added(&[])).state.unwrap();
    let ghost = owned_user_id!("@_dm_kim:hs.test");
    let released = Input::HandleClosed {
        ghost: ghost.clone(),
    };
    let mut lea = masked("lea");
    lea.ghost = ghost.clone();
    let added = Input::Added {
        person: Box::new(lea),
        by: owned_user_id!("@alice:hs.test"),
        earlier: Vec::new(),
    };
    let state = after(group, &[released, added]).state.unwrap();
    assert!(!state.people[3].takes_part() && state.people[4].takes_part());
    assert!(state.needs(&ghost));
    let sent_away = Input::Member {
        role: RoomRole::Origin,
        user: ghost,
        membership: "leave".to_owned(),
        by_others: true,
        ghost: None,
    };
    let gone = decide(state, &sent_away);
    let leave = Effect::RemoveGhost {
        person: 4,
        sent_away: true,
    };
    assert!(gone.effects.contains(&(origin(), leave)), "{gone:?}");
    assert!(!gone.state.unwrap().people[4].takes_part());
}

#[test]
fn somebody_masked_who_was_sent_away_from_a_group_can_be_invited_again() {
    let sent_away = Input::Member {
        role: RoomRole::Origin,
        user: owned_user_id!("@_dm_kim:hs.test"),
        membership: "leave".to_owned(),
        by_others: true,
        ghost: None,
    };
    let gone = after(with_bob(), &[kim_was_added(&[]), sent_away]);
    let said: Vec<_> = kinds(&gone);
    assert!(said.contains(&(ORIGIN, "leave")), "{said:?}");
    let state = gone.state.unwrap();
    assert!(!state.ended && !state.people[3].takes_part());
    // Nothing that was on its way brings her back.
    for late in [
        Input::PortalReady { person: 3 },
        Input::PortalFailed { person: 3 },
        member(RoomRole::Portal(3), owned_user_id!("@kim:hs.test"), "join"),
    ] {
        let nothing = decide(state.clone(), &late);
        assert!(nothing.effects.is_empty(), "{late:?}: {nothing:?}");
        assert_eq!(nothing.state, Some(state.clone()), "{late:?}");
    }
    let back = decide(state, &kim_was_added(&[one()]));
    assert!(kinds(&back).contains(&(ORIGIN, "carry")), "{back:?}");
    assert_eq!(back.state.unwrap().people.len(), 4);
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
            // Sam's portal shows that Kim is not there any more.
            (ORIGIN, "furnish"),
        ]
    );
    let state = declined.state.unwrap();
    assert!(!state.ended);
    assert_eq!(state.targets_of(RoomRole::Origin), [PORTAL]);
}

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
    let heard = (role(), user(), event.clone()).prop_map(|(role, sender, event)| Input::Event {
        role,
        sender,
        event,
        kind: EventKind::Forwardable,
    });
    let named = (role(), user(), event.clone()).prop_map(|(role, sender, event)| Input::Event {
        role,
        sender,
        event,
        kind: EventKind::RoomInfo,
    });
    let memberships = ["join", "leave", "ban", "invite", "knock"];
    let member = (role(), user(), 0..memberships.len(), any::<bool>()).prop_map(
        move |(role, user, at, by_others)| {
            let name = (user.clone(), "Someone".to_owned(), true);
            Input::Member {
                role,
                user,
                by_others,
                membership: memberships[at].to_owned(),
                ghost: Some(name),
            }
        },
    );
    prop_oneof![
        8 => heard,
        4 => member,
        1 => named,
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
            role, to, by,
        }),
        1 => room.clone().prop_map(|room| Input::UpgradeFollowed { room }),
        1 => (room.clone(), user()).prop_map(|(to, by)| Input::UpgradeFailed { to, by }),
        1 => Just(Input::Started { earlier: Vec::new() }),
        1 => (0..4usize).prop_map(|person| Input::PortalReady { person }),
        1 => (0..4usize, room.clone()).prop_map(|(person, room)| Input::PortalCreated { person, room }),
        1 => (0..4usize).prop_map(|person| Input::PortalFailed { person }),
        1 => room.prop_map(|room| Input::OriginReplaced { room, earlier: Vec::new() }),
        1 => role().prop_map(|role| Input::RoomLeft { role }),
        1 => Just(kim_was_added(&[one()])),
        1 => Just(Input::End),
        1 => event.prop_map(|event| Input::NotForwarded {
            role: RoomRole::Origin, event, text: "no".to_owned(),
        }),
    ]
}

proptest! {
    /// Whatever happens in whatever order: nothing is carried into the room where it was said, or
    /// twice into one; each event says once that it is the last; nothing follows an end but
    /// leaving; and the places of people never change.
    #[test]
    fn whatever_happens_nothing_is_carried_twice_or_back(inputs in prop::collection::vec(anything(), 1..60)) {
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
            let Some(next) = decision.state else { break };
            prop_assert!(next.people.iter().map(|p| &p.user).take(people.len()).eq(people.iter()));
            prop_assert!(!ended || next.ended);
            state = next;
        }
    }
}
