//! Queries of people's device lists, for ghosts that need them.
//!
//! A ghost queries a list when it needs it and its snapshot (`device_list_cache`) is outdated.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use matrix_sdk_crypto::vodozemac::Curve25519PublicKey;
use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId, TransactionId, UserId,
    api::client::keys::get_keys,
    encryption::{CrossSigningKey, DeviceKeys},
    serde::Raw,
};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    CryptoError, Machines,
    device_list_cache::DeviceListSnapshot,
    loading::Pinned,
    silent_servers::Silent,
    slot::Slot,
    split_request::{SplitRequest, may_be_spoiled_by_one},
};
use crate::{
    clock::Timestamp,
    matrix::{Actor, MatrixError},
};

/// Maximum number of signed devices of a person for whom something is encrypted. Each costs a
/// session on disk and some milliseconds, and an account with more is hardly one person with
/// clients.
pub const SIGNED_DEVICES_MAX: usize = 100;
/// Maximum number of devices of a person, signed or not.
const DEVICES_MAX: usize = 1000;

/// A person whose device list is outdated, and the number of its last change.
type Outdated = (OwnedUserId, u64);

/// The devices that people have signed, with their keys.
pub(super) type SignedDevices = HashMap<OwnedUserId, HashMap<OwnedDeviceId, Curve25519PublicKey>>;

impl Machines {
    /// Marks the device lists of these people as outdated for one ghost, so that it queries them
    /// before it next encrypts for these people. The caller must do this for everyone who joins, or
    /// is invited to, a room of the ghost: the homeserver reports no change of devices then.
    pub async fn mark_device_lists_outdated(&self, user: &UserId, others: &[OwnedUserId]) {
        // A ghost without a slot has no snapshot of any list.
        if let Some(slot) = self.existing_slot(user) {
            slot.device_lists.forget(others);
        }
    }

    /// Marks the device lists of these people as outdated for every ghost. Both transactions and
    /// syncs report changes, and neither reports all of them.
    pub fn mark_device_lists_outdated_for_all(&self, others: &[OwnedUserId]) {
        self.0.device_list_changes.note(others);
    }

    /// Marks every device list as outdated for every ghost.
    pub fn mark_all_device_lists_outdated(&self) {
        self.0.device_list_changes.note_everybody();
    }

    /// Returns the ghost's snapshots of these people's device lists, or `None` if one of them is
    /// outdated.
    pub(super) fn device_list_snapshots(
        &self,
        slot: &Slot,
        users: &[OwnedUserId],
        within: Duration,
    ) -> Option<Vec<DeviceListSnapshot>> {
        let now = self.0.settings.clock.now();
        let snapshot = |user: &OwnedUserId| {
            let snapshot = slot.device_lists.snapshot(user)?;
            let number = self.0.device_list_changes.number(user);
            snapshot.is_fresh(number, now, within).then_some(snapshot)
        };
        users.iter().map(snapshot).collect()
    }

    /// Queries the device lists of these people that are outdated. People with too many devices
    /// count as having none; `DeviceListCache::is_crowded` tells them apart.
    ///
    /// Returns the people whose keys are unknown, because their server did not answer or its answer
    /// made no sense. Older lists of theirs may still be stored. Those of whom that was so a short
    /// while ago are asked for in the background, and nobody waits for the answer.
    pub(super) async fn update_device_lists(
        &self,
        ghost: &Pinned,
        users: &[OwnedUserId],
        within: Duration,
    ) -> Result<HashSet<OwnedUserId>, CryptoError> {
        let now = self.0.settings.clock.now();
        let cache = &ghost.slot.device_lists;
        let stale = users
            .iter()
            .map(|user| (user.clone(), self.0.device_list_changes.number(user)))
            .filter(|(user, number)| !cache.is_fresh(user, *number, now, within));
        let (mut asked, mut unknown) = (Vec::new(), HashSet::new());
        let mut silent: BTreeMap<Silent, Vec<Outdated>> = BTreeMap::new();
        for (user, number) in stale {
            if let Some(why) = self.0.silent_servers.concerning(&user, now) {
                unknown.insert(user.clone());
                silent.entry(why).or_default().push((user, number));
            } else {
                asked.push((user, number));
            }
        }
        for (silent, people) in silent {
            self.ask_in_background(ghost, silent, people, now);
        }
        let mut parts = SplitRequest::of(asked);
        while let Some(part) = parts.next() {
            let users = part.iter().map(|(user, _)| user.clone());
            match self.0.hs.query_keys(ghost.actor(), users).await {
                Ok(answer) => unknown.extend(self.receive_lists(ghost, part, answer, now).await?),
                Err(error) if may_be_spoiled_by_one(&error) => match parts.halve(part) {
                    None => {}
                    Some((user, number)) if matches!(error, MatrixError::TooLong { .. }) => {
                        let answer = no_devices_of(&user);
                        self.receive_key_query(ghost, &answer).await?;
                        let kept_for = self.0.settings.devices_fresh_for;
                        cache.record(user, number, now, kept_for, true);
                    }
                    Some((user, _)) => {
                        let silent = Silent::Person(user.clone());
                        self.0.silent_servers.note(silent, now);
                        unknown.insert(user);
                    }
                },
                // A server that does not answer is named in the answer, so it is our own homeserver
                // that fails if none comes.
                Err(error) => return Err(error.into()),
            }
        }
        Ok(unknown)
    }

    /// Hands a machine the answer to a query of these people's device lists, and records it. Returns
    /// those whose server did not answer.
    async fn receive_lists(
        &self,
        ghost: &Pinned,
        asked: Vec<Outdated>,
        mut answer: get_keys::v3::Response,
        asked_at: Timestamp,
    ) -> Result<Vec<OwnedUserId>, CryptoError> {
        let crowded = remove_crowded(&mut answer);
        self.receive_key_query(ghost, &answer).await?;
        let failed = failed_servers(&answer);
        let kept_for = self.0.settings.devices_fresh_for;
        let mut unanswered = Vec::new();
        for (user, number) in asked {
            if failed.contains(user.server_name()) {
                let silent = Silent::server_of(&user);
                self.0.silent_servers.note(silent, asked_at);
                unanswered.push(user);
            } else {
                let is_crowded = crowded.contains(&user);
                let cache = &ghost.slot.device_lists;
                cache.record(user, number, asked_at, kept_for, is_crowded);
            }
        }
        Ok(unanswered)
    }

    /// Asks a silent server for the device lists of these people, unless it is being asked already.
    fn ask_in_background(
        &self,
        ghost: &Pinned,
        silent: Silent,
        people: Vec<Outdated>,
        asked_at: Timestamp,
    ) {
        if !self.0.silent_servers.begin_asking(&silent) {
            return;
        }
        // A task that waits for a slow server does not keep the store open.
        let (machines, hs) = (Arc::downgrade(&self.0), self.0.hs.clone());
        let (user, device) = (ghost.user().to_owned(), ghost.device().to_owned());
        tokio::spawn(async move {
            let users: Vec<_> = people.iter().map(|(user, _)| user.clone()).collect();
            let answer = hs.query_keys(Actor::device(&user, &device), users).await;
            if let Some(machines) = machines.upgrade().map(Machines) {
                let heard = machines.receive_late(&user, &silent, people, answer, asked_at);
                if let Err(error) = heard.await {
                    tracing::info!(%user, %error, "a silent server was asked for devices in vain");
                }
                machines.0.silent_servers.end_asking(&silent);
            }
        });
    }

    /// Receives what a silent server answered.
    async fn receive_late(
        &self,
        user: &UserId,
        silent: &Silent,
        people: Vec<Outdated>,
        answer: Result<get_keys::v3::Response, MatrixError>,
        asked_at: Timestamp,
    ) -> Result<(), CryptoError> {
        let servers = &self.0.silent_servers;
        let has_answered = match answer {
            Ok(answer) => {
                let ghost = self.pin(user)?;
                let unanswered = self.receive_lists(&ghost, people, answer, asked_at).await?;
                unanswered.is_empty()
            }
            // The server has answered. Whose keys spoil the answer is found by the next query.
            Err(error) if may_be_spoiled_by_one(&error) => matches!(silent, Silent::Server(_)),
            Err(error) => return Err(error.into()),
        };
        if has_answered {
            servers.note_answer(silent, self.0.settings.clock.now());
        } else {
            servers.note(silent.clone(), asked_at);
        }
        Ok(())
    }

    /// Hands a machine an answer to a key query. The machine keeps no list of these queries, so it
    /// accepts any answer.
    async fn receive_key_query(
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

/// Removes the keys of people with too many devices from an answer, before a signature is verified
/// or anything is stored. Returns these people.
fn remove_crowded(answer: &mut get_keys::v3::Response) -> HashSet<OwnedUserId> {
    let crowded: HashSet<OwnedUserId> = answer
        .device_keys
        .iter()
        .filter(|(user, devices)| {
            devices.len() > DEVICES_MAX
                || devices.len() > SIGNED_DEVICES_MAX
                    && count_claimed_signatures(user, devices, answer.self_signing_keys.get(*user))
                        > SIGNED_DEVICES_MAX
        })
        .map(|(user, _)| user.clone())
        .collect();
    for user in &crowded {
        answer.device_keys.insert(user.clone(), BTreeMap::new());
    }
    crowded
}

/// Returns how many devices carry a signature by this key, valid or not.
fn count_claimed_signatures(
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

/// Returns the answer of a homeserver that knows no device of a person.
fn no_devices_of(user: &UserId) -> get_keys::v3::Response {
    let mut answer = get_keys::v3::Response::new();
    answer.device_keys.insert(user.to_owned(), BTreeMap::new());
    answer
}
