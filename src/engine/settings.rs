//! The settings of the engine.

use std::time::Duration;

use ruma::{OwnedServerName, OwnedUserId};

use crate::introduction::Rules;

/// The configuration of the engine.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Our homeserver's name.
    pub server_name: OwnedServerName,
    /// The bot.
    pub bot: OwnedUserId,
    /// The bot's display name.
    pub bot_name: String,
    /// The rules of introductions.
    pub rules: Rules,
    /// The settings of conversations with masked handles.
    pub conversations: ConversationSettings,
    /// Maximum number of introductions at the same time: of our own server's people, and again of
    /// all others'. The rest wait.
    pub joins_at_once: usize,
    /// Whether every handle of this server is strict, so that nothing passes through us.
    pub strict: bool,
    /// Maximum number of ghosts that may be invited into one room.
    pub handles_per_room: usize,
    /// How often every ghost is reconciled.
    pub reconcile_every: Duration,
    /// Maximum number of ghosts that are reconciled per second.
    pub reconcile_per_second: u32,
}

/// The settings of conversations with masked handles.
#[derive(Clone, Debug)]
pub struct ConversationSettings {
    /// Whether a read receipt of the ghost shows that a message has reached the other room.
    pub delivery_receipts: bool,
    /// How long the event map remembers an event and its copies.
    pub remember: Duration,
    /// How long later messages wait for one whose key has not come.
    pub wait_for_key: Duration,
    /// Maximum size of a file from another homeserver that is passed on, in bytes.
    pub media_bytes_max: u64,
}

impl Default for ConversationSettings {
    fn default() -> Self {
        Self {
            delivery_receipts: true,
            remember: Duration::from_secs(365 * 24 * 60 * 60),
            wait_for_key: Duration::from_secs(60),
            media_bytes_max: 100 << 20,
        }
    }
}
