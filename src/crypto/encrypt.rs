//! Encryption of events, for devices that their owners have signed.

use std::{collections::HashSet, panic::AssertUnwindSafe, sync::atomic::Ordering, time::Duration};

use futures_util::FutureExt;
use matrix_sdk_crypto::{
    CollectStrategy, EncryptionSettings,
    olm::{Curve25519PublicKey, OutboundGroupSession},
};
use ruma::{
    OwnedRoomId, OwnedUserId, UserId,
    events::{AnyMessageLikeEventContent, room::history_visibility::HistoryVisibility},
    serde::Raw,
};
use serde_json::value::RawValue;

use super::{
    CryptoError, EncryptError, Machines,
    device_lists::SignedDevices,
    loading::Pinned,
    slot::{InUse, KeyShare, KnownRecipients, RefusedShare, ShareRefusal},
};
use crate::clock::Timestamp;

/// The room and the recipients of an encrypted event.
#[derive(Clone, Debug)]
pub struct EncryptTo {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Everyone who is to read it: the joined members, and the invited ones if the room lets them
    /// read. The sender need not be listed.
    pub recipients: Vec<OwnedUserId>,
    /// The room's rotation period in milliseconds, if it sets one.
    pub rotation_ms: Option<u64>,
    /// The room's rotation period in messages, if it sets one.
    pub rotation_msgs: Option<u64>,
}

/// How long a device without one-time keys is not asked for one again: as long as the library waits
/// after its first try.
const NO_SESSION_FOR: Duration = Duration::from_secs(15);
const HOUR: Duration = Duration::from_secs(3600);
/// Maximum number of times a room key is shared for one message. The second time finds no recipient
/// left, unless the machine was unloaded in between.
const SHARE_ROUNDS_MAX: usize = 4;

impl EncryptTo {
    /// Returns the room's own settings within limits: a room that rotates with every message would
    /// make us send keys to everybody each time, and one that never does would undo forward
    /// secrecy.
    fn settings(&self) -> EncryptionSettings {
        let period = self
            .rotation_ms
            .map_or(7 * 24 * HOUR, Duration::from_millis);
        EncryptionSettings {
            rotation_period: period.clamp(HOUR, 7 * 24 * HOUR),
            rotation_period_msgs: self.rotation_msgs.unwrap_or(100).clamp(50, 100),
            // People who are invited later must not get our keys.
            history_visibility: HistoryVisibility::Invited,
            sharing_strategy: CollectStrategy::IdentityBasedStrategy,
            ..Default::default()
        }
    }
}

impl Machines {
    /// Encrypts an event's content. Returns the content of the `m.room.encrypted` event to send.
    ///
    /// First, sends the room's key to the recipients who do not have it. If one of the recipients
    /// could not read the message, sends nothing, and the error names that person.
    ///
    /// Usually everyone has the key and nothing has changed since. Then no device list is read and
    /// nothing is written; the crypto store makes sure that no crash lets us use a message index
    /// twice.
    pub async fn encrypt(
        &self,
        user: &UserId,
        to: &EncryptTo,
        event_type: &str,
        content: &RawValue,
    ) -> Result<Box<RawValue>, EncryptError> {
        let ghost = self.pin(user)?;
        let room_lock = ghost.slot.room_lock(&to.room_id);
        let mut shares = room_lock.lock().await;
        let mut recipients = to.recipients.clone();
        recipients.retain(|recipient| recipient != user);
        recipients.sort();
        recipients.dedup();

        let within = self.0.settings.devices_fresh_for;
        let machine = ghost.machine().await?;
        let still = shares
            .last
            .as_ref()
            .is_some_and(|last| self.is_still_shared(&machine, to, &recipients, last));
        if still
            && let Some(encrypted) = encrypt_with_active(&machine, to, event_type, content).await?
        {
            return Ok(encrypted);
        }
        drop(machine);
        // Read before the devices, so that a change from here on is noticed next time.
        let received_count = ghost.slot.received_count.load(Ordering::Relaxed);
        let unanswered = self
            .update_device_lists(&ghost, &recipients, within)
            .await?;
        check_counts(&ghost, &recipients)?;
        let known = self.known_recipients(&ghost, &recipients, &unanswered, received_count);
        let now = self.0.settings.clock.now();
        if let Some(refused) = &shares.refused
            && known.as_ref() == Some(&refused.known)
            && refused.until.is_none_or(|until| now < until)
        {
            return Err(refused.error());
        }
        let reached = self.reach(&ghost, &recipients, &unanswered).await;
        if let Err(error) = reached {
            shares.refused = known.and_then(|known| RefusedShare::of(&error, known, now));
            return Err(error);
        }
        shares.last = None;
        let machine = self.share_key(&ghost, to, &recipients).await?;
        let encrypted = encrypt_with_machine(&machine, to, event_type, content).await?;
        let session = machine.store.active_outbound_session(&to.room_id);
        let known = known.filter(|known| known.unanswered.is_empty());
        shares.last = session.zip(known).map(|(session, known)| KeyShare {
            session: session.session_id().to_owned(),
            recipients,
            devices: known.devices,
            received_count,
        });
        Ok(encrypted)
    }

    /// Returns what is known of recipients; `None` if a list has become outdated since it was
    /// queried.
    fn known_recipients(
        &self,
        ghost: &Pinned,
        recipients: &[OwnedUserId],
        unanswered: &HashSet<OwnedUserId>,
        received_count: u64,
    ) -> Option<KnownRecipients> {
        let mut answered = recipients.to_vec();
        answered.retain(|user| !unanswered.contains(user));
        let within = self.0.settings.devices_fresh_for;
        let devices = self.device_list_snapshots(&ghost.slot, &answered, within)?;
        Some(KnownRecipients {
            recipients: recipients.to_vec(),
            unanswered: unanswered.clone(),
            devices,
            received_count,
        })
    }

    /// Begins sessions with the recipients' signed devices where there are none. Fails if a recipient
    /// is left without.
    async fn reach(
        &self,
        ghost: &Pinned,
        recipients: &[OwnedUserId],
        unanswered: &HashSet<OwnedUserId>,
    ) -> Result<(), EncryptError> {
        let signed = signed_devices(ghost, recipients, unanswered).await?;
        self.claim_sessions(ghost, &signed).await?;
        check_sessions(ghost, &signed).await
    }

    /// Returns whether sharing the key again would change nothing.
    fn is_still_shared(
        &self,
        ghost: &InUse,
        to: &EncryptTo,
        recipients: &[OwnedUserId],
        shared: &KeyShare,
    ) -> bool {
        let usable = |session: OutboundGroupSession| {
            session.session_id() == shared.session
                && session.shared()
                && !session.expired()
                && !session.invalidated()
        };
        shared.recipients == recipients
            && shared.received_count == ghost.slot.received_count.load(Ordering::Relaxed)
            && self
                .device_list_snapshots(&ghost.slot, recipients, self.0.settings.devices_fresh_for)
                .is_some_and(|devices| devices == shared.devices)
            && ghost
                .store
                .active_outbound_session(&to.room_id)
                .is_some_and(usable)
    }

    /// Sends the room's key to every recipient without it. Returns the machine that has no
    /// recipient left, to encrypt with.
    ///
    /// During a long sending the session may expire, or the machine be unloaded, so this repeats
    /// until there is nothing to send.
    async fn share_key(
        &self,
        ghost: &Pinned,
        to: &EncryptTo,
        recipients: &[OwnedUserId],
    ) -> Result<InUse, CryptoError> {
        for _ in 0..SHARE_ROUNDS_MAX {
            let machine = ghost.machine().await?;
            let users = recipients.iter().map(|user| &**user);
            let requests = {
                let _one_at_a_time = ghost.slot.olm.lock().await;
                let sharing = machine
                    .machine
                    .share_room_key(&to.room_id, users, to.settings());
                sharing.await?
            };
            if requests.is_empty() {
                return Ok(machine);
            }
            drop(machine);
            self.0.store.flush().await?;
            for request in requests {
                self.send_to_devices(ghost, &request).await?;
            }
        }
        Err(CryptoError::Busy {
            user: ghost.user().to_owned(),
        })
    }
}

impl RefusedShare {
    /// Returns what to remember of a refusal; `None` if it does not last.
    fn of(error: &EncryptError, known: KnownRecipients, now: Timestamp) -> Option<Self> {
        let (refusal, users) = match error {
            EncryptError::NoSignedDevice { users } => (ShareRefusal::NoSignedDevice, users),
            EncryptError::KeysUnknown { users } => (ShareRefusal::KeysUnknown, users),
            EncryptError::NoSession { users } => (ShareRefusal::NoSession, users),
            EncryptError::TooManyDevices { .. } | EncryptError::Crypto(_) => return None,
        };
        Some(Self {
            refusal,
            users: users.clone(),
            known,
            // Nobody tells us of new one-time keys.
            until: (refusal == ShareRefusal::NoSession).then_some(now + NO_SESSION_FOR),
        })
    }

    fn error(&self) -> EncryptError {
        let users = self.users.clone();
        match self.refusal {
            ShareRefusal::NoSignedDevice => EncryptError::NoSignedDevice { users },
            ShareRefusal::KeysUnknown => EncryptError::KeysUnknown { users },
            ShareRefusal::NoSession => EncryptError::NoSession { users },
        }
    }
}

/// Checks that no recipient has too many devices.
fn check_counts(ghost: &Pinned, recipients: &[OwnedUserId]) -> Result<(), EncryptError> {
    let lists = &ghost.slot.device_lists;
    let crowded = recipients.iter().filter(|user| lists.is_crowded(user));
    let users: Vec<_> = crowded.cloned().collect();
    if users.is_empty() {
        Ok(())
    } else {
        Err(EncryptError::TooManyDevices { users })
    }
}

/// Encrypts with the active session, which every recipient has. Returns `None` if there is no
/// active session any longer.
async fn encrypt_with_active(
    ghost: &InUse,
    to: &EncryptTo,
    event_type: &str,
    content: &RawValue,
) -> Result<Option<Box<RawValue>>, EncryptError> {
    let content = Raw::<AnyMessageLikeEventContent>::from_json(content.to_owned());
    let encrypting = ghost
        .store
        .encrypt_with_active(&to.room_id, event_type, &content);
    // The library panics at content that is no object.
    let encrypted = AssertUnwindSafe(encrypting).catch_unwind().await;
    let encrypted = encrypted.map_err(|_| CryptoError::Olm("it cannot be encrypted".to_owned()))?;
    Ok(encrypted.map(Raw::into_json))
}

async fn encrypt_with_machine(
    ghost: &InUse,
    to: &EncryptTo,
    event_type: &str,
    content: &RawValue,
) -> Result<Box<RawValue>, EncryptError> {
    let content = Raw::<AnyMessageLikeEventContent>::from_json(content.to_owned());
    let encrypting = ghost
        .machine
        .encrypt_room_event_raw(&to.room_id, event_type, &content);
    // The library panics if the session expires at this moment. It checks that before it touches
    // the session, so nothing is left half done.
    let encrypted = AssertUnwindSafe(encrypting)
        .catch_unwind()
        .await
        .map_err(|_| CryptoError::Olm("the session expired just now".to_owned()))?
        .map_err(|error| CryptoError::Olm(error.to_string()))?;
    Ok(encrypted.content.into_json())
}

/// Returns the signed devices of all recipients, and fails if a recipient has none. Checking costs
/// a signature for each device, so it is done once for a message.
pub(super) async fn signed_devices(
    ghost: &Pinned,
    recipients: &[OwnedUserId],
    unanswered: &HashSet<OwnedUserId>,
) -> Result<SignedDevices, EncryptError> {
    let ghost = ghost.machine().await?;
    let (mut signed, mut without) = (SignedDevices::new(), Vec::new());
    for user in recipients {
        let devices = ghost.machine.get_user_devices(user, None).await?;
        let mut own = devices
            .devices()
            .filter(|device| device.is_cross_signed_by_owner())
            .peekable();
        if own.peek().is_none() {
            without.push(user.clone());
        }
        let keys = own
            .filter_map(|device| Some((device.device_id().to_owned(), device.curve25519_key()?)));
        signed.insert(user.clone(), keys.collect());
    }
    let unknown: Vec<_> = without
        .iter()
        .filter(|user| unanswered.contains(*user))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        return Err(EncryptError::KeysUnknown { users: unknown });
    }
    if !without.is_empty() {
        return Err(EncryptError::NoSignedDevice { users: without });
    }
    Ok(signed)
}

/// Checks that there is a session with at least one signed device of each recipient.
async fn check_sessions(ghost: &Pinned, signed: &SignedDevices) -> Result<(), EncryptError> {
    let ghost = ghost.machine().await?;
    let mut without = Vec::new();
    for (user, devices) in signed {
        if !has_session(&ghost, devices.values())? {
            without.push(user.clone());
        }
    }
    without.sort();
    if without.is_empty() {
        Ok(())
    } else {
        Err(EncryptError::NoSession { users: without })
    }
}

fn has_session<'a>(
    ghost: &InUse,
    devices: impl Iterator<Item = &'a Curve25519PublicKey>,
) -> Result<bool, CryptoError> {
    for key in devices {
        if ghost.store.has_session_with(*key)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_may_set_its_rotation_only_within_limits() {
        let room_id = ruma::owned_room_id!("!r:x");
        let to = |rotation_ms, rotation_msgs| EncryptTo {
            room_id: room_id.clone(),
            recipients: Vec::new(),
            rotation_ms,
            rotation_msgs,
        };
        for (asked, got) in [
            ((None, None), (7 * 24 * HOUR, 100)),
            ((Some(1), Some(1)), (HOUR, 50)),
            ((Some(u64::MAX), Some(u64::MAX)), (7 * 24 * HOUR, 100)),
            ((Some(86_400_000), Some(70)), (24 * HOUR, 70)),
        ] {
            let settings = to(asked.0, asked.1).settings();
            assert_eq!(
                (settings.rotation_period, settings.rotation_period_msgs),
                got
            );
        }
    }
}
