//! The memtable: changes that every reader sees and the database does not have yet.
//!
//! A batch is kept in memory until the next flush, which writes everything that has accumulated to
//! the database as one batch. Applying a batch has a fixed cost (sled seals a log buffer and wakes
//! all its threads, however small the batch is), which is paid once per flush instead of once per
//! change. A record that is put and deleted between two flushes, as most queue items are, never
//! reaches the database. Values are sealed when they are written out: what is only in memory needs
//! no seal.
//!
//! Readers look here first and then in the database. Changes are written out in whole batches and
//! in order, so a crash loses the newest batches and leaves no gap.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
};

use zeroize::Zeroizing;

use super::{
    StoreError,
    backend::{Backend, Op},
    batch::Change,
    capture::Capture,
    integrity::checksum::Checksum,
    record_cache::RecordCache,
    seal::Sealer,
};

/// Maximum size of the active table, in bytes of keys and values. The writer that exceeds it writes
/// the table out.
const ACTIVE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Approximate memory that an entry takes beside its key and value, in bytes.
const ENTRY_OVERHEAD_BYTES: usize = 100;

/// The value of a record, as a reader finds it.
pub(super) enum RecordValue {
    /// In the form in which the database stores it.
    Stored(Vec<u8>),
    /// The plain value of a secret table, not sealed yet.
    Plain(Zeroizing<Vec<u8>>),
}

impl RecordValue {
    /// Returns the value in the form in which the database stores it.
    pub(super) fn stored(self, key: &[u8], sealer: &Sealer) -> Result<Vec<u8>, StoreError> {
        match self {
            RecordValue::Stored(value) => Ok(value),
            RecordValue::Plain(plain) => sealer.seal(key, &plain),
        }
    }
}

/// The newest change of a key.
#[derive(Clone)]
pub(super) enum MemEntry {
    Stored(Vec<u8>),
    Plain(Zeroizing<Vec<u8>>),
    Tombstone,
}

impl MemEntry {
    pub(super) fn value(&self) -> Option<RecordValue> {
        match self {
            MemEntry::Stored(value) => Some(RecordValue::Stored(value.clone())),
            MemEntry::Plain(plain) => Some(RecordValue::Plain(plain.clone())),
            MemEntry::Tombstone => None,
        }
    }

    fn size(&self) -> usize {
        match self {
            MemEntry::Stored(value) => value.len(),
            MemEntry::Plain(plain) => plain.len(),
            MemEntry::Tombstone => 0,
        }
    }
}

pub(super) type MemMap = BTreeMap<Vec<u8>, MemEntry>;

#[derive(Default)]
pub(super) struct Buffers {
    /// Changes since the last flush began.
    pub(super) active: MemMap,
    /// Approximate size of `active`.
    active_bytes: usize,
    /// The number of batches applied.
    applied: u64,
    /// Changes that are being written to the database.
    pub(super) flushing: Arc<MemMap>,
}

/// State of the writes to the database.
struct WriteState {
    /// The checksum of the records in the database.
    checksum: Checksum,
    /// The changes that are written while a backup is made.
    capture: Option<Capture>,
}

/// The database, and the changes that it does not have yet.
pub(super) struct Memtable {
    pub(super) backend: Arc<dyn Backend>,
    sealer: Sealer,
    pub(super) buffers: RwLock<Buffers>,
    /// Locked while changes are written out, so that `buffers`, the database and the capture all
    /// see them in the same order.
    write_state: Mutex<WriteState>,
    record_cache: RecordCache,
    /// The error after which nothing more is written out.
    failed: OnceLock<StoreError>,
}

impl Memtable {
    pub(super) fn new(backend: Arc<dyn Backend>, sealer: Sealer, checksum: Checksum) -> Self {
        Self {
            backend,
            sealer,
            buffers: RwLock::default(),
            write_state: Mutex::new(WriteState {
                checksum,
                capture: None,
            }),
            record_cache: RecordCache::default(),
            failed: OnceLock::new(),
        }
    }

    /// Returns the sealer of the values of secret tables.
    pub(super) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Returns the cache of decoded records.
    pub(super) fn record_cache(&self) -> &RecordCache {
        &self.record_cache
    }

    /// Returns the database without the changes that are only in memory.
    pub(super) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Makes changes: all or nothing, in order, visible when this returns.
    pub(super) fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.check()?;
        let mut buffers = self.buffers.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            let (key, entry) = match change {
                Change::Put { key, value } => (key, MemEntry::Stored(value)),
                Change::Seal { key, plain } => (key, MemEntry::Plain(plain)),
                Change::Delete { key } => (key, MemEntry::Tombstone),
            };
            buffers.active_bytes += entry.size();
            let key_bytes = ENTRY_OVERHEAD_BYTES + key.len();
            self.record_cache.invalidate(&key);
            match buffers.active.insert(key, entry) {
                Some(old) => buffers.active_bytes -= old.size(),
                None => buffers.active_bytes += key_bytes,
            }
        }
        buffers.applied += 1;
        let is_full = buffers.active_bytes > ACTIVE_BYTES_MAX;
        drop(buffers);
        if is_full {
            self.write_out()?;
        }
        Ok(())
    }

    /// Returns the number of batches that are visible to readers.
    pub(super) fn applied(&self) -> u64 {
        let buffers = self.buffers.read().unwrap_or_else(PoisonError::into_inner);
        buffers.applied
    }

    /// Writes all changes to the database as one batch. Returns the number of the last batch in the
    /// database.
    pub(super) fn write_out(&self) -> Result<u64, StoreError> {
        let mut state = self.write_state();
        self.check()?;
        let flushing = {
            let mut buffers = self.buffers.write().unwrap_or_else(PoisonError::into_inner);
            if !buffers.flushing.is_empty() {
                // The previous writer panicked.
                let why = "changes were lost on their way to the database".to_owned();
                let _ = self.failed.set(StoreError::Stopped(why.clone()));
                return Err(StoreError::Stopped(why));
            }
            buffers.active_bytes = 0;
            buffers.flushing = Arc::new(std::mem::take(&mut buffers.active));
            buffers.flushing.clone()
        };
        if flushing.is_empty() {
            return Ok(state.checksum.batches());
        }
        if let Err(error) = self.write(&flushing, &mut state) {
            // The changes stay visible, and no newer ones are written out after them.
            let _ = self.failed.set(error.clone());
            return Err(error);
        }
        self.buffers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .flushing = Arc::default();
        Ok(state.checksum.batches())
    }

    fn write(&self, flushing: &MemMap, state: &mut WriteState) -> Result<(), StoreError> {
        let mut ops = Vec::with_capacity(flushing.len() + 1);
        for (key, entry) in flushing {
            let key = key.clone();
            ops.push(match entry.value() {
                None => Op::Delete(key),
                Some(value) => {
                    let value = value.stored(&key, &self.sealer)?;
                    Op::Put(key, value)
                }
            });
        }
        let (next, checksum_op) = state.checksum.advance(&*self.backend, &mut ops)?;
        if ops.is_empty() {
            return Ok(());
        }
        ops.push(checksum_op);
        if let Some(capture) = &mut state.capture {
            capture.add(&ops);
        }
        self.backend.apply(ops)?;
        state.checksum = next;
        Ok(())
    }

    /// Writes out all changes, and captures what is written to the database from then on. Returns
    /// `false` if a capture is already active.
    pub(super) fn start_capture(&self) -> Result<bool, StoreError> {
        self.write_out()?;
        let mut state = self.write_state();
        let is_free = state.capture.is_none();
        if is_free {
            state.capture = Some(Capture::default());
        }
        Ok(is_free)
    }

    /// Ends the capture and returns it.
    pub(super) fn stop_capture(&self) -> Option<Capture> {
        self.write_state().capture.take()
    }

    fn write_state(&self) -> MutexGuard<'_, WriteState> {
        self.write_state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(error) => Err(StoreError::Stopped(error.to_string())),
            None => Ok(()),
        }
    }
}
