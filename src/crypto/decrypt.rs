//! Reading what people write, and trusting only what comes from a device that its owner signed.

use std::time::Duration;

use matrix_sdk_common::deserialized_responses::{DeviceLinkProblem, VerificationLevel};
use matrix_sdk_crypto::{
    DecryptionSettings, MegolmError, TrustRequirement,
    types::events::room::encrypted::EncryptedEvent,
    vodozemac::megolm::{DecryptionError, MegolmMessage},
};
use ruma::{EventId, OwnedEventId, OwnedUserId, RoomId, UserId, serde::Raw};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    CryptoError, DecryptError, Distrust, Machines,
    machines::lock,
    record::{Heard, HeardPart, HeardWhole, part_of},
    slots::Pinned,
};
use crate::store::{Batch, Table, prefix};

/// A decrypted event.
#[derive(Debug)]
pub struct Decrypted {
    /// Its type, such as `m.room.message`.
    pub event_type: String,
    /// Its content.
    pub content: Box<RawValue>,
    /// Who sent it, from a device that they have signed.
    pub sender: OwnedUserId,
    /// The session it was encrypted with.
    pub session_id: String,
    /// Its place in the session.
    pub message_index: u32,
}

/// How old our knowledge of a sender's devices may be when we turn their message down for it.
const FRESH_ENOUGH: Duration = Duration::from_secs(5);

/// When we look again at the devices of a sender from another homeserver. Synapse first writes
/// down the devices of somebody whom it has just met and a moment later the keys that sign them;
/// whoever asks in between is told of devices that nobody signed.
const LOOK_AGAIN: [Duration; 4] = [
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

#[derive(Deserialize)]
struct Plain {
    #[serde(rename = "type")]
    event_type: String,
    content: Box<RawValue>,
}

impl Machines {
    /// Decrypts an `m.room.encrypted` event of a room for one of its members.
    ///
    /// The same event may be decrypted again; the same ciphertext in another event is a replay and
    /// refused. That it was heard is durable with the store's next flush.
    pub async fn decrypt(
        &self,
        user: &UserId,
        room: &RoomId,
        event: &RawValue,
    ) -> Result<Decrypted, DecryptError> {
        let mut batch = Batch::new();
        let (decrypted, id) = self.open(user, room, event).await?;
        let _one_at_a_time = lock(&self.0.hearing);
        self.note_heard(user, room, &decrypted, &id, &mut batch)?;
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
        let (decrypted, id) = self.open(user, room, event).await?;
        self.note_heard(user, room, &decrypted, &id, batch)?;
        Ok(decrypted)
    }

    async fn open(
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
        let plain = match decrypt_once(&ghost, room, &raw).await? {
            Err(MegolmError::SenderIdentityNotTrusted(_)) => {
                let sender = std::slice::from_ref(&envelope.sender);
                let within = self.0.settings.devices_fresh_for;
                // Not even counted again until we hear that they have changed.
                if ghost.slot.fresh.is_crowded(&envelope.sender)
                    && self.seen(&ghost.slot, sender, within).is_some()
                {
                    return Err(DecryptError::Untrusted(Distrust::TooManyDevices));
                }
                // Final only once we have looked at the sender's devices as they are now.
                let unanswered = self.freshen(&ghost, sender, FRESH_ENOUGH).await?;
                if unanswered.contains(&envelope.sender) {
                    return Err(DecryptError::SenderUnknown);
                }
                if ghost.slot.fresh.is_crowded(&envelope.sender) {
                    return Err(DecryptError::Untrusted(Distrust::TooManyDevices));
                }
                match decrypt_once(&ghost, room, &raw).await? {
                    Err(error)
                        if may_be_signed_yet(&error)
                            && envelope.sender.server_name() != user.server_name() =>
                    {
                        self.look_again(&ghost, room, &raw, sender, error).await?
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

    /// Decrypts once the sender's devices turn out to be signed, or not at all.
    async fn look_again(
        &self,
        ghost: &Pinned,
        room: &RoomId,
        event: &Raw<EncryptedEvent>,
        sender: &[OwnedUserId],
        mut error: MegolmError,
    ) -> Result<Result<Plain, MegolmError>, DecryptError> {
        for pause in LOOK_AGAIN {
            crate::clock::sleep(pause).await;
            self.freshen(ghost, sender, Duration::ZERO).await?;
            match decrypt_once(ghost, room, event).await? {
                Err(again) if may_be_signed_yet(&again) => error = again,
                other => return Ok(other),
            }
        }
        Ok(Err(error))
    }

    fn note_heard(
        &self,
        user: &UserId,
        room: &RoomId,
        decrypted: &Decrypted,
        event: &EventId,
        batch: &mut Batch,
    ) -> Result<(), DecryptError> {
        let replayed = |first| DecryptError::Replayed { first };
        let (session, index) = (decrypted.session_id.clone(), decrypted.message_index);
        let key = (user.to_owned(), room.to_owned(), session, part_of(index));
        let mut part = match self.0.store.get::<Heard>(&key)? {
            Some(part) => part,
            None => self.begin_part(&key, index, batch)?,
        };
        if part.note(index, event).map_err(replayed)? {
            batch.put::<Heard>(&key, &part)?;
        }
        Ok(())
    }

    /// The first message of a part of a session: looks at the other parts.
    fn begin_part(
        &self,
        key: &<Heard as Table>::Key,
        index: u32,
        batch: &mut Batch,
    ) -> Result<HeardPart, DecryptError> {
        let (user, room, session, _) = key;
        let whole = (user.clone(), room.clone(), session.clone());
        let of_session = [prefix(user), prefix(room), prefix(session)].concat();
        let store = &self.0.store;
        let others = store.scan::<Heard>(&of_session, None, HeardPart::KEPT)?;
        let others: Vec<_> = others
            .into_iter()
            .map(|((.., number), part)| (number, part))
            .collect();
        let begun = HeardPart::begin(index, &others, store.get::<HeardWhole>(&whole)?)
            .map_err(|first| DecryptError::Replayed { first })?;
        if let Some(number) = begun.forget {
            let (user, room, session) = whole;
            batch.delete::<Heard>(&(user, room, session, number));
        }
        Ok(begun.part)
    }
}

/// Decrypts with what is known at this moment.
async fn decrypt_once(
    ghost: &Pinned,
    room: &RoomId,
    event: &Raw<EncryptedEvent>,
) -> Result<Result<Plain, MegolmError>, CryptoError> {
    let settings = DecryptionSettings {
        sender_device_trust_requirement: TrustRequirement::CrossSigned,
    };
    let ghost = ghost.machine().await?;
    let decrypting = ghost.machine.decrypt_room_event(event, room, &settings);
    Ok(decrypting
        .await
        .and_then(|decrypted| Ok(decrypted.event.deserialize_as_unchecked()?)))
}

/// Whether the next look at the sender's devices can find the message trustworthy after all.
fn may_be_signed_yet(error: &MegolmError) -> bool {
    matches!(
        error,
        MegolmError::SenderIdentityNotTrusted(
            VerificationLevel::UnsignedDevice
                | VerificationLevel::None(DeviceLinkProblem::MissingDevice)
        )
    )
}

fn classify(error: MegolmError, session_id: &str) -> DecryptError {
    let session_id = session_id.to_owned();
    match error {
        MegolmError::MissingRoomKey(withheld) => {
            let withheld = withheld.map(|code| code.as_str().to_owned());
            DecryptError::NoKey {
                session_id,
                withheld,
            }
        }
        MegolmError::Decryption(DecryptionError::UnknownMessageIndex(..)) => {
            DecryptError::KeyBeginsLater { session_id }
        }
        MegolmError::SenderIdentityNotTrusted(level) => DecryptError::Untrusted(match level {
            VerificationLevel::UnsignedDevice => Distrust::UnsignedDevice,
            VerificationLevel::MismatchedSender => Distrust::OtherSender,
            VerificationLevel::VerificationViolation | VerificationLevel::UnverifiedIdentity => {
                Distrust::ChangedIdentity
            }
            VerificationLevel::None(
                DeviceLinkProblem::MissingDevice | DeviceLinkProblem::InsecureSource,
            ) => Distrust::UnknownDevice,
        }),
        MegolmError::MismatchedIdentityKeys(_) => DecryptError::Untrusted(Distrust::OtherSender),
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
