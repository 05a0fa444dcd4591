//! Whether transactions are accepted and rooms are worked on, for the watchdog.
//!
//! A single room that takes long proves nothing: it may wait for another server, or for its turn
//! behind rooms that do, and that server decides for how long. What is noticed here is that *no* room
//! gets anything done although at least one is at work. Each request to the homeserver has a time
//! limit, so a server that never answers does not look like that.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{engine::Engine, matrix::longest_transfer};

/// How long it may take to accept a part of a transaction. Synapse gives up after 60 s.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(2 * 60);

/// How many requests to the homeserver, each as long as it may be, the work on one effect may take.
const REQUESTS_IN_A_ROW: u32 = 15;

/// Minimum time that all rooms together have to get something done, however short a request may be:
/// work also waits for what has limits of its own, as the reading of a history.
const ROOMS_WITHIN_MIN: Duration = Duration::from_secs(15 * 60);

/// What is being done, and when something was last got done.
#[derive(Debug, Default)]
pub(super) struct WorkProgress(Mutex<WorkInProgress>);

#[derive(Debug, Default)]
struct WorkInProgress {
    /// When the service began to accept each part of a transaction that is not accepted yet.
    accepting: BTreeMap<u64, Instant>,
    /// The number of the next one.
    next: u64,
    /// How many rooms are at work.
    rooms_at_work: usize,
    /// When a room last got something done, or began while none was at work.
    last_done: Option<Instant>,
}

/// What makes no progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// A transaction has not been accepted for so long.
    Transaction(Duration),
    /// No room has got anything done for so long, although some are at work.
    Rooms(Duration),
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, since) = match self {
            Self::Transaction(since) => ("a transaction has not been accepted for", since),
            Self::Rooms(since) => ("no room has got anything done for", since),
        };
        write!(f, "{what} {} s", since.as_secs())
    }
}

/// A part of a transaction that is being accepted, until it is dropped.
#[derive(Debug)]
pub(super) struct Accepting<'a> {
    progress: &'a WorkProgress,
    number: u64,
}

/// A room that is at work, until it is dropped.
#[derive(Debug)]
pub(super) struct AtWork<'a>(&'a WorkProgress);

impl WorkProgress {
    fn work(&self) -> MutexGuard<'_, WorkInProgress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a part of a transaction is being accepted.
    pub(super) fn accepts(&self) -> Accepting<'_> {
        let mut work = self.work();
        let number = work.next;
        work.next += 1;
        work.accepting.insert(number, Instant::now());
        Accepting {
            progress: self,
            number,
        }
    }

    /// Notes that a room is at work.
    pub(super) fn works(&self) -> AtWork<'_> {
        self.work().begin(Instant::now());
        AtWork(self)
    }

    /// Notes that a room has got something done.
    pub(super) fn note_done(&self) {
        self.work().last_done = Some(Instant::now());
    }

    /// Returns what makes no progress at a time, if anything does not. `rooms_within` is how long all
    /// rooms together may take to get something done.
    pub(super) fn stall(&self, now: Instant, rooms_within: Duration) -> Option<Stall> {
        self.work().stall(now, rooms_within)
    }
}

impl WorkInProgress {
    fn begin(&mut self, now: Instant) {
        if self.rooms_at_work == 0 {
            self.last_done = Some(now);
        }
        self.rooms_at_work += 1;
    }

    fn end(&mut self, now: Instant) {
        self.rooms_at_work = self.rooms_at_work.saturating_sub(1);
        self.last_done = Some(now);
    }

    fn stall(&self, now: Instant, rooms_within: Duration) -> Option<Stall> {
        let oldest = self.accepting.values().min();
        let since = oldest.map(|began| now.saturating_duration_since(*began));
        if let Some(since) = since.filter(|since| *since > ACCEPTED_WITHIN) {
            return Some(Stall::Transaction(since));
        }
        let since = self.last_done.filter(|_| self.rooms_at_work > 0);
        let since = since.map(|done| now.saturating_duration_since(done));
        since
            .filter(|since| *since > rooms_within)
            .map(Stall::Rooms)
    }
}

/// Returns how long all rooms together may take to get something done: as long as one effect may,
/// with the largest file that is passed on, where each request may take this long.
pub(super) fn rooms_within(request: Duration, file: Duration) -> Duration {
    request
        .saturating_mul(REQUESTS_IN_A_ROW)
        .max(ROOMS_WITHIN_MIN)
        .saturating_add(file)
}

impl Engine {
    /// Returns once each lock that all work needs was free for a moment, and hangs if one of them is
    /// held for good. Fails if a transaction is not accepted, or no room gets anything done. A single
    /// room that takes long does not count: another server can hold it up.
    pub async fn prove_progress(&self) -> Result<(), Stall> {
        drop(self.0.inbox_lock.lock().await);
        drop(self.directory().begin().await);
        drop(self.0.decisions.lock());
        drop(self.tasks());
        let largest_file = longest_transfer(self.settings().conversations.media_bytes_max);
        let request = self.homeserver().request_timeout();
        let within = rooms_within(request, largest_file);
        let stall = self.0.progress.stall(Instant::now(), within);
        stall.map_or(Ok(()), Err)
    }
}

impl Drop for Accepting<'_> {
    fn drop(&mut self) {
        self.progress.work().accepting.remove(&self.number);
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.work().end(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use assert_matches::assert_matches;

    use super::*;
    use crate::{
        matrix::Transaction,
        testing::{self, TestEngine},
    };

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_transaction_that_hangs_is_a_stall_and_others_do_not_hide_it() {
        let TestEngine { engine, .. } = testing::engine().build().await;
        let held = engine.0.held_rooms.lock().await;
        let accepting = tokio::spawn({
            let engine = engine.clone();
            async move { engine.accept_transaction(Transaction::default()).await }
        });
        let progress = &engine.0.progress;
        while progress.work().accepting.is_empty() {
            tokio::task::yield_now().await;
        }
        drop(progress.accepts());
        assert_eq!(engine.prove_progress().await, Ok(()));
        let later = Instant::now() + ACCEPTED_WITHIN;
        assert_matches!(progress.stall(later, MINUTE), Some(Stall::Transaction(_)));
        drop(held);
        accepting.await.unwrap().unwrap();
        assert_eq!(progress.stall(later, MINUTE), None);
    }

    #[test]
    fn rooms_stall_when_none_of_those_at_work_gets_anything_done() {
        let mut work = WorkInProgress::default();
        let mut now = Instant::now();
        // Nothing to do is no stall.
        assert_eq!(work.stall(now + 60 * MINUTE, MINUTE), None);
        // One waits for another server; another one works.
        work.begin(now);
        for _ in 0..10 {
            now += MINUTE;
            assert_eq!(work.stall(now, MINUTE), None);
            work.begin(now);
            work.end(now);
        }
        assert_eq!(work.stall(now + MINUTE, MINUTE), None);
        let stall = Some(Stall::Rooms(2 * MINUTE));
        assert_eq!(work.stall(now + 2 * MINUTE, MINUTE), stall);
        work.last_done = Some(now + MINUTE);
        assert_eq!(work.stall(now + 2 * MINUTE, MINUTE), None);
        work.end(now + 2 * MINUTE);
        now += 60 * MINUTE;
        assert_eq!(work.stall(now, MINUTE), None);
        // The time in which nothing was to be done does not count.
        work.begin(now);
        assert_eq!(work.stall(now + MINUTE, MINUTE), None);
    }

    #[test]
    fn what_stalls_is_said_in_words() {
        let transaction = Stall::Transaction(Duration::from_millis(130_900));
        assert_eq!(
            transaction.to_string(),
            "a transaction has not been accepted for 130 s"
        );
        let rooms = Stall::Rooms(Duration::from_secs(1_800));
        assert_eq!(
            rooms.to_string(),
            "no room has got anything done for 1800 s"
        );
        let file = Duration::from_secs(800);
        assert_eq!(rooms_within(2 * MINUTE, file), Duration::from_secs(2_600));
        let short = Duration::from_secs(5);
        assert_eq!(rooms_within(short, file), Duration::from_secs(1_700));
    }
}
