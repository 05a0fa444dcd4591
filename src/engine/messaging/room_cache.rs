//! A cache of room states: without it, a conversation would request a room's whole state for each
//! event that is forwarded there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ruma::{OwnedRoomId, OwnedUserId, RoomId};

use crate::{
    clock::Timestamp,
    engine::{Engine, EngineError, room::Room},
    matrix::RoomState,
};

/// Maximum number of rooms in the cache.
const ROOMS_MAX: usize = 2000;
/// How long a cached state is used. State that is pushed outdates it at once; this limit is for
/// pushes that were lost.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// Room states that are valid until state arrives there.
#[derive(Debug, Default)]
pub(in crate::engine) struct RoomStateCache(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Incremented when a state is outdated: states that were requested before are not cached.
    epoch: u64,
    rooms: HashMap<OwnedRoomId, (Timestamp, Arc<RoomState>)>,
}

impl RoomStateCache {
    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that state has arrived in this room.
    pub(in crate::engine) fn mark_outdated(&self, room: &RoomId) {
        let mut known = self.lock();
        known.epoch += 1;
        known.rooms.remove(room);
    }

    /// Notes that state of any room may have been lost.
    pub(in crate::engine) fn mark_all_outdated(&self) {
        let mut known = self.lock();
        known.epoch += 1;
        known.rooms.clear();
    }

    fn get(&self, room: &RoomId, now: Timestamp) -> Result<Arc<RoomState>, u64> {
        let known = self.lock();
        match known.rooms.get(room) {
            Some((at, view)) if now.since(*at) < MAX_AGE => Ok(view.clone()),
            _ => Err(known.epoch),
        }
    }

    fn put(&self, room: &RoomId, view: Arc<RoomState>, now: Timestamp, epoch: u64) {
        let mut known = self.lock();
        if known.epoch != epoch {
            return;
        }
        if known.rooms.len() >= ROOMS_MAX {
            // Evict any room: its state is fetched again when it is needed.
            let some = known.rooms.keys().next().cloned();
            some.map(|room| known.rooms.remove(&room));
        }
        known.rooms.insert(room.to_owned(), (now, view));
    }
}

impl Engine {
    /// Returns a room's state as one of our users sees it, possibly from the cache.
    pub(in crate::engine) async fn cached_room_state(
        &self,
        user: &OwnedUserId,
        room: &RoomId,
    ) -> Result<Arc<RoomState>, EngineError> {
        let now = self.now();
        let epoch = match self.0.room_states.get(room, now) {
            Ok(view) => return Ok(view),
            Err(epoch) => epoch,
        };
        let view = Arc::new(self.fetch_room_state(user, room).await?);
        self.0.room_states.put(room, view.clone(), now, epoch);
        Ok(view)
    }

    /// Returns a room's state as one of our users sees it, from the homeserver.
    pub(in crate::engine) async fn fetch_room_state(
        &self,
        user: &OwnedUserId,
        room: &ruma::RoomId,
    ) -> Result<RoomState, EngineError> {
        let acting = self.as_user(user)?;
        let state = self.homeserver().room_state(acting.actor(), room).await?;
        Ok(RoomState::from_state(state.iter().map(|event| &**event)))
    }
}

impl Room {
    /// Returns this room's state as one of our users sees it, from the homeserver.
    pub(in crate::engine) async fn room_state(
        &self,
        user: &OwnedUserId,
    ) -> Result<RoomState, EngineError> {
        self.engine.fetch_room_state(user, &self.id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_good_until_state_arrives_or_time_has_passed() {
        let (views, now) = (RoomStateCache::default(), Timestamp(1_000_000));
        let room = ruma::room_id!("!room:hs.test");
        let epoch = views.get(room, now).unwrap_err();
        views.put(room, Arc::default(), now, epoch);
        assert!(views.get(room, now + Duration::from_secs(60)).is_ok());
        assert!(views.get(room, now + MAX_AGE).is_err());
        views.mark_outdated(room);
        let epoch = views.get(room, now).unwrap_err();
        // State arrived while the request was under way.
        views.mark_outdated(room);
        views.put(room, Arc::default(), now, epoch);
        assert!(views.get(room, now).is_err());
        let epoch = views.get(room, now).unwrap_err();
        views.put(room, Arc::default(), now, epoch);
        assert!(views.get(room, now).is_ok());
        let requested = views.lock().epoch;
        views.mark_all_outdated();
        assert!(views.get(room, now).is_err());
        views.put(room, Arc::default(), now, requested);
        assert!(views.get(room, now).is_err(), "it was requested before");
    }
}
