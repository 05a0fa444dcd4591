//! To-device messages for a ghost, and the number of its one-time keys that are left.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use matrix_sdk_common::deserialized_responses::{AlgorithmInfo, ProcessedToDeviceEvent};
use matrix_sdk_crypto::{
    DecryptionSettings, Device, EncryptionSyncChanges, TrustRequirement,
    store::{CryptoStore, types::Changes},
};
use ruma::{
    OneTimeKeyAlgorithm, OwnedRoomId, OwnedUserId, UInt, UserId,
    api::client::sync::sync_events::DeviceLists, serde::Raw,
};
use serde_json::value::RawValue;

use super::{
    CryptoError, Machines, account,
    record::{GhostKind, GhostRecord},
    slot::InUse,
    store::while_receiving,
};
use crate::metrics::catalogue::FALLBACK_KEYS;

/// The contents of a transaction or a sync for one ghost's device.
#[derive(Debug, Default)]
pub struct IncomingCrypto {
    /// New to-device messages, in order.
    pub to_device: Vec<Box<RawValue>>,
    /// The number of one-time keys on the homeserver, if it reported one. A missing algorithm has
    /// none left.
    pub otk_counts: Option<BTreeMap<OneTimeKeyAlgorithm, UInt>>,
    /// The algorithms with an unused fallback key on the homeserver, if it reported them.
    pub fallback_types: Option<Vec<OneTimeKeyAlgorithm>>,
    /// People whose devices changed.
    pub device_lists_changed: Vec<OwnedUserId>,
}

/// A room key that was received: events that wait for it can be decrypted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRoomKey {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The session.
    pub session_id: String,
}

/// Minimum number of one-time keys on the homeserver; below it new ones are made.
const KEYS_MIN: u64 = 25;
/// The number of one-time keys on the homeserver after new ones are made.
const KEYS_FULL: u64 = 50;
/// Maximum number of keys made on demand before unused ones are discarded.
const MADE_ON_DEMAND_MAX: u32 = 400;

impl Machines {
    /// Receives what came for a ghost, and makes the requests that follow.
    pub async fn receive_and_respond(
        &self,
        user: &UserId,
        incoming: IncomingCrypto,
    ) -> Result<Vec<NewRoomKey>, CryptoError> {
        let (keys, follows) = self.receive(user, incoming).await?;
        if follows {
            self.respond(user).await;
        }
        Ok(keys)
    }

    /// Receives what came for a ghost. Nothing is durable before the store's next flush, and no
    /// request is made.
    ///
    /// Returns the keys of expected rooms (others are not kept), and whether [`Machines::respond`]
    /// may have something to do. A ghost without a machine receives nothing.
    pub async fn receive(
        &self,
        user: &UserId,
        incoming: IncomingCrypto,
    ) -> Result<(Vec<NewRoomKey>, bool), CryptoError> {
        self.mark_device_lists_outdated_for_all(&incoming.device_lists_changed);
        let nothing = || Ok((Vec::new(), false));
        let Some(record) = self.known_record(user)? else {
            return nothing();
        };
        if !record.is_ready(GhostKind::Machine) {
            return nothing();
        }
        self.note_fallback_use(user, &incoming)?;
        let to_device: Vec<_> = incoming
            .to_device
            .into_iter()
            .filter_map(accept_for_machine)
            .collect();
        let left = incoming.otk_counts.as_ref().map(|counts| {
            counts
                .get(&OneTimeKeyAlgorithm::SignedCurve25519)
                .map_or(0, |count| (*count).into())
        });
        let top_up = left.filter(|left| self.may_top_up(&record, *left));
        let slot = self.existing_slot(user);
        let due = slot.is_some_and(|slot| slot.requests_due.is_due());
        // A round without work costs a machine more than decrypting ten messages.
        if to_device.is_empty() && top_up.is_none() && !due {
            let now = self.0.settings.clock.now();
            let renews = record.is_fallback_due(now) || record.is_former_fallback_due(now);
            return Ok((Vec::new(), renews));
        }
        if let Some(left) = top_up {
            self.note_top_up(user, left).await?;
        }
        let ghost = self.ready(user).await?;
        let keys = self.pass_to_machine(&ghost, to_device, top_up).await;
        ghost.slot.received_count.fetch_add(1, Ordering::Relaxed);
        Ok((keys?, true))
    }

    /// Makes the requests that follow from what a ghost has received. They may take as long as the
    /// slowest server of the people who wrote to it.
    pub async fn respond(&self, user: &UserId) {
        let slot = self.slot(user);
        // The waiting round will send this as well.
        if slot.requests_asked.swap(true, Ordering::AcqRel) {
            return;
        }
        let outcome = match self.pin(user) {
            Ok(ghost) => {
                let outcome = match self.process_outgoing_requests(&ghost).await {
                    Ok(()) => self.renew_fallback(user).await,
                    failed => failed,
                };
                ghost.slot.received_count.fetch_add(1, Ordering::Relaxed);
                outcome
            }
            Err(error) => {
                slot.requests_asked.store(false, Ordering::Release);
                Err(error)
            }
        };
        if let Err(error) = outcome {
            // The messages are received; only the requests wait for the next round.
            tracing::warn!(%user, %error, "a ghost's outgoing requests have to wait");
        }
    }

    async fn pass_to_machine(
        &self,
        ghost: &InUse,
        to_device_events: Vec<Raw<ruma::events::AnyToDeviceEvent>>,
        top_up: Option<u64>,
    ) -> Result<Vec<NewRoomKey>, CryptoError> {
        // A machine that is given a count tops the keys up to 50; without one it makes none.
        let counts: BTreeMap<_, _> = top_up
            .and_then(UInt::new)
            .map(|left| (OneTimeKeyAlgorithm::SignedCurve25519, left))
            .into_iter()
            .collect();
        let changes = EncryptionSyncChanges {
            to_device_events,
            changed_devices: &DeviceLists::new(),
            one_time_keys_counts: &counts,
            unused_fallback_keys: None,
            next_batch_token: None,
        };
        // Keys are accepted from any device. Whether the device is trusted is decided when an event
        // is decrypted.
        let settings = DecryptionSettings {
            sender_device_trust_requirement: TrustRequirement::Untrusted,
        };
        let one_at_a_time = ghost.slot.olm.lock().await;
        let receiving = ghost.machine.receive_sync_changes(changes, &settings);
        let (outcome, mut reception) = while_receiving(receiving).await;
        if !reception.sessions.is_empty() {
            let changes = Changes {
                sessions: std::mem::take(&mut reception.sessions),
                ..Changes::default()
            };
            ghost.store.save_changes(changes).await?;
        }
        drop(one_at_a_time);
        let (received, infos) = outcome?;
        forget_lists_without_senders(ghost, &received).await?;
        let user = ghost.machine.user_id();
        let mut keys = Vec::new();
        for info in infos {
            // The store has refused the others.
            if !reception.is_known(&info) && self.expects(&ghost.slot, user, &info.room_id)? {
                keys.push(NewRoomKey {
                    room_id: info.room_id,
                    session_id: info.session_id,
                });
            }
        }
        Ok(keys)
    }

    /// Records that the fallback key was used: it is replaced after an hour, or when the ghost
    /// forgets a room.
    fn note_fallback_use(
        &self,
        user: &UserId,
        incoming: &IncomingCrypto,
    ) -> Result<(), CryptoError> {
        let used = incoming
            .fallback_types
            .as_ref()
            .is_some_and(|unused| !unused.contains(&OneTimeKeyAlgorithm::SignedCurve25519));
        if used {
            let now = self.0.settings.clock.now();
            let mut is_news = false;
            self.update_record(user, |record| {
                is_news = record.fallback_used_at.is_none();
                record.fallback_used_at.get_or_insert(now);
                is_news
            })?;
            FALLBACK_KEYS.add([], u64::from(is_news));
        }
        Ok(())
    }

    fn may_top_up(&self, record: &GhostRecord, left: u64) -> bool {
        let since = self.0.settings.clock.now().since(record.made_on_demand_at);
        left < KEYS_MIN && since >= self.0.settings.top_up_every
    }

    /// Records that keys are made. Discards the oldest private keys when there are so many that
    /// someone must be claiming them without using them: the machine would load and save them with
    /// every message.
    async fn note_top_up(&self, user: &UserId, left: u64) -> Result<(), CryptoError> {
        let now = self.0.settings.clock.now();
        let made = u32::try_from(KEYS_FULL.saturating_sub(left)).unwrap_or_default();
        let mut hoard = false;
        self.update_record(user, |record| {
            record.made_on_demand_at = now;
            record.made_on_demand = record.made_on_demand.saturating_add(made);
            hoard = record.made_on_demand > MADE_ON_DEMAND_MAX;
            if hoard {
                record.made_on_demand = 0;
            }
            true
        })?;
        if hoard {
            let slot = self.slot(user);
            let _unloaded = self.unload(&slot).await;
            account::drop_old_one_time_keys(&self.0.stores.ghost(user)?).await?;
        }
        Ok(())
    }
}

/// Forgets the device lists of people who have sent something from a device that is not in their
/// list: the news of the change got lost, and what is encrypted next is for that device as well.
async fn forget_lists_without_senders(
    ghost: &InUse,
    received: &[ProcessedToDeviceEvent],
) -> Result<(), CryptoError> {
    let lists = &ghost.slot.device_lists;
    for event in received {
        let ProcessedToDeviceEvent::Decrypted {
            encryption_info, ..
        } = event
        else {
            continue;
        };
        let AlgorithmInfo::OlmV1Curve25519AesSha2 {
            curve25519_public_key_base64: key,
        } = &encryption_info.algorithm_info
        else {
            continue;
        };
        let sender = &encryption_info.sender;
        // A list with too many devices is not queried again until a change is reported.
        if lists.snapshot(sender).is_none() || lists.is_crowded(sender) {
            continue;
        }
        let devices = ghost.machine.get_user_devices(sender, None).await?;
        let key_of = |device: Device| device.curve25519_key().map(|key| key.to_base64());
        if !devices
            .devices()
            .filter_map(key_of)
            .any(|known| known == *key)
        {
            lists.forget(std::slice::from_ref(sender));
        }
    }
    Ok(())
}

/// Returns a message if the ghost has use for it. Requests for keys, secrets and verifications from
/// strangers are not answered, so the machine need not store them. Nor does it store that a key is
/// withheld: anybody can say so, unencrypted and of any session, and nothing depends on it.
fn accept_for_machine(message: Box<RawValue>) -> Option<Raw<ruma::events::AnyToDeviceEvent>> {
    let message = Raw::<ruma::events::AnyToDeviceEvent>::from_json(message);
    let kind: String = message.get_field("type").ok()??;
    (kind == "m.room.encrypted").then_some(message)
}
