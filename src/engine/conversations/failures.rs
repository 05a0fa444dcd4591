//! Handles messages that do not reach all of the others: the sender is told.

use crate::{
    conversation::{Conversation, Effect, Input, Notice},
    crypto::{DecryptError, Distrust},
    engine::{EngineError, room::Room},
    introduction::Reason,
    relay::TranslateError,
    store::Batch,
};

/// The notice about messages that were still waiting when the conversation ended.
const SENT_TOO_LATE: &str = "Your last messages weren't delivered, because this conversation has ended. \
                        If they matter, please start a new chat.";
/// Returns the notice to the sender of a message that could not be delivered.
pub(in crate::engine) fn not_delivered(conversation: &Conversation) -> &'static str {
    if conversation.direct {
        "Your message couldn't be delivered. Please try again later."
    } else {
        "Your message couldn't be delivered to everybody. Please try again later."
    }
}

/// Returns why a message from an untrusted device was not forwarded, for its sender.
pub(in crate::engine) fn not_trusted(why: Distrust) -> Reason {
    match why {
        Distrust::TooManyDevices => Reason::TooManyDevices,
        _ => Reason::UnsignedDevice,
    }
}

impl Room {
    /// Returns the inputs that tell a conversation of an effect that will never succeed.
    pub(in crate::engine) fn on_effect_failed(
        &self,
        conversation: Option<&Conversation>,
        effect: &Effect,
        error: &EngineError,
        batch: &mut Batch,
    ) -> Result<Vec<Input>, EngineError> {
        let role = conversation.and_then(|known| known.role_of(&self.id));
        Ok(match (effect, role) {
            (Effect::ForwardEvent { event, sender, .. }, _)
                if let Some(conversation) = conversation =>
            {
                let role = role.unwrap_or_else(|| conversation.home_of(*sender));
                self.forget_retained(conversation, event, batch)?;
                let text = match error {
                    EngineError::KeyOnItsWay
                    | EngineError::Decrypt(
                        DecryptError::NoKey { .. } | DecryptError::KeyBeginsLater { .. },
                    ) => match self.note_lost_session(conversation, role, event, batch)? {
                        Some(text) => text,
                        // They were told of an earlier message of the session.
                        None => return Ok(Vec::new()),
                    },
                    EngineError::Decrypt(DecryptError::Untrusted(distrust)) => {
                        not_trusted(*distrust).words()
                    }
                    EngineError::Decrypt(DecryptError::NotUnderstood) => {
                        TranslateError::Malformed.notice_text()
                    }
                    // A replayed or forged event: it is not forwarded, and nobody is told.
                    EngineError::Decrypt(_) => return Ok(Vec::new()),
                    _ => not_delivered(conversation),
                };
                vec![Input::NotForwarded {
                    role,
                    event: event.clone(),
                    text: text.to_owned(),
                }]
            }
            (Effect::FollowUpgrade { to, by }, _) => vec![Input::UpgradeFailed {
                to: to.clone(),
                by: by.clone(),
            }],
            (Effect::EnsurePortal { person }, _) => vec![Input::PortalFailed { person: *person }],
            _ => Vec::new(),
        })
    }

    /// Tells the senders of messages that were still waiting when the conversation ended. One
    /// notice covers all of them, since they have the same cause.
    pub(in crate::engine) async fn send_too_late_notice(
        &self,
        conversation: &Conversation,
        from: usize,
    ) {
        let notice = Notice::NotForwarded {
            text: SENT_TOO_LATE.to_owned(),
        };
        let home = conversation.home_of(from);
        let said = self.send_notice_in_conversation(conversation, home, &notice, "too late");
        if let Err(error) = said.await {
            tracing::info!(room = %self.id, %error, "a notice about undelivered messages could not be sent");
        }
    }
}
