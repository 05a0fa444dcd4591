//! Limits and how much of them is used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The things that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// New conversations that a person started.
    RequestsOfSender,
    /// New conversations that the people of another homeserver started.
    RequestsOfServer,
    /// Invites to names that nobody holds, of everybody together.
    Unclaimed,
    /// Handles that a person claimed.
    Claims,
    /// Handles that the people of another homeserver claimed.
    ClaimsOfServer,
    /// Chats that a person started with the bot.
    BotInvitesOfSender,
    /// Chats that the people of another homeserver started with the bot.
    BotInvitesOfServer,
    /// Notices to a person, or to the people of a homeserver, that they start too many chats with
    /// the bot.
    BotRefusals,
    /// Notices to a person that a ghost has no capitals in its name.
    Misspelt,
    /// Notices to an owner about look-alikes of a handle.
    LookalikeNotices,
    /// Commands that a person typed.
    Commands,
    /// Files with what is kept about a person that they were sent.
    DataExports,
}

impl Counted {
    /// Returns the name under which it is stored.
    pub(super) fn name(self) -> &'static str {
        match self {
            Counted::RequestsOfSender => "requests_of_sender",
            Counted::RequestsOfServer => "requests_of_server",
            Counted::Unclaimed => "unclaimed",
            Counted::Claims => "claims",
            Counted::ClaimsOfServer => "claims_of_server",
            Counted::BotInvitesOfSender => "bot_invites_of_sender",
            Counted::BotInvitesOfServer => "bot_invites_of_server",
            Counted::BotRefusals => "bot_refusals",
            Counted::Misspelt => "misspelt",
            Counted::LookalikeNotices => "lookalike_notices",
            Counted::Commands => "commands",
            Counted::DataExports => "data_exports",
        }
    }
}

/// A limit of `most` within any `window`, approximately: see [`Usage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The maximum number.
    pub most: u32,
    /// The time over which it holds.
    pub window: Duration,
}

/// How much of a limit is used: a sliding window of two counters, one for the current window and
/// one for the window before, which is weighted by the part that still overlaps. They replace a
/// list of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    started: Timestamp,
    count: u32,
    before: u32,
}

impl Usage {
    /// Counts one attempt if it is within the limit. Returns whether it is.
    ///
    /// Attempts beyond the limit do not count. So somebody who keeps trying gets through again when
    /// the window has moved on, and a flood writes nothing.
    pub fn attempt(self, limit: Limit, now: Timestamp) -> (Usage, bool) {
        let mut usage = self.moved_to(limit, now);
        let allowed = usage.used(limit, now) < u64::from(limit.most);
        if !allowed {
            return (self, false);
        }
        usage.count = usage.count.saturating_add(1);
        (usage, true)
    }

    /// Returns what counts if windows do not slide: each begins with the first attempt after the one
    /// before, of which nothing remains.
    pub fn within_window(self, limit: Limit, now: Timestamp) -> Usage {
        match now.since(self.started) < limit.window {
            true => Usage { before: 0, ..self },
            false => Usage::default(),
        }
    }

    /// Returns whether an attempt made now would be within the limit.
    pub fn allows(self, limit: Limit, now: Timestamp) -> bool {
        self.moved_to(limit, now).used(limit, now) < u64::from(limit.most)
    }

    /// Returns how much of the limit is used.
    pub fn used_at(self, limit: Limit, now: Timestamp) -> u64 {
        self.moved_to(limit, now).used(limit, now)
    }

    /// Returns the time from which this record no longer matters.
    pub fn expires(self, window: Duration) -> Timestamp {
        self.started + window + window
    }

    fn moved_to(self, limit: Limit, now: Timestamp) -> Usage {
        let elapsed = now.since(self.started);
        if elapsed < limit.window {
            self
        } else if elapsed < limit.window * 2 {
            Usage {
                started: self.started + limit.window,
                count: 0,
                before: self.count,
            }
        } else {
            Usage {
                started: now,
                count: 0,
                before: 0,
            }
        }
    }

    fn used(self, limit: Limit, now: Timestamp) -> u64 {
        let window = limit.window.as_millis().max(1);
        let left = window.saturating_sub(now.since(self.started).as_millis());
        // Rounded up: an attempt that partly overlaps counts.
        let before = (u128::from(self.before) * left).div_ceil(window);
        u64::from(self.count).saturating_add(u64::try_from(before).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Limit = Limit {
        most: 3,
        window: Duration::from_millis(100),
    };

    fn attempts(times: &[u64]) -> Vec<bool> {
        let mut usage = Usage::default();
        let mut allowed = Vec::new();
        for time in times {
            let (next, ok) = usage.attempt(LIMIT, Timestamp(*time));
            usage = next;
            allowed.push(ok);
        }
        allowed
    }

    #[test]
    fn three_are_allowed_and_the_fourth_is_not() {
        assert_eq!(
            attempts(&[1000, 1001, 1002, 1003]),
            [true, true, true, false]
        );
    }

    #[test]
    fn a_new_window_does_not_forget_the_one_before_at_once() {
        assert_eq!(
            attempts(&[1090, 1091, 1092, 1191]),
            [true, true, true, false]
        );
        assert_eq!(
            attempts(&[1000, 1001, 1002, 1101, 1140, 1141]),
            [true, true, true, false, true, false]
        );
        assert_eq!(
            attempts(&[1000, 1001, 1002, 1201]),
            [true, true, true, true]
        );
    }

    #[test]
    fn somebody_who_keeps_trying_gets_through_again() {
        let times: Vec<u64> = (1000..1300).collect();
        let allowed = attempts(&times);
        assert!(allowed[200..].iter().any(|ok| *ok));
        assert!(allowed.iter().filter(|ok| **ok).count() <= 9);
    }

    #[test]
    fn a_limit_of_nothing_allows_nothing() {
        let none = Limit {
            most: 0,
            window: Duration::from_millis(100),
        };
        assert!(!Usage::default().attempt(none, Timestamp(5)).1);
    }

    #[test]
    fn a_clock_that_steps_back_changes_nothing() {
        assert_eq!(attempts(&[1000, 1001, 1002, 10]), [true, true, true, false]);
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_twice_the_limit(mut times in prop::collection::vec(0u64..2000, 1..200)) {
            times.sort_unstable();
            let allowed = attempts(&times);
            for (i, start) in times.iter().enumerate() {
                let within = times[i..].iter().zip(&allowed[i..]).filter(|(t, ok)| **ok && **t < start + 100).count();
                prop_assert!(within <= 6, "{within} at {start}");
            }
        }

        #[test]
        fn asking_whether_is_the_same_as_trying(times in prop::collection::vec(0u64..2000, 1..50)) {
            let mut usage = Usage::default();
            for time in times {
                let (next, ok) = usage.attempt(LIMIT, Timestamp(time));
                prop_assert_eq!(usage.allows(LIMIT, Timestamp(time)), ok);
                usage = next;
            }
        }
    }
}
