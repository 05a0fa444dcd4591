//! Rooms: making them, coming and going, inviting, and their state.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::{
        membership::{join_room_by_id, joined_rooms, leave_room},
        room::create_room,
        state::{get_state_event_for_key, send_state_event},
    },
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    Actor, Homeserver, MatrixError,
    bounds::{DeadLetter, DeadLetterReason, ITEM_MAX},
    json_stream::{
        Captured, Selector,
        Step::{AnyKey, Each, Key},
    },
};

/// Who is joined, and under which name.
pub type JoinedMembers = BTreeMap<OwnedUserId, Option<String>>;

/// When we try again to join where we were refused.
const JOIN_AGAIN: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// The types of a room's state that are used, each with the empty state key; besides them, its
/// members.
pub const STATE_TYPES: [&str; 8] = [
    "m.room.create",
    "m.room.encryption",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.name",
    "m.room.power_levels",
    "m.room.tombstone",
    "m.room.topic",
];
/// Maximum number of members of a room that are told apart: far more than the largest room that a
/// ghost stays in has.
const MEMBERS_MAX: usize = 10_000;
/// Maximum length of a member's display name, in characters. What is shown is shorter.
const NAME_CHARS_MAX: usize = 256;

static STATE: [Selector; 1] = [Selector {
    path: &[Each],
    limit: ITEM_MAX,
}];

static JOINED: [Selector; 1] = [Selector {
    path: &[Key("joined"), AnyKey],
    limit: ITEM_MAX,
}];

/// Returns an event of a room's state as far as it is used; `None` if it is not.
fn used_state(json: &str, members: &mut usize) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        state_key: Cow<'a, str>,
    }
    let kind: Kind<'_> = serde_json::from_str(json).ok()?;
    if kind.kind == "m.room.member" {
        // Who has left, or was never here, is nobody's reader.
        let event: Value = serde_json::from_str(json).ok()?;
        let membership = event["content"]["membership"].as_str()?;
        if membership == "leave" || *members >= MEMBERS_MAX {
            return None;
        }
        *members += 1;
        let name = event["content"]["displayname"].as_str();
        let name = name.map(|name| name.chars().take(NAME_CHARS_MAX).collect::<String>());
        let reduced = json!({
            "type": "m.room.member",
            "state_key": kind.state_key,
            "sender": event["sender"],
            "content": { "membership": membership, "displayname": name },
        });
        return RawValue::from_string(reduced.to_string()).ok();
    }
    let used = kind.state_key.is_empty() && STATE_TYPES.contains(&&*kind.kind);
    used.then(|| RawValue::from_string(json.to_owned()).ok())?
}

#[derive(Serialize)]
struct DirectInvite<'a> {
    membership: &'static str,
    is_direct: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    displayname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Homeserver {
    /// Creates a room.
    pub async fn create_room(
        &self,
        who: Actor<'_>,
        request: create_room::v3::Request,
    ) -> Result<OwnedRoomId, MatrixError> {
        self.send(who, request).await.map(|answer| answer.room_id)
    }

    /// Joins a room one was invited to. Joining again does nothing.
    ///
    /// A refusal is final only after a few seconds: a homeserver hands an invite to the server of
    /// the invited before it writes it down itself, and refuses whoever comes sooner than that.
    pub async fn join(&self, who: Actor<'_>, room: &RoomId) -> Result<(), MatrixError> {
        let mut pauses = JOIN_AGAIN.into_iter();
        loop {
            match (self.try_to_join(who, room).await, pauses.next()) {
                (Err(error), Some(pause)) if error.is("M_FORBIDDEN") => {
                    crate::clock::sleep(pause).await;
                }
                (answer, _) => return answer,
            }
        }
    }

    /// Joins a room, or is refused at once.
    pub async fn try_to_join(&self, who: Actor<'_>, room: &RoomId) -> Result<(), MatrixError> {
        let request = join_room_by_id::v3::Request::new(room.to_owned());
        self.send(who, request).await.map(drop)
    }

    /// Leaves a room, or declines its invite. Not being there counts as having left.
    pub async fn leave(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        reason: Option<&str>,
    ) -> Result<(), MatrixError> {
        let mut request = leave_room::v3::Request::new(room.to_owned());
        request.reason = reason.map(str::to_owned);
        match self.send(who, request).await {
            Ok(_) => Ok(()),
            // "not in room", or a room that the homeserver has forgotten
            Err(MatrixError::Refused { status, .. }) if status == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Invites a user so that their client files the room under direct chats: the plain invite
    /// request has no word for that, so the member event is written itself.
    pub async fn invite_direct(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        user: &UserId,
        reason: Option<&str>,
    ) -> Result<OwnedEventId, MatrixError> {
        let content = DirectInvite {
            membership: "invite",
            is_direct: true,
            displayname: None,
            reason,
        };
        self.send_state(who, room, "m.room.member", user.as_str(), &content)
            .await
    }

    /// Names oneself in one room only, leaving the profile alone.
    pub async fn set_name_in_room(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        name: &str,
    ) -> Result<OwnedEventId, MatrixError> {
        #[derive(Serialize)]
        struct Own<'a> {
            membership: &'static str,
            displayname: &'a str,
        }
        let content = Own {
            membership: "join",
            displayname: name,
        };
        self.send_state(who, room, "m.room.member", who.user.as_str(), &content)
            .await
    }

    /// Sets one piece of state, of any type.
    pub async fn send_state(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        event_type: &str,
        state_key: &str,
        content: &(impl Serialize + Sync),
    ) -> Result<OwnedEventId, MatrixError> {
        let content = serde_json::value::to_raw_value(content)
            .map_err(|error| MatrixError::Request(error.to_string()))?;
        let request = send_state_event::v3::Request::new_raw(
            room.to_owned(),
            event_type.into(),
            state_key.to_owned(),
            Raw::from_json(content),
        );
        self.send(who, request).await.map(|answer| answer.event_id)
    }

    /// The content of one piece of state; `None` when the room has none.
    pub async fn state(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Box<RawValue>>, MatrixError> {
        let request = get_state_event_for_key::v3::Request::new(
            room.to_owned(),
            event_type.into(),
            state_key.to_owned(),
        );
        match self.send(who, request).await {
            Ok(answer) => Ok(Some(answer.event_or_content)),
            Err(error) if error.is("M_NOT_FOUND") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns what is used of a room's state as `who` may see it: of the types in [`STATE_TYPES`], and
    /// of members who and what they are. Whatever else is in the room's state, and however large,
    /// costs no memory.
    ///
    /// Implements `GET /_matrix/client/v3/rooms/{roomId}/state` of the
    /// [client-server API](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate).
    pub async fn room_state(
        &self,
        who: Actor<'_>,
        room: &RoomId,
    ) -> Result<Vec<Box<RawValue>>, MatrixError> {
        let path = ["_matrix", "client", "v3", "rooms", room.as_str(), "state"];
        let mut state = Vec::new();
        let mut members = 0;
        self.select(who, &path, &[], &STATE, |found| match found.value {
            Captured::Whole(json) => state.extend(used_state(json, &mut members)),
            Captured::TooLarge(head) => {
                let mut letter = DeadLetter::too_large(DeadLetterReason::StateTooLarge, head);
                letter.room = Some(room.to_owned());
                self.set_aside(letter);
            }
        })
        .await?;
        Ok(state)
    }

    /// Returns who is joined, at most 10,000 of them. Allowed for any room that has one of our users
    /// in it.
    pub async fn joined_members(
        &self,
        who: Actor<'_>,
        room: &RoomId,
    ) -> Result<JoinedMembers, MatrixError> {
        let rooms = ["_matrix", "client", "v3", "rooms"];
        let path = [&rooms[..], &[room.as_str(), "joined_members"]].concat();
        let mut members = JoinedMembers::new();
        self.select(who, &path, &[], &JOINED, |found| {
            let user = found.names.first().and_then(|id| UserId::parse(id).ok());
            let Some(user) = user.filter(|_| members.len() < MEMBERS_MAX) else {
                return;
            };
            let name = match found.value {
                Captured::Whole(json) => serde_json::from_str::<Value>(json)
                    .ok()
                    .and_then(|member| Some(member["display_name"].as_str()?.to_owned())),
                Captured::TooLarge(_) => None,
            };
            members.insert(
                user,
                name.map(|it| it.chars().take(NAME_CHARS_MAX).collect()),
            );
        })
        .await?;
        Ok(members)
    }

    /// The rooms one of our users is joined to.
    pub async fn joined_rooms(&self, who: Actor<'_>) -> Result<Vec<OwnedRoomId>, MatrixError> {
        self.send(who, joined_rooms::v3::Request::new())
            .await
            .map(|answer| answer.joined_rooms)
    }
}
