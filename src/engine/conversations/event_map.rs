//! Maps events to their copies in the other rooms. Only ids are stored, for as long as the
//! configuration says; an event that refers to an older one is forwarded without the reference, or
//! its sender is told.

use ruma::{EventId, OwnedEventId, RoomId};

use crate::{
    clock::Timestamp,
    engine::{
        Engine,
        records::{CopiedEvent, CopiedEvents, Copy, EventCopies, EventSources, Source, copies_of},
    },
    relay::EventMapping,
    store::{Batch, Digest, Store, StoreError, prefix},
};

/// Maximum number of events of one room whose copies are remembered.
pub(in crate::engine) const COPIED_EVENTS_MAX: u64 = 5_000;

/// Maximum number of events whose copies are forgotten in one write.
const FORGET_BATCH_EVENTS: usize = 100;

/// The mapping between the events of one room and those of another.
#[derive(Debug)]
pub(in crate::engine) struct EventMap<'a> {
    pub store: &'a Store,
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
        let event = Digest::of(event);
        let original = match self.store.get::<EventSources>(&(source, event))? {
            Some(original) if original.room == target => return Ok(Some(original.event)),
            Some(original) => (original.room, Digest::of(&original.event)),
            None => (source, event),
        };
        let key = (original.0, original.1, target);
        Ok(self.store.get::<EventCopies>(&key)?.map(|copy| copy.event))
    }

    /// Returns the other room's copy of an event of this room, and its author.
    pub(in crate::engine) fn copy(&self, event: &EventId) -> Result<Option<Copy>, StoreError> {
        let room = Digest::of(self.source);
        let key = (room, Digest::of(event), Digest::of(self.target));
        self.store.get::<EventCopies>(&key)
    }

    /// Returns the other room's copy of an event of this room, or of the one that this event is a
    /// copy of.
    pub(in crate::engine) fn copy_of_original(
        &self,
        event: &EventId,
    ) -> Result<Option<Copy>, StoreError> {
        let (room, event) = (Digest::of(self.source), Digest::of(event));
        let original = self.store.get::<EventSources>(&(room, event))?;
        let (room, event) = original.map_or((room, event), |original| {
            (original.room, Digest::of(&original.event))
        });
        let key = (room, event, Digest::of(self.target));
        self.store.get::<EventCopies>(&key)
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
            store: self.store,
            source: self.target,
            target: self.source,
        };
        let copy = back.copy(&original)?.filter(|copy| copy.event == *event);
        Ok(copy.and_then(|copy| Some((original, usize::try_from(copy.by).ok()?))))
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

/// Stages the deletion of an event's copies.
fn forget(
    store: &Store,
    (room, number): (Digest, u64),
    event: &Digest,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    for page in store.pages::<EventCopies>(&copies_of(&room, event)) {
        for (key, copy) in page? {
            batch.delete::<EventSources>(&(key.2, Digest::of(&copy.event)));
            batch.delete::<EventCopies>(&key);
        }
    }
    batch.delete::<CopiedEvents>(&(room, number));
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
        let (room, event) = (Digest::of(new.source), Digest::of(new.event));
        let there = Digest::of(new.target);
        let original = Source {
            room,
            event: new.event.to_owned(),
        };
        let copy = Copy {
            event: new.copy.clone(),
            by: u32::try_from(new.by).unwrap_or(u32::MAX),
        };
        batch.put::<EventSources>(&(there, Digest::of(new.copy)), &original)?;
        batch.put::<EventCopies>(&(room, event, there), &copy)?;
        if self.has_copies(new.source, new.event)? {
            return Ok(());
        }
        let last = self.store().last::<CopiedEvents>(&prefix(&room))?;
        let number = last.map_or(0, |((_, number), _)| number + 1);
        let at = self.now();
        batch.put::<CopiedEvents>(&(room, number), &CopiedEvent { event, at })?;
        // Two for each that comes, so that a lower limit than before is reached.
        let oldest = self.store().scan::<CopiedEvents>(&prefix(&room), None, 2)?;
        for (key, old) in oldest {
            if key.1 + COPIED_EVENTS_MAX <= number {
                forget(self.store(), key, &old.event, batch)?;
            }
        }
        Ok(())
    }

    /// Returns since when the copies of a room's events are known: older ones may be forgotten.
    pub(in crate::engine) fn copies_remembered_since(
        &self,
        room: &RoomId,
    ) -> Result<Timestamp, StoreError> {
        let horizon = self.now() - self.0.settings.conversations.remember;
        let oldest = self
            .store()
            .scan::<CopiedEvents>(&prefix(&Digest::of(room)), None, 1)?;
        // The numbers begin at 0: what was before has been forgotten for its number or its age.
        let first_known = oldest.first().filter(|((_, number), _)| *number > 0);
        Ok(first_known.map_or(horizon, |(_, oldest)| oldest.at.max(horizon)))
    }

    /// Deletes mappings that are older than the retention.
    pub(in crate::engine) async fn forget_old_copies(&self) -> Result<(), StoreError> {
        let horizon = self.now() - self.0.settings.conversations.remember;
        let mut after: Option<(Digest, u64)> = None;
        loop {
            let store = self.store();
            let page = store.scan::<CopiedEvents>(&[], after.as_ref(), FORGET_BATCH_EVENTS)?;
            let Some((last, youngest)) = page.last() else {
                return Ok(());
            };
            // What follows a young event in its room is younger still.
            after = Some(if youngest.at < horizon {
                *last
            } else {
                (last.0, u64::MAX)
            });
            let mut batch = Batch::new();
            for (key, old) in page.iter().filter(|(_, copied)| copied.at < horizon) {
                forget(store, *key, &old.event, &mut batch)?;
            }
            if !batch.is_empty() {
                store.commit(batch).await?;
            }
        }
    }
}
