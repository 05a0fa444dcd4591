//! The actors of the rooms: at most one for each, started when something arrives, gone when
//! nothing is left to do.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
};

use ruma::{OwnedRoomId, RoomId};
use tokio::sync::Notify;

use crate::{
    engine::{
        Engine, EngineError,
        records::{Inbox, OpenWork, Outbox},
        room::RoomActor,
    },
    store::prefix,
};

impl Engine {
    /// Makes the room's actor look at what has arrived. Whatever it is to find must have been
    /// written before.
    pub(in crate::engine) async fn wake(&self, room: &RoomId) {
        // Before the start everything waits in the inbox.
        if self.stopping() || !self.0.started.load(Ordering::Acquire) {
            return;
        }
        let notify = {
            let mut rooms = self.actors();
            if let Some(actor) = rooms.get(room) {
                actor.notify_one();
                return;
            }
            let notify = Arc::new(Notify::new());
            rooms.insert(room.to_owned(), notify.clone());
            notify
        };
        self.start_actor(room.to_owned(), notify);
    }

    fn start_actor(&self, room: OwnedRoomId, notify: Arc<Notify>) {
        let engine = self.clone();
        self.spawn(async move {
            let _entry = Entry(&engine, &room, &notify);
            let outcome = match RoomActor::load(engine.clone(), room.clone(), notify.clone()) {
                Ok(actor) => actor.run().await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome
                && !matches!(error, EngineError::Stopping)
            {
                tracing::error!(%room, %error, "the room waits for the next event");
            }
        });
    }

    fn actors(&self) -> MutexGuard<'_, HashMap<OwnedRoomId, Arc<Notify>>> {
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends an actor, unless something has arrived meanwhile.
    pub(in crate::engine) fn retire_actor(&self, room: &OwnedRoomId) -> Result<bool, EngineError> {
        let mut rooms = self.actors();
        let (store, room_prefix) = (self.store(), prefix(room));
        // Another room may have something done here.
        let idle = store.scan::<Inbox>(&room_prefix, None, 1)?.is_empty()
            && store.scan::<Outbox>(&room_prefix, None, 1)?.is_empty();
        if idle {
            rooms.remove(room);
        }
        Ok(idle)
    }

    /// Wakes every room that has something left to do, as after a restart.
    pub(in crate::engine) async fn wake_all(&self) -> Result<(), EngineError> {
        let mut rooms: Vec<OwnedRoomId> = Vec::new();
        let mut after = None;
        loop {
            let some = self.store().scan::<OpenWork>(&[], after.as_ref(), 1000)?;
            let Some((last, ())) = some.last() else { break };
            after = Some(last.clone());
            rooms.extend(some.into_iter().map(|((_, room), ())| room));
        }
        let mut after = None;
        loop {
            let some = self.store().scan::<Inbox>(&[], after.as_ref(), 1000)?;
            let Some((last, _)) = some.last() else { break };
            after = Some(last.clone());
            rooms.extend(some.into_iter().map(|((room, _), _)| room));
        }
        let mut after = None;
        loop {
            let some = self.store().scan::<Outbox>(&[], after.as_ref(), 1000)?;
            let Some((last, _)) = some.last() else { break };
            after = Some(last.clone());
            rooms.extend(some.into_iter().map(|((room, _), _)| room));
        }
        rooms.sort();
        rooms.dedup();
        for room in rooms {
            self.wake(&room).await;
        }
        Ok(())
    }
}

/// An actor's place in the list. Given up however the actor ends: a room with a dead actor in the
/// list would never be woken again.
struct Entry<'a>(&'a Engine, &'a OwnedRoomId, &'a Arc<Notify>);

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let Entry(engine, room, notify) = self;
        let mut rooms = engine.actors();
        if rooms
            .get(*room)
            .is_some_and(|entry| Arc::ptr_eq(entry, notify))
        {
            rooms.remove(*room);
        }
    }
}
