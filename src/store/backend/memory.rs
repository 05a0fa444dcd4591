//! A map in memory, the backend of tests.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock},
};

use super::{Backend, Op, Record, prefix_end};
use crate::store::StoreError;

/// A sorted map.
#[derive(Default)]
pub struct MemoryBackend(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

impl std::fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryBackend")
    }
}

type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Returns the range of keys that begin with `prefix`, above `after` and below `before`; `None` if
/// it is empty.
pub(in crate::store) fn key_range(
    prefix: &[u8],
    after: Option<&[u8]>,
    before: Option<&[u8]>,
) -> Option<Range> {
    let from = match after {
        Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
        _ => Bound::Included(prefix.to_vec()),
    };
    let end = prefix_end(prefix);
    let to = match (before, end) {
        (Some(before), Some(end)) => Bound::Excluded(end.min(before.to_vec())),
        (Some(before), None) => Bound::Excluded(before.to_vec()),
        (None, Some(end)) => Bound::Excluded(end),
        (None, None) => Bound::Unbounded,
    };
    let empty = match (&from, &to) {
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to)) => from >= to,
        _ => false,
    };
    (!empty).then_some((from, to))
}

impl Backend for MemoryBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned())
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let Some(range) = key_range(prefix, after, None) else {
            return Ok(Vec::new());
        };
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(map
            .range(range)
            .take(limit)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect())
    }

    fn scan_back(
        &self,
        prefix: &[u8],
        before: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let Some(range) = key_range(prefix, None, before) else {
            return Ok(Vec::new());
        };
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(map
            .range(range)
            .rev()
            .take(limit)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect())
    }

    fn apply(&self, ops: Vec<Op>) -> Result<(), StoreError> {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for op in ops {
            match op {
                Op::Put(key, value) => map.insert(key, value),
                Op::Delete(key) => map.remove(&key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}
