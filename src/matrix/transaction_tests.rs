use ruma::{device_id, uint, user_id};

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/fixtures/transactions/", $name))
    };
}

/// Some fixtures are a list of transactions.
fn bodies(fixture: &[u8]) -> Vec<Box<RawValue>> {
    serde_json::from_slice(fixture)
        .unwrap_or_else(|_| vec![serde_json::from_slice(fixture).unwrap()])
}

#[test]
fn what_synapse_sent_is_read_without_dropping_anything() {
    for (name, fixture) in [
        ("1-to-device", &fixture!("1-to-device.json")[..]),
        ("2-event", fixture!("2-event.json")),
        ("3-presence", fixture!("3-m.presence.json")),
        ("4-typing", fixture!("4-m.typing.json")),
        ("receipts", fixture!("receipts.json")),
        ("device-lists", fixture!("device-lists.json")),
    ] {
        for body in bodies(fixture) {
            let transaction = Transaction::parse(body.get().as_bytes()).unwrap();
            assert_eq!(transaction.dropped, 0, "{name}");
        }
    }
}

#[test]
fn changed_devices_are_found() {
    let body = &bodies(fixture!("device-lists.json"))[0];
    let transaction = Transaction::parse(body.get().as_bytes()).unwrap();
    assert_eq!(
        transaction.device_lists_changed,
        [user_id!("@alice1795376392:hs.test")]
    );
}

#[test]
fn a_key_on_its_way_to_a_ghost_is_found() {
    let transaction = Transaction::parse(fixture!("1-to-device.json")).unwrap();
    assert_eq!(transaction.to_device.len(), 1);
    assert!(
        transaction.to_device[0]
            .get()
            .contains("@hdm_g1795376392:hs.test")
    );
    assert!(transaction.events.is_empty());
    let ghost = user_id!("@hdm_g1795376392:hs.test");
    let counts = &transaction.otk_counts[ghost][device_id!("GDEV")];
    assert_eq!(counts[&OneTimeKeyAlgorithm::SignedCurve25519], uint!(9));
    assert_eq!(
        transaction.fallback_types[ghost][device_id!("GDEV")],
        [OneTimeKeyAlgorithm::SignedCurve25519]
    );
}

#[test]
fn a_listed_device_without_a_number_has_no_keys_left() {
    let transaction = Transaction::parse(fixture!("1-to-device.json")).unwrap();
    let bot = &transaction.otk_counts[user_id!("@hdmbot:hs.test")];
    assert_eq!(
        bot[device_id!("BOTDEV")][&OneTimeKeyAlgorithm::SignedCurve25519],
        uint!(0)
    );
    // ... and a user who is not listed is not said to have none.
    assert!(
        !transaction
            .otk_counts
            .contains_key(user_id!("@other:hs.test"))
    );
}

#[test]
fn cross_signing_keys_listed_as_devices_do_not_hide_the_device() {
    let transaction = Transaction::parse(fixture!("1-to-device.json")).unwrap();
    let listed = &transaction.otk_counts[user_id!("@hdm_g1795376392:hs.test")];
    assert_eq!(listed.len(), 4, "one device and three cross-signing keys");
    assert!(listed.contains_key(device_id!("GDEV")));
}

#[test]
fn both_families_of_names_are_read() {
    let stable = br#"{"events":[{"a":1}],"to_device":[{"b":2}],
        "device_lists":{"changed":["@a:x","@a:x"],"left":["@z:x"]},
        "device_one_time_keys_count":{"@g:x":{"D":{"signed_curve25519":3}}},
        "device_unused_fallback_key_types":{"@g:x":{"D":["signed_curve25519"]}}}"#;
    let unstable = br#"{"events":[{"a":1}],"de.sorunome.msc2409.to_device":[{"b":2}],
        "org.matrix.msc3202.device_lists":{"changed":["@a:x"]},
        "org.matrix.msc3202.device_one_time_key_counts":{"@g:x":{"D":{"signed_curve25519":3}}},
        "org.matrix.msc3202.device_unused_fallback_key_types":{"@g:x":{"D":["signed_curve25519"]}}}"#;
    for body in [&stable[..], unstable] {
        let transaction = Transaction::parse(body).unwrap();
        assert_eq!(transaction.events.len(), 1);
        assert_eq!(transaction.to_device.len(), 1);
        assert_eq!(transaction.device_lists_changed, [user_id!("@a:x")]);
        assert_eq!(
            transaction.otk_counts[user_id!("@g:x")][device_id!("D")],
            BTreeMap::from([(OneTimeKeyAlgorithm::SignedCurve25519, uint!(3))])
        );
        assert_eq!(
            transaction.fallback_types[user_id!("@g:x")][device_id!("D")].len(),
            1
        );
        assert_eq!(transaction.dropped, 0);
    }
}

#[test]
fn one_malformed_item_never_fails_the_rest() {
    let body = br#"{
        "events":[{"type":"m.room.message"}, 7, null, "x", [], {"type":{"odd":true}}],
        "de.sorunome.msc2409.to_device":{"not":"a list"},
        "org.matrix.msc3202.device_lists":{"changed":["@ok:x","nonsense",9,"@also:x"],"left":7},
        "org.matrix.msc3202.device_one_time_keys_count":{
            "nobody":{"D":{}}, "@g:x":{"D":{"signed_curve25519":-1},"E":{"signed_curve25519":5}}, "@h:x":3},
        "org.matrix.msc3202.device_unused_fallback_key_types":{"@g:x":{"D":"no list","E":[]}},
        "ephemeral":"whatever", "something.new":{}}"#;
    let transaction = Transaction::parse(body).unwrap();
    assert_eq!(
        transaction.events.len(),
        2,
        "an odd event is still an event"
    );
    assert!(transaction.to_device.is_empty());
    assert_eq!(
        transaction.device_lists_changed,
        [user_id!("@also:x"), user_id!("@ok:x")]
    );
    let devices = &transaction.otk_counts[user_id!("@g:x")];
    assert_eq!(devices.len(), 1);
    assert_eq!(
        devices[device_id!("E")][&OneTimeKeyAlgorithm::SignedCurve25519],
        uint!(5)
    );
    assert_eq!(transaction.fallback_types[user_id!("@g:x")].len(), 1);
    assert_eq!(transaction.dropped, 4 + 1 + 2 + 3 + 1 + 1);
}

#[test]
fn bytes_that_are_no_text_spoil_only_their_own_event() {
    let mut body = br#"{"events":[{"body":"a"#.to_vec();
    body.extend([0xff, 0xfe]);
    body.extend(br#""},{"body":"\ud800 half a pair"},{"body":"fine"}]}"#);
    let transaction = Transaction::parse(&body).unwrap();
    assert_eq!(transaction.events.len(), 3);
}

#[test]
fn an_event_nested_beyond_reason_neither_fails_nor_exhausts_the_stack() {
    let deep = format!(
        r#"{{"events":[{{"a":{}{}}},{{"b":1}}]}}"#,
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    let transaction = Transaction::parse(deep.as_bytes()).unwrap();
    assert_eq!(transaction.events.len(), 1);
    assert_eq!(transaction.dead_letters.len(), 1);
}

#[test]
fn names_given_twice_and_nulls_are_no_reason_to_refuse() {
    let body =
        br#"{"events":[{"a":1}],"events":[{"a":1},{"a":2}],"to_device":null,"device_lists":null}"#;
    let transaction = Transaction::parse(body).unwrap();
    assert_eq!(
        transaction.events.len(),
        3,
        "what comes twice is known by its id"
    );
    assert_eq!(transaction.dropped, 0);
}

#[test]
fn what_is_no_object_is_refused_with_its_place() {
    for (body, at) in [(&b""[..], 0), (b"{\"events\":[", 11), (b"{\"a\" 1}", 5)] {
        let refused = Transaction::parse(body).unwrap_err();
        assert_eq!(refused, TransactionError::NotJson(NotJson { at }));
    }
    for body in [&b"[]"[..], b"null", b"\"text\"", b"7"] {
        let refused = Transaction::parse(body).unwrap_err();
        assert_eq!(refused, TransactionError::NotAnObject);
    }
    assert!(Transaction::parse(b"{}").unwrap().events.is_empty());
}

#[test]
fn a_large_transaction_comes_in_parts_with_the_messages_to_devices_last() {
    let event = format!("{{\"body\":\"{}\"}}", "x".repeat(50_000));
    let events = vec![event; 100].join(",");
    let body = format!("{{\"to_device\":[{{\"b\":1}}],\"events\":[{events}]}}");
    let mut reader = TransactionReader::default();
    let mut parts = Vec::new();
    for piece in body.as_bytes().chunks(10_000) {
        reader.feed(piece);
        parts.extend(reader.take_part());
    }
    assert_eq!(parts.len(), 2);
    assert!(
        parts
            .iter()
            .all(|part| part.more && part.to_device.is_empty())
    );
    let last = reader.finish().unwrap();
    assert!(!last.more);
    assert_eq!(last.to_device.len(), 1);
    let events: usize = parts
        .iter()
        .chain([&last])
        .map(|part| part.events.len())
        .sum();
    assert_eq!(events, 100);
}

#[test]
fn more_messages_to_devices_than_fit_are_set_aside_for_the_next_sync() {
    let message = |n: usize| {
        let pad = "x".repeat(100_000);
        format!("{{\"to_user_id\":\"@_dm_g{n}:x\",\"content\":\"{pad}\"}}")
    };
    let messages: Vec<String> = (0..100).map(message).collect();
    let body = format!("{{\"to_device\":[{}]}}", messages.join(","));
    let transaction = Transaction::parse(body.as_bytes()).unwrap();
    let (kept, left) = (transaction.to_device.len(), transaction.dead_letters);
    assert_eq!(kept + left.len(), 100);
    assert!(kept >= 80, "{kept}");
    assert_eq!(left[0].reason, DeadLetterReason::ToDeviceOverflow);
    let user = format!("@_dm_g{kept}:x");
    assert_eq!(
        left[0].user.as_ref().map(|user| user.as_str()),
        Some(&*user)
    );
}

#[test]
fn counts_and_lists_without_end_are_cut() {
    let users = (0..LISTED_MAX + 10).map(|n| format!("\"@u{n}:x\""));
    let users = users.collect::<Vec<_>>().join(",");
    let body = format!("{{\"device_lists\":{{\"changed\":[{users}]}}}}");
    let transaction = Transaction::parse(body.as_bytes()).unwrap();
    assert_eq!(transaction.device_lists_changed.len(), LISTED_MAX);
    assert!(transaction.all_device_lists_changed);
}
