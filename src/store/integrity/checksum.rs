//! A checksum over all records, stored with them, that shows when some are missing.
//!
//! A database that repairs itself after damage can end up with fewer records than it had, or with
//! an older version of some, and report nothing. So every batch has a number and carries it,
//! together with the number of records and the sum (modulo 2^128) of a digest of each, as of the
//! end of the batch. The records can then be compared with the checksum. A batch costs one addition
//! or subtraction per change, in whatever order the records came. The checksum detects damage, not
//! forgery; a forged record fails its seal.
//!
//! The batch number and the checksum are one record, so damage cannot separate them. The number of
//! the last confirmed batch is stored outside the database (`progress`). A database that has a
//! batch with that number or a later one also has the checksum as of that batch or a later one, and
//! the loss of older records makes it differ.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use sha2::{Digest, Sha256};

use crate::store::{
    StoreError,
    backend::{Backend, Op},
    table::META_ID,
};

const KEY: &[u8] = &[META_ID, b'h'];
/// Number of records that are read from the database at a time.
const PAGE_RECORDS: usize = 256;

/// The number of the last batch, the number of records after it, and the sum of their digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Checksum {
    batches: u64,
    records: u64,
    digests: u128,
}

impl Checksum {
    /// Loads the checksum that the database carries, if it has one.
    pub(in crate::store) fn load(backend: &dyn Backend) -> Result<Option<Self>, StoreError> {
        Ok(backend.get(KEY)?.and_then(|bytes| Self::parse(&bytes)))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (batches, rest) = bytes.split_first_chunk()?;
        let (records, digests) = rest.split_first_chunk()?;
        Some(Self {
            batches: u64::from_be_bytes(*batches),
            records: u64::from_be_bytes(*records),
            digests: u128::from_be_bytes(digests.try_into().ok()?),
        })
    }

    /// Returns the number of the last batch.
    pub(in crate::store) fn batches(self) -> u64 {
        self.batches
    }

    /// Computes the checksum of the records in the database, with 0 as the batch number. Reads
    /// everything.
    pub(in crate::store) fn compute(backend: &dyn Backend) -> Result<Self, StoreError> {
        let mut checksum = Self::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = backend.scan(&[], after.as_deref(), PAGE_RECORDS)?;
            let Some((last, _)) = page.last() else {
                return Ok(checksum);
            };
            after = Some(last.clone());
            for (key, value) in &page {
                checksum.add(key, value);
            }
        }
    }

    /// Applies `ops` together with the checksum after them, and returns that checksum.
    pub(in crate::store) fn apply(
        self,
        backend: &dyn Backend,
        mut ops: Vec<Op>,
    ) -> Result<Self, StoreError> {
        let (next, checksum_op) = self.advance(backend, &mut ops)?;
        ops.push(checksum_op);
        backend.apply(ops)?;
        Ok(next)
    }

    /// Applies `ops` like [`Self::apply`], but as batch 0.
    pub(in crate::store) fn apply_as_first(
        self,
        backend: &dyn Backend,
        mut ops: Vec<Op>,
    ) -> Result<(), StoreError> {
        let (next, _) = self.advance(backend, &mut ops)?;
        let first = Self { batches: 0, ..next };
        ops.push(first.to_op());
        backend.apply(ops)
    }

    /// Returns the checksum after `ops`, which the caller is about to apply, and the change that
    /// stores it. Removes deletions of keys that have no value from `ops`.
    pub(in crate::store) fn advance(
        self,
        backend: &dyn Backend,
        ops: &mut Vec<Op>,
    ) -> Result<(Self, Op), StoreError> {
        let mut last: HashMap<&[u8], Option<&[u8]>> = HashMap::with_capacity(ops.len());
        for op in &*ops {
            match op {
                Op::Put(key, value) => last.insert(key, Some(value)),
                Op::Delete(key) => last.insert(key, None),
            };
        }
        let mut next = Self {
            batches: self.batches.saturating_add(1),
            ..self
        };
        let mut no_ops = HashSet::new();
        for (key, value) in last {
            if !is_counted(key) {
                continue;
            }
            let old = backend.get(key)?;
            if old.is_none() && value.is_none() {
                no_ops.insert(key.to_vec());
            }
            if let Some(old) = old {
                next.remove(key, &old);
            }
            if let Some(value) = value {
                next.add(key, value);
            }
        }
        ops.retain(|op| match op {
            Op::Put(key, _) | Op::Delete(key) => !no_ops.contains(key),
        });
        Ok((next, next.to_op()))
    }

    /// Returns the change that stores this checksum in the database.
    fn to_op(self) -> Op {
        let mut bytes = self.batches.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.records.to_be_bytes());
        bytes.extend_from_slice(&self.digests.to_be_bytes());
        Op::Put(KEY.to_vec(), bytes)
    }

    /// Refuses a database whose records do not match this checksum. Reads everything.
    pub(in crate::store) fn verify(
        self,
        backend: &dyn Backend,
        path: &Path,
    ) -> Result<(), StoreError> {
        let found = Self::compute(backend)?;
        if (found.records, found.digests) == (self.records, self.digests) {
            return Ok(());
        }
        Err(StoreError::Damaged {
            path: path.to_owned(),
            why: format!(
                "{} records can be read, {} were written, or some are older than they should be",
                found.records, self.records
            ),
        })
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        if is_counted(key) {
            self.records = self.records.wrapping_add(1);
            self.digests = self.digests.wrapping_add(digest(key, value));
        }
    }

    fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.records = self.records.wrapping_sub(1);
        self.digests = self.digests.wrapping_sub(digest(key, value));
    }
}

/// Returns `true` for every key except that of the checksum itself.
fn is_counted(key: &[u8]) -> bool {
    key != KEY
}

fn digest(key: &[u8], value: &[u8]) -> u128 {
    let mut hash = Sha256::new();
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(value);
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::backend::memory::MemoryBackend;

    fn op() -> impl Strategy<Value = Op> {
        // Few keys, so that batches change records of earlier ones.
        let key = prop_oneof![
            Just(vec![META_ID, 1]),
            Just(vec![7]),
            Just(vec![7, 1]),
            Just(vec![8, 0])
        ];
        (
            key,
            proptest::option::of(prop::collection::vec(0u8..3, 0..4)),
        )
            .prop_map(|(key, value)| match value {
                Some(value) => Op::Put(key, value),
                None => Op::Delete(key),
            })
    }

    proptest! {
        #[test]
        fn the_stored_checksum_is_that_of_the_records(
            batches in prop::collection::vec(prop::collection::vec(op(), 0..6), 0..8)
        ) {
            let backend = MemoryBackend::default();
            let mut checksum = Checksum::default();
            for (number, ops) in (1..).zip(batches) {
                checksum = checksum.apply(&backend, ops).unwrap();
                prop_assert_eq!(checksum.batches(), number);
                prop_assert_eq!(Checksum::load(&backend).unwrap(), Some(checksum));
                let computed = Checksum::compute(&backend).unwrap();
                prop_assert_eq!(Checksum { batches: number, ..computed }, checksum);
            }
        }
    }

    #[test]
    fn a_missing_older_or_foreign_record_is_noticed() {
        let path = Path::new("the folder");
        let backend = MemoryBackend::default();
        let put = |key: &[u8], value: &[u8]| Op::Put(key.to_vec(), value.to_vec());
        let ops = [
            put(b"\x07a", b"1"),
            put(b"\x07b", b"2"),
            put(b"\x01r", b"7"),
        ];
        let checksum = Checksum::default().apply(&backend, ops.to_vec()).unwrap();
        checksum.verify(&backend, path).unwrap();
        for change in [
            Op::Delete(b"\x07a".to_vec()),
            put(b"\x07a", b"0"),
            put(b"\x07c", b"1"),
            put(b"\x01r", b"6"),
        ] {
            let copy = MemoryBackend::default();
            copy.apply([&ops[..], &[change]].concat()).unwrap();
            let error = checksum.verify(&copy, path).unwrap_err();
            assert!(error.to_string().contains("the folder"), "{error}");
        }
    }
}
