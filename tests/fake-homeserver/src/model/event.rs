//! An event of a room, and the shapes in which it is shown.

use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, value::RawValue};

/// One event as the homeserver keeps it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its place in everything that ever happened on this homeserver.
    pub position: u64,
    /// `$…`
    pub id: String,
    /// The room.
    pub room: String,
    /// Its type.
    pub kind: String,
    /// Who sent it.
    pub sender: String,
    /// For state.
    pub state_key: Option<String>,
    /// Its content; `{}` once it is redacted.
    pub content: Box<RawValue>,
    /// When it was sent, in milliseconds since 1970.
    pub sent: u64,
    /// When the request arrived by which it was sent.
    pub arrived: Instant,
    /// The event that it redacts.
    pub redacts: Option<String>,
    /// The state that it replaced.
    pub replaced: Option<Box<RawValue>>,
    /// The device and the transaction id of the request that sent it.
    pub by: Option<(String, String)>,
    /// Shown to who is invited by it.
    pub invite_state: Vec<Value>,
    /// The event that redacted it.
    pub redacted_by: Option<String>,
}

/// To whom an event is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape<'a> {
    /// A client: this user on this device.
    Client(&'a str, Option<&'a str>),
    /// The application service, in a transaction.
    Service,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    room_id: &'a str,
    sender: &'a str,
    event_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_key: Option<&'a str>,
    content: &'a RawValue,
    origin_server_ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacts: Option<&'a str>,
    unsigned: Unsigned<'a>,
    // Synapse writes these for application services only.
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    invite_room_state: &'a [Value],
}

#[derive(Serialize)]
struct Unsigned<'a> {
    age: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_content: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted_by: Option<&'a str>,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    invite_room_state: &'a [Value],
}

impl Event {
    /// The content, to look into.
    pub fn value(&self) -> Value {
        serde_json::from_str(self.content.get()).unwrap_or_default()
    }

    /// The membership that it sets, for whom.
    pub fn membership(&self) -> Option<(&str, String)> {
        let user = self.state_key.as_deref()?;
        if self.kind != "m.room.member" {
            return None;
        }
        Some((user, self.value()["membership"].as_str()?.to_owned()))
    }

    /// The event as JSON.
    pub fn shown(&self, to: Shape<'_>) -> Box<RawValue> {
        let age = u64::try_from(self.arrived.elapsed().as_millis()).unwrap_or(u64::MAX);
        let service = to == Shape::Service;
        // Only the device that sent an event is told its transaction id, an application service
        // never.
        let transaction_id = self.by.as_ref().and_then(|(device, transaction)| {
            let own = to == Shape::Client(&self.sender, Some(device));
            own.then_some(transaction.as_str())
        });
        let invite_state: &[Value] = if service { &self.invite_state } else { &[] };
        let shown = Shown {
            kind: &self.kind,
            room_id: &self.room,
            sender: &self.sender,
            event_id: &self.id,
            state_key: self.state_key.as_deref(),
            content: &self.content,
            origin_server_ts: self.sent,
            redacts: self.redacts.as_deref(),
            unsigned: Unsigned {
                age,
                transaction_id,
                prev_content: self.replaced.as_deref(),
                redacted_by: self.redacted_by.as_deref(),
                invite_room_state: invite_state,
            },
            age: service.then_some(age),
            user_id: service.then_some(&self.sender),
            invite_room_state: invite_state,
        };
        serde_json::value::to_raw_value(&shown).unwrap_or_default()
    }

    /// What is shown of a piece of state to people who are invited.
    pub fn stripped(&self) -> Value {
        serde_json::json!({
            "type": self.kind, "sender": self.sender, "state_key": self.state_key,
            "content": self.value(),
        })
    }
}
