//! Reading and writing as a ghost or the bot, always encrypted.

use ruma::{OwnedEventId, OwnedUserId};
use serde_json::{Value, value::RawValue};

use super::{Engine, EngineError, room::RoomActor};
use crate::{
    crypto::{CryptoError, DecryptError, EncryptError, EncryptTo},
    introduction::{Refusal, RoomView},
    matrix::Actor,
};

impl Engine {
    /// Makes a request on the device of one of our users.
    pub(super) fn device_of(&self, user: &OwnedUserId) -> Result<ruma::OwnedDeviceId, EngineError> {
        self.machines()
            .device_of(user)?
            .ok_or(EngineError::Refused(Refusal::Impossible))
    }
}

impl RoomActor {
    /// Decrypts an event; when its key is missing, fetches what the homeserver still holds for
    /// this ghost and tries once more.
    pub(super) async fn decrypt(
        &self,
        user: &OwnedUserId,
        _event: &OwnedEventId,
        json: &str,
    ) -> Result<(String, Value), EngineError> {
        let raw = RawValue::from_string(json.to_owned())?;
        let machines = self.engine.machines();
        let mut decrypted = machines.decrypt(user, &self.room, &raw).await;
        if let Err(DecryptError::NoKey { .. }) = decrypted {
            // It may have arrived together with the event, and be on its way to the machine.
            self.engine.drain_to_device().await;
            decrypted = machines.decrypt(user, &self.room, &raw).await;
        }
        if let Err(DecryptError::NoKey { .. }) = decrypted
            && self.engine.catch_up(user).await?
        {
            decrypted = machines.decrypt(user, &self.room, &raw).await;
        }
        let decrypted = decrypted?;
        Ok((
            decrypted.event_type,
            serde_json::from_str(decrypted.content.get())?,
        ))
    }

    /// The room as one of our users sees it.
    pub(super) async fn view(&self, user: &OwnedUserId) -> Result<RoomView, EngineError> {
        let device = self.engine.device_of(user)?;
        let actor = Actor::device(user, &device);
        let state = self
            .engine
            .homeserver()
            .room_state(actor, &self.room)
            .await?;
        Ok(RoomView::from_state(state.iter().map(|event| event.json())))
    }

    /// Encrypts for everybody who is joined or invited, and sends. There is no other way to send.
    pub(super) async fn say(
        &self,
        user: &OwnedUserId,
        event_type: &str,
        content: &Value,
        transaction: ruma::OwnedTransactionId,
    ) -> Result<OwnedEventId, EngineError> {
        let view = self.view(user).await?;
        let recipients = view
            .readers()
            .filter(|reader| *reader != user)
            .cloned()
            .collect();
        self.say_to(user, &view, recipients, event_type, content, transaction)
            .await
    }

    /// The same, for these people only.
    pub(super) async fn say_only_to(
        &self,
        user: &OwnedUserId,
        recipients: Vec<OwnedUserId>,
        content: &Value,
        transaction: ruma::OwnedTransactionId,
    ) -> Result<OwnedEventId, EngineError> {
        let view = self.view(user).await?;
        let kind = "m.room.message";
        self.say_to(user, &view, recipients, kind, content, transaction)
            .await
    }

    /// The same, leaving out those who have no device that they have signed.
    pub(super) async fn say_to_who_can_read(
        &self,
        user: &OwnedUserId,
        must_read: Option<&OwnedUserId>,
        content: &Value,
        transaction: ruma::OwnedTransactionId,
    ) -> Result<OwnedEventId, EngineError> {
        let view = self.view(user).await?;
        let mut recipients: Vec<OwnedUserId> = view
            .readers()
            .filter(|reader| *reader != user)
            .cloned()
            .collect();
        let kind = "m.room.message";
        loop {
            let (to, id) = (recipients.clone(), transaction.clone());
            match self.say_to(user, &view, to, kind, content, id).await {
                Err(EngineError::Encrypt(
                    EncryptError::NoSignedDevice { users }
                    | EncryptError::KeysUnknown { users }
                    | EncryptError::NoSession { users },
                )) if !users.is_empty() && must_read.is_none_or(|who| !users.contains(who)) => {
                    recipients.retain(|reader| !users.contains(reader));
                }
                other => return other,
            }
        }
    }

    async fn say_to(
        &self,
        user: &OwnedUserId,
        view: &RoomView,
        recipients: Vec<OwnedUserId>,
        event_type: &str,
        content: &Value,
        transaction: ruma::OwnedTransactionId,
    ) -> Result<OwnedEventId, EngineError> {
        let Some(rotation) = view.encryption else {
            return Err(EngineError::Refused(Refusal::Forbidden));
        };
        let device = self.engine.device_of(user)?;
        let to = EncryptTo {
            room_id: self.room.clone(),
            recipients,
            rotation_ms: u64::try_from(rotation.period.as_millis()).ok(),
            rotation_msgs: Some(rotation.messages),
        };
        let content = serde_json::value::to_raw_value(content)?;
        let encrypted = self
            .engine
            .machines()
            .encrypt(user, &to, event_type, &content)
            .await?;
        let actor = Actor::device(user, &device);
        let homeserver = self.engine.homeserver();
        let kind = "m.room.encrypted";
        Ok(homeserver
            .send_message(actor, &self.room, kind, &encrypted, transaction)
            .await?)
    }
}

/// Errors of machines that mean that a ghost is not ours any more.
pub(super) fn is_foreign(error: &EngineError) -> bool {
    matches!(error, EngineError::Crypto(CryptoError::Foreign { .. }))
}
