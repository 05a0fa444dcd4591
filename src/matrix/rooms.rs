//! Rooms: creating, joining and leaving them, inviting, and room state.

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
        MatchValue,
        PathStep::{AnyKey, Each, Key},
        Selector,
    },
};

/// The joined members of a room, and their display names.
pub type JoinedMembers = BTreeMap<OwnedUserId, Option<String>>;

/// The pauses before we try again to join a room that refused us.
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
/// Maximum number of members of a room that are kept: far more than any room has that a ghost stays
/// in.
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
        // Former members and people who were never in the room cannot read it.
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

    /// Joins a room that `who` was invited to. Joining again does nothing.
    ///
    /// A refusal is final only after a few seconds: a homeserver sends an invite to the server of
    /// the invited user before it stores the invite, and refuses a join that comes in between.
    pub async fn join(&self, who: Actor<'_>, room: &RoomId) -> Result<(), MatrixError> {
        let mut pauses = JOIN_AGAIN.into_iter();
        loop {
            match (self.try_to_join(who, room).await, pauses.next()) {
                (Err(error), Some(pause)) if error.has_errcode("M_FORBIDDEN") => {
                    crate::clock::sleep(pause).await;
                }
                (answer, _) => return answer,
            }
        }
    }

    /// Tries once to join a room.
    pub async fn try_to_join(&self, who: Actor<'_>, room: &RoomId) -> Result<(), MatrixError> {
        let request = join_room_by_id::v3::Request::new(room.to_owned());
        self.send(who, request).await.map(drop)
    }

    /// Leaves a room, or declines its invite. A room that `who` is not in counts as left.
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
            Err(error) if error.is_missing() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Invites a user so that their client lists the room under direct chats. The invite request
    /// has no field for that, so the member event itself is sent.
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

    /// Sets the display name of `who` in one room, and leaves the profile unchanged.
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

    /// Sends a state event of any type.
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

    /// Returns the content of a state event; `None` if the room has none.
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
            Err(error) if error.has_errcode("M_NOT_FOUND") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the used part of a room's state, as `who` may see it: events of [`STATE_TYPES`], and
    /// the memberships and names of members. The rest of the state costs no memory, whatever its
    /// size.
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
            MatchValue::Whole(json) => state.extend(used_state(json, &mut members)),
            MatchValue::TooLarge(head) => {
                let mut letter = DeadLetter::too_large(DeadLetterReason::StateTooLarge, head);
                letter.room = Some(room.to_owned());
                self.set_aside(letter);
            }
        })
        .await?;
        Ok(state)
    }

    /// Returns the joined members, at most 10,000. Allowed for any room that one of our users is
    /// in.
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
                MatchValue::Whole(json) => serde_json::from_str::<Value>(json)
                    .ok()
                    .and_then(|member| Some(member["display_name"].as_str()?.to_owned())),
                MatchValue::TooLarge(_) => None,
            };
            members.insert(
                user,
                name.map(|it| it.chars().take(NAME_CHARS_MAX).collect()),
            );
        })
        .await?;
        Ok(members)
    }

    /// Returns the rooms that one of our users is joined to.
    pub async fn joined_rooms(&self, who: Actor<'_>) -> Result<Vec<OwnedRoomId>, MatrixError> {
        self.send(who, joined_rooms::v3::Request::new())
            .await
            .map(|answer| answer.joined_rooms)
    }
}
