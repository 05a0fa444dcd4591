//! Carries out the effects of conversations. Each can be carried out twice without harm.

use crate::{
    engine::{EngineError, conversations::forward::Way, records::Conversations, room::Room},
    relay::{Conversation, Effect, Input},
    store::Batch,
};

impl Room {
    /// Carries out an effect of a conversation.
    pub(in crate::engine) async fn perform_relay(
        &mut self,
        number: u64,
        id: &str,
        effect: &Effect,
    ) -> Result<(), EngineError> {
        let conversation = self.engine.store().known::<Conversations>(&id.to_owned())?;
        let conversation = conversation.as_deref();
        let mut batch = self.finish(number);
        let inputs = match (conversation, effect) {
            (_, Effect::Retire { ghosts }) => self.retire_ghosts(ghosts).await?,
            (_, Effect::Depart) => self.depart(id, conversation, &mut batch).await?,
            (Some(conversation), effect) => {
                self.perform_effect_of(conversation, effect, &mut batch)
                    .await?
            }
            (None, _) => Vec::new(),
        };
        self.conversation_goes_on(id, effect, &inputs, batch).await
    }

    /// Lets the conversation decide what follows from an effect that is given up.
    pub(in crate::engine) async fn give_up_relay(
        &mut self,
        number: u64,
        id: &str,
        effect: &Effect,
        error: &EngineError,
    ) -> Result<(), EngineError> {
        let conversation = self.engine.store().known::<Conversations>(&id.to_owned())?;
        let conversation = conversation.as_deref();
        let mut batch = self.finish(number);
        if let Some(conversation) = conversation.filter(|known| known.ended)
            && let Effect::Carry { from, .. } = effect
        {
            self.say_too_late(conversation, *from).await;
        }
        let inputs = self.not_done(conversation, effect, error, &mut batch)?;
        self.conversation_goes_on(id, effect, &inputs, batch).await
    }

    async fn conversation_goes_on(
        &mut self,
        id: &str,
        effect: &Effect,
        inputs: &[Input],
        batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        if inputs.is_empty() {
            // Nothing changes but what the batch says: the room's own record stays as it is.
            return Ok(engine.store().apply(batch)?);
        }
        self.apply(id, inputs, batch)?;
        if let Effect::Follow { to, .. } = effect {
            engine.wake(to);
        }
        if *effect == Effect::Depart {
            engine.0.departed.notify_waiters();
        }
        Ok(())
    }

    async fn perform_effect_of(
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
