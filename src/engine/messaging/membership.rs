//! How one of our users leaves a room and forgets it, and how a room is found that we made.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::Value;

use crate::{
    engine::{Engine, EngineError, records::Rooms, room::Room},
    introduction::Introduction,
    matrix::Actor,
};

/// How many rooms are looked at for a mark.
pub(in crate::engine) const ROOMS_LOOKED_AT: usize = 20;

impl Room {
    /// Returns whether the homeserver has a ghost in this room. What is in the inbox cannot say: the
    /// invite that the ghost came by may be waiting there still.
    pub(in crate::engine) async fn is_joined(
        &self,
        ghost: &OwnedUserId,
    ) -> Result<bool, EngineError> {
        let (homeserver, actor) = (self.engine.homeserver(), Actor::user(ghost));
        let member = homeserver
            .state(actor, &self.id, "m.room.member", ghost.as_str())
            .await;
        let content = match member {
            Err(error) if error.is("M_FORBIDDEN") => None,
            other => other?,
        };
        let content = content.and_then(|json| serde_json::from_str::<Value>(json.get()).ok());
        Ok(content.is_some_and(|content| content["membership"] == "join"))
    }

    /// A ghost leaves this room and destroys its keys.
    pub(in crate::engine) async fn leave_for_good(
        &self,
        ghost: &OwnedUserId,
    ) -> Result<(), EngineError> {
        let engine = &self.engine;
        let device = engine.machines().device_of(ghost)?;
        let actor = match &device {
            Some(device) => Actor::device(ghost, device),
            None => Actor::user(ghost),
        };
        match engine.homeserver().leave(actor, &self.id, None).await {
            Err(error) if error.is("M_FORBIDDEN") || error.is("M_NOT_FOUND") => {}
            other => other?,
        }
        self.forget_room(ghost).await
    }

    /// Keys that are still on their way are fetched first, so that none comes after the others are
    /// gone.
    pub(in crate::engine) async fn forget_room(
        &self,
        ghost: &OwnedUserId,
    ) -> Result<(), EngineError> {
        let engine = &self.engine;
        if engine.machines().device_of(ghost)?.is_some()
            && let Err(error) = engine.sync_until_empty(ghost).await
        {
            tracing::warn!(%ghost, %error, "keys on their way could not be fetched");
        }
        engine.drain_for(ghost).await;
        engine.machines().forget_room(ghost, &self.id).await?;
        Ok(())
    }

    /// Leaves, or declines. Being gone already counts as done; any other refusal does not.
    pub(in crate::engine) async fn get_out(
        &self,
        is: &Introduction,
        reason: Option<&str>,
    ) -> Result<(), EngineError> {
        // A ghost whose handle was released meanwhile has no device, and leaves all the same.
        let device = self.engine.machines().device_of(&is.ghost)?;
        let homeserver = self.engine.homeserver().clone();
        let (ghost, room) = (is.ghost.clone(), self.id.clone());
        let reason = reason.map(str::to_owned);
        // To decline, the homeserver asks the inviter's server.
        let leaving = async move {
            let actor = match &device {
                Some(device) => Actor::device(&ghost, device),
                None => Actor::user(&ghost),
            };
            match homeserver.leave(actor, &room, reason.as_deref()).await {
                Err(error) if error.is("M_FORBIDDEN") || error.is("M_NOT_FOUND") => Ok(()),
                other => other,
            }
        };
        let inviter = is.invite.asker.server_name();
        self.engine.ask(inviter, leaving).await
    }

    pub(in crate::engine) async fn set_state(
        &self,
        is: &Introduction,
        kind: &str,
        key: &str,
        content: &Value,
    ) -> Result<OwnedEventId, EngineError> {
        let device = self.engine.device_of(&is.ghost)?;
        let actor = Actor::device(&is.ghost, &device);
        Ok(self
            .engine
            .homeserver()
            .send_state(actor, &self.id, kind, key, content)
            .await?)
    }
}

impl Engine {
    /// A room that was made and not written down, by what its creation says under `key`; a few are
    /// looked at.
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
