//! The registry: which ghosts have records here, and under which number.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures_util::FutureExt;
use ruma::UserId;

use super::{
    GhostStoreError, ghost::StoredGhost, record::ghost_prefix, sealed_records::SealedRecords,
    shred_keys::ShredKeys,
};
use crate::store::{Batch, Store, Table, raw};

/// The number of each ghost that has crypto records. Deleted when the ghost is wiped.
pub(super) struct GhostIds;

impl Table for GhostIds {
    const ID: u8 = 2;
    const NAME: &'static str = "ghost numbers";
    const SECRET: bool = false;
    type Key = String;
    type Value = u32;
}

/// The number of the next ghost, in one record. Numbers are never reused.
pub(super) struct NextGhostId;

impl Table for NextGhostId {
    const ID: u8 = 3;
    const NAME: &'static str = "next ghost number";
    const SECRET: bool = false;
    type Key = u8;
    type Value = u32;
}

#[derive(Debug)]
pub(super) struct Registry {
    pub(super) store: Store,
    pub(super) shred: ShredKeys,
    /// The ghosts in use. All handles of one share its keys and locks.
    in_use: Mutex<HashMap<String, Weak<StoredGhost>>>,
}

impl Registry {
    pub(super) fn new(store: &Store) -> Result<Self, GhostStoreError> {
        let fresh = store.get::<NextGhostId>(&0)?.is_none();
        Ok(Self {
            store: store.clone(),
            shred: ShredKeys::open(store, fresh)?,
            in_use: Mutex::default(),
        })
    }

    /// Completes what a crash interrupted: rotations, and the deletion of ghosts whose keys are
    /// destroyed. Blocks; called before a ghost is in use, so nobody waits for it.
    pub(super) fn recover(&self) -> Result<(), GhostStoreError> {
        let store = &self.store;
        for page in store.pages::<GhostIds>(&[]) {
            for (user, id) in page? {
                let slots = self.shred.read(id)?;
                if slots.wiped {
                    delete_all(store, id, &user)?;
                } else if slots.generations.iter().all(Option::is_some) {
                    let records = SealedRecords::new(id, store, &self.shred, slots)?;
                    match records.finish_rotation() {
                        // The ghost's machine reports it.
                        Err(error @ GhostStoreError::Unseal { .. }) => {
                            tracing::error!(ghost = user, %error, "its keys cannot be rotated");
                        }
                        finished => finished?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns a ghost, made if there is none.
    pub(super) fn ghost(&self, user: &UserId) -> Result<Arc<StoredGhost>, GhostStoreError> {
        let mut in_use = self.in_use();
        if let Some(found) = self.find(&mut in_use, user)? {
            return Ok(found);
        }
        let store = &self.store;
        let id = store.get::<NextGhostId>(&0)?.unwrap_or(0);
        // Keys first: a number without keys would be a ghost that cannot be read. If a crash
        // comes between, the next ghost gets the number and overwrites them.
        let slots = self.shred.create(id)?;
        let mut batch = Batch::new();
        batch.put::<GhostIds>(&user.to_string(), &id)?;
        batch.put::<NextGhostId>(&0, &id.saturating_add(1))?;
        store.apply(batch)?;
        let records = SealedRecords::new(id, store, &self.shred, slots)?;
        Ok(Self::register(
            &mut in_use,
            StoredGhost::new(user.to_string(), records),
        ))
    }

    /// Returns a ghost that has records.
    pub(super) fn existing(
        &self,
        user: &UserId,
    ) -> Result<Option<Arc<StoredGhost>>, GhostStoreError> {
        self.find(&mut self.in_use(), user)
    }

    fn find(
        &self,
        in_use: &mut HashMap<String, Weak<StoredGhost>>,
        user: &UserId,
    ) -> Result<Option<Arc<StoredGhost>>, GhostStoreError> {
        if let Some(ghost) = in_use.get(user.as_str()).and_then(Weak::upgrade) {
            return Ok(Some(ghost));
        }
        let store = &self.store;
        let Some(id) = store.get::<GhostIds>(&user.to_string())? else {
            return Ok(None);
        };
        let slots = self.shred.read(id)?;
        if slots.wiped {
            return Ok(None);
        }
        let records = SealedRecords::new(id, store, &self.shred, slots)?;
        let ghost = StoredGhost::new(user.to_string(), records);
        Ok(Some(Self::register(in_use, ghost)))
    }

    fn register(
        in_use: &mut HashMap<String, Weak<StoredGhost>>,
        ghost: StoredGhost,
    ) -> Arc<StoredGhost> {
        // At most half of the entries are dead.
        if in_use.len() >= 64 && in_use.len().is_power_of_two() {
            in_use.retain(|_, ghost| ghost.strong_count() > 0);
        }
        let ghost = Arc::new(ghost);
        in_use.insert(ghost.user.clone(), Arc::downgrade(&ghost));
        ghost
    }

    /// Persists the active outbound sessions of all ghosts.
    pub(super) async fn persist_all_outbound_sessions(&self) {
        for ghost in self.live_ghosts() {
            if let Err(error) = ghost.persist_outbound_sessions().await {
                tracing::warn!(%error, "a ghost's outbound sessions could not be saved");
            }
        }
    }

    /// Persists the active outbound sessions of a ghost if this is its last handle.
    pub(super) fn persist_unless_shared(&self, ghost: &Arc<StoredGhost>) {
        if ghost.outbound_sessions.is_empty() {
            return;
        }
        // While this is held, no task opens the ghost again.
        let _in_use = self.in_use();
        if Arc::strong_count(ghost) > 1 {
            return;
        }
        // No other task has it, so there is nothing to wait for.
        if let Some(Err(error)) = ghost.persist_outbound_sessions().now_or_never() {
            tracing::debug!(%error, "a ghost's outbound sessions could not be saved");
        }
    }

    pub(super) fn in_use(&self) -> MutexGuard<'_, HashMap<String, Weak<StoredGhost>>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the ghosts in use.
    pub(super) fn live_ghosts(&self) -> Vec<Arc<StoredGhost>> {
        self.in_use().values().filter_map(Weak::upgrade).collect()
    }

    /// Removes a wiped ghost, so that the next call for it creates another.
    pub(super) fn remove(&self, ghost: &StoredGhost) {
        let mut in_use = self.in_use();
        let same = |held: &Weak<StoredGhost>| held.as_ptr() == std::ptr::from_ref(ghost);
        if in_use.get(&ghost.user).is_some_and(same) {
            in_use.remove(&ghost.user);
        }
    }
}

/// Deletes all records of a ghost, and its number.
pub(super) fn delete_all(store: &Store, id: u32, user: &str) -> Result<(), GhostStoreError> {
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
    batch.delete::<GhostIds>(&user.to_owned());
    Ok(store.apply(batch)?)
}
