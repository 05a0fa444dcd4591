//! Calls with and without relays, told as short stories.

use ruma::{event_id, room_id};
use serde_json::json;

use super::*;

const RELAY: &str = "candidate:1 1 udp 1 198.51.100.9 5 typ relay raddr 0.0.0.0 rport 9";
const ALICE: (RoomRole, &str) = (RoomRole::Origin, "!origin:hs.test");
const SAM: (RoomRole, &str) = (RoomRole::Portal(1), "!portal:hs.test");

fn side(conversation: &str, (role, room): (RoomRole, &str)) -> Side {
    Side {
        conversation: ConversationId::new(conversation),
        role,
        room: OwnedRoomId::try_from(room).unwrap(),
        person: usize::from(role != RoomRole::Origin),
        event: event_id!("$one").to_owned(),
    }
}

fn description(name: &str, lines: &str) -> Value {
    json!({ "call_id": "c", name: { "type": name, "sdp": format!("v=0\r\n{lines}") } })
}

fn candidates(all: &[&str]) -> Value {
    let all: Vec<Value> = all.iter().map(|it| json!({ "candidate": it })).collect();
    json!({ "call_id": "c", "candidates": all })
}

fn says(
    watch: &mut CallWatch,
    who: (RoomRole, &str),
    kind: &str,
    content: &Value,
    now: u64,
) -> Option<Missing> {
    let signs = signs(kind, content).unwrap();
    watch.note(&signs, &side("talk", who), Timestamp(now))
}

fn room((_, room): (RoomRole, &str)) -> OwnedRoomId {
    OwnedRoomId::try_from(room).unwrap()
}

fn later() -> Timestamp {
    Timestamp(0) + RELAY_WAIT
}

#[test]
fn a_caller_who_shows_no_relay_is_told_once_when_the_wait_is_over() {
    let mut watch = CallWatch::default();
    let offer = description("offer", "");
    assert_eq!(says(&mut watch, ALICE, "m.call.invite", &offer, 0), None);
    assert_eq!(watch.next(&room(ALICE)), Some(later()));
    assert_eq!(watch.next(&room(SAM)), None);
    assert_eq!(
        watch.overdue(&room(ALICE), later() - Duration::from_millis(1)),
        []
    );
    assert_eq!(watch.overdue(&room(SAM), later()), []);
    let told = watch.overdue(&room(ALICE), later());
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].side.person, told[0].caller), (0, None));
    assert_eq!(watch.next(&room(ALICE)), None);
    // Nothing that comes later is reported.
    let end = candidates(&[""]);
    assert_eq!(says(&mut watch, ALICE, "m.call.candidates", &end, 1), None);
    assert_eq!(says(&mut watch, ALICE, "m.call.invite", &offer, 2), None);
    assert_eq!(watch.overdue(&room(ALICE), Timestamp(u64::MAX)), []);
}

#[test]
fn a_relay_counts_whenever_it_came() {
    let end = candidates(&[""]);
    let relay = candidates(&[RELAY]);
    for early in [true, false] {
        let mut watch = CallWatch::default();
        let offer = description("offer", "");
        let order = if early {
            [("m.call.candidates", &relay), ("m.call.invite", &offer)]
        } else {
            [("m.call.invite", &offer), ("m.call.candidates", &relay)]
        };
        for (kind, content) in order {
            assert_eq!(says(&mut watch, ALICE, kind, content, 0), None);
        }
        // An end by itself, in another batch.
        assert_eq!(says(&mut watch, ALICE, "m.call.candidates", &end, 1), None);
        assert_eq!(watch.next(&room(ALICE)), None);
        assert_eq!(watch.overdue(&room(ALICE), later()), []);
    }
    let mut watch = CallWatch::default();
    let offer = description("offer", &format!("a={RELAY}\r\na=end-of-candidates\r\n"));
    assert_eq!(says(&mut watch, ALICE, "m.call.invite", &offer, 0), None);
    assert_eq!(watch.next(&room(ALICE)), None);
}

#[test]
fn a_side_that_signals_the_end_of_its_candidates_is_told_at_once() {
    let mut watch = CallWatch::default();
    let offer = description("offer", "a=end-of-candidates\r\n");
    assert!(says(&mut watch, ALICE, "m.call.invite", &offer, 0).is_some());
    let mut watch = CallWatch::default();
    let offer = description("offer", "");
    assert_eq!(says(&mut watch, ALICE, "m.call.invite", &offer, 0), None);
    let end = candidates(&[""]);
    assert!(says(&mut watch, ALICE, "m.call.candidates", &end, 1).is_some());
    assert_eq!(says(&mut watch, ALICE, "m.call.candidates", &end, 2), None);
    assert_eq!(watch.next(&room(ALICE)), None);
}

#[test]
fn the_caller_learns_of_the_other_side_unless_they_were_told_already() {
    for relay_here in [true, false] {
        let mut watch = CallWatch::default();
        let line = format!("a={RELAY}\r\n");
        let offer = description("offer", if relay_here { &line } else { "" });
        says(&mut watch, ALICE, "m.call.invite", &offer, 0);
        let told = watch.overdue(&room(ALICE), later());
        assert_eq!(told.is_empty(), relay_here);
        let answer = description("answer", "");
        says(&mut watch, SAM, "m.call.answer", &answer, 0);
        let told = watch.overdue(&room(SAM), later());
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].side.role, SAM.0);
        assert_eq!(told[0].caller, relay_here.then_some(ALICE.0));
    }
}

#[test]
fn a_caller_without_a_relay_who_was_told_of_the_other_side_is_not_told_again() {
    let mut watch = CallWatch::default();
    let (offer, answer) = (
        description("offer", ""),
        description("answer", "a=end-of-candidates\r\n"),
    );
    says(&mut watch, ALICE, "m.call.invite", &offer, 0);
    let told = says(&mut watch, SAM, "m.call.answer", &answer, 1).unwrap();
    assert_eq!(told.caller, Some(ALICE.0));
    assert_eq!(watch.next(&room(ALICE)), None);
    assert_eq!(watch.overdue(&room(ALICE), later()), []);
}

#[test]
fn nothing_is_reported_of_a_call_that_is_over() {
    for (who, kind) in [(ALICE, "m.call.hangup"), (SAM, "m.call.reject")] {
        let mut watch = CallWatch::default();
        says(
            &mut watch,
            ALICE,
            "m.call.invite",
            &description("offer", ""),
            0,
        );
        says(&mut watch, who, kind, &json!({ "call_id": "c" }), 1);
        assert_eq!(watch.next(&room(ALICE)), None);
        assert_eq!(watch.overdue(&room(ALICE), later()), []);
        assert!(watch.calls.is_empty());
    }
}

#[test]
fn events_without_a_sign_of_relays_are_not_remembered() {
    let mut watch = CallWatch::default();
    let host = candidates(&["candidate:1 1 udp 1 192.168.1.20 5 typ host"]);
    says(&mut watch, ALICE, "m.call.candidates", &host, 0);
    says(
        &mut watch,
        ALICE,
        "m.call.select_answer",
        &json!({ "call_id": "c" }),
        0,
    );
    assert!(watch.calls.is_empty());
    assert_eq!(signs("m.room.message", &json!({ "call_id": "c" })), None);
    assert_eq!(signs("m.call.invite", &json!({})), None);
}

#[test]
fn the_calls_of_a_conversation_with_many_calls_are_forgotten_first() {
    let mut watch = CallWatch::default();
    let note = |watch: &mut CallWatch, conversation: &str, call: usize| {
        let content = json!({ "call_id": format!("{call}"), "offer": { "sdp": "v=0" } });
        let signs = signs("m.call.invite", &content).unwrap();
        watch.note(&signs, &side(conversation, ALICE), Timestamp(0));
    };
    note(&mut watch, "quiet", 0);
    for call in 0..2 * CALLS_MAX {
        note(&mut watch, "loud", call);
    }
    assert_eq!(watch.calls.len(), 1 + CALLS_PER_CONVERSATION_MAX);
    assert_eq!(watch.calls[0].conversation.as_str(), "quiet");
    for conversation in 0..2 * CALLS_MAX {
        note(&mut watch, &conversation.to_string(), 0);
    }
    assert_eq!(watch.calls.len(), CALLS_MAX);
    assert_eq!(watch.next(room_id!("!portal:hs.test")), None);
}
