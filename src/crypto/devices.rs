//! Whose devices we know well enough.
//!
//! The homeserver tells all ghosts at once that somebody's devices changed. Marking ten thousand
//! machines would cost seconds, so one table holds a number per person that rises with each change,
//! and a ghost asks again when the number it saw is not the present one. A machine that was loaded
//! anew, or a person not asked about for a while, counts as unknown.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use matrix_sdk_crypto::types::requests::KeysQueryRequest;
use ruma::{OwnedServerName, OwnedUserId, UserId, api::client::keys::get_keys};

use super::{
    CryptoError, Machines,
    machines::{InUse, Slot, lock},
};
use crate::clock::Timestamp;

/// Counts changes of people's devices, over all ghosts.
#[derive(Default)]
pub(super) struct Changed(Mutex<Changes>);

#[derive(Default)]
struct Changes {
    newest: u64,
    /// Nobody's number is below this one.
    floor: u64,
    of: HashMap<OwnedUserId, u64>,
}

impl Changed {
    /// So many people are told apart; beyond that everybody counts as changed.
    const KEPT: usize = 50_000;

    fn note(&self, users: &[OwnedUserId]) {
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

    fn note_everybody(&self) {
        let mut changes = lock(&self.0);
        changes.newest += 1;
        changes.of.clear();
        changes.floor = changes.newest;
    }

    fn number(&self, user: &UserId) -> u64 {
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
pub(super) struct Fresh {
    seen: Mutex<HashMap<OwnedUserId, Seen>>,
    answers: AtomicU64,
}

/// When somebody's devices were last asked for, and what their number was then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    number: u64,
    at: Timestamp,
    /// Tells two answers of the same moment apart.
    answer: u64,
}

impl Seen {
    fn is_fresh(self, number: u64, now: Timestamp, within: Duration) -> bool {
        self.number == number && now.since(self.at) < within
    }
}

impl Fresh {
    const KEPT: usize = 10_000;

    fn is_fresh(&self, user: &UserId, number: u64, now: Timestamp, within: Duration) -> bool {
        self.seen(user)
            .is_some_and(|seen| seen.is_fresh(number, now, within))
    }

    fn seen(&self, user: &UserId) -> Option<Seen> {
        lock(&self.seen).get(user).copied()
    }

    fn saw(&self, user: OwnedUserId, number: u64, at: Timestamp) {
        let answer = self.answers.fetch_add(1, Ordering::Relaxed);
        let mut seen = lock(&self.seen);
        if seen.len() >= Self::KEPT {
            seen.clear();
        }
        seen.insert(user, Seen { number, at, answer });
    }

    fn forget(&self, users: &[OwnedUserId]) {
        let mut seen = lock(&self.seen);
        for user in users {
            seen.remove(user);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        lock(&self.seen).clear();
    }
}

impl Machines {
    /// The devices of these people are asked for again before this ghost next encrypts for them.
    /// To be called for everybody who joins, or is invited to, a room of the ghost: the homeserver
    /// reports no change of devices then.
    pub async fn outdate(&self, user: &UserId, others: &[OwnedUserId]) {
        self.slot(user).fresh.forget(others);
    }

    /// The devices of these people changed, for whichever ghost it concerns.
    pub fn outdate_for_all(&self, others: &[OwnedUserId]) {
        self.0.changed.note(others);
    }

    /// The devices of anybody may have changed, for every ghost.
    pub fn outdate_everybody(&self) {
        self.0.changed.note_everybody();
    }

    /// What the ghost has seen of these people's devices, `None` if it has to ask for some.
    pub(super) fn seen(
        &self,
        slot: &Slot,
        users: &[OwnedUserId],
        within: Duration,
    ) -> Option<Vec<Seen>> {
        let now = self.0.settings.clock.now();
        let fresh = |user: &OwnedUserId| {
            let seen = slot.fresh.seen(user)?;
            let number = self.0.changed.number(user);
            seen.is_fresh(number, now, within).then_some(seen)
        };
        users.iter().map(fresh).collect()
    }

    /// Makes sure that the machine knows the present devices of these people.
    ///
    /// Returns the servers that did not answer; what is known of their people may be old.
    pub(super) async fn freshen(
        &self,
        ghost: &InUse,
        users: &[OwnedUserId],
        within: Duration,
    ) -> Result<HashSet<OwnedServerName>, CryptoError> {
        let now = self.0.settings.clock.now();
        let stale: Vec<(&OwnedUserId, u64)> = users
            .iter()
            .map(|user| (user, self.0.changed.number(user)))
            .filter(|(user, number)| !ghost.slot.fresh.is_fresh(user, *number, now, within))
            .collect();
        if stale.is_empty() {
            return Ok(HashSet::new());
        }
        let (id, request) = ghost
            .machine
            .query_keys_for_users(stale.iter().map(|(user, _)| &***user));
        let answer = self.0.hs.send(ghost.actor(), query(request)).await?;
        ghost.machine.mark_request_as_sent(&id, &answer).await?;
        let failed: HashSet<OwnedServerName> = answer
            .failures
            .keys()
            .filter_map(|server| server.as_str().try_into().ok())
            .collect();
        for (user, number) in stale {
            if !failed.contains(user.server_name()) {
                ghost.slot.fresh.saw(user.clone(), number, now);
            }
        }
        Ok(failed)
    }
}

/// The library's request as ruma's.
pub(super) fn query(request: KeysQueryRequest) -> get_keys::v3::Request {
    let mut query = get_keys::v3::Request::new();
    query.timeout = request.timeout;
    query.device_keys = request.device_keys;
    query
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::user_id;

    #[test]
    fn a_change_makes_stale_and_so_does_time() {
        let (changed, fresh) = (Changed::default(), Fresh::default());
        let alice = user_id!("@alice:x");
        let hour = Duration::from_secs(3600);
        let number = changed.number(alice);
        assert!(!fresh.is_fresh(alice, number, Timestamp(0), hour));
        fresh.saw(alice.to_owned(), number, Timestamp(0));
        assert!(fresh.is_fresh(alice, number, Timestamp(1), hour));
        assert!(!fresh.is_fresh(alice, number, Timestamp(3_600_000), hour));
        changed.note(&[alice.to_owned()]);
        assert!(!fresh.is_fresh(alice, changed.number(alice), Timestamp(1), hour));
    }

    #[test]
    fn the_table_of_changes_is_bounded_and_errs_on_the_safe_side() {
        let changed = Changed::default();
        let before = changed.number(user_id!("@never:x"));
        let users: Vec<OwnedUserId> = (0..Changed::KEPT + 10)
            .map(|n| OwnedUserId::try_from(format!("@u{n}:x")).unwrap())
            .collect();
        changed.note(&users);
        assert!(lock(&changed.0).of.len() <= Changed::KEPT);
        assert!(changed.number(user_id!("@never:x")) > before);
    }
}
