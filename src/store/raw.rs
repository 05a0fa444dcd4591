//! Records without a type, for a room that seals its values itself (the crypto store).
//!
//! Keys given here begin with the table id; the store neither encodes nor seals anything.

use super::{
    Batch, Store, StoreError,
    backend::Record,
    batch::{MAX_KEY, MAX_VALUE, check_size},
    files::SideFile,
    key::StoreKey,
};

/// Read a value.
pub(crate) fn get(store: &Store, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    store.inner.check()?;
    let value = store.inner.noting(store.inner.memtable.get(key))?;
    value
        .map(|value| value.stored(key, store.inner.memtable.sealer()))
        .transpose()
}

/// At most `limit` records whose key begins with `prefix` and is greater than `after`.
pub(crate) fn scan(
    store: &Store,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Record>, StoreError> {
    store.inner.check()?;
    let records = store.inner.memtable.scan_stored(prefix, after, limit);
    store.inner.noting(records)
}

/// Insert or replace a record.
pub(crate) fn put(batch: &mut Batch, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
    check_size("raw", "a key", key.len(), MAX_KEY)?;
    check_size("raw", "a value", value.len(), MAX_VALUE + 1024)?;
    batch.put_raw(key, value);
    Ok(())
}

/// Delete a record.
pub(crate) fn delete(batch: &mut Batch, key: Vec<u8>) {
    batch.delete_raw(key);
}

/// The key of the store, to derive keys from.
pub(crate) fn key(store: &Store) -> &StoreKey {
    &store.inner.key
}

/// The file `shred.keys` beside the database, for one holder at a time.
pub(crate) fn shred_file(store: &Store) -> Result<SideFile, StoreError> {
    match (&store.inner.folder, &store.inner.memory_side) {
        (Some(folder), _) => SideFile::open(&folder.join("shred.keys"), store.failure()),
        (None, side) if side.is_shared(1) => Err(StoreError::InUse {
            path: "memory".into(),
        }),
        (None, side) => Ok(side.clone()),
    }
}
