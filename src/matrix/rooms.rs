//! Rooms: making them, coming and going, inviting, and their state.

use std::{collections::BTreeMap, time::Duration};

use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::{
        membership::{
            get_member_events, join_room_by_id, joined_members, joined_rooms, leave_room,
        },
        room::create_room,
        state::{get_state_event_for_key, get_state_events, send_state_event},
    },
    events::{AnyStateEvent, room::member::RoomMemberEvent},
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Actor, Homeserver, MatrixError};

/// Who is joined, and under which name.
pub type JoinedMembers = BTreeMap<OwnedUserId, Option<String>>;

/// When we try again to join where we were refused.
const JOIN_AGAIN: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

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
                    tokio::time::sleep(pause).await;
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

    /// The whole state of a room as `who` may see it.
    pub async fn room_state(
        &self,
        who: Actor<'_>,
        room: &RoomId,
    ) -> Result<Vec<Raw<AnyStateEvent>>, MatrixError> {
        let request = get_state_events::v3::Request::new(room.to_owned());
        self.send(who, request)
            .await
            .map(|answer| answer.room_state)
    }

    /// Who is joined. Allowed for any room that has one of our users in it.
    pub async fn joined_members(
        &self,
        who: Actor<'_>,
        room: &RoomId,
    ) -> Result<JoinedMembers, MatrixError> {
        let answer = self
            .send(who, joined_members::v3::Request::new(room.to_owned()))
            .await?;
        Ok(answer
            .joined
            .into_iter()
            .map(|(user, member)| (user, member.display_name))
            .collect())
    }

    /// All member events of a room, of whatever membership.
    pub async fn member_events(
        &self,
        who: Actor<'_>,
        room: &RoomId,
    ) -> Result<Vec<Raw<RoomMemberEvent>>, MatrixError> {
        let answer = self
            .send(who, get_member_events::v3::Request::new(room.to_owned()))
            .await?;
        Ok(answer.chunk)
    }

    /// The rooms one of our users is joined to.
    pub async fn joined_rooms(&self, who: Actor<'_>) -> Result<Vec<OwnedRoomId>, MatrixError> {
        self.send(who, joined_rooms::v3::Request::new())
            .await
            .map(|answer| answer.joined_rooms)
    }
}
