//! Events as they come from the homeserver: every field may be missing or hostile.

use std::time::Duration;

use ruma::{OwnedEventId, OwnedRoomId, OwnedTransactionId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    clock::Timestamp,
    matrix::{
        bounds::StrippedState,
        event_type::{
            continues_call, is_unseen, is_verification, is_verification_request, verified_user,
        },
    },
};

/// A room event: the parts that the engine needs.
#[derive(Clone, Debug)]
pub(super) struct RoomEvent {
    pub id: OwnedEventId,
    pub room: OwnedRoomId,
    pub sender: OwnedUserId,
    pub kind: String,
    pub state_key: Option<String>,
    pub content: Value,
    /// When it was sent, as the sender's server says and can choose freely; `None` if that is not a
    /// valid time.
    pub sent_at: Option<Timestamp>,
    /// How old it was when the homeserver handed it to us.
    pub age: Duration,
    pub redacts: Option<OwnedEventId>,
    /// The transaction id of its request, shown only to the device that sent it.
    pub transaction: Option<OwnedTransactionId>,
    /// The stripped state shown to an invited user.
    pub invite_state: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    event_id: OwnedEventId,
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    #[serde(rename = "type")]
    kind: String,
    state_key: Option<String>,
    content: Value,
    /// Any JSON: a negative or fractional number, or a string, must not make the whole event
    /// unreadable.
    #[serde(borrow)]
    origin_server_ts: Option<&'a RawValue>,
    #[serde(borrow)]
    redacts: Option<&'a RawValue>,
    #[serde(borrow)]
    unsigned: Option<&'a RawValue>,
}

/// What the homeserver adds to an event. Nobody signs it, so it can have any form.
#[derive(Default, Deserialize)]
struct Unsigned<'a> {
    #[serde(borrow)]
    age: Option<&'a RawValue>,
    #[serde(borrow)]
    transaction_id: Option<&'a RawValue>,
    #[serde(borrow)]
    invite_room_state: Option<&'a RawValue>,
}

impl RoomEvent {
    /// Parses an event; `room` is the room where it was found, in case it does not say so itself.
    pub(super) fn parse(json: &str, room: Option<&OwnedRoomId>) -> Option<Self> {
        let wire: Wire<'_> = serde_json::from_str(json).ok()?;
        let unsigned: Unsigned<'_> = wire.unsigned.and_then(read).unwrap_or_default();
        let state: Option<StrippedState> = unsigned.invite_room_state.and_then(read);
        let StrippedState(invite_state) = state.unwrap_or_default();
        let transaction: Option<String> = unsigned.transaction_id.and_then(read);
        let age: Option<u64> = unsigned.age.and_then(read);
        // Moved into the content in room version 11.
        let redacts: Option<String> = match wire.redacts {
            Some(redacts) => read(redacts),
            None => wire.content["redacts"].as_str().map(str::to_owned),
        };
        let redacts = redacts.and_then(|id| id.try_into().ok());
        Some(Self {
            id: wire.event_id,
            room: wire.room_id.or_else(|| room.cloned())?,
            sender: wire.sender,
            kind: wire.kind,
            state_key: wire.state_key,
            content: wire.content,
            sent_at: wire.origin_server_ts.and_then(timestamp),
            age: Duration::from_millis(age.unwrap_or_default()),
            redacts,
            transaction: transaction.map(Into::into),
            invite_state,
        })
    }

    /// Returns the user whose membership this event sets, and the membership.
    pub(super) fn membership(&self) -> Option<(OwnedUserId, &str)> {
        if self.kind != "m.room.member" {
            return None;
        }
        let user = OwnedUserId::try_from(self.state_key.as_deref()?).ok()?;
        Some((user, self.content["membership"].as_str()?))
    }
}

/// What is said without encryption.
impl RoomEvent {
    /// Returns whether this is something that a person has said in clear, and that has to be sent
    /// again once the room is encrypted. Reactions and deletions are always in clear, and the steps
    /// of a verification or a call follow on something else.
    pub(super) fn is_said_in_clear(&self) -> bool {
        let kind = self.kind.as_str();
        let is_redacted = self
            .content
            .as_object()
            .is_none_or(serde_json::Map::is_empty);
        self.state_key.is_none()
            && !is_redacted
            && kind != "m.reaction"
            && !is_verification(kind, &self.content)
            && !continues_call(kind)
            && !is_unseen(kind)
    }
}

/// Verification of keys. Clients send it unencrypted too, into encrypted rooms.
impl RoomEvent {
    /// Returns whether this asks to verify the keys of a user.
    pub(super) fn is_verification_request(&self) -> bool {
        self.state_key.is_none() && is_verification_request(&self.kind, &self.content)
    }

    /// Returns the user whose keys are to be verified.
    pub(super) fn verified_user(&self) -> Option<OwnedUserId> {
        verified_user(&self.content)
    }
}

/// Returns a value of the expected type, or `None` if it is of another type.
fn read<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Option<T> {
    serde_json::from_str(json.get()).ok()
}

/// Returns a time in milliseconds, if it is in range.
fn timestamp(json: &RawValue) -> Option<Timestamp> {
    /// The largest integer that canonical JSON allows.
    const LARGEST: u64 = (1 << 53) - 1;
    let at: u64 = read(json)?;
    (at <= LARGEST).then_some(Timestamp(at))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_to_verify_is_known_in_both_of_its_forms() {
        let request = json!({"msgtype": "m.key.verification.request", "to": "@_dm_sam:x"});
        for (kind, content, is_request) in [
            ("m.room.message", request.clone(), true),
            ("m.key.verification.request", request, true),
            ("m.room.message", json!({"msgtype": "m.text"}), false),
            ("m.key.verification.cancel", json!({}), false),
            ("m.room.encrypted", json!({}), false),
        ] {
            let event = json!({
                "event_id": "$e", "room_id": "!r:x", "sender": "@a:x", "type": kind,
                "content": content,
            });
            let event = RoomEvent::parse(&event.to_string(), None).unwrap();
            assert_eq!(event.is_verification_request(), is_request, "{kind}");
            assert_eq!(event.verified_user().is_some(), is_request, "{kind}");
        }
    }

    #[test]
    fn a_time_that_is_none_costs_no_event() {
        for (sent, read) in [
            (json!(1_795_376_395_450_u64), Some(1_795_376_395_450)),
            (json!(0), Some(0)),
            (json!(-1), None),
            (json!(1.5), None),
            (json!("1795376395450"), None),
            (json!(u64::MAX), None),
            (json!(null), None),
            (json!({"at": 1}), None),
        ] {
            let event = json!({
                "event_id": "$e", "room_id": "!r:x", "sender": "@a:x", "type": "m.room.member",
                "content": {}, "origin_server_ts": sent,
            });
            let event = RoomEvent::parse(&event.to_string(), None).unwrap();
            assert_eq!(event.sent_at, read.map(Timestamp), "{sent}");
        }
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        let odd = format!(
            r#"{{"event_id":"$e","room_id":"!r:x","sender":"@a:x","type":"t","content":{{}},
            "redacts":{deep},"unsigned":{{"age":{deep},"invite_room_state":[{deep}]}}}}"#
        );
        assert!(RoomEvent::parse(&odd, None).is_some());
        let huge = r#"{"event_id":"$e","room_id":"!r:x","sender":"@a:x","type":"t","content":{},
            "origin_server_ts":1e400}"#;
        assert_eq!(RoomEvent::parse(huge, None).unwrap().sent_at, None);
    }
}
