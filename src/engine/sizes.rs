//! What the store consists of, in words for the admin.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::records::{
    ConversationsByGhost, CopyOrigins, CopyPacks, DeadLetters, DirectConversations, EventCopies,
    Inbox, Outbox, PendingNotices, QuotedEvents, RetainedEvents, Rooms, Seen, SeenBlocks,
    SeenPacks, ToDevice,
};
use crate::{
    engine::records::{ActiveRoomsByGhost, Conversations, LostSessions},
    store::{Store, StoreError, Table},
};

/// A part of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorePart {
    /// What its records are.
    pub what: String,
    /// The number of records.
    pub records: u64,
    /// Size of their keys and values in bytes. The database takes two to three times as much.
    pub bytes: u64,
}

/// Returns what the records of a table are.
fn describe(table: u8) -> &'static str {
    match table {
        Inbox::ID | ToDevice::ID | Outbox::ID | RetainedEvents::ID | PendingNotices::ID => {
            "events and messages that wait"
        }
        Seen::ID | SeenBlocks::ID | SeenPacks::ID => "what has arrived within two weeks",
        EventCopies::ID | CopyPacks::ID | CopyOrigins::ID => {
            "copies of messages in masked conversations"
        }
        Conversations::ID | DirectConversations::ID | ConversationsByGhost::ID => {
            "masked conversations"
        }
        Rooms::ID | ActiveRoomsByGhost::ID | QuotedEvents::ID => "rooms and introductions",
        DeadLetters::ID => "what was set aside",
        LostSessions::ID | 2..=8 | 70..=79 => "keys of the ghosts and the bot",
        30..=49 => "handles, blocks, requests and limits",
        _ => "everything else",
    }
}

/// Returns the parts of a store, the largest first. Reads every record, and blocks.
pub fn store_parts(store: &Store) -> Result<Vec<StorePart>, StoreError> {
    let mut parts: BTreeMap<&str, StorePart> = BTreeMap::new();
    for (table, size) in store.table_sizes()? {
        let what = describe(table);
        let part = parts.entry(what).or_insert_with(|| StorePart {
            what: what.to_owned(),
            records: 0,
            bytes: 0,
        });
        part.records += size.records;
        part.bytes += size.bytes;
    }
    let mut parts: Vec<StorePart> = parts.into_values().collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use ruma::event_id;

    use super::*;
    use crate::testing::{self, TestEngine};

    #[tokio::test]
    async fn the_parts_of_a_store_say_what_grows() {
        let TestEngine { engine, store, .. } = testing::engine().build().await;
        let before = store_parts(&store).unwrap();
        let mut batch = crate::store::Batch::new();
        for n in 0..500 {
            let event = format!("{}{n}", event_id!("$event"));
            let event = event.as_str().try_into().unwrap();
            engine.mark_seen(event, true, &mut batch).unwrap();
        }
        store.apply(batch).unwrap();
        let arrived = |parts: &[StorePart]| {
            let mut parts = parts.iter();
            parts
                .find(|part| part.what == "what has arrived within two weeks")
                .map_or((0, 0), |part| (part.records, part.bytes))
        };
        let after = store_parts(&store).unwrap();
        let [(records, _), (more, bytes)] = [arrived(&before), arrived(&after)];
        // With one for each block.
        assert_eq!(more - records, 503);
        assert!((15_000..20_000).contains(&bytes), "{bytes}");
        let all: u64 = after.iter().map(|part| part.records).sum();
        assert_eq!(all, store.count_records().unwrap());
        assert!(after.is_sorted_by_key(|part| std::cmp::Reverse(part.bytes)));
    }
}
