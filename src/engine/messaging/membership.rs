//! Leaves rooms and forgets their keys, and finds rooms that we made.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName};
use serde_json::Value;

use crate::{
    engine::{Engine, EngineError, records::Rooms, room::Room},
    ids::Ghost,
    introduction::Introduction,
    matrix::Actor,
};

/// Maximum number of rooms that are checked for a mark.
pub(in crate::engine) const ROOMS_LOOKED_AT: usize = 20;

impl Room {
    /// Returns whether a ghost is joined to this room, as the homeserver says. The inbox cannot
    /// tell: the invite that the ghost has accepted may still be waiting there.
    pub(in crate::engine) async fn is_joined(&self, ghost: &Ghost) -> Result<bool, EngineError> {
        let (homeserver, actor) = (self.engine.homeserver(), Actor::user(ghost));
        let member = homeserver
            .state(actor, &self.id, "m.room.member", ghost.as_str())
            .await;
        let content = match member {
            Err(error) if error.has_errcode("M_FORBIDDEN") => None,
            other => other?,
        };
        let content = content.and_then(|json| serde_json::from_str::<Value>(json.get()).ok());
        Ok(content.is_some_and(|content| content["membership"] == "join"))
    }

    /// Lets a ghost leave this room and destroys its keys of it.
    pub(in crate::engine) async fn leave_for_good(&self, ghost: &Ghost) -> Result<(), EngineError> {
        self.engine.leave(ghost, &self.id, None, None).await?;
        self.engine.forget_room(ghost, &self.id).await
    }

    /// Lets the ghost of an introduction leave, or decline the asker's invite.
    pub(in crate::engine) async fn leave_introduction(
        &self,
        introduction: &Introduction,
        reason: Option<&str>,
    ) -> Result<(), EngineError> {
        let server = Some(introduction.invite.asker.server_name());
        self.engine
            .leave(&introduction.ghost, &self.id, reason, server)
            .await
    }

    pub(in crate::engine) async fn set_state(
        &self,
        introduction: &Introduction,
        kind: &str,
        key: &str,
        content: &Value,
    ) -> Result<OwnedEventId, EngineError> {
        let acting = self.engine.as_user(&introduction.ghost)?;
        Ok(self
            .engine
            .homeserver()
            .send_state(acting.actor(), &self.id, kind, key, content)
            .await?)
    }
}

impl Engine {
    /// Lets one of our users leave a room, or decline its invite; for that the homeserver asks the
    /// `server` that invited. Being gone already counts as success; any other refusal is an error.
    pub(in crate::engine) async fn leave(
        &self,
        user: &OwnedUserId,
        room: &RoomId,
        reason: Option<&str>,
        server: Option<&ServerName>,
    ) -> Result<(), EngineError> {
        let (homeserver, user) = (self.homeserver().clone(), user.clone());
        let (room, reason) = (room.to_owned(), reason.map(str::to_owned));
        let leaving = async move {
            // A ghost whose handle was released has no device, and leaves all the same.
            let actor = Actor::user(&user);
            match homeserver.leave(actor, &room, reason.as_deref()).await {
                Err(error) if error.says_user_is_gone() => Ok(()),
                other => other,
            }
        };
        match server {
            Some(server) => self.ask(server, leaving).await,
            None => Ok(leaving.await?),
        }
    }

    /// Destroys the keys that one of our users has for a room. Keys on their way are fetched first,
    /// so that none arrives after the others are destroyed.
    pub(in crate::engine) async fn forget_room(
        &self,
        user: &OwnedUserId,
        room: &RoomId,
    ) -> Result<(), EngineError> {
        if self.machines().device_of(user)?.is_some()
            && let Err(error) = self.fetch_keys(user).await
        {
            // A key that comes later is turned away on arrival.
            tracing::warn!(%user, %error, "keys on their way could not be fetched");
        }
        self.process_to_device_of(user).await;
        Ok(self.machines().forget_room(user, room).await?)
    }

    /// Returns a room that was made but not recorded, by the mark that its creation has under
    /// `key`. Checks at most [`ROOMS_LOOKED_AT`] rooms.
    pub(in crate::engine) async fn room_with_mark(
        &self,
        who: Actor<'_>,
        key: &str,
        mark: &str,
    ) -> Result<Option<OwnedRoomId>, EngineError> {
        let rooms = self.homeserver().joined_rooms(who).await?;
        let mut unknown = Vec::new();
        for room in rooms {
            if !self.store().contains::<Rooms>(&room)? {
                unknown.push(room);
            }
        }
        for room in unknown.into_iter().take(ROOMS_LOOKED_AT) {
            let create = self
                .homeserver()
                .state(who, &room, "m.room.create", "")
                .await?;
            let create = create.and_then(|json| serde_json::from_str::<Value>(json.get()).ok());
            if create.is_some_and(|create| create[key] == mark) {
                return Ok(Some(room));
            }
        }
        Ok(None)
    }
}
