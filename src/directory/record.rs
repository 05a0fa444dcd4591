//! The records of handles, requests and acts of admins.

use std::{fmt, time::Duration};

use ruma::{EventId, OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    handle::Handle,
    ids::{Ghost, Person},
    text::fit_to_show,
};

/// The way in which a handle's ghost serves its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The ghost introduces two people and leaves.
    #[default]
    Open,
    /// The ghost stays and passes messages on, so that the owner's Matrix ID is not seen.
    Masked,
    /// The owner signs in to the ghost's account itself.
    Sealed,
}

/// The people who may reach the owner directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Everybody.
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

/// The treatment of people who may not reach the owner directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Others {
    /// The owner is asked.
    Request,
    /// The asker gets "not now".
    #[default]
    Refuse,
}

/// Who may reach the owner of a handle, and how everybody else is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The people who may reach the owner directly.
    pub direct: Reach,
    /// The treatment of all others.
    pub others: Others,
}

/// The people who can find a handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discoverable {
    /// Everybody: the user directory shows it.
    Yes,
    /// People who know the exact name.
    #[default]
    Exact,
    /// People who have a link with a contact key.
    Link,
}

/// The reason of a freeze. Outsiders get the same answer as somebody who is blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreezeReason {
    /// The admin froze it.
    Admin {
        /// The admin's note, shown to the owner.
        note: String,
    },
    /// The ghost's Matrix ID, or its keys, belong to somebody else.
    GhostNotOurs,
    /// The handle changed after the backup from which this service was restored.
    ChangedSinceBackup,
}

/// The state of a handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandleState {
    /// Held and in use.
    Active,
    /// Held by its owner, whom it does not reach.
    Frozen {
        /// The reason.
        reason: FreezeReason,
        /// The time of the freeze.
        since: Timestamp,
    },
    /// Released: nobody holds it, and at most its last owner may claim it before `until`.
    Quarantined {
        /// The time from which everybody may claim it.
        until: Timestamp,
        /// Whether an admin took it from its last owner, who may not claim it before `until` either.
        #[serde(default)]
        revoked: bool,
    },
}

/// The record of a handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandleRecord {
    /// The handle, as its owner typed it.
    pub handle: Handle,
    /// The owner, or in quarantine the last owner. A handle whose owner a restore cannot find out
    /// belongs to its own ghost, and is frozen.
    pub owner: Person,
    /// The number of this owner among all owners of the name. Everything that others can notice of
    /// a handle is stored under (handle, generation), so that the next owner inherits none of it.
    pub generation: u32,
    /// The mode of its ghost.
    pub mode: Mode,
    /// Whether nothing that people write may pass through us, not even the opening line.
    pub strict: bool,
    /// The people who may reach the owner.
    pub policy: Policy,
    /// The people who can find it.
    pub discoverable: Discoverable,
    /// The time at which this owner claimed it.
    pub claimed_at: Timestamp,
    /// The time at which the admin marked it as verified, if so.
    pub verified_at: Option<Timestamp>,
    /// Its state.
    pub state: HandleState,
    /// Whether calls hide the network addresses of both sides, while the handle is masked.
    #[serde(default = "yes")]
    pub hide_addresses: bool,
}

fn yes() -> bool {
    true
}

impl HandleRecord {
    /// Returns a handle as it is right after its claim.
    pub fn new(handle: Handle, owner: Person, generation: u32, now: Timestamp) -> Self {
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

    /// Returns the owner, unless the handle is in quarantine.
    pub fn holder(&self) -> Option<&Person> {
        match self.state {
            HandleState::Active | HandleState::Frozen { .. } => Some(&self.owner),
            HandleState::Quarantined { .. } => None,
        }
    }

    /// Returns whether its ghost has no keys, so that nothing can pass through it: its owner or the
    /// server, by default, has chosen that for handles that only introduce.
    pub fn is_strict(&self, by_default: bool) -> bool {
        self.mode == Mode::Open && (self.strict || by_default)
    }

    /// Returns whether this person holds it now.
    pub fn is_held_by(&self, person: &Person) -> bool {
        self.holder() == Some(person)
    }

    /// Returns whether it is held and not frozen.
    pub fn is_active(&self) -> bool {
        self.state == HandleState::Active
    }

    /// Returns whether an admin took it from its last owner, for whom it is no longer kept.
    pub fn is_revoked(&self) -> bool {
        matches!(self.state, HandleState::Quarantined { revoked: true, .. })
    }

    /// Returns whether it has frozen by itself: its ghost may be somebody else's.
    pub fn is_in_doubt(&self) -> bool {
        matches!(&self.state, HandleState::Frozen { reason, .. }
            if !matches!(reason, FreezeReason::Admin { .. }))
    }

    /// Returns whether its quarantine is over, so that everybody may claim it.
    pub fn is_free(&self, now: Timestamp) -> bool {
        matches!(self.state, HandleState::Quarantined { until, .. } if until <= now)
    }

    /// Returns how long this owner has held it.
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
    pub asker: Person,
    /// The room in which the asker waits with the handle's ghost.
    pub room: OwnedRoomId,
    /// The ghost in that room.
    pub ghost: Ghost,
    /// The time at which it was opened.
    pub since: Timestamp,
    /// The mode of the handle when it was opened, or when the owner was last told of it.
    pub mode: Mode,
    /// The bot's message that shows it to the owner.
    pub shown: Option<OwnedEventId>,
    /// The bot's message that shows the opening line: the same, or a later one if the line came
    /// later.
    #[serde(default)]
    pub line_shown: Option<OwnedEventId>,
    /// For a masked handle: the name by which its owner knows the asker, whose Matrix ID the owner
    /// must not see.
    #[serde(default)]
    pub asker_alias: Option<String>,
}

impl Request {
    /// Returns whether this message of the bot shows the request or its opening line.
    pub fn is_shown_by(&self, message: &EventId) -> bool {
        let mut shown = self.shown.iter().chain(&self.line_shown);
        shown.any(|shown| shown == message)
    }

    /// Returns the asker's Matrix ID, or for a masked handle their name and the request's number.
    pub fn asker_named(&self, number: u32) -> String {
        match &self.asker_alias {
            Some(name) if name.starts_with('@') => name.clone(),
            Some(name) => format!("{name} (#{number})"),
            None => self.asker_shown(),
        }
    }

    /// Returns the label under which a block of the asker is taken back.
    pub fn block_label(&self, number: u32) -> String {
        match &self.asker_alias {
            // Only a handle begins with `@`. Its blocks are found by its key, in small letters.
            Some(name) if name.starts_with('@') => name.to_ascii_lowercase(),
            Some(_) => format!("#{number}"),
            None => self.asker_shown(),
        }
    }

    /// Returns the asker's Matrix ID as it can be shown in our texts.
    pub fn asker_shown(&self) -> String {
        fit_to_show(self.asker.as_str())
    }
}

/// The admin who acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActingAdmin {
    /// A person with the permission `admin`, through the bot.
    Person(Person),
    /// Somebody who can open the admin socket, by the name of their login on that machine. Nobody
    /// checks the name.
    Login(String),
    /// Nobody here: the homeserver reported that an account was deactivated.
    Homeserver,
}

impl fmt::Display for ActingAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(person) => person.fmt(f),
            Self::Login(name) => write!(f, "{name} (on this machine)"),
            Self::Homeserver => f.write_str("the homeserver"),
        }
    }
}

/// An act of an admin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// The admin.
    pub by: ActingAdmin,
    /// What they did, as they would type it: `freeze`.
    pub act: String,
    /// What they did it to: a handle, a person or a server.
    pub subject: String,
    /// The person who got it, if the act gives it to somebody.
    pub to: Option<Person>,
    /// Their reason; empty if they gave none.
    pub reason: String,
}

/// In words for the admin.
impl fmt::Display for FreezeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin { note } if note.is_empty() => f.write_str("by the admin"),
            Self::Admin { note } => write!(f, "by the admin ({note})"),
            Self::GhostNotOurs => f.write_str(
                "somebody else has the Matrix ID of its ghost, or has changed the ghost's keys",
            ),
            Self::ChangedSinceBackup => {
                f.write_str("it changed after the backup from which Stonechat was restored")
            }
        }
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
