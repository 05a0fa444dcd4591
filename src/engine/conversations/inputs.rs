//! Handles what happens in a room of a conversation: who joins, and what each event means.

use rand::{CryptoRng, Rng as _};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};

use crate::{
    clock::Timestamp,
    conversation::{
        Conversation, Effect, EventKind, Home, Input, Participant, PortalStatus, RoomRole, Secret,
    },
    directory::Mode,
    engine::{
        EngineError,
        conversations::failures::said_too_late,
        event::RoomEvent,
        records::{ConversationRoom, Conversations, QueuedEffect, RetainedEvents},
        room::Room,
    },
    ids::{ConversationId, Ghost, Person},
    introduction::{Introduction, Refusal},
    matrix::{
        Fate, RoomState,
        event_type::{continues_call, is_matrix_rtc, is_unseen, is_verification},
    },
    store::Batch,
};

fn new_conversation(
    origin: OwnedRoomId,
    direct: bool,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Conversation {
    Conversation {
        id: ConversationId::new(hex::encode(rng.random::<[u8; 16]>())),
        origin: Some(origin),
        direct,
        secret: Secret(rng.random()),
        people: Vec::new(),
        started_at: now,
        last_return_at: None,
        notices_sent_in: Vec::new(),
        removals: 0,
        ended: false,
    }
}

impl Room {
    /// Returns whether a ghost is in this room for a conversation.
    pub(in crate::engine) fn has_ghost(&self, ghost: &Ghost) -> bool {
        let here = self.record.conversation.as_ref();
        here.is_some_and(|here| here.ghosts.contains(ghost))
    }

    /// Adds this room, which is a new portal, to its conversation.
    pub(in crate::engine) fn join_conversation(
        &mut self,
        conversation: ConversationId,
        ghosts: Vec<Ghost>,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let known = self.engine.store().get::<Conversations>(&conversation)?;
        let over = known.is_none_or(|known| known.ended || known.role_of(&self.id).is_none());
        self.record.conversation = Some(ConversationRoom {
            conversation: conversation.clone(),
            ghosts,
            upgrade_pending: false,
            waiting_told_at: None,
        });
        // The conversation ended while the ghosts were joining.
        let effect = Effect::LeaveRoom;
        let depart = over.then_some(QueuedEffect::Conversation {
            conversation,
            effect,
        });
        self.commit(batch, depart)
    }

    /// Lets a masked handle's ghost, which has joined and has seen the room's state, take part in a
    /// conversation from here on. That ends the introduction.
    pub(in crate::engine) async fn open_conversation(
        &mut self,
        introduction: &Introduction,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let impossible = || EngineError::Refused(Refusal::Impossible);
        let record = engine.directory().by_ghost(&introduction.ghost)?;
        let record = record.filter(|record| record.mode == Mode::Masked && record.is_active());
        let (Some(record), Some(owner)) = (record, introduction.owner()) else {
            return Err(impossible());
        };
        let asker = introduction.asker().ok_or_else(impossible)?;
        if !record.is_held_by(owner) || !engine.directory().still_leads(&record, &asker)? {
            return Err(impossible());
        }
        let view = self.room_state(&introduction.ghost).await?;
        let masked = Participant {
            user: owner.clone(),
            ghost: introduction.ghost.clone(),
            name: record.handle.to_string(),
            is_alias: false,
            home: Home::Portal {
                room: None,
                status: PortalStatus::NotInvited,
            },
            former_names: Vec::new(),
        };
        let (former, conversation, input) = self.conversation_for(introduction, masked, &view)?;
        let here = self
            .record
            .conversation
            .get_or_insert_with(|| ConversationRoom {
                conversation: conversation.id.clone(),
                ghosts: Vec::new(),
                upgrade_pending: false,
                waiting_told_at: None,
            });
        if !here.ghosts.contains(&introduction.ghost) {
            here.ghosts.push(introduction.ghost.clone());
        }
        self.record
            .introductions
            .retain(|other| other.ghost != introduction.ghost);
        let mut batch = std::mem::take(batch);
        let former = former.map(|former| former.id);
        let ids: Vec<_> = former.iter().chain([&conversation.id]).collect();
        let mut lock = engine.lock_to_change(&ids).await?;
        let mut rooms = Vec::new();
        if let Some(former) = &former
            && let Some(former) = engine.store().get_cached::<Conversations>(former)?
        {
            rooms = engine.decide_and_stage(&mut lock, &former, &[Input::End], &mut batch)?;
        }
        // The current state. A new conversation is written whole first, because `decide_and_stage`
        // writes only what differs from its input.
        let conversation = match engine.store().get::<Conversations>(&conversation.id)? {
            Some(now) => now,
            None => {
                let new = &conversation;
                engine.write_conversation(&mut lock, new, Some(new), &mut batch)?;
                conversation
            }
        };
        rooms.extend(engine.decide_and_stage(&mut lock, &conversation, &[input], &mut batch)?);
        self.commit(batch, [])?;
        drop(lock);
        self.wake_others(rooms);
        Ok(())
    }

    /// Returns the conversation that this room takes part in from now on, with the input for it;
    /// and first the former conversation that ends by that, if any.
    fn conversation_for(
        &self,
        introduction: &Introduction,
        masked: Participant,
        view: &RoomState,
    ) -> Result<(Option<Conversation>, Conversation, Input), EngineError> {
        let engine = &self.engine;
        let asker = &introduction
            .asker()
            .ok_or(EngineError::Refused(Refusal::Impossible))?;
        let earlier = self.pending_events_of(introduction);
        if let Some(here) = &self.record.conversation
            && let Some(known) = engine.store().get::<Conversations>(&here.conversation)?
        {
            let input = Input::Added {
                person: Box::new(masked),
                by: asker.clone(),
                invited_at: introduction.invited_at,
                earlier,
            };
            return Ok((None, known, input));
        }
        let known = if self.record.conversation.is_none() && introduction.direct {
            engine.conversation_with(asker, &introduction.ghost)?
        } else {
            None
        };
        match known {
            // Only if the asker is in the origin: the owner's portal cannot move here.
            Some(known) if known.person_at(RoomRole::Origin, asker).is_some() => {
                let room = self.id.clone();
                Ok((None, known, Input::OriginReplaced { room, earlier }))
            }
            // A conversation in which the asker is the masked person, and nobody is left, ends.
            former => {
                let new = self.start_conversation(introduction, masked, view)?;
                Ok((former, new, Input::Started { earlier }))
            }
        }
    }

    /// Returns a new conversation of the people in this room and the masked person, the asker
    /// first.
    fn start_conversation(
        &self,
        introduction: &Introduction,
        masked: Participant,
        view: &RoomState,
    ) -> Result<Conversation, EngineError> {
        let engine = &self.engine;
        let people = view.joined().filter(|user| !engine.is_ours(user)).cloned();
        let people: Vec<Person> = people.map(Person::new).collect();
        // They may have left since the ghost looked, and what they wrote is nobody else's.
        if !people.iter().any(|it| *it == introduction.invite.asker) {
            return Err(EngineError::Refused(Refusal::Impossible));
        }
        let alone = matches!(people.as_slice(), [only] if *only == introduction.invite.asker);
        let direct = introduction.direct && alone;
        let mut new = new_conversation(self.id.clone(), direct, engine.now(), &mut *engine.rng());
        for user in people {
            let (ghost, name, is_alias) = if direct {
                engine.alias_in_direct(&user, &introduction.ghost)?
            } else {
                engine.alias_in_group(&user)?
            };
            new.people.push(Participant {
                user,
                ghost,
                name,
                is_alias,
                home: Home::Origin { is_present: true },
                former_names: Vec::new(),
            });
        }
        new.people
            .sort_by_key(|person| person.user != introduction.invite.asker);
        new.people.push(masked);
        Ok(new)
    }

    /// Returns the events that the ghost read before the conversation began, in order, each edit
    /// after the event that it edits.
    fn pending_events_of(&self, introduction: &Introduction) -> Vec<OwnedEventId> {
        let pending = introduction.pending.iter().filter(|pending| !pending.done);
        pending
            .flat_map(|pending| std::iter::once(pending.event.clone()).chain(pending.edit.clone()))
            .collect()
    }

    /// Handles an event in a room of a conversation.
    pub(in crate::engine) async fn handle_in_conversation(
        &mut self,
        event: RoomEvent,
        json: &str,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let Some(here) = self.record.conversation.clone() else {
            return self.commit(batch, []);
        };
        let conversation = engine.store().get::<Conversations>(&here.conversation)?;
        let Some(conversation) = conversation else {
            return self.commit(batch, []);
        };
        let Some(role) = conversation.role_of(&self.id) else {
            if here.upgrade_pending && !conversation.ended {
                return Err(EngineError::NotThereYet);
            }
            return match said_too_late(&conversation, &event).filter(|_| !conversation.ended) {
                Some(input) => self.apply(&here.conversation, &[input], batch).await,
                None => self.commit(batch, []),
            };
        };
        let input = self.input_of(&event, &conversation, role).await?;
        let Some(input) = input else {
            return self.commit(batch, []);
        };
        // An event without recipients is not kept.
        let keep = matches!(&input, Input::Event { sender, kind: EventKind::Forwardable, .. }
            if conversation.speaker_at(role, sender).is_some()
                && !conversation.targets_of(role).is_empty());
        if keep {
            let key = (self.id.clone(), event.id.clone());
            batch.put::<RetainedEvents>(&key, &json.to_owned())?;
        }
        self.apply(&here.conversation, &[input], batch).await
    }

    /// Returns whether the homeserver has accepted a state event: the room's present state agrees with
    /// it, as `agrees` tells, or the homeserver shows it. It pushes also those of another server that
    /// it refuses, such as the join of a person who is banned, or what somebody does with a power that
    /// they have lost.
    async fn is_accepted(
        &self,
        event: &RoomEvent,
        agrees: impl Fn(&RoomState) -> bool,
    ) -> Result<bool, EngineError> {
        let here = self.record.conversation.as_ref();
        let ghost = here.and_then(|here| here.ghosts.first());
        let is_local = event.sender.server_name() == self.engine.settings().server_name;
        let Some(ghost) = ghost.filter(|_| !is_local) else {
            return Ok(true);
        };
        match self.room_state(ghost).await {
            // A ghost that was sent away sees the state of that time.
            Ok(state) if state.membership(ghost) == "join" && !agrees(&state) => {}
            // A state that cannot be had must not cost a person who has come.
            _ => return Ok(true),
        }
        // It may have been true for a while, in which the person wrote something.
        let acting = self.engine.as_user(ghost)?;
        let homeserver = self.engine.homeserver();
        let shown = homeserver.context(acting.actor(), &self.id, &event.id, 0);
        match shown.await {
            Ok(_) => Ok(true),
            Err(error) if error.fate() == Fate::Final => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns what an event means to the conversation, or `None` if it means nothing.
    async fn input_of(
        &self,
        event: &RoomEvent,
        conversation: &Conversation,
        role: RoomRole,
    ) -> Result<Option<Input>, EngineError> {
        let engine = &self.engine;
        if let Some((user, membership)) = event.membership() {
            let member = self.member_input(event, conversation, role, &user, membership);
            return member.await;
        }
        if engine.is_ours(&event.sender) {
            return Ok(None);
        }
        if let Some(to) = replacement(event) {
            let agrees = |state: &RoomState| state.replaced_by.as_ref() == Some(&to);
            if !self.is_accepted(event, agrees).await? {
                return Ok(None);
            }
            let by = Person::new(event.sender.clone());
            return Ok(Some(Input::RoomUpgraded { role, to, by }));
        }
        Ok(event_kind(event).map(|kind| Input::Event {
            role,
            sender: event.sender.clone(),
            event: event.id.clone(),
            kind,
        }))
    }

    /// Returns what a membership means to the conversation, or `None` if it means nothing.
    async fn member_input(
        &self,
        event: &RoomEvent,
        conversation: &Conversation,
        role: RoomRole,
        user: &OwnedUserId,
        membership: &str,
    ) -> Result<Option<Input>, EngineError> {
        let engine = &self.engine;
        let agrees = |state: &RoomState| {
            let is_joined = state.membership(user) == "join";
            match membership {
                "join" => is_joined,
                "leave" | "ban" => !is_joined,
                _ => true,
            }
        };
        let changes = matches!(membership, "join" | "leave" | "ban");
        if changes && !self.is_accepted(event, agrees).await? {
            return Ok(None);
        }
        let ghosts = self
            .record
            .conversation
            .iter()
            .flat_map(|here| &here.ghosts);
        for ghost in ghosts {
            // The homeserver reports no device-list change when somebody joins.
            let came = std::slice::from_ref(user);
            let machines = engine.machines();
            machines.mark_device_lists_outdated(ghost, came).await;
        }
        let is_new = membership == "join"
            && role == RoomRole::Origin
            && !engine.is_ours(user)
            && conversation.person_at(role, user).is_none();
        let ghost = if is_new {
            Some(engine.alias_in_group(&Person::new(user.clone()))?)
        } else {
            None
        };
        let redacts = role == RoomRole::Origin
            && !conversation.direct
            && matches!(membership, "leave" | "ban")
            && self.redacts_with(event, conversation, role).await?;
        Ok(Some(Input::Member {
            role,
            redacts,
            by_others: event.sender != *user,
            membership: membership.to_owned(),
            user: user.clone(),
            ghost,
        }))
    }
}

fn is_state(event: &RoomEvent, kind: &str) -> bool {
    event.kind == kind && event.state_key.as_deref() == Some("")
}

/// Returns the room that a tombstone names as the one that replaces its own.
pub(in crate::engine) fn replacement(event: &RoomEvent) -> Option<OwnedRoomId> {
    let to = event.content["replacement_room"].as_str();
    to.filter(|_| is_state(event, "m.room.tombstone"))
        .and_then(|to| to.try_into().ok())
}

/// Returns what a widget is to the people of a conversation. Jitsi is a call, and there is one that
/// works.
fn widget_kind(content: &serde_json::Value) -> Option<EventKind> {
    let kind = content["type"].as_str()?;
    content["url"].as_str()?;
    Some(match kind {
        "jitsi" | "m.jitsi" => EventKind::MatrixRtc,
        _ => EventKind::RoomOnly,
    })
}

/// Returns whether an event of MatrixRTC stands for a call. A call ends when its state event is
/// emptied, and the place for calls of a room (`slot`) is there without one.
fn has_call(event: &RoomEvent) -> bool {
    let is_empty = event.content.as_object().is_none_or(|it| it.is_empty());
    event.state_key.is_none() || !is_empty && !event.kind.ends_with(".slot")
}

/// Returns the kind of an event, as far as its unencrypted part shows it.
pub(in crate::engine) fn event_kind(event: &RoomEvent) -> Option<EventKind> {
    if event.is_verification_request() {
        let of = event.verified_user();
        return Some(EventKind::Verification { of });
    }
    let kind = event.kind.as_str();
    if is_matrix_rtc(kind) {
        return has_call(event).then_some(EventKind::MatrixRtc);
    }
    if is_state(event, "m.room.pinned_events") {
        let pinned = event.content["pinned"].as_array();
        return pinned
            .is_some_and(|pinned| !pinned.is_empty())
            .then_some(EventKind::RoomOnly);
    }
    if event.state_key.is_some() && matches!(kind, "im.vector.modular.widgets" | "m.widget") {
        // A widget is removed by emptying its event.
        return widget_kind(&event.content);
    }
    if event.state_key.is_some() {
        let named = is_state(event, "m.room.name") || is_state(event, "m.room.topic");
        return named.then_some(EventKind::RoomInfo);
    }
    match kind {
        "m.room.encrypted" | "m.reaction" => Some(EventKind::Forwardable),
        "m.room.redaction" => event.redacts.clone().map(|of| EventKind::Redaction { of }),
        // What follows on a request, which is declined, or on a call, whose invite is answered.
        kind if is_verification(kind, &event.content) || continues_call(kind) => None,
        kind if is_unseen(kind) => None,
        _ => Some(EventKind::Unencrypted),
    }
}
