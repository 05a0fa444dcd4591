//! Aliases: the ghosts and names that show people to those who must not see their Matrix ID.

use ruma::UserId;

use super::{
    Directory, DirectoryError, DirectoryTransaction,
    tables::{Aliases, Appearances},
    transaction::Read as _,
};
use crate::{
    ids::{Ghost, Person},
    store::{Batch, StoreError},
};

impl Directory {
    /// Returns the name that this person chose for chats in which their Matrix ID is not shown.
    pub fn appearance(&self, person: &Person) -> Result<Option<String>, DirectoryError> {
        Ok(self.store().get::<Appearances>(&person.to_owned())?)
    }
}

/// Records the person behind a ghost that was made for one conversation.
pub fn record_alias(batch: &mut Batch, ghost: &Ghost, person: &Person) -> Result<(), StoreError> {
    batch.put::<Aliases>(ghost, person)
}

/// Forgets the person behind such a ghost.
pub fn forget_alias(batch: &mut Batch, ghost: &Ghost) {
    batch.delete::<Aliases>(ghost);
}

impl DirectoryTransaction<'_> {
    /// Returns the name that this person chose for chats in which their Matrix ID is not shown.
    pub fn appearance(&self, person: &Person) -> Result<Option<String>, DirectoryError> {
        Ok(self.get::<Appearances>(&person.to_owned())?)
    }

    /// Sets that name, or none. It applies to later conversations only: a change in all of them at
    /// once would show that they belong to one person.
    pub fn set_appearance(
        &mut self,
        person: &Person,
        name: Option<String>,
    ) -> Result<(), DirectoryError> {
        match name {
            Some(name) => self.put::<Appearances>(&person.to_owned(), &name)?,
            None => self.delete::<Appearances>(&person.to_owned()),
        }
        Ok(())
    }

    /// Returns the person behind a ghost that was made for one conversation.
    pub(super) fn person_behind(&self, user: &UserId) -> Result<Option<Person>, DirectoryError> {
        Ok(self.get::<Aliases>(&Ghost::new(user.to_owned()))?)
    }
}
