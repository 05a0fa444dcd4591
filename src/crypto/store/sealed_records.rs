//! The records of one ghost: how they are sealed, written and read.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{
    GhostStoreError,
    inbound_cache::InboundSessionCache,
    key_ring::{Group, KeyRing},
    record::{Keys, Kind, RING, decode},
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
    /// The number of values sealed so far.
    #[cfg(test)]
    pub(super) sealed: std::sync::atomic::AtomicUsize,
}

/// The ciphers of a ghost, `None` once it is wiped.
pub(super) struct Seals {
    lasting: Option<Sealer>,
    /// The keys in `shred.keys`.
    pub(super) generations: [Option<(u64, Sealer)>; 2],
    /// The keys of secret records; `None` if the ring cannot be opened.
    pub(super) ring: Option<KeyRing>,
    /// The epoch of the key under which the ring is sealed.
    pub(super) ring_epoch: u64,
}

impl Seals {
    pub(super) fn newest(&self) -> Option<&(u64, Sealer)> {
        self.generations
            .iter()
            .flatten()
            .max_by_key(|(epoch, _)| *epoch)
    }

    fn of_generation(&self, epoch: u64) -> Option<&Sealer> {
        self.generations
            .iter()
            .flatten()
            .find(|(e, _)| *e == epoch)
            .map(|(_, sealer)| sealer)
    }

    /// Returns the ring, to read or write a secret record.
    pub(super) fn ring(&self, kind: &'static str) -> Result<&KeyRing, GhostStoreError> {
        if self.lasting.is_none() {
            return Err(GhostStoreError::Wiped);
        }
        self.ring.as_ref().ok_or(GhostStoreError::Unseal { kind })
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
            ring: None,
            ring_epoch: 0,
        };
        for (generation, slot) in seals.generations.iter_mut().zip(slots.generations) {
            if let Some((epoch, key)) = slot {
                *generation = Some((epoch, sealer(store, id, epoch, &key)?));
            }
        }
        let Some((newest, _)) = seals.newest() else {
            return Err(GhostStoreError::KeysGone {
                why: "has no key for one of the ghosts",
            });
        };
        let place = keys.of(RING, &[]);
        match raw::get(store, &place)? {
            None => (seals.ring, seals.ring_epoch) = (Some(KeyRing::default()), *newest),
            Some(value) => {
                seals.ring_epoch = number_of(&value).unwrap_or_default();
                let sealer = seals.of_generation(seals.ring_epoch);
                // Its key is gone if the database is an older copy.
                let plain = sealer.and_then(|it| it.open(&place, value.get(8..)?));
                seals.ring = plain.map(|plain| KeyRing::decode(&plain)).transpose()?;
            }
        }
        if let Some(ring) = &mut seals.ring {
            ring.trust_since(store.run().trusted_since);
        }
        Ok(Self {
            id,
            store: store.clone(),
            shred: shred.clone(),
            keys,
            seals: RwLock::new(seals),
            inbound_sessions: InboundSessionCache::default(),
            #[cfg(test)]
            sealed: std::sync::atomic::AtomicUsize::default(),
        })
    }

    pub(super) fn seals(&self) -> RwLockReadGuard<'_, Seals> {
        self.seals.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the ciphers to change them. Nothing is read or written meanwhile.
    pub(super) fn seals_mut(&self) -> RwLockWriteGuard<'_, Seals> {
        self.seals.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals the values, and applies all writes in one batch.
    pub(super) fn write(&self, writes: Writes) -> Result<(), GhostStoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        {
            // Held until the batch is applied, so that a rotation misses no record.
            let seals = self.seals();
            if self.ring_after(&seals, &writes)?.is_none() {
                return self.apply(&seals, writes, Batch::new());
            }
        }
        let mut seals = self.seals_mut();
        // Again, since another write may have come between.
        let mut batch = Batch::new();
        let former = match self.ring_after(&seals, &writes)? {
            None => None,
            Some(ring) => {
                self.put_ring(&seals, &ring, seals.ring_epoch, &mut batch)?;
                seals.ring.replace(ring)
            }
        };
        let applied = self.apply(&seals, writes, batch);
        if applied.is_err() && former.is_some() {
            seals.ring = former;
        }
        applied
    }

    /// Returns the ring as it has to be for these writes, if it has to change: a group with a new
    /// record needs a key, and one of which a record is overwritten or deleted is outdated.
    fn ring_after(
        &self,
        seals: &Seals,
        writes: &Writes,
    ) -> Result<Option<KeyRing>, GhostStoreError> {
        let mut changed = None;
        for write in &writes.0 {
            let (key, is_put) = match write {
                Write::Put(_, key, _) => (key, true),
                Write::Delete(key) => (key, false),
                Write::Mark(_) => continue,
            };
            let Some(group) = Group::of(key) else {
                continue;
            };
            let ring = match &changed {
                Some(ring) => ring,
                None => seals.ring("key ring")?,
            };
            let needs_key = is_put && !ring.has(group);
            let outdates = ring.has(group) && !ring.is_outdated(group) && self.has(key)?;
            if needs_key || outdates {
                let mut next = ring.clone();
                if needs_key {
                    next.renew(group)?;
                } else {
                    next.mark_outdated(group);
                }
                changed = Some(next);
            }
        }
        Ok(changed)
    }

    pub(super) fn put_ring(
        &self,
        seals: &Seals,
        ring: &KeyRing,
        epoch: u64,
        batch: &mut Batch,
    ) -> Result<(), GhostStoreError> {
        let key = self.keys.of(RING, &[]);
        let sealer = seals.of_generation(epoch).ok_or(GhostStoreError::Wiped)?;
        let sealed = self.seal(sealer, epoch, &key, &ring.encode())?;
        Ok(raw::put(batch, key, sealed)?)
    }

    fn apply(
        &self,
        seals: &Seals,
        writes: Writes,
        mut batch: Batch,
    ) -> Result<(), GhostStoreError> {
        let lasting = seals.lasting.as_ref().ok_or(GhostStoreError::Wiped)?;
        let keys: Vec<_> = writes.0.iter().map(Write::key).cloned().collect();
        for write in writes.0 {
            match write {
                Write::Put(kind, key, plain) => {
                    let sealed = match Group::of(&key) {
                        None => self.seal(lasting, LASTING, &key, &plain)?,
                        Some(group) => {
                            let unsealable = || GhostStoreError::Unseal { kind: kind.name };
                            let of_group = seals.ring(kind.name)?.sealer(group);
                            let (number, sealer) = of_group.ok_or_else(unsealable)?;
                            self.seal(&sealer, number, &key, &plain)?
                        }
                    };
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

    /// Seals a value: the number of the key (8 bytes), then what [`Sealer::seal`] makes. The number
    /// needs no protection: it only selects the key, and another key does not open the record.
    pub(super) fn seal(
        &self,
        sealer: &Sealer,
        number: u64,
        key: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        #[cfg(test)]
        self.sealed
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut value = number.to_be_bytes().to_vec();
        value.extend_from_slice(&sealer.seal(key, plain)?);
        Ok(value)
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

    /// Drops all keys from memory.
    pub(super) fn drop_all_keys(&self) {
        let mut seals = self.seals_mut();
        *seals = Seals {
            lasting: None,
            generations: [None, None],
            ring: None,
            ring_epoch: 0,
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

pub(super) fn sealer(
    store: &Store,
    ghost: u32,
    epoch: u64,
    key: &Subkey,
) -> Result<Sealer, StoreError> {
    let purpose: [&[u8]; 3] = [
        b"stonechat crypto record",
        &ghost.to_be_bytes(),
        &epoch.to_be_bytes(),
    ];
    Ok(Sealer::new(
        &raw::key(store).derive(key.as_slice(), &purpose)?,
    ))
}

/// Returns the number of the key under which a value is sealed.
fn number_of(value: &[u8]) -> Option<u64> {
    value
        .first_chunk()
        .map(|number| u64::from_be_bytes(*number))
}

pub(super) fn open(
    seals: &Seals,
    kind: &'static str,
    key: &[u8],
    value: &[u8],
) -> Result<Plain, GhostStoreError> {
    let lasting = seals.lasting.as_ref().ok_or(GhostStoreError::Wiped)?;
    let unsealable = || GhostStoreError::Unseal { kind };
    let number = number_of(value).ok_or_else(unsealable)?;
    let sealed = value.get(8..).unwrap_or_default();
    let plain = match Group::of(key) {
        None => lasting.open(key, sealed),
        Some(group) => match seals.ring(kind)?.sealer(group) {
            Some((current, sealer)) if current == number => sealer.open(key, sealed),
            _ => None,
        },
    };
    plain.ok_or_else(unsealable)
}
