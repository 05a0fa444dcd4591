//! Carries out the effects of conversations. Each can be carried out twice without harm.

use std::time::Duration;

use crate::{
    crypto::{DecryptError, EncryptError},
    engine::{EngineError, conversations::forward::Way, records::Conversations, room::Room},
    relay::{Conversation, Effect, Input},
    store::Batch,
};

/// For how long something is tried that a conversation cannot do without.
pub(in crate::engine) const INSIST: Duration = Duration::from_secs(10 * 60);

/// For how long something is tried without which it can go on.
pub(in crate::engine) const INSIST_LITTLE: Duration = Duration::from_secs(30);

/// How long it is tried to get into the room that has replaced another one: clients invite at once.
pub(in crate::engine) const WAIT_FOR_INVITE: Duration = Duration::from_secs(15);

impl Room {
    pub(in crate::engine) async fn carry_out_relay(
        &mut self,
        number: u64,
        id: String,
        effect: Effect,
    ) -> Result<(), EngineError> {
        let conversation = self.engine.store().get_cached::<Conversations>(&id)?;
        let conversation = conversation.as_deref();
        let mut batch = self.finish(number);
        self.carrying = number;
        let followed = match (conversation, &effect) {
            (_, Effect::Retire { ghosts }) => self.retire_ghosts(ghosts).await,
            (_, Effect::Depart) => self.depart(&id, conversation, &mut batch).await,
            (Some(conversation), effect) => {
                self.perform_relay(conversation, effect, &mut batch).await
            }
            (None, _) => Ok(Vec::new()),
        };
        let inputs = match followed {
            Ok(inputs) => inputs,
            Err(error) if self.tries_relay_again(number, &effect, &error) => return Err(error),
            Err(error) => {
                tracing::info!(room = %self.id, kind = effect.kind(), %error, "refused");
                batch = self.finish(number);
                if let Some(conversation) = conversation
                    && let (true, Effect::Carry { from, .. }) = (conversation.ended, &effect)
                {
                    self.say_too_late(conversation, *from).await;
                }
                self.not_done(conversation, &effect, &error, &mut batch)?
            }
        };
        if inputs.is_empty() {
            // Nothing changes but what the batch says: the room's own record stays as it is.
            return Ok(self.engine.store().apply(batch)?);
        }
        let engine = self.engine.clone();
        let (lock, rooms) = engine.converse(&id, &inputs, &mut batch)?;
        self.settle(batch, [])?;
        drop(lock);
        self.wake_others(rooms).await;
        if let Effect::Follow { to, .. } = &effect {
            engine.wake(to);
        }
        if effect == Effect::Depart {
            engine.0.departed.notify_waiters();
        }
        Ok(())
    }

    pub(in crate::engine) fn tries_relay_again(
        &mut self,
        number: u64,
        effect: &Effect,
        error: &EngineError,
    ) -> bool {
        let settings = self.engine.settings();
        let cannot_read = matches!(
            error,
            EngineError::Encrypt(
                EncryptError::NoSignedDevice { .. }
                    | EncryptError::KeysUnknown { .. }
                    | EncryptError::NoSession { .. }
            )
        );
        let at_most = match (effect, error) {
            (Effect::Depart | Effect::Retire { .. }, _) => return true,
            (Effect::Leave { .. }, error) => return error.is_transient(),
            (Effect::Carry { .. }, EngineError::KeyOnItsWay | EngineError::CounterpartOnItsWay) => {
                settings.relay.wait_for_key
            }
            // A sender whose server is silent holds up nobody else's messages.
            (Effect::Carry { .. }, EngineError::Decrypt(DecryptError::SenderUnknown)) => {
                return false;
            }
            // A person without a signed device is waited for, as in an introduction.
            (Effect::Carry { .. }, _) if cannot_read => settings.rules.wait_for_owner,
            (Effect::Follow { .. }, _) => WAIT_FOR_INVITE,
            (Effect::Furnish { .. } | Effect::Carry { .. } | Effect::TakeBack { .. }, _) => INSIST,
            (
                Effect::Say { .. }
                | Effect::Call { .. }
                | Effect::Dress { .. }
                | Effect::Rename { .. },
                _,
            ) => INSIST_LITTLE,
        };
        (error.is_transient() || cannot_read && matches!(effect, Effect::Carry { .. }))
            && !self.has_insisted(number, at_most, error)
    }

    pub(in crate::engine) async fn perform_relay(
        &mut self,
        conversation: &Conversation,
        effect: &Effect,
        batch: &mut Batch,
    ) -> Result<Vec<Input>, EngineError> {
        let place = match (conversation.place_of(&self.id), effect) {
            (Some(place), _) => place,
            // The conversation has moved on, and what was said here before goes where it was to.
            (None, Effect::Carry { from, .. } | Effect::TakeBack { from, .. }) => {
                conversation.home(*from)
            }
            (None, _) => return Ok(Vec::new()),
        };
        match effect {
            Effect::Furnish { person } => self.furnish(conversation, *person).await,
            Effect::Carry {
                event,
                from,
                to,
                last,
            } => {
                let way = Way {
                    place,
                    from: *from,
                    to: *to,
                };
                let (sent, inputs) = self.carry(conversation, event, &way, batch).await?;
                self.forget_kept(conversation, event, batch)?;
                if *last && sent {
                    self.show_delivery(conversation, place, event);
                }
                Ok(inputs)
            }
            Effect::TakeBack {
                event,
                of,
                from,
                to,
            } => {
                let way = Way {
                    place,
                    from: *from,
                    to: *to,
                };
                self.take_back_there(conversation, event, of, &way).await?;
                Ok(Vec::new())
            }
            Effect::Say { saying, cause } => {
                self.say_in_conversation(conversation, place, saying, cause)
                    .await?;
                Ok(Vec::new())
            }
            Effect::Follow { to, by } => self.follow(conversation, to, by, batch).await,
            Effect::Call { person } => {
                if let Some(person) = conversation.people.get(*person) {
                    self.engine.call(person).await?;
                }
                Ok(Vec::new())
            }
            Effect::Dress { person, cause } => {
                self.dress(conversation, *person, cause.as_ref()).await
            }
            Effect::Leave { person, .. } => self.leave_alone(conversation, *person).await,
            Effect::Rename { event } => self.rename(conversation, event, place).await,
            Effect::Depart | Effect::Retire { .. } => Ok(Vec::new()),
        }
    }
}
