//! Rooms in which one of our users counts as being and that the homeserver does not show it in: the
//! room was purged, or the homeserver's database was set back to before it was made.
//!
//! No event tells of that. The room's actor is told as if the user had been removed, and does what
//! follows: a conversation tells the other side, an introduction ends, and the bot makes another
//! control room when it has something to say. A lost portal is made anew when it is needed.

use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::json;

use crate::{
    conversation::RoomRole,
    engine::{
        Engine, EngineError,
        control_room::ControlPhase,
        inbox::accept::InboxWrites,
        records::{ActiveRoomsByGhost, ControlRooms, Conversations, InboxItem, RoomRecord, Rooms},
    },
    introduction::Phase,
    matrix::Actor,
    store::{StoreError, prefix},
};

impl Engine {
    /// Returns the rooms in which a user counts as being.
    pub(in crate::engine) fn rooms_expected_of(
        &self,
        user: &OwnedUserId,
    ) -> Result<Vec<OwnedRoomId>, StoreError> {
        let mut rooms = Vec::new();
        if *user == self.settings().bot {
            for page in self.store().pages::<ControlRooms>(&[]) {
                rooms.extend(page?.into_iter().map(|(_, room)| room));
            }
            return Ok(rooms);
        }
        for page in self.store().pages::<ActiveRoomsByGhost>(&prefix(user)) {
            rooms.extend(page?.into_iter().map(|((_, room), ())| room));
        }
        Ok(rooms)
    }

    /// Tells the rooms that the homeserver has lost. `expected` are those in which the user counted
    /// as being before the homeserver was asked where it is; `joined` is the answer.
    pub(in crate::engine) async fn note_lost_rooms(
        &self,
        user: &OwnedUserId,
        expected: Vec<OwnedRoomId>,
        joined: &[OwnedRoomId],
    ) -> Result<(), EngineError> {
        let acting = self.as_user(user)?;
        for room in expected {
            if joined.contains(&room) || !self.counts_as_there(user, &room)? {
                continue;
            }
            if !self.is_lost(acting.actor(), user, &room).await? {
                continue;
            }
            tracing::warn!(%user, %room, "the homeserver has lost a room, or our user's place in it");
            let gone = json!({
                "type": "m.room.member", "room_id": room, "state_key": user,
                "event_id": format!("$lost-{}", self.next()), "sender": self.settings().bot,
                "origin_server_ts": self.now().0, "content": {"membership": "leave"},
            });
            // Not accepted as an event that arrives: the homeserver knows none such.
            let taken = {
                let _one_at_a_time = self.0.inbox_lock.lock().await;
                let mut taken = InboxWrites::default();
                let gone = InboxItem::Event(gone.to_string());
                self.stage(&room, &gone, &mut taken.batch)?;
                taken.rooms.push(room);
                self.write_inbox(taken)?
            };
            self.flush_and_wake(taken).await?;
        }
        Ok(())
    }

    /// Returns whether something depends on a user's being in a room. Not while it comes or goes.
    fn counts_as_there(&self, user: &OwnedUserId, room: &OwnedRoomId) -> Result<bool, StoreError> {
        let record = self.store().get::<Rooms>(room)?.unwrap_or_default();
        if *user == self.settings().bot {
            let control = record.control.as_ref();
            return Ok(control.is_some_and(|control| control.phase == ControlPhase::Ready));
        }
        let introduced = record.introductions.iter().any(|introduction| {
            introduction.ghost == *user
                && !matches!(
                    introduction.phase,
                    Phase::Declining { .. }
                        | Phase::Joining
                        | Phase::Leaving
                        | Phase::Over
                        | Phase::Declined
                )
        });
        Ok(introduced || self.is_in_origin(user, room, &record)?)
    }

    /// Returns whether a ghost stands for somebody in the origin of a conversation that goes on.
    fn is_in_origin(
        &self,
        ghost: &OwnedUserId,
        room: &OwnedRoomId,
        record: &RoomRecord,
    ) -> Result<bool, StoreError> {
        let here = record.conversation.as_ref();
        let Some(here) = here.filter(|here| here.ghosts.iter().any(|it| it == ghost)) else {
            return Ok(false);
        };
        let conversation = self.store().get::<Conversations>(&here.conversation)?;
        Ok(conversation.is_some_and(|it| !it.ended && it.role_of(room) == Some(RoomRole::Origin)))
    }

    /// Returns whether the homeserver says of the room itself that the user is not there.
    async fn is_lost(
        &self,
        actor: Actor<'_>,
        user: &OwnedUserId,
        room: &OwnedRoomId,
    ) -> Result<bool, EngineError> {
        let own = self
            .homeserver()
            .state(actor, room, "m.room.member", user.as_str());
        match own.await {
            Ok(None) => Ok(true),
            Ok(Some(content)) => {
                let content: serde_json::Value = serde_json::from_str(content.get())?;
                let is = content["membership"].as_str();
                Ok(!matches!(is, Some("join" | "invite" | "knock")))
            }
            Err(error) if error.says_user_is_gone() => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}
