//! The rotation of a ghost's key, which makes older bytes on disk unreadable.
//!
//! 1. A new key is written durably into the free slot of `shred.keys`.
//! 2. The outdated groups of records get new keys in the ghost's ring (`key_ring.rs`), and their
//!    records are sealed again, in batches. With the last of them the ring is sealed under the new
//!    key of `shred.keys`, and not before: no ring under it holds a key that is to be destroyed.
//! 3. A flush makes the batches durable.
//! 4. The slot of the old key is durably overwritten with zeros.
//!
//! After a crash between the steps both keys exist, and the ring is read under either. The next
//! start finds two keys and does steps 2 to 4.

use super::{
    GhostStoreError,
    key_ring::{Group, KeyRing},
    record::RING,
    sealed_records::{SealedRecords, Seals, open, sealer},
};
use crate::store::{Batch, Subkey, raw};

/// Number of records, and of bytes in them, from which a batch of records sealed again is applied.
/// A group of records is never split.
const RENEWED_RECORDS: usize = 500;
const RENEWED_BYTES: usize = 512 * 1024;

impl SealedRecords {
    /// Carries out step 1.
    pub(super) fn begin_rotation(&self) -> Result<(), GhostStoreError> {
        let Some((slot, epoch)) = self.free_generation_slot()? else {
            return Ok(());
        };
        let key = self.shred.put(self.id, slot, epoch)?;
        self.install_key(slot, epoch, &key)
    }

    /// Carries out step 2. Others can write between the batches.
    pub(super) fn renew_outdated_groups(&self) -> Result<(), GhostStoreError> {
        while self.renew_some_groups()? {}
        Ok(())
    }

    /// Carries out step 4.
    pub(super) fn end_rotation(&self) -> Result<(), GhostStoreError> {
        let Some(slot) = self.older_generation_slot() else {
            return Ok(());
        };
        self.shred.destroy(self.id, slot)?;
        self.drop_key(slot);
        Ok(())
    }

    /// Completes a rotation that a crash interrupted: steps 2 to 4.
    pub(super) fn finish_rotation(&self) -> Result<(), GhostStoreError> {
        if self.older_generation_slot().is_none() {
            return Ok(());
        }
        self.renew_outdated_groups()?;
        self.store.flush_blocking()?;
        self.end_rotation()
    }

    /// Makes everything unreadable that was deleted or overwritten before this call.
    pub(super) fn rotate(&self) -> Result<(), GhostStoreError> {
        // Two keys mean that an earlier rotation failed. The ring may be under the newer one since,
        // with keys that are outdated by now, so another rotation is needed.
        self.finish_rotation()?;
        self.begin_rotation()?;
        self.finish_rotation()
    }

    /// Returns the slot and the epoch of a new key; `None` while two keys are in use.
    fn free_generation_slot(&self) -> Result<Option<(usize, u64)>, GhostStoreError> {
        let seals = self.seals();
        let newest = seals.newest().ok_or(GhostStoreError::Wiped)?.0;
        Ok(seals
            .generations
            .iter()
            .position(Option::is_none)
            .map(|slot| (slot, newest + 1)))
    }

    /// Adds a key, under which the ring is sealed with the last batch of the rotation.
    fn install_key(&self, slot: usize, epoch: u64, key: &Subkey) -> Result<(), GhostStoreError> {
        let sealer = sealer(&self.store, self.id, epoch, key)?;
        let mut seals = self.seals_mut();
        if let Some(generation) = seals.generations.get_mut(slot) {
            *generation = Some((epoch, sealer));
        }
        Ok(())
    }

    /// Gives some of the outdated groups new keys, and seals their records again, in one batch.
    /// Returns `false` if these were the last: then the ring is under the newest key.
    fn renew_some_groups(&self) -> Result<bool, GhostStoreError> {
        // Locked for writing, so that no record is written under an older key.
        let mut seals = self.seals_mut();
        let mut ring = seals.ring(RING.name)?.clone();
        let mut outdated = ring.outdated().into_iter().peekable();
        let mut batch = Batch::new();
        let mut bytes = 0;
        while bytes < RENEWED_BYTES
            && batch.len() < RENEWED_RECORDS
            && let Some(group) = outdated.next()
        {
            bytes += self.renew(group, &seals, &mut ring, &mut batch)?;
        }
        let is_last = outdated.peek().is_none();
        let newest = seals.newest().ok_or(GhostStoreError::Wiped)?.0;
        let epoch = if is_last { newest } else { seals.ring_epoch };
        self.put_ring(&seals, &ring, epoch, &mut batch)?;
        self.store.apply(batch)?;
        seals.ring = Some(ring);
        seals.ring_epoch = epoch;
        Ok(!is_last)
    }

    /// Gives a group a new key, and seals its records again. Returns their size.
    fn renew(
        &self,
        group: Group,
        seals: &Seals,
        ring: &mut KeyRing,
        batch: &mut Batch,
    ) -> Result<usize, GhostStoreError> {
        ring.renew(group)?;
        let no_key = || GhostStoreError::Unseal { kind: RING.name };
        let (number, sealer) = ring.sealer(group).ok_or_else(no_key)?;
        let (mut bytes, mut count) = (0, 0);
        for prefix in group.prefixes(self.id) {
            self.pages(&prefix, |key, value| {
                let plain = open(seals, "any", &key, &value)?;
                let sealed = self.seal(&sealer, number, &key, &plain)?;
                bytes += key.len() + sealed.len();
                count += 1;
                raw::put(batch, key, sealed)?;
                Ok(true)
            })?;
        }
        if count == 0 {
            ring.remove(group);
        }
        Ok(bytes)
    }

    /// Returns the slot of the older of two keys.
    fn older_generation_slot(&self) -> Option<usize> {
        match &self.seals().generations {
            [Some((first, _)), Some((second, _))] => Some(usize::from(first > second)),
            _ => None,
        }
    }

    /// Drops a key from memory, after it is destroyed on disk.
    fn drop_key(&self, slot: usize) {
        let mut seals = self.seals_mut();
        if let Some(generation) = seals.generations.get_mut(slot) {
            *generation = None;
        }
    }
}
