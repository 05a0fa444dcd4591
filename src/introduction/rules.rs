//! The durations and bounds of an introduction.

use std::time::Duration;

/// Durations and bounds that the configuration sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long the ghost listens for an opening line after it joined.
    pub wait_for_message: Duration,
    /// How long it stays after inviting the owner and after the last message that it heard.
    pub linger: Duration,
    /// How long it stays after inviting the owner at the most.
    pub linger_at_most: Duration,
    /// How long it waits for an owner who has to join or set up encryption first.
    pub wait_for_owner: Duration,
    /// How long a request waits for its answer.
    pub wait_for_answer: Duration,
    /// After how long an invite is declined, whatever the cause.
    pub decline_after: Duration,
    /// From how many members on a ghost leaves at once.
    pub members_at_most: usize,
    /// How often it looks whether the owner has set up encryption.
    pub retry_owner: Duration,
    /// How many messages it keeps to pass on.
    pub heard_at_most: usize,
    /// How long another server's answer is waited for before the place goes to somebody else.
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
            decline_after: Duration::from_millis(1500),
            members_at_most: 50,
            heard_at_most: 100,
            ask_abroad_for: Duration::from_secs(15),
        }
    }
}
