//! The actors of all rooms: at most one per room, started when something arrives, ended when
//! nothing is left to do.

use std::sync::Arc;

use ruma::OwnedRoomId;
use tokio::sync::Notify;

use crate::{
    engine::{
        Engine, EngineError,
        actors::actor::RoomActor,
        records::{ActiveRoomsByGhost, Inbox, Outbox},
    },
    store::prefix,
};

impl Engine {
    /// Starts an actor for each room that is rung and has none, until the service stops.
    pub(in crate::engine) async fn answer_bells(&self) {
        loop {
            let rung = async { Some(self.0.bells.unanswered().await) };
            let Ok(rung) = self.unless_stopping(rung).await else {
                return;
            };
            for (room, bell) in rung {
                self.start_actor(room, bell);
            }
        }
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
                tracing::error!(%room, %error, "an actor failed; its room waits for the next event");
            }
        });
    }

    /// Ends an actor, unless something has arrived in the meantime.
    pub(in crate::engine) fn retire_actor(&self, room: &OwnedRoomId) -> Result<bool, EngineError> {
        let (store, room_prefix) = (self.store(), prefix(room));
        self.0.bells.remove_if(room, || {
            // Another room may have queued an effect here.
            Ok(store.scan::<Inbox>(&room_prefix, None, 1)?.is_empty()
                && store.scan::<Outbox>(&room_prefix, None, 1)?.is_empty())
        })
    }

    /// Wakes every room that has something left to do, as after a restart.
    pub(in crate::engine) async fn wake_all(&self) -> Result<(), EngineError> {
        let mut rooms: Vec<OwnedRoomId> = Vec::new();
        let mut after = None;
        loop {
            let some = self
                .store()
                .scan::<ActiveRoomsByGhost>(&[], after.as_ref(), 1000)?;
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
            self.wake(&room);
        }
        Ok(())
    }
}

/// An actor's bell. Dropping it removes the bell, however the actor ends: a room with a dead actor
/// would never be woken again.
struct Entry<'a>(&'a Engine, &'a OwnedRoomId, &'a Arc<Notify>);

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let Entry(engine, room, bell) = self;
        engine.0.bells.remove(room, bell);
    }
}
