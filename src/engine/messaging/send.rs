//! Writing as a ghost or the bot, always encrypted.

use std::time::Duration;

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::Value;

use crate::{
    crypto::{EncryptError, EncryptTo},
    engine::{EngineError, event::RoomEvent, room::Room},
    introduction::Refusal,
    matrix::RoomState,
};

/// How long a homeserver surely answers a transaction id with the event it has: Synapse for 24
/// hours.
const KNOWS_TRANSACTIONS: Duration = Duration::from_secs(23 * 60 * 60);
/// Maximum number of events that are looked at for one that was sent longer ago, on a page.
const LOOK_BACK: u32 = 100;
/// Maximum number of such pages.
const LOOK_BACK_PAGES: usize = 10;
/// Maximum difference between two clocks.
const CLOCKS: Duration = Duration::from_secs(10 * 60);

impl Room {
    /// Encrypts for everybody who is joined or invited, and sends. There is no other way to send.
    pub(in crate::engine) async fn say(
        &self,
        user: &OwnedUserId,
        event_type: &str,
        content: &Value,
        transaction: ruma::OwnedTransactionId,
    ) -> Result<OwnedEventId, EngineError> {
        let view = self.room_state(user).await?;
        let recipients = view
            .readers()
            .filter(|reader| *reader != user)
            .cloned()
            .collect();
        let room = &self.id;
        self.say_to(
            user,
            room,
            &view,
            recipients,
            event_type,
            content,
            transaction,
        )
        .await
    }

    /// Encrypts a message for these people only, and sends it.
    pub(in crate::engine) async fn say_only_to(
        &self,
        user: &OwnedUserId,
        recipients: Vec<OwnedUserId>,
        content: &Value,
        transaction: ruma::OwnedTransactionId,
    ) -> Result<OwnedEventId, EngineError> {
        let view = self.room_state(user).await?;
        let (room, kind) = (&self.id, "m.room.message");
        self.say_to(user, room, &view, recipients, kind, content, transaction)
            .await
    }

    /// Encrypts a message for everybody who has a signed device, and sends it. Fails if `must_read`
    /// has none.
    pub(in crate::engine) async fn say_to_who_can_read(
        &self,
        user: &OwnedUserId,
        must_read: Option<&OwnedUserId>,
        content: &Value,
        transaction: ruma::OwnedTransactionId,
    ) -> Result<OwnedEventId, EngineError> {
        let view = self.room_state(user).await?;
        let (room, kind) = (&self.id, "m.room.message");
        self.say_where_readable(user, room, &view, must_read, kind, content, transaction)
            .await
    }

    /// Says something in another room of the same conversation, leaving out those who have no
    /// device that they have signed.
    pub(in crate::engine) async fn say_there(
        &self,
        user: &OwnedUserId,
        room: &OwnedRoomId,
        must_read: Option<&OwnedUserId>,
        event_type: &str,
        content: &Value,
        transaction: ruma::OwnedTransactionId,
    ) -> Result<OwnedEventId, EngineError> {
        let view = self.engine.cached_room_state(user, room).await?;
        self.say_where_readable(
            user,
            room,
            &view,
            must_read,
            event_type,
            content,
            transaction,
        )
        .await
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what is said, where, by whom, to whom"
    )]
    async fn say_where_readable(
        &self,
        user: &OwnedUserId,
        room: &OwnedRoomId,
        view: &RoomState,
        must_read: Option<&OwnedUserId>,
        event_type: &str,
        content: &Value,
        transaction: ruma::OwnedTransactionId,
    ) -> Result<OwnedEventId, EngineError> {
        let mut recipients: Vec<OwnedUserId> = view
            .readers()
            .filter(|reader| *reader != user)
            .cloned()
            .collect();
        loop {
            let (to, id) = (recipients.clone(), transaction.clone());
            let said = self.say_to(user, room, view, to, event_type, content, id);
            match said.await {
                Err(EngineError::Encrypt(
                    EncryptError::NoSignedDevice { users }
                    | EncryptError::TooManyDevices { users }
                    | EncryptError::KeysUnknown { users }
                    | EncryptError::NoSession { users },
                )) if !users.is_empty() && must_read.is_none_or(|who| !users.contains(who)) => {
                    recipients.retain(|reader| !users.contains(reader));
                }
                other => return other,
            }
        }
    }

    /// Returns the event that an earlier try has sent. The homeserver remembers a transaction id
    /// for a day; after that the event is found in the room, where it shows its transaction id to
    /// the device that sent it.
    async fn sent_before(
        &self,
        user: &OwnedUserId,
        room: &OwnedRoomId,
        transaction: &ruma::TransactionId,
    ) -> Result<Option<OwnedEventId>, EngineError> {
        if self.engine.now().since(self.due_since) < KNOWS_TRANSACTIONS {
            return Ok(None);
        }
        let acting = self.engine.as_user(user)?;
        let mut from: Option<String> = None;
        for _ in 0..LOOK_BACK_PAGES {
            let back = ruma::api::Direction::Backward;
            let homeserver = self.engine.homeserver();
            let page = homeserver
                .messages(acting.actor(), room, from.as_deref(), back, LOOK_BACK)
                .await?;
            for json in &page.events {
                let Some(event) = RoomEvent::parse(json.get(), Some(room)) else {
                    continue;
                };
                // Others can date their events as they like.
                if event.sender != *user {
                    continue;
                }
                if event.transaction.as_deref() == Some(transaction) {
                    return Ok(Some(event.id));
                }
                // Clocks of two machines agree to some minutes.
                if event.sent_at.is_some_and(|at| at + CLOCKS < self.due_since) {
                    return Ok(None);
                }
            }
            from = page.end;
            if from.is_none() {
                break;
            }
        }
        Ok(None)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what is said, where, by whom, to whom"
    )]
    async fn say_to(
        &self,
        user: &OwnedUserId,
        room: &OwnedRoomId,
        view: &RoomState,
        recipients: Vec<OwnedUserId>,
        event_type: &str,
        content: &Value,
        transaction: ruma::OwnedTransactionId,
    ) -> Result<OwnedEventId, EngineError> {
        let Some(rotation) = view.encryption else {
            return Err(EngineError::Refused(Refusal::Forbidden));
        };
        if let Some(sent) = self.sent_before(user, room, &transaction).await? {
            return Ok(sent);
        }
        let acting = self.engine.as_user(user)?;
        let to = EncryptTo {
            room_id: room.clone(),
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
        let homeserver = self.engine.homeserver();
        let kind = "m.room.encrypted";
        Ok(homeserver
            .send_message(acting.actor(), room, kind, &encrypted, transaction)
            .await?)
    }
}
