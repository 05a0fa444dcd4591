//! Blocks: the people an owner does not want to hear from.
//!
//! A block is against a person, with all handles and accounts that we know to be theirs. It holds
//! for the one handle of the blocker on which it was made: otherwise a blocked person who tries all
//! handles would learn which of them belong together.

use ruma::{OwnedUserId, UserId};

use super::{
    Directory, DirectoryError, DirectoryTransaction,
    record::Mode,
    tables::{Block, Blocks, Handles},
    transaction::Read,
};
use crate::{
    clock::Timestamp,
    handle::{Handle, Typed},
    ids::{Ghost, Person},
    store::{self, StoreError},
    text::fit_to_show,
};

/// The handles of the blocker for which a block holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockScope {
    /// One handle.
    Handle(Handle),
    /// All handles that they have and will have. The blocked person can find out that these
    /// belong together.
    All,
}

impl BlockScope {
    fn key(&self) -> String {
        match self {
            BlockScope::Handle(handle) => handle.key().to_owned(),
            BlockScope::All => String::new(),
        }
    }
}

/// Returns the prefix of the keys of all blocks of one person by another.
fn between(blocker: &Person, blocked: &Person) -> Vec<u8> {
    let mut prefix = store::prefix(&blocker.to_owned());
    prefix.extend(store::prefix(&blocked.to_owned()));
    prefix
}

/// Returns whether `blocker` has blocked this person on this handle or on all.
pub(super) fn is_blocked(
    from: &impl Read,
    blocker: &Person,
    person: &Person,
    handle: &Handle,
    most: usize,
) -> Result<bool, StoreError> {
    let blocks = from.scan::<Blocks>(&between(blocker, person), most)?;
    Ok(blocks
        .iter()
        .any(|((_, _, on, _), _)| on.is_empty() || on == handle.key()))
}

/// Returns the number of blocks of a person, at most `most`.
pub(super) fn count_blocks(
    from: &impl Read,
    blocker: &Person,
    most: usize,
) -> Result<usize, StoreError> {
    let blocks = from.scan::<Blocks>(&store::prefix(&blocker.to_owned()), most)?;
    Ok(blocks.len())
}

/// Returns whether `blocker` has blocked this person on this handle or on all, by this label.
pub(super) fn is_blocked_by_label(
    from: &impl Read,
    blocker: &Person,
    person: &Person,
    handle: &Handle,
    label: &str,
    most: usize,
) -> Result<bool, StoreError> {
    let blocks = from.scan::<Blocks>(&between(blocker, person), most)?;
    Ok(blocks
        .iter()
        .any(|((_, _, on, by), _)| (on.is_empty() || on == handle.key()) && by == label))
}

/// Returns whether `blocker` has blocked this person in a way that may show when the person writes
/// to the blocker's Matrix ID: on all handles, or on an open one, which leads to that ID anyway. A
/// block on a masked handle must not show there, or it would tell whose handle that is.
pub(super) fn is_blocked_in_person(
    from: &impl Read,
    blocker: &Person,
    person: &Person,
    most: usize,
) -> Result<bool, StoreError> {
    for ((_, _, on, _), _) in from.scan::<Blocks>(&between(blocker, person), most)? {
        if on.is_empty() {
            return Ok(true);
        }
        if let Some(record) = from.get::<Handles>(&on)?
            && record.is_held_by(blocker)
            && record.mode == Mode::Open
        {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Directory {
    /// Returns for each of these people whether they have blocked the inviter.
    pub fn who_blocked(
        &self,
        inviter: &UserId,
        people: &[OwnedUserId],
    ) -> Result<Vec<bool>, DirectoryError> {
        people
            .iter()
            .map(|person| self.is_invite_blocked(inviter, person))
            .collect()
    }

    /// Returns whether a block forbids that one person invites another by their Matrix ID.
    pub fn is_invite_blocked(
        &self,
        inviter: &UserId,
        invitee: &UserId,
    ) -> Result<bool, DirectoryError> {
        let most = self.settings().blocks_per_person;
        // Only people block and are blocked: for anybody else nothing is found.
        let (invitee, inviter) = (
            Person::new(invitee.to_owned()),
            Person::new(inviter.to_owned()),
        );
        Ok(is_blocked_in_person(
            self.store(),
            &invitee,
            &inviter,
            most,
        )?)
    }

    /// Returns whether the owner of a masked handle has blocked, on this handle or on all, the person
    /// whom they see as this ghost, by the name that they see. A block by another name of the person
    /// must change nothing that the owner can observe: it would tell them who is behind the ghost.
    pub fn is_blocked_as(
        &self,
        handle: &Handle,
        person: &Person,
        ghost: &Ghost,
    ) -> Result<bool, DirectoryError> {
        let record = self.lookup(handle)?;
        let Some(owner) = record.as_ref().and_then(|record| record.holder()) else {
            return Ok(false);
        };
        let label = match Handle::of_ghost(ghost.localpart()) {
            Some(handle) => label_of(&handle),
            None => ghost.to_string(),
        };
        let most = self.settings().blocks_per_person;
        Ok(is_blocked_by_label(
            self.store(),
            owner,
            person,
            handle,
            &label,
            most,
        )?)
    }
}

impl DirectoryTransaction<'_> {
    /// Blocks a person, named by a handle or a Matrix ID, and returns the label of the block. A
    /// second block of the same is no error.
    pub fn block(
        &mut self,
        blocker: &Person,
        target: &Typed,
        scope: &BlockScope,
        now: Timestamp,
    ) -> Result<String, DirectoryError> {
        if let BlockScope::Handle(on) = scope {
            self.must_hold(blocker, on)?;
        }
        let (blocked, label) = match target {
            // A ghost that was made for one conversation stands for the person behind it.
            Typed::Person(user) => (
                self.person_behind(user)?
                    .unwrap_or_else(|| Person::new(user.clone())),
                user.to_string(),
            ),
            Typed::Handle { handle, server } => {
                self.must_be_local(handle, server.as_deref())?;
                let record = self.get::<Handles>(&handle.key().to_owned())?;
                let Some(owner) = record.as_ref().and_then(|r| r.holder()) else {
                    return Err(DirectoryError::NobodyThere(handle.clone()));
                };
                (owner.to_owned(), label_of(handle))
            }
        };
        self.block_as(blocker, blocked, label.clone(), scope, now)?;
        Ok(label)
    }

    /// Blocks a person under a label, by which the block is taken back.
    pub(super) fn block_as(
        &mut self,
        blocker: &Person,
        blocked: Person,
        label: String,
        scope: &BlockScope,
        now: Timestamp,
    ) -> Result<(), DirectoryError> {
        if blocked == *blocker {
            return Err(DirectoryError::Yourself);
        }
        let most = self.settings().blocks_per_person;
        let key = (blocker.to_owned(), blocked, scope.key(), label);
        if self.get::<Blocks>(&key)?.is_some() {
            return Ok(());
        }
        if self.scan::<Blocks>(&store::prefix(&key.0), most)?.len() >= most {
            return Err(DirectoryError::TooManyBlocks { limit: most });
        }
        self.put::<Blocks>(&key, &Block { since: now })?;
        Ok(())
    }

    /// Takes back the blocks that were made with this name for the person, on one handle or on any.
    ///
    /// The name decides, not the person: somebody who blocked `@sam` must not learn by unblocking
    /// `@samuel:example.org` that the two are the same person.
    pub fn unblock(
        &mut self,
        blocker: &Person,
        target: &Typed,
        scope: Option<&BlockScope>,
    ) -> Result<(), DirectoryError> {
        let label = match target {
            Typed::Person(user) => user.to_string(),
            Typed::Handle { handle, server } => {
                self.must_be_local(handle, server.as_deref())?;
                label_of(handle)
            }
        };
        self.unblock_label(blocker, label, scope)
    }

    /// Takes back the blocks with this label, as it was typed or as a list of blocks shows it.
    pub fn unblock_label(
        &mut self,
        blocker: &Person,
        label: String,
        scope: Option<&BlockScope>,
    ) -> Result<(), DirectoryError> {
        let only = scope.map(BlockScope::key);
        let most = self.settings().blocks_per_person;
        let blocks = self.scan::<Blocks>(&store::prefix(&blocker.to_owned()), most)?;
        let mut found = false;
        for (key, _) in blocks {
            let known = key.3 == label || fit_to_show(&key.3) == label;
            if known && only.as_ref().is_none_or(|on| *on == key.2) {
                self.delete::<Blocks>(&key);
                found = true;
            }
        }
        if found {
            Ok(())
        } else {
            Err(DirectoryError::NotBlocked(label))
        }
    }

    /// Returns the labels of the people whom this person blocked, each with the key of the handle
    /// on which the block holds, or `None` for all.
    pub fn blocks_of(
        &self,
        blocker: &Person,
    ) -> Result<Vec<(String, Option<String>)>, DirectoryError> {
        let most = self.settings().blocks_per_person;
        let blocks = self.scan::<Blocks>(&store::prefix(&blocker.to_owned()), most)?;
        Ok(blocks
            .into_iter()
            .map(|((_, _, on, label), _): ((_, Person, _, _), _)| {
                (label, (!on.is_empty()).then_some(on))
            })
            .collect())
    }

    pub(super) fn must_hold(&self, owner: &Person, handle: &Handle) -> Result<(), DirectoryError> {
        match self.get::<Handles>(&handle.key().to_owned())? {
            Some(record) if record.is_held_by(owner) => Ok(()),
            _ => Err(DirectoryError::NotYours(handle.clone())),
        }
    }

    fn must_be_local(
        &self,
        handle: &Handle,
        server: Option<&ruma::ServerName>,
    ) -> Result<(), DirectoryError> {
        match server {
            Some(server) if server != self.settings().server_name => {
                Err(DirectoryError::Elsewhere(handle.clone()))
            }
            _ => Ok(()),
        }
    }
}

fn label_of(handle: &Handle) -> String {
    format!("@{}", handle.key())
}
