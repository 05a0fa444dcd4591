//! The backend on sled, the only file that uses it.
//!
//! `docs/store.md` lists its weaknesses and what avoids them: one tree, no flush timer, never
//! `flush_async`, caught panics, a real `fsync` after its flush, values that are split below the
//! size from which sled writes them into files of their own (`split.rs`), and the number of the
//! last confirmed batch outside the database, which shows when a part of the log is lost.

use std::{
    collections::BTreeMap,
    fs::File,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use super::{
    Backend, Op, Record,
    memory::key_range,
    sled_log,
    split::{self, RESERVED},
};
use crate::store::{
    StoreError, StoreOptions,
    files::{make_folder, sync_folder, sync_parent, sync_tree},
};

/// Maximum number of further attempts while threads of a closed database hold sled's lock.
const LOCK_RETRIES_MAX: u32 = 200;
/// How long to wait before another attempt.
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A sled database in a folder.
pub struct SledBackend {
    db: sled::Db,
    /// Our own handle of sled's log file.
    log: File,
    path: PathBuf,
    /// Locked while a batch is applied, so that a large value is not written while its pieces are
    /// looked up.
    writing: Mutex<()>,
    /// The error after which no call reaches sled.
    stopped: OnceLock<String>,
    /// The part of the log that sled skipped when it opened it.
    skipped: Option<String>,
}

impl std::fmt::Debug for SledBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SledBackend")
            .field("path", &self.path)
            .finish()
    }
}

impl SledBackend {
    /// Opens or creates the database in `path`.
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        Self::open_with(path, options, Ok)
    }

    /// Opens or creates the database in `path`. Before each attempt of sled, `before_open` is given
    /// the part of the log that sled will skip, if any, and returns the part to report as skipped.
    pub fn open_with(
        path: &Path,
        options: &StoreOptions,
        before_open: impl Fn(Option<String>) -> Result<Option<String>, StoreError>,
    ) -> Result<Self, StoreError> {
        // sled would make the folder readable by others.
        make_folder(path)?;
        let mut tries = 0;
        let (db, skipped) = loop {
            // sled repairs the log when it opens it, which removes all trace of the damage.
            let skipped = before_open(sled_log::skipped(path)?)?;
            let config = sled::Config::new()
                .path(path)
                .cache_capacity(options.cache_bytes)
                // The committer flushes. A second flusher would only write more often.
                .flush_every_ms(None)
                .mode(sled::Mode::HighThroughput);
            let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
            match opened {
                Ok(Ok(db)) => break (db, skipped),
                // Threads of a database that was just closed may still hold sled's lock. Our own
                // lock, which the caller holds, shows that no other process uses the database.
                Ok(Err(sled::Error::Io(e))) if e.to_string().contains("acquire lock") => {
                    tries += 1;
                    if tries > LOCK_RETRIES_MAX {
                        return Err(StoreError::InUse {
                            path: path.to_owned(),
                        });
                    }
                    std::thread::sleep(LOCK_RETRY_PAUSE);
                }
                Ok(Err(e)) => return Err(from_sled(path, &e)),
                Err(panic) => return Err(from_panic(path, &panic)),
            }
        };
        let log_path = path.join("db");
        let log = File::open(&log_path).map_err(|e| StoreError::io("open", &log_path, &e))?;
        // sled syncs the log, and none of the names that it made.
        sync_folder(path)?;
        sync_parent(path)?;
        Ok(Self {
            db,
            log,
            path: path.to_owned(),
            writing: Mutex::default(),
            stopped: OnceLock::new(),
            skipped,
        })
    }

    /// Returns the part of the log that sled skipped when it opened the database. Records may be
    /// missing without an error.
    pub fn skipped_damage(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    /// Calls sled. After a failure every call is refused, because sled's memory may be ahead of
    /// what will reach the disk.
    fn run<T>(&self, call: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, StoreError> {
        if let Some(why) = self.stopped.get() {
            return Err(StoreError::Stopped(why.clone()));
        }
        let error = match catch_unwind(AssertUnwindSafe(|| call(&self.db))) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(e)) => from_sled(&self.path, &e),
            Err(panic) => from_panic(&self.path, &panic),
        };
        let _ = self.stopped.set(error.to_string());
        Err(error)
    }
}

impl SledBackend {
    /// Returns what sled has under a key.
    fn get_piece(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.run(|db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    /// Returns the value that begins with this piece; `None` if it was deleted meanwhile.
    fn complete(&self, key: &[u8], first: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        let value = split::join(key, first, |key| self.get_piece(key))?;
        if value.is_some() {
            return Ok(value);
        }
        // A batch changed the record between two of the reads, unless it is damaged.
        let _no_batch = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(first) = self.get_piece(key)? else {
            return Ok(None);
        };
        let value = split::join(key, first, |key| self.get_piece(key))?;
        value.map(Some).ok_or_else(|| StoreError::Damaged {
            path: self.path.clone(),
            why: "a part of a large record is missing".to_owned(),
        })
    }

    /// Returns the number of pieces after the first that a key has.
    fn count_pieces(&self, key: &[u8]) -> Result<u16, StoreError> {
        let mut count = 0;
        let mut piece = self.get_piece(key)?;
        while piece.is_some_and(|piece| split::has_more(&piece)) && count < u16::MAX {
            piece = self.get_piece(&split::piece_key(key, count))?;
            count += 1;
        }
        Ok(count)
    }

    /// Returns the number of keys that sled has, those of pieces among them.
    #[cfg(test)]
    pub(super) fn count_stored(&self) -> Result<usize, StoreError> {
        self.run(|db| Ok(db.len()))
    }

    /// Reads the pieces in a range, and completes them until there are `limit` records.
    fn complete_all(
        &self,
        limit: usize,
        mut pieces: impl FnMut(Option<&[u8]>, usize) -> Result<Vec<Record>, StoreError>,
    ) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        let mut last: Option<Vec<u8>> = None;
        loop {
            let wanted = limit - records.len();
            let page = pieces(last.as_deref(), wanted)?;
            let is_end = page.len() < wanted;
            last = page.last().map(|(key, _)| key.clone());
            for (key, first) in page {
                // A shorter answer would look like the end.
                if let Some(value) = self.complete(&key, first)? {
                    records.push((key, value));
                }
            }
            if is_end || records.len() == limit {
                return Ok(records);
            }
        }
    }
}

fn from_sled(path: &Path, error: &sled::Error) -> StoreError {
    match error {
        sled::Error::Io(e) => StoreError::io("use", path, e),
        sled::Error::Corruption { .. } => StoreError::Damaged {
            path: path.to_owned(),
            why: "a checksum of the database is wrong".to_owned(),
        },
        other => StoreError::Damaged {
            path: path.to_owned(),
            why: other.to_string(),
        },
    }
}

fn from_panic(path: &Path, panic: &Box<dyn std::any::Any + Send>) -> StoreError {
    let why = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given");
    let why: String = why.chars().take(300).collect();
    StoreError::Damaged {
        path: path.to_owned(),
        why: format!("the database panicked ({why})"),
    }
}

/// Waits until the threads of a database that was just closed have ended. Until then they hold its
/// lock and may still write by its path.
pub(in crate::store) fn wait_until_closed(database: &Path) {
    let Ok(log) = File::open(database.join("db")) else {
        return;
    };
    for _ in 0..80 {
        if log.try_lock().is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

fn record((key, value): (sled::IVec, sled::IVec)) -> Record {
    (key.to_vec(), value.to_vec())
}

fn bounds(range: &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (
        range.0.as_ref().map(Vec::as_slice),
        range.1.as_ref().map(Vec::as_slice),
    )
}

impl Backend for SledBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.get_piece(key)? {
            Some(first) => self.complete(key, first),
            None => Ok(None),
        }
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.complete_all(limit, |last, limit| {
            let Some(range) = key_range(prefix, last.or(after), Some(&[RESERVED])) else {
                return Ok(Vec::new());
            };
            self.run(|db| {
                let found = db.range::<&[u8], _>(bounds(&range));
                found.take(limit).map(|it| it.map(record)).collect()
            })
        })
    }

    fn scan_back(
        &self,
        prefix: &[u8],
        before: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.complete_all(limit, |last, limit| {
            let before = last.or(before).unwrap_or(&[RESERVED]).min(&[RESERVED]);
            let Some(range) = key_range(prefix, None, Some(before)) else {
                return Ok(Vec::new());
            };
            self.run(|db| {
                let found = db.range::<&[u8], _>(bounds(&range)).rev();
                found.take(limit).map(|it| it.map(record)).collect()
            })
        })
    }

    fn apply(&self, ops: Vec<Op>) -> Result<(), StoreError> {
        let mut last = BTreeMap::new();
        for op in ops {
            let (key, value) = match op {
                Op::Put(key, value) => (key, Some(value)),
                Op::Delete(key) => (key, None),
            };
            if key.first() == Some(&RESERVED) {
                return Err(StoreError::Encode {
                    table: "raw",
                    why: "its key begins with a byte that is reserved".to_owned(),
                });
            }
            last.insert(key, value);
        }
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = sled::Batch::default();
        for (key, value) in last {
            let old = self.count_pieces(&key)?;
            let mut new = 0;
            match value {
                Some(value) => {
                    let (first, pieces) = split::split(value)?;
                    for piece in pieces {
                        batch.insert(split::piece_key(&key, new), piece);
                        new += 1;
                    }
                    batch.insert(key.clone(), first);
                }
                None => batch.remove(key.clone()),
            }
            for number in new..old {
                batch.remove(split::piece_key(&key, number));
            }
        }
        self.run(|db| db.apply_batch(batch))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.run(|db| {
            db.flush()?;
            // On Linux sled's flush is a `sync_file_range`, which hands the pages to the disk but
            // writes neither the file's new length nor the disk's own cache.
            self.log.sync_data()?;
            Ok(())
        })?;
        // There are no such files, unless an index page is larger than a message may be: our keys
        // are short enough for that, but nothing in sled makes sure of it.
        let files = self.path.join("blobs");
        match std::fs::read_dir(&files).map(|mut files| files.next().is_none()) {
            Ok(true) => Ok(()),
            Ok(false) => sync_tree(&files),
            Err(e) => Err(StoreError::io("read", &files, &e)),
        }
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.run(|db| db.size_on_disk())
    }
}
