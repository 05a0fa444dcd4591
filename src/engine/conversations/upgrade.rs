//! Upgrades of origins (`m.room.tombstone`): a conversation moves to the successor once a ghost can
//! join it, and only if nobody else is there.

use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Value, json};

use crate::{
    conversation::{Conversation, EventKind, Home, Input, RoomRole},
    engine::{
        Engine, EngineError,
        conversations::{failures::said_too_late, inputs::event_kind},
        event::RoomEvent,
        history::HistoryEvent,
        records::{
            ActiveRoomsByGhost, ConversationRoom, Conversations, Inbox, InboxItem, RetainedEvents,
            Rooms,
        },
        room::Room,
    },
    ids::{ConversationId, Ghost, Person},
    matrix::{Fate, MEGOLM, RoomState},
    store::{Batch, prefix},
};

/// Maximum number of a ghost's conversations that are checked.
const CONVERSATIONS: usize = 20;
/// Maximum number of late messages in the old room that are checked.
const LATE_MESSAGES_MAX: usize = 100;

impl Room {
    /// Notes that a conversation may move to this room soon.
    pub(in crate::engine) fn expect_upgrade(
        &mut self,
        conversation: ConversationId,
        ghosts: Vec<Ghost>,
        batch: Batch,
    ) -> Result<(), EngineError> {
        if self.record.control.is_none() {
            self.record.conversation.get_or_insert(ConversationRoom {
                conversation,
                ghosts,
                upgrade_pending: true,
                waiting_told_at: None,
            });
        }
        self.commit(batch, [])
    }

    /// Handles that a ghost was invited into the successor of this room.
    pub(in crate::engine) async fn on_upgrade(
        &mut self,
        to: OwnedRoomId,
        by: Person,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let Some(here) = self.record.conversation.clone() else {
            return self.commit(batch, []);
        };
        let known = engine.store().get::<Conversations>(&here.conversation)?;
        let Some(role) = known.and_then(|known| known.role_of(&self.id)) else {
            return self.commit(batch, []);
        };
        let input = Input::RoomUpgraded { role, to, by };
        self.apply(&here.conversation, &[input], batch).await
    }

    /// Moves the conversation to the successor of this room. Every message from here is forwarded
    /// by now, because this effect waits behind them in the same outbox.
    pub(in crate::engine) async fn follow_upgrade(
        &mut self,
        conversation: &Conversation,
        to: &OwnedRoomId,
        by: &Person,
        batch: &mut Batch,
    ) -> Result<Vec<Input>, EngineError> {
        let engine = self.engine.clone();
        let not_followed = || {
            let (to, by) = (to.clone(), by.clone());
            Ok(vec![Input::UpgradeFailed { to, by }])
        };
        let here = self
            .record
            .conversation
            .iter()
            .flat_map(|here| &here.ghosts);
        let ghosts: Vec<Ghost> = conversation
            .ghosts_at(RoomRole::Origin)
            .map(|person| person.ghost.clone())
            .filter(|ghost| here.clone().any(|here| here == ghost))
            .collect();
        if !engine.is_free_for(&conversation.id, to)? {
            return not_followed();
        }
        engine.await_conversation(conversation, to, &ghosts).await?;
        let server = engine.server_of_origin(conversation);
        let inside = engine.join_room(&ghosts, to, &server).await?;
        // The ghosts may be invited in a moment.
        let Some(first) = inside.first() else {
            return Err(EngineError::NotThereYet);
        };
        let old = self.room_state(first).await?;
        let mut new = engine.fetch_room_state(first, to).await?;
        if !is_successor((&self.id, &old), (to, &new), conversation) {
            return not_followed();
        }
        if new.encryption.is_none() {
            let kind = "m.room.encryption";
            if new.foreign_encryption || !new.may_send_state(first, kind) {
                return not_followed();
            }
            let acting = engine.as_user(first)?;
            let content = json!({ "algorithm": MEGOLM });
            engine
                .homeserver()
                .send_state(acting.actor(), to, kind, "", &content)
                .await?;
            new = engine.fetch_room_state(first, to).await?;
        }
        let inside = engine
            .invite_others(&ghosts, inside.clone(), to, &new)
            .await?;
        let mut inputs = vec![Input::UpgradeFollowed { room: to.clone() }];
        inputs.extend(came_before(conversation, &new));
        inputs.extend(
            engine
                .backfill_since_join(conversation, first, to, batch)
                .await?,
        );
        inputs.extend(self.refuse_waiting_messages(conversation)?);
        let joined = InboxItem::ConversationJoined {
            conversation: conversation.id.clone(),
            ghosts: inside,
        };
        engine.stage(to, &joined, batch)?;
        Ok(inputs)
    }

    /// Returns the notices to the senders of messages that are still waiting here when the
    /// conversation has moved. They read them in the new room.
    pub(in crate::engine) fn refuse_waiting_messages(
        &self,
        conversation: &Conversation,
    ) -> Result<Vec<Input>, EngineError> {
        let waiting =
            self.engine
                .store()
                .scan::<Inbox>(&prefix(&self.id), None, LATE_MESSAGES_MAX)?;
        let mut inputs = Vec::new();
        for (_, arrived) in waiting {
            let (InboxItem::Event(json) | InboxItem::AfterGap(json)) = arrived else {
                continue;
            };
            let Some(event) = RoomEvent::parse(&json, Some(&self.id)) else {
                continue;
            };
            let seen = self.engine.seen(&event.id)?;
            if !seen.is_some_and(|seen| seen.handled) {
                inputs.extend(said_too_late(conversation, &event));
            }
        }
        Ok(inputs)
    }
}

/// Returns whether a ghost was invited or joined by this event. Earlier messages are not encrypted
/// for it, and waiting for each of their keys would hold up the conversation.
fn lets_in(event: &RoomEvent, ghost: &Ghost) -> bool {
    let own = event.membership();
    own.is_some_and(|(user, kind)| user == *ghost && matches!(kind, "invite" | "join"))
}

/// Returns the memberships of the people in the new room: no event shows who joined before the
/// ghosts. A person who had left the old room and is in the new one reads again, so the others have
/// to see their ghost.
fn came_before(conversation: &Conversation, new: &RoomState) -> Vec<Input> {
    let here = |user: &&OwnedUserId| conversation.person_at(RoomRole::Origin, user).is_some();
    let join = |user: &OwnedUserId| Input::Member {
        role: RoomRole::Origin,
        user: user.clone(),
        membership: "join".to_owned(),
        by_others: false,
        redacts: false,
        ghost: None,
    };
    new.joined().filter(here).map(join).collect()
}

/// Returns whether `new` is the successor of `old`, as both rooms say, and nobody is or can soon be
/// there who is not in `old`.
fn is_successor(
    old: (&OwnedRoomId, &RoomState),
    new: (&OwnedRoomId, &RoomState),
    conversation: &Conversation,
) -> bool {
    let of_it = |user: &OwnedUserId| {
        conversation.person_at(RoomRole::Origin, user).is_some()
            || conversation
                .ghosts_at(RoomRole::Origin)
                .any(|person| person.ghost == *user)
    };
    old.1.replaced_by.as_ref() == Some(new.0)
        && new.1.predecessor.as_ref() == Some(old.0)
        && new.1.replaced_by.is_none()
        && new.1.room_type == old.1.room_type
        // If nobody could join the old room uninvited, nobody may join the new one uninvited.
        && ((new.1.join_rule == old.1.join_rule
            && new.1.allowed_rooms.iter().all(|room| old.1.allowed_rooms.contains(room)))
            || matches!(new.1.join_rule.as_str(), "invite" | "knock" | "private"))
        && (new.1.history_visibility != "world_readable"
            || old.1.history_visibility == "world_readable")
        && new.1.readers().all(of_it)
}

impl Engine {
    /// Returns the origin of a conversation between these two that names this room as its
    /// successor.
    pub(in crate::engine) async fn predecessor_of(
        &self,
        ghost: &Ghost,
        asker: &UserId,
        room: &RoomId,
    ) -> Result<Option<OwnedRoomId>, EngineError> {
        let conversations = self.conversations_of(ghost)?.into_iter();
        let origins = conversations
            .filter(|known| !known.ended && known.person_at(RoomRole::Origin, asker).is_some())
            .filter_map(|known| known.origin.clone())
            .filter(|origin| origin != room);
        for origin in origins.take(CONVERSATIONS) {
            let acting = self.as_user(ghost)?;
            let kind = "m.room.tombstone";
            let content = match self
                .homeserver()
                .state(acting.actor(), &origin, kind, "")
                .await
            {
                Ok(content) => content,
                Err(error) if error.fate() == Fate::Final => continue,
                Err(error) => return Err(error.into()),
            };
            let content = content.and_then(|c| serde_json::from_str::<Value>(c.get()).ok());
            if content.is_some_and(|content| content["replacement_room"] == room.as_str()) {
                return Ok(Some(origin));
            }
        }
        Ok(None)
    }

    /// Returns whether a room is used for nothing else, and no ghost has left it for good.
    fn is_free_for(
        &self,
        conversation: &ConversationId,
        room: &OwnedRoomId,
    ) -> Result<bool, EngineError> {
        let record = self.store().get::<Rooms>(room)?.unwrap_or_default();
        let here = record.conversation.as_ref();
        Ok(record.control.is_none()
            && record.introductions.is_empty()
            && here.is_none_or(|here| here.conversation == *conversation))
    }

    /// Tells the new room that a conversation may move there. That comes first, so that no message
    /// there is lost, and no invite is taken for a wish to reach a ghost.
    async fn await_conversation(
        &self,
        conversation: &Conversation,
        room: &OwnedRoomId,
        ghosts: &[Ghost],
    ) -> Result<(), EngineError> {
        let record = self.store().get::<Rooms>(room)?.unwrap_or_default();
        if record.conversation.is_some() {
            return Ok(());
        }
        let pending = InboxItem::UpgradePending {
            conversation: conversation.id.clone(),
            ghosts: ghosts.to_vec(),
        };
        let mut batch = Batch::new();
        for ghost in ghosts {
            batch.put::<ActiveRoomsByGhost>(&(ghost.clone().into(), room.clone()), &())?;
        }
        self.post(room, &pending, batch).await?;
        Ok(())
    }

    /// Returns the server that may have to be asked to join the successor of an origin: another
    /// server if one of the origin's people is on one.
    fn server_of_origin(&self, conversation: &Conversation) -> OwnedServerName {
        let own = &self.settings().server_name;
        conversation
            .people
            .iter()
            .filter(|person| matches!(person.home, Home::Origin { .. }))
            .map(|person| person.user.server_name())
            .find(|server| *server != own)
            .unwrap_or(own)
            .to_owned()
    }

    /// Joins ghosts to a room for which `server` may have to be asked. Returns the ghosts that are
    /// in it.
    async fn join_room(
        &self,
        ghosts: &[Ghost],
        room: &OwnedRoomId,
        server: &ServerName,
    ) -> Result<Vec<Ghost>, EngineError> {
        let mut inside = Vec::new();
        for ghost in ghosts {
            self.machines().expect_room(ghost, room).await?;
            let (homeserver, acting) = (self.homeserver().clone(), self.as_user(ghost)?);
            let room = room.clone();
            let joining = async move { homeserver.try_to_join(acting.actor(), &room).await };
            match self.ask(server, joining).await {
                Ok(()) => inside.push(ghost.clone()),
                Err(EngineError::Matrix(error)) if error.is_refusal() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(inside)
    }

    /// Lets a ghost in the room invite the others, if the room allows that.
    async fn invite_others(
        &self,
        ghosts: &[Ghost],
        mut inside: Vec<Ghost>,
        room: &OwnedRoomId,
        view: &RoomState,
    ) -> Result<Vec<Ghost>, EngineError> {
        let Some(host) = inside.first().cloned().filter(|host| view.may_invite(host)) else {
            return Ok(inside);
        };
        let acting = self.as_user(&host)?;
        let content = json!({ "membership": "invite" });
        for ghost in ghosts {
            if inside.contains(ghost) {
                continue;
            }
            let (actor, key) = (acting.actor(), ghost.as_str());
            let invited = self
                .homeserver()
                .send_state(actor, room, "m.room.member", key, &content);
            match invited.await {
                // The homeserver is in the room by now, and need not ask another server.
                Ok(_) => {
                    let own = &self.settings().server_name;
                    let ghost = std::slice::from_ref(ghost);
                    inside.extend(self.join_room(ghost, room, own).await?);
                }
                Err(error) if error.is_refusal() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(inside)
    }

    /// Returns the events from before a ghost joined a room, in order: the homeserver does not push
    /// them.
    async fn backfill_since_join(
        &self,
        conversation: &Conversation,
        ghost: &Ghost,
        room: &OwnedRoomId,
        batch: &mut Batch,
    ) -> Result<Vec<Input>, EngineError> {
        let mut inputs = Vec::new();
        let events = self.read_back(ghost, room).await?;
        let joins = |event: &HistoryEvent| {
            let event = event.parse(room);
            event.is_some_and(|event| lets_in(&event, ghost))
        };
        let since = events.iter().position(joins);
        let readable = since.map_or(events.len(), |at| at + 1);
        for missed in events.into_iter().skip(readable) {
            let Some(event) = missed.parse(room) else {
                continue;
            };
            let role = RoomRole::Origin;
            let said =
                event.state_key.is_none() && conversation.person_at(role, &event.sender).is_some();
            let Some(kind) = event_kind(&event).filter(|_| said) else {
                continue;
            };
            self.mark_seen(&event.id, true, batch)?;
            if kind == EventKind::Forwardable {
                let key = (room.clone(), event.id.clone());
                batch.put::<RetainedEvents>(&key, &missed.json.get().to_owned())?;
            }
            inputs.push(Input::Event {
                role,
                sender: event.sender,
                event: event.id,
                kind,
            });
        }
        Ok(inputs)
    }
}

#[cfg(test)]
#[path = "upgrade_tests.rs"]
mod tests;
