//! The database under the store. The trait is small on purpose: an ordered map of bytes with atomic
//! batches, which PostgreSQL could implement as well.

#[cfg(test)]
mod conformance;
pub(super) mod memory;
pub(super) mod sled;
pub(super) mod sled_log;
pub(super) mod split;

use std::fmt::Debug;

use super::StoreError;

/// A key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Insert or replace.
    Put(Vec<u8>, Vec<u8>),
    /// Delete. A key without a value is no error.
    Delete(Vec<u8>),
}

/// An ordered map of bytes. Calls block; readers never wait for [`Backend::flush`]. No key begins
/// with the byte 0xFF, which a backend may use for its own records.
pub trait Backend: Debug + Send + Sync + 'static {
    /// Returns the value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns at most `limit` records whose keys begin with `prefix` and are greater than `after`,
    /// ascending. Each record is read atomically, but the scan is no snapshot.
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError>;

    /// Returns at most `limit` records whose keys begin with `prefix` and are less than `before`,
    /// descending.
    fn scan_back(
        &self,
        prefix: &[u8],
        before: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError>;

    /// Applies all changes or none, in order (a later change of a key wins). Visible when this
    /// returns.
    fn apply(&self, ops: Vec<Op>) -> Result<(), StoreError>;

    /// Blocks until everything applied before the call is durable. Called by the committer only.
    fn flush(&self) -> Result<(), StoreError>;

    /// Returns the size on disk in bytes, or 0 without a disk.
    fn size_on_disk(&self) -> Result<u64, StoreError>;
}

/// Returns the least key above all keys that begin with `prefix`; `None` if there is none.
pub(in crate::store) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
