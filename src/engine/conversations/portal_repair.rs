//! Replaces portals that were lost or upgraded by somebody: portals are ours, so another one is
//! made, and no tombstone is followed.

use ruma::OwnedRoomId;

use crate::{
    conversation::{Conversation, Input, RoomRole},
    engine::{Engine, EngineError, records::Conversations, room::Room},
    ids::{ConversationId, Ghost},
    introduction::Refusal,
    store::Batch,
};

impl Room {
    /// Returns the room of another role. A portal that was lost is made again first, and an owner
    /// who has left it is invited again: otherwise nobody could read what is encrypted now.
    pub(in crate::engine) async fn target_room(
        &mut self,
        conversation: &Conversation,
        to: RoomRole,
    ) -> Result<OwnedRoomId, EngineError> {
        let RoomRole::Portal(owner) = to else {
            return self.other_room(conversation, to);
        };
        let (Some(person), Some(host)) = (
            conversation.people.get(owner),
            conversation.ghosts_at(to).next(),
        ) else {
            return Err(EngineError::NotThereYet);
        };
        if !person.takes_part() {
            return Err(EngineError::Refused(Refusal::Impossible));
        }
        if let Some(room) = conversation.room(to) {
            match self.engine.cached_room_state(&host.ghost, room).await {
                Ok(view)
                    if view.membership(&host.ghost) == "join"
                        && matches!(view.membership(&person.user), "join" | "invite")
                        && view.replaced_by.is_none() =>
                {
                    return Ok(room.clone());
                }
                Err(error) if error.is_transient() => return Err(error),
                _ => {}
            }
        }
        if conversation.ended {
            return Err(EngineError::Refused(Refusal::Impossible));
        }
        let furnished = self.ensure_portal(conversation, owner).await?;
        // The invite counts: should the owner decline it, that is final.
        let batch = Batch::new();
        self.engine
            .apply(&conversation.id, &furnished, batch)
            .await?;
        let known = self.engine.store().get::<Conversations>(&conversation.id)?;
        let room = known.as_ref().and_then(|known| known.room(to));
        room.cloned().ok_or(EngineError::NotThereYet)
    }
}

impl Engine {
    /// Returns the ghost that is in a portal and can administer it, or `None` if the portal was
    /// lost or somebody has replaced it.
    pub(in crate::engine) async fn host_of(
        &self,
        ghosts: &[Ghost],
        portal: &OwnedRoomId,
    ) -> Result<Option<Ghost>, EngineError> {
        let mut any = None;
        for ghost in ghosts {
            let view = match self.fetch_room_state(ghost, portal).await {
                Ok(view) => view,
                Err(error) if error.is_transient() => return Err(error),
                Err(_) => continue,
            };
            if view.replaced_by.is_some() {
                return Ok(None);
            }
            if view.membership(ghost) != "join" {
                continue;
            }
            let able = ghosts
                .iter()
                .find(|ghost| view.membership(ghost) == "join" && view.may_invite(ghost));
            any = able.or(Some(ghost)).cloned();
            break;
        }
        Ok(any)
    }

    /// Tells a conversation that a portal is lost and has to be made again.
    pub(in crate::engine) async fn mark_portal_lost(
        &self,
        conversation: &ConversationId,
        person: usize,
    ) -> Result<Option<Conversation>, EngineError> {
        let batch = Batch::new();
        let input = Input::PortalLost { person };
        self.apply(conversation, &[input], batch).await?;
        self.store().flush().await?;
        Ok(self.store().get::<Conversations>(conversation)?)
    }
}
