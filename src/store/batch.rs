//! Changes to several tables that take effect together.

use zeroize::Zeroizing;

use super::{
    StoreError,
    backend::Op,
    seal::Sealer,
    table::{Table, TableKey},
};

/// Maximum length of a key, in bytes. A Matrix id has at most 255, and a key has up to four parts.
pub const KEY_BYTES_MAX: usize = 2048;
/// Maximum length of a value, in bytes. A Matrix event has at most 65,536; an Olm account whose
/// one-time keys were all used reaches 300,000.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

pub(super) enum Change {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Seal {
        key: Vec<u8>,
        plain: Zeroizing<Vec<u8>>,
    },
    Delete {
        key: Vec<u8>,
    },
}

/// Changes that take effect together or not at all, in the order they were added.
#[derive(Default)]
pub struct Batch(Vec<Change>);

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} changes)", self.0.len())
    }
}

impl Batch {
    /// Returns a batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Inserts or replaces a record.
    pub fn put<T: Table>(&mut self, key: &T::Key, value: &T::Value) -> Result<(), StoreError> {
        let key = record_key::<T>(&key.encode())?;
        let plain =
            Zeroizing::new(
                rmp_serde::to_vec_named(value).map_err(|e| StoreError::Encode {
                    table: T::NAME,
                    why: e.to_string(),
                })?,
            );
        check_size(T::NAME, "a value", plain.len(), VALUE_BYTES_MAX)?;
        self.0.push(if T::SECRET {
            Change::Seal { key, plain }
        } else {
            Change::Put {
                key,
                value: plain.to_vec(),
            }
        });
        Ok(())
    }

    /// Deletes a record, if it exists.
    pub fn delete<T: Table>(&mut self, key: &T::Key) {
        // A key over the limit cannot be in the table.
        if let Ok(key) = record_key::<T>(&key.encode()) {
            self.0.push(Change::Delete { key });
        }
    }

    /// Appends the changes of another batch.
    pub fn merge(&mut self, other: Batch) {
        self.0.extend(other.0);
    }

    /// Returns `true` if there are no changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of changes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn put_raw(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.push(Change::Put { key, value });
    }

    pub(super) fn delete_raw(&mut self, key: Vec<u8>) {
        self.0.push(Change::Delete { key });
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        self.0
    }

    pub(super) fn into_ops(self, sealer: &Sealer) -> Result<Vec<Op>, StoreError> {
        let seal = |change| {
            Ok(match change {
                Change::Put { key, value } => Op::Put(key, value),
                Change::Seal { key, plain } => {
                    let sealed = sealer.seal(&key, &plain)?;
                    Op::Put(key, sealed)
                }
                Change::Delete { key } => Op::Delete(key),
            })
        };
        self.0.into_iter().map(seal).collect()
    }
}

/// Returns the key of a record in the database: the id of its table and its encoded key.
pub(super) fn record_key<T: Table>(encoded: &[u8]) -> Result<Vec<u8>, StoreError> {
    check_size(T::NAME, "a key", encoded.len(), KEY_BYTES_MAX)?;
    let mut key = Vec::with_capacity(1 + encoded.len());
    key.push(T::ID);
    key.extend_from_slice(encoded);
    Ok(key)
}

pub(super) fn check_size(
    table: &'static str,
    what: &'static str,
    size: usize,
    limit: usize,
) -> Result<(), StoreError> {
    if size > limit {
        Err(StoreError::TooLarge {
            table,
            what,
            size,
            limit,
        })
    } else {
        Ok(())
    }
}
