//! Carries out the effects of conversations. Each can be carried out twice without harm.

use std::time::Duration;

use crate::{
    conversation::{Conversation, Effect, Input},
    crypto::{DecryptError, EncryptError},
    engine::{EngineError, conversations::forward::Route, records::Conversations, room::Room},
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
        let conversation = self.engine.store().known::<Conversations>(&id)?;
        let conversation = conversation.as_deref();
        let mut batch = self.finish(number);
        self.carrying = number;
        let followed = match (conversation, &effect) {
            (_, Effect::DeleteGhosts { ghosts }) => self.retire_ghosts(ghosts).await,
            (_, Effect::LeaveRoom) => self.depart(&id, conversation, &mut batch).await,
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
                    && let (true, Effect::ForwardEvent { sender, .. }) =
                        (conversation.ended, &effect)
                {
                    self.say_too_late(conversation, *sender).await;
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
        if let Effect::FollowUpgrade { to, .. } = &effect {
            engine.wake(to);
        }
        if effect == Effect::LeaveRoom {
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
            (Effect::LeaveRoom | Effect::DeleteGhosts { .. }, _) => return true,
            (Effect::RemoveGhost { .. }, error) => return error.is_transient(),
            (
                Effect::ForwardEvent { .. },
                EngineError::KeyOnItsWay | EngineError::CounterpartOnItsWay,
            ) => settings.relay.wait_for_key,
            // A sender whose server is silent holds up nobody else's messages.
            (Effect::ForwardEvent { .. }, EngineError::Decrypt(DecryptError::SenderUnknown)) => {
                return false;
            }
            // A person without a signed device is waited for, as in an introduction.
            (Effect::ForwardEvent { .. }, _) if cannot_read => settings.rules.wait_for_owner,
            (Effect::FollowUpgrade { .. }, _) => WAIT_FOR_INVITE,
            (
                Effect::EnsurePortal { .. }
                | Effect::ForwardEvent { .. }
                | Effect::RedactCopy { .. },
                _,
            ) => INSIST,
            (
                Effect::SendNotice { .. }
                | Effect::SetGhostName { .. }
                | Effect::SyncPortalInfo { .. }
                | Effect::RenameOrigin { .. },
                _,
            ) => INSIST_LITTLE,
        };
        (error.is_transient() || cannot_read && matches!(effect, Effect::ForwardEvent { .. }))
            && !self.has_insisted(number, at_most, error)
    }

    pub(in crate::engine) async fn perform_relay(
        &mut self,
        conversation: &Conversation,
        effect: &Effect,
        batch: &mut Batch,
    ) -> Result<Vec<Input>, EngineError> {
        let role = match (conversation.role_of(&self.id), effect) {
            (Some(role), _) => role,
            // The conversation has moved on, and what was said here before goes where it was to.
            (None, Effect::ForwardEvent { sender, .. } | Effect::RedactCopy { sender, .. }) => {
                conversation.home_of(*sender)
            }
            (None, _) => return Ok(Vec::new()),
        };
        match effect {
            Effect::EnsurePortal { person } => self.furnish(conversation, *person).await,
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
                let (sent, inputs) = self.carry(conversation, event, &route, batch).await?;
                self.forget_kept(conversation, event, batch)?;
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
                self.take_back_there(conversation, event, of, &route)
                    .await?;
                Ok(Vec::new())
            }
            Effect::SendNotice { notice, cause } => {
                self.say_in_conversation(conversation, role, notice, cause)
                    .await?;
                Ok(Vec::new())
            }
            Effect::FollowUpgrade { to, by } => self.follow(conversation, to, by, batch).await,
            Effect::SetGhostName { person } => {
                if let Some(person) = conversation.people.get(*person) {
                    self.engine.call(person).await?;
                }
                Ok(Vec::new())
            }
            Effect::SyncPortalInfo { person, cause } => {
                self.dress(conversation, *person, cause.as_ref()).await
            }
            Effect::RemoveGhost { person, .. } => self.leave_alone(conversation, *person).await,
            Effect::RenameOrigin { event } => self.rename(conversation, event, role).await,
            Effect::LeaveRoom | Effect::DeleteGhosts { .. } => Ok(Vec::new()),
        }
    }
}
