//! What the directory keeps about a person, for that person.
//!
//! It holds what they have told the service, and what follows from what they did. Other people are
//! in it only as this person has seen them: whom they blocked and who asks them by the names that
//! the bot uses, and the owners of handles by their handles alone.

use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};

use super::{
    ActingAdmin, Directory, DirectoryError, HandleSummary, LimitUse,
    bans::{ban_of, permission_of},
    tables::{Appearances, AuditLog, Ban, Blocks, Contacts, Handles, Pairs, Requests},
};
use crate::{
    clock::Timestamp,
    ids::Person,
    permissions::{Grantee, Permission},
    store::prefix,
};

/// What the directory keeps about a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryExport {
    /// What they may do.
    pub permission: Permission,
    /// Their ban, or that of their server.
    pub ban: Option<Ban>,
    /// Their handles, and those that are kept for them after a release.
    pub handles: Vec<HandleSummary>,
    /// The name by which they want to be seen by people who do not see their Matrix ID.
    pub appearance: Option<String>,
    /// The people whom they have blocked.
    pub blocks: Vec<ExportedBlock>,
    /// Requests that wait for their answer.
    pub requests_to_them: Vec<ExportedRequest>,
    /// Their own requests that wait for an answer.
    pub requests_of_theirs: Vec<ExportedRequest>,
    /// The handles whose owners have accepted them, or started a chat with them.
    pub accepted_by: Vec<ExportedContact>,
    /// One entry for each person whom they have accepted, or started a chat with, by a handle.
    pub accepted: Vec<ExportedContact>,
    /// The rooms in which they met the owners of handles.
    pub introductions: Vec<ExportedPair>,
    /// What they have used of their limits.
    pub limits: Vec<LimitUse>,
    /// Until when the bot ignores them, in milliseconds since 1970.
    pub ignored_until: Option<Timestamp>,
    /// What admins did about them or for them, and what they did themselves as an admin.
    pub acts: Vec<ExportedAct>,
}

impl DirectoryExport {
    /// Returns whether it holds something that an erasure deletes.
    pub fn has_something_to_erase(&self) -> bool {
        !(self.handles.is_empty()
            && self.appearance.is_none()
            && self.blocks.is_empty()
            && self.requests_to_them.is_empty()
            && self.requests_of_theirs.is_empty()
            && self.accepted_by.is_empty()
            && self.introductions.is_empty())
    }
}

/// An act of an admin, as a person it concerns was told of it: not by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedAct {
    /// When, in milliseconds since 1970.
    pub at: Timestamp,
    /// What was done, as an admin types it: `freeze`.
    pub act: String,
    /// What it was done to: a handle or a person.
    pub subject: String,
    /// The reason; left out where it was given to somebody else.
    pub reason: Option<String>,
    /// Whether this person did it, as an admin.
    pub by_them: bool,
}

/// A block that a person has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedBlock {
    /// The blocked person, as `blocks` names them.
    pub who: String,
    /// The handle on which it holds; `None` for all of them.
    pub handle: Option<String>,
    /// Since when, in milliseconds since 1970.
    pub since: Timestamp,
}

/// A request, as one of its two people knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedRequest {
    /// The handle that is asked.
    pub handle: String,
    /// Who asks, as the owner was told; `None` for the asker's own.
    pub from: Option<String>,
    /// Since when, in milliseconds since 1970.
    pub since: Timestamp,
    /// The room in which the asker waits, for the asker.
    pub room: Option<OwnedRoomId>,
}

/// That the owner of a handle and somebody else know each other by it. It names neither: while a
/// handle is masked, its owner does not learn whom it leads to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedContact {
    /// The handle.
    pub handle: String,
    /// Since when, in milliseconds since 1970.
    pub since: Timestamp,
}

/// An introduction that led to a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedPair {
    /// The handle by which the person reached somebody.
    pub handle: String,
    /// The room.
    pub room: OwnedRoomId,
    /// When, in milliseconds since 1970.
    pub at: Timestamp,
}

impl Directory {
    /// Returns what is kept about a person. Reads all requests, contacts, handles in quarantine and
    /// acts, so it is not for every minute.
    pub fn export_person(
        &self,
        person: &Person,
        now: Timestamp,
    ) -> Result<DirectoryExport, DirectoryError> {
        let store = self.store();
        let grantee = Grantee::Person((**person).clone());
        let handles = self.handles_once_held_by(person)?;
        let (accepted_by, accepted) = self.contacts_with(person, &handles)?;
        let (mut blocks, mut introductions) = (Vec::new(), Vec::new());
        for page in store.pages::<Blocks>(&prefix(person)) {
            let entries = page?
                .into_iter()
                .map(|((_, _, on, label), block)| ExportedBlock {
                    who: label,
                    handle: (!on.is_empty()).then(|| format!("@{on}")),
                    since: block.since,
                });
            blocks.extend(entries);
        }
        for page in store.pages::<Pairs>(&prefix(person)) {
            let entries = page?
                .into_iter()
                .map(|((_, handle, _), pair)| ExportedPair {
                    handle: format!("@{handle}"),
                    room: pair.room,
                    at: pair.introduced_at,
                });
            introductions.extend(entries);
        }
        let requests = self.requests_of(person)?.into_iter();
        let requests_to_them = requests.map(|(number, request)| ExportedRequest {
            from: Some(request.asker_named(number)),
            handle: request.handle.to_string(),
            since: request.since,
            room: None,
        });
        Ok(DirectoryExport {
            permission: permission_of(store, self.settings(), person)?,
            ban: ban_of(store, person)?,
            appearance: store.get::<Appearances>(person)?,
            blocks,
            requests_to_them: requests_to_them.collect(),
            requests_of_theirs: self.requests_by(person)?,
            accepted_by,
            accepted,
            introductions,
            limits: self.limits_used(&grantee, now)?,
            ignored_until: self.ignored_until(person, now)?,
            acts: self.acts_about(person, &handles)?,
            handles,
        })
    }

    /// Returns the handles that a person holds, and those in quarantine that they held last.
    fn handles_once_held_by(&self, person: &Person) -> Result<Vec<HandleSummary>, DirectoryError> {
        let mut handles = Vec::new();
        for page in self.store().pages::<Handles>(&[]) {
            let records = page?.into_iter().map(|(_, record)| record);
            let theirs = records.filter(|record| record.owner == *person);
            handles.extend(theirs.map(HandleSummary::from));
        }
        Ok(handles)
    }

    /// Returns the requests that a person has made.
    fn requests_by(&self, person: &Person) -> Result<Vec<ExportedRequest>, DirectoryError> {
        let mut made = Vec::new();
        for page in self.store().pages::<Requests>(&[]) {
            let requests = page?.into_iter().map(|(_, request)| request);
            let theirs = requests.filter(|request| request.asker == *person);
            made.extend(theirs.map(|request| ExportedRequest {
                handle: request.handle.to_string(),
                from: None,
                since: request.since,
                room: Some(request.room),
            }));
        }
        Ok(made)
    }

    /// Returns the handles whose contact a person is, and the contacts of their own handles.
    fn contacts_with(
        &self,
        person: &Person,
        handles: &[HandleSummary],
    ) -> Result<(Vec<ExportedContact>, Vec<ExportedContact>), DirectoryError> {
        let (mut of_others, mut of_theirs) = (Vec::new(), Vec::new());
        for page in self.store().pages::<Contacts>(&[]) {
            for ((handle, generation, contact), since) in page? {
                let is_own = handles
                    .iter()
                    .any(|own| own.handle.key() == handle && own.generation == generation);
                let handle = format!("@{handle}");
                if contact == *person {
                    of_others.push(ExportedContact { handle, since });
                } else if is_own {
                    of_theirs.push(ExportedContact { handle, since });
                }
            }
        }
        Ok((of_others, of_theirs))
    }

    /// Returns the acts of admins that a person did, got something by, or was the subject of, also
    /// by one of their handles while it was theirs.
    fn acts_about(
        &self,
        person: &Person,
        handles: &[HandleSummary],
    ) -> Result<Vec<ExportedAct>, DirectoryError> {
        let by = ActingAdmin::Person(person.clone());
        let mut acts = Vec::new();
        for page in self.store().pages::<AuditLog>(&[]) {
            for ((at, _), record) in page? {
                let on_handle = handles
                    .iter()
                    .any(|own| own.handle.to_string() == record.subject && own.claimed_at <= at);
                let by_them = record.by == by;
                let is_new_owner = record.to.as_ref() == Some(person);
                let on_them = record.subject == person.as_str();
                if on_handle || by_them || is_new_owner || on_them {
                    // What a former owner was told is not for the new one.
                    let is_told = by_them || !is_new_owner;
                    acts.push(ExportedAct {
                        at,
                        act: record.act,
                        subject: record.subject,
                        reason: Some(record.reason).filter(|_| is_told),
                        by_them,
                    });
                }
            }
        }
        Ok(acts)
    }
}
