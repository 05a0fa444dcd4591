use serde_json::{Value, json};

use super::*;

fn stripped(kind: &str, size: usize) -> Box<RawValue> {
    let event = json!({
        "type": kind, "state_key": "", "sender": "@eve:evil.org", "content": {"x": "y".repeat(size)},
    });
    serde_json::value::to_raw_value(&event).unwrap()
}

#[test]
fn an_event_of_ordinary_size_stays_as_it_came() {
    let text = r#"{"type": "m.room.message",  "content":{"body":"\ud83d"}}"#;
    assert_eq!(bounded_event(text).unwrap().get(), text);
}

#[test]
fn an_invite_is_reduced_to_what_is_used_of_it() {
    let state: Vec<_> = [
        ("m.room.create", 10),
        ("m.room.topic", 700 << 10),
        ("m.room.join_rules", 10),
        ("m.room.encryption", 5 << 10),
        ("org.example.junk", 10),
        ("m.room.member", 10),
    ]
    .into_iter()
    .map(|(kind, size)| stripped(kind, size))
    .collect();
    let invite = json!({
        "type": "m.room.member", "event_id": "$i", "room_id": "!r:evil.org", "sender": "@eve:evil.org",
        "state_key": "@_dm_sam:hs.test", "content": {"membership": "invite"},
        "unsigned": {"invite_room_state": state, "age": 5}, "invite_room_state": state,
    });
    let reduced: Value =
        serde_json::from_str(bounded_event(&invite.to_string()).unwrap().get()).unwrap();
    let kinds: Vec<&str> = reduced["unsigned"]["invite_room_state"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["m.room.create", "m.room.join_rules", "m.room.member"]
    );
    let deep = format!("[{}{}]", "[".repeat(500), "]".repeat(500));
    let nested = invite.to_string().replacen("[{", &format!("[{deep},{{"), 2);
    assert!(
        bounded_event(&nested).is_ok(),
        "no depth of what is dropped matters"
    );
    assert_eq!(reduced["content"], invite["content"]);
    assert_eq!(reduced["unsigned"]["age"], 5);
    assert_eq!(reduced["invite_room_state"], Value::Null);
}

#[test]
fn what_stays_too_large_is_a_dead_letter_without_its_content() {
    let event = json!({
        "type": "m.room.encrypted", "event_id": "$e", "room_id": "!r:x", "sender": "@a:x",
        "content": {"ciphertext": "c".repeat(ITEM_MAX)},
    });
    let letter = bounded_event(&event.to_string()).unwrap_err();
    assert_eq!(letter.reason, DeadLetterReason::EventTooLarge);
    assert_eq!(letter.room.as_ref().map(|room| room.as_str()), Some("!r:x"));
    assert_eq!(letter.event_type.as_deref(), Some("m.room.encrypted"));
    assert_eq!(letter.size, event.to_string().len() as u64);
    assert!(serde_json::to_string(&letter).unwrap().len() < 300);
}

#[test]
fn a_dead_letter_says_who_was_to_get_it() {
    let message = json!({
        "type": "m.room.encrypted", "sender": "@eve:evil.org", "to_user_id": "@_dm_.bot:hs.test",
        "content": {},
    });
    let letter = DeadLetter::of(DeadLetterReason::ToDeviceMalformed, &message.to_string());
    assert_eq!(
        letter.user.as_ref().map(|user| user.as_str()),
        Some("@_dm_.bot:hs.test")
    );
    let invite =
        json!({"type": "m.room.member", "state_key": "@_dm_sam:hs.test", "room_id": "!r:x"});
    let letter = DeadLetter::of(DeadLetterReason::EventTooLarge, &invite.to_string());
    assert_eq!(
        letter.user.as_ref().map(|user| user.as_str()),
        Some("@_dm_sam:hs.test")
    );
    let nonsense = DeadLetter::of(DeadLetterReason::EventMalformed, "{\"type\":[");
    assert_eq!(
        (nonsense.room, nonsense.user, nonsense.event_type),
        (None, None, None)
    );
    // Nested too deeply for a parser.
    let deep = format!(
        "{{\"room_id\":\"!r:x\",\"content\":{}{}}}",
        "[".repeat(9000),
        "]".repeat(9000)
    );
    let letter = DeadLetter::of(DeadLetterReason::EventMalformed, &deep);
    assert_eq!(letter.room.as_ref().map(|room| room.as_str()), Some("!r:x"));
}

#[test]
fn the_last_event_of_a_stripped_state_stays() {
    let mut state: Vec<_> = (0..80).map(|_| stripped("m.room.member", 1)).collect();
    state.push(stripped("m.room.member", 77));
    let text = serde_json::to_string(&state).unwrap();
    let StrippedState(kept) = serde_json::from_str(&text).unwrap();
    assert_eq!(kept.len(), STRIPPED_STATE_MAX);
    assert!(kept.last().unwrap().get().contains(&"y".repeat(77)));
    let many = format!("[{}1]", "1,".repeat(1_000_000));
    let StrippedState(kept) = serde_json::from_str(&many).unwrap();
    assert_eq!(kept.capacity(), 0);
    assert!(serde_json::from_str::<StrippedState>("7").is_err());
}

#[test]
fn every_reason_has_the_name_that_it_is_stored_under() {
    use DeadLetterReason::*;
    let all = [
        EventTooLarge,
        EventMalformed,
        ToDeviceTooLarge,
        ToDeviceMalformed,
        ToDeviceOverflow,
        EphemeralTooLarge,
        StateTooLarge,
        InviteWithoutAsker,
        GapUnreadable,
        GapTooLarge,
        SyncOverflow,
    ];
    let names: Vec<String> = all.iter().map(|reason| reason.to_string()).collect();
    let stored: Vec<String> = all
        .iter()
        .map(|reason| {
            serde_json::to_value(reason)
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(names, stored);
    insta::assert_snapshot!(names.join(" "), @"event_too_large event_malformed to_device_too_large to_device_malformed to_device_overflow ephemeral_too_large state_too_large invite_without_asker gap_unreadable gap_too_large sync_overflow");
}

#[test]
fn brackets_in_what_people_write_are_no_parts() {
    let pasted = json!({ "body": "{[\\\"{[".repeat(PARTS_MAX), "list": [{}, {}], "\\": [] });
    assert_eq!(parts_of(&pasted.to_string()), 5);
    assert_eq!(parts_of(&"[".repeat(PARTS_MAX + 1)), PARTS_MAX + 1);
}
