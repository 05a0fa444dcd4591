//! How a conversation leaves a room, and ghosts that were made for it are taken away.

use ruma::OwnedUserId;
use serde_json::Value;

use crate::{
    engine::{
        EngineError,
        event::RoomEvent,
        records::{Arrived, Inbox, Kept, OpenWork},
        room::RoomActor,
    },
    matrix::Actor,
    relay::{Conversation, Input, Place},
    store::{Batch, prefix},
};

/// How much of what has arrived is looked at.
const WAITING: usize = 100;

impl RoomActor {
    /// All ghosts of the conversation leave this room and destroy its keys.
    pub(in crate::engine) async fn depart(
        &mut self,
        id: &str,
        conversation: Option<&Conversation>,
        batch: &mut Batch,
    ) -> Result<Vec<Input>, EngineError> {
        let engine = self.engine.clone();
        let seat = self.record.seat.as_ref();
        let place = conversation.and_then(|known| known.place_of(&self.room));
        let Some(seat) = seat.filter(|seat| seat.conversation == id).cloned() else {
            // Not furnished yet: whoever comes in later goes at once.
            let departed = place.map(|place| Input::Departed { place });
            return Ok(departed.into_iter().collect());
        };
        self.deliveries.forget();
        for ghost in &seat.ghosts {
            self.leave_for_good(ghost).await?;
            batch.delete::<OpenWork>(&(ghost.clone(), self.room.clone()));
        }
        let introducing = self.record.introductions.iter();
        if !introducing.into_iter().any(|is| is.is_open()) {
            for (key, _) in engine
                .store()
                .scan::<Kept>(&prefix(&self.room), None, usize::MAX)?
            {
                batch.delete::<Kept>(&key);
            }
        }
        self.record.seat = None;
        if let Some(place) = place {
            return Ok(vec![Input::Departed { place }]);
        }
        let mut inputs = match conversation {
            Some(conversation) if !conversation.ended => self.said_too_late(conversation)?,
            _ => Vec::new(),
        };
        // A room that was moved away from: its record is to be written all the same.
        inputs.push(Input::Departed {
            place: Place::Portal(usize::MAX),
        });
        Ok(inputs)
    }

    /// The ghost of somebody who is gone leaves this room, and the others stay.
    pub(in crate::engine) async fn leave_alone(
        &mut self,
        conversation: &Conversation,
        person: usize,
        sent_away: bool,
    ) -> Result<Vec<Input>, EngineError> {
        let gone = conversation.people.get(person).map(|gone| &gone.ghost);
        let gone = gone.filter(|ghost| !conversation.needs(ghost));
        // Whoever it stands for may be back already.
        let Some(ghost) = gone else {
            return Ok(Vec::new());
        };
        let left = match self.is_joined(ghost).await? {
            // It has come back since.
            true if sent_away => Ok(()),
            true => self.leave_for_good(ghost).await,
            // Invited again, it is to come in, and the keys that it is sent are for that. It may
            // have left before a crash, and only then have been invited.
            false if self.is_about_to_be_invited(ghost)? => Ok(()),
            false => self.forget_room(ghost).await,
        };
        match left {
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => tracing::warn!(room = %self.room, %ghost, %error, "a ghost cannot leave"),
            Ok(()) => {}
        }
        if let Some(seat) = &mut self.record.seat {
            seat.ghosts.retain(|here| here != ghost);
        }
        let mut batch = Batch::new();
        batch.delete::<OpenWork>(&(ghost.clone(), self.room.clone()));
        self.settle(batch, [])?;
        Ok(Vec::new())
    }

    /// Returns whether the homeserver has a ghost in this room. What is in the inbox cannot say: the
    /// invite that the ghost came by may be waiting there still.
    async fn is_joined(&self, ghost: &OwnedUserId) -> Result<bool, EngineError> {
        let (homeserver, actor) = (self.engine.homeserver(), Actor::user(ghost));
        let member = homeserver
            .state(actor, &self.room, "m.room.member", ghost.as_str())
            .await;
        let content = match member {
            Err(error) if error.is("M_FORBIDDEN") => None,
            other => other?,
        };
        let content = content.and_then(|json| serde_json::from_str::<Value>(json.get()).ok());
        Ok(content.is_some_and(|content| content["membership"] == "join"))
    }

    /// Returns whether the last that has arrived about a ghost, and was not handled, is an invite.
    fn is_about_to_be_invited(&self, ghost: &OwnedUserId) -> Result<bool, EngineError> {
        let store = self.engine.store();
        let waiting = store.scan::<Inbox>(&prefix(&self.room), None, WAITING)?;
        let mut memberships = waiting
            .iter()
            .rev()
            .filter_map(|(_, arrived)| match arrived {
                Arrived::Event(json) | Arrived::AfterGap(json) => {
                    let event = RoomEvent::parse(json, Some(&self.room))?;
                    let (user, membership) = event.membership()?;
                    (user == *ghost).then_some(membership == "invite")
                }
                Arrived::Invite { user, .. } => (user == ghost).then_some(true),
                _ => None,
            });
        Ok(memberships.next() == Some(true))
    }

    /// A ghost leaves this room and destroys its keys.
    async fn leave_for_good(&self, ghost: &OwnedUserId) -> Result<(), EngineError> {
        let engine = &self.engine;
        let device = engine.machines().device_of(ghost)?;
        let actor = match &device {
            Some(device) => Actor::device(ghost, device),
            None => Actor::user(ghost),
        };
        match engine.homeserver().leave(actor, &self.room, None).await {
            Err(error) if error.is("M_FORBIDDEN") || error.is("M_NOT_FOUND") => {}
            other => other?,
        }
        self.forget_room(ghost).await
    }

    /// Keys that are still on their way are fetched first, so that none comes after the others are
    /// gone.
    async fn forget_room(&self, ghost: &OwnedUserId) -> Result<(), EngineError> {
        let engine = &self.engine;
        if engine.machines().device_of(ghost)?.is_some()
            && let Err(error) = engine.sync_until_empty(ghost).await
        {
            tracing::warn!(%ghost, %error, "keys on their way could not be fetched");
        }
        engine.drain_for(ghost).await;
        engine.machines().forget_room(ghost, &self.room).await?;
        Ok(())
    }

    pub(in crate::engine) async fn retire_ghosts(
        &self,
        ghosts: &[OwnedUserId],
    ) -> Result<Vec<Input>, EngineError> {
        for ghost in ghosts {
            self.engine.machines().retire(ghost).await?;
        }
        Ok(Vec::new())
    }
}
