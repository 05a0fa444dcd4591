//! The settings of the directory, which the admin decides.

use std::time::Duration;

use ruma::OwnedServerName;

use crate::{
    handle::{HandleRules, ReservedNames},
    permissions::{CurrentPermissions, Permissions},
};

/// The time over which the limits hold.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the room of two people who were introduced is remembered.
pub const PAIR_MEMORY: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// How soon a second attempt by somebody who was led back to their room means that the room is of
/// no use to them, so that they are introduced again.
pub const PAIR_RETRY: Duration = Duration::from_secs(10 * 60);

/// The settings of the directory.
#[derive(Clone, Debug)]
pub struct DirectorySettings {
    /// Our homeserver's name.
    pub server_name: OwnedServerName,
    /// The rules for handles that are claimed.
    pub rules: HandleRules,
    /// What people may do.
    pub permissions: CurrentPermissions,
    /// Names that nobody may claim.
    pub reserved: ReservedNames,
    /// Maximum number of handles that a person may hold at a time.
    pub handles_per_person: usize,
    /// Maximum number of handles that a person may claim within a day. A released one is in
    /// quarantine for months, so without this limit anybody could use up the good names.
    pub claims_per_day: u32,
    /// Maximum number of handles that the people of one other homeserver may claim within a day.
    pub claims_per_server: u32,
    /// Maximum number of chats that a person may start with the bot within a day.
    pub bot_invites_per_sender: u32,
    /// How long a released handle is kept for its last owner.
    pub quarantine: Duration,
    /// Maximum number of new conversations that a person may start within a day.
    pub new_conversations_per_sender: u32,
    /// Maximum number of new conversations that the people of one other homeserver may start within
    /// a day.
    pub new_conversations_per_server: u32,
    /// Maximum number of invites to names that nobody holds that are declined within a day. Each
    /// needs a registered ghost; the others are left alone.
    pub unclaimed_per_day: u32,
    /// Maximum number of people that a person may block.
    pub blocks_per_person: usize,
    /// Maximum number of contacts of a handle.
    pub contacts_per_handle: usize,
    /// Whether a handle is strict when it is claimed.
    pub strict_by_default: bool,
    /// The capabilities of this version.
    pub capabilities: Capabilities,
}

impl DirectorySettings {
    /// Returns the defaults for this homeserver.
    pub fn new(server_name: OwnedServerName) -> Self {
        let permissions = Permissions::new(&server_name, []);
        DirectorySettings {
            server_name,
            permissions: CurrentPermissions::new(permissions),
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

/// Capabilities that the types already know and the service may not offer yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Masked handles, whose ghosts pass messages on.
    pub masked: bool,
    /// Sealed handles, which are accounts.
    pub sealed: bool,
    /// Links with contact keys.
    pub contact_keys: bool,
}
