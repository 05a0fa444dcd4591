//! The only place that knows sled.
//!
//! What is done here to keep clear of its weaknesses is told in `docs/store.md`: one tree, no
//! flush of its own, never `flush_async`, panics caught, a real `fsync` after its flush, and a
//! count of flushes beside the database that shows when a part of the log has gone.

use std::{
    fs::File,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use super::{Backend, Op, Record, memory::range, sled_log};
use crate::store::{StoreError, StoreOptions, files::make_folder, integrity::repair_marker};

/// A folder of sled.
pub struct SledBackend {
    db: sled::Db,
    /// Our own handle of sled's log file.
    log: File,
    path: PathBuf,
    /// What stopped it.
    stopped: OnceLock<String>,
    /// What it skipped of its log when it was opened.
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
    /// Open or create the database in `path`.
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        // sled would make it readable by others.
        make_folder(path)?;
        let mut tries = 0;
        let (db, skipped) = loop {
            // Before sled repairs anything, after which nothing shows any more.
            let skipped = sled_log::skipped(path)?;
            let skipped = repair_marker::remember(path, skipped)?;
            let config = sled::Config::new()
                .path(path)
                .cache_capacity(options.cache_bytes)
                // We flush; a second flusher would only write more often than anybody asked.
                .flush_every_ms(None)
                .mode(sled::Mode::HighThroughput);
            let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
            match opened {
                Ok(Ok(db)) => break (db, skipped),
                // Threads of a database closed a moment ago may still hold sled's lock; our own
                // lock, taken before, says that nobody uses it.
                Ok(Err(sled::Error::Io(e))) if e.to_string().contains("acquire lock") => {
                    tries += 1;
                    if tries > 40 {
                        return Err(StoreError::InUse {
                            path: path.to_owned(),
                        });
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                Ok(Err(e)) => return Err(translate(path, &e)),
                Err(panic) => return Err(damaged(path, &panic)),
            }
        };
        let log_path = path.join("db");
        let log = File::open(&log_path).map_err(|e| StoreError::io("open", &log_path, &e))?;
        Ok(Self {
            db,
            log,
            path: path.to_owned(),
            stopped: OnceLock::new(),
            skipped,
        })
    }

    /// What it passed over when it was opened, so that it may have lost records without saying so.
    pub fn doubts(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    /// Run something in sled. After a failure nothing more runs: what sled has in memory may then
    /// be ahead of what will ever be on disk.
    fn run<T>(&self, what: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, StoreError> {
        if let Some(why) = self.stopped.get() {
            return Err(StoreError::Stopped(why.clone()));
        }
        let error = match catch_unwind(AssertUnwindSafe(|| what(&self.db))) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(e)) => translate(&self.path, &e),
            Err(panic) => damaged(&self.path, &panic),
        };
        let _ = self.stopped.set(error.to_string());
        Err(error)
    }
}

fn translate(path: &Path, error: &sled::Error) -> StoreError {
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

fn damaged(path: &Path, panic: &Box<dyn std::any::Any + Send>) -> StoreError {
    let why = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given");
    let why: String = why.chars().take(300).collect();
    StoreError::Damaged {
        path: path.to_owned(),
        why: format!("the database gave up ({why})"),
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
        self.run(|db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let Some(range) = range(prefix, after, None) else {
            return Ok(Vec::new());
        };
        self.run(|db| {
            db.range::<&[u8], _>(bounds(&range))
                .take(limit)
                .map(|r| r.map(record))
                .collect()
        })
    }

    fn scan_back(
        &self,
        prefix: &[u8],
        before: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let Some(range) = range(prefix, None, before) else {
            return Ok(Vec::new());
        };
        self.run(|db| {
            db.range::<&[u8], _>(bounds(&range))
                .rev()
                .take(limit)
                .map(|r| r.map(record))
                .collect()
        })
    }

    fn apply(&self, ops: Vec<Op>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for op in ops {
            match op {
                Op::Put(key, value) => batch.insert(key, value),
                Op::Delete(key) => batch.remove(key),
            }
        }
        self.run(|db| db.apply_batch(batch))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.run(|db| {
            db.flush()?;
            // On Linux sled's flush is a `sync_file_range`: it hands the pages to the disk but
            // neither writes the file's new length nor empties the disk's own cache.
            self.log.sync_data()?;
            Ok(())
        })
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.run(|db| db.size_on_disk())
    }
}
