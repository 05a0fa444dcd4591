//! What is pending, laid over what is in the database: how readers see the two as one.

use std::sync::PoisonError;

use super::{
    StoreError,
    backend::{Record, memory::range},
    memtable::{Changes, Latest, Pending, Value},
};

impl Pending {
    /// What has become of a key that the database does not know of yet.
    fn latest<T>(&self, key: &[u8], look: impl Fn(&Latest) -> T) -> Option<T> {
        let gathered = self.gathered.read().unwrap_or_else(PoisonError::into_inner);
        let young = gathered.young.get(key);
        young.or_else(|| gathered.leaving.get(key)).map(look)
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        if let Some(latest) = self.latest(key, Latest::value) {
            return Ok(latest);
        }
        // Should it be handed over at this moment it is found there, and is only younger.
        Ok(self.backend.get(key)?.map(Value::Stored))
    }

    /// Whether a key has a value.
    pub(super) fn contains(&self, key: &[u8]) -> Result<bool, StoreError> {
        if let Some(there) = self.latest(key, |latest| !matches!(latest, Latest::Deleted)) {
            return Ok(there);
        }
        Ok(self.backend.get(key)?.is_some())
    }

    /// As [`super::backend::Backend::scan`].
    pub(super) fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Value)>, StoreError> {
        let Some(bounds) = range(prefix, after, None) else {
            return Ok(Vec::new());
        };
        let pending = {
            let gathered = self.gathered.read().unwrap_or_else(PoisonError::into_inner);
            let leaving = gathered.leaving.range::<Vec<u8>, _>(bounds.clone());
            let young = gathered.young.range::<Vec<u8>, _>(bounds);
            first(leaving, young, limit, |a, b| a < b)
        };
        let most = limit.saturating_add(pending.len());
        let stored = self.backend.scan(prefix, after, most)?;
        if pending.is_empty() {
            return Ok(stored.into_iter().map(as_stored).collect());
        }
        let all = merged(stored, pending).into_iter();
        Ok(all.filter_map(found).take(limit).collect())
    }

    /// As [`super::backend::Backend::scan_back`].
    pub(super) fn scan_back(
        &self,
        prefix: &[u8],
        before: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Value)>, StoreError> {
        let Some(bounds) = range(prefix, None, before) else {
            return Ok(Vec::new());
        };
        let pending = {
            let gathered = self.gathered.read().unwrap_or_else(PoisonError::into_inner);
            let leaving = gathered.leaving.range::<Vec<u8>, _>(bounds.clone()).rev();
            let young = gathered.young.range::<Vec<u8>, _>(bounds).rev();
            first(leaving, young, limit, |a, b| a > b)
        };
        let most = limit.saturating_add(pending.len());
        let stored = self.backend.scan_back(prefix, before, most)?;
        if pending.is_empty() {
            return Ok(stored.into_iter().map(as_stored).collect());
        }
        let all = merged(stored, pending).into_iter().rev();
        Ok(all.filter_map(found).take(limit).collect())
    }

    /// As [`super::backend::Backend::scan`], with values as they will lie in the database.
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

fn as_stored((key, value): Record) -> (Vec<u8>, Value) {
    (key, Value::Stored(value))
}

fn found((key, latest): (Vec<u8>, Latest)) -> Option<(Vec<u8>, Value)> {
    Some((key, latest.value()?))
}

/// The changes up to the `limit`th that leaves a value: whatever comes after that many values
/// cannot be among the first `limit` of all.
fn first<'a>(
    leaving: impl Iterator<Item = (&'a Vec<u8>, &'a Latest)>,
    young: impl Iterator<Item = (&'a Vec<u8>, &'a Latest)>,
    limit: usize,
    comes_first: fn(&[u8], &[u8]) -> bool,
) -> Changes {
    let (mut leaving, mut young) = (leaving.peekable(), young.peekable());
    let mut out = Changes::new();
    let mut values = 0;
    while values < limit {
        let take_young = match (leaving.peek(), young.peek()) {
            (None, None) => break,
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some((old, _)), Some((new, _))) => {
                if old == new {
                    leaving.next();
                }
                !matches!(leaving.peek(), Some((old, _)) if comes_first(old, new))
            }
        };
        let next = if take_young {
            young.next()
        } else {
            leaving.next()
        };
        if let Some((key, latest)) = next {
            values += usize::from(!matches!(latest, Latest::Deleted));
            out.insert(key.clone(), latest.clone());
        }
    }
    out
}

fn merged(stored: Vec<Record>, pending: Changes) -> Changes {
    let mut all: Changes = stored
        .into_iter()
        .map(|(key, value)| (key, Latest::Stored(value)))
        .collect();
    all.extend(pending);
    all
}
