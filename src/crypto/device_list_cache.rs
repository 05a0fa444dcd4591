//! Snapshots of people's device lists, and the log of changes that outdates them.
//!
//! The homeserver reports a change of a person's devices once for all ghosts. Marking ten thousand
//! machines would take seconds, so one log holds a number per person that rises with each change,
//! and a snapshot is outdated when its number is not the current one. A list that was not queried
//! for a while counts as outdated as well.

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

/// The changes of people's devices, counted for all ghosts together.
#[derive(Default)]
pub(super) struct DeviceListChangeLog(Mutex<ChangeNumbers>);

#[derive(Default)]
struct ChangeNumbers {
    newest: u64,
    /// Minimum change number of a person.
    floor: u64,
    of: HashMap<OwnedUserId, u64>,
}

impl DeviceListChangeLog {
    /// Maximum number of people with their own number; beyond that everyone counts as changed.
    const CHANGES_MAX: usize = 50_000;

    pub(super) fn note(&self, users: &[OwnedUserId]) {
        let mut changes = lock(&self.0);
        for user in users {
            changes.newest += 1;
            let newest = changes.newest;
            if changes.of.len() >= Self::CHANGES_MAX {
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

/// The device lists that one ghost last queried.
#[derive(Default)]
pub(super) struct DeviceListCache {
    snapshots: Mutex<Snapshots>,
    answers: AtomicU64,
}

#[derive(Default)]
struct Snapshots {
    of: HashMap<OwnedUserId, DeviceListSnapshot>,
    /// The number of people at which old snapshots are forgotten.
    sweep_at: usize,
}

/// A device list, with the time and the change number of its query.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct DeviceListSnapshot {
    number: u64,
    at: Timestamp,
    /// The number of the answer, which tells two answers of the same moment apart.
    answer: u64,
    /// Whether the person had too many devices.
    is_crowded: bool,
}

impl DeviceListSnapshot {
    pub(super) fn is_fresh(self, number: u64, now: Timestamp, within: Duration) -> bool {
        self.number == number && now.since(self.at) < within
    }
}

impl DeviceListCache {
    /// Maximum number of people in the cache.
    const CACHE_PEOPLE_MAX: usize = 10_000;
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

    /// Returns whether a person's devices were queried within a time.
    pub(super) fn was_queried(&self, user: &UserId, now: Timestamp, within: Duration) -> bool {
        self.snapshot(user)
            .is_some_and(|snapshot| now.since(snapshot.at) < within)
    }

    /// Returns whether a person had too many devices at the last query.
    pub(super) fn is_crowded(&self, user: &UserId) -> bool {
        self.snapshot(user)
            .is_some_and(|snapshot| snapshot.is_crowded)
    }

    /// Records an answer. Snapshots older than `kept_for` may be forgotten.
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
            if snapshots.of.len() >= Self::CACHE_PEOPLE_MAX {
                snapshots.of.clear();
            }
            snapshots.sweep_at = (snapshots.of.len() * 2).min(Self::CACHE_PEOPLE_MAX);
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

    /// Forgets all snapshots.
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
        let users: Vec<OwnedUserId> = (0..DeviceListChangeLog::CHANGES_MAX + 10)
            .map(|n| OwnedUserId::try_from(format!("@u{n}:x")).unwrap())
            .collect();
        changes.note(&users);
        assert!(lock(&changes.0).of.len() <= DeviceListChangeLog::CHANGES_MAX);
        assert!(changes.number(user_id!("@never:x")) > before);
    }
}
