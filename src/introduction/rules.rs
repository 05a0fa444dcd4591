//! The durations and bounds of an introduction.

use std::time::Duration;

/// The durations and bounds that the configuration sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long the ghost listens for an opening line after it joined.
    pub wait_for_message: Duration,
    /// How long the ghost stays after inviting the owner and after the last message that it read.
    pub linger: Duration,
    /// Maximum time that the ghost stays after inviting the owner.
    pub linger_at_most: Duration,
    /// How long the ghost waits for an owner who has to join or set up encryption first.
    pub wait_for_owner: Duration,
    /// How long a request waits for its answer.
    pub wait_for_answer: Duration,
    /// How long the ghost waits before it declines an invite, for whatever reason.
    pub decline_after: Duration,
    /// Maximum number of members and invited people; in a larger room a ghost leaves at once.
    pub members_at_most: usize,
    /// How long to wait between two checks whether the owner has set up encryption.
    pub retry_owner: Duration,
    /// How long to wait between two invites of an owner whose server does not answer.
    pub retry_invite: Duration,
    /// How long an owner is invited whose server does not answer.
    pub invite_owner_for: Duration,
    /// Maximum number of messages that are kept to be passed on.
    pub pending_events_max: usize,
    /// How long to wait for another server's answer before the place is given to somebody else.
    pub ask_abroad_for: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            wait_for_message: Duration::from_secs(5),
            linger: Duration::from_secs(3),
            linger_at_most: Duration::from_secs(10),
            wait_for_owner: Duration::from_secs(7 * 24 * 60 * 60),
            wait_for_answer: Duration::from_secs(7 * 24 * 60 * 60),
            retry_owner: Duration::from_secs(60),
            retry_invite: Duration::from_secs(30),
            invite_owner_for: Duration::from_secs(10 * 60),
            decline_after: Duration::from_secs(2),
            members_at_most: 50,
            pending_events_max: 100,
            ask_abroad_for: Duration::from_secs(15),
        }
    }
}
