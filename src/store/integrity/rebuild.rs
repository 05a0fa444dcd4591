//! A database that passed over a part of its log is counted, and what it holds is written into a
//! new one.
//!
//! The count says whether all records can be found. It does not say that they can be found in every
//! way: the pages that lead to them may be older than they were, so that a scan ends in the middle
//! where a look-up goes on, and later writes go astray. What was read and has the right checksum is what
//! was written; a new database made of it is whole.
//!
//! The old one is moved aside, the new one takes its place, the old one is removed. A crash before
//! the second step is undone at the next start, which begins again.

use std::{
    fs::{self, File},
    path::Path,
};

use super::checksum::Checksum;
use crate::store::{
    StoreError, StoreKey, StoreOptions,
    backend::{Backend, Op, sled::SledBackend},
    backup::restore::{remove, wait_for_threads},
    files::sync_parent,
    meta, migrate,
    seal::Sealer,
};

const DATABASE: &str = "sled";
/// Where the new database is made.
const NEW: &str = "renewing";
/// Where the old one lies for a moment.
const OLD: &str = "renewed";
const PAGE: usize = 256;

/// Open the database of the store in `path`; where it passed over something, check and renew it.
pub(in crate::store) fn open(
    path: &Path,
    key: &StoreKey,
    options: &StoreOptions,
    confirmed: Option<u64>,
) -> Result<SledBackend, StoreError> {
    finish(path)?;
    let place = path.join(DATABASE);
    let backend = SledBackend::open(&place, options)?;
    let Some(skipped) = backend.doubts() else {
        return Ok(backend);
    };
    tracing::warn!(
        skipped,
        "the database passed over a part of its log: its records are counted and written anew"
    );
    let known = migrate::known(migrate::STEPS);
    let found = meta::inspect(&backend, &Sealer::of(key)?, path, confirmed, known)?;
    let checksum = found.map(|(_, checksum)| checksum).unwrap_or_default();
    checksum.verify(&backend, path)?;
    let new = path.join(NEW);
    copy(&backend, checksum, &new, options)?;
    drop(backend);
    wait_for_threads(&place);
    let old = path.join(OLD);
    rename(&place, &old)?;
    rename(&new, &place)?;
    remove(&old)?;
    SledBackend::open(&place, options)
}

/// Finish, or undo, what a crash cut short.
pub(in crate::store) fn finish(path: &Path) -> Result<(), StoreError> {
    let (place, old) = (path.join(DATABASE), path.join(OLD));
    remove(&path.join(NEW))?;
    if old.exists() && !place.exists() {
        return rename(&old, &place);
    }
    remove(&old)
}

/// Write all records into a new database. Durable when this returns.
fn copy(
    from: &dyn Backend,
    checksum: Checksum,
    new: &Path,
    options: &StoreOptions,
) -> Result<(), StoreError> {
    let to = SledBackend::open(new, options)?;
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = from.scan(&[], after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        to.apply(page.into_iter().map(|(k, v)| Op::Put(k, v)).collect())?;
    }
    // What is read twice can be read differently.
    checksum.verify(&to, new)?;
    to.flush()?;
    drop(to);
    wait_for_threads(new);
    sync(new)
}

/// Make every file in a folder durable, and their names.
fn sync(folder: &Path) -> Result<(), StoreError> {
    let io = |e| StoreError::io("write", folder, &e);
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_dir() {
            sync(&path)?;
        } else {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(io)?;
        }
    }
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io)
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|e| StoreError::io("move", from, &e))?;
    sync_parent(to)
}
