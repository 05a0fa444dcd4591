//! Whose devices we know well enough.
//!
//! The homeserver tells all ghosts at once that somebody's devices changed. Marking ten thousand
//! machines would cost seconds, so one table holds a number per person that rises with each change,
//! and a ghost asks again when the number it saw is not the present one. A machine that was loaded
//! anew, or a person not asked about for a while, counts as unknown.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId, TransactionId, UserId,
    api::client::keys::get_keys,
    encryption::{CrossSigningKey, DeviceKeys},
    serde::Raw,
};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    CryptoError, Machines,
    machines::lock,
    parts::{Parts, is_spoiled_by_somebody},
    slots::{Pinned, Slot},
};
use crate::{clock::Timestamp, matrix::MatrixError};

/// Maximum number of signed devices of a person to whom something is encrypted. Each costs a session
/// on disk and some milliseconds, and whoever has more is hardly one person with clients.
pub const MAX_SIGNED_DEVICES: usize = 100;
/// Maximum number of devices of a person that are looked at, signed or not.
const MAX_DEVICES: usize = 1000;

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
    seen: Mutex<SeenPeople>,
    answers: AtomicU64,
}

#[derive(Default)]
struct SeenPeople {
    of: HashMap<OwnedUserId, Seen>,
    /// The number of people at which those seen long ago are forgotten.
    sweep_at: usize,
}

/// When somebody's devices were last asked for, and what their number was then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    number: u64,
    at: Timestamp,
    /// Tells two answers of the same moment apart.
    answer: u64,
    /// Whether there were too many of them.
    is_crowded: bool,
}

impl Seen {
    fn is_fresh(self, number: u64, now: Timestamp, within: Duration) -> bool {
        self.number == number && now.since(self.at) < within
    }
}

impl Fresh {
    /// Maximum number of people.
    const KEPT: usize = 10_000;
    /// Minimum number of people before any is forgotten.
    const SWEPT: usize = 256;

    fn is_fresh(&self, user: &UserId, number: u64, now: Timestamp, within: Duration) -> bool {
        self.seen(user)
            .is_some_and(|seen| seen.is_fresh(number, now, within))
    }

    fn seen(&self, user: &UserId) -> Option<Seen> {
        lock(&self.seen).of.get(user).copied()
    }

    /// Returns whether somebody had too many devices when they were last asked for.
    pub(super) fn is_crowded(&self, user: &UserId) -> bool {
        self.seen(user).is_some_and(|seen| seen.is_crowded)
    }

    /// Notes an answer. Those older than `kept_for` may be forgotten.
    fn saw(
        &self,
        user: OwnedUserId,
        number: u64,
        at: Timestamp,
        kept_for: Duration,
        is_crowded: bool,
    ) {
        let answer = self.answers.fetch_add(1, Ordering::Relaxed);
        let mut seen = lock(&self.seen);
        if seen.of.len() >= seen.sweep_at.max(Self::SWEPT) {
            seen.of.retain(|_, seen| at.since(seen.at) < kept_for);
            if seen.of.len() >= Self::KEPT {
                seen.of.clear();
            }
            seen.sweep_at = (seen.of.len() * 2).min(Self::KEPT);
        }
        let now = Seen {
            number,
            at,
            answer,
            is_crowded,
        };
        seen.of.insert(user, now);
    }

    fn forget(&self, users: &[OwnedUserId]) {
        let mut seen = lock(&self.seen);
        for user in users {
            seen.of.remove(user);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        lock(&self.seen).of.clear();
    }
}

impl Machines {
    /// The devices of these people are asked for again before this ghost next encrypts for them.
    /// To be called for everybody who joins, or is invited to, a room of the ghost: the homeserver
    /// reports no change of devices then.
    pub async fn outdate(&self, user: &UserId, others: &[OwnedUserId]) {
        // A ghost without a slot knows nobody's devices well enough.
        if let Some(slot) = self.existing_slot(user) {
            slot.fresh.forget(others);
        }
    }

    /// The devices of these people changed, for whichever ghost it concerns. Both transactions and
    /// syncs say so, and neither says all of it.
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

    /// Makes sure that the ghost knows the present devices of these people. Those who have too many
    /// count as having none; [`Fresh::is_crowded`] says who they are.
    ///
    /// Returns those whose keys are not known, since their server did not answer or made no sense;
    /// what is known of them may be old.
    pub(super) async fn freshen(
        &self,
        ghost: &Pinned,
        users: &[OwnedUserId],
        within: Duration,
    ) -> Result<HashSet<OwnedUserId>, CryptoError> {
        let now = self.0.settings.clock.now();
        let kept_for = self.0.settings.devices_fresh_for;
        let fresh = &ghost.slot.fresh;
        let stale: Vec<(OwnedUserId, u64)> = users
            .iter()
            .map(|user| (user.clone(), self.0.changed.number(user)))
            .filter(|(user, number)| !fresh.is_fresh(user, *number, now, within))
            .collect();
        let mut unknown = HashSet::new();
        let mut parts = Parts::of(stale);
        while let Some(part) = parts.next() {
            let users = part.iter().map(|(user, _)| user.clone());
            let (answered, mut answer) = match self.0.hs.query_keys(ghost.actor(), users).await {
                Ok(answer) => (part, answer),
                Err(error) if is_spoiled_by_somebody(&error) => match parts.halve(part) {
                    None => continue,
                    Some((user, number)) if matches!(error, MatrixError::TooLong { .. }) => {
                        let answer = no_devices_of(&user);
                        self.learn(ghost, &answer).await?;
                        fresh.saw(user, number, now, kept_for, true);
                        continue;
                    }
                    Some((user, _)) => {
                        unknown.insert(user);
                        continue;
                    }
                },
                Err(error) => return Err(error.into()),
            };
            let crowded = take_out_crowded(&mut answer);
            self.learn(ghost, &answer).await?;
            let failed = failed_servers(&answer);
            for (user, number) in answered {
                if failed.contains(user.server_name()) {
                    unknown.insert(user);
                } else {
                    let is_crowded = crowded.contains(&user);
                    fresh.saw(user, number, now, kept_for, is_crowded);
                }
            }
        }
        Ok(unknown)
    }

    /// Hands a machine what the homeserver says of people's keys. Any answer will do, whoever asked
    /// for it: it is not one of those that the machine keeps a list of.
    async fn learn(
        &self,
        ghost: &Pinned,
        answer: &get_keys::v3::Response,
    ) -> Result<(), CryptoError> {
        let machine = ghost.machine().await?;
        let id = TransactionId::new();
        machine.machine.mark_request_as_sent(&id, answer).await?;
        Ok(())
    }
}

fn failed_servers(answer: &get_keys::v3::Response) -> HashSet<OwnedServerName> {
    let servers = answer.failures.keys();
    servers
        .filter_map(|server| server.as_str().try_into().ok())
        .collect()
}

/// Takes the keys of those who have too many devices out of an answer, before a signature is
/// verified or anything is stored: they count as having none. Returns who they are.
fn take_out_crowded(answer: &mut get_keys::v3::Response) -> HashSet<OwnedUserId> {
    let crowded: HashSet<OwnedUserId> = answer
        .device_keys
        .iter()
        .filter(|(user, devices)| {
            devices.len() > MAX_DEVICES
                || devices.len() > MAX_SIGNED_DEVICES
                    && claim_to_be_signed(user, devices, answer.self_signing_keys.get(*user))
                        > MAX_SIGNED_DEVICES
        })
        .map(|(user, _)| user.clone())
        .collect();
    for user in &crowded {
        answer.device_keys.insert(user.clone(), BTreeMap::new());
    }
    crowded
}

/// Returns how many devices carry a signature by this key, be it a right one or not.
fn claim_to_be_signed(
    user: &UserId,
    devices: &BTreeMap<OwnedDeviceId, Raw<DeviceKeys>>,
    by: Option<&Raw<CrossSigningKey>>,
) -> usize {
    #[derive(Deserialize)]
    struct SigningKey {
        keys: BTreeMap<String, IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Signed {
        #[serde(default)]
        signatures: BTreeMap<String, BTreeMap<String, IgnoredAny>>,
    }
    let key = by.and_then(|key| key.deserialize_as_unchecked::<SigningKey>().ok());
    let Some((id, _)) = key.and_then(|key| key.keys.into_iter().next()) else {
        return 0;
    };
    let carries = |keys: &&Raw<DeviceKeys>| {
        let signed = keys.deserialize_as_unchecked::<Signed>();
        signed.is_ok_and(|signed| {
            let own = signed.signatures.get(user.as_str());
            own.is_some_and(|own| own.contains_key(&id))
        })
    };
    devices.values().filter(carries).count()
}

/// The answer of a homeserver that knows no device of somebody.
fn no_devices_of(user: &UserId) -> get_keys::v3::Response {
    let mut answer = get_keys::v3::Response::new();
    answer.device_keys.insert(user.to_owned(), BTreeMap::new());
    answer
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
        fresh.saw(alice.to_owned(), number, Timestamp(0), hour, false);
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
