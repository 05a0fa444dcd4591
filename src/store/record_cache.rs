//! Records that are read again and again, as they were decoded.
//!
//! Who is in a conversation, which device a ghost has, whose a handle is: every message asks, and the
//! answer changes once in a while. To find, unseal and decode it each time costs more than all else
//! that is done with it. Whoever changes a record takes what is known of it away.

use std::{
    any::Any,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use lru::LruCache;

/// How many records are kept.
const AT_MOST: NonZeroUsize = match NonZeroUsize::new(8192) {
    Some(number) => number,
    None => NonZeroUsize::MIN,
};

type Decoded = Option<Arc<dyn Any + Send + Sync>>;

/// What is known of a table.
#[derive(Default)]
struct TableState {
    /// Whether anything of it was ever kept.
    kept: AtomicBool,
    /// How often it was changed since.
    changes: AtomicU64,
}

/// Decoded records of all tables. That there is none under a key is known as well.
pub(super) struct Known {
    records: Mutex<LruCache<Vec<u8>, Decoded>>,
    tables: [TableState; 256],
}

impl Default for Known {
    fn default() -> Self {
        Self {
            records: Mutex::new(LruCache::new(AT_MOST)),
            tables: std::array::from_fn(|_| TableState::default()),
        }
    }
}

/// How a table was when somebody began to read.
#[derive(Clone, Copy)]
pub(super) struct Before(u64);

impl Known {
    fn records(&self) -> MutexGuard<'_, LruCache<Vec<u8>, Decoded>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self, key: &[u8]) -> &TableState {
        let id = key.first().copied().unwrap_or_default();
        &self.tables[usize::from(id)]
    }

    /// What is known of a key, or what to give to [`Self::keep`] with what is read now.
    pub(super) fn of<V: Any + Send + Sync>(&self, key: &[u8]) -> Result<Option<Arc<V>>, Before> {
        let table = self.table(key);
        // Before anything is read: from now on changes are counted.
        table.kept.store(true, Ordering::SeqCst);
        let before = Before(table.changes.load(Ordering::SeqCst));
        match self.records().get(key) {
            Some(None) => Ok(None),
            Some(Some(value)) => value.clone().downcast().map(Some).map_err(|_| before),
            None => Err(before),
        }
    }

    /// Keep what was read, unless its table has changed meanwhile.
    pub(super) fn keep<V: Any + Send + Sync>(
        &self,
        before: Before,
        key: Vec<u8>,
        value: Option<&Arc<V>>,
    ) {
        let mut records = self.records();
        if self.table(&key).changes.load(Ordering::SeqCst) == before.0 {
            let value = value.map(|value| Arc::clone(value) as Arc<dyn Any + Send + Sync>);
            records.put(key, value);
        }
    }

    /// This record is changed. To be called while nobody can read.
    pub(super) fn changed(&self, key: &[u8]) {
        let table = self.table(key);
        if table.kept.load(Ordering::SeqCst) {
            table.changes.fetch_add(1, Ordering::SeqCst);
            self.records().pop(key);
        }
    }
}
