//! Untyped records, for the crypto store, which seals its values itself.
//!
//! Keys begin with the table id. The store neither encodes nor seals anything.

use super::{
    Batch, Store, StoreError,
    backend::Record,
    batch::{KEY_BYTES_MAX, VALUE_BYTES_MAX, check_size},
    files::SideFile,
    key::StoreKey,
};

/// Returns a value.
pub(crate) fn get(store: &Store, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    store.inner.check()?;
    let value = store.inner.record_fatal(store.inner.memtable.get(key))?;
    value
        .map(|value| value.stored(key, store.inner.memtable.sealer()))
        .transpose()
}

/// Returns at most `limit` records whose key begins with `prefix` and is greater than `after`.
pub(crate) fn scan(
    store: &Store,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Record>, StoreError> {
    store.inner.check()?;
    let records = store.inner.memtable.scan_stored(prefix, after, limit);
    store.inner.record_fatal(records)
}

/// Inserts or replaces a record.
pub(crate) fn put(batch: &mut Batch, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
    check_size("raw", "a key", key.len(), KEY_BYTES_MAX)?;
    check_size("raw", "a value", value.len(), VALUE_BYTES_MAX + 1024)?;
    batch.put_raw(key, value);
    Ok(())
}

/// Deletes a record.
pub(crate) fn delete(batch: &mut Batch, key: Vec<u8>) {
    batch.delete_raw(key);
}

/// Returns the key of the store, from which others are derived.
pub(crate) fn key(store: &Store) -> &StoreKey {
    &store.inner.key
}

/// Opens the file `shred.keys` beside the database. It can be open once at a time.
pub(crate) fn shred_file(store: &Store) -> Result<SideFile, StoreError> {
    match (&store.inner.folder, &store.inner.memory_side) {
        (Some(folder), _) => SideFile::open(&folder.join("shred.keys"), store.failure()),
        (None, side) if side.is_shared(1) => Err(StoreError::InUse {
            path: "memory".into(),
        }),
        (None, side) => Ok(side.clone()),
    }
}
