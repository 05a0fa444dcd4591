//! Outbound group sessions that are in use.
//!
//! A message key must never be used twice, so whatever is on disk of an outbound session may never
//! be behind what the world has heard. To write it down for each message, and to wait for that,
//! would cost more than all the rest of a message. So it is not on disk at all while it is in use:
//!
//! * The first message makes the record void, if there is one. From then on the session is in memory
//!   only, however many messages it has.
//! * It is written down when the ghost's machine is put away, and when the run ends cleanly.
//! * A run that ends otherwise leaves no record of it, or one that a later run does not use: the
//!   number of the run stands in it ([`crate::store::Run::sure_since`]), and the start of the run was
//!   durable before the first message. Then the next message makes a new session.
//!
//! Whoever forgets to call [`Ghost::persist_outbound_sessions`] loses a session, and that is all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::FutureExt;
use matrix_sdk_crypto::{
    olm::OutboundGroupSession, store::types::Changes,
    types::events::room::encrypted::RoomEncryptedEventContent,
};
use ruma::{OwnedRoomId, RoomId, events::AnyMessageLikeEventContent, serde::Raw};
use zeroize::Zeroizing;

use super::{
    GhostStore, GhostStoreError,
    ghost::{Ghost, Writes},
    record::{OUTBOUND, encode_json},
    registry::Registry,
};

/// The sessions in use of one ghost, one for each room.
#[derive(Default)]
pub(super) struct ActiveOutboundSessions(Mutex<HashMap<OwnedRoomId, OutboundGroupSession>>);

impl ActiveOutboundSessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<OwnedRoomId, OutboundGroupSession>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, room: &RoomId) -> Option<OutboundGroupSession> {
        self.lock().get(room).cloned()
    }

    pub(super) fn forget(&self, room: &RoomId) {
        self.lock().remove(room);
    }

    pub(super) fn forget_all(&self) {
        self.lock().clear();
    }
}

impl Ghost {
    /// Makes void what is on disk of sessions that were not in use. To be called while saving, and
    /// [`Self::activate_outbound_sessions`] when it is done.
    pub(super) fn invalidate_outbound_sessions(&self, changes: &Changes, writes: &mut Writes) {
        let active = self.outbound_sessions.lock();
        for session in &changes.outbound_group_sessions {
            if !active.contains_key(session.room_id()) {
                writes.delete(self.keys.of(OUTBOUND, &[session.room_id().as_bytes()]));
            }
        }
    }

    /// From now on these sessions are in use.
    pub(super) fn activate_outbound_sessions(&self, sessions: Vec<OutboundGroupSession>) {
        let mut active = self.outbound_sessions.lock();
        for session in sessions {
            active.insert(session.room_id().to_owned(), session);
        }
    }

    /// Encrypts with the session of a room that is in use. `None` if there is none.
    async fn encrypt_with_active(
        &self,
        room: &RoomId,
        event_type: &str,
        content: &Raw<AnyMessageLikeEventContent>,
    ) -> Option<Raw<RoomEncryptedEventContent>> {
        // Nobody may write it down between the look and the message.
        let _one = self.saving.lock().await;
        let session = self.outbound_sessions.of(room)?;
        Some(session.encrypt(event_type, content).await.content)
    }

    /// Writes down the sessions in use, and uses them no more.
    pub(super) async fn persist_outbound_sessions(&self) -> Result<(), GhostStoreError> {
        // Who saves meanwhile has a session made void before it is written here, or after.
        let _one = self.saving.lock().await;
        let sessions = std::mem::take(&mut *self.outbound_sessions.lock());
        let mut writes = Writes::default();
        for (room, session) in sessions {
            let pickle = encode_json(OUTBOUND, &session.pickle().await)?;
            // The run that wrote it: after an unclean end of it the session is not used again.
            let mut value = Zeroizing::new(Vec::with_capacity(8 + pickle.len()));
            value.extend_from_slice(&self.store.run().number.to_be_bytes());
            value.extend_from_slice(&pickle);
            writes.put(OUTBOUND, self.keys.of(OUTBOUND, &[room.as_bytes()]), value);
        }
        self.write(writes)
    }
}

impl Registry {
    /// Writes down the sessions in use of all ghosts.
    pub(super) async fn persist_all_outbound_sessions(&self) {
        for ghost in self.live_ghosts() {
            if let Err(error) = ghost.persist_outbound_sessions().await {
                tracing::warn!(%error, "a ghost's sessions are not kept");
            }
        }
    }

    /// Writes down the sessions in use of a ghost whose last store this is.
    fn persist_unless_shared(&self, ghost: &Arc<Ghost>) {
        if ghost.outbound_sessions.lock().is_empty() {
            return;
        }
        // As long as this is held nobody opens the ghost anew.
        let _in_use = self.in_use();
        if Arc::strong_count(ghost) > 1 {
            return;
        }
        // Nobody else has it, so there is nobody to wait for.
        if let Some(Err(error)) = ghost.persist_outbound_sessions().now_or_never() {
            tracing::debug!(%error, "a ghost's sessions are not kept");
        }
    }
}

impl Drop for GhostStore {
    fn drop(&mut self) {
        self.registry.persist_unless_shared(&self.ghost);
    }
}

impl GhostStore {
    /// Encrypts with the outbound session of a room that is in use, as its machine would, but for
    /// what that does around it: it looks up whether the ghost is verified, and saves what is not on
    /// disk. `None` if there is no such session; whether it is still the right one, and shared,
    /// is for the caller to know.
    pub(in crate::crypto) async fn encrypt_with_active(
        &self,
        room: &RoomId,
        event_type: &str,
        content: &Raw<AnyMessageLikeEventContent>,
    ) -> Option<Raw<RoomEncryptedEventContent>> {
        self.ghost
            .encrypt_with_active(room, event_type, content)
            .await
    }

    /// The outbound session of a room that is in use.
    pub(in crate::crypto) fn active_outbound_session(
        &self,
        room: &RoomId,
    ) -> Option<OutboundGroupSession> {
        self.ghost.outbound_sessions.of(room)
    }
}
