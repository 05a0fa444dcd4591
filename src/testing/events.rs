//! Events as the homeserver pushes them.

use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde_json::{Value, json};

use super::{NOW, alice};
use crate::clock::Timestamp;

/// Makes the events of one room. Unless told otherwise Alice sends them, now.
#[derive(Clone)]
pub(crate) struct EventFactory {
    room: OwnedRoomId,
    sender: OwnedUserId,
    sent_at: Timestamp,
}

impl EventFactory {
    pub(crate) fn room(room: &RoomId) -> Self {
        Self {
            room: room.to_owned(),
            sender: alice(),
            sent_at: NOW,
        }
    }

    pub(crate) fn sender(mut self, user: &str) -> Self {
        self.sender = user.try_into().unwrap();
        self
    }

    pub(crate) fn sent_at(mut self, at: Timestamp) -> Self {
        self.sent_at = at;
        self
    }

    /// A message or anything else that is no state.
    pub(crate) fn event(&self, kind: &str, id: &str, content: Value) -> Value {
        json!({
            "type": kind, "event_id": id, "room_id": self.room, "sender": self.sender,
            "origin_server_ts": self.sent_at, "content": content,
        })
    }

    /// An encrypted message, which nobody can read.
    pub(crate) fn encrypted(&self, id: &str) -> Value {
        self.event("m.room.encrypted", id, json!({"ciphertext": id}))
    }

    /// Somebody's membership. The same one always has the same id.
    pub(crate) fn member(&self, user: &str, membership: &str) -> Value {
        let id = format!("${membership}-{user}-{}", self.room).replace(':', "-");
        let mut event = self.event("m.room.member", &id, json!({"membership": membership}));
        event["state_key"] = json!(user);
        event
    }
}
