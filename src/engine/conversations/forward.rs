//! Forwards one event of a conversation to another of its rooms, or redacts its copy there.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::Value;

use crate::{
    clock::Timestamp,
    conversation::{Conversation, Effect, EventKind, Input, Participant, RoomRole},
    crypto::DecryptError,
    engine::{
        EngineError,
        conversations::{
            aliases::aliases,
            event_map::{EventMap, NewCopy},
            failures::{cannot_read, not_deleted, not_delivered},
        },
        event::RoomEvent,
        messaging::send::{Outgoing, Recipients, Sent},
        records::{Outbox, QueuedEffect, RetainedEvents},
        room::{Room, transaction_id},
    },
    ids::Person,
    introduction::Refusal,
    matrix::{Fate, MatrixError},
    metrics::catalogue::{RELAY_TIME, RELAYED},
    relay::{self, Context, Masking, TranslateError},
    store::{Batch, prefix},
};

/// Maximum number of queued effects of another room that are checked.
const QUEUED: usize = 100;

impl Room {
    /// Decrypts an event of this room as any of its ghosts that has the key.
    async fn read_here(
        &self,
        conversation: &Conversation,
        role: RoomRole,
        event: &RoomEvent,
        json: &str,
        batch: &mut Batch,
    ) -> Result<(String, Value), EngineError> {
        if event.kind != "m.room.encrypted" {
            return Ok((event.kind.clone(), event.content.clone()));
        }
        let mut begins_later = None;
        for ghost in conversation.ghosts_at(role) {
            match self.decrypt_with(&ghost.ghost, json, batch).await {
                Err(EngineError::Decrypt(DecryptError::NoKey { .. })) => {}
                Err(error @ EngineError::Decrypt(DecryptError::KeyBeginsLater { .. })) => {
                    begins_later = Some(error);
                }
                other => return other,
            }
        }
        Err(begins_later.unwrap_or_else(|| self.missing_key(event)))
    }

    /// Forwards one event to one room. Returns whether it is there now, and what follows for its
    /// sender.
    pub(in crate::engine) async fn forward_event(
        &mut self,
        conversation: &Conversation,
        event: &OwnedEventId,
        route: &Route,
        batch: &mut Batch,
    ) -> Result<(bool, Vec<Input>), EngineError> {
        let engine = self.engine.clone();
        let ended = self.ends_by_deletion(conversation, event, None, route, batch);
        if ended.await? {
            return Ok((false, Vec::new()));
        }
        let kept = engine
            .store()
            .get::<RetainedEvents>(&(self.id.clone(), event.clone()))?;
        let parsed = kept
            .as_deref()
            .and_then(|json| RoomEvent::parse(json, Some(&self.id)));
        let said = |text: &str| Input::NotForwarded {
            role: route.source,
            event: event.clone(),
            text: text.to_owned(),
        };
        let (Some(json), Some(parsed)) = (kept.as_deref(), parsed) else {
            return Ok((false, vec![said(not_delivered(conversation))]));
        };
        let sender = &conversation.people[route.sender];
        // Nobody's ghost says what somebody else has said.
        if parsed.sender != sender.user {
            return Ok((false, vec![said(not_delivered(conversation))]));
        }
        let there = self.target_room(conversation, route.target).await?;
        let (kind, mut content) = self
            .read_here(conversation, route.source, &parsed, json, batch)
            .await?;
        // Its key may have been waited for.
        let ended = self.ends_by_deletion(conversation, event, Some(&content), route, batch);
        if ended.await? {
            return Ok((false, Vec::new()));
        }
        // A person may be named who is in the other room, and is known there by their own name.
        let state = match engine.cached_room_state(&sender.ghost, &there).await {
            Err(error) if error.is_transient() => return Err(error),
            state => state.ok(),
        };
        let called = state.as_ref().map(|state| &state.names);
        let aliases = aliases(conversation, route.source, route.target, called);
        let map = EventMap {
            engine: &engine,
            source: &self.id,
            target: &there,
        };
        let hide_addresses = engine.hides_addresses(conversation)?;
        let masking = Masking {
            homeserver: &engine.settings().server_name,
            hide_addresses,
            pseudonym_key: &conversation.secret.0,
            secrets: &relay::device_secrets(&parsed.content),
        };
        let context = Context::between((&self.id, &there), &sender.user, &aliases, &map, masking);
        // A message that makes the translator panic is refused. Retrying it would hold up all
        // others without end.
        let translated = catch_unwind(AssertUnwindSafe(|| {
            relay::translate(&kind, &content, &context)
        }));
        let translated = match translated.unwrap_or(Err(TranslateError::Malformed)) {
            Ok(Some(translated)) => translated,
            Ok(None) => return Ok((false, Vec::new())),
            Err(why) if why.is_missing_target() && self.may_know_soon(conversation, route)? => {
                return Err(EngineError::TargetOnItsWay);
            }
            Err(why) => {
                let input = not_translated(why, event, &sender.user, route.source, &content);
                return Ok((false, vec![input]));
            }
        };
        if translated
            .remarks
            .iter()
            .any(|remark| remark.is_missing_target())
            && self.may_know_soon(conversation, route)?
        {
            return Err(EngineError::TargetOnItsWay);
        }
        let original = std::mem::replace(&mut content, translated.content);
        let media = &translated.media_to_reupload;
        if !media.is_empty() {
            self.reupload(event, sender, media, &mut content).await?;
            // That may have taken long.
            let ended = self.ends_by_deletion(conversation, event, Some(&original), route, batch);
            if ended.await? {
                return Ok((false, Vec::new()));
            }
        }
        let waited = engine
            .now()
            .since(self.arrived_at(event, &translated.event_type)?);
        let age = parsed.age.saturating_add(waited);
        relay::ages(&translated.event_type, &mut content, age);
        let outgoing = Forwarded {
            cause: event,
            room: &there,
            kind: &translated.event_type,
            content: &content,
            is_encrypted: parsed.kind == "m.room.encrypted",
        };
        let sent = self
            .send_forwarded(conversation, sender, route, &outgoing)
            .await;
        if let Err(error) = &sent {
            self.note_failed_send(error);
        }
        let sent = sent?;
        self.note_forwarded(event, &there, &sent.event, route, batch)?;
        RELAYED.count([kind_of_relayed(&translated.event_type)]);
        RELAY_TIME.observe([], engine.now().since(self.due_since));
        let remarks = translated.remarks.iter();
        let mut inputs: Vec<Input> = remarks.map(|remark| said(remark.notice_text())).collect();
        let (from, to) = (route.source, route.target);
        inputs.extend(cannot_read(conversation, from, to, &sent, engine.now()));
        if hide_addresses {
            let kind = &translated.event_type;
            inputs.extend(self.watch_call(conversation, event, route, kind, &content));
        }
        Ok((true, inputs))
    }

    /// Notes that the current effect may have sent its event all the same.
    fn note_failed_send(&mut self, error: &EngineError) {
        if matches!(error, EngineError::Encrypt(_)) {
            return;
        }
        self.maybe_sent_until = self.maybe_sent_until.max(self.current_effect);
        if let EngineError::Matrix(MatrixError::TimedOut | MatrixError::Unreachable(_)) = error {
            self.unanswered = Some(self.current_effect);
        }
    }

    /// Stages that an event is in its target now.
    pub(in crate::engine) fn note_forwarded(
        &self,
        event: &OwnedEventId,
        there: &OwnedRoomId,
        sent: &OwnedEventId,
        route: &Route,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let copy = NewCopy {
            source: &self.id,
            event,
            target: there,
            copy: sent,
            by: route.sender,
        };
        Ok(self.engine.note_copy(&copy, batch)?)
    }

    /// Sends a translated event to its room, encrypted if the original was.
    async fn send_forwarded(
        &self,
        conversation: &Conversation,
        sender: &Participant,
        route: &Route,
        outgoing: &Forwarded<'_>,
    ) -> Result<Sent, EngineError> {
        let Forwarded {
            cause,
            room,
            kind,
            content,
            is_encrypted,
        } = *outgoing;
        let transaction = transaction_id(&sender.ghost, room, "carry", cause.as_str());
        if is_encrypted {
            let must_read = only_reader(conversation, route.target);
            let outgoing = Outgoing {
                sender: &sender.ghost,
                event_type: kind,
                content,
                recipients: Recipients::Readable(must_read.as_slice()),
                transaction,
            };
            self.send_to_room(room, outgoing).await
        } else {
            self.send_unencrypted(&sender.ghost, room, kind, content, transaction)
                .await
        }
    }

    /// Returns when an event arrived here, if it belongs to a call; otherwise when its effect was
    /// queued. A call's event may wait in the inbox, and then for its turn.
    pub(in crate::engine) fn arrived_at(
        &self,
        event: &OwnedEventId,
        kind: &str,
    ) -> Result<Timestamp, EngineError> {
        if !kind.starts_with("m.call.") {
            return Ok(self.due_since);
        }
        let seen = self.engine.seen(event)?;
        Ok(seen.map_or(self.due_since, |seen| seen.at))
    }

    /// Returns whether the target event may still get a counterpart. A message is visible here, and
    /// can be answered, slightly before the actor that forwarded it has recorded its copy.
    fn may_know_soon(
        &mut self,
        conversation: &Conversation,
        route: &Route,
    ) -> Result<bool, EngineError> {
        // An effect that is queued from now on was not visible to the person who answered.
        let until = match self.behind {
            Some((effect, until)) if effect == self.current_effect => until,
            _ => self.engine.next(),
        };
        self.behind = Some((self.current_effect, until));
        for role in conversation.targets_of(route.source) {
            let Some(room) = conversation.room(role) else {
                continue;
            };
            let queued = self
                .engine
                .store()
                .scan::<Outbox>(&prefix(room), None, QUEUED)?;
            let mut queued = queued.into_iter();
            let forwards_here = |what: &QueuedEffect| matches!(what, QueuedEffect::Conversation { effect: Effect::ForwardEvent { target, .. }, .. } if *target == route.source);
            if queued.any(|((_, number), due)| number < until && forwards_here(&due.what)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the room of another role. A portal may not exist yet; an origin that is gone does not
    /// come back, and what waits for it would hold up what follows, such as the notice that its last
    /// person has left.
    pub(in crate::engine) fn other_room(
        &self,
        conversation: &Conversation,
        to: RoomRole,
    ) -> Result<OwnedRoomId, EngineError> {
        match conversation.room(to) {
            Some(room) => Ok(room.clone()),
            None if conversation.ended || to == RoomRole::Origin => {
                Err(EngineError::Refused(Refusal::Impossible))
            }
            None => Err(EngineError::NotThereYet),
        }
    }

    /// Redacts the copy of an event in another room. What a masked person has said is in the origin
    /// as a copy itself; who redacts it there as a moderator means the copies in all portals.
    pub(in crate::engine) async fn redact_copy(
        &self,
        conversation: &Conversation,
        redaction: &OwnedEventId,
        of: &OwnedEventId,
        route: &Route,
    ) -> Result<Vec<Input>, EngineError> {
        let there = self.other_room(conversation, route.target)?;
        let map = EventMap {
            engine: &self.engine,
            source: &self.id,
            target: &there,
        };
        let moderates = route.source == RoomRole::Origin && !conversation.direct;
        // A person who redacts somebody else's message in their own portal does not remove the
        // original.
        let copy = if moderates {
            map.copy_of_original(of)?
        } else {
            map.copy(of)?
        };
        let Some(copy) = copy else {
            if moderates
                && let Some(input) =
                    self.redacted_on_its_way(conversation, redaction, of, route.target)?
            {
                return Ok(vec![input]);
            }
            let is_forgotten = self.is_forgotten(conversation, of, route).await?;
            let told = || not_deleted(conversation, route.source, redaction.as_str());
            return Ok(is_forgotten.then(told).into_iter().collect());
        };
        let by = usize::try_from(copy.by).unwrap_or(usize::MAX);
        if by == route.sender || moderates {
            self.redact_as_anybody(conversation, by, route.target, &there, &copy.copy)
                .await?;
        }
        Ok(Vec::new())
    }

    /// Returns the input for an event of this room that was redacted here, and is the copy of one
    /// that is not in the target yet.
    fn redacted_on_its_way(
        &self,
        conversation: &Conversation,
        redaction: &OwnedEventId,
        of: &OwnedEventId,
        target: RoomRole,
    ) -> Result<Option<Input>, EngineError> {
        for role in conversation.targets_of(RoomRole::Origin) {
            let Some(room) = conversation.room(role).filter(|_| role != target) else {
                continue;
            };
            let map = EventMap {
                engine: &self.engine,
                source: &self.id,
                target: room,
            };
            if let Some((original, person)) = map.original_there(of)? {
                return Ok(Some(Input::RedactedOnItsWay {
                    role,
                    person,
                    event: redaction.clone(),
                    of: original,
                    target,
                }));
            }
        }
        Ok(None)
    }

    /// Returns whether a message of a person is so old that its copies are no longer known.
    async fn is_forgotten(
        &self,
        conversation: &Conversation,
        event: &OwnedEventId,
        route: &Route,
    ) -> Result<bool, EngineError> {
        let Some(ghost) = conversation.ghosts_at(route.source).next() else {
            return Ok(false);
        };
        let acting = self.engine.as_user(&ghost.ghost)?;
        let homeserver = self.engine.homeserver();
        let event = match homeserver.event(acting.actor(), &self.id, event).await {
            Ok(event) => event,
            Err(error) if error.fate() == Fate::Final => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let event = event.and_then(|json| RoomEvent::parse(json.get(), Some(&self.id)));
        let remembered_since = self.engine.copies_remembered_since(&self.id)?;
        Ok(event.is_some_and(|event| {
            let is_old = event.sent_at.is_some_and(|at| at < remembered_since);
            is_old && event.kind == "m.room.encrypted" && !self.engine.is_ours(&event.sender)
        }))
    }
}

/// Returns the one person in this room of a conversation of two. If nothing can be encrypted for
/// them, the message waits; in a group such a person is left out.
pub(in crate::engine) fn only_reader(
    conversation: &Conversation,
    role: RoomRole,
) -> Option<&Person> {
    let mut people = conversation.people.iter().enumerate();
    let at_home = people.find(|(index, person)| person.room_role(*index) == role);
    at_home
        .filter(|_| conversation.direct)
        .map(|(_, person)| &person.user)
}

/// A translated event on its way into another room.
#[derive(Clone, Copy)]
struct Forwarded<'a> {
    /// The original event.
    cause: &'a OwnedEventId,
    room: &'a OwnedRoomId,
    kind: &'a str,
    content: &'a Value,
    is_encrypted: bool,
}

/// Returns the input for an event that cannot be translated.
fn not_translated(
    why: TranslateError,
    event: &OwnedEventId,
    sender: &OwnedUserId,
    role: RoomRole,
    content: &Value,
) -> Input {
    let text = why.notice_text().to_owned();
    match why {
        // Handled as if it had come unencrypted: such a call begins with an event of each kind.
        TranslateError::MatrixRtc => Input::Event {
            role,
            sender: sender.clone(),
            event: event.clone(),
            kind: EventKind::MatrixRtc,
        },
        // An encrypted request is declined like an unencrypted one.
        TranslateError::Verification => {
            let of = content["to"].as_str().and_then(|of| of.try_into().ok());
            Input::Event {
                role,
                sender: sender.clone(),
                event: event.clone(),
                kind: EventKind::Verification { of },
            }
        }
        // One notice for each location share, not one for each of its updates.
        TranslateError::LiveLocation => {
            let begun = content["m.relates_to"]["event_id"].as_str();
            let begun = begun.and_then(|event| event.try_into().ok());
            let event = begun.unwrap_or_else(|| event.clone());
            Input::NotForwarded { role, event, text }
        }
        _ => Input::NotForwarded {
            role,
            event: event.clone(),
            text,
        },
    }
}

/// The route of one event.
pub(in crate::engine) struct Route {
    /// The room that the event comes from.
    pub source: RoomRole,
    /// The index of its sender in `people`.
    pub sender: usize,
    /// The room that the event goes to.
    pub target: RoomRole,
}

/// Returns the name under which an event that was passed on is counted.
fn kind_of_relayed(event_type: &str) -> &'static str {
    match event_type {
        "m.room.message" | "m.sticker" => "message",
        "m.reaction" => "reaction",
        _ => "other",
    }
}
