//! Carrying out what the bot does. Each effect can be carried out twice without harm.

use std::time::Duration;

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, api::client::room::create_room};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    crypto::EncryptError,
    engine::{
        Engine, EngineError, Task, Words,
        control_rooms::state::{ControlEffect, ControlPhase},
        event::RoomEvent,
        messaging::send::is_foreign,
        records::{Arrived, ControlRooms, Inbox, Kept, Rooms, SyncTokens, What},
        room::RoomActor,
    },
    introduction::{Reason, Refusal},
    matrix::{Actor, MatrixError},
    store::{Batch, prefix},
};

/// For how long something is tried.
const INSIST: Duration = Duration::from_secs(5 * 60);
/// For how long the bot tries to invite somebody: their server may be away.
const INSIST_ON_INVITING: Duration = Duration::from_secs(10 * 60);
/// For how long somebody else is tried to be told something.
const INSIST_LITTLE: Duration = Duration::from_secs(30);
/// For how long something is tried that must not be left undone.
const INSIST_LONG: Duration = Duration::from_secs(60 * 60);
/// Marks a control room that the bot made: a digest of the person's Matrix ID.
const MARK: &str = "chat.stonechat.for";
/// How many rooms are looked at for a mark.
const ROOMS_LOOKED_AT: usize = 20;
/// How many events are read back when the bot comes into a room.
const READ_BACK: u32 = 30;

impl RoomActor {
    pub(in crate::engine) async fn carry_out_control(
        &mut self,
        number: u64,
        effect: ControlEffect,
    ) -> Result<(), EngineError> {
        let batch = self.finish(number);
        match self.perform_control(&effect, batch).await {
            Err(error) if self.tries_control_again(number, &effect, &error) => Err(error),
            Err(error) => {
                tracing::info!(room = %self.room, kind = effect.kind(), %error, "refused");
                self.control_refused(&effect, &error, self.finish(number))
            }
            Ok(()) => Ok(()),
        }
    }

    /// The bot leaves and forgets whatever happens; everything else ends some time, so that nobody
    /// mutes the bot in somebody's room.
    fn tries_control_again(
        &mut self,
        number: u64,
        effect: &ControlEffect,
        error: &EngineError,
    ) -> bool {
        let at_most = match effect {
            ControlEffect::Leave { .. } | ControlEffect::Forget => return true,
            ControlEffect::Invite => INSIST_ON_INVITING,
            ControlEffect::Task(Task::Tell { .. }) => INSIST_LITTLE,
            // What an owner has left behind is nobody else's.
            ControlEffect::Task(Task::RetireGhost { .. } | Task::ReplaceIdentity { .. }) => {
                INSIST_LONG
            }
            _ => INSIST,
        };
        error.is_transient() && !self.has_insisted(number, at_most, error)
    }

    async fn perform_control(
        &mut self,
        effect: &ControlEffect,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let bot = engine.settings().bot.clone();
        let device = engine.device_of(&bot)?;
        let actor = Actor::device(&bot, &device);
        match effect {
            ControlEffect::Invite => self.invite_person(&bot).await?,
            ControlEffect::Join => {
                let inviter = self.person_here()?;
                let _place = engine.place_for(&inviter).await?;
                engine.machines().expect_room(&bot, &self.room).await?;
                engine.enter(&bot, &self.room, &inviter).await?;
            }
            ControlEffect::Decline { inviter, reason } => {
                self.go(&bot, inviter, Some(reason.clone())).await?;
                engine.machines().turn_away(&bot, &self.room).await?;
            }
            ControlEffect::MoveTo { room } => return self.move_to(room, batch).await,
            ControlEffect::Look => return self.look_around(&bot, batch).await,
            ControlEffect::TurnOnEncryption => {
                let content = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
                let kind = "m.room.encryption";
                engine
                    .homeserver()
                    .send_state(actor, &self.room, kind, "", &content)
                    .await?;
            }
            ControlEffect::Leave { reason } => {
                let person = self.person_here().unwrap_or_else(|_| bot.clone());
                self.go(&bot, &person, reason.clone()).await?;
            }
            ControlEffect::Say { words, source } => {
                self.say_words(words, source).await?;
            }
            ControlEffect::Ask { number } => return self.show_request(*number, batch).await,
            ControlEffect::Task(task) => engine.do_task(task).await?,
            ControlEffect::Forget => {
                return self.forget_control_room(&bot, batch).await;
            }
        }
        self.settle(batch, [])
    }

    fn person_here(&self) -> Result<OwnedUserId, EngineError> {
        let person = self.record.control.as_ref().and_then(|c| c.person.clone());
        person.ok_or(EngineError::Refused(Refusal::Impossible))
    }

    async fn invite_person(&self, bot: &OwnedUserId) -> Result<(), EngineError> {
        let person = self.person_here()?;
        let view = self.view(bot).await?;
        if matches!(view.membership(&person), "join" | "invite") {
            return Ok(());
        }
        self.engine.invite(bot, &self.room, &person, true).await
    }

    /// Leaves, or declines an invite by `inviter`, whose server the homeserver then asks. Not being
    /// there counts as done.
    async fn go(
        &self,
        bot: &OwnedUserId,
        inviter: &OwnedUserId,
        reason: Option<String>,
    ) -> Result<(), EngineError> {
        let (homeserver, device) = (
            self.engine.homeserver().clone(),
            self.engine.device_of(bot)?,
        );
        let (bot, room) = (bot.clone(), self.room.clone());
        let leaving = async move {
            let actor = Actor::device(&bot, &device);
            match homeserver.leave(actor, &room, reason.as_deref()).await {
                Err(error) if error.is("M_FORBIDDEN") || error.is("M_NOT_FOUND") => Ok(()),
                other => other,
            }
        };
        self.engine.ask(inviter.server_name(), leaving).await
    }

    /// The person has another control room, and one is enough.
    async fn move_to(&mut self, room: &OwnedRoomId, batch: Batch) -> Result<(), EngineError> {
        let Some(control) = &self.record.control else {
            return Ok(self.engine.store().apply(batch)?);
        };
        let current = match &control.person {
            Some(person) => self.engine.store().get::<ControlRooms>(person)?,
            None => None,
        };
        // It may be the other one that was left meanwhile.
        if control.phase == ControlPhase::Left || current.as_ref() == Some(&self.room) {
            return self.settle(batch, []);
        }
        if control.phase == ControlPhase::Looking {
            self.withdraw_invite().await?;
        }
        if control.phase == ControlPhase::Ready {
            let words = self.engine.spokesperson().moved(room);
            self.say_words(&words, &format!("moved {room}")).await?;
        }
        let control = self.record.control.iter_mut();
        let effects: Vec<ControlEffect> = control.flat_map(|control| control.leave(None)).collect();
        self.settle(batch, effects.into_iter().map(What::Control))
    }

    /// Nobody is to come into a room that the bot is about to leave.
    async fn withdraw_invite(&self) -> Result<(), EngineError> {
        let (engine, person) = (&self.engine, self.person_here()?);
        let bot = &engine.settings().bot;
        if self.view(bot).await?.membership(&person) != "invite" {
            return Ok(());
        }
        let device = engine.device_of(bot)?;
        let (kind, content) = ("m.room.member", json!({ "membership": "leave" }));
        let actor = Actor::device(bot, &device);
        let withdrawn =
            engine
                .homeserver()
                .send_state(actor, &self.room, kind, person.as_str(), &content);
        match withdrawn.await {
            // They may have come or declined in this moment.
            Ok(_) | Err(MatrixError::Refused { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Nobody can be asked who cannot be invited: whoever waits for their answer hears it now.
    fn not_invited(&mut self, batch: Batch) -> Result<(), EngineError> {
        let person = self.person_here()?;
        let requests = self.engine.directory().requests_of(&person)?.into_iter();
        let unseen = requests.filter(|(_, request)| request.shown.is_none());
        let mut effects: Vec<ControlEffect> = unseen
            .map(|(_, request)| {
                ControlEffect::Task(Task::AnswerRequest {
                    room: request.room,
                    ghost: request.ghost,
                    accepted: false,
                })
            })
            .collect();
        if let Some(control) = &mut self.record.control {
            effects.extend(control.leave(None));
        }
        self.settle(batch, effects.into_iter().map(What::Control))
    }

    /// What the bot says, for the person alone, whoever else may have come in meanwhile.
    pub(in crate::engine) async fn say_words(
        &self,
        words: &Words,
        source: &str,
    ) -> Result<OwnedEventId, EngineError> {
        let bot = self.engine.settings().bot.clone();
        let content = json!({
            "msgtype": "m.notice",
            "body": words.plain,
            "format": "org.matrix.custom.html",
            "formatted_body": words.html,
            "m.mentions": {},
        });
        let transaction = self.transaction_id(&bot, "answer", source);
        let person = self.record.control.as_ref().and_then(|c| c.person.clone());
        let person = person.ok_or(EngineError::Refused(Refusal::Impossible))?;
        self.say_only_to(&bot, vec![person], &content, transaction)
            .await
    }

    async fn forget_control_room(
        &mut self,
        bot: &OwnedUserId,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        if let Err(error) = engine.sync_until_empty(bot).await {
            tracing::warn!(%error, "keys on their way could not be fetched");
        }
        engine.drain_for(bot).await;
        engine.machines().forget_room(bot, &self.room).await?;
        // What a ghost keeps that waits in the same room is not the bot's to throw away.
        if !self.record.introductions.iter().any(|is| is.is_open()) {
            for (key, _) in engine
                .store()
                .scan::<Kept>(&prefix(&self.room), None, 1000)?
            {
                batch.delete::<Kept>(&key);
            }
        }
        let person = self.record.control.take().and_then(|it| it.person);
        let Some(person) = person else {
            return self.settle(batch, []);
        };
        // Another room of theirs may become the one meanwhile.
        let _one_at_a_time = engine.0.control_rooms.lock(person.clone()).await;
        if engine.store().get::<ControlRooms>(&person)?.as_ref() != Some(&self.room) {
            return self.settle(batch, []);
        }
        batch.delete::<ControlRooms>(&person);
        let mut change = engine.directory().begin().await;
        change.requests_unseen(&person)?;
        let (changed, lock) = change.into_parts();
        batch.merge(changed);
        let settled = self.settle(batch, []);
        drop(lock);
        settled
    }

    /// Looks who is here; the person may have written before the bot came.
    async fn look_around(&mut self, bot: &OwnedUserId, batch: Batch) -> Result<(), EngineError> {
        let view = self.view(bot).await?;
        self.judged(&view, Batch::new()).await?;
        if self.is_ready() {
            let device = self.engine.device_of(bot)?;
            let actor = Actor::device(bot, &device);
            let back = ruma::api::Direction::Backward;
            let homeserver = self.engine.homeserver();
            let page = homeserver
                .messages(actor, &self.room, None, back, READ_BACK)
                .await?;
            for json in page.events.iter().rev() {
                let Some(event) = RoomEvent::parse(json.get(), Some(&self.room)) else {
                    continue;
                };
                if event.membership().is_none() && !self.engine.is_ours(&event.sender) {
                    self.handle(event, json.get(), Batch::new()).await?;
                }
            }
        }
        // Last: until everything was read, a crash reads it again.
        Ok(self.engine.store().apply(batch)?)
    }

    fn control_refused(
        &mut self,
        effect: &ControlEffect,
        error: &EngineError,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let Some(control) = &mut self.record.control else {
            return Ok(self.engine.store().apply(batch)?);
        };
        let reason = match (effect, error) {
            (ControlEffect::Invite, _) => return self.not_invited(batch),
            (ControlEffect::Join | ControlEffect::Look | ControlEffect::MoveTo { .. }, _) => None,
            (ControlEffect::TurnOnEncryption, _) => Some(Reason::NotEncrypted.words()),
            (
                ControlEffect::Say { .. } | ControlEffect::Ask { .. },
                EngineError::Encrypt(EncryptError::NoSignedDevice { .. }),
            ) => Some(Reason::UnsignedDevice.words()),
            (
                ControlEffect::Say { .. } | ControlEffect::Ask { .. },
                EngineError::Encrypt(EncryptError::TooManyDevices { .. }),
            ) => Some(Reason::TooManyDevices.words()),
            (ControlEffect::Task(task), _) => {
                let words = failed_words(task);
                let say = words.map(|words| ControlEffect::Say {
                    words,
                    source: format!("failed {}", self.engine.next()),
                });
                return self.settle(batch, say.map(What::Control));
            }
            _ => return self.settle(batch, []),
        };
        let effects = match control.phase {
            ControlPhase::Left => Vec::new(),
            _ => control.leave(reason.map(str::to_owned)),
        };
        self.settle(batch, effects.into_iter().map(What::Control))
    }
}

/// What the owner hears when their ghost could not be made.
fn failed_words(task: &Task) -> Option<Words> {
    let (Task::MakeGhost { name, .. } | Task::ReplaceIdentity { name, .. }) = task else {
        return None;
    };
    let plain = format!(
        "I could not set up {name}: something on this server uses its name or its keys already. \
         It is frozen, so nobody can reach you by it. Please ask the admin of this server to look \
         into it."
    );
    Some(Words {
        html: plain.clone(),
        plain,
    })
}

impl Engine {
    async fn do_task(&self, task: &Task) -> Result<(), EngineError> {
        match task {
            Task::MakeGhost {
                ghost,
                name,
                strict,
            } => {
                self.make_ghost(ghost, name, *strict || self.settings().strict)
                    .await
            }
            Task::ReplaceIdentity {
                ghost,
                name,
                strict,
            } => {
                self.part_from_all(ghost).await?;
                self.leave_everywhere(ghost).await?;
                self.machines().retire(ghost).await?;
                self.make_ghost(ghost, name, *strict || self.settings().strict)
                    .await
            }
            Task::RetireGhost { ghost, generation } => {
                let held = self.directory().by_ghost(ghost)?;
                // Whoever holds the handle by now has had the last one's things taken away first.
                if held.is_some_and(|it| it.is_active() && it.generation > *generation)
                    && *generation > 0
                {
                    return Ok(());
                }
                self.part_from_all(ghost).await?;
                self.leave_everywhere(ghost).await?;
                self.machines().retire(ghost).await?;
                // Somebody else may have claimed it meanwhile.
                match self.directory().by_ghost(ghost)? {
                    Some(record) if record.is_active() => {
                        let strict = record.strict || self.settings().strict;
                        let name = record.handle.to_string();
                        self.make_ghost(ghost, &name, strict).await
                    }
                    _ => Ok(()),
                }
            }
            Task::EndConversations {
                ghost,
                blocked_only: false,
            } => self.part_from_all(ghost).await,
            Task::EndConversations { ghost, .. } => self.part_from_blocked(ghost).await,
            Task::Appear {
                person,
                ghost,
                name,
            } => self.appear(person, ghost, name).await,
            Task::AnswerRequest {
                room,
                ghost,
                accepted,
            } => self.answer_request(room, ghost, *accepted).await,
            Task::Tell { person, words } => {
                let source = format!("{}{}", person, words.plain);
                self.tell(person, words.clone(), source).await
            }
        }
    }

    /// A conversation belongs to the owner, never to the name.
    pub(in crate::engine) async fn leave_everywhere(
        &self,
        ghost: &OwnedUserId,
    ) -> Result<(), EngineError> {
        let actor = Actor::user(ghost);
        let rooms = match self.homeserver().joined_rooms(actor).await {
            Ok(rooms) => rooms,
            // It was never made.
            Err(MatrixError::Refused { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for room in rooms {
            match self.homeserver().leave(actor, &room, None).await {
                Ok(()) | Err(MatrixError::Refused { .. }) => {}
                // One room that is broken keeps nothing else from being taken away.
                Err(error @ MatrixError::Failing { .. }) => {
                    tracing::warn!(%ghost, %room, %error, "a ghost cannot leave a room");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes a ghost with its keys. A name that somebody else holds freezes the handle: whoever
    /// has the account could be taken for its owner.
    async fn make_ghost(
        &self,
        ghost: &OwnedUserId,
        name: &str,
        strict: bool,
    ) -> Result<(), EngineError> {
        let made = if strict {
            self.machines().provision_keyless(ghost, name).await
        } else {
            self.machines().provision(ghost, name).await
        };
        match made.map_err(EngineError::from) {
            Err(error) if is_foreign(&error) => {
                tracing::error!(%ghost, %error, "the handle is frozen");
                if let Some(record) = self.directory().by_ghost(ghost)? {
                    let mut change = self.directory().begin().await;
                    change.freeze(&record.handle, self.reason_of_freezing()?, self.now())?;
                    change.commit().await?;
                }
                Err(error)
            }
            Err(error) => Err(error),
            // From here on a sync shows only what is new.
            Ok(()) if self.store().get::<SyncTokens>(ghost)?.is_none() => {
                self.sync_until_empty(ghost).await
            }
            Ok(()) => Ok(()),
        }
    }

    /// Tells somebody something in their control room, or invites them to one.
    pub(in crate::engine) async fn tell(
        &self,
        person: &OwnedUserId,
        words: Words,
        source: String,
    ) -> Result<(), EngineError> {
        let room = self.control_room_of(person).await?;
        let arrived = Arrived::Tell {
            plain: words.plain,
            html: words.html,
            source,
        };
        let mut batch = Batch::new();
        batch.put::<Inbox>(&(room.clone(), self.next()), &arrived)?;
        self.store().commit(batch).await?;
        self.wake(&room).await;
        Ok(())
    }

    /// Returns the control room of a person. If they have none, one is made, to which they are
    /// invited. It may be left at any time, so whatever is put into its inbox may find nobody.
    pub(in crate::engine) async fn control_room_of(
        &self,
        person: &OwnedUserId,
    ) -> Result<OwnedRoomId, EngineError> {
        if let Some(room) = self.store().get::<ControlRooms>(person)? {
            return Ok(room);
        }
        let _one_at_a_time = self.0.control_rooms.lock(person.clone()).await;
        match self.store().get::<ControlRooms>(person)? {
            Some(room) => Ok(room),
            None => self.make_control_room(person).await,
        }
    }

    /// Makes a control room and writes it down. Its own actor invites the person then, which may
    /// take as long as their server takes.
    async fn make_control_room(&self, person: &OwnedUserId) -> Result<OwnedRoomId, EngineError> {
        let bot = self.settings().bot.clone();
        let device = self.device_of(&bot)?;
        let actor = Actor::device(&bot, &device);
        // Creating a room has no transaction id: the mark finds one that was made for the same
        // person before a crash, or before the answer was lost.
        let mark = hex::encode(Sha256::digest(person.as_bytes()));
        if let Some(room) = self.room_with_mark(actor, MARK, &mark).await? {
            return self.take_as_control_room(&bot, person, room).await;
        }
        let mut request = create_room::v3::Request::new();
        let creation = json!({ MARK: mark });
        request.creation_content = Some(ruma::serde::Raw::from_json(
            serde_json::value::to_raw_value(&creation)?,
        ));
        request.is_direct = true;
        request.preset = Some(create_room::v3::RoomPreset::PrivateChat);
        let encryption = json!({
            "type": "m.room.encryption",
            "state_key": "",
            "content": { "algorithm": "m.megolm.v1.aes-sha2" },
        });
        request.initial_state = vec![ruma::serde::Raw::from_json(
            serde_json::value::to_raw_value(&encryption)?,
        )];
        let room = self.homeserver().create_room(actor, request).await?;
        self.take_as_control_room(&bot, person, room).await
    }

    /// A room that was made and not written down, by what its creation says under `key`; a few are
    /// looked at.
    pub(in crate::engine) async fn room_with_mark(
        &self,
        who: Actor<'_>,
        key: &str,
        mark: &str,
    ) -> Result<Option<OwnedRoomId>, EngineError> {
        let rooms = self.homeserver().joined_rooms(who).await?;
        let mut unknown = Vec::new();
        for room in rooms {
            if !self.store().contains::<Rooms>(&room)? {
                unknown.push(room);
            }
        }
        for room in unknown.into_iter().take(ROOMS_LOOKED_AT) {
            let create = self
                .homeserver()
                .state(who, &room, "m.room.create", "")
                .await?;
            let create = create.and_then(|json| serde_json::from_str::<Value>(json.get()).ok());
            if create.is_some_and(|create| create[key] == mark) {
                return Ok(Some(room));
            }
        }
        Ok(None)
    }

    async fn take_as_control_room(
        &self,
        bot: &OwnedUserId,
        person: &OwnedUserId,
        room: OwnedRoomId,
    ) -> Result<OwnedRoomId, EngineError> {
        self.machines().expect_room(bot, &room).await?;
        // Through the inbox, since the room's actor may have begun already.
        let made = Arrived::Made {
            person: person.clone(),
        };
        let mut batch = Batch::new();
        batch.put::<Inbox>(&(room.clone(), self.next()), &made)?;
        batch.put::<ControlRooms>(person, &room)?;
        self.store().commit(batch).await?;
        Ok(room)
    }
}
