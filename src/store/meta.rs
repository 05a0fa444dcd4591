//! What the store remembers about itself, table 1: schema version, key check, checksum of the records,
//! and which runs ended cleanly.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    backend::{Backend, Op, Record},
    integrity::checksum::Checksum,
    migrate,
    seal::Sealer,
};

/// The table id of these records.
pub(super) const ID: u8 = 1;

const SCHEMA: &[u8] = &[ID, b's'];
const KEY_CHECK: &[u8] = &[ID, b'k'];
const RUN: &[u8] = &[ID, b'r'];
const RESTORED: &[u8] = &[ID, b'b'];
const CHECK_TEXT: &[u8] = b"this store opens with this key";

/// The runs of the service on this store, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The number of this run.
    pub number: u64,
    /// What was written in runs before this one may be older than what the world has seen: a run
    /// after them ended without saying so (a crash, a kill, a power cut), or the store is a
    /// restored copy. Equal to `number` when it was the run before.
    pub sure_since: u64,
    clean: bool,
}

impl Run {
    /// Returns `true` if the run before this one ended without [`super::Store::shut_down`].
    pub fn is_after_crash(&self) -> bool {
        self.number > 1 && self.sure_since == self.number
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    rmp_serde::to_vec_named(value).map_err(|e| StoreError::Encode {
        table: "meta",
        why: e.to_string(),
    })
}

pub(super) fn schema(version: u32) -> Op {
    Op::Put(SCHEMA.to_vec(), version.to_be_bytes().to_vec())
}

fn key_check(sealer: &Sealer) -> Result<Op, StoreError> {
    Ok(Op::Put(
        KEY_CHECK.to_vec(),
        sealer.seal(KEY_CHECK, CHECK_TEXT)?,
    ))
}

/// What makes a store of the records that lie there: its last run did not end. They count as batch
/// 0, so that nobody takes them for the store of a `progress` that is still about.
pub(super) fn mark_restored(
    backend: &dyn Backend,
    version: u32,
    run: u64,
    sealer: &Sealer,
) -> Result<(), StoreError> {
    let run = Run {
        number: run,
        sure_since: run,
        clean: false,
    };
    let ops = vec![
        Op::Put(RUN.to_vec(), encode(&run)?),
        Op::Put(RESTORED.to_vec(), Vec::new()),
        schema(version),
        key_check(sealer)?,
    ];
    Checksum::compute(backend)?.apply_as_first(backend, ops)
}

/// The key of the record that says that the store was restored and that what follows from it is
/// not done yet.
pub(super) fn restored_key() -> Vec<u8> {
    RESTORED.to_vec()
}

/// Check that this is a store we can use and that the key is its key, before anything is written;
/// then bring its schema up to date. Returns the checksum of its records.
pub(super) fn admit(
    backend: &dyn Backend,
    sealer: &Sealer,
    path: &Path,
    confirmed: Option<u64>,
    steps: &[migrate::Step],
) -> Result<Checksum, StoreError> {
    let known = migrate::newest_version(steps);
    match inspect(backend, sealer, path, confirmed, known)? {
        None => Checksum::default().apply(backend, vec![schema(known), key_check(sealer)?]),
        Some((found, checksum)) => migrate::run(backend, found, checksum, steps),
    }
}

/// The schema version and the checksum of a store that we can use, `None` if there is none yet. Writes
/// nothing.
pub(super) fn inspect(
    backend: &dyn Backend,
    sealer: &Sealer,
    path: &Path,
    confirmed: Option<u64>,
    known: u32,
) -> Result<Option<(u32, Checksum)>, StoreError> {
    let damaged = |why: &str| StoreError::Damaged {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    if backend.scan(&[], None, 1)?.is_empty() {
        if let Some(expected) = confirmed {
            return Err(StoreError::LostWrites {
                path: path.to_owned(),
                found: 0,
                expected,
            });
        }
        return Ok(None);
    }
    let found = backend
        .get(SCHEMA)?
        .and_then(|v| v.try_into().ok().map(u32::from_be_bytes))
        .ok_or_else(|| damaged("it holds records but no schema version"))?;
    migrate::check(found, known, path)?;
    let check = backend
        .get(KEY_CHECK)?
        .ok_or_else(|| damaged("it holds records but no key check"))?;
    if sealer.open(KEY_CHECK, &check).is_none() {
        return Err(StoreError::WrongKey {
            path: path.to_owned(),
        });
    }
    let checksum = Checksum::load(backend)?
        .ok_or_else(|| damaged("the checksum of its records is missing"))?;
    if let Some(expected) = confirmed.filter(|confirmed| *confirmed > checksum.batches()) {
        return Err(StoreError::LostWrites {
            path: path.to_owned(),
            found: checksum.batches(),
            expected,
        });
    }
    Ok(Some((found, checksum)))
}

/// Begin a run: its number, and a mark that it has not ended yet.
pub(super) fn begin_run(
    backend: &dyn Backend,
    checksum: Checksum,
) -> Result<(Run, Checksum), StoreError> {
    let run = match backend.get(RUN)? {
        None => Run {
            number: 1,
            sure_since: 1,
            clean: false,
        },
        Some(bytes) => {
            let last: Run = rmp_serde::from_slice(&bytes).map_err(|e| StoreError::Decode {
                table: "meta",
                why: e.to_string(),
            })?;
            let number = last.number.saturating_add(1);
            let sure_since = if last.clean { last.sure_since } else { number };
            Run {
                number,
                sure_since,
                clean: false,
            }
        }
    };
    let checksum = checksum.apply(backend, vec![Op::Put(RUN.to_vec(), encode(&run)?)])?;
    Ok((run, checksum))
}

/// The record that ends a run cleanly.
pub(super) fn end_run(run: Run) -> Result<Record, StoreError> {
    Ok((RUN.to_vec(), encode(&Run { clean: true, ..run })?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_a_run_looks_like_this_on_disk() {
        let run = Run {
            number: 7,
            sure_since: 5,
            clean: true,
        };
        let bytes = encode(&run).unwrap();
        assert_eq!(bytes, b"\x83\xA6number\x07\xAAsure_since\x05\xA5clean\xC3");
        assert_eq!(rmp_serde::from_slice::<Run>(&bytes).unwrap(), run);
        assert_eq!(schema(1), Op::Put(b"\x01s".to_vec(), vec![0, 0, 0, 1]));
    }
}
