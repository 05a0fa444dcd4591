//! The cache of decoded records.
//!
//! Every message looks up the people of a conversation, a ghost's device and a handle's owner, and
//! the answers rarely change. Finding, unsealing and decoding such a record each time costs more
//! than everything else that is done with it. A write to a record invalidates its cache entry.

use std::{
    any::Any,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use lru::LruCache;

/// Maximum number of cached records.
const CACHED_RECORDS_MAX: NonZeroUsize = match NonZeroUsize::new(8192) {
    Some(number) => number,
    None => NonZeroUsize::MIN,
};

/// A decoded record; `None` if there is no record under the key.
type Decoded = Option<Arc<dyn Any + Send + Sync>>;

/// The cache state of one table.
#[derive(Default)]
struct TableState {
    /// Whether a record of the table was ever looked up here.
    in_use: AtomicBool,
    /// The number of writes to the table since then.
    writes: AtomicU64,
}

/// The most recently used decoded records of all tables, including the absence of a record.
pub(super) struct RecordCache {
    records: Mutex<LruCache<Vec<u8>, Decoded>>,
    tables: [TableState; 256],
}

impl Default for RecordCache {
    fn default() -> Self {
        Self {
            records: Mutex::new(LruCache::new(CACHED_RECORDS_MAX)),
            tables: std::array::from_fn(|_| TableState::default()),
        }
    }
}

/// The number of writes to a table when a read of it began.
#[derive(Clone, Copy)]
pub(super) struct ReadVersion(u64);

impl RecordCache {
    fn records(&self) -> MutexGuard<'_, LruCache<Vec<u8>, Decoded>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self, key: &[u8]) -> &TableState {
        let id = key.first().copied().unwrap_or_default();
        &self.tables[usize::from(id)]
    }

    /// Returns the cached record of a key. If it is not cached, returns the version to give to
    /// [`Self::insert`] with the record read from the store.
    pub(super) fn get<V: Any + Send + Sync>(
        &self,
        key: &[u8],
    ) -> Result<Option<Arc<V>>, ReadVersion> {
        let table = self.table(key);
        // Set before the store is read, so that every write from now on is counted.
        table.in_use.store(true, Ordering::SeqCst);
        let version = ReadVersion(table.writes.load(Ordering::SeqCst));
        match self.records().get(key) {
            Some(None) => Ok(None),
            Some(Some(value)) => value.clone().downcast().map(Some).map_err(|_| version),
            None => Err(version),
        }
    }

    /// Caches a record read from the store, unless its table has been written to since `version`.
    pub(super) fn insert<V: Any + Send + Sync>(
        &self,
        version: ReadVersion,
        key: Vec<u8>,
        value: Option<&Arc<V>>,
    ) {
        let mut records = self.records();
        if self.table(&key).writes.load(Ordering::SeqCst) == version.0 {
            let value = value.map(|value| Arc::clone(value) as Arc<dyn Any + Send + Sync>);
            records.put(key, value);
        }
    }

    /// Removes a record that is being written. The caller must exclude readers of the store.
    pub(super) fn invalidate(&self, key: &[u8]) {
        let table = self.table(key);
        if table.in_use.load(Ordering::SeqCst) {
            table.writes.fetch_add(1, Ordering::SeqCst);
            self.records().pop(key);
        }
    }
}
