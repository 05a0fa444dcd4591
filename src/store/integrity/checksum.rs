//! A sum over all records, kept with them, by which it is noticed when some are missing.
//!
//! A database that repairs itself after damage can end up with less than it had, or with an older
//! version of some records, and say nothing. So every batch has a number and carries it, with the
//! number of records and the sum (modulo 2^128) of a digest of each, as they are after it: what is
//! there can be compared with what ought to be. Adding and taking away is all that a batch costs,
//! whatever the order in which the records came. Damage is what this is for; whoever forges a
//! record meets its seal.
//!
//! The number and the sum are one record, so that damage cannot part them. The number of the last
//! batch that was confirmed lies outside (`progress`); a database that knows a batch as young as
//! that also has the sum as of that batch or a younger one, which no loss of older ones agrees with.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use sha2::{Digest, Sha256};

use crate::store::{
    StoreError,
    backend::{Backend, Op},
    meta,
};

const KEY: &[u8] = &[meta::ID, b'h'];
const PAGE: usize = 256;

/// How many batches there were, how many records there are after the last of them, and the sum of
/// their digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Sum {
    batches: u64,
    records: u64,
    digests: u128,
}

impl Sum {
    /// The sum that the database carries, if it does.
    pub(in crate::store) fn kept(backend: &dyn Backend) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = backend.get(KEY)? else {
            return Ok(None);
        };
        let sum = bytes.split_first_chunk().and_then(|(batches, rest)| {
            let (records, digests) = parts(rest)?;
            Some(Self {
                batches: u64::from_be_bytes(*batches),
                records,
                digests,
            })
        });
        Ok(sum)
    }

    /// The number of the last batch.
    pub(in crate::store) fn batches(self) -> u64 {
        self.batches
    }

    /// The sum of what is there, before any batch. Reads everything.
    pub(in crate::store) fn of(backend: &dyn Backend) -> Result<Self, StoreError> {
        let mut sum = Self::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = backend.scan(&[], after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(sum);
            };
            after = Some(last.clone());
            for (key, value) in &page {
                sum.add(key, value);
            }
        }
    }

    /// Apply `ops` and the sum after them, which is returned.
    pub(in crate::store) fn apply(
        self,
        backend: &dyn Backend,
        mut ops: Vec<Op>,
    ) -> Result<Self, StoreError> {
        let (next, keep) = self.after(backend, &mut ops)?;
        ops.push(keep);
        backend.apply(ops)?;
        Ok(next)
    }

    /// As [`Self::apply`], with 0 as the number of the batch.
    pub(in crate::store) fn apply_first(
        self,
        backend: &dyn Backend,
        mut ops: Vec<Op>,
    ) -> Result<(), StoreError> {
        let (next, _) = self.after(backend, &mut ops)?;
        let first = Self { batches: 0, ..next };
        ops.push(first.keep());
        backend.apply(ops)
    }

    /// The sum after `ops`, which are about to be applied, and the change that keeps it. What deletes
    /// what is not there is taken out of them.
    pub(in crate::store) fn after(
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
        let mut sum = Self {
            batches: self.batches.saturating_add(1),
            ..self
        };
        let mut idle = HashSet::new();
        for (key, value) in last {
            if !counts(key) {
                continue;
            }
            let old = backend.get(key)?;
            if old.is_none() && value.is_none() {
                idle.insert(key.to_vec());
            }
            if let Some(old) = old {
                sum.take_away(key, &old);
            }
            if let Some(value) = value {
                sum.add(key, value);
            }
        }
        ops.retain(|op| match op {
            Op::Put(key, _) | Op::Delete(key) => !idle.contains(key),
        });
        Ok((sum, sum.keep()))
    }

    /// The change that makes the database carry this sum.
    fn keep(self) -> Op {
        let mut bytes = self.batches.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.records.to_be_bytes());
        bytes.extend_from_slice(&self.digests.to_be_bytes());
        Op::Put(KEY.to_vec(), bytes)
    }

    /// Refuses a database that is not what it ought to be. Reads everything.
    pub(in crate::store) fn verify(
        self,
        backend: &dyn Backend,
        path: &Path,
    ) -> Result<(), StoreError> {
        let found = Self::of(backend)?;
        if (found.records, found.digests) == (self.records, self.digests) {
            return Ok(());
        }
        Err(StoreError::Damaged {
            path: path.to_owned(),
            why: format!(
                "{} records can be read where {} were written, or some are older than they should be",
                found.records, self.records
            ),
        })
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        if counts(key) {
            self.records = self.records.wrapping_add(1);
            self.digests = self.digests.wrapping_add(digest(key, value));
        }
    }

    fn take_away(&mut self, key: &[u8], value: &[u8]) {
        self.records = self.records.wrapping_sub(1);
        self.digests = self.digests.wrapping_sub(digest(key, value));
    }
}

/// All but the sum itself.
fn counts(key: &[u8]) -> bool {
    key != KEY
}

/// The number of records and the sum of their digests.
fn parts(bytes: &[u8]) -> Option<(u64, u128)> {
    let (records, digests) = bytes.split_first_chunk()?;
    let digests = digests.try_into().ok()?;
    Some((u64::from_be_bytes(*records), u128::from_be_bytes(digests)))
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
        // Few keys, so that batches meet what earlier ones left.
        let key = prop_oneof![
            Just(vec![meta::ID, 1]),
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
        fn the_sum_kept_is_the_sum_of_what_is_there(
            batches in prop::collection::vec(prop::collection::vec(op(), 0..6), 0..8)
        ) {
            let backend = MemoryBackend::default();
            let mut sum = Sum::default();
            for (number, ops) in (1..).zip(batches) {
                sum = sum.apply(&backend, ops).unwrap();
                prop_assert_eq!(sum.batches(), number);
                prop_assert_eq!(Sum::kept(&backend).unwrap(), Some(sum));
                prop_assert_eq!(Sum { batches: number, ..Sum::of(&backend).unwrap() }, sum);
            }
        }
    }

    #[test]
    fn what_is_missing_older_or_elsewhere_is_noticed() {
        let path = Path::new("the folder");
        let backend = MemoryBackend::default();
        let put = |key: &[u8], value: &[u8]| Op::Put(key.to_vec(), value.to_vec());
        let ops = [
            put(b"\x07a", b"1"),
            put(b"\x07b", b"2"),
            put(b"\x01r", b"7"),
        ];
        let sum = Sum::default().apply(&backend, ops.to_vec()).unwrap();
        sum.verify(&backend, path).unwrap();
        for change in [
            Op::Delete(b"\x07a".to_vec()),
            put(b"\x07a", b"0"),
            put(b"\x07c", b"1"),
            put(b"\x01r", b"6"),
        ] {
            let copy = MemoryBackend::default();
            copy.apply([&ops[..], &[change]].concat()).unwrap();
            let error = sum.verify(&copy, path).unwrap_err();
            assert!(error.to_string().contains("the folder"), "{error}");
        }
    }
}
