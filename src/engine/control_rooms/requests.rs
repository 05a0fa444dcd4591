//! Requests by askers under the policy `ask`, as the owner sees them.

use ruma::{OwnedEventId, OwnedUserId};
use serde_json::{Value, json, value::RawValue};

use crate::{
    bot::{self, ShownRequest},
    directory::Request,
    engine::{
        Engine, EngineError,
        control_room::{ControlEffect, Occasion},
        event::RoomEvent,
        records::{InboxItem, QueuedEffect, RetainedEvents, Rooms},
        room::Room,
    },
    ids::Person,
    introduction::{Phase, Refusal, clean_name, gist},
    relay::{Context, device_secrets, translate_line, without_profile_name},
    store::Batch,
    text::without_turns,
};

/// Maximum length of an opening line, in characters, before it is cut to what is shown.
pub(in crate::engine) const LINE_AT_MOST: usize = 4000;

impl Room {
    /// Shows a request in a control room, now or when the person has joined; in another room if
    /// this is no longer their control room.
    pub(in crate::engine) async fn show_requests(
        &mut self,
        owner: &Person,
        number: u32,
        batch: Batch,
    ) -> Result<(), EngineError> {
        if self.bot_is_here() {
            let unseen = if self.is_ready() {
                self.unseen_requests(owner)?
            } else {
                Vec::new()
            };
            return self.commit(batch, unseen);
        }
        let engine = self.engine.clone();
        let room = engine.control_room_of(owner).await?;
        if room == self.id {
            return self.commit(batch, []);
        }
        let arrived = InboxItem::ShowRequest {
            owner: owner.clone(),
            number,
        };
        self.commit_and_post(&room, &arrived, batch)
    }

    /// Shows the opening line of a request that was shown without it; in another room if this is no
    /// longer the person's control room. A request that was not shown yet is shown with its line.
    pub(in crate::engine) async fn show_late_line(
        &mut self,
        owner: Person,
        number: u32,
        batch: Batch,
    ) -> Result<(), EngineError> {
        if self.bot_is_here() {
            let effect = QueuedEffect::Control(ControlEffect::ShowLine { number });
            return self.commit(batch, self.is_ready().then_some(effect));
        }
        let room = self.engine.control_room_of(&owner).await?;
        if room == self.id {
            return self.commit(batch, []);
        }
        let arrived = InboxItem::ShowLine { owner, number };
        self.commit_and_post(&room, &arrived, batch)
    }

    /// Returns the requests that a person who has just joined their control room has not seen.
    pub(in crate::engine) fn unseen_requests(
        &self,
        person: &Person,
    ) -> Result<Vec<QueuedEffect>, EngineError> {
        let requests = self.engine.directory().requests_of(person)?;
        let unseen = requests.into_iter().filter(|(_, it)| it.shown.is_none());
        Ok(unseen
            .map(|(number, _)| QueuedEffect::Control(ControlEffect::ShowRequest { number }))
            .collect())
    }

    /// Shows a request to the owner, encrypted, in their control room.
    pub(in crate::engine) async fn show_request(
        &mut self,
        number: u32,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let person = self.record.control.as_ref().and_then(|c| c.person.clone());
        let person = person.ok_or(EngineError::Refused(Refusal::Impossible))?;
        let mut requests = engine.directory().requests_of(&person)?.into_iter();
        let request = requests.find(|(known, _)| *known == number);
        let Some((_, request)) = request.filter(|(_, request)| request.shown.is_none()) else {
            return self.commit(batch, []);
        };
        let Some((name, line)) = engine.what_is_asked(&request).await? else {
            // Nobody waits any longer.
            let mut tx = engine.directory().begin().await;
            tx.close_request(&person, number)?;
            tx.commit().await?;
            return self.commit(batch, []);
        };
        let shown = ShownRequest {
            number,
            request: &request,
            name: &name,
            line: line.as_deref(),
            now: engine.now(),
        };
        let notice = bot::request_text(&shown, engine.directory())?;
        let source = format!("request {} {}", request.room, request.ghost);
        let event = self.send_as_bot(&notice, &source, Occasion::News).await?;
        let offer = ControlEffect::OfferAnswers { to: event.clone() };
        let mut tx = engine.directory().begin().await;
        if line.is_some() {
            tx.set_line_shown(&person, number, event.clone())?;
        }
        tx.set_request_shown(&person, number, event)?;
        self.commit_with(tx, batch, [QueuedEffect::Control(offer)])
    }

    /// Shows the opening line of a request that was shown without it, encrypted.
    pub(in crate::engine) async fn show_line(
        &mut self,
        number: u32,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let person = self.record.control.as_ref().and_then(|c| c.person.clone());
        let person = person.ok_or(EngineError::Refused(Refusal::Impossible))?;
        let requests = engine.directory().requests_of(&person)?.into_iter();
        let mut without_line =
            requests.filter(|(_, request)| request.shown.is_some() && request.line_shown.is_none());
        let Some((_, request)) = without_line.find(|(known, _)| *known == number) else {
            return self.commit(batch, []);
        };
        let Some((name, Some(line))) = engine.what_is_asked(&request).await? else {
            return self.commit(batch, []);
        };
        let notice = bot::late_line_text(number, &name, &line);
        let source = format!("line {} {}", request.room, request.ghost);
        let event = self.send_as_bot(&notice, &source, Occasion::News).await?;
        let offer = ControlEffect::OfferAnswers { to: event.clone() };
        let mut tx = engine.directory().begin().await;
        tx.set_line_shown(&person, number, event)?;
        self.commit_with(tx, batch, [QueuedEffect::Control(offer)])
    }

    /// Reacts to the message that shows a request with each of its answers: three events for each
    /// such message. They are unencrypted like every reaction, and nobody's answer: only the
    /// person's own reactions count.
    pub(in crate::engine) async fn offer_answers(
        &self,
        bot: &OwnedUserId,
        to: &OwnedEventId,
    ) -> Result<(), EngineError> {
        for key in bot::ANSWERS_TO_REQUESTS {
            let relation = json!({ "rel_type": "m.annotation", "event_id": to, "key": key });
            let content = json!({ "m.relates_to": relation });
            let transaction = self.transaction_id(bot, "offer-answer", &format!("{key} {to}"));
            let sent = self.send_unencrypted(bot, &self.id, "m.reaction", &content, transaction);
            match sent.await {
                // Synapse refuses one that is there already, once it has forgotten the transaction.
                Err(EngineError::Matrix(error)) if error.has_errcode("M_DUPLICATE_ANNOTATION") => {}
                sent => drop(sent?),
            }
        }
        Ok(())
    }
}

impl Engine {
    /// Returns who asks, and their opening line if it can be read. Returns `None` if nobody waits.
    pub(in crate::engine) async fn what_is_asked(
        &self,
        request: &Request,
    ) -> Result<Option<(String, Option<String>)>, EngineError> {
        let record = self
            .store()
            .get::<Rooms>(&request.room)?
            .unwrap_or_default();
        let mut introductions = record.introductions.iter();
        let Some(introduction) =
            introductions.find(|introduction| introduction.ghost == request.ghost)
        else {
            return Ok(None);
        };
        if !matches!(introduction.phase, Phase::Asking { .. }) {
            return Ok(None);
        }
        let view = self
            .fetch_room_state(&introduction.ghost, &request.room)
            .await?;
        let asker = &request.asker;
        let name = match &request.asker_alias {
            Some(name) => name.clone(),
            None => clean_name(view.names.get(&**asker).map(String::as_str), asker),
        };
        let Some((event, edit)) = introduction.opening_line() else {
            return Ok(Some((name, None)));
        };
        let key = (request.room.clone(), edit.unwrap_or(event).clone());
        let Some(json) = self.store().get::<RetainedEvents>(&key)? else {
            return Ok(Some((name, None)));
        };
        let raw = RawValue::from_string(json)?;
        let decrypted = self
            .machines()
            .decrypt(&introduction.ghost, &request.room, &raw)
            .await;
        match decrypted.map_err(EngineError::from) {
            Ok(decrypted) => {
                let content: Value = serde_json::from_str(decrypted.content.get())?;
                let masked = request.asker_alias.is_some();
                let secrets = RoomEvent::parse(raw.get(), Some(&request.room))
                    .map_or_else(Vec::new, |event| device_secrets(&event.content));
                let told = |text: &str| {
                    if masked {
                        let mut context =
                            Context::for_quote(&request.room, asker, &self.settings().server_name);
                        context.secrets = &secrets;
                        without_asker(text, &content, &context)
                    } else {
                        Some(text.to_owned())
                    }
                };
                let line = gist(&name, &decrypted.event_type, &content, told);
                Ok(Some((name, Some(line))))
            }
            Err(error) if error.is_transient() => Err(error),
            // The line could be read before; the request is shown without it.
            Err(_) => Ok(Some((name, None))),
        }
    }
}

/// Returns a masked asker's line, the text of this content, without anything that names them or a
/// secret of the context, as their messages are forwarded later. Returns `None` if that is not
/// possible.
pub(in crate::engine) fn without_asker(
    text: &str,
    content: &Value,
    context: &Context<'_>,
) -> Option<String> {
    let text = without_profile_name(content, &without_turns(text));
    translate_line(&text, context, LINE_AT_MOST)
}
