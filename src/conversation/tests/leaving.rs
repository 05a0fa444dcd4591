//! People who leave, decline or come back, and the end of a conversation.

use super::*;

#[test]
fn an_owner_who_left_after_joining_is_invited_again_by_the_next_message_and_only_then() {
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

/// The homeserver pushes it although nobody in the room sees it.
#[test]
fn what_somebody_says_who_is_no_longer_in_the_room_is_not_passed_on() {
    let alice = owned_user_id!("@alice:hs.test");
    let left = decide(going_on(), &member(RoomRole::Origin, alice, "ban"));
    let state = left.state.unwrap();
    let late = decide(state, &said(RoomRole::Origin, "alice", &one()));
    assert!(late.effects.is_empty(), "{late:?}");
}

#[test]
fn an_owner_who_left_and_starts_a_chat_is_invited_again() {
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
    // A person who is still there needs nothing but the link.
    let there = decide(going_on(), &back);
    assert!(there.effects.is_empty());
    assert_eq!(there.state.unwrap().last_return_at, Some(Timestamp(9)));
}

#[test]
fn an_owner_who_declines_ends_the_conversation_and_the_asker_hears_no_more_than_that() {
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
fn a_decline_that_comes_before_the_portal_is_known_to_be_ready_counts() {
    let sam = owned_user_id!("@sam:hs.test");
    let created = Input::PortalCreated {
        person: 1,
        room: portal(),
    };
    let started = Input::Started {
        earlier: vec![one()],
    };
    let ready = Input::PortalReady { person: 1 };
    let pending = after(new(), &[started, created]).state.unwrap();
    let declined = decide(pending.clone(), &member(PORTAL, sam.clone(), "leave"));
    let ended = decide(going_on(), &Input::End);
    assert_eq!(declined.effects, ended.effects);
    let late = decide(declined.state.clone().unwrap(), &ready);
    assert_eq!(late.state, declined.state);

    // A person who has joined and left is invited by the next message, and not before.
    let inputs = [
        member(PORTAL, sam.clone(), "join"),
        member(PORTAL, sam.clone(), "leave"),
        ready.clone(),
    ];
    let left = after(pending, &inputs).state.unwrap();
    let next = decide(left.clone(), &said(RoomRole::Origin, "alice", &one()));
    assert_eq!(kinds(&next), [(ORIGIN, "furnish"), (ORIGIN, "carry")]);
    // One whose portal is repaired is invited, and may decline that.
    let inviting = Input::InvitingOwner { person: 1 };
    let again = after(left, &[inviting, ready]).state.unwrap();
    let declined = decide(again, &member(PORTAL, sam, "leave"));
    assert_eq!(declined.effects, ended.effects);
}

#[test]
fn ghosts_are_deleted_when_the_last_room_is_left_and_nothing_is_kept_then() {
    let ended = decide(going_on(), &Input::End).state.unwrap();
    // What is sent meanwhile reaches nobody.
    let said = decide(ended.clone(), &said(RoomRole::Origin, "alice", &one()));
    assert!(said.effects.is_empty());
    let first = decide(ended, &Input::RoomLeft { room: origin() });
    assert!(first.effects.is_empty(), "{first:?}");
    let last = decide(first.state.unwrap(), &Input::RoomLeft { room: portal() });
    assert_eq!(last.state, None);
    let ghosts = vec![Ghost::new(owned_user_id!("@_dm_alice:hs.test"))];
    assert_eq!(last.effects, [(portal(), Effect::DeleteGhosts { ghosts })]);
}

#[test]
fn an_asker_who_leaves_finds_the_same_portal_again() {
    let left = decide(
        going_on(),
        &member(RoomRole::Origin, owned_user_id!("@alice:hs.test"), "leave"),
    );
    assert_eq!(kinds(&left), [(SAMS, "relay-say"), (ORIGIN, "depart")]);
    let gone = decide(left.state.unwrap(), &Input::RoomLeft { room: origin() });
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
fn the_former_origin_is_left_when_the_asker_comes_back_with_another_room() {
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
