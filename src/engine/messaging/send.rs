//! Writing as a ghost or the bot, always encrypted.

use std::time::Duration;

use ruma::{OwnedEventId, OwnedRoomId, OwnedTransactionId, OwnedUserId, TransactionId};
use serde_json::Value;

use crate::{
    crypto::{EncryptError, EncryptTo},
    engine::{EngineError, event::RoomEvent, history::PAGE_EVENTS, room::Room},
    ids::Person,
    introduction::Refusal,
    matrix::RoomState,
};

/// How long a homeserver certainly answers a repeated transaction id with its event: Synapse
/// remembers it for 24 hours.
const KNOWS_TRANSACTIONS: Duration = Duration::from_secs(23 * 60 * 60);
/// Maximum number of pages of history that are searched for an event sent longer ago.
const LOOK_BACK_PAGES: usize = 10;
/// Maximum difference between two clocks.
const CLOCKS: Duration = Duration::from_secs(10 * 60);

/// An event that a ghost or the bot sends, always encrypted.
pub(in crate::engine) struct Outgoing<'a> {
    pub(in crate::engine) sender: &'a OwnedUserId,
    pub(in crate::engine) event_type: &'a str,
    /// The content before encryption.
    pub(in crate::engine) content: &'a Value,
    pub(in crate::engine) recipients: Recipients<'a>,
    /// Derived from the cause of the event, so that retries send it only once.
    pub(in crate::engine) transaction: OwnedTransactionId,
}

/// Who an event is encrypted for. The sender never counts.
#[derive(Clone, Copy)]
pub(in crate::engine) enum Recipients<'a> {
    /// Everybody who is joined or invited. Nothing is sent if one of them cannot read it.
    All,
    /// One person. Nothing is sent if they cannot read it.
    Only(&'a Person),
    /// Everybody who is joined or invited, except those who cannot read it. Nothing is sent if one
    /// of these people is among them.
    Readable(&'a [&'a Person]),
}

/// An event that was sent.
pub(in crate::engine) struct Sent {
    /// The event.
    pub event: OwnedEventId,
    /// The people in the room who cannot read it, because nothing could be encrypted for them.
    pub left_out: Vec<OwnedUserId>,
}

impl Sent {
    fn to_all(event: OwnedEventId) -> Self {
        Self {
            event,
            left_out: Vec::new(),
        }
    }
}

impl Room {
    /// Encrypts an event and sends it in this room. There is no other way to send, except for
    /// reactions.
    pub(in crate::engine) async fn send(
        &self,
        outgoing: Outgoing<'_>,
    ) -> Result<OwnedEventId, EngineError> {
        let state = self.room_state(outgoing.sender).await?;
        let sent = self.send_in(&self.id, &state, outgoing).await?;
        Ok(sent.event)
    }

    /// Encrypts an event and sends it in another room of the same conversation, whose state may be
    /// from a moment ago.
    pub(in crate::engine) async fn send_to_room(
        &self,
        room: &OwnedRoomId,
        outgoing: Outgoing<'_>,
    ) -> Result<Sent, EngineError> {
        let sender = outgoing.sender;
        let state = self.engine.cached_room_state(sender, room).await?;
        self.send_in(room, &state, outgoing).await
    }

    /// Sends an unencrypted event. Clients send reactions like this, and show no others.
    pub(in crate::engine) async fn send_unencrypted(
        &self,
        sender: &OwnedUserId,
        room: &OwnedRoomId,
        kind: &str,
        content: &Value,
        transaction: OwnedTransactionId,
    ) -> Result<Sent, EngineError> {
        let acting = self.engine.as_user(sender)?;
        let content = serde_json::value::to_raw_value(content)?;
        let homeserver = self.engine.homeserver();
        let sending = homeserver.send_message(acting.actor(), room, kind, &content, transaction);
        Ok(Sent::to_all(sending.await?))
    }

    async fn send_in(
        &self,
        room: &OwnedRoomId,
        state: &RoomState,
        outgoing: Outgoing<'_>,
    ) -> Result<Sent, EngineError> {
        let Outgoing {
            sender,
            event_type,
            content,
            recipients,
            transaction,
        } = outgoing;
        let Some(rotation) = state.encryption else {
            return Err(EngineError::Refused(Refusal::Forbidden));
        };
        if let Some(sent) = self.sent_before(sender, room, &transaction).await? {
            return Ok(Sent::to_all(sent));
        }
        let acting = self.engine.as_user(sender)?;
        let mut to = EncryptTo {
            room_id: room.clone(),
            recipients: recipients.listed(state, sender),
            rotation_ms: u64::try_from(rotation.period.as_millis()).ok(),
            rotation_msgs: Some(rotation.messages),
        };
        let content = serde_json::value::to_raw_value(content)?;
        let mut left_out = Vec::new();
        let encrypted = loop {
            let machines = self.engine.machines();
            match machines.encrypt(sender, &to, event_type, &content).await {
                Ok(encrypted) => break encrypted,
                Err(error) => match recipients.left_out(&error) {
                    Some(users) => {
                        to.recipients.retain(|reader| !users.contains(reader));
                        left_out.extend_from_slice(users);
                    }
                    None => return Err(error.into()),
                },
            }
        };
        let (homeserver, kind) = (self.engine.homeserver(), "m.room.encrypted");
        let event = homeserver
            .send_message(acting.actor(), room, kind, &encrypted, transaction)
            .await?;
        Ok(Sent { event, left_out })
    }

    /// Returns the event if an earlier attempt has sent it. The homeserver remembers a transaction
    /// id for a day; after that the event is looked for in the room, where the device that sent it
    /// sees its transaction id.
    async fn sent_before(
        &self,
        user: &OwnedUserId,
        room: &OwnedRoomId,
        transaction: &TransactionId,
    ) -> Result<Option<OwnedEventId>, EngineError> {
        if self.engine.now().since(self.due_since) < KNOWS_TRANSACTIONS {
            return Ok(None);
        }
        self.find_sent(user, room, transaction).await
    }

    /// Looks in the history of a room for the event that this user has sent with a transaction id
    /// since the current effect was queued.
    pub(in crate::engine) async fn find_sent(
        &self,
        user: &OwnedUserId,
        room: &OwnedRoomId,
        transaction: &TransactionId,
    ) -> Result<Option<OwnedEventId>, EngineError> {
        let acting = self.engine.as_user(user)?;
        let history = self.engine.history(acting.actor(), room);
        let mut history = history.limit(LOOK_BACK_PAGES, PAGE_EVENTS);
        while let Some(page) = history.next_page().await? {
            for json in &page {
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
                // The clocks of two machines agree within minutes.
                if event.sent_at.is_some_and(|at| at + CLOCKS < self.due_since) {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }
}

impl Recipients<'_> {
    fn listed(self, state: &RoomState, sender: &OwnedUserId) -> Vec<OwnedUserId> {
        match self {
            Self::Only(person) => vec![person.clone().into()],
            Self::All | Self::Readable(_) => {
                let readers = state.readers().filter(|reader| *reader != sender);
                readers.cloned().collect()
            }
        }
    }

    /// Returns the users to leave out so that the others can read the event, or `None` if nothing
    /// is sent.
    fn left_out(self, error: &EncryptError) -> Option<&[OwnedUserId]> {
        let Self::Readable(must_read) = self else {
            return None;
        };
        let (EncryptError::NoSignedDevice { users }
        | EncryptError::TooManyDevices { users }
        | EncryptError::KeysUnknown { users }
        | EncryptError::NoSession { users }) = error
        else {
            return None;
        };
        let can_be_left_out = !must_read.iter().any(|who| users.contains(who));
        (!users.is_empty() && can_be_left_out).then_some(users)
    }
}
