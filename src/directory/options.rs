//! The options of a handle that its owner sets, and those that the admin sets.

use super::{
    DirectoryError, DirectoryTransaction,
    record::{Discoverable, FreezeReason, HandleRecord, HandleState, Mode, Policy},
    tables::{Generations, Handles, Lookalikes, Owned},
    transaction::Read,
};
use crate::{
    clock::Timestamp,
    handle::Handle,
    ids::{Ghost, Person},
};

/// The result of setting a handle's mode.
#[derive(Clone, Debug)]
pub struct ModeSet {
    /// The handle with its new mode.
    pub record: HandleRecord,
    /// Whether its ghost needs a new device and identity: a strict ghost has keys that nobody can
    /// use, other ghosts have keys that we use, and the one kind must never become the other.
    pub replace_identity: bool,
    /// Whether it was masked and no longer is. The caller ends its conversations first.
    pub unmasked: bool,
}

impl DirectoryTransaction<'_> {
    /// Sets the mode of a handle, and whether it is strict.
    pub fn set_mode(
        &mut self,
        owner: &Person,
        handle: &Handle,
        mode: Mode,
        strict: bool,
    ) -> Result<ModeSet, DirectoryError> {
        let mut record = self.held_and_active(owner, handle)?;
        let able = self.settings().capabilities;
        match mode {
            Mode::Open => {}
            Mode::Masked if able.masked => {}
            Mode::Sealed if able.sealed => {}
            Mode::Masked => return Err(DirectoryError::NotYet("mode `masked`")),
            Mode::Sealed => return Err(DirectoryError::NotYet("mode `sealed`")),
        }
        if strict && mode != Mode::Open {
            return Err(DirectoryError::StrictNeedsOpen);
        }
        let sealed_changes = (record.mode == Mode::Sealed) != (mode == Mode::Sealed);
        let unmasked = record.mode == Mode::Masked && mode != Mode::Masked;
        let replace_identity = record.strict != strict || sealed_changes;
        record.mode = mode;
        record.strict = strict;
        self.write(&record)?;
        Ok(ModeSet {
            record,
            replace_identity,
            unmasked,
        })
    }

    /// Sets whether calls by this handle hide the network addresses of both sides.
    pub fn set_hide_addresses(
        &mut self,
        owner: &Person,
        handle: &Handle,
        hide: bool,
    ) -> Result<HandleRecord, DirectoryError> {
        let mut record = self.held_and_active(owner, handle)?;
        record.hide_addresses = hide;
        self.write(&record)?;
        Ok(record)
    }

    /// Sets who may reach the owner.
    pub fn set_policy(
        &mut self,
        owner: &Person,
        handle: &Handle,
        policy: Policy,
    ) -> Result<HandleRecord, DirectoryError> {
        let mut record = self.held_and_active(owner, handle)?;
        record.policy = policy;
        self.write(&record)?;
        Ok(record)
    }

    /// Sets who can find the handle.
    pub fn set_discoverable(
        &mut self,
        owner: &Person,
        handle: &Handle,
        discoverable: Discoverable,
    ) -> Result<HandleRecord, DirectoryError> {
        let mut record = self.held_and_active(owner, handle)?;
        if discoverable == Discoverable::Link && !self.settings().capabilities.contact_keys {
            return Err(DirectoryError::NotYet("discoverable `link`"));
        }
        record.discoverable = discoverable;
        self.write(&record)?;
        Ok(record)
    }

    /// Freezes a handle: its owner keeps it, but nobody reaches them by it. Returns whether anybody
    /// holds it.
    pub fn freeze(
        &mut self,
        handle: &Handle,
        reason: FreezeReason,
        now: Timestamp,
    ) -> Result<bool, DirectoryError> {
        let Some(mut record) = self.held(handle)? else {
            return Ok(false);
        };
        let since = match record.state {
            HandleState::Frozen { since, .. } => since,
            _ => now,
        };
        // A handle that is frozen already keeps its time, and its reason unless that was an admin's:
        // what is the matter with its ghost has to be known when the freeze is taken back.
        if !record.is_in_doubt() {
            record.state = HandleState::Frozen { reason, since };
            self.write(&record)?;
        }
        Ok(true)
    }

    /// Freezes a handle that changed after the backup from which the service was restored. If the
    /// backup knows no owner, the handle's own ghost becomes its owner: somebody held it, and
    /// nobody else may claim it before the admin has looked.
    pub fn freeze_changed(
        &mut self,
        handle: &Handle,
        ghost: &Ghost,
        now: Timestamp,
    ) -> Result<(), DirectoryError> {
        let reason = FreezeReason::ChangedSinceBackup;
        if self.freeze(handle, reason.clone(), now)? {
            return Ok(());
        }
        let key = handle.key().to_owned();
        let last = self.get::<Generations>(&key)?.unwrap_or_default();
        let generation = last.saturating_add(1);
        // The ghost itself, the only owner who is not a person.
        let owner = Person::new(ghost.clone().into());
        let mut record = HandleRecord::new(handle.clone(), owner.clone(), generation, now);
        record.state = HandleState::Frozen { reason, since: now };
        self.put::<Generations>(&key, &generation)?;
        self.put::<Owned>(&(owner, key.clone()), &now)?;
        let look = handle.lookalike_key();
        if self.get::<Lookalikes>(&look)?.is_none() {
            self.put::<Lookalikes>(&look, &key)?;
        }
        self.write(&record)
    }

    /// Ends a freeze. Returns whether anybody holds the handle.
    pub fn unfreeze(&mut self, handle: &Handle) -> Result<bool, DirectoryError> {
        let Some(mut record) = self.held(handle)? else {
            return Ok(false);
        };
        record.state = HandleState::Active;
        self.write(&record)?;
        Ok(true)
    }

    /// Sets or removes the verified mark. Returns whether anybody holds the handle.
    pub fn set_verified(
        &mut self,
        handle: &Handle,
        verified_at: Option<Timestamp>,
    ) -> Result<bool, DirectoryError> {
        let Some(mut record) = self.held(handle)? else {
            return Ok(false);
        };
        record.verified_at = verified_at;
        self.write(&record)?;
        Ok(true)
    }

    fn held(&self, handle: &Handle) -> Result<Option<HandleRecord>, DirectoryError> {
        let record = self.get::<Handles>(&handle.key().to_owned())?;
        Ok(record.filter(|record| record.holder().is_some()))
    }

    fn write(&mut self, record: &HandleRecord) -> Result<(), DirectoryError> {
        self.put::<Handles>(&record.handle.key().to_owned(), record)?;
        Ok(())
    }
}
