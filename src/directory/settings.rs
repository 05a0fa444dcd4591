//! What the admin decides about handles.

use std::time::Duration;

use ruma::OwnedServerName;

use crate::handle::{HandleRules, ReservedNames};

/// One day, over which the limits count.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How many handles of ours one room creation may name; those beyond are told "not now".
pub const HANDLES_PER_ROOM_MAX: usize = 10;

/// For how long the room of two people who were introduced is remembered.
pub const PAIR_MEMORY: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// After somebody was led back to a room they have, another attempt within this time means that
/// the room is of no use to them, and introduces afresh.
pub const PAIR_RETRY: Duration = Duration::from_secs(10 * 60);

/// What the admin decides about handles.
#[derive(Clone, Debug)]
pub struct DirectorySettings {
    /// Our homeserver's name.
    pub server_name: OwnedServerName,
    /// Which handles may be claimed.
    pub rules: HandleRules,
    /// Names that nobody may claim.
    pub reserved: ReservedNames,
    /// How many handles a person may hold at a time.
    pub handles_per_person: usize,
    /// How many handles a person may claim within a day. Every released one is in quarantine for
    /// months, so without this anybody could use up the good names.
    pub claims_per_day: u32,
    /// How many handles the people of one other homeserver may claim within a day.
    pub claims_per_server: u32,
    /// How many chats a person may start with the bot within a day.
    pub bot_invites_per_sender: u32,
    /// For how long a released handle is kept for its last owner.
    pub quarantine: Duration,
    /// Maximum number of new conversations that a person may start within a day.
    pub new_conversations_per_sender: u32,
    /// Maximum number of new conversations that the people of one other homeserver may start within
    /// a day.
    pub new_conversations_per_server: u32,
    /// How many invites to names that nobody claimed are declined within a day; the others are
    /// left alone, since a ghost has to be registered for each.
    pub unclaimed_per_day: u32,
    /// How many people somebody may block.
    pub blocks_per_person: usize,
    /// How many contacts are kept of a handle.
    pub contacts_per_handle: usize,
    /// Whether handles are strict when they are claimed.
    pub strict_by_default: bool,
    /// What this version can do.
    pub capabilities: Capabilities,
}

impl DirectorySettings {
    /// The defaults, for this homeserver.
    pub fn new(server_name: OwnedServerName) -> Self {
        DirectorySettings {
            server_name,
            rules: HandleRules::default(),
            reserved: ReservedNames::default(),
            handles_per_person: 5,
            claims_per_day: 5,
            claims_per_server: 20,
            bot_invites_per_sender: 10,
            quarantine: Duration::from_secs(365 * 24 * 60 * 60),
            new_conversations_per_sender: 30,
            new_conversations_per_server: 500,
            unclaimed_per_day: 200,
            blocks_per_person: 1000,
            contacts_per_handle: 5000,
            strict_by_default: false,
            capabilities: Capabilities::default(),
        }
    }
}

/// What the types already know and the service does not offer yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Masked handles, whose ghosts carry messages.
    pub masked: bool,
    /// Sealed handles, which are accounts.
    pub sealed: bool,
    /// Links with contact keys.
    pub contact_keys: bool,
}
