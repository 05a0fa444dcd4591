//! A sum over all records, kept with them, by which it is noticed when some are missing.
//!
//! A database that repairs itself after damage can end up with less than it had, or with an older
//! version of some records, and say nothing. So every batch carries the number of records and the
//! sum (modulo 2^128) of a digest of each, as they are after it: what is there can be compared with
//! what ought to be. Adding and taking away is all that a batch costs, whatever the order in which
//! the records came. Damage is what this is for; whoever forges a record meets its seal.

use std::{collections::HashMap, path::Path};

use sha2::{Digest, Sha256};

use super::{
    StoreError,
    backend::{Backend, Op},
    meta,
};

const KEY: &[u8] = &[meta::ID, b'h'];
const PAGE: usize = 256;

/// How many records there are, and the sum of their digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    records: u64,
    digests: u128,
}

impl Sum {
    /// The sum that the database carries, if it does.
    pub(super) fn kept(backend: &dyn Backend) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = backend.get(KEY)? else {
            return Ok(None);
        };
        let (records, digests) = bytes.split_at(bytes.len().min(8));
        let parts = records.try_into().ok().zip(digests.try_into().ok());
        Ok(parts.map(|(records, digests)| Self {
            records: u64::from_be_bytes(records),
            digests: u128::from_be_bytes(digests),
        }))
    }

    /// The sum of what is there. Reads everything.
    pub(super) fn of(backend: &dyn Backend) -> Result<Self, StoreError> {
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

    /// The sum after `ops`, which are about to be applied, and the change that keeps it.
    pub(super) fn after(self, backend: &dyn Backend, ops: &[Op]) -> Result<(Self, Op), StoreError> {
        let mut last: HashMap<&[u8], Option<&[u8]>> = HashMap::with_capacity(ops.len());
        for op in ops {
            match op {
                Op::Put(key, value) => last.insert(key, Some(value)),
                Op::Delete(key) => last.insert(key, None),
            };
        }
        let mut sum = self;
        for (key, value) in last {
            if !counts(key) {
                continue;
            }
            if let Some(old) = backend.get(key)? {
                sum.take_away(key, &old);
            }
            if let Some(value) = value {
                sum.add(key, value);
            }
        }
        Ok((sum, sum.keep()))
    }

    /// The change that makes the database carry this sum.
    pub(super) fn keep(self) -> Op {
        let mut bytes = self.records.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.digests.to_be_bytes());
        Op::Put(KEY.to_vec(), bytes)
    }

    /// Refuses a database that is not what it ought to be. Reads everything.
    pub(super) fn verify(self, backend: &dyn Backend, path: &Path) -> Result<(), StoreError> {
        let found = Self::of(backend)?;
        if found == self {
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

/// What the store remembers about itself has checks of its own.
fn counts(key: &[u8]) -> bool {
    key.first() != Some(&meta::ID)
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

    use super::{super::memory::MemoryBackend, *};

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
            for mut ops in batches {
                let (next, keep) = sum.after(&backend, &ops).unwrap();
                ops.push(keep);
                backend.apply(ops).unwrap();
                sum = next;
                prop_assert_eq!(Sum::kept(&backend).unwrap(), Some(sum));
                prop_assert_eq!(Sum::of(&backend).unwrap(), sum);
            }
        }
    }

    #[test]
    fn what_is_missing_older_or_elsewhere_is_noticed() {
        let path = Path::new("the folder");
        let backend = MemoryBackend::default();
        let put = |key: &[u8], value: &[u8]| Op::Put(key.to_vec(), value.to_vec());
        backend
            .apply(vec![put(b"\x07a", b"1"), put(b"\x07b", b"2")])
            .unwrap();
        let sum = Sum::of(&backend).unwrap();
        sum.verify(&backend, path).unwrap();
        for change in [
            Op::Delete(b"\x07a".to_vec()),
            put(b"\x07a", b"0"),
            put(b"\x07c", b"1"),
        ] {
            let copy = MemoryBackend::default();
            copy.apply(vec![put(b"\x07a", b"1"), put(b"\x07b", b"2"), change])
                .unwrap();
            let error = sum.verify(&copy, path).unwrap_err();
            assert!(error.to_string().contains("the folder"), "{error}");
        }
    }
}
