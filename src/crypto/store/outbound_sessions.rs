//! The active outbound group sessions: those with a message since they were loaded.
//!
//! A message key must never be used twice, so the record of an outbound session on disk must never
//! be behind the messages that were sent. Writing the record for each message, and waiting for
//! that, would cost more than the rest of a message. So there is no record while a session is
//! active:
//!
//! * The first message deletes the record, if there is one. From then on the session is in memory
//!   only, however many messages it has.
//! * It is written when the ghost's machine is unloaded, and on a clean shutdown.
//! * After any other end of a run there is no record, or one that a later run does not use: it
//!   holds the number of the run that wrote it ([`crate::store::Run::trusted_since`]), and the start
//!   of a run is durable before its first message. Then the next message begins a new session.
//!
//! Without a call of [`ActiveOutboundSessions::persist`] a session is lost, and nothing else.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use matrix_sdk_crypto::{olm::OutboundGroupSession, store::types::Changes};
use ruma::{OwnedRoomId, RoomId};
use zeroize::Zeroizing;

use super::{
    GhostStoreError,
    record::{Keys, OUTBOUND, encode_json},
    sealed_records::{SealedRecords, Writes},
};

/// The active sessions of one ghost, one for each room.
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

    /// Adds the deletion of the records of sessions that become active to `writes`. The caller must
    /// hold `StoredGhost::saving`, and call [`Self::activate`] once the writes are applied.
    pub(super) fn invalidate(&self, keys: &Keys, changes: &Changes, writes: &mut Writes) {
        let active = self.lock();
        for session in &changes.outbound_group_sessions {
            if !active.contains_key(session.room_id()) {
                writes.delete(keys.of(OUTBOUND, &[session.room_id().as_bytes()]));
            }
        }
    }

    /// Makes these sessions the active ones of their rooms.
    pub(super) fn activate(&self, sessions: Vec<OutboundGroupSession>) {
        let mut active = self.lock();
        for session in sessions {
            active.insert(session.room_id().to_owned(), session);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Writes the active sessions to disk, and makes them inactive. The caller must hold
    /// `StoredGhost::saving`.
    pub(super) async fn persist(&self, records: &SealedRecords) -> Result<(), GhostStoreError> {
        let sessions = std::mem::take(&mut *self.lock());
        let mut writes = Writes::default();
        for (room, session) in sessions {
            let pickle = encode_json(OUTBOUND, &session.pickle().await)?;
            // The run that wrote it: if that run ends uncleanly, the session is not used again.
            let mut value = Zeroizing::new(Vec::with_capacity(8 + pickle.len()));
            value.extend_from_slice(&records.store.run().number.to_be_bytes());
            value.extend_from_slice(&pickle);
            writes.put(
                OUTBOUND,
                records.keys.of(OUTBOUND, &[room.as_bytes()]),
                value,
            );
        }
        records.write(writes)
    }
}
