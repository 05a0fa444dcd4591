//! What is known of people's device lists: by each ghost, and which have changed since.
//!
//! The homeserver tells all ghosts at once that somebody's devices changed. Marking ten thousand
//! machines would cost seconds, so one log holds a number per person that rises with each change,
//! and a ghost asks again when the number it saw is not the present one. A machine that was loaded
//! anew, or a person not asked about for a while, counts as unknown.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ruma::{OwnedUserId, UserId};

use super::locks::lock;
use crate::clock::Timestamp;

/// Counts changes of people's devices, over all ghosts.
#[derive(Default)]
pub(super) struct DeviceListChangeLog(Mutex<ChangeNumbers>);

#[derive(Default)]
struct ChangeNumbers {
    newest: u64,
    /// Nobody's number is below this one.
    floor: u64,
    of: HashMap<OwnedUserId, u64>,
}

impl DeviceListChangeLog {
    /// So many people are told apart; beyond that everybody counts as changed.
    const KEPT: usize = 50_000;

    pub(super) fn note(&self, users: &[OwnedUserId]) {
        let mut changes = lock(&self.0);
        for user in users {
            changes.newest += 1;
            let newest = changes.newest;
            if changes.of.len() >= Self::KEPT {
                changes.of.clear();
                changes.floor = newest;
            }
            changes.of.insert(user.clone(), newest);
        }
    }

    pub(super) fn note_everybody(&self) {
        let mut changes = lock(&self.0);
        changes.newest += 1;
        changes.of.clear();
        changes.floor = changes.newest;
    }

    pub(super) fn number(&self, user: &UserId) -> u64 {
        let changes = lock(&self.0);
        changes
            .of
            .get(user)
            .copied()
            .unwrap_or_default()
            .max(changes.floor)
    }
}

/// What one ghost last saw.
#[derive(Default)]
pub(super) struct DeviceListCache {
    snapshots: Mutex<Snapshots>,
    answers: AtomicU64,
}

#[derive(Default)]
struct Snapshots {
    of: HashMap<OwnedUserId, DeviceListSnapshot>,
    /// The number of people at which those seen long ago are forgotten.
    sweep_at: usize,
}

/// When somebody's devices were last asked for, and what their number was then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct DeviceListSnapshot {
    number: u64,
    at: Timestamp,
    /// Tells two answers of the same moment apart.
    answer: u64,
    /// Whether there were too many of them.
    is_crowded: bool,
}

impl DeviceListSnapshot {
    pub(super) fn is_fresh(self, number: u64, now: Timestamp, within: Duration) -> bool {
        self.number == number && now.since(self.at) < within
    }
}

impl DeviceListCache {
    /// Maximum number of people.
    const KEPT: usize = 10_000;
    /// Minimum number of people before any is forgotten.
    const SWEPT: usize = 256;

    pub(super) fn is_fresh(
        &self,
        user: &UserId,
        number: u64,
        now: Timestamp,
        within: Duration,
    ) -> bool {
        self.snapshot(user)
            .is_some_and(|snapshot| snapshot.is_fresh(number, now, within))
    }

    pub(super) fn snapshot(&self, user: &UserId) -> Option<DeviceListSnapshot> {
        lock(&self.snapshots).of.get(user).copied()
    }

    /// Returns whether somebody had too many devices when they were last asked for.
    pub(super) fn is_crowded(&self, user: &UserId) -> bool {
        self.snapshot(user)
            .is_some_and(|snapshot| snapshot.is_crowded)
    }

    /// Notes an answer. Those older than `kept_for` may be forgotten.
    pub(super) fn record(
        &self,
        user: OwnedUserId,
        number: u64,
        at: Timestamp,
        kept_for: Duration,
        is_crowded: bool,
    ) {
        let answer = self.answers.fetch_add(1, Ordering::Relaxed);
        let mut snapshots = lock(&self.snapshots);
        if snapshots.of.len() >= snapshots.sweep_at.max(Self::SWEPT) {
            snapshots
                .of
                .retain(|_, snapshot| at.since(snapshot.at) < kept_for);
            if snapshots.of.len() >= Self::KEPT {
                snapshots.of.clear();
            }
            snapshots.sweep_at = (snapshots.of.len() * 2).min(Self::KEPT);
        }
        let snapshot = DeviceListSnapshot {
            number,
            at,
            answer,
            is_crowded,
        };
        snapshots.of.insert(user, snapshot);
    }

    pub(super) fn forget(&self, users: &[OwnedUserId]) {
        let mut snapshots = lock(&self.snapshots);
        for user in users {
            snapshots.of.remove(user);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        lock(&self.snapshots).of.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::user_id;

    #[test]
    fn a_change_makes_stale_and_so_does_time() {
        let (changes, cache) = (DeviceListChangeLog::default(), DeviceListCache::default());
        let alice = user_id!("@alice:x");
        let hour = Duration::from_secs(3600);
        let number = changes.number(alice);
        assert!(!cache.is_fresh(alice, number, Timestamp(0), hour));
        cache.record(alice.to_owned(), number, Timestamp(0), hour, false);
        assert!(cache.is_fresh(alice, number, Timestamp(1), hour));
        assert!(!cache.is_fresh(alice, number, Timestamp(3_600_000), hour));
        changes.note(&[alice.to_owned()]);
        assert!(!cache.is_fresh(alice, changes.number(alice), Timestamp(1), hour));
    }

    #[test]
    fn the_table_of_changes_is_bounded_and_errs_on_the_safe_side() {
        let changes = DeviceListChangeLog::default();
        let before = changes.number(user_id!("@never:x"));
        let users: Vec<OwnedUserId> = (0..DeviceListChangeLog::KEPT + 10)
            .map(|n| OwnedUserId::try_from(format!("@u{n}:x")).unwrap())
            .collect();
        changes.note(&users);
        assert!(lock(&changes.0).of.len() <= DeviceListChangeLog::KEPT);
        assert!(changes.number(user_id!("@never:x")) > before);
    }
}
