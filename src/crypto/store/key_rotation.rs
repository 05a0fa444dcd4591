//! Forgetting.
//!
//! # Rotation
//!
//! 1. A fresh key goes into the free slot of `shred.keys`, and is there after a power cut.
//! 2. Every record under the old key is sealed again under the fresh one, in one batch.
//! 3. A flush makes the batch durable.
//! 4. The old key's slot is overwritten with zeros, and stays so after a power cut.
//!
//! After a crash between the steps both keys are there, and records are read under either. The
//! next start finds two keys, does 2 to 4, and only then is the rotation over.

use super::{GhostStoreError, sealed_records::SealedRecords};

impl SealedRecords {
    /// Step 1.
    pub(super) fn begin_rotation(&self) -> Result<(), GhostStoreError> {
        let Some((slot, epoch)) = self.free_generation_slot()? else {
            return Ok(());
        };
        let key = self.shred.put(self.id, slot, epoch)?;
        self.install_key(slot, epoch, &key)
    }

    /// Step 4.
    pub(super) fn end_rotation(&self) -> Result<(), GhostStoreError> {
        let Some(slot) = self.older_generation_slot() else {
            return Ok(());
        };
        self.shred.destroy(self.id, slot)?;
        self.drop_key(slot);
        Ok(())
    }

    /// What is left of a rotation that a crash cut short.
    pub(super) fn finish_rotation(&self) -> Result<(), GhostStoreError> {
        if self.older_generation_slot().is_none() {
            return Ok(());
        }
        self.reseal()?;
        self.store.flush_blocking()?;
        self.end_rotation()
    }

    /// Seals every secret record under a fresh key, and destroys the one before.
    pub(super) fn rotate(&self) -> Result<(), GhostStoreError> {
        // Two keys now mean that an earlier rotation failed on its way: the newer of them has
        // been written with since, so that a further one is needed.
        self.finish_rotation()?;
        self.begin_rotation()?;
        self.finish_rotation()
    }
}
