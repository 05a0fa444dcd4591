//! Carries out the effects of introductions. Each can be carried out twice without harm.

use ruma::OwnedEventId;
use serde_json::{Value, json};

use crate::{
    bot::NoticeText,
    crypto::CryptoError,
    engine::{
        EngineError,
        messaging::send::{Outgoing, Recipients},
        records::{QueuedEffect, QuotedEvents, RetainedEvents},
        room::{Room, cause},
    },
    ids::Ghost,
    introduction::{
        Effect, Input, Introduction, IntroductionNotice, Phase, Quote, Refusal, clean_name, quote,
        quote_edit,
    },
    matrix::{MEGOLM, MatrixError, RoomState},
    store::{Batch, prefix},
};

/// The result of an effect.
enum Outcome {
    Done,
    Looked(Box<RoomState>),
    Missed,
}

impl Room {
    /// Carries out an effect of an introduction.
    pub(in crate::engine) async fn perform_introduction(
        &mut self,
        number: u64,
        ghost: &Ghost,
        effect: &Effect,
    ) -> Result<(), EngineError> {
        let mut batch = self.outbox_done(number);
        let introductions = &self.record.introductions;
        let Some(is) = introductions.iter().find(|is| is.ghost == *ghost).cloned() else {
            return Ok(self.engine.store().apply(batch)?);
        };
        if *effect == Effect::OpenConversation {
            return self.open_conversation(&is, &mut batch).await;
        }
        let input = match self.perform_effect(&is, effect, &mut batch).await? {
            Outcome::Done => Input::Done(effect.clone()),
            Outcome::Looked(view) => Input::Looked(*view),
            Outcome::Missed => Input::Missed,
        };
        self.introduction_goes_on(ghost, &input, batch)
    }

    /// Lets the introduction decide what follows when an effect is given up.
    pub(in crate::engine) fn give_up_introduction(
        &mut self,
        number: u64,
        ghost: &Ghost,
        effect: Effect,
        error: &EngineError,
    ) -> Result<(), EngineError> {
        let input = Input::Refused(effect, error.refusal());
        self.introduction_goes_on(ghost, &input, self.outbox_done(number))
    }

    fn introduction_goes_on(
        &mut self,
        ghost: &Ghost,
        input: &Input,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let effects: Vec<QueuedEffect> = self.apply_to_introduction(ghost, input);
        if let Input::Done(Effect::Decline { .. }) | Input::Refused(Effect::Decline { .. }, _) =
            input
        {
            self.drop_declined(ghost);
        }
        self.commit(batch, effects)
    }

    async fn perform_effect(
        &mut self,
        is: &Introduction,
        effect: &Effect,
        batch: &mut Batch,
    ) -> Result<Outcome, EngineError> {
        match effect {
            Effect::Decline { reason } => {
                self.decline(is, reason.map(|reason| reason.words()))
                    .await?;
            }
            Effect::Join => self.join(is).await?,
            Effect::Look => return Ok(Outcome::Looked(Box::new(self.look(is).await?))),
            Effect::TurnOnEncryption => {
                // Somebody may have turned encryption on in the meantime, with other settings.
                if self.room_state(&is.ghost).await?.encryption.is_none() {
                    let content = json!({ "algorithm": MEGOLM });
                    self.set_state(is, "m.room.encryption", "", &content)
                        .await?;
                }
            }
            Effect::ShowAs => self.show_as(is).await?,
            Effect::AskOwner => self.ask_owner(is).await?,
            Effect::WithdrawRequest => self.withdraw_request(is).await?,
            // Ends the introduction, and is carried out separately.
            Effect::OpenConversation => {}
            Effect::InviteOwner => self.invite_owner(is).await?,
            Effect::PassOn { event, edit } => self.pass_on(is, event, edit.as_ref(), batch).await?,
            Effect::PassOnEdit { event, of } => self.pass_on_edit(is, event, of, batch).await?,
            Effect::TakeBack { of } => self.take_back(is, of).await?,
            Effect::SendNotice { notice } => self.send_notice(is, notice).await?,
            Effect::HandOver => self.hand_over(is).await?,
            Effect::RememberPair | Effect::ForgetPair => {
                self.note_pair(is, *effect == Effect::RememberPair, batch)
                    .await?;
            }
            Effect::Leave { reason } => {
                let words = reason.map(|reason| reason.words());
                self.leave_introduction(is, words).await?;
            }
            Effect::LookBack => {
                if self.was_missed(is).await? {
                    return Ok(Outcome::Missed);
                }
            }
            Effect::Forget => self.forget(is).await?,
            Effect::TellAsker { notice } => {
                let words = NoticeText::new(&notice.plain(is.handle()));
                let source = format!("{} {}", self.id, notice.id());
                let asker = is
                    .asker()
                    .ok_or(EngineError::Refused(Refusal::Impossible))?;
                self.engine.notify(&asker, words, source).await?;
            }
        }
        Ok(Outcome::Done)
    }

    async fn note_pair(
        &self,
        is: &Introduction,
        remember: bool,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let directory = self.engine.directory();
        let Some(record) = directory.by_ghost(&is.ghost)? else {
            return Ok(());
        };
        let asker = is
            .asker()
            .ok_or(EngineError::Refused(Refusal::Impossible))?;
        let (handle, generation) = (&record.handle, record.generation);
        let mut change = directory.begin().await;
        if remember {
            change.remember_pair(&asker, handle, generation, &self.id, self.engine.now())?;
        } else {
            change.forget_pair(&asker, handle, generation);
        }
        // Safe without the lock: nobody else writes this pair in the meantime.
        batch.merge(change.into_parts().0);
        Ok(())
    }

    async fn decline(&self, is: &Introduction, reason: Option<&str>) -> Result<(), EngineError> {
        let machines = self.engine.machines();
        let known = machines.device_of(&is.ghost)?;
        if known.is_none() {
            // Nobody holds this handle: a user without keys is made, only to decline. If the user
            // is not ours, we act as it all the same, because the name is in our namespace.
            match machines.provision_bare(&is.ghost).await {
                Ok(()) => {}
                Err(CryptoError::Foreign { .. }) => {
                    self.engine.freeze_if_changed_in_restore(&is.ghost).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.leave_introduction(is, reason).await?;
        Ok(machines.turn_away(&is.ghost, &self.id).await?)
    }

    async fn join(&mut self, is: &Introduction) -> Result<(), EngineError> {
        let (engine, asker) = (&self.engine, &is.invite.asker);
        if self.place.is_none() {
            self.place = Some(engine.place_for(asker).await?);
        }
        engine.machines().expect_room(&is.ghost, &self.id).await?;
        engine.enter(&is.ghost, &self.id, asker).await
    }

    /// Reads the room's state. Messages since the ghost's invite have been handled by now.
    async fn look(&mut self, is: &Introduction) -> Result<RoomState, EngineError> {
        let view = self.room_state(&is.ghost).await?;
        self.look_for_keys(&is.ghost).await?;
        Ok(view)
    }

    /// Requests missing keys before anything is given up: one may be lost on its way, or late
    /// because the homeserver could not reach us for a while.
    async fn look_for_keys(&mut self, ghost: &Ghost) -> Result<(), EngineError> {
        let mut introductions = self.record.introductions.iter();
        let missing = introductions.any(|is| {
            is.ghost == *ghost && is.heard.iter().any(|heard| heard.unreadable && !heard.done)
        });
        if missing {
            self.engine.sync_all_pending(ghost).await?;
            self.engine.process_to_device_of(ghost).await;
            self.retry_messages_with_key(ghost, Batch::new()).await?;
        }
        Ok(())
    }

    async fn asker_name(&self, is: &Introduction) -> Result<String, EngineError> {
        let view = self.room_state(&is.ghost).await?;
        let asker = &is.invite.asker;
        Ok(clean_name(view.names.get(asker).map(String::as_str), asker))
    }

    async fn show_as(&self, is: &Introduction) -> Result<(), EngineError> {
        let name = format!(
            "{}, to your handle @{}",
            self.asker_name(is).await?,
            is.handle()
        );
        let acting = self.engine.as_user(&is.ghost)?;
        self.engine
            .homeserver()
            .set_name_in_room(acting.actor(), &self.id, &name)
            .await?;
        Ok(())
    }

    async fn invite_owner(&self, is: &Introduction) -> Result<(), EngineError> {
        let Some(owner) = is.owner() else {
            return Err(EngineError::Refused(Refusal::Impossible));
        };
        let view = self.room_state(&is.ghost).await?;
        if matches!(view.membership(owner), "join" | "invite") {
            return Ok(());
        }
        match self
            .engine
            .invite(&is.ghost, &self.id, owner, is.direct)
            .await
        {
            // The room allows the invite, but the owner or their server refuses it.
            Err(EngineError::Matrix(MatrixError::Refused { .. })) if view.may_invite(&is.ghost) => {
                Err(EngineError::Refused(Refusal::Impossible))
            }
            other => other,
        }
    }

    async fn pass_on(
        &self,
        is: &Introduction,
        event: &OwnedEventId,
        edit: Option<&OwnedEventId>,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        if let (Phase::Waiting { .. }, Some(owner)) = (&is.phase, is.owner()) {
            let owner = std::slice::from_ref(&**owner);
            self.engine
                .machines()
                .mark_device_lists_outdated(&is.ghost, owner)
                .await;
        }
        let (kind, content) = self.read_kept(is, edit.unwrap_or(event)).await?;
        let name = self.asker_name(is).await?;
        let quote = match quote(&name, &kind, &content) {
            Ok(quote) => quote,
            Err(_) => return Err(EngineError::Refused(Refusal::Impossible)),
        };
        let sent = self.send_quote(is, &quote, "pass-on", event).await?;
        batch.put::<QuotedEvents>(&(self.id.clone(), event.clone()), &sent)?;
        self.on_quoted(is, event, batch)?;
        Ok(())
    }

    async fn pass_on_edit(
        &self,
        is: &Introduction,
        event: &OwnedEventId,
        of: &OwnedEventId,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let passed = self
            .engine
            .store()
            .get::<QuotedEvents>(&(self.id.clone(), of.clone()))?;
        let passed = passed.ok_or(EngineError::Refused(Refusal::Unreadable))?;
        let (_, content) = self.read_kept(is, event).await?;
        let name = self.asker_name(is).await?;
        let quote = match quote_edit(&name, &content, passed.as_str()) {
            Ok(quote) => quote,
            Err(_) => return Err(EngineError::Refused(Refusal::Impossible)),
        };
        self.send_quote(is, &quote, "pass-on-edit", event).await?;
        self.on_quoted(is, event, batch)?;
        Ok(())
    }

    /// Deletes an event that was passed on, unless a conversation in the same room has to forward
    /// it.
    fn on_quoted(
        &self,
        is: &Introduction,
        event: &OwnedEventId,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        if self.record.conversation.is_none() || !self.is_event_needed(event, Some(&is.ghost))? {
            batch.delete::<RetainedEvents>(&(self.id.clone(), event.clone()));
        }
        Ok(())
    }

    async fn read_kept(
        &self,
        is: &Introduction,
        event: &OwnedEventId,
    ) -> Result<(String, Value), EngineError> {
        let kept = self
            .engine
            .store()
            .get::<RetainedEvents>(&(self.id.clone(), event.clone()))?;
        let json = kept.ok_or(EngineError::Refused(Refusal::Unreadable))?;
        self.decrypt(&is.ghost, &json).await
    }

    async fn send_quote(
        &self,
        is: &Introduction,
        quote: &Quote,
        kind: &str,
        cause: &OwnedEventId,
    ) -> Result<OwnedEventId, EngineError> {
        let transaction = self.transaction_id(&is.ghost, kind, cause.as_str());
        self.send(Outgoing {
            sender: &is.ghost,
            event_type: &quote.event_type,
            content: &quote.content,
            recipients: Recipients::All,
            transaction,
        })
        .await
    }

    async fn take_back(&self, is: &Introduction, of: &OwnedEventId) -> Result<(), EngineError> {
        let passed = self
            .engine
            .store()
            .get::<QuotedEvents>(&(self.id.clone(), of.clone()))?;
        let Some(passed) = passed else { return Ok(()) };
        let acting = self.engine.as_user(&is.ghost)?;
        let transaction = self.transaction_id(&is.ghost, "take-back", of.as_str());
        self.engine
            .homeserver()
            .redact(acting.actor(), &self.id, &passed, None, transaction)
            .await?;
        Ok(())
    }

    async fn send_notice(
        &self,
        is: &Introduction,
        notice: &IntroductionNotice,
    ) -> Result<(), EngineError> {
        let content = json!({
            "msgtype": "m.notice",
            "body": notice.plain(is.handle()),
            "m.mentions": {},
        });
        let cause = cause(&Effect::SendNotice {
            notice: notice.clone(),
        });
        let asker = is.asker();
        self.send(Outgoing {
            sender: &is.ghost,
            event_type: "m.room.message",
            content: &content,
            recipients: Recipients::Readable(asker.as_ref()),
            transaction: self.transaction_id(&is.ghost, "say", &cause),
        })
        .await?;
        Ok(())
    }

    /// Gives the owner a founder's power level and lowers the ghost's. From room version 12 on a
    /// creator's power cannot be taken, but without an invite it is no use from outside.
    async fn hand_over(&self, is: &Introduction) -> Result<(), EngineError> {
        let view = self.room_state(&is.ghost).await?;
        let (Some(mut levels), Some(owner)) = (view.power_levels.clone(), is.owner()) else {
            return Ok(());
        };
        if !levels["users"].is_object() {
            levels["users"] = json!({});
        }
        levels["users"][owner.as_str()] = json!(100);
        if !view.has_powerful_creators()
            && let Some(users) = levels["users"].as_object_mut()
        {
            users.remove(is.ghost.as_str());
        }
        if Some(&levels) == view.power_levels.as_ref() {
            return Ok(());
        }
        self.set_state(is, "m.room.power_levels", "", &levels)
            .await
            .map(drop)
    }

    /// Forgets the room's keys, and the events retained for this introduction alone.
    async fn forget(&self, is: &Introduction) -> Result<(), EngineError> {
        self.engine.forget_room(&is.ghost, &self.id).await?;
        let others = self.record.introductions.iter();
        if others
            .into_iter()
            .any(|other| other.ghost != is.ghost && other.is_open())
        {
            return Ok(());
        }
        if self.record.conversation.is_some() {
            let mut gone = Batch::new();
            for heard in &is.heard {
                for event in std::iter::once(&heard.event).chain(&heard.edit) {
                    if !self.is_event_needed(event, Some(&is.ghost))? {
                        gone.delete::<RetainedEvents>(&(self.id.clone(), event.clone()));
                    }
                }
            }
            self.engine.store().apply(gone)?;
        }
        let room = prefix(&self.id);
        loop {
            let mut gone = Batch::new();
            // If a conversation goes on here, retained events may be waiting for it.
            if self.record.conversation.is_none() {
                for (key, _) in self
                    .engine
                    .store()
                    .scan::<RetainedEvents>(&room, None, 500)?
                {
                    gone.delete::<RetainedEvents>(&key);
                }
            }
            for (key, _) in self.engine.store().scan::<QuotedEvents>(&room, None, 500)? {
                gone.delete::<QuotedEvents>(&key);
            }
            if gone.is_empty() {
                break;
            }
            self.engine.store().apply(gone)?;
        }
        Ok(())
    }
}
