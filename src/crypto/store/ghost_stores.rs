//! The crypto stores of all ghosts.

use std::{path::Path, sync::Arc};

use ruma::{OwnedUserId, UserId};

use super::{
    GhostStore, GhostStoreError,
    registry::{GhostIds, Registry},
    shred_keys::ShredKeys,
};
use crate::store::{REPLACED, Store, StoreError};

/// The crypto stores of all ghosts. There is one of these for a [`Store`].
#[derive(Clone, Debug)]
pub struct GhostStores {
    pub(super) registry: Arc<Registry>,
}

impl GhostStores {
    /// Opens the crypto stores. Their keys are in `shred.keys` beside the database. Blocks while it
    /// completes rotations of keys that a crash interrupted.
    ///
    /// # Errors
    ///
    /// Fails while another `GhostStores` of the same store lives.
    pub fn open(store: &Store) -> Result<Self, GhostStoreError> {
        let registry = Registry::new(store)?;
        registry.recover()?;
        let registry = Arc::new(registry);
        let weak = Arc::downgrade(&registry);
        store.on_shutdown(move || {
            let registry = weak.upgrade();
            Box::pin(async move {
                if let Some(registry) = registry {
                    registry.persist_all_outbound_sessions().await;
                }
            })
        });
        Ok(Self { registry })
    }

    /// Overwrites the keys of the stores that a restore has moved into subfolders of `folder`: the
    /// devices that they belong to are gone. Blocks. Does nothing where it was done before.
    pub fn destroy_replaced_keys(folder: &Path) -> Result<(), GhostStoreError> {
        let io = |e| StoreError::io("read", folder, &e);
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_name().to_string_lossy().starts_with(REPLACED) {
                ShredKeys::destroy_all(&entry.path().join("shred.keys"))?;
            }
        }
        Ok(())
    }

    /// Returns the crypto store of a ghost, made if there is none.
    pub fn ghost(&self, user: &UserId) -> Result<GhostStore, GhostStoreError> {
        let ghost = self.registry.ghost(user)?;
        Ok(GhostStore::new(ghost, self.registry.clone()))
    }

    /// Returns the crypto store of a ghost that has one.
    pub fn existing(&self, user: &UserId) -> Result<Option<GhostStore>, GhostStoreError> {
        let ghost = self.registry.existing(user)?;
        Ok(ghost.map(|ghost| GhostStore::new(ghost, self.registry.clone())))
    }

    /// Returns at most `limit` ghosts that have a crypto store, in order, after a given one.
    pub fn users(
        &self,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<OwnedUserId>, GhostStoreError> {
        let after = after.map(ToString::to_string);
        let page = self.store().scan::<GhostIds>(&[], after.as_ref(), limit)?;
        Ok(page
            .into_iter()
            .filter_map(|(user, _)| OwnedUserId::try_from(user).ok())
            .collect())
    }

    pub(super) fn store(&self) -> &Store {
        &self.registry.store
    }
}
