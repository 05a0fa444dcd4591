//! Contacts: the people whom an owner accepted, or started a chat with, through a handle.

use super::{DirectoryError, DirectoryTransaction, tables::Contacts, transaction::Read as _};
use crate::{clock::Timestamp, handle::Handle, ids::Person, store};

impl DirectoryTransaction<'_> {
    /// Makes somebody a contact of a handle, unless it has the maximum number of contacts.
    pub fn add_contact(
        &mut self,
        handle: &Handle,
        generation: u32,
        person: &Person,
        now: Timestamp,
    ) -> Result<(), DirectoryError> {
        let key = (handle.key().to_owned(), generation, person.to_owned());
        let most = self.settings().contacts_per_handle;
        if self.get::<Contacts>(&key)?.is_none()
            && self.scan::<Contacts>(&store::prefix(&key.0), most)?.len() < most
        {
            self.put::<Contacts>(&key, &now)?;
        }
        Ok(())
    }

    /// Removes a contact of a handle.
    pub fn remove_contact(&mut self, handle: &Handle, generation: u32, person: &Person) {
        self.delete::<Contacts>(&(handle.key().to_owned(), generation, person.to_owned()));
    }

    /// Deletes the contacts of a handle, by its key.
    pub(super) fn forget_contacts(&mut self, key: &str) -> Result<(), DirectoryError> {
        let prefix = store::prefix(&key.to_owned());
        let most = self.settings().contacts_per_handle.saturating_mul(2);
        let contacts: Vec<(String, u32, Person)> = self
            .scan::<Contacts>(&prefix, most)?
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        for contact in contacts {
            self.delete::<Contacts>(&contact);
        }
        Ok(())
    }
}
