//! The records of one ghost: how they are sealed, written and read.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{
    GhostStoreError,
    inbound_cache::InboundSessionCache,
    record::{Keys, Kind, decode, ghost_prefix},
    shred_keys::{KeySlots, LASTING, ShredKeys},
};
use crate::store::{Batch, Store, StoreError, Subkey, raw, seal::Sealer};

/// A record as it was before it was sealed.
type Plain = Zeroizing<Vec<u8>>;
/// Maximum number of records in one page of a scan.
const PAGE_RECORDS: usize = 256;

/// The records of one ghost.
pub(super) struct SealedRecords {
    pub(super) id: u32,
    pub(super) store: Store,
    pub(super) shred: ShredKeys,
    pub(super) keys: Keys,
    seals: RwLock<Seals>,
    /// The inbound group sessions used last.
    pub(super) inbound_sessions: InboundSessionCache,
}

/// The ciphers of a ghost, `None` once it is wiped.
struct Seals {
    lasting: Option<Sealer>,
    generations: [Option<(u64, Sealer)>; 2],
}

impl Seals {
    fn newest(&self) -> Option<&(u64, Sealer)> {
        self.generations
            .iter()
            .flatten()
            .max_by_key(|(epoch, _)| *epoch)
    }

    fn of(&self, epoch: u64) -> Option<&Sealer> {
        if epoch == LASTING {
            return self.lasting.as_ref();
        }
        self.generations
            .iter()
            .flatten()
            .find(|(e, _)| *e == epoch)
            .map(|(_, sealer)| sealer)
    }
}

/// Changes to a ghost's records, not yet sealed.
#[derive(Default)]
pub(super) struct Writes(Vec<Write>);

enum Write {
    Put(Kind, Vec<u8>, Plain),
    Mark(Vec<u8>),
    Delete(Vec<u8>),
}

impl Write {
    fn key(&self) -> &Vec<u8> {
        match self {
            Write::Put(_, key, _) | Write::Mark(key) | Write::Delete(key) => key,
        }
    }
}

impl Writes {
    pub(super) fn put(&mut self, kind: Kind, key: Vec<u8>, plain: Plain) {
        self.0.push(Write::Put(kind, key, plain));
    }

    /// Adds a record that consists of its key: it has no value, so nothing is sealed.
    pub(super) fn mark(&mut self, key: Vec<u8>) {
        self.0.push(Write::Mark(key));
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.0.push(Write::Delete(key));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl SealedRecords {
    pub(super) fn new(
        id: u32,
        store: &Store,
        shred: &ShredKeys,
        slots: KeySlots,
    ) -> Result<Self, GhostStoreError> {
        let index = raw::key(store).derive(&[], &[b"stonechat crypto index", &id.to_be_bytes()])?;
        let keys = Keys::new(id, &index).ok_or(StoreError::Seal("a key could not be derived"))?;
        let gone = GhostStoreError::KeysGone {
            why: "has no key for one of the ghosts",
        };
        let lasting = slots.lasting.ok_or(gone)?;
        let mut seals = Seals {
            lasting: Some(sealer(store, id, LASTING, &lasting)?),
            generations: [None, None],
        };
        for (generation, slot) in seals.generations.iter_mut().zip(slots.generations) {
            if let Some((epoch, key)) = slot {
                *generation = Some((epoch, sealer(store, id, epoch, &key)?));
            }
        }
        if seals.newest().is_none() {
            return Err(GhostStoreError::KeysGone {
                why: "has no key for one of the ghosts",
            });
        }
        Ok(Self {
            id,
            store: store.clone(),
            shred: shred.clone(),
            keys,
            seals: RwLock::new(seals),
            inbound_sessions: InboundSessionCache::default(),
        })
    }

    fn seals(&self) -> RwLockReadGuard<'_, Seals> {
        self.seals.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals the values, and applies all writes in one batch.
    pub(super) fn write(&self, writes: Writes) -> Result<(), GhostStoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        // Held until the batch is applied, so that a rotation misses no record.
        let seals = self.seals();
        let (lasting, newest) = seals
            .lasting
            .as_ref()
            .zip(seals.newest())
            .ok_or(GhostStoreError::Wiped)?;
        let mut batch = Batch::new();
        let keys: Vec<_> = writes.0.iter().map(Write::key).cloned().collect();
        for write in writes.0 {
            match write {
                Write::Put(kind, key, plain) => {
                    let (epoch, sealer) = if kind.lasting {
                        (LASTING, lasting)
                    } else {
                        (newest.0, &newest.1)
                    };
                    let sealed = seal(sealer, epoch, &key, &plain)?;
                    raw::put(&mut batch, key, sealed)?;
                }
                Write::Mark(key) => raw::put(&mut batch, key, Vec::new())?,
                Write::Delete(key) => raw::delete(&mut batch, key),
            }
        }
        let applied = self.store.apply(batch);
        self.inbound_sessions.invalidate(keys.iter());
        Ok(applied?)
    }

    /// Returns a record.
    pub(super) fn read(&self, kind: Kind, key: &[u8]) -> Result<Option<Plain>, GhostStoreError> {
        let seals = self.seals();
        let Some(value) = raw::get(&self.store, key)? else {
            return Ok(None);
        };
        open(&seals, kind.name, key, &value).map(Some)
    }

    /// Returns whether there is a record.
    pub(super) fn has(&self, key: &[u8]) -> Result<bool, GhostStoreError> {
        Ok(raw::get(&self.store, key)?.is_some())
    }

    /// Returns whether there is a record whose key begins with a prefix.
    pub(super) fn has_any(&self, prefix: &[u8]) -> Result<bool, GhostStoreError> {
        Ok(!raw::scan(&self.store, prefix, None, 1)?.is_empty())
    }

    /// Returns the keys that begin with a prefix.
    pub(super) fn keys_of(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, GhostStoreError> {
        let mut keys = Vec::new();
        self.pages(prefix, |key, _| {
            keys.push(key);
            Ok(true)
        })?;
        Ok(keys)
    }

    /// Returns the records whose keys begin with a prefix.
    pub(super) fn list(
        &self,
        kind: Kind,
        prefix: &[u8],
    ) -> Result<Vec<(Vec<u8>, Plain)>, GhostStoreError> {
        let mut records = Vec::new();
        let seals = self.seals();
        self.pages(prefix, |key, value| {
            let plain = open(&seals, kind.name, &key, &value)?;
            records.push((key, plain));
            Ok(true)
        })?;
        Ok(records)
    }

    /// Passes every record whose key begins with a prefix to `visit`, until it returns `false`.
    pub(super) fn pages(
        &self,
        prefix: &[u8],
        mut visit: impl FnMut(Vec<u8>, Vec<u8>) -> Result<bool, GhostStoreError>,
    ) -> Result<(), GhostStoreError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = raw::scan(&self.store, prefix, after.as_deref(), PAGE_RECORDS)?;
            let full = page.len() == PAGE_RECORDS;
            after = page.last().map(|(key, _)| key.clone());
            for (key, value) in page {
                if !visit(key, value)? {
                    return Ok(());
                }
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// Returns the slot and the epoch of a new key; `None` while two keys are in use.
    pub(super) fn free_generation_slot(&self) -> Result<Option<(usize, u64)>, GhostStoreError> {
        let seals = self.seals();
        let newest = seals.newest().ok_or(GhostStoreError::Wiped)?.0;
        Ok(seals
            .generations
            .iter()
            .position(Option::is_none)
            .map(|slot| (slot, newest + 1)))
    }

    /// Seals records under this key from now on.
    pub(super) fn install_key(
        &self,
        slot: usize,
        epoch: u64,
        key: &Subkey,
    ) -> Result<(), GhostStoreError> {
        let sealer = sealer(&self.store, self.id, epoch, key)?;
        let mut seals = self.seals.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(generation) = seals.generations.get_mut(slot) {
            *generation = Some((epoch, sealer));
        }
        Ok(())
    }

    /// Seals every record under an older key again under the newest, in one batch.
    pub(super) fn reseal(&self) -> Result<(), GhostStoreError> {
        // Locked for writing, so that no record is written under the older key.
        let seals = self.seals.write().unwrap_or_else(PoisonError::into_inner);
        let (epoch, newest) = seals.newest().ok_or(GhostStoreError::Wiped)?;
        let mut batch = Batch::new();
        self.pages(&ghost_prefix(self.id), |key, value| {
            if epoch_of(&value).is_some_and(|old| old != LASTING && old != *epoch) {
                let plain = open(&seals, "any", &key, &value)?;
                let sealed = seal(newest, *epoch, &key, &plain)?;
                raw::put(&mut batch, key, sealed)?;
            }
            Ok(true)
        })?;
        Ok(self.store.apply(batch)?)
    }

    /// Returns the slot of the older of two keys.
    pub(super) fn older_generation_slot(&self) -> Option<usize> {
        match &self.seals().generations {
            [Some((first, _)), Some((second, _))] => Some(usize::from(first > second)),
            _ => None,
        }
    }

    /// Drops a key from memory, after it is destroyed on disk.
    pub(super) fn drop_key(&self, slot: usize) {
        let mut seals = self.seals.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(generation) = seals.generations.get_mut(slot) {
            *generation = None;
        }
    }

    /// Drops all keys from memory.
    pub(super) fn drop_all_keys(&self) {
        let mut seals = self.seals.write().unwrap_or_else(PoisonError::into_inner);
        *seals = Seals {
            lasting: None,
            generations: [None, None],
        };
        self.inbound_sessions.clear();
    }

    /// Returns the value of a kind and parts.
    pub(super) fn value<T: DeserializeOwned>(
        &self,
        kind: Kind,
        parts: &[&[u8]],
    ) -> Result<Option<T>, GhostStoreError> {
        let plain = self.read(kind, &self.keys.of(kind, parts))?;
        plain.map(|plain| decode(kind, &plain)).transpose()
    }

    /// Returns the values of a kind whose keys begin with parts.
    pub(super) fn values_of<T: DeserializeOwned>(
        &self,
        kind: Kind,
        parts: &[&[u8]],
    ) -> Result<Vec<T>, GhostStoreError> {
        let records = self.list(kind, &self.keys.of(kind, parts))?;
        records
            .iter()
            .map(|(_, plain)| decode(kind, plain))
            .collect()
    }

    pub(super) fn delete(&self, kind: Kind, parts: &[&[u8]]) -> Result<(), GhostStoreError> {
        let mut writes = Writes::default();
        writes.delete(self.keys.of(kind, parts));
        self.write(writes)
    }
}

fn sealer(store: &Store, ghost: u32, epoch: u64, key: &Subkey) -> Result<Sealer, StoreError> {
    let purpose: [&[u8]; 3] = [
        b"stonechat crypto record",
        &ghost.to_be_bytes(),
        &epoch.to_be_bytes(),
    ];
    Ok(Sealer::new(
        &raw::key(store).derive(key.as_slice(), &purpose)?,
    ))
}

/// A sealed record: the epoch of its key (8 bytes), then what [`Sealer::seal`] makes.
fn seal(sealer: &Sealer, epoch: u64, key: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut value = epoch.to_be_bytes().to_vec();
    // The epoch needs no further protection: it only selects the key, and another key does not open
    // the record.
    value.extend_from_slice(&sealer.seal(key, plain)?);
    Ok(value)
}

fn epoch_of(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|epoch| u64::from_be_bytes(*epoch))
}

fn open(
    seals: &Seals,
    kind: &'static str,
    key: &[u8],
    value: &[u8],
) -> Result<Plain, GhostStoreError> {
    if seals.lasting.is_none() {
        return Err(GhostStoreError::Wiped);
    }
    epoch_of(value)
        .and_then(|epoch| seals.of(epoch))
        .and_then(|sealer| sealer.open(key, value.get(8..)?))
        .ok_or(GhostStoreError::Unseal { kind })
}
