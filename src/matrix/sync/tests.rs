use serde_json::{Value, json};

use std::collections::BTreeMap;

use super::*;
use crate::matrix::bounds::{DeadLetter, DeadLetterReason};

fn read(body: &str) -> (Vec<SyncPage>, Vec<DeadLetter>) {
    let mut reader = SyncReader::new(ruma::user_id!("@_dm_sam:hs.test"));
    let (mut pages, mut letters) = (Vec::new(), Vec::new());
    for piece in body.as_bytes().chunks(10_000) {
        reader.feed(piece);
        letters.extend(reader.take_dead_letters());
        pages.extend(reader.take_page());
    }
    let (last, at_its_end) = reader.finish().unwrap();
    letters.extend(at_its_end);
    pages.push(last);
    (pages, letters)
}

fn event(n: usize, size: usize) -> Value {
    json!({"event_id": format!("$e{n}"), "type": "m.room.message", "content": {"x": "y".repeat(size)}})
}

#[test]
fn a_large_sync_comes_in_pages_of_whole_rooms() {
    let rooms: serde_json::Map<String, Value> = (0..100)
        .map(|room| {
            let events: Vec<Value> = (0..50).map(|n| event(n, 1000)).collect();
            let timeline =
                json!({"events": events, "limited": true, "prev_batch": format!("p{room}")});
            (format!("!r{room}:x"), json!({"timeline": timeline}))
        })
        .collect();
    let body = json!({"next_batch": "n", "rooms": {"join": rooms}}).to_string();
    assert!(body.len() > 5_000_000);
    let (pages, letters) = read(&body);
    assert!(letters.is_empty());
    assert!(pages.len() >= 3, "{} pages", pages.len());
    let joined: Vec<_> = pages.iter().flat_map(|page| &page.joined).collect();
    assert_eq!(joined.len(), 100);
    for (id, room) in joined {
        assert_eq!(room.timeline.len(), 50, "{id}");
        assert!(room.limited);
        assert_eq!(
            room.prev_batch.as_deref(),
            Some(&*id.as_str()[1..].replace('r', "p").replace(":x", ""))
        );
    }
    let last = pages.last().unwrap();
    assert_eq!(last.next_batch.as_deref(), Some("n"));
    assert!(pages[0].next_batch.is_none());
}

#[test]
fn a_room_with_too_much_is_read_by_its_history_and_the_others_go_on() {
    let events: Vec<Value> = (0..60).map(|n| event(n, 100_000)).collect();
    let body = json!({"next_batch": "n", "rooms": {"join": {
        "!a:x": {"timeline": {"events": [event(1, 10)]}},
        "!z:x": {"timeline": {"events": events, "limited": false, "prev_batch": "p"}},
        "!b:x": {"timeline": {"events": [event(2, 10)], "limited": true, "prev_batch": "q"}},
    }}});
    let (pages, letters) = read(&body.to_string());
    let rooms: BTreeMap<_, _> = pages.into_iter().flat_map(|page| page.joined).collect();
    let big = &rooms[ruma::room_id!("!z:x")];
    assert!(big.timeline.is_empty() && big.limited && big.prev_batch.is_none());
    assert_eq!(rooms[ruma::room_id!("!a:x")].timeline.len(), 1);
    assert_eq!(
        rooms[ruma::room_id!("!b:x")].prev_batch.as_deref(),
        Some("q")
    );
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, DeadLetterReason::SyncOverflow);
}

#[test]
fn messages_and_events_over_their_bound_are_set_aside_and_the_token_is_kept() {
    let large = |n: usize| json!({"type": "m.room.encrypted", "sender": "@eve:evil.org", "content": {"x": "y".repeat(n)}});
    let body = json!({
        "to_device": {"events": [large(10), large(1 << 20), large(20)]},
        "rooms": {"join": {"!a:x": {"timeline": {"events": [event(1, 1 << 20), event(2, 1)]}}}},
        "next_batch": "after",
    });
    let (pages, letters) = read(&body.to_string());
    assert_eq!(pages.len(), 1);
    assert_eq!(pages[0].to_device.len(), 2);
    assert_eq!(pages[0].to_device_count, 3);
    assert_eq!(pages[0].joined[ruma::room_id!("!a:x")].timeline.len(), 1);
    assert_eq!(pages[0].next_batch.as_deref(), Some("after"));
    let reasons: Vec<_> = letters.iter().map(|letter| letter.reason).collect();
    assert!(reasons.contains(&DeadLetterReason::ToDeviceTooLarge));
    assert!(reasons.contains(&DeadLetterReason::EventTooLarge));
    for letter in letters {
        assert_eq!(letter.user.unwrap(), "@_dm_sam:hs.test");
    }
}

#[test]
fn a_member_event_too_large_to_be_kept_still_says_who_invites() {
    let member = |sender: &str, size: usize| {
        json!({"type": "m.room.member", "state_key": "@_dm_sam:hs.test", "sender": sender,
            "content": {"membership": "invite", "reason": "r".repeat(size)}})
    };
    let mut state = vec![
        member("@alice:hs.test", 1),
        json!({"type": "m.room.topic", "content": {"topic": "t".repeat(500_000)}}),
    ];
    state.extend((0..200).map(|n| json!({"type": format!("junk{n}"), "state_key": ""})));
    state.push(member("@eve:evil.org", 9000));
    let body = json!({"next_batch": "n", "rooms": {"invite": {"!i:x": {"invite_state": {"events": state}}}}});
    let (pages, _) = read(&body.to_string());
    let state = &pages[0].invited[ruma::room_id!("!i:x")];
    let senders: Vec<String> = state
        .iter()
        .map(|event| {
            serde_json::from_str::<Value>(event.get()).unwrap()["sender"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(senders, ["@alice:hs.test", "@eve:evil.org"]);
}

#[test]
fn a_sync_without_a_token_or_cut_short_is_an_error() {
    for body in [
        "{}",
        "{\"next_batch\":7}",
        "{\"next_batch\":\"n\"",
        "",
        "<html>",
    ] {
        let mut reader = SyncReader::new(ruma::user_id!("@_dm_sam:hs.test"));
        reader.feed(body.as_bytes());
        assert!(
            matches!(reader.finish(), Err(MatrixError::Unexpected(_))),
            "{body}"
        );
    }
}

#[test]
fn an_invite_with_any_number_of_entries_is_read_once() {
    let entry = |n: usize| {
        json!({"type": "m.room.member", "state_key": format!("@m{n}:evil.org"), "sender": "@eve:evil.org",
            "content": {"membership": "join", "x": "y".repeat(3900)}})
    };
    let mut state: Vec<Value> = (0..49).map(entry).collect();
    state.extend(
        (0..200_000).map(|n| json!({"type": "t", "state_key": n, "sender": "@e:x", "content": {}})),
    );
    state.push(
        json!({"type": "m.room.member", "state_key": "@_dm_sam:hs.test", "sender": "@eve:evil.org",
        "content": {"membership": "invite"}}),
    );
    let body = json!({"next_batch": "n", "rooms": {"invite": {"!i:x": {"invite_state": {"events": state}}}}});
    let body = body.to_string();
    let began = tokio::time::Instant::now();
    let (pages, _) = read(&body);
    // Parsed anew with each entry, the fifty that are kept would take many minutes.
    assert!(began.elapsed() < std::time::Duration::from_secs(60));
    let state = &pages[0].invited[ruma::room_id!("!i:x")];
    assert_eq!(state.len(), 50);
    assert!(state[49].get().contains("@_dm_sam:hs.test"));
}
