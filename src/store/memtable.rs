//! Changes that everybody sees and the database does not have yet.
//!
//! A batch is a map in memory until the next flush, which hands the database everything that has
//! gathered as one batch of its own. What it costs a database to take a batch in (sled seals a
//! buffer of its log and wakes all its threads, however little the batch holds) is paid once for
//! each flush and not for each change, and what is put and deleted between two flushes, as most of
//! what lies in a queue is, never reaches it. Nor is it sealed: what is in memory alone needs none.
//!
//! Readers look here first and then into the database. Changes leave in whole batches, in the order
//! in which they came, so that a crash takes the youngest and nothing in between.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
};

use zeroize::Zeroizing;

use super::{
    StoreError,
    backend::{Backend, Op},
    backup::export::Note,
    batch::Change,
    integrity::checksum::Sum,
    record_cache::RecordCache,
    seal::Sealer,
};

/// How much gathers, in bytes of keys and values, before a writer hands it over at once.
const AT_MOST: usize = 4 * 1024 * 1024;
/// What a change takes beside its key and value, about.
const OVERHEAD: usize = 100;

/// A value, as a reader finds it.
pub(super) enum Value {
    /// As it lies in the database.
    Stored(Vec<u8>),
    /// Of a secret table, not sealed yet.
    Plain(Zeroizing<Vec<u8>>),
}

impl Value {
    /// As it lies, or will lie, in the database.
    pub(super) fn stored(self, key: &[u8], sealer: &Sealer) -> Result<Vec<u8>, StoreError> {
        match self {
            Value::Stored(value) => Ok(value),
            Value::Plain(plain) => sealer.seal(key, &plain),
        }
    }
}

/// What has become of a key.
#[derive(Clone)]
pub(super) enum Latest {
    Stored(Vec<u8>),
    Plain(Zeroizing<Vec<u8>>),
    Deleted,
}

impl Latest {
    pub(super) fn value(&self) -> Option<Value> {
        match self {
            Latest::Stored(value) => Some(Value::Stored(value.clone())),
            Latest::Plain(plain) => Some(Value::Plain(plain.clone())),
            Latest::Deleted => None,
        }
    }

    fn size(&self) -> usize {
        match self {
            Latest::Stored(value) => value.len(),
            Latest::Plain(plain) => plain.len(),
            Latest::Deleted => 0,
        }
    }
}

pub(super) type Changes = BTreeMap<Vec<u8>, Latest>;

#[derive(Default)]
pub(super) struct Gathered {
    /// What has come since the last batch was handed over.
    pub(super) young: Changes,
    bytes: usize,
    /// How many batches there were.
    applied: u64,
    /// What is being handed over.
    pub(super) leaving: Arc<Changes>,
}

/// What the database is told, by whom, and what it has been told so far.
struct Handover {
    /// What the records in the database amount to.
    sum: Sum,
    /// What is written while a backup is made.
    note: Option<Note>,
}

/// The database, and what it does not have yet.
pub(super) struct Pending {
    pub(super) backend: Arc<dyn Backend>,
    sealer: Sealer,
    pub(super) gathered: RwLock<Gathered>,
    /// Held while changes are handed over: one after the other, here, in the database, and in the
    /// note.
    handover: Mutex<Handover>,
    record_cache: RecordCache,
    /// Why nothing can be handed over any more.
    failed: OnceLock<StoreError>,
}

impl Pending {
    pub(super) fn new(backend: Arc<dyn Backend>, sealer: Sealer, sum: Sum) -> Self {
        Self {
            backend,
            sealer,
            gathered: RwLock::default(),
            handover: Mutex::new(Handover { sum, note: None }),
            record_cache: RecordCache::default(),
            failed: OnceLock::new(),
        }
    }

    /// What seals the values of secret tables.
    pub(super) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// The cache of decoded records.
    pub(super) fn record_cache(&self) -> &RecordCache {
        &self.record_cache
    }

    /// The database alone.
    pub(super) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Make changes: all or nothing, in order, visible when this returns.
    pub(super) fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.check()?;
        let mut gathered = self
            .gathered
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            let (key, latest) = match change {
                Change::Put { key, value } => (key, Latest::Stored(value)),
                Change::Seal { key, plain } => (key, Latest::Plain(plain)),
                Change::Delete { key } => (key, Latest::Deleted),
            };
            gathered.bytes += latest.size();
            let more = OVERHEAD + key.len();
            self.record_cache.invalidate(&key);
            match gathered.young.insert(key, latest) {
                Some(old) => gathered.bytes -= old.size(),
                None => gathered.bytes += more,
            }
        }
        gathered.applied += 1;
        let too_much = gathered.bytes > AT_MOST;
        drop(gathered);
        if too_much {
            self.hand_over()?;
        }
        Ok(())
    }

    /// How many batches everybody sees by now.
    pub(super) fn applied(&self) -> u64 {
        let gathered = self.gathered.read();
        gathered.unwrap_or_else(PoisonError::into_inner).applied
    }

    /// Give the database all that has gathered, as one batch. Returns the number of its last batch.
    pub(super) fn hand_over(&self) -> Result<u64, StoreError> {
        let mut handover = self.handing_over();
        self.check()?;
        let leaving = {
            let mut gathered = self
                .gathered
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            if !gathered.leaving.is_empty() {
                // Whoever was at it did not come to the end, and said nothing.
                let why = "changes were lost on their way to the database".to_owned();
                let _ = self.failed.set(StoreError::Stopped(why.clone()));
                return Err(StoreError::Stopped(why));
            }
            gathered.bytes = 0;
            gathered.leaving = Arc::new(std::mem::take(&mut gathered.young));
            gathered.leaving.clone()
        };
        if leaving.is_empty() {
            return Ok(handover.sum.batches());
        }
        if let Err(error) = self.write(&leaving, &mut handover) {
            // What could not be handed over stays visible, and nothing younger overtakes it.
            let _ = self.failed.set(error.clone());
            return Err(error);
        }
        self.gathered
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .leaving = Arc::default();
        Ok(handover.sum.batches())
    }

    fn write(&self, leaving: &Changes, handover: &mut Handover) -> Result<(), StoreError> {
        let mut ops = Vec::with_capacity(leaving.len() + 1);
        for (key, latest) in leaving {
            let key = key.clone();
            ops.push(match latest.value() {
                None => Op::Delete(key),
                Some(value) => {
                    let value = value.stored(&key, &self.sealer)?;
                    Op::Put(key, value)
                }
            });
        }
        let (next, keep) = handover.sum.after(&*self.backend, &mut ops)?;
        if ops.is_empty() {
            return Ok(());
        }
        ops.push(keep);
        if let Some(note) = &mut handover.note {
            note.add(&ops);
        }
        self.backend.apply(ops)?;
        handover.sum = next;
        Ok(())
    }

    /// Begin to note what is written to the database from now on; what came before is in it.
    pub(super) fn begin_note(&self) -> Result<bool, StoreError> {
        self.hand_over()?;
        let mut handover = self.handing_over();
        let free = handover.note.is_none();
        if free {
            handover.note = Some(Note::default());
        }
        Ok(free)
    }

    /// What was noted; nothing is from now on.
    pub(super) fn end_note(&self) -> Option<Note> {
        self.handing_over().note.take()
    }

    fn handing_over(&self) -> MutexGuard<'_, Handover> {
        self.handover.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(error) => Err(StoreError::Stopped(error.to_string())),
            None => Ok(()),
        }
    }
}
