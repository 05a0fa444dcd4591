//! Remembers for at least a week what has arrived, so that nothing is accepted twice.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ruma::{EventId, OwnedEventId, OwnedUserId, RoomId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use sha2::{Digest as _, Sha256};

use crate::{
    clock::Timestamp,
    engine::{Engine, event::RoomEvent, packs::SeenEvent},
    ids::host_of,
    store::{Batch, Digest, StoreError},
};

/// How long what has arrived is remembered at least.
pub(in crate::engine) const SEEN_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Maximum difference between two clocks. An event that is younger than [`SEEN_FOR`] by this much
/// and not known has never arrived.
pub(in crate::engine) const CLOCKS: Duration = Duration::from_secs(24 * 60 * 60);

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

impl ToDeviceMessage<'_> {
    /// Returns whether a machine has use for it: whether it is encrypted.
    pub(in crate::engine) fn is_encrypted(&self) -> bool {
        text(self.kind).is_some_and(|kind| kind == "m.room.encrypted")
    }

    /// Returns the host of its sender; empty if it names none.
    pub(in crate::engine) fn sender_host(&self) -> String {
        let sender = text(self.sender).and_then(|sender| OwnedUserId::try_from(sender).ok());
        sender.map_or_else(String::new, |sender| host_of(sender.server_name()))
    }
}

fn text(json: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(json?.get()).ok()
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

    /// Returns when an event arrived, if it has, and whether it was handled.
    pub(in crate::engine) fn seen(&self, event: &EventId) -> Result<Option<SeenEvent>, StoreError> {
        self.arrival(&Digest::of(event))
    }

    /// Returns whether an event has arrived.
    pub(in crate::engine) fn has_arrived(&self, event: &EventId) -> Result<bool, StoreError> {
        Ok(self.seen(event)?.is_some())
    }

    /// Returns whether a to-device message has arrived.
    pub(in crate::engine) fn has_arrived_to_device(
        &self,
        message: Digest,
    ) -> Result<bool, StoreError> {
        Ok(self.arrival(&message)?.is_some())
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
        let room = Digest::of(room);
        let copy = self
            .copy_places()
            .newest(self.store(), &room, event, |_| true)?;
        Ok(copy.is_some())
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
        self.stage_arrival(Digest::of(event), &SeenEvent { at, handled }, batch)
    }

    /// Notes that a to-device message has arrived.
    pub(in crate::engine) fn mark_seen_to_device(
        &self,
        message: Digest,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let seen = SeenEvent {
            at: self.now(),
            handled: true,
        };
        self.stage_arrival(message, &seen, batch)
    }
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
