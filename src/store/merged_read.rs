//! Reads that merge the memtable with the database.

use std::sync::PoisonError;

use super::{
    StoreError,
    backend::{Record, memory::key_range},
    memtable::{MemEntry, MemMap, Memtable, RecordValue},
};

impl Memtable {
    /// Looks at the entry of a key, if the key was changed since the last flush.
    fn entry<T>(&self, key: &[u8], look: impl Fn(&MemEntry) -> T) -> Option<T> {
        let buffers = self.buffers.read().unwrap_or_else(PoisonError::into_inner);
        let entry = buffers.active.get(key);
        entry.or_else(|| buffers.flushing.get(key)).map(look)
    }

    /// Returns the value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<RecordValue>, StoreError> {
        if let Some(value) = self.entry(key, MemEntry::value) {
            return Ok(value);
        }
        // A change that is applied and written out at this moment is found in the database.
        Ok(self.backend.get(key)?.map(RecordValue::Stored))
    }

    /// Returns `true` if a key has a value.
    pub(super) fn contains(&self, key: &[u8]) -> Result<bool, StoreError> {
        if let Some(has_value) = self.entry(key, |entry| !matches!(entry, MemEntry::Tombstone)) {
            return Ok(has_value);
        }
        Ok(self.backend.get(key)?.is_some())
    }

    /// Scans like [`super::backend::Backend::scan`].
    pub(super) fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, RecordValue)>, StoreError> {
        let Some(bounds) = key_range(prefix, after, None) else {
            return Ok(Vec::new());
        };
        let in_memory = {
            let buffers = self.buffers.read().unwrap_or_else(PoisonError::into_inner);
            let flushing = buffers.flushing.range::<Vec<u8>, _>(bounds.clone());
            let active = buffers.active.range::<Vec<u8>, _>(bounds);
            first_entries(flushing, active, limit, |a, b| a < b)
        };
        // Each entry in memory may hide one stored record.
        let stored_limit = limit.saturating_add(in_memory.len());
        let stored = self.backend.scan(prefix, after, stored_limit)?;
        if in_memory.is_empty() {
            return Ok(stored.into_iter().map(as_stored).collect());
        }
        let records = merge(stored, in_memory).into_iter();
        Ok(records.filter_map(with_value).take(limit).collect())
    }

    /// Scans like [`super::backend::Backend::scan_back`].
    pub(super) fn scan_back(
        &self,
        prefix: &[u8],
        before: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, RecordValue)>, StoreError> {
        let Some(bounds) = key_range(prefix, None, before) else {
            return Ok(Vec::new());
        };
        let in_memory = {
            let buffers = self.buffers.read().unwrap_or_else(PoisonError::into_inner);
            let flushing = buffers.flushing.range::<Vec<u8>, _>(bounds.clone()).rev();
            let active = buffers.active.range::<Vec<u8>, _>(bounds).rev();
            first_entries(flushing, active, limit, |a, b| a > b)
        };
        let stored_limit = limit.saturating_add(in_memory.len());
        let stored = self.backend.scan_back(prefix, before, stored_limit)?;
        if in_memory.is_empty() {
            return Ok(stored.into_iter().map(as_stored).collect());
        }
        let records = merge(stored, in_memory).into_iter().rev();
        Ok(records.filter_map(with_value).take(limit).collect())
    }

    /// Scans like [`super::backend::Backend::scan`], with values in the form in which the database
    /// stores them.
    pub(super) fn scan_stored(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let records = self.scan(prefix, after, limit)?.into_iter();
        records
            .map(|(key, value)| {
                let value = value.stored(&key, self.sealer())?;
                Ok((key, value))
            })
            .collect()
    }
}

fn as_stored((key, value): Record) -> (Vec<u8>, RecordValue) {
    (key, RecordValue::Stored(value))
}

fn with_value((key, entry): (Vec<u8>, MemEntry)) -> Option<(Vec<u8>, RecordValue)> {
    Some((key, entry.value()?))
}

/// Returns the entries up to the `limit`th that has a value. A later entry cannot be among the
/// first `limit` records of the merged scan.
fn first_entries<'a>(
    flushing: impl Iterator<Item = (&'a Vec<u8>, &'a MemEntry)>,
    active: impl Iterator<Item = (&'a Vec<u8>, &'a MemEntry)>,
    limit: usize,
    comes_first: fn(&[u8], &[u8]) -> bool,
) -> MemMap {
    let (mut flushing, mut active) = (flushing.peekable(), active.peekable());
    let mut out = MemMap::new();
    let mut values = 0;
    while values < limit {
        let is_active_next = match (flushing.peek(), active.peek()) {
            (None, None) => break,
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some((old, _)), Some((new, _))) => {
                if old == new {
                    flushing.next();
                }
                !matches!(flushing.peek(), Some((old, _)) if comes_first(old, new))
            }
        };
        let next = if is_active_next {
            active.next()
        } else {
            flushing.next()
        };
        if let Some((key, entry)) = next {
            values += usize::from(!matches!(entry, MemEntry::Tombstone));
            out.insert(key.clone(), entry.clone());
        }
    }
    out
}

fn merge(stored: Vec<Record>, in_memory: MemMap) -> MemMap {
    let mut merged: MemMap = stored
        .into_iter()
        .map(|(key, value)| (key, MemEntry::Stored(value)))
        .collect();
    merged.extend(in_memory);
    merged
}
