//! Messages: the rooms that they are forwarded to, and the notices about others.

use super::*;

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
    // A second message does not create it again, and waits behind the first in the same outbox.
    let second = decide(
        first.state.unwrap(),
        &said(RoomRole::Origin, "alice", &one()),
    );
    assert_eq!(kinds(&second), [(ORIGIN, "carry")]);
}

#[test]
fn messages_from_before_the_start_are_forwarded_in_order() {
    let two = event_id!("$two").to_owned();
    let earlier = vec![one(), two.clone()];
    let opened = decide(new(), &Input::Started { earlier });
    let forwarded: Vec<_> = opened
        .effects
        .iter()
        .filter_map(|(_, effect)| match effect {
            Effect::ForwardEvent { event, is_last, .. } => Some((event.clone(), *is_last)),
            _ => None,
        })
        .collect();
    assert_eq!(forwarded, [(one(), true), (two, true)]);
}

#[test]
fn a_forward_goes_into_the_outbox_of_the_room_where_it_was_sent() {
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
fn only_messages_of_the_people_of_a_room_are_forwarded() {
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
fn what_cannot_be_forwarded_is_answered() {
    for kind in [
        EventKind::Unencrypted,
        EventKind::MatrixRtc,
        EventKind::RoomOnly,
    ] {
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
fn a_request_to_verify_a_ghost_is_declined_by_that_ghost_and_answered() {
    let request = |of: OwnedUserId| Input::Event {
        role: PORTAL,
        sender: owned_user_id!("@sam:hs.test"),
        event: one(),
        kind: EventKind::Verification { of: Some(of) },
    };
    let declined = decide(going_on(), &request(owned_user_id!("@_dm_alice:hs.test")));
    let both = [(SAMS, "decline-verification"), (SAMS, "relay-say")];
    assert_eq!(kinds(&declined), both);
    let of_nobody_here = decide(going_on(), &request(owned_user_id!("@_dm_kim:hs.test")));
    assert_eq!(kinds(&of_nobody_here), [(SAMS, "relay-say")]);
}

fn sent(role: RoomRole, name: &str, kind: EventKind) -> Input {
    Input::Event {
        role,
        sender: OwnedUserId::try_from(format!("@{name}:hs.test")).unwrap(),
        event: one(),
        kind,
    }
}

#[test]
fn what_stays_in_a_room_is_explained_once_in_each_room() {
    let call = |role, name: &str| sent(role, name, EventKind::MatrixRtc);
    let mut state = going_on();
    for (role, name, kind, told) in [
        (PORTAL, "sam", EventKind::MatrixRtc, true),
        (PORTAL, "sam", EventKind::MatrixRtc, false),
        (PORTAL, "sam", EventKind::RoomOnly, true),
        (PORTAL, "sam", EventKind::RoomOnly, false),
        (RoomRole::Origin, "alice", EventKind::MatrixRtc, true),
        (RoomRole::Origin, "alice", EventKind::MatrixRtc, false),
    ] {
        let decision = decide(state, &sent(role, name, kind));
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
