//! Typed tables over an embedded database.
//!
//! A [`Table`] has a key type and a value type. Several tables change together in one [`Batch`].
//! The database is behind [`backend::Backend`]: sled on disk, a map in memory for tests.
//!
//! # What durable means
//!
//! [`Store::apply`] makes changes visible to every reader at once, all or nothing. Changes are
//! *durable*, so they survive `kill -9` and a power cut (if the disk does what it confirms), once a
//! [`Store::flush`] that began after them has returned `Ok`. Changes become durable in the order in
//! which they were applied: if one survives a crash, so do all before it. Changes that nobody waits
//! for are flushed within a second. If a flush fails, the store stops for good, since it is unknown
//! what has reached the disk. A restart finds out.
//!
//! Until then they are only in memory (`memtable.rs`). A flush writes them to the database as one
//! batch.

pub mod backend;
mod backup;
mod batch;
mod capture;
mod digest;
mod error;
mod failure;
pub(crate) mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod group_commit;
mod integrity;
mod key;
mod memtable;
mod merged_read;
mod meta;
mod migrate;
mod options;
mod pages;
pub(crate) mod raw;
mod record_cache;
pub(crate) mod seal;
mod sizes;
mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use futures_util::future::BoxFuture;

pub(crate) use self::key::{Subkey, random};
use self::{
    backend::{Backend, memory},
    batch::{Change, record_key},
    files::{Lock, Progress, SideFile},
    group_commit::Committer,
    integrity::rebuild,
    memtable::{Memtable, RecordValue},
    seal::Sealer,
};
pub use self::{
    backup::{BackupContents, BackupInfo, BackupStats, REPLACED, Restored},
    batch::{Batch, KEY_BYTES_MAX, VALUE_BYTES_MAX},
    digest::Digest,
    error::StoreError,
    failure::StoreFailure,
    key::StoreKey,
    meta::Run,
    options::StoreOptions,
    pages::Pages,
    sizes::TableSize,
    table::{KeyPart, Table, TableKey, prefix},
};

/// A key and its record.
pub type Entry<T> = (<T as Table>::Key, <T as Table>::Value);

/// The work before a clean shutdown.
type ShutdownHook = dyn Fn() -> BoxFuture<'static, ()> + Send + Sync;

/// A handle of the store. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped first: this joins the flush thread, which also holds the database.
    committer: Committer,
    memtable: Arc<Memtable>,
    key: StoreKey,
    run: Run,
    /// Whether the store is shut down. A writer holds the read lock while it applies a batch; one
    /// that must be alone holds the write lock.
    closed: RwLock<bool>,
    on_shutdown: Mutex<Option<Arc<ShutdownHook>>>,
    folder: Option<PathBuf>,
    /// Takes the place of the file `shred.keys` if the store is in memory.
    memory_side: SideFile,
    // Dropped last: the folder is locked as long as the backend exists.
    _lock: Option<Lock>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("folder", &self.inner.folder)
            .finish()
    }
}

impl Store {
    /// Opens the store in a folder, or makes one there.
    pub fn open(path: &Path, key: &StoreKey, options: &StoreOptions) -> Result<Self, StoreError> {
        files::make_folder(path)?;
        let lock = Lock::take(path)?;
        let progress = Progress::open(path)?;
        let backend = rebuild::open(path, key, options, progress.read())?;
        Self::start(
            Arc::new(backend),
            key.clone(),
            Some((path, lock, progress)),
            migrate::STEPS,
        )
    }

    /// Makes a store in memory with its own key, for tests.
    #[expect(
        clippy::expect_used,
        reason = "only tests call it, where a panic is right"
    )]
    pub fn in_memory() -> Self {
        let backend = Arc::new(memory::MemoryBackend::default());
        let key = StoreKey::random().expect("the system gives random bytes");
        Self::start(backend, key, None, migrate::STEPS).expect("an empty map can be opened")
    }

    fn start(
        backend: Arc<dyn Backend>,
        key: StoreKey,
        place: Option<(&Path, Lock, Progress)>,
        steps: &[migrate::Step],
    ) -> Result<Self, StoreError> {
        let sealer = Sealer::of(&key)?;
        let path = place
            .as_ref()
            .map_or(Path::new("memory"), |(path, ..)| path);
        let confirmed = place.as_ref().and_then(|(_, _, progress)| progress.read());
        let checksum = meta::open_or_init(&*backend, &sealer, path, confirmed, steps)?;
        let (run, checksum) = meta::begin_run(&*backend, checksum)?;
        let folder = place.as_ref().map(|(path, ..)| (*path).to_owned());
        let (lock, progress) = match place {
            Some((_, lock, progress)) => (Some(lock), Some(progress)),
            None => (None, None),
        };
        let memtable = Arc::new(Memtable::new(backend, sealer, checksum));
        let committer = Committer::start(memtable.clone(), progress)?;
        let inner = Inner {
            committer,
            memtable,
            key,
            run,
            closed: RwLock::new(false),
            on_shutdown: Mutex::default(),
            folder,
            memory_side: SideFile::memory(),
            _lock: lock,
        };
        let store = Self {
            inner: Arc::new(inner),
        };
        store.flush_blocking()?;
        Ok(store)
    }

    /// Returns the folder of the store, or `None` if it is in memory.
    pub fn folder(&self) -> Option<&Path> {
        self.inner.folder.as_deref()
    }

    /// Returns the current run of the service.
    pub fn run(&self) -> Run {
        self.inner.run
    }

    /// Returns the failure of this store, for parts that have to react to it.
    pub fn failure(&self) -> StoreFailure {
        self.inner.failure().clone()
    }

    /// Returns `true` if the run before this one ended without [`Store::shut_down`].
    pub fn crashed_before(&self) -> bool {
        self.inner.run.is_after_crash()
    }

    /// Returns a record.
    pub fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, StoreError> {
        self.inner.check()?;
        let key = record_key::<T>(&key.encode())?;
        let value = self.inner.record_fatal(self.inner.memtable.get(&key))?;
        value
            .map(|value| self.inner.value::<T>(&key, &value))
            .transpose()
    }

    /// Returns a record like [`Store::get`], decoded once and shared, from a cache of the few
    /// thousand records used last. A write invalidates its entry, so both always agree.
    pub fn get_cached<T: Table>(&self, key: &T::Key) -> Result<Option<Arc<T::Value>>, StoreError>
    where
        T::Value: Send + Sync,
    {
        self.inner.check()?;
        let key = record_key::<T>(&key.encode())?;
        let cache = self.inner.memtable.record_cache();
        let version = match cache.get(&key) {
            Ok(record) => return Ok(record),
            Err(version) => version,
        };
        let value = self.inner.record_fatal(self.inner.memtable.get(&key))?;
        let record = value
            .map(|value| self.inner.value::<T>(&key, &value).map(Arc::new))
            .transpose()?;
        cache.insert(version, key, record.as_ref());
        Ok(record)
    }

    /// Returns `true` if there is a record.
    pub fn contains<T: Table>(&self, key: &T::Key) -> Result<bool, StoreError> {
        self.inner.check()?;
        let key = record_key::<T>(&key.encode())?;
        self.inner.record_fatal(self.inner.memtable.contains(&key))
    }

    /// Returns at most `limit` records in the order of their keys: those whose encoded key begins
    /// with `prefix` (see [`prefix()`]) and which come after `after`. To continue the scan, pass
    /// the last key as `after`.
    pub fn scan<T: Table>(
        &self,
        prefix: &[u8],
        after: Option<&T::Key>,
        limit: usize,
    ) -> Result<Vec<Entry<T>>, StoreError> {
        self.inner.check()?;
        let prefix = record_key::<T>(prefix)?;
        let after = after
            .map(|after| record_key::<T>(&after.encode()))
            .transpose()?;
        let records = self.inner.memtable.scan(&prefix, after.as_deref(), limit);
        self.inner
            .record_fatal(records)?
            .into_iter()
            .map(|(key, value)| self.inner.record::<T>(&key, &value))
            .collect()
    }

    /// Scans like [`Store::scan`], but backwards from the last key before `before`.
    pub fn scan_back<T: Table>(
        &self,
        prefix: &[u8],
        before: Option<&T::Key>,
        limit: usize,
    ) -> Result<Vec<Entry<T>>, StoreError> {
        self.inner.check()?;
        let prefix = record_key::<T>(prefix)?;
        let before = before
            .map(|before| record_key::<T>(&before.encode()))
            .transpose()?;
        let records = self
            .inner
            .memtable
            .scan_back(&prefix, before.as_deref(), limit);
        self.inner
            .record_fatal(records)?
            .into_iter()
            .map(|(key, value)| self.inner.record::<T>(&key, &value))
            .collect()
    }

    /// Returns the record with the greatest key among those whose encoded key begins with `prefix`.
    pub fn last<T: Table>(&self, prefix: &[u8]) -> Result<Option<Entry<T>>, StoreError> {
        Ok(self.scan_back::<T>(prefix, None, 1)?.pop())
    }

    /// Makes changes: all or nothing, visible at once, durable with the next flush.
    pub fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.inner.check()?;
        let closed = self
            .inner
            .closed
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(StoreError::Closed);
        }
        let applied = self.inner.memtable.apply(batch.into_changes());
        self.inner.record_fatal(applied)
    }

    /// Makes changes like [`Store::apply`] that follow from what `stage` reads. Nobody else makes
    /// any meanwhile: they wait, so `stage` has to be quick, and must not apply anything itself.
    pub(crate) fn apply_exclusively(
        &self,
        stage: impl FnOnce() -> Result<Batch, StoreError>,
    ) -> Result<(), StoreError> {
        self.inner.check()?;
        let closed = self
            .inner
            .closed
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(StoreError::Closed);
        }
        let batch = stage()?;
        if batch.is_empty() {
            return Ok(());
        }
        let applied = self.inner.memtable.apply(batch.into_changes());
        self.inner.record_fatal(applied)
    }

    /// Waits until everything applied so far is durable. Concurrent callers share one flush.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.inner
            .committer
            .request_flush()
            .await
            .unwrap_or(Err(StoreError::Closed))
    }

    /// Flushes like [`Store::flush`], and blocks the thread.
    pub fn flush_blocking(&self) -> Result<(), StoreError> {
        self.inner.committer.flush_blocking()
    }

    /// Applies changes and flushes them.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.apply(batch)?;
        self.flush().await
    }

    /// Sets the hook that a clean shutdown runs first, while changes can still be made. Replaces an
    /// earlier hook.
    pub(crate) fn on_shutdown(
        &self,
        hook: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) {
        *self
            .inner
            .on_shutdown
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(hook));
    }

    /// Ends the run cleanly: everything applied becomes durable, and so does the mark that nothing
    /// was lost. Later changes are refused.
    pub async fn shut_down(&self) -> Result<(), StoreError> {
        let hook = self
            .inner
            .on_shutdown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(hook) = hook {
            hook().await;
        }
        {
            let mut closed = self
                .inner
                .closed
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            if std::mem::replace(&mut *closed, true) {
                return Ok(());
            }
        }
        self.flush().await?;
        self.mark_clean_end()?;
        self.flush().await
    }

    fn mark_clean_end(&self) -> Result<(), StoreError> {
        let (key, value) = meta::end_run(self.inner.run)?;
        self.inner.memtable.apply(vec![Change::Put { key, value }])
    }

    /// Returns `true` if this store came from a backup and [`Store::restore_done`] was not applied
    /// yet. Others may have seen newer records, so no session may be used again and no one-time key
    /// published again.
    pub fn is_restored(&self) -> Result<bool, StoreError> {
        self.inner.memtable.contains(&meta::restored_key())
    }

    /// Adds to a batch that all steps after a restore are done.
    pub fn restore_done(batch: &mut Batch) {
        batch.delete_raw(meta::restored_key());
    }

    /// Returns the number of batches applied since the store was opened.
    pub fn applied(&self) -> u64 {
        self.inner.memtable.applied()
    }

    /// Returns how many of the applied batches, from the first on, are known to be durable.
    pub fn durable(&self) -> u64 {
        self.inner.committer.durable()
    }

    /// Returns the number of flushes since the store was opened.
    pub fn flushes(&self) -> u64 {
        self.inner.committer.flushes()
    }

    /// Returns the size on disk, in bytes.
    pub fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.inner.memtable.backend().size_on_disk()
    }
}

impl Inner {
    fn failure(&self) -> &StoreFailure {
        self.committer.failure()
    }

    fn check(&self) -> Result<(), StoreError> {
        self.failure().check()
    }

    fn record_fatal<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.failure().record_fatal(result)
    }

    fn value<T: Table>(&self, key: &[u8], value: &RecordValue) -> Result<T::Value, StoreError> {
        let decode = |bytes: &[u8]| {
            rmp_serde::from_slice(bytes).map_err(|e| StoreError::Decode {
                table: T::NAME,
                why: decode_failure(&e),
            })
        };
        match value {
            RecordValue::Plain(plain) => decode(plain),
            RecordValue::Stored(value) if T::SECRET => {
                let sealer = self.memtable.sealer();
                let plain = sealer
                    .open(key, value)
                    .ok_or(StoreError::Unseal { table: T::NAME })?;
                decode(&plain)
            }
            RecordValue::Stored(value) => decode(value),
        }
    }

    fn record<T: Table>(&self, key: &[u8], value: &RecordValue) -> Result<Entry<T>, StoreError> {
        let typed =
            T::Key::decode(key.get(1..).unwrap_or_default()).ok_or_else(|| StoreError::Decode {
                table: T::NAME,
                why: "its key has another shape".to_owned(),
            })?;
        Ok((typed, self.value::<T>(key, value)?))
    }
}

/// Returns why a record could not be decoded. serde's own message may quote the value.
pub(crate) fn decode_failure(error: &rmp_serde::decode::Error) -> String {
    use rmp_serde::decode::Error;
    match error {
        Error::Syntax(_) | Error::Uncategorized(_) => "it has another shape".to_owned(),
        other => other.to_string(),
    }
}
