//! What becomes of a message that does not reach the others, or not all of them: its sender is told,
//! and what is kept of it is forgotten.

use ruma::{OwnedEventId, OwnedUserId};

use crate::{
    crypto::{DecryptError, Distrust},
    engine::{
        EngineError,
        records::{Kept, Outbox, What},
        room::RoomActor,
    },
    introduction::{Introduction, Reason},
    relay::{Conversation, Effect, Input, Saying},
    store::{Batch, prefix},
};

/// What its sender is told about a message whose key did not come.
const NO_KEY: &str = "I could not decrypt your message, so it was not carried on. Please send it \
                      again.";
/// What is said about messages that still waited when the conversation ended.
const TOO_LATE: &str = "What you wrote last was not delivered any more, because this conversation \
                        has ended. If it matters, please start a new chat.";
/// What its sender is told about a message that could not be handed over.
pub(in crate::engine) const NOT_DELIVERED: &str = "Your message could not be delivered to everybody. Please try again \
                             later.";

/// Returns what the sender of a message is told whose device is not trusted.
pub(in crate::engine) fn not_trusted(why: Distrust) -> Reason {
    match why {
        Distrust::TooManyDevices => Reason::TooManyDevices,
        _ => Reason::UnsignedDevice,
    }
}

impl RoomActor {
    /// What becomes of an effect that will never succeed.
    pub(in crate::engine) fn not_done(
        &self,
        conversation: Option<&Conversation>,
        effect: &Effect,
        error: &EngineError,
        batch: &mut Batch,
    ) -> Result<Vec<Input>, EngineError> {
        let place = conversation.and_then(|known| known.place_of(&self.room));
        Ok(match (effect, place) {
            (Effect::Carry { event, from, .. }, _) if let Some(conversation) = conversation => {
                let place = place.unwrap_or_else(|| conversation.home(*from));
                self.forget_kept(conversation, event, batch)?;
                let words = match error {
                    EngineError::KeyOnItsWay
                    | EngineError::Decrypt(
                        DecryptError::NoKey { .. } | DecryptError::KeyBeginsLater { .. },
                    ) => NO_KEY,
                    EngineError::Decrypt(DecryptError::Untrusted(distrust)) => {
                        not_trusted(*distrust).words()
                    }
                    // Replayed or forged: nobody is told, nothing is carried.
                    EngineError::Decrypt(_) => return Ok(Vec::new()),
                    _ => NOT_DELIVERED,
                };
                vec![Input::NotCarried {
                    place,
                    event: event.clone(),
                    words: words.to_owned(),
                }]
            }
            (Effect::Follow { to, by }, _) => vec![Input::NotFollowed {
                to: to.clone(),
                by: by.clone(),
            }],
            (Effect::Furnish { person }, _) => vec![Input::NotFurnished { person: *person }],
            _ => Vec::new(),
        })
    }

    /// What waited when the conversation ended is not delivered in silence. Once: the cause is the
    /// same for all of it.
    pub(in crate::engine) async fn say_too_late(&self, conversation: &Conversation, from: usize) {
        let saying = Saying::NotCarried {
            words: TOO_LATE.to_owned(),
        };
        let home = conversation.home(from);
        let said = self.say_in_conversation(conversation, home, &saying, "too late");
        if let Err(error) = said.await {
            tracing::info!(room = %self.room, %error, "nobody is told that it was too late");
        }
    }

    /// Forgets an event once it is carried nowhere else: other portals may still be to come, and
    /// other ghosts that are on their way in.
    pub(in crate::engine) fn forget_kept(
        &self,
        conversation: &Conversation,
        event: &OwnedEventId,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let alone = conversation.direct && self.record.introductions.is_empty();
        if alone || !self.is_needed(event, None)? {
            batch.delete::<Kept>(&(self.room.clone(), event.clone()));
        }
        Ok(())
    }

    /// Whether somebody is still to be introduced with an event, but for one ghost, or it is still
    /// to be carried somewhere, but for what is being carried out.
    pub(in crate::engine) fn is_needed(
        &self,
        event: &OwnedEventId,
        but_for: Option<&OwnedUserId>,
    ) -> Result<bool, EngineError> {
        let waits = |is: &Introduction| {
            let mut waiting = is.heard.iter().filter(|heard| !heard.done);
            waiting.any(|heard| heard.event == *event || heard.edit.as_ref() == Some(event))
        };
        let mut introductions = self.record.introductions.iter();
        if introductions.any(|is| Some(&is.ghost) != but_for && waits(is)) {
            return Ok(true);
        }
        let carries = |what: &What| matches!(what, What::Relay { effect: Effect::Carry { event: of, .. }, .. } if of == event);
        let store = self.engine.store();
        let queued = store.scan::<Outbox>(&prefix(&self.room), None, usize::MAX)?;
        let mut others = queued.iter().filter(|((_, n), _)| *n != self.carrying);
        Ok(others.any(|(_, due)| carries(&due.what)))
    }
}
