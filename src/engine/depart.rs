//! How a conversation leaves a room, and ghosts that were made for it are taken away.

use ruma::OwnedUserId;

use super::{
    EngineError,
    room::RoomActor,
    tables::{Kept, OpenWork},
};
use crate::{
    matrix::Actor,
    relay::{Conversation, Input, Place},
    store::{Batch, prefix},
};

impl RoomActor {
    /// All ghosts of the conversation leave this room and destroy its keys.
    pub(super) async fn depart(
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
            let device = engine.machines().device_of(ghost)?;
            let actor = match &device {
                Some(device) => Actor::device(ghost, device),
                None => Actor::user(ghost),
            };
            match engine.homeserver().leave(actor, &self.room, None).await {
                Err(error) if error.is("M_FORBIDDEN") || error.is("M_NOT_FOUND") => {}
                other => other?,
            }
            if device.is_some()
                && let Err(error) = engine.sync_until_empty(ghost).await
            {
                tracing::warn!(%ghost, %error, "keys on their way could not be fetched");
            }
            engine.drain_to_device().await;
            engine.machines().forget_room(ghost, &self.room).await?;
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
        Ok(match place {
            Some(place) => vec![Input::Departed { place }],
            // An origin that was moved away from: its record is to be written all the same.
            None => vec![Input::Departed {
                place: Place::Portal(usize::MAX),
            }],
        })
    }

    pub(super) async fn retire_ghosts(
        &self,
        ghosts: &[OwnedUserId],
    ) -> Result<Vec<Input>, EngineError> {
        for ghost in ghosts {
            self.engine.machines().retire(ghost).await?;
        }
        Ok(Vec::new())
    }
}
