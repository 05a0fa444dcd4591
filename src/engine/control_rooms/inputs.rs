//! Handles what happens in a control room.

use ruma::{OwnedEventId, OwnedUserId};
use serde_json::value::RawValue;

use crate::{
    bot::{self, InviteAnswer, NoticeText, RoomCheck, RoomProblem},
    crypto::{DecryptError, Distrust},
    engine::{
        EngineError,
        control_room::{Control, ControlEffect, ControlPhase, Occasion, Remark},
        event::RoomEvent,
        notify::PENDING_NOTICES_MAX,
        records::{
            ControlRooms, InboxItem, Outbox, OutboxItem, PendingNotices, QueuedEffect,
            RetainedEvents,
        },
        room::Room,
    },
    ids::Person,
    matrix::{RoomState, event_type::is_verification_request},
    store::{Batch, prefix},
};

impl Room {
    /// Handles an invite of the bot by its stripped state alone: the bot does not join a room that
    /// cannot be a control room, or one of many.
    pub(in crate::engine) async fn bot_invited(
        &mut self,
        asker: &OwnedUserId,
        state: &[Box<RawValue>],
        batch: Batch,
    ) -> Result<(), EngineError> {
        if self.engine.is_ours(asker) || self.bot_is_here() {
            return Ok(self.engine.store().apply(batch)?);
        }
        let engine = self.engine.clone();
        let asker = &Person::new(asker.clone());
        let view = RoomState::from_state(state.iter().map(AsRef::as_ref));
        let mut tx = engine.directory().begin().await;
        let bot = &engine.settings().bot;
        let invited = bot::answer_invite(asker, &view, bot, &mut tx, engine.now())?;
        let left_alone = invited == InviteAnswer::Ignore;
        let effects = match invited {
            InviteAnswer::Join => {
                let (control, effects) = Control::invited(asker.clone());
                self.record.control = Some(control);
                effects
            }
            InviteAnswer::Decline(reason) => vec![ControlEffect::Decline {
                inviter: asker.clone(),
                reason,
            }],
            InviteAnswer::Ignore => Vec::new(),
        };
        self.commit_with(tx, batch, effects.into_iter().map(QueuedEffect::Control))?;
        if left_alone {
            engine.machines().turn_away(bot, &self.id).await?;
        }
        Ok(())
    }

    /// Handles an event in a room with the bot.
    pub(in crate::engine) async fn handle_in_control_room(
        &mut self,
        event: RoomEvent,
        json: &str,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let bot = self.engine.settings().bot.clone();
        if let Some((user, membership)) = event.membership() {
            return self.member_of_control_room(&bot, &user, membership, batch);
        }
        let Some(person) = self.record.control.as_ref().and_then(|c| c.person.clone()) else {
            return Ok(self.engine.store().apply(batch)?);
        };
        if event.sender != person {
            return Ok(self.engine.store().apply(batch)?);
        }
        match event.kind.as_str() {
            _ if event.is_verification_request() => self.decline_verification(event.id, batch),
            "m.room.encrypted" => self.hear(&bot, &person, event, json, batch).await,
            // Reactions are unencrypted in every room: they can only do what can be undone.
            "m.reaction" => self.react(&person, &event, batch).await,
            "m.room.redaction" => self.take_command_back(&event, batch),
            // Somebody may have opened the room to others.
            "m.room.join_rules" | "m.room.history_visibility" | "m.room.encryption" => {
                self.look_again(batch)
            }
            _ if event.is_said_in_clear() => self.remark(Remark::NotEncrypted, &event.id, batch),
            _ => Ok(self.engine.store().apply(batch)?),
        }
    }

    fn member_of_control_room(
        &mut self,
        bot: &OwnedUserId,
        user: &OwnedUserId,
        membership: &str,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let Some(control) = &mut self.record.control else {
            return Ok(self.engine.store().apply(batch)?);
        };
        let gone = matches!(membership, "leave" | "ban");
        if user == bot {
            if gone && control.phase != ControlPhase::Left {
                control.phase = ControlPhase::Left;
                return self.commit(batch, [QueuedEffect::Control(ControlEffect::Forget)]);
            }
            return Ok(self.engine.store().apply(batch)?);
        }
        // Somebody joined or left: check whether this is still a room of two.
        if matches!(control.phase, ControlPhase::Ready | ControlPhase::Looking) {
            self.engine
                .machines()
                .mark_device_lists_outdated_for_all(std::slice::from_ref(user));
            return self.look_again(batch);
        }
        Ok(self.engine.store().apply(batch)?)
    }

    /// Checks the room now, or soon if it was checked a moment ago: any number of events costs one
    /// check.
    fn look_again(&mut self, batch: Batch) -> Result<(), EngineError> {
        let now = self.engine.now();
        let control = self.record.control.as_mut();
        let look = control.is_some_and(|control| control.may_look(now));
        let look = look.then_some(QueuedEffect::Control(ControlEffect::Look));
        self.commit(batch, look)
    }

    async fn hear(
        &mut self,
        bot: &OwnedUserId,
        person: &Person,
        event: RoomEvent,
        json: &str,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let key = (self.id.clone(), event.id.clone());
        match self.decrypt(bot, json).await {
            Ok((kind, content)) => {
                self.stop_waiting_for(&event.id, &mut batch);
                // Some clients encrypt it.
                if is_verification_request(&kind, &content) {
                    return self.decline_verification(event.id, batch);
                }
                self.answer(person, &event, &kind, &content, batch).await
            }
            // Nothing is known about the event yet: it is tried again.
            Err(error) if error.is_transient() => Err(error),
            Err(EngineError::Decrypt(DecryptError::NoKey { .. })) => {
                let now = self.engine.now();
                let Some(control) = &mut self.record.control else {
                    return Ok(());
                };
                if !control.wait_for_key(event.id.clone(), now) {
                    return self.remark(Remark::Unreadable, &event.id, batch);
                }
                batch.put::<RetainedEvents>(&key, &json.to_owned())?;
                self.commit(batch, [])
            }
            Err(EngineError::Decrypt(DecryptError::KeyBeginsLater { .. })) => {
                self.stop_waiting_for(&event.id, &mut batch);
                self.remark(Remark::Unreadable, &event.id, batch)
            }
            Err(EngineError::Decrypt(DecryptError::Untrusted(distrust))) => {
                self.stop_waiting_for(&event.id, &mut batch);
                let remark = match distrust {
                    Distrust::TooManyDevices => Remark::TooManyDevices,
                    Distrust::UnknownDevice => Remark::UnknownDevice,
                    _ => Remark::UnsignedDevice,
                };
                self.remark(remark, &event.id, batch)
            }
            Err(EngineError::Decrypt(DecryptError::NotUnderstood)) => {
                self.stop_waiting_for(&event.id, &mut batch);
                self.remark(Remark::NotUnderstood, &event.id, batch)
            }
            Err(EngineError::Decrypt(error)) => {
                tracing::warn!(room = %self.id, %error, "a message to the bot is ignored");
                self.stop_waiting_for(&event.id, &mut batch);
                self.commit(batch, [])
            }
            Err(error) => Err(error),
        }
    }

    /// Declines a request to verify the bot, and says why unless that was said a moment ago.
    fn decline_verification(
        &mut self,
        event: OwnedEventId,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let remark = self.remark_on(Remark::Verification, &event);
        let decline = ControlEffect::DeclineVerification { event };
        let decline = self.may_decline_verification().then_some(decline);
        let effects = decline.into_iter().chain(remark);
        self.commit(batch, effects.map(QueuedEffect::Control))
    }

    /// Forgets a command that was deleted while its key was missing: it does not run when the key
    /// comes.
    fn take_command_back(
        &mut self,
        event: &RoomEvent,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        if let Some(of) = &event.redacts {
            self.stop_waiting_for(of, &mut batch);
        }
        self.commit(batch, [])
    }

    /// Stops waiting for the key of a command, and stages the deletion of its event.
    fn stop_waiting_for(&mut self, event: &OwnedEventId, batch: &mut Batch) {
        if let Some(control) = &mut self.record.control {
            control.waiting.retain(|(waiting, _)| waiting != event);
        }
        batch.delete::<RetainedEvents>(&(self.id.clone(), event.clone()));
    }

    /// Answers a command. The command's changes, its answer and its deletion from the inbox are one
    /// write.
    async fn answer(
        &mut self,
        person: &Person,
        event: &RoomEvent,
        kind: &str,
        content: &serde_json::Value,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let unseen = self.unseen_requests(person)?;
        let mut tx = engine.directory().begin().await;
        // What has no valid time would be new each time that it is read.
        let (sent_at, now) = (event.sent_at.unwrap_or_default(), engine.now());
        let message = bot::Message {
            person,
            event_type: kind,
            content,
            sent_at,
            now,
            greeted_at: self.record.control.as_ref().and_then(|it| it.greeted_at),
        };
        let options = engine.bot_options();
        let mut answer = bot::answer(&message, &options, &mut tx, &mut *engine.rng())?;
        if answer.text.is_some() && bot::is_too_old(sent_at, now) {
            let control = self.record.control.as_mut();
            let says = control.is_some_and(|control| control.may_remark(Remark::TooOld, now));
            answer.text = answer.text.filter(|_| says);
        }
        // The person who asked is answered before other people are told.
        let (tell, before): (Vec<bot::Effect>, Vec<bot::Effect>) = answer
            .effects
            .into_iter()
            .partition(|effect| matches!(effect, bot::Effect::Tell { .. }));
        let source = event.id.to_string();
        let say = answer.text.map(|notice| ControlEffect::SendNotice {
            notice,
            source,
            occasion: Occasion::Answer,
        });
        let effects = before.into_iter().map(ControlEffect::Bot).chain(say);
        let effects = effects.chain(tell.into_iter().map(ControlEffect::Bot));
        let mut effects: Vec<QueuedEffect> = effects.map(QueuedEffect::Control).collect();
        // Requests that could not be shown when they came.
        effects.extend(unseen);
        self.commit_with(tx, batch, effects)
    }

    async fn react(
        &mut self,
        person: &Person,
        event: &RoomEvent,
        batch: Batch,
    ) -> Result<(), EngineError> {
        self.answer(person, event, "m.reaction", &event.content, batch)
            .await
    }

    /// Says why nothing is done about a message, unless the bot said so a moment ago.
    fn remark(
        &mut self,
        remark: Remark,
        event: &OwnedEventId,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let say = self.remark_on(remark, event);
        self.commit(batch, say.map(QueuedEffect::Control))
    }

    /// Returns the effect that makes a remark, unless it was made a moment ago.
    fn remark_on(&mut self, remark: Remark, event: &OwnedEventId) -> Option<ControlEffect> {
        let now = self.engine.now();
        let control = self.record.control.as_mut();
        let say = control.is_some_and(|control| control.may_remark(remark, now));
        let notice = say.then(|| remark_text(remark))?;
        let source = event.to_string();
        Some(ControlEffect::SendNotice {
            notice,
            source,
            occasion: Occasion::Answer,
        })
    }

    /// Retries the commands that waited for a room key.
    pub(in crate::engine) async fn retry_commands_with_key(
        &mut self,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let Some(control) = &self.record.control else {
            return Ok(self.engine.store().apply(batch)?);
        };
        let (Some(person), bot) = (control.person.clone(), self.engine.settings().bot.clone())
        else {
            return Ok(self.engine.store().apply(batch)?);
        };
        for (event, _) in control.waiting.clone() {
            let kept = self
                .engine
                .store()
                .get::<RetainedEvents>(&(self.id.clone(), event.clone()))?;
            let parsed = kept
                .as_deref()
                .map(|json| RoomEvent::parse(json, Some(&self.id)));
            match (kept.as_deref(), parsed.flatten()) {
                (Some(json), Some(event)) => {
                    self.hear(&bot, &person, event, json, Batch::new()).await?;
                }
                _ => self.stop_waiting_for(&event, &mut batch),
            }
        }
        // Last: until every command was retried, a crash retries them again.
        self.commit(batch, [])
    }

    /// Lets the bot say something here now, or as soon as the person has joined; in another room if
    /// this is no longer their control room.
    pub(in crate::engine) async fn notify(
        &mut self,
        person: Person,
        notice: NoticeText,
        source: String,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let control = self.record.control.as_ref();
        let is_theirs = control.is_some_and(|control| control.person.as_ref() == Some(&person));
        if is_theirs && self.is_ready() {
            let say = ControlEffect::SendNotice {
                notice,
                source,
                occasion: Occasion::News,
            };
            return self.commit(batch, [QueuedEffect::Control(say)]);
        }
        let engine = self.engine.clone();
        let NoticeText { plain, html } = notice;
        if !is_theirs || !self.bot_is_here() {
            let room = engine.control_room_of(&person).await?;
            if room != self.id {
                let item = InboxItem::Notify {
                    person,
                    plain,
                    html,
                    source,
                };
                return self.commit_and_post(&room, &item, batch);
            }
        }
        engine.keep_notice(&person, &plain, &html, &mut batch)?;
        Ok(engine.store().apply(batch)?)
    }

    /// Applies the result of this room's check.
    pub(in crate::engine) async fn apply_room_check(
        &mut self,
        view: &RoomState,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let Some(control) = &mut self.record.control else {
            return Ok(engine.store().apply(batch)?);
        };
        let bot = &engine.settings().bot;
        let expected = control.person.as_ref();
        let check = bot::check_room(view, bot, expected);
        let is_declined =
            check == RoomCheck::Leave(RoomProblem::Nobody) && control.was_never_entered();
        let (mut effects, greet) = control.looked(check);
        let person = control.person.clone();
        if is_declined && let Some(person) = &person {
            effects.splice(..0, self.give_up_telling(person, &mut batch)?);
        }
        let person = person.filter(|_| greet);
        let effects: Vec<QueuedEffect> = effects.into_iter().map(QueuedEffect::Control).collect();
        let Some(person) = person else {
            return self.commit(batch, effects);
        };
        // A person's control rooms become ready one after the other, so that exactly one of them
        // stays.
        let one_at_a_time = engine.0.control_rooms.lock(person.clone()).await;
        let former = engine.store().get::<ControlRooms>(&person)?;
        let former = former.filter(|former| *former != self.id);
        batch.put::<ControlRooms>(&person, &self.id)?;
        if let Some(former) = &former {
            let due = OutboxItem {
                since: engine.now(),
                what: QueuedEffect::Control(ControlEffect::MoveTo {
                    room: self.id.clone(),
                }),
            };
            batch.put::<Outbox>(&(former.clone(), engine.next()), &due)?;
        }
        let tx = engine.directory().begin().await;
        let greeting = bot::texts::greeting(&person, &tx)?;
        drop(tx);
        let effects = effects
            .into_iter()
            .chain(self.welcome(&person, greeting, &mut batch)?);
        self.commit(batch, effects)?;
        drop(one_at_a_time);
        if let Some(former) = former {
            engine.wake(&former);
        }
        Ok(())
    }

    /// Sends the notices and requests from before the person joined, for which the bot may have
    /// invited them, and introduces the bot: briefly if it had something else to say.
    fn welcome(
        &mut self,
        person: &Person,
        greeting: NoticeText,
        batch: &mut Batch,
    ) -> Result<Vec<QueuedEffect>, EngineError> {
        let now = self.engine.now();
        if let Some(control) = &mut self.record.control {
            control.greeted_at = Some(now);
        }
        let send = |notice, source, occasion| {
            QueuedEffect::Control(ControlEffect::SendNotice {
                notice,
                source,
                occasion,
            })
        };
        let mut effects = Vec::new();
        let store = self.engine.store();
        for (key, (plain, html)) in
            store.scan::<PendingNotices>(&prefix(person), None, PENDING_NOTICES_MAX)?
        {
            let (notice, source) = (NoticeText { plain, html }, format!("untold {}", key.1));
            effects.push(send(notice, source, Occasion::News));
            batch.delete::<PendingNotices>(&key);
        }
        effects.extend(self.unseen_requests(person)?);
        let greeting = match effects.is_empty() {
            true => greeting,
            false => bot::texts::short_greeting(),
        };
        effects.push(send(greeting, "greeting".to_owned(), Occasion::Answer));
        Ok(effects)
    }
}

fn remark_text(remark: Remark) -> NoticeText {
    match remark {
        Remark::NotEncrypted => bot::texts::not_encrypted(),
        Remark::Verification => bot::texts::not_verified(),
        Remark::Unreadable => bot::texts::unreadable(),
        Remark::NotUnderstood => bot::texts::not_understood(),
        Remark::UnsignedDevice => bot::texts::unsigned_device(),
        Remark::UnknownDevice => bot::texts::unknown_device(),
        Remark::TooManyDevices => bot::texts::too_many_devices(),
        Remark::TooOld => bot::texts::too_old(bot::COMMAND_AGE_MAX),
    }
}
