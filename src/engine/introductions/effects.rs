//! Carries out the effects of introductions. Each can be carried out twice without harm.

use ruma::OwnedEventId;
use serde_json::json;

use crate::{
    bot::{self, NoticeText},
    directory::{HandleRecord, Mode},
    engine::{
        EngineError,
        messaging::{
            notice::plain_notice,
            send::{Outgoing, Recipients},
        },
        records::{QueuedEffect, QuotedEvents, RetainedEvents},
        room::Room,
    },
    ids::Ghost,
    introduction::{Effect, Input, Introduction, IntroductionNotice, Refusal, clean_name},
    matrix::{MEGOLM, RoomState},
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
        let Some(introduction) = introductions
            .iter()
            .find(|introduction| introduction.ghost == *ghost)
            .cloned()
        else {
            return Ok(self.engine.store().apply(batch)?);
        };
        if *effect == Effect::OpenConversation {
            return self.open_conversation(&introduction, &mut batch).await;
        }
        let input = match self
            .perform_effect(&introduction, effect, &mut batch)
            .await?
        {
            Outcome::Done => Input::Done(effect.clone()),
            Outcome::Looked(view) => Input::Looked(*view),
            Outcome::Missed => Input::Missed,
        };
        self.introduction_goes_on(ghost, &input, batch)
    }

    /// Lets the introduction decide what follows when an effect is given up.
    pub(in crate::engine) async fn give_up_introduction(
        &mut self,
        number: u64,
        ghost: &Ghost,
        effect: Effect,
        error: &EngineError,
    ) -> Result<(), EngineError> {
        // The invite stands, and is not accepted: no key that comes for it is kept.
        if let Effect::Decline { .. } = effect {
            self.turn_away_unless_invited(ghost).await?;
        }
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
        introduction: &Introduction,
        effect: &Effect,
        batch: &mut Batch,
    ) -> Result<Outcome, EngineError> {
        match effect {
            Effect::Decline { reason } => {
                self.decline(introduction, reason.map(|reason| reason.words()))
                    .await?;
            }
            Effect::Join => self.join(introduction).await?,
            Effect::Look => return Ok(Outcome::Looked(Box::new(self.look(introduction).await?))),
            Effect::TurnOnEncryption => self.turn_on_encryption(introduction).await?,
            Effect::ShowAs => self.show_as(introduction).await?,
            Effect::AskOwner => self.ask_owner(introduction).await?,
            Effect::ShowLine => self.show_opening_line(introduction).await?,
            Effect::WithdrawRequest => self.withdraw_request(introduction).await?,
            // Ends the introduction, and is carried out separately.
            Effect::OpenConversation => {}
            Effect::InviteOwner => self.invite_owner(introduction).await?,
            Effect::PassOn { event, edit } => {
                self.pass_on(introduction, event, edit.as_ref(), batch)
                    .await?
            }
            Effect::PassOnEdit { event, of } => {
                self.pass_on_edit(introduction, event, of, batch).await?
            }
            Effect::TakeBack { of } => self.take_back(introduction, of).await?,
            Effect::DeclineVerification { event } => {
                self.refuse_verification(&introduction.ghost, event).await?
            }
            Effect::SendNotice { notice } => self.send_notice(introduction, notice, None).await?,
            Effect::SendReply { to, notice } => {
                self.send_notice(introduction, notice, Some(to)).await?;
            }
            Effect::HandOver => self.hand_over(introduction).await?,
            Effect::RememberPair | Effect::ForgetPair => {
                self.note_pair(introduction, *effect == Effect::RememberPair, batch)
                    .await?;
            }
            Effect::Leave { reason } => {
                let words = reason.map(|reason| reason.words());
                self.leave_introduction(introduction, words).await?;
            }
            Effect::LookBack => {
                if self.was_missed(introduction).await? {
                    return Ok(Outcome::Missed);
                }
            }
            Effect::Forget => self.forget(introduction).await?,
            Effect::TellAsker { notice } => {
                let words = NoticeText::new(&notice.plain(introduction.handle()));
                let source = format!("{} {}", self.id, notice.id());
                let asker = introduction
                    .asker()
                    .ok_or(EngineError::Refused(Refusal::Impossible))?;
                self.engine.notify(&asker, words, source).await?;
            }
            Effect::TellOwner => self.tell_owner_who_declined(introduction).await?,
        }
        Ok(Outcome::Done)
    }

    async fn tell_owner_who_declined(
        &self,
        introduction: &Introduction,
    ) -> Result<(), EngineError> {
        let (Some(owner), Some(asker)) = (introduction.owner(), introduction.asker()) else {
            return Ok(());
        };
        let ghost = &introduction.ghost;
        // The handle may have been released in the meantime.
        let record = self.engine.directory().by_ghost(ghost)?;
        let Some(record) = record.filter(|record| record.is_held_by(owner)) else {
            return Ok(());
        };
        let notice = bot::texts::declined(&asker, &record.handle, ghost);
        let source = format!("declined {} {ghost}", self.id);
        self.engine.notify(owner, notice, source).await
    }

    async fn turn_on_encryption(&self, introduction: &Introduction) -> Result<(), EngineError> {
        // Somebody may have turned it on in the meantime, with other settings.
        let state = self.room_state(&introduction.ghost).await?;
        if state.encryption.is_none() {
            let content = json!({ "algorithm": MEGOLM });
            self.set_state(introduction, "m.room.encryption", "", &content)
                .await?;
        }
        Ok(())
    }

    async fn note_pair(
        &self,
        introduction: &Introduction,
        remember: bool,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let directory = self.engine.directory();
        let Some(record) = directory.by_ghost(&introduction.ghost)? else {
            return Ok(());
        };
        let asker = introduction
            .asker()
            .ok_or(EngineError::Refused(Refusal::Impossible))?;
        let (handle, generation) = (&record.handle, record.generation);
        let mut tx = directory.begin().await;
        if remember {
            tx.remember_pair(&asker, handle, generation, &self.id, self.engine.now())?;
        } else {
            tx.forget_pair(&asker, handle, generation);
        }
        // Safe without the lock: nobody else writes this pair in the meantime.
        drop(tx.stage(batch));
        Ok(())
    }

    async fn join(&mut self, introduction: &Introduction) -> Result<(), EngineError> {
        let (engine, asker) = (&self.engine, &introduction.invite.asker);
        if self.place.is_none() {
            self.place = Some(engine.place_for(asker).await?);
        }
        engine
            .machines()
            .expect_room(&introduction.ghost, &self.id)
            .await?;
        engine.enter(&introduction.ghost, &self.id, asker).await?;
        // From here on this room alone waits for its server, which may be slow to show its history.
        if asker.server_name() != engine.settings().server_name {
            self.place = None;
        }
        Ok(())
    }

    /// Reads the room's state. Messages since the ghost's invite have been handled by now.
    async fn look(&mut self, introduction: &Introduction) -> Result<RoomState, EngineError> {
        let view = self.room_state(&introduction.ghost).await?;
        self.look_for_keys(&introduction.ghost).await?;
        Ok(view)
    }

    /// Requests missing keys before anything is given up: one may be lost on its way, or late
    /// because the homeserver could not reach us for a while.
    async fn look_for_keys(&mut self, ghost: &Ghost) -> Result<(), EngineError> {
        let mut introductions = self.record.introductions.iter();
        let missing = introductions.any(|introduction| {
            introduction.ghost == *ghost
                && introduction
                    .pending
                    .iter()
                    .any(|pending| pending.unreadable && !pending.done)
        });
        if missing {
            self.engine.fetch_keys(ghost).await?;
            self.retry_messages_with_key(ghost, Batch::new()).await?;
        }
        Ok(())
    }

    pub(super) async fn asker_name(
        &self,
        introduction: &Introduction,
    ) -> Result<String, EngineError> {
        let view = self.room_state(&introduction.ghost).await?;
        let asker = &introduction.invite.asker;
        Ok(clean_name(view.names.get(asker).map(String::as_str), asker))
    }

    async fn show_as(&self, introduction: &Introduction) -> Result<(), EngineError> {
        let name = format!(
            "{} (via @{})",
            self.asker_name(introduction).await?,
            introduction.handle()
        );
        let acting = self.engine.as_user(&introduction.ghost)?;
        self.engine
            .homeserver()
            .set_name_in_room(acting.actor(), &self.id, &name)
            .await?;
        Ok(())
    }

    pub(super) async fn invite_owner(
        &self,
        introduction: &Introduction,
    ) -> Result<(), EngineError> {
        let Some(owner) = introduction.owner() else {
            return Err(EngineError::Refused(Refusal::Impossible));
        };
        // An invite shows who the owner is, so the handle must still be theirs and open.
        let record = self.engine.directory().by_ghost(&introduction.ghost)?;
        let is_as_before =
            |record: &HandleRecord| record.is_held_by(owner) && record.mode == Mode::Open;
        let asker = introduction.asker();
        let (Some(record), Some(asker)) = (record.filter(is_as_before), asker) else {
            return Err(EngineError::Refused(Refusal::HandleChanged));
        };
        if !self.engine.directory().still_leads(&record, &asker)? {
            return Err(EngineError::Refused(Refusal::HandleChanged));
        }
        let view = self.room_state(&introduction.ghost).await?;
        if matches!(view.membership(owner), "join" | "invite") {
            return Ok(());
        }
        match self
            .engine
            .invite(&introduction.ghost, &self.id, owner, introduction.direct)
            .await
        {
            // The room allows the invite, but the owner or their server refuses it.
            Err(EngineError::Matrix(error))
                if error.is_refusal() && view.may_invite(&introduction.ghost) =>
            {
                Err(EngineError::Refused(Refusal::Impossible))
            }
            other => other,
        }
    }

    async fn send_notice(
        &self,
        introduction: &Introduction,
        notice: &IntroductionNotice,
        reply_to: Option<&OwnedEventId>,
    ) -> Result<(), EngineError> {
        let mut content = plain_notice(&notice.plain(introduction.handle()));
        let mut cause = notice.id();
        if let Some(event) = reply_to {
            content["m.relates_to"] = json!({ "m.in_reply_to": { "event_id": event } });
            cause.push_str(&format!(" {event}"));
        }
        let asker = introduction.asker();
        self.send(Outgoing {
            sender: &introduction.ghost,
            event_type: "m.room.message",
            content: &content,
            recipients: Recipients::Readable(asker.as_ref().as_slice()),
            transaction: self.transaction_id(&introduction.ghost, "say", &cause),
        })
        .await?;
        Ok(())
    }

    /// Gives the owner a founder's power level and lowers the ghost's. From room version 12 on a
    /// creator's power cannot be taken, but without an invite it is no use from outside.
    async fn hand_over(&self, introduction: &Introduction) -> Result<(), EngineError> {
        let view = self.room_state(&introduction.ghost).await?;
        let (Some(mut levels), Some(owner)) = (view.power_levels.clone(), introduction.owner())
        else {
            return Ok(());
        };
        if !levels["users"].is_object() {
            levels["users"] = json!({});
        }
        levels["users"][owner.as_str()] = json!(100);
        if !view.has_powerful_creators()
            && let Some(users) = levels["users"].as_object_mut()
        {
            users.remove(introduction.ghost.as_str());
        }
        if Some(&levels) == view.power_levels.as_ref() {
            return Ok(());
        }
        self.set_state(introduction, "m.room.power_levels", "", &levels)
            .await
            .map(drop)
    }

    /// Forgets the room's keys, and the events retained for this introduction alone.
    async fn forget(&self, introduction: &Introduction) -> Result<(), EngineError> {
        self.engine
            .forget_room(&introduction.ghost, &self.id)
            .await?;
        let others = self.record.introductions.iter();
        if others
            .into_iter()
            .any(|other| other.ghost != introduction.ghost && other.is_open())
        {
            return Ok(());
        }
        if self.record.conversation.is_some() {
            let mut gone = Batch::new();
            for pending in &introduction.pending {
                let edits = pending.edits().chain(&pending.quoted_edit);
                for event in std::iter::once(&pending.event).chain(edits) {
                    if !self.is_event_needed(event, Some(&introduction.ghost))? {
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
