//! Maps events to their copies in the other rooms. Only ids are stored, for as long as the
//! configuration says; an event that refers to an older one is forwarded without the reference, or
//! its sender is told.
//!
//! The copies of a room's events are written one after the other, and every so many events are
//! *packed* into one record: records that are found by the ids of events would take the database
//! many times as much (`inbox/arrivals.rs` says why). `copies.rs` finds them.

use std::collections::BTreeSet;

use ruma::{EventId, OwnedEventId, RoomId};

use crate::{
    clock::Timestamp,
    engine::{
        Engine,
        packs::{Copy, CopyPack},
        records::{CopyOrigins, CopyPacks, EventCopies},
    },
    relay::EventMapping,
    store::{Batch, Digest, Store, StoreError, prefix},
};

/// Maximum number of events of one room whose copies are remembered. Those of one pack more are
/// there until the next pack is full.
pub(in crate::engine) const COPIED_EVENTS_MAX: u64 = 5_000;

/// Number of events whose copies make a pack. With one copy each, it stays below the size from which
/// a value is split.
pub(in crate::engine) const PACK_EVENTS: u64 = 32;
/// Maximum number of packs that are forgotten when a new one is made: two, so that a lower limit
/// than before is reached.
const FORGET_PACKS: usize = 2;

/// The mapping between the events of one room and those of another.
pub(in crate::engine) struct EventMap<'a> {
    pub engine: &'a Engine,
    pub source: &'a RoomId,
    pub target: &'a RoomId,
}

impl EventMap<'_> {
    /// Returns the event in the other room that corresponds to this one.
    pub(in crate::engine) fn find(
        &self,
        event: &EventId,
    ) -> Result<Option<OwnedEventId>, StoreError> {
        let (source, target) = (Digest::of(self.source), Digest::of(self.target));
        let known = self.search(&source, event, &target)?;
        match known {
            None => Ok(None),
            Some((room, copy)) if room == source => Ok(Some(copy.copy)),
            Some((room, copy)) if room == target => Ok(Some(copy.event)),
            Some((room, copy)) => {
                let there = self.newest(&room, &copy.event, &target)?;
                Ok(there.map(|copy| copy.copy))
            }
        }
    }

    /// Returns the other room's copy of an event of this room, and its author.
    pub(in crate::engine) fn copy(&self, event: &EventId) -> Result<Option<Copy>, StoreError> {
        let (source, target) = (Digest::of(self.source), Digest::of(self.target));
        self.newest(&source, event, &target)
    }

    /// Returns the other room's copy of an event of this room, or of the one that this event is a
    /// copy of.
    pub(in crate::engine) fn copy_of_original(
        &self,
        event: &EventId,
    ) -> Result<Option<Copy>, StoreError> {
        let (source, target) = (Digest::of(self.source), Digest::of(self.target));
        let known = self.search(&source, event, &target)?;
        match known {
            Some((room, copy)) if room != source => self.newest(&room, &copy.event, &target),
            known => Ok(known.map(|(_, copy)| copy)),
        }
    }

    /// Returns the event of the other room that this one is a copy of, and the index of its author.
    pub(in crate::engine) fn original_there(
        &self,
        event: &EventId,
    ) -> Result<Option<(OwnedEventId, usize)>, StoreError> {
        let Some(original) = self.find(event)? else {
            return Ok(None);
        };
        let back = EventMap {
            engine: self.engine,
            source: self.target,
            target: self.source,
        };
        let copy = back.copy(&original)?.filter(|copy| copy.copy == *event);
        Ok(copy.and_then(|copy| Some((original, usize::try_from(copy.by).ok()?))))
    }
}

impl EventMap<'_> {
    fn search(
        &self,
        room: &Digest,
        event: &EventId,
        there: &Digest,
    ) -> Result<Option<(Digest, Copy)>, StoreError> {
        let (places, store) = (self.engine.copy_places(), self.engine.store());
        places.find(store, room, event, |copy| copy.there == *there)
    }

    fn newest(
        &self,
        room: &Digest,
        event: &EventId,
        there: &Digest,
    ) -> Result<Option<Copy>, StoreError> {
        let (places, store) = (self.engine.copy_places(), self.engine.store());
        places.newest(store, room, event, |copy| copy.there == *there)
    }
}

impl EventMapping for EventMap<'_> {
    fn target_of(&self, event: &EventId) -> Option<OwnedEventId> {
        // A store that fails stops the service; until then the event counts as unknown.
        self.find(event).ok().flatten()
    }
}

/// The copy of an event, and where both are.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct NewCopy<'a> {
    pub source: &'a RoomId,
    pub event: &'a EventId,
    pub target: &'a RoomId,
    pub copy: &'a OwnedEventId,
    /// The index of its author among the people of the conversation.
    pub by: usize,
}

/// Stages the deletion of a pack.
fn forget_pack(
    store: &Store,
    key: &(Digest, u64),
    pack: &CopyPack,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    let rooms: BTreeSet<Digest> = pack.copies.iter().map(|copy| copy.there).collect();
    for there in rooms {
        forget_origin(store, (there, key.0), pack.until, batch)?;
    }
    batch.delete::<CopyPacks>(key);
    Ok(())
}

/// Stages that copies in a room come from another one no longer, if the event with this number is
/// the newest of them.
fn forget_origin(
    store: &Store,
    key: (Digest, Digest),
    number: u64,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    let newest = store.get::<CopyOrigins>(&key)?;
    if newest.is_some_and(|newest| newest <= number) {
        batch.delete::<CopyOrigins>(&key);
    }
    Ok(())
}

/// Stages that the copies of a room's events before this number become a pack, and the deletion of
/// the oldest packs if the room has too many.
fn pack(store: &Store, room: Digest, number: u64, batch: &mut Batch) -> Result<(), StoreError> {
    let mut first = None;
    let mut copies = Vec::new();
    for page in store.pages::<EventCopies>(&prefix(&room)) {
        for (key, copy) in page? {
            batch.delete::<EventCopies>(&key);
            first.get_or_insert(key.1);
            copies.push(copy);
        }
    }
    if let Some(first) = first {
        let until = number.saturating_sub(1);
        batch.put::<CopyPacks>(&(room, first), &CopyPack { until, copies })?;
    }
    for (key, oldest) in store.scan::<CopyPacks>(&prefix(&room), None, FORGET_PACKS)? {
        if oldest.until + COPIED_EVENTS_MAX <= number {
            forget_pack(store, &key, &oldest, batch)?;
        }
    }
    Ok(())
}

impl Engine {
    /// Stages that an event has a copy, and the deletion of the oldest ones if its room has too many.
    /// Only the actor of the room calls this, and applies the batch before it calls it again.
    pub(in crate::engine) fn note_copy(
        &self,
        new: &NewCopy<'_>,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let store = self.store();
        let (room, there) = (Digest::of(new.source), Digest::of(new.target));
        let copy = Copy {
            event: new.event.to_owned(),
            there,
            copy: new.copy.clone(),
            by: u32::try_from(new.by).unwrap_or(u32::MAX),
            at: self.now(),
        };
        let number = match store.last::<EventCopies>(&prefix(&room))? {
            // An event goes to all rooms before the next one does, unless a server does not answer.
            Some(((_, number, _), last)) if last.event == copy.event => number,
            last => {
                let number = match last {
                    Some(((_, last, _), _)) => last + 1,
                    None => {
                        let last = store.last::<CopyPacks>(&prefix(&room))?;
                        last.map_or(0, |(_, pack)| pack.until + 1)
                    }
                };
                if number % PACK_EVENTS == 0 {
                    pack(store, room, number, batch)?;
                }
                number
            }
        };
        self.copy_places().note(&room, number, &copy);
        batch.put::<CopyOrigins>(&(there, room), &number)?;
        batch.put::<EventCopies>(&(room, number, there), &copy)
    }

    /// Returns since when the copies of a room's events are known: older ones may be forgotten.
    pub(in crate::engine) fn copies_remembered_since(
        &self,
        room: &RoomId,
    ) -> Result<Timestamp, StoreError> {
        let horizon = self.now() - self.0.settings.conversations.remember;
        let here = prefix(&Digest::of(room));
        let packs = self.store().scan::<CopyPacks>(&here, None, 1)?;
        let oldest = match packs.first() {
            Some(((_, number), pack)) => pack.copies.first().map(|copy| (*number, copy.at)),
            None => {
                let copies = self.store().scan::<EventCopies>(&here, None, 1)?;
                copies
                    .first()
                    .map(|((_, number, _), copy)| (*number, copy.at))
            }
        };
        // The numbers begin at 0: what was before has been forgotten for its number or its age.
        let first_known = oldest.filter(|(number, _)| *number > 0);
        Ok(first_known.map_or(horizon, |(_, at)| at.max(horizon)))
    }

    /// Deletes copies that are older than the retention.
    pub(in crate::engine) fn forget_old_copies(&self) -> Result<(), StoreError> {
        let horizon = self.now() - self.0.settings.conversations.remember;
        let store = self.store();
        let mut after: Option<(Digest, u64)> = None;
        while let Some((key, pack)) = store.scan::<CopyPacks>(&[], after.as_ref(), 1)?.pop() {
            let newest = pack.copies.last();
            if newest.is_some_and(|newest| newest.at >= horizon) {
                // What follows in its room is younger still.
                after = Some((key.0, u64::MAX));
                continue;
            }
            after = Some(key);
            store.apply_exclusively(|| {
                let mut batch = Batch::new();
                forget_pack(store, &key, &pack, &mut batch)?;
                Ok(batch)
            })?;
        }
        let mut after: Option<(Digest, u64, Digest)> = None;
        while let Some((key, copy)) = store.scan::<EventCopies>(&[], after.as_ref(), 1)?.pop() {
            if copy.at >= horizon {
                after = Some((key.0, u64::MAX, key.2));
                continue;
            }
            after = Some(key);
            store.apply_exclusively(|| {
                let mut batch = Batch::new();
                forget_origin(store, (key.2, key.0), key.1, &mut batch)?;
                batch.delete::<EventCopies>(&key);
                Ok(batch)
            })?;
        }
        Ok(())
    }
}
