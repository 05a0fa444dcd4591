//! The records of handles and requests.

use std::{fmt, time::Duration};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, handle::Handle};

/// How a handle's ghost serves its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The ghost introduces two people and leaves.
    #[default]
    Open,
    /// The ghost stays and carries messages, so that the owner's Matrix ID is not seen.
    Masked,
    /// The owner signs in to the ghost's account itself.
    Sealed,
}

/// Who may reach the owner directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Whoever asks.
    #[default]
    Everyone,
    /// People who own a handle here.
    Handles,
    /// People who own a handle that the admin marked as verified.
    Verified,
    /// People whom the owner accepted, or started a chat with, through this handle.
    Contacts,
    /// Nobody.
    Nobody,
}

/// What happens to those who may not reach the owner directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Others {
    /// The owner is asked.
    Request,
    /// They are told "not now".
    #[default]
    Refuse,
}

/// Who may reach the owner of a handle, and what happens to everybody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Who may reach the owner directly.
    pub direct: Reach,
    /// What happens to the others.
    pub others: Others,
}

/// Who can find a handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discoverable {
    /// The user directory shows it.
    Yes,
    /// Whoever knows the exact name.
    #[default]
    Exact,
    /// Only who has a link with a contact key.
    Link,
}

/// Why a handle is frozen. Outsiders see the same as for a blocked one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreezeReason {
    /// The admin froze it.
    Admin {
        /// The admin's note, shown to the owner.
        note: String,
    },
    /// The ghost's Matrix name, or its keys, are somebody else's.
    GhostNotOurs,
    /// It changed after the backup from which this service was restored.
    ChangedSinceBackup,
}

/// Whether a handle works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandleState {
    /// It works.
    Active,
    /// It belongs to its owner but reaches nobody.
    Frozen {
        /// Why.
        reason: FreezeReason,
        /// Since when.
        since: Timestamp,
    },
    /// It was released: nobody holds it, and only its last owner may claim it before `until`.
    Quarantined {
        /// From then on everybody may claim it.
        until: Timestamp,
    },
}

/// What the directory keeps of a handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandleRecord {
    /// The handle, as its owner typed it.
    pub handle: Handle,
    /// Who holds it; while it is in quarantine, who held it last.
    pub owner: OwnedUserId,
    /// Counts the owners of this name. Everything that others can notice of a handle is kept
    /// under (handle, generation), so that nothing passes from one owner to the next.
    pub generation: u32,
    /// How its ghost works.
    pub mode: Mode,
    /// Whether nothing at all may pass through us, not even the opening line.
    pub strict: bool,
    /// Who may reach the owner.
    pub policy: Policy,
    /// Who can find it.
    pub discoverable: Discoverable,
    /// Since when this owner holds it.
    pub claimed_at: Timestamp,
    /// When the admin marked it as verified, if so.
    pub verified_at: Option<Timestamp>,
    /// Whether it works.
    pub state: HandleState,
    /// While it is masked: whether calls carry only addresses that do not show where somebody is.
    #[serde(default = "yes")]
    pub hide_addresses: bool,
}

fn yes() -> bool {
    true
}

impl HandleRecord {
    /// A handle as it is right after it was claimed.
    pub fn new(handle: Handle, owner: OwnedUserId, generation: u32, now: Timestamp) -> Self {
        HandleRecord {
            handle,
            owner,
            generation,
            mode: Mode::default(),
            strict: false,
            policy: Policy::default(),
            discoverable: Discoverable::default(),
            claimed_at: now,
            verified_at: None,
            state: HandleState::Active,
            hide_addresses: true,
        }
    }

    /// Who holds the handle now, if anybody does.
    pub fn holder(&self) -> Option<&UserId> {
        match self.state {
            HandleState::Active | HandleState::Frozen { .. } => Some(&self.owner),
            HandleState::Quarantined { .. } => None,
        }
    }

    /// Whether this person holds it now.
    pub fn is_held_by(&self, person: &UserId) -> bool {
        self.holder() == Some(person)
    }

    /// Whether it is held and not frozen.
    pub fn is_active(&self) -> bool {
        self.state == HandleState::Active
    }

    /// Whether it was released and its quarantine is over: as good as never claimed.
    pub fn is_free(&self, now: Timestamp) -> bool {
        matches!(self.state, HandleState::Quarantined { until } if until <= now)
    }

    /// For how long this owner has held it.
    pub fn age(&self, now: Timestamp) -> Duration {
        now.since(self.claimed_at)
    }
}

/// A request: somebody asks an owner whether they may reach them. Holds nothing that they wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The handle that the asker wants to reach.
    pub handle: Handle,
    /// The generation of its owner.
    pub generation: u32,
    /// The person who asks.
    pub asker: OwnedUserId,
    /// The room in which the asker waits with the handle's ghost.
    pub room: OwnedRoomId,
    /// The ghost in that room.
    pub ghost: OwnedUserId,
    /// The time at which it was opened.
    pub since: Timestamp,
    /// The bot's message that shows it to the owner.
    pub shown: Option<OwnedEventId>,
    /// For a masked handle: the name by which its owner knows the asker, whose Matrix ID the owner
    /// must not see.
    #[serde(default)]
    pub masked_as: Option<String>,
}

impl Request {
    /// Returns the asker's Matrix ID, or for a masked handle their name and the request's number.
    pub fn asker_named(&self, number: u32) -> String {
        match &self.masked_as {
            Some(name) if name.starts_with('@') => name.clone(),
            Some(name) => format!("{name} (#{number})"),
            None => self.asker_shown(),
        }
    }

    /// Returns the label under which a block of the asker is taken back.
    pub fn block_label(&self, number: u32) -> String {
        match &self.masked_as {
            Some(name) if name.starts_with('@') => name.clone(),
            Some(_) => format!("#{number}"),
            None => self.asker_shown(),
        }
    }

    /// Returns the asker's Matrix ID, fit for a sentence of ours: characters that are invisible or
    /// begin a line are replaced by a mark. Localparts of other servers can hold almost anything.
    pub fn asker_shown(&self) -> String {
        let fit = |c: char| c.is_ascii_graphic() || c.is_alphanumeric();
        self.asker
            .as_str()
            .chars()
            .map(|c| {
                if fit(c) {
                    c
                } else {
                    char::REPLACEMENT_CHARACTER
                }
            })
            .collect()
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Open => "open",
            Mode::Masked => "masked",
            Mode::Sealed => "sealed",
        })
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reach::Everyone => "everyone",
            Reach::Handles => "handles",
            Reach::Verified => "verified",
            Reach::Contacts => "contacts",
            Reach::Nobody => "nobody",
        })
    }
}

impl fmt::Display for Discoverable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Discoverable::Yes => "yes",
            Discoverable::Exact => "exact",
            Discoverable::Link => "link",
        })
    }
}
