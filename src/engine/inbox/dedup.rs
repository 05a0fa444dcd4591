//! Remembers for at least a week what has arrived, so that nothing is accepted twice.
//!
//! What arrives is written to the partition of the week. A partition is deleted as a whole when the
//! second one after it begins: a record takes 40 bytes, and none is needed to find the old ones.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use ruma::{EventId, OwnedEventId, OwnedUserId, RoomId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use sha2::{Digest as _, Sha256};

use crate::{
    clock::Timestamp,
    engine::{
        Engine,
        event::RoomEvent,
        records::{
            EventCopies, Partition, Seen, SeenEvent, SeenPartition, SeenToDevice, copies_of,
        },
    },
    store::{Batch, Digest, Entry, Store, StoreError, Table},
};

/// How long what has arrived is remembered at least. It is forgotten within two times this.
pub(in crate::engine) const SEEN_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Maximum difference between two clocks. An event that is younger than [`SEEN_FOR`] by this much
/// and not known has never arrived.
pub(in crate::engine) const CLOCKS: Duration = Duration::from_secs(24 * 60 * 60);

/// Maximum number of arrivals that are forgotten in one write.
const FORGET_BATCH_RECORDS: usize = 1000;

/// The key of the only record of [`SeenPartition`].
const NOW: u8 = 0;

/// A to-device message: the parts that are read before its machine reads it.
#[derive(Deserialize)]
pub(in crate::engine) struct ToDeviceMessage<'a> {
    #[serde(borrow)]
    pub(in crate::engine) to_user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    sender: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

/// Returns a digest by which a to-device message is recognised: transactions and `/sync` format the
/// same message differently, but recipient, sender, type and content stay.
pub(in crate::engine) fn digest(user: &OwnedUserId, message: &ToDeviceMessage<'_>) -> Digest {
    // `serde_json` sorts the keys of objects, so equal values give equal bytes. No machine can read
    // what it cannot, so such content is compared byte by byte.
    let canonical = |json: Option<&RawValue>| {
        let json = json.map_or("null", RawValue::get);
        serde_json::from_str::<Value>(json).map_or_else(|_| json.to_owned(), |it| it.to_string())
    };
    let mut hash = Sha256::new();
    hash.update(user.as_bytes());
    for part in [message.sender, message.kind, message.content] {
        let bytes = canonical(part);
        hash.update([0]);
        hash.update(bytes.len().to_be_bytes());
        hash.update(bytes.as_bytes());
    }
    Digest::of_hash(hash)
}

/// The events that rooms are handling although they have not arrived: those of a history. If one of
/// them was accepted meanwhile, it would be noted as not handled after it had been. Each room
/// handles one at a time. The value says whether the event came meanwhile: the homeserver does not
/// push it again, so it must not get lost if it cannot be handled.
#[derive(Default)]
pub(in crate::engine) struct EventsInHand(Mutex<HashMap<OwnedEventId, bool>>);

impl EventsInHand {
    fn events(&self) -> MutexGuard<'_, HashMap<OwnedEventId, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event that a room is handling. It can be accepted again once this is dropped.
pub(in crate::engine) struct InHand {
    engine: Engine,
    event: OwnedEventId,
}

impl InHand {
    /// Releases the event, and returns whether it came while it was in hand.
    pub(in crate::engine) fn release(self) -> bool {
        let came_meanwhile = self.engine.0.in_hand.events().remove(&self.event);
        came_meanwhile.unwrap_or_default()
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.engine.0.in_hand.events().remove(&self.event);
    }
}

impl Engine {
    /// Keeps an event that has not arrived from being accepted until what it leads to is written.
    pub(in crate::engine) async fn take_in_hand(&self, event: &OwnedEventId) -> InHand {
        // It may be in what is being accepted at this moment.
        let _accepting = self.0.inbox_lock.lock().await;
        self.0.in_hand.events().insert(event.clone(), false);
        InHand {
            engine: self.clone(),
            event: event.clone(),
        }
    }

    /// Returns whether an arriving event is known. If it is being handled, notes that it has
    /// arrived. The caller holds the inbox lock.
    pub(in crate::engine) fn note_arrival(&self, event: &OwnedEventId) -> Result<bool, StoreError> {
        if let Some(came_meanwhile) = self.0.in_hand.events().get_mut(event) {
            *came_meanwhile = true;
            return Ok(true);
        }
        // In this order: what is no longer in hand is written.
        self.has_arrived(event)
    }

    /// Returns the number of the partition for what arrives now.
    fn partition(&self) -> u32 {
        self.0.partition.load(Ordering::Relaxed)
    }

    /// Returns the partitions in which a record can be, the newer one first.
    fn partitions(&self) -> impl Iterator<Item = u32> {
        let now = self.partition();
        [Some(now), now.checked_sub(1)].into_iter().flatten()
    }

    /// Returns when an event arrived, if it has, and whether it was handled.
    pub(in crate::engine) fn seen(&self, event: &EventId) -> Result<Option<SeenEvent>, StoreError> {
        let event = Digest::of(event);
        for partition in self.partitions() {
            let seen = self.store().get::<Seen>(&(partition, event))?;
            if seen.is_some() {
                return Ok(seen);
            }
        }
        Ok(None)
    }

    /// Returns whether an event has arrived.
    pub(in crate::engine) fn has_arrived(&self, event: &EventId) -> Result<bool, StoreError> {
        self.is_known::<Seen>(Digest::of(event))
    }

    /// Returns whether a to-device message has arrived.
    pub(in crate::engine) fn has_arrived_to_device(
        &self,
        message: Digest,
    ) -> Result<bool, StoreError> {
        self.is_known::<SeenToDevice>(message)
    }

    fn is_known<T: Table<Key = (u32, Digest)>>(&self, digest: Digest) -> Result<bool, StoreError> {
        for partition in self.partitions() {
            if self.store().contains::<T>(&(partition, digest))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether an event is so old that its arrival may have been forgotten. One that has no
    /// valid time, or one far in the future, may be of any age.
    pub(in crate::engine) fn may_be_forgotten(&self, event: &RoomEvent) -> bool {
        let now = self.now();
        let horizon = now - (SEEN_FOR - CLOCKS);
        let is_new = |at: Timestamp| (horizon..=now + CLOCKS).contains(&at);
        !event.sent_at.is_some_and(is_new)
    }

    /// Returns whether an event of this room was forwarded.
    pub(in crate::engine) fn has_copies(
        &self,
        room: &RoomId,
        event: &EventId,
    ) -> Result<bool, StoreError> {
        let copies = copies_of(&Digest::of(room), &Digest::of(event));
        Ok(!self
            .store()
            .scan::<EventCopies>(&copies, None, 1)?
            .is_empty())
    }

    pub(in crate::engine) fn mark_seen(
        &self,
        event: &EventId,
        handled: bool,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        self.mark_seen_as(event, self.seen(event)?, handled, batch)
    }

    /// Notes an event as handled or not, given its present record.
    pub(in crate::engine) fn mark_seen_as(
        &self,
        event: &EventId,
        seen: Option<SeenEvent>,
        handled: bool,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let at = seen.map_or_else(|| self.now(), |seen| seen.at);
        // A record of the partition before is left there: this one is found first.
        let key = (self.partition(), Digest::of(event));
        batch.put::<Seen>(&key, &SeenEvent { at, handled })
    }

    /// Notes that a to-device message has arrived.
    pub(in crate::engine) fn mark_seen_to_device(
        &self,
        message: Digest,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        batch.put::<SeenToDevice>(&(self.partition(), message), &())
    }

    /// Begins a new partition if a week has passed, and deletes those that are old enough: no
    /// homeserver sends again what arrived more than a week ago.
    pub(in crate::engine) async fn forget_old_arrivals(&self) -> Result<(), StoreError> {
        let now = self.now();
        let partition = load_partition(self.store())?;
        // A clock that was ahead must not keep the partition from ending.
        if partition.begun_at > now || now.since(partition.begun_at) >= SEEN_FOR {
            let is_over = partition.begun_at <= now;
            let next = Partition {
                number: partition.number + u32::from(is_over),
                begun_at: now,
            };
            let mut batch = Batch::new();
            batch.put::<SeenPartition>(&NOW, &next)?;
            self.store().commit(batch).await?;
            self.0.partition.store(next.number, Ordering::Relaxed);
        }
        let oldest = self.partition().saturating_sub(1);
        self.forget_before::<Seen>(oldest).await?;
        self.forget_before::<SeenToDevice>(oldest).await
    }

    /// Deletes what arrived before a partition began.
    async fn forget_before<T: Table<Key = (u32, Digest)>>(
        &self,
        partition: u32,
    ) -> Result<(), StoreError> {
        loop {
            let oldest: Vec<Entry<T>> = self.store().scan::<T>(&[], None, FORGET_BATCH_RECORDS)?;
            let mut batch = Batch::new();
            for (key, _) in oldest.iter().filter(|(key, _)| key.0 < partition) {
                batch.delete::<T>(key);
            }
            if batch.is_empty() {
                return Ok(());
            }
            self.store().commit(batch).await?;
        }
    }
}

/// Returns the present partition of what arrives.
fn load_partition(store: &Store) -> Result<Partition, StoreError> {
    Ok(store.get::<SeenPartition>(&NOW)?.unwrap_or_default())
}

/// Returns the number of the partition with which an engine starts, and begins the first one.
pub(in crate::engine) fn first_partition(store: &Store, now: Timestamp) -> Result<u32, StoreError> {
    if let Some(partition) = store.get::<SeenPartition>(&NOW)? {
        return Ok(partition.number);
    }
    let first = Partition {
        number: 0,
        begun_at: now,
    };
    let mut batch = Batch::new();
    batch.put::<SeenPartition>(&NOW, &first)?;
    store.apply(batch)?;
    Ok(first.number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(user: &OwnedUserId, message: &Value) -> Digest {
        super::digest(user, &serde_json::from_str(&message.to_string()).unwrap())
    }

    #[test]
    fn a_transaction_and_a_sync_give_the_same_digest() {
        let user: OwnedUserId = "@_dm_sam:example.org".try_into().unwrap();
        let content = json!({ "b": 1, "a": { "y": 2, "x": 3 } });
        let pushed = json!({
            "type": "m.room.encrypted", "sender": "@alice:example.org", "content": content,
            "to_user_id": user, "to_device_id": "DEV",
        });
        let synced = json!({
            "sender": "@alice:example.org", "content": content, "type": "m.room.encrypted",
        });
        assert_eq!(digest(&user, &pushed), digest(&user, &synced));
        let other: OwnedUserId = "@_dm_kim:example.org".try_into().unwrap();
        assert_ne!(digest(&user, &pushed), digest(&other, &pushed));
    }

    #[test]
    fn fields_cannot_be_shifted_into_one_another() {
        let user: OwnedUserId = "@_dm_sam:example.org".try_into().unwrap();
        let one = json!({ "sender": "ab", "type": "c", "content": {} });
        let two = json!({ "sender": "a", "type": "bc", "content": {} });
        assert_ne!(digest(&user, &one), digest(&user, &two));
    }
}
