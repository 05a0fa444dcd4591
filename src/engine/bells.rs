//! Bells: ringing a room's bell makes its actor look at its inbox.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use ruma::{OwnedRoomId, RoomId};
use tokio::sync::Notify;

use crate::{
    engine::{
        Engine,
        records::{Inbox, InboxItem},
    },
    store::{Batch, StoreError},
};

/// The bells of all rooms that have an actor or need one.
#[derive(Default)]
pub(in crate::engine) struct Bells {
    rooms: Mutex<RungRooms>,
    /// Notified when a room without an actor is rung.
    unanswered: Notify,
}

#[derive(Default)]
struct RungRooms {
    bells: HashMap<OwnedRoomId, Arc<Notify>>,
    /// The rooms that were rung and have no actor yet.
    unanswered: Vec<(OwnedRoomId, Arc<Notify>)>,
}

impl Bells {
    fn rooms(&self) -> MutexGuard<'_, RungRooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, room: &RoomId) {
        let mut rooms = self.rooms();
        if let Some(bell) = rooms.bells.get(room) {
            return bell.notify_one();
        }
        let bell = Arc::new(Notify::new());
        rooms.bells.insert(room.to_owned(), bell.clone());
        rooms.unanswered.push((room.to_owned(), bell));
        drop(rooms);
        self.unanswered.notify_one();
    }

    /// Waits until rooms without an actor are rung, and returns them with their bells.
    pub(in crate::engine) async fn unanswered(&self) -> Vec<(OwnedRoomId, Arc<Notify>)> {
        loop {
            let rung = std::mem::take(&mut self.rooms().unanswered);
            if !rung.is_empty() {
                return rung;
            }
            self.unanswered.notified().await;
        }
    }

    /// Removes a room's bell if `may_go` allows it. Nobody can ring it in the meantime.
    pub(in crate::engine) fn remove_if<E>(
        &self,
        room: &RoomId,
        may_go: impl FnOnce() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let mut rooms = self.rooms();
        let goes = may_go()?;
        if goes {
            rooms.bells.remove(room);
        }
        Ok(goes)
    }

    /// Removes this bell, unless the room has a newer one.
    pub(in crate::engine) fn remove(&self, room: &RoomId, bell: &Arc<Notify>) {
        let mut rooms = self.rooms();
        if rooms
            .bells
            .get(room)
            .is_some_and(|it| Arc::ptr_eq(it, bell))
        {
            rooms.bells.remove(room);
        }
    }
}

impl Engine {
    /// Stages an item for a room's inbox. The caller wakes the room once the batch is applied.
    pub(in crate::engine) fn stage(
        &self,
        room: &OwnedRoomId,
        item: &InboxItem,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        batch.put::<Inbox>(&(room.clone(), self.next()), item)
    }

    /// Puts an item into a room's inbox together with the rest of the batch, and wakes the room
    /// once both are durable.
    pub(in crate::engine) async fn post(
        &self,
        room: &OwnedRoomId,
        item: &InboxItem,
        mut batch: Batch,
    ) -> Result<(), StoreError> {
        self.stage(room, item, &mut batch)?;
        self.store().commit(batch).await?;
        self.wake(room);
        Ok(())
    }

    /// Makes the room's actor look at its inbox and outbox. Items for it must have been written
    /// before.
    pub(in crate::engine) fn wake(&self, room: &RoomId) {
        // Before the start, everything waits in the inbox.
        if !self.stopping() && self.0.started.load(Ordering::Acquire) {
            self.0.bells.ring(room);
        }
    }
}
