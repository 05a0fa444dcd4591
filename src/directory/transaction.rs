//! A transaction of the directory: reads, then one atomic write.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::sync::MutexGuard;

use super::{Directory, DirectoryError, DirectorySettings};
use crate::{
    handle::Handle,
    ids::Person,
    store::{Batch, Entry, Store, StoreError, Table, TableKey},
};

/// A source of records: the store, or the store as it will be after a [`DirectoryTransaction`].
pub(crate) trait Read {
    /// Returns the record of a key.
    fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, StoreError>;
    /// Returns at most `limit` records whose encoded key begins with `prefix`, in order.
    fn scan<T: Table>(&self, prefix: &[u8], limit: usize) -> Result<Vec<Entry<T>>, StoreError>;
}

impl Read for Store {
    fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, StoreError> {
        Store::get::<T>(self, key)
    }

    fn scan<T: Table>(&self, prefix: &[u8], limit: usize) -> Result<Vec<Entry<T>>, StoreError> {
        Store::scan::<T>(self, prefix, None, limit)
    }
}

/// A message that an owner receives unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerNotice {
    /// Somebody tried to claim a handle that looks like theirs, and was refused.
    LookalikeAttempt {
        /// The owner to tell.
        owner: Person,
        /// Their handle.
        handle: Handle,
        /// The handle that somebody tried to claim.
        attempt: Handle,
    },
}

/// Maximum number of deferred writes. More than that are applied at once.
const DEFERRED_WRITES_MAX: usize = 1000;

/// By table id and encoded key: the new bytes of a record, or `None` if it is deleted.
type PendingRecords = BTreeMap<(u8, Vec<u8>), Option<Vec<u8>>>;

/// A write transaction of the directory. It holds the directory's write lock and reads its own
/// writes, which are applied as one batch or not at all. Dropping it writes nothing.
///
/// There is one transaction at a time. So if two people claim the same handle at once, the second
/// finds it taken.
pub struct DirectoryTransaction<'a> {
    pub(super) directory: &'a Directory,
    lock: WriteLock<'a>,
    batch: Batch,
    pending: PendingRecords,
    notices: Vec<OwnerNotice>,
}

/// Leaves out the records, which may be secret.
impl std::fmt::Debug for DirectoryTransaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectoryTransaction")
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}

/// The directory's write lock. Keep it until the batch is applied.
#[derive(Debug)]
#[must_use = "the lock must be held until the batch is applied"]
pub struct WriteLock<'a> {
    guard: MutexGuard<'a, DeferredWrites>,
}

/// The writes of transactions that ended with [`DirectoryTransaction::defer`]. The next transaction
/// goes on with them.
#[derive(Debug, Default)]
pub(super) struct DeferredWrites {
    batch: Batch,
    pending: PendingRecords,
}

impl DeferredWrites {
    /// Applies the writes and leaves none.
    pub(super) fn apply(&mut self, store: &Store) -> Result<(), StoreError> {
        let DeferredWrites { batch, .. } = std::mem::take(self);
        if batch.is_empty() {
            return Ok(());
        }
        store.apply(batch)
    }
}

impl<'a> DirectoryTransaction<'a> {
    /// Begins a transaction that goes on with the deferred writes.
    pub(super) fn new(directory: &'a Directory, mut guard: MutexGuard<'a, DeferredWrites>) -> Self {
        let DeferredWrites { batch, pending } = std::mem::take(&mut *guard);
        DirectoryTransaction {
            directory,
            lock: WriteLock { guard },
            batch,
            pending,
            notices: Vec::new(),
        }
    }

    /// Leaves the writes to the next transaction, so that many transactions become one batch. A
    /// crash before that loses them.
    pub(super) fn defer(mut self) -> Result<(), StoreError> {
        let full = self.batch.len() >= DEFERRED_WRITES_MAX;
        *self.lock.guard = DeferredWrites {
            batch: self.batch,
            pending: self.pending,
        };
        if full {
            self.lock.guard.apply(self.directory.store())?;
        }
        Ok(())
    }

    /// Returns the directory's configuration.
    pub fn settings(&self) -> &'a DirectorySettings {
        self.directory.settings()
    }

    /// Adds the writes to a batch that holds other records too. The lock must be held until the
    /// batch is applied.
    pub fn stage(self, batch: &mut Batch) -> WriteLock<'a> {
        batch.merge(self.batch);
        self.lock
    }

    /// Applies the writes and returns when they are durable.
    pub async fn commit(self) -> Result<(), DirectoryError> {
        let store = self.directory.store();
        let mut batch = Batch::new();
        let lock = self.stage(&mut batch);
        store.apply(batch)?;
        drop(lock);
        store.flush().await?;
        Ok(())
    }

    /// Returns the notices for owners, each one once.
    pub fn take_notices(&mut self) -> Vec<OwnerNotice> {
        std::mem::take(&mut self.notices)
    }

    pub(super) fn add_notice(&mut self, notice: OwnerNotice) {
        self.notices.push(notice);
    }

    pub(crate) fn put<T: Table>(
        &mut self,
        key: &T::Key,
        value: &T::Value,
    ) -> Result<(), StoreError> {
        self.batch.put::<T>(key, value)?;
        self.pending
            .insert((T::ID, key.encode()), Some(encode::<T>(value)?));
        Ok(())
    }

    pub(crate) fn delete<T: Table>(&mut self, key: &T::Key) {
        self.batch.delete::<T>(key);
        self.pending.insert((T::ID, key.encode()), None);
    }
}

impl Read for DirectoryTransaction<'_> {
    fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, StoreError> {
        match self.pending.get(&(T::ID, key.encode())) {
            Some(Some(bytes)) => decode::<T>(bytes).map(Some),
            Some(None) => Ok(None),
            None => self.directory.store().get::<T>(key),
        }
    }

    fn scan<T: Table>(&self, prefix: &[u8], limit: usize) -> Result<Vec<Entry<T>>, StoreError> {
        let mut found = BTreeMap::new();
        // Each pending entry can hide at most one stored record.
        let pending: Vec<_> = self
            .pending
            .range((T::ID, prefix.to_vec())..)
            .take_while(|((id, key), _)| *id == T::ID && key.starts_with(prefix))
            .collect();
        let stored = limit.saturating_add(pending.len());
        for (key, value) in self.directory.store().scan::<T>(prefix, None, stored)? {
            found.insert(key.encode(), (key, value));
        }
        for ((_, key), bytes) in pending {
            match bytes {
                Some(bytes) => {
                    let typed = T::Key::decode(key).ok_or_else(|| unreadable::<T>("a key"))?;
                    found.insert(key.clone(), (typed, decode::<T>(bytes)?));
                }
                None => {
                    found.remove(key);
                }
            }
        }
        Ok(found.into_values().take(limit).collect())
    }
}

fn encode<T: Table>(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    rmp_serde::to_vec_named(value).map_err(|error| StoreError::Encode {
        table: T::NAME,
        why: error.to_string(),
    })
}

fn decode<T: Table>(bytes: &[u8]) -> Result<T::Value, StoreError> {
    rmp_serde::from_slice(bytes).map_err(|_| unreadable::<T>("a pending value"))
}

fn unreadable<T: Table>(what: &str) -> StoreError {
    StoreError::Decode {
        table: T::NAME,
        why: format!("{what} does not come back"),
    }
}
