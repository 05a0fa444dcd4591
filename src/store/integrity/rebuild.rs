//! Opens the database and, if sled skipped a part of its log, verifies all records and copies them
//! into a new database.
//!
//! The checksum shows that every record can be found by one full scan, not that every way to read
//! it works: the pages that lead to the records may be outdated, so that another scan ends in the
//! middle where a lookup still succeeds, and later writes go to the wrong place. Records that match
//! the checksum are the records that were written, so a new database made of them is sound.
//!
//! The old database is moved aside, the new one takes its place, and the old one is removed. A
//! crash before the second step is undone at the next start, which begins again.

use std::{fs, path::Path};

use super::{checksum::Checksum, repair_marker};
use crate::store::{
    StoreError, StoreKey, StoreOptions,
    backend::{
        Backend, Op,
        sled::{SledBackend, wait_until_closed},
    },
    files::{remove_folder, sync_parent, sync_tree},
    meta, migrate,
    seal::Sealer,
};

const DATABASE: &str = "sled";
/// Folder in which the new database is made.
const NEW: &str = "sled.new";
/// Folder to which the old database is moved until the new one is in its place.
const OLD: &str = "sled.old";
/// Number of records that are copied at a time.
const PAGE_RECORDS: usize = 256;

/// Opens the database of the store in `path`, and rebuilds it if sled skipped a part of its log.
pub(in crate::store) fn open(
    path: &Path,
    key: &StoreKey,
    options: &StoreOptions,
    confirmed: Option<u64>,
) -> Result<SledBackend, StoreError> {
    recover(path)?;
    let database = path.join(DATABASE);
    let backend = open_marked(&database, options)?;
    let Some(skipped) = backend.skipped_damage() else {
        return Ok(backend);
    };
    tracing::warn!(
        skipped,
        "the database skipped a part of its log: verifying its records and copying them into a new \
         database"
    );
    let newest = migrate::newest_version(migrate::STEPS);
    let found = meta::inspect(&backend, &Sealer::of(key)?, path, confirmed, newest)?;
    let checksum = found.map(|(_, checksum)| checksum).unwrap_or_default();
    checksum.verify(&backend, path)?;
    let new = path.join(NEW);
    copy(&backend, checksum, &new, options)?;
    drop(backend);
    wait_until_closed(&database);
    let old = path.join(OLD);
    rename(&database, &old)?;
    rename(&new, &database)?;
    remove_folder(&old)?;
    open_marked(&database, options)
}

/// Opens a database. The repair marker is written before sled opens it.
fn open_marked(database: &Path, options: &StoreOptions) -> Result<SledBackend, StoreError> {
    SledBackend::open_with(database, options, |skipped| {
        repair_marker::update(database, skipped)
    })
}

/// Completes or undoes a rebuild that a crash interrupted.
pub(in crate::store) fn recover(path: &Path) -> Result<(), StoreError> {
    let (database, old) = (path.join(DATABASE), path.join(OLD));
    remove_folder(&path.join(NEW))?;
    if old.exists() && !database.exists() {
        return rename(&old, &database);
    }
    remove_folder(&old)
}

/// Copies all records into a new database. Durable when this returns.
fn copy(
    from: &dyn Backend,
    checksum: Checksum,
    new: &Path,
    options: &StoreOptions,
) -> Result<(), StoreError> {
    let to = SledBackend::open(new, options)?;
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = from.scan(&[], after.as_deref(), PAGE_RECORDS)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        to.apply(page.into_iter().map(|(k, v)| Op::Put(k, v)).collect())?;
    }
    // The second read of a damaged database may differ from the first.
    checksum.verify(&to, new)?;
    to.flush()?;
    drop(to);
    wait_until_closed(new);
    sync_tree(new)
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|e| StoreError::io("move", from, &e))?;
    sync_parent(to)
}
