//! Carries out the effects of conversations. Each can be carried out twice without harm.

use crate::{
    conversation::{Conversation, Effect, Input},
    engine::{EngineError, conversations::forward::Route, records::Conversations, room::Room},
    ids::ConversationId,
    store::Batch,
};

impl Room {
    /// Carries out an effect of a conversation.
    pub(in crate::engine) async fn perform_conversation(
        &mut self,
        number: u64,
        id: &ConversationId,
        effect: &Effect,
    ) -> Result<(), EngineError> {
        let conversation = self.engine.store().get_cached::<Conversations>(id)?;
        let conversation = conversation.as_deref();
        let mut batch = self.outbox_done(number);
        let inputs = match (conversation, effect) {
            (_, Effect::DeleteGhosts { ghosts }) => self.delete_ghosts(ghosts).await?,
            (_, Effect::LeaveRoom) => {
                self.leave_conversation_room(id, conversation, false, &mut batch)
                    .await?
            }
            (Some(conversation), effect) => {
                self.perform_effect_of(conversation, effect, &mut batch)
                    .await?
            }
            (None, _) => Vec::new(),
        };
        self.conversation_goes_on(id, effect, &inputs, batch).await
    }

    /// Lets the conversation decide what follows when an effect is given up.
    pub(in crate::engine) async fn give_up_conversation(
        &mut self,
        number: u64,
        id: &ConversationId,
        effect: &Effect,
        error: &EngineError,
    ) -> Result<(), EngineError> {
        let conversation = self.engine.store().get_cached::<Conversations>(id)?;
        let conversation = conversation.as_deref();
        let mut batch = self.outbox_done(number);
        if let Some(conversation) = conversation.filter(|known| known.ended)
            && let Effect::ForwardEvent { sender, .. } = effect
        {
            self.send_too_late_notice(conversation, *sender).await?;
        }
        if let (Effect::RemoveGhost { person }, Some(conversation)) = (effect, conversation) {
            self.give_up_removing(conversation, *person).await?;
        }
        let inputs = if *effect == Effect::LeaveRoom {
            self.leave_conversation_room(id, conversation, true, &mut batch)
                .await?
        } else {
            self.on_effect_failed(conversation, effect, error, &mut batch)?
        };
        self.conversation_goes_on(id, effect, &inputs, batch).await
    }

    async fn conversation_goes_on(
        &mut self,
        id: &ConversationId,
        effect: &Effect,
        inputs: &[Input],
        batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        if inputs.is_empty() {
            // Only the batch is written: the room's own record is unchanged.
            return Ok(engine.store().apply(batch)?);
        }
        self.apply(id, inputs, batch).await?;
        if let Effect::FollowUpgrade { to, .. } = effect {
            engine.wake(to);
        }
        if *effect == Effect::LeaveRoom {
            engine.0.room_left.notify_waiters();
        }
        Ok(())
    }

    async fn perform_effect_of(
        &mut self,
        conversation: &Conversation,
        effect: &Effect,
        batch: &mut Batch,
    ) -> Result<Vec<Input>, EngineError> {
        let role = match (conversation.role_of(&self.id), effect) {
            (Some(role), _) => role,
            // The conversation has moved to another room; messages from here go where they were
            // meant to go.
            (None, Effect::ForwardEvent { sender, .. } | Effect::RedactCopy { sender, .. }) => {
                conversation.home_of(*sender)
            }
            (None, _) => return Ok(Vec::new()),
        };
        match effect {
            Effect::EnsurePortal { person } => self.ensure_portal(conversation, *person).await,
            Effect::ForwardEvent {
                event,
                sender,
                target,
                is_last,
            } => {
                let route = Route {
                    source: role,
                    sender: *sender,
                    target: *target,
                };
                let (sent, inputs) = self
                    .forward_event(conversation, event, &route, batch)
                    .await?;
                self.forget_retained(conversation, event, batch)?;
                if *is_last && sent {
                    self.show_delivery(conversation, role, event);
                }
                Ok(inputs)
            }
            Effect::RedactCopy {
                event,
                of,
                sender,
                target,
            } => {
                let route = Route {
                    source: role,
                    sender: *sender,
                    target: *target,
                };
                self.redact_copy(conversation, event, of, &route).await
            }
            Effect::RedactCopiesOf { person, target } => {
                self.redact_copies_of(conversation, *person, *target)
                    .await?;
                Ok(Vec::new())
            }
            Effect::SendNotice { notice, cause } => {
                self.send_notice_in_conversation(conversation, role, notice, cause)
                    .await?;
                Ok(Vec::new())
            }
            Effect::FollowUpgrade { to, by } => {
                self.follow_upgrade(conversation, to, by, batch).await
            }
            Effect::DeclineVerification { event, ghost } => {
                self.refuse_verification(ghost, event).await?;
                Ok(Vec::new())
            }
            Effect::SetGhostName { person } => {
                if let Some(person) = conversation.people.get(*person) {
                    self.engine.set_ghost_name(person).await?;
                }
                Ok(Vec::new())
            }
            Effect::SyncPortalInfo { person, cause } => {
                self.sync_portal_info(conversation, *person, cause.as_ref())
                    .await
            }
            Effect::RemoveGhost { person } => self.remove_ghost(conversation, *person).await,
            Effect::RenameOrigin { event } => {
                self.rename_origin_by(conversation, event, role).await
            }
            Effect::LeaveRoom | Effect::DeleteGhosts { .. } => Ok(Vec::new()),
        }
    }
}
