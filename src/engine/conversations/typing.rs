//! Who is shown as typing. Only changes are sent, one at a time in each room, and always the newest:
//! in a large group every keystroke of somebody would otherwise be a request for each person and room.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ruma::OwnedRoomId;
use serde_json::Value;

use crate::{
    clock::Timestamp,
    conversation::{Conversation, RoomRole},
    engine::{Engine, EngineError},
    ids::Ghost,
};

/// How long a person is shown as typing. Their client repeats it before then, or says that they
/// have stopped.
const TYPES_FOR: Duration = Duration::from_secs(30);
/// How long before the end of that time it is sent again.
const REFRESHED_BEFORE: Duration = Duration::from_secs(10);
/// Maximum number of people of a room who are shown as typing.
const TYPISTS_MAX: usize = 20;
/// Maximum number of rooms in which somebody is shown as typing.
const ROOMS_MAX: usize = 10_000;

/// Who is shown as typing, by the room that shows it.
#[derive(Debug, Default)]
pub(in crate::engine) struct TypingStates(Mutex<HashMap<OwnedRoomId, Typists>>);

#[derive(Debug, Default)]
struct Typists {
    ghosts: HashMap<Ghost, Typist>,
    /// Whether a task sends the changes.
    is_sending: bool,
}

/// How a ghost is shown.
#[derive(Clone, Copy, Debug, Default)]
struct Typist {
    /// Whether its person types.
    types: bool,
    /// When the homeserver stops to show it as typing.
    until: Option<Timestamp>,
}

impl Typist {
    /// Returns whether the homeserver has to be told.
    fn is_outdated(self, now: Timestamp) -> bool {
        match self.until.filter(|until| *until > now) {
            Some(until) => !self.types || until.since(now) <= REFRESHED_BEFORE,
            None => self.types,
        }
    }
}

impl TypingStates {
    fn rooms(&self) -> MutexGuard<'_, HashMap<OwnedRoomId, Typists>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes who types and who does not. Returns `true` if the caller has to send the changes.
    fn note(&self, room: &OwnedRoomId, people: &[(Ghost, bool)], now: Timestamp) -> bool {
        let mut rooms = self.rooms();
        if !rooms.contains_key(room) {
            if !people.iter().any(|(_, types)| *types) {
                return false;
            }
            if rooms.len() >= ROOMS_MAX {
                rooms.retain(|_, typists| typists.is_sending || !typists.is_over(now));
            }
            if rooms.len() >= ROOMS_MAX {
                return false;
            }
        }
        let typists = rooms.entry(room.clone()).or_default();
        for (ghost, types) in people {
            match typists.ghosts.get_mut(ghost) {
                Some(shown) => shown.types = *types,
                None if *types => {
                    let (types, until) = (true, None);
                    typists
                        .ghosts
                        .insert(ghost.clone(), Typist { types, until });
                }
                None => {}
            }
        }
        let has_change = typists.ghosts.values().any(|shown| shown.is_outdated(now));
        if !has_change && !typists.is_sending {
            typists.ghosts.retain(|_, shown| shown.types);
            if typists.ghosts.is_empty() {
                rooms.remove(room);
            }
            return false;
        }
        has_change && !std::mem::replace(&mut typists.is_sending, true)
    }

    /// Takes the next change of a room as sent. `None` ends the sending.
    fn take(&self, room: &OwnedRoomId, now: Timestamp) -> Option<(Ghost, bool)> {
        let mut rooms = self.rooms();
        let typists = rooms.get_mut(room)?;
        let mut ghosts = typists.ghosts.iter_mut();
        if let Some((ghost, shown)) = ghosts.find(|(_, shown)| shown.is_outdated(now)) {
            shown.until = shown.types.then(|| now + TYPES_FOR);
            return Some((ghost.clone(), shown.types));
        }
        typists.is_sending = false;
        typists.ghosts.retain(|_, shown| shown.types);
        if typists.ghosts.is_empty() {
            rooms.remove(room);
        }
        None
    }
}

impl Typists {
    /// Returns whether the homeserver has stopped showing all of them.
    fn is_over(&self, now: Timestamp) -> bool {
        let mut shown = self.ghosts.values();
        shown.all(|shown| shown.until.is_none_or(|until| until <= now))
    }
}

impl Engine {
    /// Notes who is typing, and sends what changes. `m.typing` lists everybody who is: the others
    /// have stopped.
    pub(in crate::engine) fn forward_typing(
        &self,
        conversation: &Conversation,
        role: RoomRole,
        content: &Value,
    ) {
        let named = content["user_ids"].as_array();
        let mut typists = 0;
        let mut types = |user: &str| {
            let is_named = named.is_some_and(|named| named.iter().any(|it| it == user));
            typists += usize::from(is_named);
            is_named && typists <= TYPISTS_MAX
        };
        let people: Vec<(Ghost, bool)> = conversation
            .people
            .iter()
            .enumerate()
            .filter(|(index, person)| person.room_role(*index) == role && person.takes_part())
            .map(|(_, person)| (person.ghost.clone(), types(person.user.as_str())))
            .collect();
        for to in conversation.targets_of(role) {
            let Some(room) = conversation.room(to).cloned() else {
                continue;
            };
            if self.0.typing.note(&room, &people, self.now()) {
                let engine = self.clone();
                self.spawn(async move { engine.send_typing_changes(&room).await });
            }
        }
    }

    async fn send_typing_changes(&self, room: &OwnedRoomId) {
        while let Some((ghost, types)) = self.0.typing.take(room, self.now()) {
            // One ghost may be joining or leaving; the others are there.
            if let Err(error) = self.send_typing(&ghost, room, types).await {
                tracing::debug!(%room, %error, "typing could not be forwarded");
            }
        }
    }

    async fn send_typing(
        &self,
        ghost: &Ghost,
        room: &OwnedRoomId,
        types: bool,
    ) -> Result<(), EngineError> {
        let acting = self.as_user(ghost)?;
        let duration = types.then_some(TYPES_FOR);
        let homeserver = self.homeserver();
        Ok(homeserver
            .send_typing(acting.actor(), room, duration)
            .await?)
    }
}
