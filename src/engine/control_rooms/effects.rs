//! Carries out the effects of control rooms.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::json;

use crate::{
    bot::{self, NoticeText},
    crypto::EncryptError,
    engine::{
        EngineError,
        control_room::{ControlEffect, ControlPhase, Occasion},
        ghosts::is_foreign,
        messaging::{
            notice,
            send::{Outgoing, Recipients},
        },
        records::{ControlRooms, PendingNotices, QueuedEffect, RetainedEvents},
        room::Room,
    },
    ids::Person,
    introduction::{Reason, Refusal},
    store::{Batch, prefix},
};

impl Room {
    /// Carries out an effect of a control room.
    pub(in crate::engine) async fn perform_control(
        &mut self,
        number: u64,
        effect: &ControlEffect,
    ) -> Result<(), EngineError> {
        let mut batch = self.outbox_done(number);
        let engine = self.engine.clone();
        let bot = engine.settings().bot.clone();
        let acting = engine.as_user(&bot)?;
        match effect {
            ControlEffect::Invite => self.invite_person(&bot).await?,
            ControlEffect::Join => {
                let inviter = self.person_here()?;
                let _place = engine.place_for(&inviter).await?;
                engine.machines().expect_room(&bot, &self.id).await?;
                engine.enter(&bot, &self.id, &inviter).await?;
            }
            ControlEffect::Decline { inviter, reason } => {
                let (reason, server) = (Some(reason.as_str()), Some(inviter.server_name()));
                engine.leave(&bot, &self.id, reason, server).await?;
                engine.machines().turn_away(&bot, &self.id).await?;
            }
            ControlEffect::MoveTo { room } => return self.move_to(room, batch).await,
            // `backfill_for` has checked the room and handled the earlier messages by now.
            ControlEffect::Look => {}
            ControlEffect::TurnOnEncryption => {
                let content = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
                let kind = "m.room.encryption";
                engine
                    .homeserver()
                    .send_state(acting.actor(), &self.id, kind, "", &content)
                    .await?;
            }
            ControlEffect::Leave { reason } => {
                let person = self.person_here().ok();
                let server = person
                    .as_ref()
                    .map_or(bot.server_name(), |person| person.server_name());
                let (reason, server) = (reason.as_deref(), Some(server));
                engine.leave(&bot, &self.id, reason, server).await?;
            }
            ControlEffect::SendNotice {
                notice,
                source,
                occasion,
            } => {
                self.send_as_bot(notice, source, *occasion).await?;
            }
            ControlEffect::DeclineVerification { event } => {
                self.refuse_verification(&bot, event).await?;
            }
            ControlEffect::ShowRequest { number } => {
                return self.show_request(*number, batch).await;
            }
            ControlEffect::ShowLine { number } => {
                return self.show_line(*number, batch).await;
            }
            ControlEffect::OfferAnswers { to } => self.offer_answers(&bot, to).await?,
            ControlEffect::Bot(effect) => {
                self.perform_bot_effect(number, effect, &mut batch).await?;
            }
            ControlEffect::Forget => {
                return self.forget_control_room(&bot, batch).await;
            }
        }
        self.commit(batch, [])
    }

    async fn perform_bot_effect(
        &self,
        number: u64,
        effect: &bot::Effect,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        match effect {
            bot::Effect::SendExport { person } => self.send_export(person, number).await,
            bot::Effect::ErasePerson { person } => self.engine.erase_themselves(person).await,
            effect => {
                self.engine.carry_out_bot_effect(effect, number).await?;
                Ok(self.engine.settle_owed_ghost(effect, batch)?)
            }
        }
    }

    fn person_here(&self) -> Result<Person, EngineError> {
        let person = self.record.control.as_ref().and_then(|c| c.person.clone());
        person.ok_or(EngineError::Refused(Refusal::Impossible))
    }

    async fn invite_person(&self, bot: &OwnedUserId) -> Result<(), EngineError> {
        let person = self.person_here()?;
        let view = self.room_state(bot).await?;
        if matches!(view.membership(&person), "join" | "invite") {
            return Ok(());
        }
        self.engine.invite(bot, &self.id, &person, true).await
    }

    /// Leaves this room for the person's other control room, and tells them where that is: one is
    /// enough.
    async fn move_to(&mut self, room: &OwnedRoomId, batch: Batch) -> Result<(), EngineError> {
        let Some(control) = &self.record.control else {
            return Ok(self.engine.store().apply(batch)?);
        };
        let current = match &control.person {
            Some(person) => self.engine.store().get::<ControlRooms>(person)?,
            None => None,
        };
        // The other room may have been left in the meantime.
        if control.phase == ControlPhase::Left || current.as_ref() == Some(&self.id) {
            return self.commit(batch, []);
        }
        if control.phase == ControlPhase::Looking {
            self.withdraw_invite().await?;
        }
        if control.phase == ControlPhase::Ready {
            let server = &self.engine.settings().server_name;
            let notice = bot::texts::moved(room, server);
            let source = format!("moved {room}");
            self.send_as_bot(&notice, &source, Occasion::Answer).await?;
        }
        let control = self.record.control.iter_mut();
        let effects: Vec<ControlEffect> = control.flat_map(|control| control.leave(None)).collect();
        self.commit(batch, effects.into_iter().map(QueuedEffect::Control))
    }

    /// Withdraws the person's invite, so that they do not join a room that the bot is about to
    /// leave.
    async fn withdraw_invite(&self) -> Result<(), EngineError> {
        let (engine, person) = (&self.engine, self.person_here()?);
        let bot = &engine.settings().bot;
        if self.room_state(bot).await?.membership(&person) != "invite" {
            return Ok(());
        }
        let acting = engine.as_user(bot)?;
        let (kind, content) = ("m.room.member", json!({ "membership": "leave" }));
        let withdrawn = engine.homeserver().send_state(
            acting.actor(),
            &self.id,
            kind,
            person.as_str(),
            &content,
        );
        match withdrawn.await {
            // The person may have joined or declined at this moment.
            Err(error) if !error.is_refusal() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Gives up a room to which its person has not come, and what the bot had to tell them.
    pub(in crate::engine) async fn expire_control_room(
        &mut self,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let control = self.record.control.as_ref();
        if !control.is_some_and(|control| control.has_expired(engine.now())) {
            return self.commit(batch, []);
        }
        let person = self.person_here()?;
        self.withdraw_invite().await?;
        // They may have come at this moment.
        let view = self.room_state(&engine.settings().bot).await?;
        if view.membership(&person) == "join" {
            return self.commit(batch, []);
        }
        let effects = self.give_up_telling(&person, &mut batch)?;
        self.leave_unentered(effects, batch)
    }

    /// Leaves this room, if it is the control room of a person who was erased.
    pub(in crate::engine) fn part_with(
        &mut self,
        person: &Person,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let effects = match &mut self.record.control {
            Some(control) if control.person.as_ref() == Some(person) => {
                control.leave(Some(bot::texts::ERASED.to_owned()))
            }
            _ => Vec::new(),
        };
        self.commit(batch, effects.into_iter().map(QueuedEffect::Control))
    }

    /// Deletes what the bot had to tell a person who does not come to the room that was made for
    /// it. Returns the effects that turn down the people who wait for their answer.
    pub(in crate::engine) fn give_up_telling(
        &self,
        person: &Person,
        batch: &mut Batch,
    ) -> Result<Vec<ControlEffect>, EngineError> {
        let store = self.engine.store();
        // Another room may have become their control room.
        if store.get::<ControlRooms>(person)?.as_ref() != Some(&self.id) {
            return Ok(Vec::new());
        }
        for (key, _) in store.scan::<PendingNotices>(&prefix(person), None, 1000)? {
            batch.delete::<PendingNotices>(&key);
        }
        self.turn_down_unseen(person)
    }

    /// Returns the effects that turn down the people who ask for a person and whose requests were
    /// not shown.
    fn turn_down_unseen(&self, person: &Person) -> Result<Vec<ControlEffect>, EngineError> {
        let requests = self.engine.directory().requests_of(person)?.into_iter();
        let unseen = requests.filter(|(_, request)| request.shown.is_none());
        Ok(unseen
            .map(|(_, request)| {
                ControlEffect::Bot(bot::Effect::AnswerRequest {
                    room: request.room,
                    ghost: request.ghost,
                    accepted: false,
                    masked: false,
                })
            })
            .collect())
    }

    /// Handles that a person cannot be invited, and so cannot be asked: the people who wait for
    /// their answer are told now.
    fn not_invited(&mut self, batch: Batch) -> Result<(), EngineError> {
        let effects = self.turn_down_unseen(&self.person_here()?)?;
        self.leave_unentered(effects, batch)
    }

    fn leave_unentered(
        &mut self,
        mut effects: Vec<ControlEffect>,
        batch: Batch,
    ) -> Result<(), EngineError> {
        if let Some(control) = &mut self.record.control {
            effects.extend(control.leave(None));
        }
        self.commit(batch, effects.into_iter().map(QueuedEffect::Control))
    }

    /// Sends a message of the bot, encrypted for the person alone: others may have joined in the
    /// meantime. Clients notify of news, which is text that mentions the person, and not of notices.
    pub(in crate::engine) async fn send_as_bot(
        &self,
        text: &NoticeText,
        source: &str,
        occasion: Occasion,
    ) -> Result<OwnedEventId, EngineError> {
        let bot = self.engine.settings().bot.clone();
        let content = match occasion {
            Occasion::Answer => notice::notice(text),
            Occasion::News => notice::news(text, &self.person_here()?),
        };
        self.send(Outgoing {
            sender: &bot,
            event_type: "m.room.message",
            content: &content,
            recipients: Recipients::Only(&self.person_here()?),
            transaction: self.transaction_id(&bot, "answer", source),
        })
        .await
    }

    async fn forget_control_room(
        &mut self,
        bot: &OwnedUserId,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        engine.forget_room(bot, &self.id).await?;
        // Events that wait here for a ghost are not the bot's to delete.
        let mut introductions = self.record.introductions.iter();
        let is_introducing = introductions.any(|introduction| introduction.is_open());
        if !is_introducing && self.record.conversation.is_none() {
            for (key, _) in engine
                .store()
                .scan::<RetainedEvents>(&prefix(&self.id), None, 1000)?
            {
                batch.delete::<RetainedEvents>(&key);
            }
        }
        let person = self.record.control.take().and_then(|it| it.person);
        let Some(person) = person else {
            return self.commit(batch, []);
        };
        // Another of the person's rooms may become their control room in the meantime.
        let _one_at_a_time = engine.0.control_rooms.lock(person.clone()).await;
        if engine.store().get::<ControlRooms>(&person)?.as_ref() != Some(&self.id) {
            return self.commit(batch, []);
        }
        batch.delete::<ControlRooms>(&person);
        let mut tx = engine.directory().begin().await;
        tx.set_requests_unseen(&person)?;
        self.commit_with(tx, batch, [])
    }

    /// Handles that an effect is given up.
    pub(in crate::engine) async fn give_up_control(
        &mut self,
        number: u64,
        effect: &ControlEffect,
        error: &EngineError,
    ) -> Result<(), EngineError> {
        // The invite stands, and is not accepted: no key that comes for it is kept.
        if let ControlEffect::Decline { .. } = effect {
            let bot = &self.engine.settings().bot;
            self.engine.machines().turn_away(bot, &self.id).await?;
        }
        let mut batch = self.outbox_done(number);
        if let ControlEffect::Bot(effect) = effect
            && !is_foreign(error)
        {
            self.engine.stage_owed_ghost(effect, &mut batch)?;
        }
        if let ControlEffect::Bot(bot::Effect::Tell { person, notice }) = effect {
            self.engine
                .stage_owed_notice(person.clone(), notice.clone(), &mut batch)?;
        }
        let Some(control) = &mut self.record.control else {
            return Ok(self.engine.store().apply(batch)?);
        };
        let reason = match (effect, error) {
            (ControlEffect::Invite, _) => return self.not_invited(batch),
            (
                ControlEffect::Join | ControlEffect::Look | ControlEffect::TurnOnEncryption,
                error,
            ) if error.is_transient() => Some(bot::texts::NO_ANSWER),
            (ControlEffect::Join | ControlEffect::Look | ControlEffect::MoveTo { .. }, _) => None,
            (ControlEffect::TurnOnEncryption, _) => Some(bot::texts::NOT_ENCRYPTED),
            (
                ControlEffect::SendNotice { .. } | ControlEffect::ShowRequest { .. },
                EngineError::Encrypt(EncryptError::NoSignedDevice { .. }),
            ) => Some(Reason::UnsignedDevice.words()),
            (
                ControlEffect::SendNotice { .. } | ControlEffect::ShowRequest { .. },
                EngineError::Encrypt(EncryptError::TooManyDevices { .. }),
            ) => Some(Reason::TooManyDevices.words()),
            (ControlEffect::Bot(effect), _) => {
                let notice = if is_foreign(error) {
                    bot::texts::ghost_failed(effect)
                } else {
                    bot::texts::ghost_owed(effect)
                };
                let notice = notice.or_else(|| bot::texts::not_done(effect));
                // An admin may have ordered it for somebody else.
                let holder = self.engine.holder_of(effect)?;
                let other = holder.filter(|holder| control.person.as_ref() != Some(holder));
                if let (Some(other), Some(notice)) = (other, &notice) {
                    self.engine
                        .stage_owed_notice(other, notice.clone(), &mut batch)?;
                    return self.commit(batch, []);
                }
                let say = notice.map(|notice| ControlEffect::SendNotice {
                    notice,
                    source: format!("failed {}", self.engine.next()),
                    occasion: Occasion::News,
                });
                return self.commit(batch, say.map(QueuedEffect::Control));
            }
            _ => return self.commit(batch, []),
        };
        let effects = match control.phase {
            ControlPhase::Left => Vec::new(),
            _ => control.leave(reason.map(str::to_owned)),
        };
        self.commit(batch, effects.into_iter().map(QueuedEffect::Control))
    }
}
