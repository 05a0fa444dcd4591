//! Forgetting.
//!
//! # Rotation
//!
//! 1. A fresh key goes into the free slot of `shred.keys`, and is there after a power cut.
//! 2. Every record under the old key is sealed again under the fresh one, in one batch.
//! 3. A flush makes the batch durable.
//! 4. The old key's slot is overwritten with zeros, and stays so after a power cut.
//!
//! After a crash between the steps both keys are there, and records are read under either. The
//! next start finds two keys, does 2 to 4, and only then is the rotation over.

use matrix_sdk_crypto::olm::Curve25519PublicKey;
use ruma::RoomId;

use super::{
    GhostStore, GhostStoreError,
    ghost::{Ghost, Writes},
    record::{
        BACKED_UP, BUNDLE, BY_DEVICE, DOWNLOADED, INBOUND, OLM, OUTBOUND, PENDING_BUNDLE,
        ROOM_SETTINGS, WITHHELD, decode, ghost_prefix,
    },
    registry,
};
use crate::store::{Batch, StoreError, raw};

impl Ghost {
    /// Step 1.
    pub(super) fn begin_rotation(&self) -> Result<(), GhostStoreError> {
        let Some((slot, epoch)) = self.free_generation_slot()? else {
            return Ok(());
        };
        let key = self.shred.put(self.id, slot, epoch)?;
        self.install_key(slot, epoch, &key)
    }

    /// Step 4.
    pub(super) fn end_rotation(&self) -> Result<(), GhostStoreError> {
        let Some(slot) = self.older_generation_slot() else {
            return Ok(());
        };
        self.shred.destroy(self.id, slot)?;
        self.drop_key(slot);
        Ok(())
    }

    /// What is left of a rotation that a crash cut short.
    pub(super) fn finish_rotation(&self) -> Result<(), GhostStoreError> {
        if self.older_generation_slot().is_none() {
            return Ok(());
        }
        self.reseal()?;
        self.store.flush_blocking()?;
        self.end_rotation()
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

impl Ghost {
    fn rotate(&self) -> Result<(), GhostStoreError> {
        // Two keys now mean that an earlier rotation failed on its way: the newer of them has
        // been written with since, so that a further one is needed.
        self.finish_rotation()?;
        self.begin_rotation()?;
        self.finish_rotation()
    }
}

impl GhostStore {
    /// Seal every secret record of this ghost under a fresh key and destroy the one before.
    ///
    /// When this returns `Ok`, nothing on disk opens what was deleted or overwritten before the
    /// call. When it fails or the process dies, the next start finishes it.
    pub async fn rotate_epoch(&self) -> Result<(), GhostStoreError> {
        let one = self.ghost.rotating.clone().lock_owned().await;
        let ghost = self.ghost.clone();
        off_thread(move || {
            let _one = one;
            ghost.rotate()
        })
        .await
    }

    /// Whether there is a key of a room.
    pub fn holds_keys_of(&self, room: &RoomId) -> Result<bool, GhostStoreError> {
        let ghost = &self.ghost;
        let inbound = ghost.keys.of(INBOUND, &[room.as_bytes()]);
        Ok(!ghost.keys_of(&inbound)?.is_empty())
    }

    /// Whether there is an Olm session with a device.
    pub fn has_session_with(&self, device: Curve25519PublicKey) -> Result<bool, GhostStoreError> {
        let ghost = &self.ghost;
        let sessions = ghost.keys.of(OLM, &[device.to_base64().as_bytes()]);
        ghost.has_any(&sessions)
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
            ghost.rotate()
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
            ghost.shred.wipe(ghost.id)?;
            delete_all(&ghost.store, ghost.id, &ghost.user)?;
            registry.remove(&ghost);
            Ok(ghost.store.flush_blocking()?)
        })
        .await
    }
}

/// Delete all records of a ghost, and its entry in the list of ghosts.
pub(super) fn delete_all(
    store: &crate::store::Store,
    id: u32,
    user: &str,
) -> Result<(), GhostStoreError> {
    let prefix = ghost_prefix(id);
    loop {
        let page = raw::scan(store, &prefix, None, 1000)?;
        if page.is_empty() {
            break;
        }
        let mut batch = Batch::new();
        for (key, _) in page {
            raw::delete(&mut batch, key);
        }
        store.apply(batch)?;
    }
    let mut batch = Batch::new();
    batch.delete::<registry::GhostIds>(&user.to_owned());
    Ok(store.apply(batch)?)
}

impl Ghost {
    fn delete_room(&self, room: &RoomId) -> Result<(), GhostStoreError> {
        self.outbound_sessions.forget(room);
        let room = room.as_bytes();
        let mut writes = Writes::default();
        for (key, plain) in self.list(INBOUND, &self.keys.of(INBOUND, &[room]))? {
            let pickle: matrix_sdk_crypto::olm::PickledInboundGroupSession =
                decode(INBOUND, &plain)?;
            // The session's part stands last in both keys.
            let mut index = self
                .keys
                .of(BY_DEVICE, &[pickle.sender_key.to_base64().as_bytes()]);
            index.extend_from_slice(&key[key.len() - super::record::PART..]);
            writes.delete(index);
            writes.delete(key);
        }
        for kind in [
            BACKED_UP,
            OUTBOUND,
            WITHHELD,
            ROOM_SETTINGS,
            BUNDLE,
            PENDING_BUNDLE,
            DOWNLOADED,
        ] {
            for key in self.keys_of(&self.keys.of(kind, &[room]))? {
                writes.delete(key);
            }
        }
        self.write(writes)
    }
}
