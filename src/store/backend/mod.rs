//! What a database must be able to do to carry the store. Small on purpose: one ordered map of
//! bytes with atomic batches, which PostgreSQL can be as well.

#[cfg(test)]
mod conformance;
pub(super) mod memory;
pub(super) mod sled;
pub(super) mod sled_log;

use std::fmt::Debug;

use super::StoreError;

/// A record as the database sees it.
pub type Record = (Vec<u8>, Vec<u8>);

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Insert or replace.
    Put(Vec<u8>, Vec<u8>),
    /// Delete; deleting what is not there is no error.
    Delete(Vec<u8>),
}

/// An ordered map of bytes. Calls block; readers never wait for [`Backend::flush`].
pub trait Backend: Debug + Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// At most `limit` records whose keys begin with `prefix` and are greater than `after`,
    /// ascending. Each record is read whole; the scan as a whole is no snapshot.
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError>;

    /// At most `limit` records whose keys begin with `prefix` and are less than `before`,
    /// descending.
    fn scan_back(
        &self,
        prefix: &[u8],
        before: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError>;

    /// Apply all or nothing, in order (a later change of a key wins), visible when this returns.
    fn apply(&self, ops: Vec<Op>) -> Result<(), StoreError>;

    /// Returns when everything applied before the call is durable. Only the committer calls it.
    fn flush(&self) -> Result<(), StoreError>;

    /// Bytes on disk, 0 where there is no disk.
    fn size_on_disk(&self) -> Result<u64, StoreError>;

    /// Flush for the last time. Later calls may fail.
    fn close(&self) -> Result<(), StoreError> {
        self.flush()
    }
}

/// The least key above all that begin with `prefix`; `None` when there is none.
pub(in crate::store) fn above(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
