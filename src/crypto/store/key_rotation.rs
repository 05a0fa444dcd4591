//! The rotation of a ghost's key, which makes older bytes on disk unreadable.
//!
//! 1. A new key is written durably into the free slot of `shred.keys`.
//! 2. Every record under the old key is sealed again under the new one, in one batch.
//! 3. A flush makes the batch durable.
//! 4. The slot of the old key is durably overwritten with zeros.
//!
//! After a crash between the steps both keys exist, and records are read under either. The next
//! start finds two keys and does steps 2 to 4.

use super::{GhostStoreError, sealed_records::SealedRecords};

impl SealedRecords {
    /// Carries out step 1.
    pub(super) fn begin_rotation(&self) -> Result<(), GhostStoreError> {
        let Some((slot, epoch)) = self.free_generation_slot()? else {
            return Ok(());
        };
        let key = self.shred.put(self.id, slot, epoch)?;
        self.install_key(slot, epoch, &key)
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
        self.reseal()?;
        self.store.flush_blocking()?;
        self.end_rotation()
    }

    /// Seals every secret record under a new key, and destroys the old one.
    pub(super) fn rotate(&self) -> Result<(), GhostStoreError> {
        // Two keys mean that an earlier rotation failed. Records have been sealed under the newer
        // one since, so another rotation is needed.
        self.finish_rotation()?;
        self.begin_rotation()?;
        self.finish_rotation()
    }
}
