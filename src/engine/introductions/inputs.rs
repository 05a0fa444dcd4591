//! Handles what happens in a room with introductions.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::Value;

use crate::{
    bot,
    crypto::{DecryptError, Distrust},
    directory::WriteLock,
    engine::{
        Engine, EngineError,
        event::RoomEvent,
        introductions::admission::{GhostInvite, admission},
        records::{ControlRooms, InboxItem, QueuedEffect, RetainedEvents},
        room::Room,
    },
    handle::Handle,
    ids::{Ghost, Person},
    introduction::{
        Admission, Effect, Input, Introduction, Invite, MessageKind, Phase, decide, is_quotable,
    },
    store::Batch,
};

/// Maximum number of invites that are about to be declined in one room. Further ones are left alone.
const DECLINING_MAX: usize = 50;

impl Room {
    /// Handles an invite of a ghost.
    pub(in crate::engine) async fn ghost_invited(
        &mut self,
        invite: GhostInvite<'_>,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let GhostInvite { ghost, asker, .. } = invite;
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
        if let Some(handle) = Handle::misspelt_ghost(ghost.localpart()) {
            return self.misspelt_ghost_invited(invite, &handle, batch).await;
        }
        // A repeated invite, or one into a room that the ghost has left. Neither asks the
        // directory, which would count it against the asker's limits.
        let (admission, lock) = match known {
            Some(introduction) if introduction.phase != Phase::Declined => {
                (introduction.invite.admission.clone(), None)
            }
            _ => self.admission_here(&engine, invite, &mut batch).await?,
        };
        let left_alone = admission == Admission::LeaveAlone;
        let told = match admission {
            Admission::OwnHandle => self.tell_owner_of_handle(ghost, asker, &mut batch)?,
            _ => None,
        };
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
        if let Some(control_room) = told {
            engine.wake(&control_room);
        }
        if left_alone {
            self.engine.machines().turn_away(ghost, &self.id).await?;
        }
        Ok(())
    }

    /// Lets the bot tell an owner why their own handle's ghost declines, if they have a control
    /// room: the words of the decline are for everybody. Returns the room to wake.
    fn tell_owner_of_handle(
        &self,
        ghost: &Ghost,
        owner: &OwnedUserId,
        batch: &mut Batch,
    ) -> Result<Option<OwnedRoomId>, EngineError> {
        let engine = &self.engine;
        let owner = Person::new(owner.clone());
        let room = engine.store().get::<ControlRooms>(&owner)?;
        let record = engine.directory().by_ghost(ghost)?;
        let (Some(room), Some(record)) = (room, record) else {
            return Ok(None);
        };
        let notice = bot::texts::own_handle(&record.handle);
        let item = InboxItem::Notify {
            person: owner.clone(),
            plain: notice.plain,
            html: notice.html,
            source: format!("own handle {} {ghost}", self.id),
        };
        engine.stage(&room, &item, batch)?;
        Ok(Some(room))
    }

    /// Returns the answer to an invite into this room. A person who invites many ghosts into one
    /// room searches for handles, or wants us to make users.
    async fn admission_here<'a>(
        &self,
        engine: &'a Engine,
        invite: GhostInvite<'_>,
        batch: &mut Batch,
    ) -> Result<(Admission, Option<WriteLock<'a>>), EngineError> {
        let open = |introduction: &&Introduction| introduction.is_open();
        let declining =
            |introduction: &&Introduction| matches!(introduction.phase, Phase::Declining { .. });
        let introductions = &self.record.introductions;
        if introductions.iter().filter(declining).count() >= DECLINING_MAX {
            return Ok((Admission::LeaveAlone, None));
        }
        // A handle that nobody holds is left to the directory, which counts how many of these are
        // declined.
        if introductions.iter().filter(open).count() >= engine.settings().handles_per_room
            && engine
                .directory()
                .by_ghost(invite.ghost)?
                .is_some_and(|it| it.holder().is_some())
        {
            return Ok((Admission::NotNow, None));
        }
        admission(engine, invite, batch).await
    }

    /// Tells a person that the ghost they have invited does not exist, because its name has small
    /// letters only. They are told the same whether anybody holds the handle or not, once a day.
    async fn misspelt_ghost_invited(
        &mut self,
        invite: GhostInvite<'_>,
        handle: &Handle,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        engine.machines().turn_away(invite.ghost, &self.id).await?;
        let asker = Person::new(invite.asker.clone());
        let ghost = handle.ghost_id(&engine.settings().server_name);
        let (false, Some(ghost)) = (engine.is_ours(&asker), ghost) else {
            return self.commit(batch, []);
        };
        let (directory, now) = (engine.directory(), engine.now());
        if !directory.begin().await.count_misspelt(&asker, now)? {
            return self.commit(batch, []);
        }
        // May make a room, so without the directory's lock.
        let room = engine.control_room_of(&asker).await?;
        let notice = bot::texts::misspelt_ghost(invite.ghost, &ghost, handle);
        let item = InboxItem::Notify {
            person: asker.clone(),
            plain: notice.plain,
            html: notice.html,
            source: format!("misspelt {}", self.id),
        };
        let mut tx = directory.begin().await;
        tx.count_misspelt(&asker, now)?;
        let _until_applied = tx.stage(&mut batch);
        self.commit_and_post(&room, &item, batch)
    }

    /// Forgets a declined invite without a trace. Returns whether there was one.
    pub(in crate::engine) fn drop_declined(&mut self, ghost: &Ghost) -> bool {
        let introductions = &mut self.record.introductions;
        let before = introductions.len();
        introductions.retain(|introduction| {
            introduction.ghost != *ghost || introduction.phase != Phase::Declined
        });
        introductions.len() < before
    }

    /// Destroys the keys that came for an invite that no longer stands. A newer invite may wait in
    /// the inbox, and its key may be here already.
    async fn turn_away_unless_invited(&self, ghost: &Ghost) -> Result<(), EngineError> {
        if self.is_about_to_be_invited(ghost)? {
            return Ok(());
        }
        Ok(self.engine.machines().turn_away(ghost, &self.id).await?)
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
    fn declined_verification(&self, event: &RoomEvent) -> Vec<QueuedEffect> {
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
        ghosts
            .map(|introduction| QueuedEffect::Introduction {
                ghost: introduction.ghost.clone(),
                effect: Effect::DeclineVerification {
                    event: event.id.clone(),
                },
            })
            .collect()
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
            _ if event.is_verification_request() => None,
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
                if let Some(former) = &pending.edit
                    && introduction.passing_on.as_ref() != Some(of)
                    && may_go(former)?
                {
                    batch.delete::<RetainedEvents>(&place(former));
                }
                true
            }
            Some(MessageKind::Redaction { of }) => {
                let edit = pending(of).and_then(|pending| pending.edit.as_ref());
                for event in edit.into_iter().chain([of]) {
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
        "m.room.message" | "m.sticker" if is_quotable(kind, content) => Some(MessageKind::Line),
        // Verification and reactions concern the two people, not the ghost.
        kind if kind.starts_with("m.key.verification") || kind == "m.reaction" => None,
        _ => Some(MessageKind::Other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_can_be_quoted_is_a_message() {
        let file = json!({ "url": "mxc://hs.test/x", "key": {} });
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
            (gallery, Some(MessageKind::Other)),
            // Not encrypted.
            (
                json!({ "msgtype": "m.image", "body": "x.png", "url": "mxc://hs.test/x" }),
                Some(MessageKind::Other),
            ),
            (json!({ "msgtype": "m.text" }), Some(MessageKind::Other)),
            (
                json!({ "msgtype": "m.key.verification.request", "body": "" }),
                None,
            ),
        ] {
            let kind = message_kind("m.room.message", &content);
            assert_eq!(kind, expected, "{content}");
        }
        assert_eq!(message_kind("m.reaction", &json!({})), None);
        let poll = message_kind("m.poll.start", &json!({}));
        assert_eq!(poll, Some(MessageKind::Other));
    }
}
