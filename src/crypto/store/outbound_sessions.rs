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
//! Whoever forgets to call [`ActiveOutboundSessions::persist`] loses a session, and that is all.

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

    /// Adds to `writes` that records of sessions that were not active are deleted. To be called
    /// while saving, and [`Self::activate`] when it is done.
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

    /// Writes the active sessions to disk, and makes them inactive. To be called while saving.
    pub(super) async fn persist(&self, records: &SealedRecords) -> Result<(), GhostStoreError> {
        let sessions = std::mem::take(&mut *self.lock());
        let mut writes = Writes::default();
        for (room, session) in sessions {
            let pickle = encode_json(OUTBOUND, &session.pickle().await)?;
            // The run that wrote it: after an unclean end of it the session is not used again.
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
