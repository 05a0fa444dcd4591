//! The crypto store of one ghost, as it is given to an Olm machine.

use std::sync::{Arc, PoisonError};

use matrix_sdk_crypto::{
    olm::{Curve25519PublicKey, OutboundGroupSession},
    types::events::room::encrypted::RoomEncryptedEventContent,
};
use ruma::{RoomId, events::AnyMessageLikeEventContent, serde::Raw};

use super::{
    GhostStoreError,
    ghost::Ghost,
    record::{INBOUND, OLM},
    registry::{Registry, delete_all},
    room_key_filter::RoomKeyFilter,
};
use crate::store::StoreError;

/// The crypto store of one ghost. Clones are handles of the same one; give a clone to the
/// machine and keep another for forgetting.
#[derive(Clone, Debug)]
pub struct GhostStore {
    pub(super) ghost: Arc<Ghost>,
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
    pub(super) fn new(ghost: Arc<Ghost>, registry: Arc<Registry>) -> Self {
        Self {
            ghost,
            registry,
            signs: true,
        }
    }

    /// The same for a machine that has nothing to sign any more. The private half of an identity is
    /// needed while a device is made, and never after: what is not in memory cannot be taken from
    /// it, and it was the largest part of a machine.
    pub(in crate::crypto) fn without_identity(mut self) -> Self {
        self.signs = false;
        self
    }

    /// Whether a machine on it gets the private half of its identity.
    pub(in crate::crypto) fn signs(&self) -> bool {
        self.signs
    }

    /// From now on only keys of these rooms are kept, only those that came from the device that
    /// made them, and no bundles of a room's history: what others pass on proves nothing about who
    /// wrote a message.
    pub(in crate::crypto) fn set_room_key_filter(&self, filter: RoomKeyFilter) {
        *self
            .ghost
            .room_key_filter
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(filter);
    }

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

    /// Seal every secret record of this ghost under a fresh key and destroy the one before.
    ///
    /// When this returns `Ok`, nothing on disk opens what was deleted or overwritten before the
    /// call. When it fails or the process dies, the next start finishes it.
    pub async fn rotate_epoch(&self) -> Result<(), GhostStoreError> {
        let one = self.ghost.rotating.clone().lock_owned().await;
        let ghost = self.ghost.clone();
        off_thread(move || {
            let _one = one;
            ghost.records.rotate()
        })
        .await
    }

    /// Whether there is a key of a room.
    pub fn holds_keys_of(&self, room: &RoomId) -> Result<bool, GhostStoreError> {
        let ghost = &self.ghost;
        let inbound = ghost.records.keys.of(INBOUND, &[room.as_bytes()]);
        Ok(!ghost.records.keys_of(&inbound)?.is_empty())
    }

    /// Whether there is an Olm session with a device.
    pub fn has_session_with(&self, device: Curve25519PublicKey) -> Result<bool, GhostStoreError> {
        let ghost = &self.ghost;
        let sessions = ghost.records.keys.of(OLM, &[device.to_base64().as_bytes()]);
        ghost.records.has_any(&sessions)
    }

    /// Delete everything about a room: sessions in both directions, what was withheld, settings,
    /// bundles; then [`GhostStore::rotate_epoch`]. May be repeated after an error.
    ///
    /// The machine holds the outbound session in memory as well: put it away first.
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

    /// Destroy the keys of this ghost, then delete its records. Machines that still use the store
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

/// Do what waits for the disk where it holds up nobody. It goes on to its end even when whoever
/// asked for it stops waiting, so it must own the locks that it needs.
async fn off_thread(
    work: impl FnOnce() -> Result<(), GhostStoreError> + Send + 'static,
) -> Result<(), GhostStoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError::Closed.into()),
    }
}
