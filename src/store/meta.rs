//! The records that the store keeps about itself, table 1: schema version, key check, checksum of
//! the records, and which runs ended cleanly.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    backend::{Backend, Op, Record},
    integrity::checksum::Checksum,
    migrate,
    seal::Sealer,
    table::META_ID,
};

const KEY_CHECK: &[u8] = &[META_ID, b'k'];
const RUN: &[u8] = &[META_ID, b'r'];
const RESTORED: &[u8] = &[META_ID, b'b'];
const CHECK_TEXT: &[u8] = b"this store opens with this key";

/// One run of the service on this store. Runs are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The number of this run.
    pub number: u64,
    /// The first run whose writes are certain to be the newest that others have seen. Records of
    /// earlier runs may be outdated: a run since then ended without [`super::Store::shut_down`] (a
    /// crash, a kill, a power cut), or the store was restored from a backup. Equal to `number` if
    /// the previous run ended like that.
    pub trusted_since: u64,
    clean: bool,
}

impl Run {
    /// Returns `true` if the run before this one ended without [`super::Store::shut_down`].
    pub fn is_after_crash(&self) -> bool {
        self.number > 1 && self.trusted_since == self.number
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    rmp_serde::to_vec_named(value).map_err(|e| StoreError::Encode {
        table: "meta",
        why: e.to_string(),
    })
}

fn key_check(sealer: &Sealer) -> Result<Op, StoreError> {
    Ok(Op::Put(
        KEY_CHECK.to_vec(),
        sealer.seal(KEY_CHECK, CHECK_TEXT)?,
    ))
}

/// Makes the imported records a store whose last run did not end cleanly. The import counts as
/// batch 0, so that the `progress` file of another store does not match it.
pub(super) fn mark_restored(
    backend: &dyn Backend,
    version: u32,
    run: u64,
    sealer: &Sealer,
) -> Result<(), StoreError> {
    let run = Run {
        number: run,
        trusted_since: run,
        clean: false,
    };
    let ops = vec![
        Op::Put(RUN.to_vec(), encode(&run)?),
        Op::Put(RESTORED.to_vec(), Vec::new()),
        migrate::version_op(version),
        key_check(sealer)?,
    ];
    Checksum::compute(backend)?.apply_as_first(backend, ops)
}

/// Returns the key of the record which says that the store was restored and that the steps after a
/// restore are not done yet.
pub(super) fn restored_key() -> Vec<u8> {
    RESTORED.to_vec()
}

/// Checks that the store is usable and that the key is its key before anything is written, and then
/// migrates it to the newest schema version. Returns the checksum of its records.
pub(super) fn open_or_init(
    backend: &dyn Backend,
    sealer: &Sealer,
    path: &Path,
    confirmed: Option<u64>,
    steps: &[migrate::Step],
) -> Result<Checksum, StoreError> {
    let newest = migrate::newest_version(steps);
    match inspect(backend, sealer, path, confirmed, newest)? {
        None => {
            let ops = vec![migrate::version_op(newest), key_check(sealer)?];
            Checksum::default().apply(backend, ops)
        }
        Some((found, checksum)) => migrate::run_steps(backend, found, checksum, steps),
    }
}

/// Returns the schema version and the checksum of a usable store, `None` if the database is empty.
/// Writes nothing.
pub(super) fn inspect(
    backend: &dyn Backend,
    sealer: &Sealer,
    path: &Path,
    confirmed: Option<u64>,
    newest: u32,
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
    let found = migrate::load_version(backend)?
        .ok_or_else(|| damaged("it holds records but no schema version"))?;
    migrate::check(found, newest, path)?;
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

/// Begins a run: writes its number, and that it has not ended yet.
pub(super) fn begin_run(
    backend: &dyn Backend,
    checksum: Checksum,
) -> Result<(Run, Checksum), StoreError> {
    let run = match backend.get(RUN)? {
        None => Run {
            number: 1,
            trusted_since: 1,
            clean: false,
        },
        Some(bytes) => {
            let last: Run = rmp_serde::from_slice(&bytes).map_err(|e| StoreError::Decode {
                table: "meta",
                why: e.to_string(),
            })?;
            let number = last.number.saturating_add(1);
            let trusted_since = if last.clean {
                last.trusted_since
            } else {
                number
            };
            Run {
                number,
                trusted_since,
                clean: false,
            }
        }
    };
    let checksum = checksum.apply(backend, vec![Op::Put(RUN.to_vec(), encode(&run)?)])?;
    Ok((run, checksum))
}

/// Returns the record that ends a run cleanly.
pub(super) fn end_run(run: Run) -> Result<Record, StoreError> {
    Ok((RUN.to_vec(), encode(&Run { clean: true, ..run })?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_of_a_run_is_stable() {
        let run = Run {
            number: 7,
            trusted_since: 5,
            clean: true,
        };
        let bytes = encode(&run).unwrap();
        assert_eq!(
            bytes,
            b"\x83\xA6number\x07\xADtrusted_since\x05\xA5clean\xC3"
        );
        assert_eq!(rmp_serde::from_slice::<Run>(&bytes).unwrap(), run);
    }
}
