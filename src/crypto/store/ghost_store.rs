//! The crypto store of one ghost, as it is given to an Olm machine.

use std::sync::{Arc, PoisonError};

use matrix_sdk_crypto::{
    olm::{Curve25519PublicKey, OutboundGroupSession},
    types::events::room::encrypted::RoomEncryptedEventContent,
};
use ruma::{RoomId, events::AnyMessageLikeEventContent, serde::Raw};

use super::{
    GhostStoreError,
    ghost::StoredGhost,
    record::{INBOUND, OLM, PARKED, RIVAL},
    registry::{Registry, delete_all},
    room_key_filter::RoomKeyFilter,
};
use crate::store::StoreError;

/// The crypto store of one ghost. Clones share it: give one to the machine and keep another for
/// forgetting.
#[derive(Clone, Debug)]
pub struct GhostStore {
    pub(super) ghost: Arc<StoredGhost>,
    registry: Arc<Registry>,
    /// Whether a machine on this handle gets the private half of the ghost's identity.
    pub(super) signs: bool,
}

impl Drop for GhostStore {
    fn drop(&mut self) {
        self.registry.persist_unless_shared(&self.ghost);
    }
}

impl GhostStore {
    pub(super) fn new(ghost: Arc<StoredGhost>, registry: Arc<Registry>) -> Self {
        Self {
            ghost,
            registry,
            signs: true,
        }
    }

    /// Returns the store for a machine that signs nothing. The private half of an identity is
    /// needed only while a device is made: keys that are not in memory cannot be stolen from it,
    /// and they were the largest part of a machine.
    pub(in crate::crypto) fn without_identity(mut self) -> Self {
        self.signs = false;
        self
    }

    /// Returns whether a machine on this handle gets the private half of the identity.
    pub(in crate::crypto) fn signs(&self) -> bool {
        self.signs
    }

    /// Sets the filter of room keys. From now on only keys of these rooms are kept, only from the
    /// device that made them, and no bundles of a room's history: a key passed on by others proves
    /// nothing about the sender of a message.
    pub(in crate::crypto) fn set_room_key_filter(&self, filter: RoomKeyFilter) {
        *self
            .ghost
            .room_key_filter
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(filter);
    }

    /// Encrypts with the active session of a room, without two steps of its machine: looking up
    /// whether the ghost is verified, and saving a session that is not on disk anyway. Returns
    /// `None` if there is no active session. The caller must know that the session is current and
    /// shared.
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

    /// Returns the active outbound session of a room.
    pub(in crate::crypto) fn active_outbound_session(
        &self,
        room: &RoomId,
    ) -> Option<OutboundGroupSession> {
        self.ghost.outbound_sessions.of(room)
    }

    /// Gives every group of this ghost's records of which an older version may be on the disk a new
    /// key, and destroys the old ones.
    ///
    /// Once this returns `Ok`, nothing on disk decrypts what was deleted or overwritten before the
    /// call. If it fails or the process dies, the next start completes it.
    pub async fn rotate_epoch(&self) -> Result<(), GhostStoreError> {
        let one = self.ghost.rotating.clone().lock_owned().await;
        let ghost = self.ghost.clone();
        off_thread(move || {
            let _one = one;
            ghost.records.rotate()
        })
        .await
    }

    /// Returns whether there is a key of a room, parked or in use.
    pub fn holds_keys_of(&self, room: &RoomId) -> Result<bool, GhostStoreError> {
        let records = &self.ghost.records;
        let parts = [room.as_bytes()];
        Ok(records.has_any(&records.keys.of(INBOUND, &parts))?
            || records.has_any(&records.keys.of(RIVAL, &parts))?
            || records.has_any(&records.keys.of(PARKED, &parts))?)
    }

    /// Returns the number of values sealed since the store was opened.
    #[cfg(test)]
    pub(in crate::crypto) fn sealed_count(&self) -> usize {
        let sealed = &self.ghost.records.sealed;
        sealed.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Returns whether there is an Olm session with a device.
    pub fn has_session_with(&self, device: Curve25519PublicKey) -> Result<bool, GhostStoreError> {
        let ghost = &self.ghost;
        let sessions = ghost.records.keys.of(OLM, &[device.to_base64().as_bytes()]);
        ghost.records.has_any(&sessions)
    }

    /// Deletes everything about a room (sessions in both directions, withheld codes, settings,
    /// bundles), and rotates the key like [`GhostStore::rotate_epoch`]. Can be repeated after an
    /// error.
    ///
    /// The machine holds the outbound session in memory as well: unload it first.
    pub async fn forget_room(&self, room: &RoomId) -> Result<(), GhostStoreError> {
        let one = self.ghost.rotating.clone().lock_owned().await;
        let saving = self.ghost.saving.clone().lock_owned().await;
        let (ghost, room) = (self.ghost.clone(), room.to_owned());
        off_thread(move || {
            let _one = one;
            ghost.delete_room(&room)?;
            drop(saving);
            ghost.records.rotate()
        })
        .await
    }

    /// Destroys the keys of this ghost, then deletes its records. Machines that still use the store
    /// get [`GhostStoreError::Wiped`]; the ghost's next store is a new, empty one.
    pub async fn wipe(&self) -> Result<(), GhostStoreError> {
        let one = self.ghost.rotating.clone().lock_owned().await;
        let saving = self.ghost.saving.clone().lock_owned().await;
        let (ghost, registry) = (self.ghost.clone(), self.registry.clone());
        off_thread(move || {
            let _locks = (one, saving);
            ghost.drop_all_keys();
            ghost.records.shred.wipe(ghost.records.id)?;
            delete_all(&ghost.records.store, ghost.records.id, &ghost.user)?;
            registry.remove(&ghost);
            Ok(ghost.records.store.flush_blocking()?)
        })
        .await
    }
}

/// Runs work that waits for the disk on a thread for blocking work. It runs to its end even if the
/// caller stops waiting, so it must own its locks.
async fn off_thread(
    work: impl FnOnce() -> Result<(), GhostStoreError> + Send + 'static,
) -> Result<(), GhostStoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError::Closed.into()),
    }
}
