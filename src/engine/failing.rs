//! How long an item has been failing.

use std::time::Duration;

use crate::clock::Timestamp;

/// How much later than its pause an item may be tried again. If the item waited for something else
/// in between, a failure after that counts as a new one.
const SLACK: Duration = Duration::from_secs(30);

/// How long an item has been failing.
#[derive(Debug)]
pub(super) struct Failing {
    /// The number of the item.
    pub number: u64,
    /// The failures that the homeserver has answered with, unless an outage came after them: for
    /// each time limit on its own, of which an item meets a handful. If an error used up the time
    /// of another, a short wait after a long one would have none left.
    since: Vec<FailingSince>,
    /// When a proxy answered for the first time that no homeserver is behind it.
    pub outage_since: Option<Timestamp>,
}

/// The failures of an item that have one time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FailingSince {
    limit: Duration,
    /// When the first of them came.
    first: Timestamp,
    /// When the last of them came.
    last: Timestamp,
}

impl Failing {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            since: Vec::new(),
            outage_since: None,
        }
    }

    /// Returns when the item began to fail with errors of this time limit.
    pub(super) fn since(&self, limit: Duration) -> Option<Timestamp> {
        let mut all = self.since.iter();
        all.find(|it| it.limit == limit).map(|it| it.first)
    }

    /// Notes a failure with this time limit, of an item that pauses for at most `pause` between two
    /// attempts. Returns since when it fails like this.
    ///
    /// The time starts anew if the item has got further in the meantime: it failed with a longer
    /// limit, and for longer than the pause. So two hiccups of the homeserver, hours apart, do not
    /// give up a message that waits for its reader. The time of the longest limit never starts
    /// anew, so an item ends however its errors take turns.
    pub(super) fn note(&mut self, limit: Duration, pause: Duration, now: Timestamp) -> Timestamp {
        let longer = self.since.iter().filter(|it| it.limit > limit);
        let got_further = longer.map(|it| it.last).max();
        let known = self.since.iter_mut().find(|it| it.limit == limit);
        let Some(known) = known else {
            self.since.push(FailingSince {
                limit,
                first: now,
                last: now,
            });
            return now;
        };
        if got_further.is_some_and(|at| at > known.last) && now.since(known.last) > pause + SLACK {
            known.first = now;
        }
        known.last = now;
        known.first
    }

    /// Forgets all failures but those of a proxy.
    pub(super) fn clear(&mut self) {
        self.since.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_secs(10 * 60);
    const LONG: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    #[test]
    fn time_runs_from_the_first_of_failures_that_follow_each_other() {
        let mut failing = Failing::new(1);
        assert_eq!(failing.since(SHORT), None);
        for n in 0..20 {
            assert_eq!(failing.note(SHORT, MINUTE, at(n * 60)), at(0));
        }
        // An attempt that takes an hour is no pause.
        assert_eq!(failing.note(SHORT, MINUTE, at(5000)), at(0));
        assert_eq!(failing.since(SHORT), Some(at(0)));
    }

    #[test]
    fn a_hiccup_long_after_another_starts_the_time_anew() {
        let mut failing = Failing::new(1);
        assert_eq!(failing.note(SHORT, MINUTE, at(0)), at(0));
        assert_eq!(failing.note(LONG, MINUTE, at(60)), at(60));
        assert_eq!(failing.note(LONG, MINUTE, at(120)), at(60));
        assert_eq!(failing.note(SHORT, MINUTE, at(10_000)), at(10_000));
        assert_eq!(failing.note(SHORT, MINUTE, at(10_060)), at(10_000));
        // What it waits for all the while is given its time only once.
        assert_eq!(failing.note(LONG, MINUTE, at(20_000)), at(60));
    }

    #[test]
    fn failures_that_take_turns_are_not_far_apart() {
        let mut failing = Failing::new(1);
        failing.note(SHORT, MINUTE, at(0));
        failing.note(LONG, MINUTE, at(45));
        assert_eq!(failing.note(SHORT, MINUTE, at(90)), at(0));
        failing.note(LONG, MINUTE, at(150));
        assert_eq!(failing.note(SHORT, MINUTE, at(181)), at(181));
    }

    #[test]
    fn an_item_ends_however_its_errors_take_turns() {
        let mut failing = Failing::new(1);
        let mut now = Timestamp(0);
        loop {
            now = now + 100 * SECOND;
            failing.note(SHORT, MINUTE, now);
            now = now + 100 * SECOND;
            if now.since(failing.note(LONG, MINUTE, now)) > LONG {
                return;
            }
            assert!(now < Timestamp(0) + 2 * LONG, "it goes on");
        }
    }
}
