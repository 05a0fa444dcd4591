//! What waits to be done, for the admin.

use std::collections::BTreeMap;

use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};

use super::records::{Inbox, Outbox, OwedNotices};
use crate::{
    clock::Timestamp,
    store::{Store, StoreError},
};

/// Maximum number of records of a queue that are counted.
const COUNTED_MAX: u64 = 100_000;
/// Maximum number of stuck effects that are named.
const STUCK_MAX: usize = 5;
/// How long an effect is tried until it counts as stuck, in milliseconds.
const STUCK_AFTER_MS: u64 = 5 * 60 * 1000;

/// What waits to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingWork {
    /// The number of items that have arrived and are not decided yet, at most 100,000.
    pub inbox: u64,
    /// For how many seconds the oldest item has been waiting, at most since the start.
    pub oldest_item_seconds: Option<u64>,
    /// The number of effects that are decided and not carried out yet, at most 100,000.
    pub outbox: u64,
    /// For how many seconds the oldest effect has been waiting.
    pub oldest_effect_seconds: Option<u64>,
    /// The number of ghosts that are still to be made or removed, at most 1,000.
    pub owed_ghosts: usize,
    /// The number of messages that the bot could not send yet.
    pub owed_notices: u64,
    /// The effects that have been tried for more than five minutes, one for each room, the oldest
    /// first: five at most.
    pub stuck: Vec<StuckEffect>,
}

/// The queues as the store shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueContents {
    /// What waits, but for the ghosts and the age of the oldest item.
    pub waiting: WaitingWork,
    /// The number of the oldest item in the inbox.
    pub oldest_item: Option<u64>,
}

/// An effect that has been tried for long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StuckEffect {
    /// The room.
    pub room: OwnedRoomId,
    /// The kind of effect.
    pub what: String,
    /// Since when it waits, in milliseconds since 1970.
    pub since: Timestamp,
}

/// Reads the queues, which are short while all is well.
pub fn read_queues(store: &Store, now: Timestamp) -> Result<QueueContents, StoreError> {
    let mut outbox = 0;
    let mut oldest_of_rooms: BTreeMap<OwnedRoomId, StuckEffect> = BTreeMap::new();
    for page in store.pages::<Outbox>(&[]) {
        for ((room, _), item) in page? {
            outbox += 1;
            let effect = StuckEffect {
                room: room.clone(),
                what: item.what.kind().to_owned(),
                since: item.since,
            };
            let oldest = oldest_of_rooms
                .entry(room)
                .or_insert_with(|| effect.clone());
            if effect.since < oldest.since {
                *oldest = effect;
            }
        }
        if outbox >= COUNTED_MAX {
            break;
        }
    }
    let mut waiting: Vec<StuckEffect> = oldest_of_rooms.into_values().collect();
    waiting.sort_by_key(|effect| effect.since);
    let age = |effect: &StuckEffect| now.0.saturating_sub(effect.since.0);
    let oldest_effect_seconds = waiting.first().map(|effect| age(effect) / 1000);
    waiting.retain(|effect| age(effect) >= STUCK_AFTER_MS);
    waiting.truncate(STUCK_MAX);
    let (mut inbox, mut oldest_item) = (0, None);
    for page in store.pages::<Inbox>(&[]) {
        for ((_, number), _) in page? {
            inbox += 1;
            oldest_item = Some(oldest_item.map_or(number, |oldest: u64| oldest.min(number)));
        }
        if inbox >= COUNTED_MAX {
            break;
        }
    }
    let mut owed_notices = 0;
    for page in store.pages::<OwedNotices>(&[]) {
        owed_notices += page?.len() as u64;
        if owed_notices >= COUNTED_MAX {
            break;
        }
    }
    Ok(QueueContents {
        waiting: WaitingWork {
            inbox,
            outbox,
            oldest_effect_seconds,
            owed_notices,
            stuck: waiting,
            ..WaitingWork::default()
        },
        oldest_item,
    })
}
