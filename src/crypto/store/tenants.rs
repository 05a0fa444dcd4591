//! Which ghosts have records here, and under which number.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use ruma::{OwnedUserId, UserId};

use super::{GhostStore, GhostStoreError, ghost::Ghost, rotate, shred::ShredKeys};
use crate::store::{Batch, Store, Table};

/// The number of each ghost that has crypto records; deleted when it is wiped.
pub(super) struct Ghosts;

impl Table for Ghosts {
    const ID: u8 = 2;
    const NAME: &'static str = "ghosts";
    const SECRET: bool = false;
    type Key = String;
    type Value = u32;
}

/// One record: the number that the next ghost gets. Numbers are never used again.
pub(super) struct Next;

impl Table for Next {
    const ID: u8 = 3;
    const NAME: &'static str = "next ghost";
    const SECRET: bool = false;
    type Key = u8;
    type Value = u32;
}

/// The crypto stores of all ghosts. There is one of these for a [`Store`].
#[derive(Clone, Debug)]
pub struct GhostStores {
    inner: Arc<All>,
}

#[derive(Debug)]
pub(super) struct All {
    store: Store,
    shred: ShredKeys,
    /// Ghosts in use, so that all handles of one share its keys and locks.
    in_use: Mutex<HashMap<String, Weak<Ghost>>>,
}

impl GhostStores {
    /// Open them; their keys lie in `shred.keys` beside the database. Fails while another
    /// `GhostStores` of the same store lives.
    pub fn open(store: &Store) -> Result<Self, GhostStoreError> {
        let fresh = store.get::<Next>(&0)?.is_none();
        let shred = ShredKeys::open(store, fresh)?;
        let inner = Arc::new(All {
            store: store.clone(),
            shred,
            in_use: Mutex::default(),
        });
        let all = Arc::downgrade(&inner);
        store.on_shutdown(move || {
            let all = all.upgrade();
            Box::pin(async move {
                if let Some(all) = all {
                    all.put_all_down().await;
                }
            })
        });
        Ok(Self { inner })
    }

    /// The crypto store of a ghost, made if there is none.
    pub fn ghost(&self, user: &UserId) -> Result<GhostStore, GhostStoreError> {
        let mut in_use = self.inner.in_use();
        if let Some(found) = self.find(&mut in_use, user)? {
            return Ok(found);
        }
        let store = &self.inner.store;
        let id = store.get::<Next>(&0)?.unwrap_or(0);
        // Keys first: a number without keys would be a ghost that cannot be read. If a crash
        // comes between, the next ghost gets the number and overwrites them.
        let slots = self.inner.shred.create(id)?;
        let mut batch = Batch::new();
        batch.put::<Ghosts>(&user.to_string(), &id)?;
        batch.put::<Next>(&0, &id.saturating_add(1))?;
        store.apply(batch)?;
        let ghost = Ghost::new(id, user.to_string(), store, &self.inner.shred, slots)?;
        Ok(self.hand_out(&mut in_use, ghost))
    }

    /// The crypto store of a ghost that has one.
    pub fn existing(&self, user: &UserId) -> Result<Option<GhostStore>, GhostStoreError> {
        let mut in_use = self.inner.in_use();
        self.find(&mut in_use, user)
    }

    /// At most `limit` ghosts that have a crypto store, in order, after a given one.
    pub fn users(
        &self,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<OwnedUserId>, GhostStoreError> {
        let after = after.map(ToString::to_string);
        let page = self
            .inner
            .store
            .scan::<Ghosts>(&[], after.as_ref(), limit)?;
        Ok(page
            .into_iter()
            .filter_map(|(user, _)| OwnedUserId::try_from(user).ok())
            .collect())
    }

    pub(super) fn store(&self) -> &Store {
        &self.inner.store
    }

    fn find(
        &self,
        in_use: &mut HashMap<String, Weak<Ghost>>,
        user: &UserId,
    ) -> Result<Option<GhostStore>, GhostStoreError> {
        if let Some(ghost) = in_use.get(user.as_str()).and_then(Weak::upgrade) {
            return Ok(Some(GhostStore {
                ghost,
                all: self.inner.clone(),
                signs: true,
            }));
        }
        let store = &self.inner.store;
        let Some(id) = store.get::<Ghosts>(&user.to_string())? else {
            return Ok(None);
        };
        let slots = self.inner.shred.read(id)?;
        if slots.wiped {
            // A crash came after its keys were destroyed and before its records were.
            rotate::delete_all(store, id, user.as_str())?;
            return Ok(None);
        }
        let ghost = Ghost::new(id, user.to_string(), store, &self.inner.shred, slots)?;
        ghost.finish_rotation()?;
        Ok(Some(self.hand_out(in_use, ghost)))
    }

    fn hand_out(&self, in_use: &mut HashMap<String, Weak<Ghost>>, ghost: Ghost) -> GhostStore {
        // As many dead entries as living ones at most.
        if in_use.len() >= 64 && in_use.len().is_power_of_two() {
            in_use.retain(|_, ghost| ghost.strong_count() > 0);
        }
        let ghost = Arc::new(ghost);
        in_use.insert(ghost.user.clone(), Arc::downgrade(&ghost));
        GhostStore {
            ghost,
            all: self.inner.clone(),
            signs: true,
        }
    }
}

impl All {
    pub(super) fn in_use(&self) -> MutexGuard<'_, HashMap<String, Weak<Ghost>>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ghosts in use.
    pub(super) fn living(&self) -> Vec<Arc<Ghost>> {
        self.in_use().values().filter_map(Weak::upgrade).collect()
    }

    /// The ghost was wiped: whoever asks for it next gets another.
    pub(super) fn put_away(&self, ghost: &Ghost) {
        let mut in_use = self.in_use();
        let same = |held: &Weak<Ghost>| held.as_ptr() == std::ptr::from_ref(ghost);
        if in_use.get(&ghost.user).is_some_and(same) {
            in_use.remove(&ghost.user);
        }
    }
}
