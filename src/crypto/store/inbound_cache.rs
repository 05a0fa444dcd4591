//! A cache of inbound group sessions.
//!
//! A session is read from the store for each message, at the index at which its key was shared:
//! unsealing and decoding it, and advancing its ratchet from there, costs more than the message. So
//! a ghost keeps its last few sessions in memory, from the second use on: one takes 5 KB, and most
//! ghosts receive an opening line and nothing more. Every write and deletion in the store
//! invalidates its entry.

use std::sync::{Mutex, MutexGuard, PoisonError};

use matrix_sdk_crypto::olm::InboundGroupSession;

/// Maximum number of cached sessions. A ghost usually reads one person, and a few in a group.
const SESSIONS_MAX: usize = 4;

/// The sessions used last, in order of use.
#[derive(Default)]
pub(super) struct InboundSessionCache(Mutex<State>);

#[derive(Default)]
struct State {
    version: u64,
    /// The sessions by key; `None` for a session that was used once.
    sessions: Vec<(Vec<u8>, Option<Box<InboundGroupSession>>)>,
}

/// The number of changes in the store before a read began.
#[derive(Clone, Copy)]
pub(super) struct CacheVersion(u64);

impl InboundSessionCache {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the session under a key, or the version to pass to [`Self::insert`] once it is read.
    pub(super) fn get(&self, key: &[u8]) -> Result<InboundGroupSession, CacheVersion> {
        let mut state = self.lock();
        let at = state.sessions.iter().position(|(known, _)| known == key);
        let Some(at) = at else {
            return Err(CacheVersion(state.version));
        };
        let found = state.sessions.remove(at);
        let session = found.1.as_deref().cloned();
        state.sessions.push(found);
        session.ok_or(CacheVersion(state.version))
    }

    /// Keeps a session that is used a second time, unless the store has changed since it was read.
    pub(super) fn insert(
        &self,
        version: CacheVersion,
        key: Vec<u8>,
        session: &InboundGroupSession,
    ) {
        let mut state = self.lock();
        if state.version != version.0 {
            return;
        }
        if let Some((_, again)) = state.sessions.iter_mut().find(|(known, _)| *known == key) {
            *again = Some(Box::new(session.clone()));
            return;
        }
        if state.sessions.len() >= SESSIONS_MAX {
            state.sessions.remove(0);
        }
        state.sessions.push((key, None));
    }

    /// Removes the entries of records that were written or deleted.
    pub(super) fn invalidate<'a>(&self, keys: impl Iterator<Item = &'a Vec<u8>>) {
        let mut state = self.lock();
        state.version += 1;
        for key in keys {
            state.sessions.retain(|(known, _)| known != key);
        }
    }

    pub(super) fn clear(&self) {
        let mut state = self.lock();
        state.version += 1;
        state.sessions.clear();
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk_crypto::{Account, store::CryptoStore};
    use ruma::{RoomId, device_id, user_id};

    use super::{super::GhostStores, *};
    use crate::store::Store;

    async fn ghost_and_session() -> (super::super::GhostStore, InboundGroupSession) {
        let all = GhostStores::open(&Store::in_memory()).unwrap();
        let ghost = all.ghost(user_id!("@_dm_sam:x")).unwrap();
        let alice = Account::with_device_id(user_id!("@alice:x"), device_id!("PHONE"));
        let room = RoomId::parse("!talk:x").unwrap();
        let pair = alice.create_group_session_pair_with_defaults(&room).await;
        let session = pair.1;
        let saved = ghost.save_inbound_group_sessions(vec![session.clone()], None);
        saved.await.unwrap();
        (ghost, session)
    }

    async fn read(
        ghost: &super::super::GhostStore,
        session: &InboundGroupSession,
    ) -> Option<InboundGroupSession> {
        let reading = ghost.get_inbound_group_session(session.room_id(), session.session_id());
        reading.await.unwrap()
    }

    /// Reads a session twice: the second time it is cached.
    async fn read_twice(ghost: &super::super::GhostStore, session: &InboundGroupSession) {
        for _ in 0..2 {
            assert_eq!(kept(ghost), 0);
            assert!(!read(ghost, session).await.unwrap().backed_up());
        }
        assert_eq!(kept(ghost), 1);
    }

    fn kept(ghost: &super::super::GhostStore) -> usize {
        let state = ghost.ghost.records.inbound_sessions.lock();
        let sessions = state.sessions.iter();
        sessions.filter(|(_, session)| session.is_some()).count()
    }

    #[tokio::test]
    async fn a_read_returns_the_last_write() {
        let (ghost, session) = ghost_and_session().await;
        read_twice(&ghost, &session).await;
        let changed = InboundGroupSession::from_pickle(session.pickle().await).unwrap();
        changed.mark_as_backed_up();
        let saved = ghost.save_inbound_group_sessions(vec![changed], None);
        saved.await.unwrap();
        assert_eq!(kept(&ghost), 0);
        assert!(read(&ghost, &session).await.unwrap().backed_up());
    }

    #[tokio::test]
    async fn what_is_forgotten_on_disk_is_forgotten_in_memory() {
        let (ghost, session) = ghost_and_session().await;
        read_twice(&ghost, &session).await;
        ghost.forget_room(session.room_id()).await.unwrap();
        assert_eq!(kept(&ghost), 0);
        assert!(read(&ghost, &session).await.is_none());

        let (ghost, session) = ghost_and_session().await;
        read_twice(&ghost, &session).await;
        ghost.wipe().await.unwrap();
        assert_eq!(kept(&ghost), 0);
    }

    #[tokio::test]
    async fn few_are_kept_and_none_that_changed_while_it_was_read() {
        let (_, session) = ghost_and_session().await;
        let cache = InboundSessionCache::default();
        let before = |key: &[u8]| match cache.get(key) {
            Ok(_) => panic!("it is kept"),
            Err(before) => before,
        };
        for key in 0..6u8 {
            for _ in 0..2 {
                cache.insert(before(&[key]), vec![key], &session);
            }
            // The first session is used again and again.
            cache.get(&[0]).ok().unwrap();
        }
        assert_eq!(cache.lock().sessions.len(), SESSIONS_MAX);
        assert!(cache.get(&[1]).is_err() && cache.get(&[5]).is_ok());
        let keep = |before| cache.insert(before, vec![7], &session);
        keep(before(&[7]));
        let reading = before(&[7]);
        cache.invalidate([vec![7]].iter());
        keep(before(&[7]));
        keep(reading);
        assert!(cache.get(&[7]).is_err(), "it was read before it changed");
        keep(before(&[7]));
        assert!(cache.get(&[7]).is_ok());
        cache.invalidate([vec![7]].iter());
        assert!(cache.get(&[7]).is_err(), "it has changed");
    }
}
