//! Handles what happens in a room with introductions.

use ruma::{OwnedEventId, OwnedUserId};
use serde_json::Value;

use crate::{
    crypto::{DecryptError, Distrust},
    engine::{
        EngineError,
        event::RoomEvent,
        introductions::admission::admission,
        records::{InboxItem, QueuedEffect, RetainedEvents},
        room::Room,
    },
    ids::{Ghost, Person},
    introduction::{Admission, Input, Introduction, Invite, MessageKind, Phase, decide},
    store::Batch,
};

impl Room {
    /// Handles an invite of a ghost by `asker`.
    pub(in crate::engine) async fn ghost_invited(
        &mut self,
        ghost: &Ghost,
        asker: &OwnedUserId,
        direct: bool,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        // A repeated invite, or one into a room that the ghost has left. Neither asks the
        // directory, which would count it against the asker's limits.
        let known = self
            .record
            .introductions
            .iter()
            .find(|introduction| introduction.ghost == *ghost);
        let engine = self.engine.clone();
        if self.has_ghost(ghost) {
            return self.commit(batch, []);
        }
        if known.is_none()
            && let Some(old) = engine.predecessor_of(ghost, asker, &self.id).await?
        {
            let upgraded = InboxItem::UpgradeSeen {
                to: self.id.clone(),
                by: Person::new(asker.clone()),
            };
            return self.commit_and_post(&old, &upgraded, batch);
        }
        let (admission, lock) = match known {
            Some(introduction) if introduction.phase != Phase::Declined => {
                (introduction.invite.admission.clone(), None)
            }
            // Inviting more ghosts than this into one room looks like a search for handles.
            _ if self.record.introductions.len() >= engine.settings().handles_per_room => {
                (Admission::NotNow, None)
            }
            _ => admission(&engine, ghost, asker, direct, &mut batch).await?,
        };
        let left_alone = admission == Admission::LeaveAlone;
        let input = Input::Invited(Invite {
            asker: asker.clone(),
            admission,
        });
        let effects = self.apply_to_introduction(ghost, &input);
        if effects.is_empty() {
            self.drop_declined(ghost);
        }
        self.commit(batch, effects)?;
        drop(lock);
        if left_alone {
            self.engine.machines().turn_away(ghost, &self.id).await?;
        }
        Ok(())
    }

    /// Forgets a declined invite without a trace.
    pub(in crate::engine) fn drop_declined(&mut self, ghost: &Ghost) {
        let introductions = &mut self.record.introductions;
        introductions.retain(|introduction| {
            introduction.ghost != *ghost || introduction.phase != Phase::Declined
        });
    }

    /// Lets the decider decide. Keeps the new state and returns the effects.
    pub(in crate::engine) fn apply_to_introduction(
        &mut self,
        ghost: &Ghost,
        input: &Input,
    ) -> Vec<QueuedEffect> {
        let introductions = &mut self.record.introductions;
        let at = introductions
            .iter()
            .position(|introduction| introduction.ghost == *ghost);
        let state = at.map(|at| introductions.remove(at));
        let (now, rules) = (self.engine.now(), &self.engine.settings().rules);
        let Some(decision) = decide(state, &self.id, ghost, input, now, rules) else {
            return Vec::new();
        };
        let phase = &decision.state.phase;
        tracing::debug!(room = %self.id, %ghost, ?phase, "an introduction has decided");
        introductions.insert(at.unwrap_or(introductions.len()), decision.state);
        let effects = decision.effects.into_iter();
        effects
            .map(|effect| QueuedEffect::Introduction {
                ghost: ghost.clone(),
                effect,
            })
            .collect()
    }

    /// Handles an event in a room with introductions.
    pub(in crate::engine) async fn handle_in_introduction(
        &mut self,
        event: RoomEvent,
        json: &str,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let mut effects = Vec::new();
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
                if declining {
                    self.drop_declined(&introduction.ghost);
                }
            }
        }
        self.commit(batch, effects)
    }

    async fn what_was_said(
        &self,
        introduction: &Introduction,
        event: &RoomEvent,
        json: &str,
        batch: &mut Batch,
    ) -> Result<Option<Input>, EngineError> {
        // Nothing is passed on in a group.
        let counts =
            introduction.direct || matches!(introduction.phase, Phase::Joining | Phase::Looking);
        if !introduction.hears() || event.sender != introduction.invite.asker || !counts {
            return Ok(None);
        }
        let kind = match event.kind.as_str() {
            "m.room.encrypted" if introduction.strict() => Some(MessageKind::Sealed),
            "m.room.encrypted" => self.classify_encrypted(&introduction.ghost, json).await?,
            "m.room.message" | "m.sticker" if event.state_key.is_none() => {
                Some(MessageKind::Plaintext)
            }
            "m.room.redaction" => event
                .redacts
                .clone()
                .map(|of| MessageKind::Redaction { of }),
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
    /// edit.
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
        // A conversation in the same room may have to forward it.
        let may_go = |event: &OwnedEventId| -> Result<bool, EngineError> {
            Ok(self.record.conversation.is_none()
                || !self.is_event_needed(event, Some(&introduction.ghost))?)
        };
        let free = introduction.pending.len() < self.engine.settings().rules.pending_events_max;
        let keep = match kind {
            Some(MessageKind::Edit { of }) if let Some(pending) = pending(of) => {
                if let Some(former) = &pending.edit
                    && may_go(former)?
                {
                    batch.delete::<RetainedEvents>(&place(former));
                }
                true
            }
            Some(MessageKind::Redaction { of }) => {
                let edit = pending(of).map(|pending| pending.edit.iter());
                for event in edit.into_iter().flat_map(|edit| edit.chain([of])) {
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
            if let Some(kind) = self.classify_encrypted(ghost, &json).await?
                && kind != MessageKind::Unreadable
            {
                batch.put::<RetainedEvents>(&(self.id.clone(), event.id.clone()), &json)?;
                let input = Input::Message {
                    event: event.id,
                    sender: event.sender,
                    kind,
                };
                effects.extend(self.apply_to_introduction(ghost, &input));
            }
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

pub(in crate::engine) fn message_kind(kind: &str, content: &Value) -> Option<MessageKind> {
    let relation = &content["m.relates_to"];
    // An edit of nothing holds the whole text, and is passed on as a message.
    if relation["rel_type"] == "m.replace"
        && let Some(of) = relation["event_id"].as_str()
        && let Ok(of) = of.try_into()
    {
        return Some(MessageKind::Edit { of });
    }
    match kind {
        "m.room.message"
            if content["msgtype"]
                .as_str()
                .is_some_and(|t| t.starts_with("m.key.verification")) =>
        {
            None
        }
        "m.room.message" | "m.sticker" => Some(MessageKind::Line),
        // Verification and reactions concern the two people, not the ghost.
        kind if kind.starts_with("m.key.verification") || kind == "m.reaction" => None,
        _ => Some(MessageKind::Other),
    }
}
