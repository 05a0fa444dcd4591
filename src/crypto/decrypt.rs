//! Decryption of events, which are trusted only if they come from a device that its owner has
//! signed.

use std::time::Duration;

use matrix_sdk_common::deserialized_responses::{DeviceLinkProblem, VerificationLevel};
use matrix_sdk_crypto::{
    DecryptionSettings, MegolmError, TrustRequirement,
    types::events::room::encrypted::EncryptedEvent,
    vodozemac::megolm::{DecryptionError, MegolmMessage},
};
use ruma::{OwnedEventId, OwnedUserId, RoomId, UserId, serde::Raw};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    CryptoError, DecryptError, Distrust, Machines,
    lenient::{Plain, decrypt_leniently},
    loading::Pinned,
    locks::lock,
};
use crate::store::Batch;

/// A decrypted event.
#[derive(Debug)]
pub struct Decrypted {
    /// Its type, such as `m.room.message`.
    pub event_type: String,
    /// Its content.
    pub content: Box<RawValue>,
    /// The sender, who has signed the sending device.
    pub sender: OwnedUserId,
    /// The session it was encrypted with.
    pub session_id: String,
    /// The message index in the session.
    pub message_index: u32,
}

/// Maximum age of a sender's device list when their message is refused because of it.
const DEVICE_LIST_AGE_MAX: Duration = Duration::from_secs(5);

/// Pauses before further queries of the devices of a sender on another homeserver. Synapse stores
/// the devices of a person new to it first, and the keys that sign them a moment later; a query in
/// between shows unsigned devices.
const QUERY_PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// The clear parts of an encrypted event.
#[derive(Deserialize)]
struct Envelope {
    event_id: OwnedEventId,
    sender: OwnedUserId,
    content: EnvelopeContent,
}

#[derive(Deserialize)]
struct EnvelopeContent {
    session_id: String,
    ciphertext: String,
}

impl Machines {
    /// Decrypts an `m.room.encrypted` event of a room for one of its members.
    ///
    /// An event may be decrypted again; its ciphertext in another event is a replay and refused.
    /// The replay record is durable with the store's next flush.
    pub async fn decrypt(
        &self,
        user: &UserId,
        room: &RoomId,
        event: &RawValue,
    ) -> Result<Decrypted, DecryptError> {
        let mut batch = Batch::new();
        let (decrypted, id) = self.decrypt_event(user, room, event).await?;
        let _one_at_a_time = lock(&self.0.guarding_replays);
        self.guard_against_replay(user, room, &decrypted, &id, &mut batch)?;
        self.0.store.apply(batch)?;
        Ok(decrypted)
    }

    /// Decrypts like [`Machines::decrypt`], but stages the replay record in `batch`. The caller must be
    /// the only one that decrypts this user's events in this room, and must apply `batch` before it
    /// decrypts the next one.
    pub async fn decrypt_with(
        &self,
        user: &UserId,
        room: &RoomId,
        event: &RawValue,
        batch: &mut Batch,
    ) -> Result<Decrypted, DecryptError> {
        let (decrypted, id) = self.decrypt_event(user, room, event).await?;
        self.guard_against_replay(user, room, &decrypted, &id, batch)?;
        Ok(decrypted)
    }

    async fn decrypt_event(
        &self,
        user: &UserId,
        room: &RoomId,
        event: &RawValue,
    ) -> Result<(Decrypted, OwnedEventId), DecryptError> {
        let envelope: Envelope = serde_json::from_str(event.get())
            .map_err(|_| DecryptError::Malformed("it is not an encrypted event"))?;
        let message = MegolmMessage::from_base64(&envelope.content.ciphertext)
            .map_err(|_| DecryptError::Malformed("its ciphertext is not a Megolm message"))?;
        let ghost = self.pin(user)?;
        let raw = Raw::<EncryptedEvent>::from_json(event.to_owned());
        let mut read = decrypt_once(&ghost, room, &raw).await?;
        if let Err(MegolmError::Decryption(DecryptionError::UnknownMessageIndex(..))) = read {
            read = decrypt_with_own_key(&ghost, room, &raw, &envelope).await?;
        }
        let plain = match read {
            Err(MegolmError::SenderIdentityNotTrusted(_)) => {
                let sender = std::slice::from_ref(&envelope.sender);
                let within = self.0.settings.devices_fresh_for;
                // The devices are not counted again until a change is reported.
                if ghost.slot.device_lists.is_crowded(&envelope.sender)
                    && self
                        .device_list_snapshots(&ghost.slot, sender, within)
                        .is_some()
                {
                    return Err(DecryptError::Untrusted(Distrust::TooManyDevices));
                }
                // Final only after a query of the sender's present devices.
                let unanswered = self
                    .update_device_lists(&ghost, sender, DEVICE_LIST_AGE_MAX)
                    .await?;
                if unanswered.contains(&envelope.sender) {
                    return Err(self.sender_unknown(&envelope.sender));
                }
                if ghost.slot.device_lists.is_crowded(&envelope.sender) {
                    return Err(DecryptError::Untrusted(Distrust::TooManyDevices));
                }
                match decrypt_with_own_key(&ghost, room, &raw, &envelope).await? {
                    Err(error)
                        if may_become_trusted(&error)
                            && envelope.sender.server_name() != user.server_name() =>
                    {
                        self.query_and_decrypt_again(&ghost, room, &raw, &envelope, error)
                            .await?
                    }
                    other => other,
                }
            }
            other => other,
        }
        .map_err(|error| classify(error, &envelope.content.session_id))?;
        let session_id = envelope.content.session_id;
        let decrypted = Decrypted {
            event_type: plain.event_type,
            content: plain.content,
            sender: envelope.sender,
            session_id,
            message_index: message.message_index(),
        };
        Ok((decrypted, envelope.event_id))
    }

    fn sender_unknown(&self, sender: &UserId) -> DecryptError {
        let now = self.0.settings.clock.now();
        DecryptError::SenderUnknown {
            server: sender.server_name().to_owned(),
            since: self.0.silent_servers.note_unread(sender, now),
        }
    }

    /// Queries the sender's devices a few more times, and decrypts once they turn out to be signed.
    async fn query_and_decrypt_again(
        &self,
        ghost: &Pinned,
        room: &RoomId,
        event: &Raw<EncryptedEvent>,
        envelope: &Envelope,
        mut error: MegolmError,
    ) -> Result<Result<Plain, MegolmError>, DecryptError> {
        for pause in QUERY_PAUSES {
            crate::clock::sleep(pause).await;
            let sender = std::slice::from_ref(&envelope.sender);
            self.update_device_lists(ghost, sender, Duration::ZERO)
                .await?;
            match decrypt_with_own_key(ghost, room, event, envelope).await? {
                Err(again) if may_become_trusted(&again) => error = again,
                other => return Ok(other),
            }
        }
        Ok(Err(error))
    }
}

/// Decrypts with the keys and devices stored at this moment.
async fn decrypt_once(
    ghost: &Pinned,
    room: &RoomId,
    event: &Raw<EncryptedEvent>,
) -> Result<Result<Plain, MegolmError>, DecryptError> {
    let settings = DecryptionSettings {
        sender_device_trust_requirement: TrustRequirement::CrossSigned,
    };
    let ghost = ghost.machine().await?;
    let decrypting = ghost.machine.decrypt_room_event(event, room, &settings);
    match decrypting.await {
        Ok(decrypted) => Ok(decrypted
            .event
            .deserialize_as_unchecked()
            .map_err(MegolmError::from)),
        Err(MegolmError::JsonError(_)) => decrypt_leniently(&ghost, room, event).await,
        Err(error) => Ok(Err(error)),
    }
}

/// Decrypts with the key that has come from a device of the sender. The one in use may have come from
/// somebody else, who passes the session off as their own or sends an event of it as theirs.
async fn decrypt_with_own_key(
    ghost: &Pinned,
    room: &RoomId,
    event: &Raw<EncryptedEvent>,
    envelope: &Envelope,
) -> Result<Result<Plain, MegolmError>, DecryptError> {
    let store = ghost.machine().await?.store.clone();
    let preferring = store.prefer_session_of(&envelope.sender, room, &envelope.content.session_id);
    preferring.await.map_err(CryptoError::from)?;
    decrypt_once(ghost, room, event).await
}

/// Returns whether another query of the sender's devices may show the device as signed.
fn may_become_trusted(error: &MegolmError) -> bool {
    matches!(
        error,
        MegolmError::SenderIdentityNotTrusted(
            VerificationLevel::UnsignedDevice
                | VerificationLevel::None(DeviceLinkProblem::MissingDevice)
        )
    )
}

/// Returns what is wrong with a sender's device; `None` if the key is not of a device of theirs.
fn distrust(level: &VerificationLevel) -> Option<Distrust> {
    match level {
        VerificationLevel::UnsignedDevice => Some(Distrust::UnsignedDevice),
        VerificationLevel::MismatchedSender => None,
        VerificationLevel::VerificationViolation | VerificationLevel::UnverifiedIdentity => {
            Some(Distrust::ChangedIdentity)
        }
        VerificationLevel::None(
            DeviceLinkProblem::MissingDevice | DeviceLinkProblem::InsecureSource,
        ) => Some(Distrust::UnknownDevice),
    }
}

fn classify(error: MegolmError, session_id: &str) -> DecryptError {
    let session_id = session_id.to_owned();
    match error {
        MegolmError::MissingRoomKey(_) | MegolmError::MismatchedIdentityKeys(_) => {
            DecryptError::NoKey { session_id }
        }
        MegolmError::SenderIdentityNotTrusted(level) => match distrust(&level) {
            Some(distrust) => DecryptError::Untrusted(distrust),
            None => DecryptError::NoKey { session_id },
        },
        MegolmError::Decryption(DecryptionError::UnknownMessageIndex(..)) => {
            DecryptError::KeyBeginsLater { session_id }
        }
        MegolmError::Store(error) => CryptoError::from(error).into(),
        MegolmError::EventError(_) => DecryptError::Malformed("it is not encrypted as we know it"),
        MegolmError::JsonError(_) => DecryptError::Malformed("what is inside is not an event"),
        MegolmError::Decode(_) | MegolmError::Decryption(_) => {
            DecryptError::Malformed("its ciphertext is damaged")
        }
        #[expect(unreachable_patterns, reason = "further variants hide behind features")]
        _ => DecryptError::Malformed("it cannot be decrypted"),
    }
}
