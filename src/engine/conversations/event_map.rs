//! Maps events to their copies in the other rooms. Only ids are stored, for as long as the
//! configuration says; an event that refers to an older one is forwarded without the reference, or
//! its sender is told.

use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};

use crate::{
    engine::{
        Engine,
        records::{Copy, EventCopies, EventCopiesByTime, EventSources, Source},
    },
    relay::EventMapping,
    store::{Batch, Store, StoreError},
};

/// Maximum number of records that are deleted in one write.
const DELETE_BATCH_RECORDS: usize = 1000;

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
        let original = self.original(event)?;
        if original.room == self.target {
            return Ok(Some(original.event));
        }
        let key = (original.room, original.event, self.target.to_owned());
        Ok(self.store.get::<EventCopies>(&key)?.map(|copy| copy.event))
    }

    /// Returns the event that this one is a copy of, and its room.
    fn original(&self, event: &EventId) -> Result<Source, StoreError> {
        let key = (self.source.to_owned(), event.to_owned());
        Ok(match self.store.get::<EventSources>(&key)? {
            Some(source) => source,
            None => Source {
                room: key.0,
                event: key.1,
            },
        })
    }

    /// Returns the other room's copy of an event of this room, and its author.
    pub(in crate::engine) fn copy(&self, event: &EventId) -> Result<Option<Copy>, StoreError> {
        let key = (
            self.source.to_owned(),
            event.to_owned(),
            self.target.to_owned(),
        );
        self.store.get::<EventCopies>(&key)
    }

    /// Returns the other room's copy of an event of this room, or of the one that this event is a
    /// copy of.
    pub(in crate::engine) fn copy_of_original(
        &self,
        event: &EventId,
    ) -> Result<Option<Copy>, StoreError> {
        let original = self.original(event)?;
        let key = (original.room, original.event, self.target.to_owned());
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

/// Records that the event `target` is the copy of the event `source`.
pub(in crate::engine) fn note(
    batch: &mut Batch,
    source: (&OwnedRoomId, &OwnedEventId),
    target: (&OwnedRoomId, &OwnedEventId),
    by: usize,
    now: crate::clock::Timestamp,
) -> Result<(), StoreError> {
    let original = Source {
        room: source.0.clone(),
        event: source.1.clone(),
    };
    let copy = Copy {
        event: target.1.clone(),
        by: u32::try_from(by).unwrap_or(u32::MAX),
    };
    let key = (source.0.clone(), source.1.clone(), target.0.clone());
    let by_time = (now, source.0.clone(), source.1.clone(), target.0.clone());
    batch.put::<EventSources>(&(target.0.clone(), target.1.clone()), &original)?;
    batch.put::<EventCopies>(&key, &copy)?;
    batch.put::<EventCopiesByTime>(&by_time, &())
}

impl Engine {
    /// Deletes mappings that are older than the retention.
    pub(in crate::engine) async fn forget_old_copies(&self) -> Result<(), StoreError> {
        let horizon = self.now() - self.0.settings.conversations.remember;
        loop {
            let mut batch = Batch::new();
            let oldest = self
                .store()
                .scan::<EventCopiesByTime>(&[], None, DELETE_BATCH_RECORDS)?;
            for (key, ()) in oldest.into_iter().filter(|((at, ..), ())| *at < horizon) {
                let (_, room, event, there) = key.clone();
                let of = (room, event, there.clone());
                if let Some(copy) = self.store().get::<EventCopies>(&of)? {
                    batch.delete::<EventSources>(&(there, copy.event));
                }
                batch.delete::<EventCopies>(&of);
                batch.delete::<EventCopiesByTime>(&key);
            }
            if batch.is_empty() {
                return Ok(());
            }
            self.store().commit(batch).await?;
        }
    }
}
