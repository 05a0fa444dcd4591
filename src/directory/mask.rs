//! How people are known to those who do not see their Matrix ID.

use ruma::{OwnedUserId, UserId};

use super::{
    Directory, DirectoryError, DirectoryTransaction,
    tables::{Appearances, Masks},
    transaction::Read as _,
};
use crate::store::{Batch, StoreError};

impl Directory {
    /// The name that somebody chose to be called by where their Matrix ID is not seen.
    pub fn appearance(&self, person: &UserId) -> Result<Option<String>, DirectoryError> {
        Ok(self.store().get::<Appearances>(&person.to_owned())?)
    }

    /// Whether the owner of a handle has blocked somebody, for this handle or for all.
    pub fn is_blocked_on(
        &self,
        handle: &crate::handle::Handle,
        person: &UserId,
    ) -> Result<bool, DirectoryError> {
        let record = self.lookup(handle)?;
        let Some(owner) = record.as_ref().and_then(|record| record.holder()) else {
            return Ok(false);
        };
        let most = self.settings().blocks_per_person;
        Ok(super::block::is_blocked(
            self.store(),
            owner,
            person,
            handle,
            most,
        )?)
    }
}

/// Notes whom a ghost shows that was made for one conversation.
pub fn note_mask(
    batch: &mut Batch,
    ghost: &OwnedUserId,
    person: &OwnedUserId,
) -> Result<(), StoreError> {
    batch.put::<Masks>(ghost, person)
}

/// Forgets it.
pub fn forget_mask(batch: &mut Batch, ghost: &OwnedUserId) {
    batch.delete::<Masks>(ghost);
}

impl DirectoryTransaction<'_> {
    /// The name that somebody chose to be called by where their Matrix ID is not seen.
    pub fn appearance(&self, person: &UserId) -> Result<Option<String>, DirectoryError> {
        Ok(self.get::<Appearances>(&person.to_owned())?)
    }

    /// Chooses the name, or none. It holds for conversations that begin later: one that changed in
    /// all of them at once would show that they are one person's.
    pub fn set_appearance(
        &mut self,
        person: &UserId,
        name: Option<String>,
    ) -> Result<(), DirectoryError> {
        match name {
            Some(name) => self.put::<Appearances>(&person.to_owned(), &name)?,
            None => self.delete::<Appearances>(&person.to_owned()),
        }
        Ok(())
    }

    /// Whom a Matrix ID stands for: the person behind a ghost that was made for one conversation.
    pub(super) fn unmask(&self, user: &UserId) -> Result<Option<OwnedUserId>, DirectoryError> {
        Ok(self.get::<Masks>(&user.to_owned())?)
    }
}
