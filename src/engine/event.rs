//! Events as they come from the homeserver: every field may be missing or hostile.

use std::time::Duration;

use ruma::{OwnedEventId, OwnedRoomId, OwnedTransactionId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::clock::Timestamp;

/// A room event, as far as the engine needs it.
#[derive(Clone, Debug)]
pub(super) struct RoomEvent {
    pub id: OwnedEventId,
    pub room: OwnedRoomId,
    pub sender: OwnedUserId,
    pub kind: String,
    pub state_key: Option<String>,
    pub content: Value,
    pub sent_at: Timestamp,
    /// How old it was when it was handed to us.
    pub age: Duration,
    pub redacts: Option<OwnedEventId>,
    /// Shown only to the device that sent it: the transaction id of its request.
    pub transaction: Option<OwnedTransactionId>,
    /// The state shown to who is invited.
    pub invite_state: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Wire {
    event_id: OwnedEventId,
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    #[serde(rename = "type")]
    kind: String,
    state_key: Option<String>,
    content: Value,
    #[serde(default)]
    origin_server_ts: u64,
    redacts: Option<Value>,
    unsigned: Option<Value>,
}

impl RoomEvent {
    /// Reads an event; `room` is where it was found when it does not say so itself.
    pub(super) fn parse(json: &str, room: Option<&OwnedRoomId>) -> Option<Self> {
        let wire: Wire = serde_json::from_str(json).ok()?;
        let invite_state = wire
            .unsigned
            .as_ref()
            .map(stripped_state)
            .unwrap_or_default();
        let transaction = wire
            .unsigned
            .as_ref()
            .and_then(|unsigned| unsigned["transaction_id"].as_str())
            .map(Into::into);
        let age = wire.unsigned.as_ref();
        let age = age.and_then(|unsigned| unsigned["age"].as_u64());
        // Moved into the content in room version 11.
        let redacts = wire
            .redacts
            .as_ref()
            .or_else(|| wire.content.get("redacts"));
        let redacts = redacts
            .and_then(Value::as_str)
            .and_then(|id| id.try_into().ok());
        Some(Self {
            id: wire.event_id,
            room: wire.room_id.or_else(|| room.cloned())?,
            sender: wire.sender,
            kind: wire.kind,
            state_key: wire.state_key,
            content: wire.content,
            sent_at: Timestamp(wire.origin_server_ts),
            age: Duration::from_millis(age.unwrap_or_default()),
            redacts,
            transaction,
            invite_state,
        })
    }

    /// The user whose membership this event sets, and the membership.
    pub(super) fn membership(&self) -> Option<(OwnedUserId, &str)> {
        if self.kind != "m.room.member" {
            return None;
        }
        let user = OwnedUserId::try_from(self.state_key.as_deref()?).ok()?;
        Some((user, self.content["membership"].as_str()?))
    }
}

fn stripped_state(unsigned: &Value) -> Vec<Box<RawValue>> {
    let events = unsigned["invite_room_state"].as_array();
    let events = events.into_iter().flatten().take(50);
    events
        .filter_map(|event| serde_json::value::to_raw_value(event).ok())
        .collect()
}
