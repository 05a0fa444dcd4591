//! Handles messages that do not reach all of the others: the sender is told.

use std::time::Duration;

use ruma::OwnedEventId;

use crate::{
    clock::Timestamp,
    conversation::{Conversation, Effect, Input, Notice, RoomRole},
    crypto::{DecryptError, Distrust},
    engine::{
        EngineError,
        event::RoomEvent,
        messaging::send::Sent,
        records::{Conversations, QueuedEffect},
        room::Room,
    },
    matrix::{Fate, MatrixError},
    relay::TranslateError,
    store::Batch,
};

/// The notice to the sender of a message with a file that cannot be had.
const NO_FILE: &str = "I couldn't fetch your file from the homeserver that has it, so I didn't pass \
                       it on. Please send it again later.";
/// The notice about messages that were still waiting when the conversation ended.
const SENT_TOO_LATE: &str = "Your last messages weren't delivered, because this conversation has ended. \
                        If they matter, please start a new chat.";
/// The notice to the senders of late messages.
const SAID_TOO_LATE: &str = "A message that you wrote in the room that this one has replaced came \
                             too late to be passed on. Please send it again here.";
/// How long a message waits before its sender is told: a device may be about to be signed.
const WAITS_UNTOLD: Duration = Duration::from_secs(2 * 60);
/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How often senders in a room are told that a message waits: the ones behind it wait too.
const WAITING_TOLD_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the notice to the sender of a message that could not be delivered.
pub(in crate::engine) fn not_delivered(conversation: &Conversation) -> &'static str {
    if conversation.direct {
        "Your message couldn't be delivered. Please try again later."
    } else {
        "Your message couldn't be delivered to everybody. Please try again later."
    }
}

/// Returns the notice to the sender of a message in a room from which the conversation has moved on.
/// They read it where they are now.
pub(in crate::engine) fn said_too_late(
    conversation: &Conversation,
    event: &RoomEvent,
) -> Option<Input> {
    let mut people = conversation.people.iter();
    let by = people.position(|person| person.user == event.sender)?;
    (event.kind == "m.room.encrypted").then(|| Input::NotForwarded {
        role: conversation.home_of(by),
        event: event.id.clone(),
        text: SAID_TOO_LATE.to_owned(),
    })
}

/// Returns what follows if the owner of the portal that an event went to was left out.
pub(in crate::engine) fn cannot_read(
    conversation: &Conversation,
    role: RoomRole,
    target: RoomRole,
    sent: &Sent,
    now: Timestamp,
) -> Option<Input> {
    let RoomRole::Portal(person) = target else {
        return None;
    };
    let owner = conversation.people.get(person)?;
    let day = now.0 / DAY_MS;
    sent.left_out
        .contains(&owner.user)
        .then_some(Input::CannotRead { role, person, day })
}

/// Returns the input that tells a person that something they deleted can still be read elsewhere.
pub(in crate::engine) fn not_deleted(
    conversation: &Conversation,
    role: RoomRole,
    cause: &str,
) -> Input {
    let text = if conversation.direct {
        "I couldn't delete on the other side what you deleted here. It can still be read there."
    } else {
        "I couldn't delete for everybody what was deleted here. Some can still read it."
    };
    Input::NotDeleted {
        role,
        cause: cause.to_owned(),
        text: text.to_owned(),
    }
}

/// Returns why a message from an untrusted device was not forwarded, for its sender.
fn distrusted_text(why: Distrust) -> &'static str {
    match why {
        Distrust::TooManyDevices => {
            "Your message wasn't passed on: your account has too many devices, or their keys are \
             too large. Sign out of the devices that you no longer use, then send it again."
        }
        Distrust::UnknownDevice => {
            "Your message wasn't passed on: your account no longer has the device that you sent it \
             from. Please send it again from one that you have verified."
        }
        Distrust::UnsignedDevice | Distrust::ChangedIdentity => {
            "Your message wasn't passed on: you haven't verified the device that you sent it from. \
             Verify it in your client's settings, then send it again."
        }
    }
}

/// Returns the notice to the sender of a file that is larger than the limit, in bytes.
fn file_too_large(limit: Option<u64>) -> String {
    let than = match limit {
        Some(limit) if limit >= 1 << 20 => {
            format!("{} MB, the most that I can pass on", limit >> 20)
        }
        Some(limit) => format!("{} KB, the most that I can pass on", limit >> 10),
        None => "what I can pass on".to_owned(),
    };
    format!("Your file is larger than {than}. Please send a smaller one.")
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
                let text = self.text_of_failure(conversation, role, event, error, batch)?;
                let told = text.map(|text| Input::NotForwarded {
                    role,
                    event: event.clone(),
                    text,
                });
                told.into_iter().collect()
            }
            (Effect::FollowUpgrade { to, by }, _) => vec![Input::UpgradeFailed {
                to: to.clone(),
                by: by.clone(),
            }],
            (Effect::RedactCopy { event, sender, .. }, _)
                if let Some(conversation) = conversation =>
            {
                let role = role.unwrap_or_else(|| conversation.home_of(*sender));
                vec![not_deleted(conversation, role, event.as_str())]
            }
            (Effect::RedactCopiesOf { person, .. }, Some(role))
                if let Some(conversation) = conversation =>
            {
                let cause = format!("removal of {person}, {}", self.current_effect);
                vec![not_deleted(conversation, role, &cause)]
            }
            (Effect::EnsurePortal { person }, _) => vec![Input::PortalFailed { person: *person }],
            _ => Vec::new(),
        })
    }

    /// Returns what the sender of a message reads that could not be forwarded; `None` if nobody is
    /// told.
    fn text_of_failure(
        &self,
        conversation: &Conversation,
        role: RoomRole,
        event: &OwnedEventId,
        error: &EngineError,
        batch: &mut Batch,
    ) -> Result<Option<String>, EngineError> {
        let text = match error {
            EngineError::KeyOnItsWay
            | EngineError::KeyUnlikely
            | EngineError::Decrypt(
                DecryptError::NoKey { .. } | DecryptError::KeyBeginsLater { .. },
            ) => match self.note_lost_session(conversation, role, event, batch)? {
                Some(text) => text,
                // They were told of an earlier message of the session.
                None => return Ok(None),
            },
            EngineError::Decrypt(DecryptError::Untrusted(distrust)) => distrusted_text(*distrust),
            EngineError::Decrypt(DecryptError::NotUnderstood) => {
                TranslateError::Malformed.notice_text()
            }
            // A replayed or forged event: it is not forwarded.
            EngineError::Decrypt(DecryptError::Replayed { .. } | DecryptError::Malformed(_)) => {
                return Ok(None);
            }
            EngineError::FileUnavailable
            | EngineError::Matrix(
                MatrixError::MediaUnavailable { .. } | MatrixError::MediaMissing,
            ) => NO_FILE,
            EngineError::Matrix(MatrixError::MediaTooLarge { limit }) => {
                return Ok(Some(file_too_large(*limit)));
            }
            _ => not_delivered(conversation),
        };
        Ok(Some(text.to_owned()))
    }

    /// Tells the sender of a message that waits for somebody who can read it. Sent at once, since an
    /// effect would wait behind the message. The words are the same whatever keeps the other side
    /// from reading, which is nobody's business.
    pub(in crate::engine) async fn tell_of_waiting(
        &mut self,
        what: &QueuedEffect,
        error: &EngineError,
    ) -> Result<(), EngineError> {
        let now = self.engine.now();
        let waits = self.fails_since(what, error).map(|at| now.since(at));
        let (
            QueuedEffect::Conversation {
                conversation,
                effect: Effect::ForwardEvent { event, sender, .. },
            },
            EngineError::Encrypt(error),
            Some(here),
        ) = (what, error, &self.record.conversation)
        else {
            return Ok(());
        };
        let is_told = here
            .waiting_told_at
            .is_some_and(|at| now.since(at) < WAITING_TOLD_EVERY);
        if is_told || !error.is_about_readers() || waits.is_none_or(|it| it < WAITS_UNTOLD) {
            return Ok(());
        }
        let known = self
            .engine
            .store()
            .get_cached::<Conversations>(conversation)?;
        let Some(known) = known.filter(|known| !known.ended) else {
            return Ok(());
        };
        let role = known.role_of(&self.id);
        let role = role.unwrap_or_else(|| known.home_of(*sender));
        let cause = format!("waiting {event}");
        let told = self.send_notice_in_conversation(&known, role, &Notice::Waiting, &cause);
        if let Err(error) = told.await {
            tracing::info!(room = %self.id, %error, "a sender could not be told that a message waits");
            return Ok(());
        }
        if let Some(here) = &mut self.record.conversation {
            here.waiting_told_at = Some(now);
        }
        self.commit(Batch::new(), [])
    }

    /// Tells the senders of messages that were still waiting when the conversation ended. One
    /// notice covers all of them, since they have the same cause. Fails only while the homeserver is
    /// away.
    pub(in crate::engine) async fn send_too_late_notice(
        &self,
        conversation: &Conversation,
        from: usize,
    ) -> Result<(), EngineError> {
        let notice = Notice::NotForwarded {
            text: SENT_TOO_LATE.to_owned(),
        };
        let home = conversation.home_of(from);
        let said = self.send_notice_in_conversation(conversation, home, &notice, "too late");
        let Err(error) = said.await else {
            return Ok(());
        };
        let error = self.engine.unless_outage(error).await;
        if error.fate() == Fate::Away {
            return Err(error);
        }
        tracing::info!(room = %self.id, %error, "a notice about undelivered messages could not be sent");
        Ok(())
    }
}
