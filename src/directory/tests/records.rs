//! The form of records on disk.

use ruma::room_id;
use serde_json::json;

use super::*;

#[test]
fn what_is_written_to_disk_keeps_its_form() {
    let mut record = HandleRecord::new(handle("Sam"), sam().to_owned(), 2, Timestamp(7));
    assert_eq!(
        serde_json::to_value(&record).unwrap(),
        json!({
            "handle": "Sam", "owner": "@samuel:example.org", "generation": 2, "mode": "open",
            "hide_addresses": true, "strict": false, "policy": { "direct": "everyone", "others": "refuse" },
            "discoverable": "exact", "claimed_at": 7, "verified_at": null, "state": "active",
        })
    );
    record.state = HandleState::Frozen {
        reason: FreezeReason::GhostNotOurs,
        since: Timestamp(8),
    };
    assert_eq!(
        serde_json::to_value(&record.state).unwrap(),
        json!({ "frozen": { "reason": "ghost_not_ours", "since": 8 } })
    );
    record.state = HandleState::Quarantined {
        until: Timestamp(9),
        revoked: true,
    };
    assert_eq!(
        serde_json::to_value(&record.state).unwrap(),
        json!({ "quarantined": { "until": 9, "revoked": true } })
    );
    let pair = tables::Pair {
        room: room_id!("!r:example.org").to_owned(),
        introduced_at: Timestamp(1),
        led_back_at: None,
    };
    assert_eq!(
        serde_json::to_value(pair).unwrap(),
        json!({ "room": "!r:example.org", "introduced_at": 1, "led_back_at": null })
    );
    let (usage, _) = Usage::default().attempt(
        Limit {
            most: 3,
            window: DAY,
        },
        Timestamp(5),
    );
    assert_eq!(
        serde_json::to_value(tables::StoredUsage {
            usage,
            expires: Timestamp(6)
        })
        .unwrap(),
        json!({ "usage": { "started": 0, "count": 1, "before": 0 }, "expires": 6 })
    );
    let expiring = tables::Expiring::Pair {
        asker: alice().to_owned(),
        handle: "sam".to_owned(),
        generation: 1,
    };
    assert_eq!(
        serde_json::to_value(expiring).unwrap(),
        json!({ "pair": { "asker": "@alice:example.org", "handle": "sam", "generation": 1 } })
    );
}

#[test]
fn a_masked_handle_has_keys_even_on_a_strict_server() {
    let mut record = HandleRecord::new(handle("sam"), sam().clone(), 1, NOW);
    assert!(!record.is_strict(false) && record.is_strict(true));
    record.strict = true;
    assert!(record.is_strict(false));
    // Its ghost passes everything on.
    record.mode = Mode::Masked;
    assert!(!record.is_strict(false) && !record.is_strict(true));
}
