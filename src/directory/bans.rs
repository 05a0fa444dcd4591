//! The people and servers that an admin has banned, and what people may do.

use serde::{Deserialize, Serialize};

use super::{
    Directory, DirectoryError, DirectorySettings, DirectoryTransaction, HandleRecord,
    tables::{Ban, Bans},
    transaction::Read,
};
use crate::{
    ids::{Person, host_of},
    permissions::{Grantee, Permission, in_lower_case},
    store::{Store, StoreError},
};

/// Maximum number of bans on one page of their list.
const BANS_PER_PAGE_MAX: usize = 500;

/// A ban, and of whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanEntry {
    /// The Matrix ID of a person, or the name of a server.
    pub subject: String,
    /// The ban.
    #[serde(flatten)]
    pub ban: Ban,
}

/// A page of the bans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanPage {
    /// The bans, by name.
    pub bans: Vec<BanEntry>,
    /// Where the next page begins, if there may be one.
    pub next: Option<String>,
}

/// Returns a page of the bans after this name.
pub fn list_bans(store: &Store, after: Option<&str>) -> Result<BanPage, StoreError> {
    let after = after.map(ToOwned::to_owned);
    let found = store.scan::<Bans>(&[], after.as_ref(), BANS_PER_PAGE_MAX)?;
    let is_full = found.len() == BANS_PER_PAGE_MAX;
    let next = found.last().map(|(key, _)| key.clone());
    let entry = |(subject, ban)| BanEntry { subject, ban };
    Ok(BanPage {
        bans: found.into_iter().map(entry).collect(),
        next: next.filter(|_| is_full),
    })
}

/// Returns what a person may do: nothing while they or their server are banned, or else what the
/// configuration says.
pub(super) fn permission_of(
    from: &impl Read,
    settings: &DirectorySettings,
    person: &Person,
) -> Result<Permission, StoreError> {
    Ok(match ban_of(from, person)? {
        Some(_) => Permission::None,
        None => settings.permissions.of(person),
    })
}

/// Returns the ban of a person, or else of their server.
pub(super) fn ban_of(from: &impl Read, person: &Person) -> Result<Option<Ban>, StoreError> {
    let server = person.server_name();
    let keys = [
        Grantee::Person((**person).clone()),
        Grantee::Server(in_lower_case(server)),
        Grantee::Host(host_of(server)),
    ];
    for key in keys {
        if let Some(ban) = from.get::<Bans>(&key.to_string())? {
            return Ok(Some(ban));
        }
    }
    Ok(None)
}

impl Directory {
    /// Returns whether the handle is still in use and the admin lets both of these people have to do
    /// with each other by it. An introduction takes days where an owner is asked, and what an admin
    /// decides meanwhile holds for it.
    pub fn still_leads(
        &self,
        record: &HandleRecord,
        asker: &Person,
    ) -> Result<bool, DirectoryError> {
        Ok(still_leads(self.store(), self.settings(), record, asker)?)
    }
}

fn still_leads(
    from: &impl Read,
    settings: &DirectorySettings,
    record: &HandleRecord,
    asker: &Person,
) -> Result<bool, StoreError> {
    Ok(record.is_active()
        && permission_of(from, settings, asker)? >= Permission::Reach
        && ban_of(from, &record.owner)?.is_none())
}

impl DirectoryTransaction<'_> {
    /// Returns whether a handle still leads an asker to its owner, as [`Directory::still_leads`].
    pub fn still_leads(
        &self,
        record: &HandleRecord,
        asker: &Person,
    ) -> Result<bool, DirectoryError> {
        Ok(still_leads(self, self.settings(), record, asker)?)
    }

    /// Returns what a person may do.
    pub fn permission_of(&self, person: &Person) -> Result<Permission, DirectoryError> {
        Ok(permission_of(self, self.settings(), person)?)
    }
}
