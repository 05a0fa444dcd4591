//! Requests: what happens between the room in which somebody waits and the owner's control room.
//!
//! What the asker wrote is nowhere kept but as the ciphertext that waits to be passed on; to show it
//! to the owner it is decrypted when the bot's message is written, and again should that be
//! repeated.

use ruma::{EventId, OwnedEventId, OwnedUserId, RoomId, UserId};
use serde_json::{Value, value::RawValue};

use crate::{
    clock::Timestamp,
    directory::Request,
    engine::{
        Engine, EngineError,
        control_rooms::state::ControlEffect,
        records::{Arrived, Inbox, Kept, Rooms, What},
        room::RoomActor,
    },
    introduction::{Introduction, Phase, Refusal, clean_name, gist},
    relay::{Counterparts, Names, Passage, carry_text},
    store::Batch,
};

/// The longest line, in characters, before it is cut to what is shown.
const LINE_AT_MOST: usize = 4000;

/// No event is known elsewhere yet.
struct Nothing;

impl Counterparts for Nothing {
    fn event(&self, _: &EventId) -> Option<OwnedEventId> {
        None
    }
}

/// What an owner is shown of a request.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    /// Its number.
    pub number: u32,
    /// What is kept of it.
    pub request: &'a Request,
    /// The asker's display name, fit to be shown.
    pub name: &'a str,
    /// The opening line, where there is one that can be shown.
    pub line: Option<&'a str>,
    /// The time now.
    pub now: Timestamp,
}

impl RoomActor {
    /// Writes the request down for the owner and lets the bot show it. Twice is as good as once.
    pub(in crate::engine) async fn ask_owner(&self, is: &Introduction) -> Result<(), EngineError> {
        let impossible = || EngineError::Refused(Refusal::Impossible);
        let owner = is.owner().ok_or_else(impossible)?;
        let engine = &self.engine;
        let record = engine.directory().by_ghost(&is.ghost)?;
        let record = record.filter(|record| record.is_held_by(owner));
        let record = record.ok_or_else(impossible)?;
        let control_room = engine.control_room_of(owner).await?;
        let request = Request {
            handle: record.handle,
            generation: record.generation,
            asker: is.invite.asker.clone(),
            room: self.room.clone(),
            ghost: is.ghost.clone(),
            since: is.invited_at,
            shown: None,
            masked_as: match is.masked() {
                true if is.direct => Some(engine.shown_to_one(&is.invite.asker, &is.ghost)?.1),
                true => Some(engine.shown_to_many(&is.invite.asker)?.1),
                false => None,
            },
        };
        let mut change = engine.directory().begin().await;
        let number = change.open_request(owner, &request)?;
        let number = number.ok_or_else(impossible)?;
        let (mut batch, lock) = change.into_parts();
        let arrived = Arrived::Ask {
            owner: owner.clone(),
            number,
        };
        batch.put::<Inbox>(&(control_room.clone(), engine.next()), &arrived)?;
        engine.store().apply(batch)?;
        drop(lock);
        engine.store().flush().await?;
        engine.wake(&control_room).await;
        Ok(())
    }

    /// Nobody is to answer it any more.
    pub(in crate::engine) async fn withdraw_request(
        &self,
        is: &Introduction,
    ) -> Result<(), EngineError> {
        if let Some(owner) = is.owner() {
            let mut change = self.engine.directory().begin().await;
            change.withdraw_request(owner, &self.room, &is.ghost)?;
            change.commit().await?;
        }
        Ok(())
    }

    /// In a control room: a request is to be shown, now or when the person has come. If this is no
    /// control room any more, in another one.
    pub(in crate::engine) async fn asked(
        &mut self,
        owner: &OwnedUserId,
        number: u32,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        if self.bot_is_here() {
            let unseen = match self.is_ready() {
                true => self.unseen_requests(owner)?,
                false => Vec::new(),
            };
            return self.settle(batch, unseen);
        }
        let engine = self.engine.clone();
        let room = engine.control_room_of(owner).await?;
        if room == self.room {
            return self.settle(batch, []);
        }
        let arrived = Arrived::Ask {
            owner: owner.clone(),
            number,
        };
        batch.put::<Inbox>(&(room.clone(), engine.next()), &arrived)?;
        self.settle(batch, [])?;
        engine.wake(&room).await;
        Ok(())
    }

    /// The requests that somebody who has just come to their control room has not seen.
    pub(in crate::engine) fn unseen_requests(
        &self,
        person: &OwnedUserId,
    ) -> Result<Vec<What>, EngineError> {
        let requests = self.engine.directory().requests_of(person)?;
        let unseen = requests.into_iter().filter(|(_, it)| it.shown.is_none());
        Ok(unseen
            .map(|(number, _)| What::Control(ControlEffect::Ask { number }))
            .collect())
    }

    /// Shows a request to the owner, encrypted, in their control room.
    pub(in crate::engine) async fn show_request(
        &mut self,
        number: u32,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let person = self.record.control.as_ref().and_then(|c| c.person.clone());
        let person = person.ok_or(EngineError::Refused(Refusal::Impossible))?;
        let mut requests = engine.directory().requests_of(&person)?.into_iter();
        let request = requests.find(|(known, _)| *known == number);
        let Some((_, request)) = request.filter(|(_, request)| request.shown.is_none()) else {
            return self.settle(batch, []);
        };
        let Some((name, line)) = engine.what_is_asked(&request).await? else {
            // Nobody waits any more.
            let mut change = engine.directory().begin().await;
            change.close_request(&person, number)?;
            change.commit().await?;
            return self.settle(batch, []);
        };
        let shown = Shown {
            number,
            request: &request,
            name: &name,
            line: line.as_deref(),
            now: engine.now(),
        };
        let words = engine.spokesperson().request(&shown, engine.directory())?;
        let source = format!("request {} {}", request.room, request.ghost);
        let event = self.say_words(&words, &source).await?;
        let mut change = engine.directory().begin().await;
        change.request_shown(&person, number, event)?;
        let (changed, lock) = change.into_parts();
        batch.merge(changed);
        let settled = self.settle(batch, []);
        drop(lock);
        settled
    }
}

impl Engine {
    /// Who asks, and their opening line if it can be read; `None` when nobody waits any more.
    async fn what_is_asked(
        &self,
        request: &Request,
    ) -> Result<Option<(String, Option<String>)>, EngineError> {
        let record = self
            .store()
            .get::<Rooms>(&request.room)?
            .unwrap_or_default();
        let mut introductions = record.introductions.iter();
        let Some(is) = introductions.find(|is| is.ghost == request.ghost) else {
            return Ok(None);
        };
        if !matches!(is.phase, Phase::Asking { .. }) {
            return Ok(None);
        }
        let view = self.view_of(&is.ghost, &request.room).await?;
        let asker = &request.asker;
        let name = match &request.masked_as {
            Some(name) => name.clone(),
            None => clean_name(view.names.get(asker).map(String::as_str), asker),
        };
        let Some((event, edit)) = is.opening_line() else {
            return Ok(Some((name, None)));
        };
        let key = (request.room.clone(), edit.unwrap_or(event).clone());
        let Some(json) = self.store().get::<Kept>(&key)? else {
            return Ok(Some((name, None)));
        };
        let raw = RawValue::from_string(json)?;
        let decrypted = self
            .machines()
            .decrypt(&is.ghost, &request.room, &raw)
            .await;
        match decrypted.map_err(EngineError::from) {
            Ok(decrypted) => {
                let content: Value = serde_json::from_str(decrypted.content.get())?;
                let masked = request.masked_as.is_some();
                let told = |text: &str| match masked {
                    true => self.without_asker(text, &request.room, asker),
                    false => Some(text.to_owned()),
                };
                let line = gist(&decrypted.event_type, &content, told);
                Ok(Some((name, Some(line))))
            }
            Err(error) if error.is_transient() => Err(error),
            // It was readable before; the request is shown all the same.
            Err(_) => Ok(Some((name, None))),
        }
    }

    /// What a masked asker has written, without what would name them, as their messages are carried
    /// later. None if that cannot be told.
    fn without_asker(&self, text: &str, room: &RoomId, asker: &UserId) -> Option<String> {
        let passage = Passage {
            sender: asker,
            people: &[],
            here: room,
            there: room,
            events: &Nothing,
            secrets: &[],
            homeserver: &self.settings().server_name,
            hide_addresses: true,
            pseudonym_key: &[0; 32],
        };
        carry_text(text, &passage, &Names::default(), LINE_AT_MOST)
    }

    /// The owner answered: the room in which the asker waits goes on.
    pub(in crate::engine) async fn answer_request(
        &self,
        room: &ruma::OwnedRoomId,
        ghost: &OwnedUserId,
        accepted: bool,
    ) -> Result<(), EngineError> {
        let arrived = Arrived::Answered {
            ghost: ghost.clone(),
            accepted,
        };
        let mut batch = Batch::new();
        batch.put::<Inbox>(&(room.clone(), self.next()), &arrived)?;
        self.store().commit(batch).await?;
        self.wake(room).await;
        Ok(())
    }
}
