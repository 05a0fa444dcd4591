//! Handles what happens in a room with introductions.

use ruma::{OwnedEventId, OwnedUserId};
use serde_json::{Map, Value};

use crate::{
    crypto::{DecryptError, Distrust},
    engine::{
        EngineError,
        event::RoomEvent,
        records::{QueuedEffect, RetainedEvents},
        room::Room,
    },
    ids::Ghost,
    introduction::{
        Effect, Input, Introduction, MessageKind, PendingEvent, Phase, QuoteError, check_quotable,
        decide_in_room,
    },
    matrix::event_type::{
        continues_call, is_unseen, is_verification, is_verification_request, verified_user,
    },
    store::Batch,
};

impl Room {
    /// Lets the decider decide, also for the other ghosts whom it concerns. Keeps the new states and
    /// returns the effects.
    pub(in crate::engine) fn apply_to_introduction(
        &mut self,
        ghost: &Ghost,
        input: &Input,
    ) -> Vec<QueuedEffect> {
        let here = &mut self.record.introductions;
        let (now, rules) = (self.engine.now(), &self.engine.settings().rules);
        let effects = decide_in_room(here, &self.id, ghost, input, now, rules);
        if let Some(decided) = here
            .iter()
            .find(|introduction| introduction.ghost == *ghost)
        {
            let phase = &decided.phase;
            tracing::debug!(room = %self.id, %ghost, ?phase, "an introduction has decided");
        }
        let effects = effects.into_iter();
        effects
            .map(|(ghost, effect)| QueuedEffect::Introduction { ghost, effect })
            .collect()
    }

    /// Handles an event in a room with introductions.
    pub(in crate::engine) async fn handle_in_introduction(
        &mut self,
        event: RoomEvent,
        json: &str,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let mut effects = self.declined_verification(&event);
        let open: Vec<Introduction> = self
            .record
            .introductions
            .iter()
            .filter(|introduction| introduction.is_open())
            .cloned()
            .collect();
        for introduction in open {
            let input = match event.membership() {
                Some((user, membership)) => {
                    // The homeserver reports no device-list change when somebody joins.
                    let came = std::slice::from_ref(&user);
                    self.engine
                        .machines()
                        .mark_device_lists_outdated(&introduction.ghost, came)
                        .await;
                    // Whom somebody else removes has not gone by themselves.
                    let membership = match membership {
                        "leave" if event.sender != *user => "ban",
                        membership => membership,
                    };
                    Some(Input::Member {
                        user,
                        membership: membership.to_owned(),
                    })
                }
                None if self.engine.is_ours(&event.sender) => None,
                None => {
                    self.what_was_said(&introduction, &event, json, &mut batch)
                        .await?
                }
            };
            if let Some(input) = input {
                let declining = matches!(introduction.phase, Phase::Declining { .. });
                effects.extend(self.apply_to_introduction(&introduction.ghost, &input));
                // The invite was withdrawn before it was declined.
                if declining && self.drop_declined(&introduction.ghost) {
                    self.turn_away_unless_invited(&introduction.ghost).await?;
                }
            }
        }
        self.commit(batch, effects)
    }

    /// Returns the effect that declines a request to verify a ghost's keys, if this event is one.
    fn declined_verification(&mut self, event: &RoomEvent) -> Vec<QueuedEffect> {
        if !event.is_verification_request() {
            return Vec::new();
        }
        let of = event.verified_user();
        let addressed = |introduction: &&Introduction| {
            // A strict ghost never speaks.
            introduction.hears()
                && !introduction.strict()
                && event.sender == introduction.invite.asker
                && of.as_ref() == Some(&*introduction.ghost)
        };
        let ghosts = self.record.introductions.iter().filter(addressed);
        let declines: Vec<QueuedEffect> = ghosts
            .map(|introduction| QueuedEffect::Introduction {
                ghost: introduction.ghost.clone(),
                effect: Effect::DeclineVerification {
                    event: event.id.clone(),
                },
            })
            .collect();
        if declines.is_empty() || !self.may_decline_verification() {
            return Vec::new();
        }
        declines
    }

    async fn what_was_said(
        &self,
        introduction: &Introduction,
        event: &RoomEvent,
        json: &str,
        batch: &mut Batch,
    ) -> Result<Option<Input>, EngineError> {
        // Whether it is a group, and of which kind, is known once the ghost has looked.
        let counts = introduction.listens()
            || introduction.strict()
            || matches!(introduction.phase, Phase::Joining | Phase::Looking);
        if !introduction.hears() || event.sender != introduction.invite.asker || !counts {
            return Ok(None);
        }
        let kind = match event.kind.as_str() {
            "m.room.encrypted" if introduction.strict() => Some(MessageKind::Sealed),
            "m.room.encrypted" => self.classify_encrypted(&introduction.ghost, json).await?,
            _ if event.is_verification_request() => None,
            "m.room.redaction" => event
                .redacts
                .clone()
                .map(|of| MessageKind::Redaction { of }),
            _ if event.is_said_in_clear() => Some(MessageKind::Plaintext),
            _ => None,
        };
        self.keep(introduction, event, kind.as_ref(), json, batch)?;
        let (event, sender) = (event.id.clone(), event.sender.clone());
        Ok(kind.map(|kind| Input::Message {
            event,
            sender,
            kind,
        }))
    }

    /// Retains, as ciphertext, what may have to be passed on: each message once, with its newest
    /// edits.
    fn keep(
        &self,
        introduction: &Introduction,
        event: &RoomEvent,
        kind: Option<&MessageKind>,
        json: &str,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let place = |event: &OwnedEventId| (self.id.clone(), event.clone());
        let pending = |of: &OwnedEventId| {
            introduction
                .pending
                .iter()
                .find(|pending| pending.event == *of)
        };
        // A conversation or another introduction in the same room may need it.
        let alone = self.record.conversation.is_none() && self.record.introductions.len() == 1;
        let may_go = |event: &OwnedEventId| -> Result<bool, EngineError> {
            Ok(alone || !self.is_event_needed(event, Some(&introduction.ghost))?)
        };
        let is_known = pending(&event.id).is_some();
        let free = is_known
            || introduction.pending.len() < self.engine.settings().rules.pending_events_max;
        let keep = match kind {
            Some(MessageKind::Edit { of }) if let Some(pending) = pending(of) => {
                // What is on its way to the owner is followed by the newer edit.
                let mut here = self.record.introductions.iter();
                if let Some(former) = pending.edit_to_drop()
                    && !here.any(|it| it.passing_on.as_ref() == Some(of))
                    && may_go(former)?
                {
                    batch.delete::<RetainedEvents>(&place(former));
                }
                true
            }
            Some(MessageKind::Redaction { of }) => {
                let edits = pending(of).into_iter().flat_map(PendingEvent::edits);
                for event in edits.chain([of]) {
                    if may_go(event)? {
                        batch.delete::<RetainedEvents>(&place(event));
                    }
                }
                false
            }
            Some(MessageKind::Line | MessageKind::Edit { .. } | MessageKind::Unreadable) => free,
            _ => false,
        };
        if keep {
            batch.put::<RetainedEvents>(&place(&event.id), &json.to_owned())?;
        } else if is_known && may_go(&event.id)? {
            // It waited for its key, and is no message.
            batch.delete::<RetainedEvents>(&place(&event.id));
        }
        Ok(())
    }

    /// Decrypts an event only to see its kind; it is decrypted again when it is passed on.
    pub(in crate::engine) async fn classify_encrypted(
        &self,
        ghost: &Ghost,
        json: &str,
    ) -> Result<Option<MessageKind>, EngineError> {
        Ok(match self.decrypt(ghost, json).await {
            // Unencrypted ones are declined without being read.
            Ok((kind, content))
                if is_verification_request(&kind, &content)
                    && verified_user(&content).as_ref() == Some(&**ghost) =>
            {
                Some(MessageKind::Verification)
            }
            Ok((kind, content)) => message_kind(&kind, &content),
            // Nothing is known about the event yet: it is tried again.
            Err(error) if error.is_transient() => return Err(error),
            Err(EngineError::Decrypt(error)) => match error {
                DecryptError::NoKey { .. } | DecryptError::KeyBeginsLater { .. } => {
                    Some(MessageKind::Unreadable)
                }
                DecryptError::Untrusted(Distrust::TooManyDevices) => {
                    Some(MessageKind::TooManyDevices)
                }
                DecryptError::Untrusted { .. } => Some(MessageKind::Untrusted),
                DecryptError::NotUnderstood => Some(MessageKind::Other),
                // A replayed or forged event: it is not passed on, and nobody is told.
                error => {
                    tracing::warn!(room = %self.id, %error, "an event is ignored");
                    None
                }
            },
            Err(error) => return Err(error),
        })
    }

    /// Retries the messages that waited for a room key.
    pub(in crate::engine) async fn retry_messages_with_key(
        &mut self,
        ghost: &Ghost,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let Some(introduction) = self
            .record
            .introductions
            .iter()
            .find(|introduction| introduction.ghost == *ghost)
        else {
            return Ok(self.engine.store().apply(batch)?);
        };
        let waiting: Vec<OwnedEventId> = introduction
            .pending
            .iter()
            .filter(|pending| pending.unreadable)
            .map(|h| h.event.clone())
            .collect();
        let mut effects = Vec::new();
        for event in waiting {
            let Some(json) = self
                .engine
                .store()
                .get::<RetainedEvents>(&(self.id.clone(), event))?
            else {
                continue;
            };
            let Some(event) = RoomEvent::parse(&json, Some(&self.id)) else {
                continue;
            };
            let kind = self.classify_encrypted(ghost, &json).await?;
            let kind = kind.unwrap_or(MessageKind::Nothing);
            if kind == MessageKind::Unreadable {
                continue;
            }
            let mut introductions = self.record.introductions.iter();
            let Some(introduction) =
                introductions.find(|introduction| introduction.ghost == *ghost)
            else {
                break;
            };
            self.keep(introduction, &event, Some(&kind), &json, &mut batch)?;
            let input = Input::Message {
                event: event.id,
                sender: event.sender,
                kind,
            };
            effects.extend(self.apply_to_introduction(ghost, &input));
        }
        self.commit(batch, effects)
    }

    /// Handles that somebody has sent a key to a strict ghost.
    pub(in crate::engine) fn key_for_strict(
        &mut self,
        ghost: &Ghost,
        sender: &OwnedUserId,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let concerned = self.record.introductions.iter();
        let concerned = concerned.filter(|introduction| {
            introduction.ghost == *ghost && introduction.invite.asker == *sender
        });
        let effects = match concerned.count() {
            0 => Vec::new(),
            _ => self.apply_to_introduction(ghost, &Input::KeyCame),
        };
        self.commit(batch, effects)
    }

    pub(in crate::engine) fn tick_introductions(&mut self) -> Result<(), EngineError> {
        let (now, rules) = (self.engine.now(), &self.engine.settings().rules);
        let due = self.record.introductions.iter();
        let due =
            due.filter(|introduction| introduction.deadline(rules).is_some_and(|at| at <= now));
        let ghosts: Vec<Ghost> = due.map(|introduction| introduction.ghost.clone()).collect();
        let mut effects = Vec::new();
        for ghost in ghosts {
            effects.extend(self.apply_to_introduction(&ghost, &Input::Tick));
        }
        self.commit(Batch::new(), effects)
    }
}

/// Returns what a decrypted event is to an introduction, or `None` if it does not concern the ghost:
/// verification and reactions are between the two people, the steps of a call follow on its invite,
/// and nobody sees what else clients exchange or what a redaction has left.
pub(in crate::engine) fn message_kind(kind: &str, content: &Value) -> Option<MessageKind> {
    let is_redacted = content.as_object().is_some_and(Map::is_empty);
    if is_redacted
        || kind == "m.reaction"
        || is_verification(kind, content)
        || continues_call(kind)
        || is_unseen(kind)
    {
        return None;
    }
    let relation = &content["m.relates_to"];
    // An edit of nothing holds the whole text, and is passed on as a message.
    if relation["rel_type"] == "m.replace"
        && let Some(of) = relation["event_id"].as_str()
        && let Ok(of) = of.try_into()
    {
        return Some(MessageKind::Edit { of });
    }
    Some(match check_quotable(kind, content) {
        Ok(()) => MessageKind::Line,
        Err(QuoteError::PlainAttachment) => MessageKind::PlainFile,
        Err(QuoteError::NotAMessage | QuoteError::Malformed) => MessageKind::Other,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_can_be_quoted_is_a_message() {
        let file = json!({ "url": "mxc://hs.test/x", "key": { "k": "a2V5" }, "iv": "AAAA" });
        let unusable = json!({ "url": "mxc://hs.test/x" });
        let gallery = json!({ "msgtype": "dm.filament.gallery", "body": "two pictures",
            "itemtypes": [{ "itemtype": "m.image", "file": file }] });
        for (content, expected) in [
            (
                json!({ "msgtype": "m.text", "body": "hello" }),
                Some(MessageKind::Line),
            ),
            (
                json!({ "msgtype": "m.image", "body": "x.png", "file": file }),
                Some(MessageKind::Line),
            ),
            (
                json!({ "msgtype": "org.example.haiku", "body": "…" }),
                Some(MessageKind::Line),
            ),
            (
                json!({ "msgtype": "m.image", "body": "x.png", "file": unusable }),
                Some(MessageKind::Other),
            ),
            (gallery, Some(MessageKind::Other)),
            // Not encrypted.
            (
                json!({ "msgtype": "m.image", "body": "x.png", "url": "mxc://hs.test/x" }),
                Some(MessageKind::PlainFile),
            ),
            (
                json!({ "msgtype": "m.image", "body": "x.png" }),
                Some(MessageKind::Other),
            ),
            (json!({ "msgtype": "m.text" }), Some(MessageKind::Other)),
            (json!({}), None),
            (
                json!({ "msgtype": "m.key.verification.request", "body": "" }),
                None,
            ),
        ] {
            let kind = message_kind("m.room.message", &content);
            assert_eq!(kind, expected, "{content}");
        }
        let content = json!({ "body": "x", "url": "mxc://hs.test/x" });
        for (kind, expected) in [
            ("m.poll.start", Some(MessageKind::Other)),
            ("m.call.invite", Some(MessageKind::Other)),
            ("m.sticker", Some(MessageKind::PlainFile)),
            ("m.reaction", None),
            ("m.call.candidates", None),
            ("m.call.hangup", None),
            ("m.room_key_bundle", None),
            ("m.dummy", None),
            ("m.key.verification.mac", None),
        ] {
            assert_eq!(message_kind(kind, &content), expected, "{kind}");
        }
    }
}
