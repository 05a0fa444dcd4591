//! The deletions among what waits in a room, so that what was deleted before it was sent is not
//! sent.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId};

use crate::{
    conversation::{Effect, RoomRole},
    engine::{
        event::RoomEvent,
        records::{Inbox, InboxItem, Outbox, QueuedEffect},
    },
    store::{Store, StoreError, Table, prefix},
};

/// Maximum number of deleted events that are remembered in a room. If there are more, an event may
/// be sent and deleted after that.
const REDACTED_MAX: usize = 10_000;
/// Maximum number of records that are read at once.
const PAGE_RECORDS: usize = 256;

/// The deletions among what waits in a room. A record is looked at again only while it is new.
#[derive(Default)]
pub(in crate::engine) struct WaitingRedactions(Mutex<DeletedEvents>);

#[derive(Default)]
struct DeletedEvents {
    /// The number of the effect that was looked at last. Only the room itself queues deletions.
    outbox: u64,
    /// The number up to which no arrival is missing.
    inbox: u64,
    /// Who deletes an event.
    by: HashMap<OwnedEventId, Vec<By>>,
    /// The people all of whose messages are deleted in a room, and the last effect that does it.
    removed: HashMap<(usize, RoomRole), u64>,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum By {
    /// A participant of the conversation.
    Person(usize),
    /// A user whose deletion is not handled yet.
    User(OwnedUserId),
}

impl DeletedEvents {
    fn add(&mut self, of: OwnedEventId, by: By) {
        if self.by.len() >= REDACTED_MAX {
            self.by.clear();
        }
        let all = self.by.entry(of).or_default();
        if !all.contains(&by) {
            all.push(by);
        }
    }

    fn update(
        &mut self,
        store: &Store,
        room: &OwnedRoomId,
        arrived: u64,
    ) -> Result<(), StoreError> {
        each_after::<Outbox>(store, room, self.outbox, |number, due| {
            self.outbox = number;
            let QueuedEffect::Conversation { effect, .. } = due.what else {
                return;
            };
            match effect {
                Effect::RedactCopy { of, sender, .. } => self.add(of, By::Person(sender)),
                Effect::RedactCopiesOf { person, target } => {
                    self.removed.insert((person, target), number);
                }
                _ => {}
            }
        })?;
        each_after::<Inbox>(store, room, self.inbox, |number, item| {
            if number < arrived {
                self.inbox = number;
            }
            if let Some((of, by)) = redaction(&item) {
                self.add(of, By::User(by));
            }
        })
    }
}

/// Passes the records of a room after this number to `visit`.
fn each_after<T: Table<Key = (OwnedRoomId, u64)>>(
    store: &Store,
    room: &OwnedRoomId,
    mut after: u64,
    mut visit: impl FnMut(u64, T::Value),
) -> Result<(), StoreError> {
    let prefix = prefix(room);
    loop {
        let from = (room.clone(), after);
        let page = store.scan::<T>(&prefix, Some(&from), PAGE_RECORDS)?;
        let is_last = page.len() < PAGE_RECORDS;
        for ((_, number), record) in page {
            after = number;
            visit(number, record);
        }
        if is_last {
            return Ok(());
        }
    }
}

impl WaitingRedactions {
    /// Looks at what has come since the last time. A number is given to an arrival before it is
    /// written, so one may appear below others that were looked at; but no event below `arrived`.
    pub(in crate::engine) fn update(
        &self,
        store: &Store,
        room: &OwnedRoomId,
        arrived: u64,
    ) -> Result<(), StoreError> {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.update(store, room, arrived)
    }

    /// Returns whether somebody who may do so deletes this event.
    pub(in crate::engine) fn has(&self, of: &EventId, may: impl Fn(&By) -> bool) -> bool {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.by.get(of).is_some_and(|by| by.iter().any(may))
    }

    /// Returns whether an effect behind this one deletes, in a room, all that a person has said.
    pub(in crate::engine) fn removes(&self, person: usize, target: RoomRole, effect: u64) -> bool {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = found.removed.get(&(person, target));
        removed.is_some_and(|at| *at > effect)
    }
}

/// Returns the event that an arrival redacts, and who redacts it.
fn redaction(arrived: &InboxItem) -> Option<(OwnedEventId, OwnedUserId)> {
    let (InboxItem::Event(json) | InboxItem::AfterGap(json)) = arrived else {
        return None;
    };
    // Most are encrypted, and need not be parsed.
    if !json.contains("m.room.redaction") {
        return None;
    }
    let event = RoomEvent::parse(json, None)?;
    let redacts = event.redacts.filter(|_| event.kind == "m.room.redaction")?;
    Some((redacts, event.sender))
}

#[cfg(test)]
mod tests {
    use ruma::{owned_event_id, room_id, user_id};
    use serde_json::json;

    use super::*;
    use crate::{store::Batch, testing::EventFactory};

    #[test]
    fn a_deletion_that_is_written_late_is_found() {
        let (store, room) = (Store::in_memory(), room_id!("!room:hs.test").to_owned());
        let write = |number, item: &InboxItem| {
            let mut batch = Batch::new();
            batch.put::<Inbox>(&(room.clone(), number), item).unwrap();
            store.apply(batch).unwrap();
        };
        let of = owned_event_id!("$of");
        let mut redaction =
            EventFactory::room(&room).event("m.room.redaction", "$redaction", json!({}));
        redaction["redacts"] = json!(of);
        let redaction = InboxItem::Event(redaction.to_string());
        let user = user_id!("@_dm_sam:hs.test").to_owned();

        let waiting = WaitingRedactions::default();
        let is_found = |arrived| {
            waiting.update(&store, &room, arrived).unwrap();
            waiting.has(&of, |_| true)
        };
        // The key has the higher number and is written first.
        write(101, &InboxItem::RoomKeyArrived { user });
        assert!(!is_found(100));
        write(100, &redaction);
        assert!(is_found(100));
        assert!(is_found(102));
        let by = |waiting: &WaitingRedactions| waiting.0.lock().unwrap().by[&of].len();
        assert_eq!(by(&waiting), 1);
        assert_eq!(waiting.0.lock().unwrap().inbox, 101);
    }
}
