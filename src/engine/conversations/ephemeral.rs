//! Receipts and typing, forwarded while they are fresh. Nothing is stored; the next one makes up
//! for one that is lost.

use std::time::Duration;

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    conversation::{Conversation, RoomRole},
    engine::{
        Engine, EngineError,
        conversations::event_map::EventMap,
        records::{Conversations, Rooms},
    },
    matrix::Receipt,
};

/// Maximum number of typing people, or of receipts of one event, that are processed.
const EPHEMERAL_PEOPLE_MAX: usize = 50;
/// How long a person is shown as typing. Their client repeats it before then, or says that they
/// have stopped.
const TYPES_FOR: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct EphemeralEvent {
    #[serde(rename = "type")]
    kind: String,
    room_id: OwnedRoomId,
    content: Value,
}

impl Engine {
    /// Forwards the receipts and typing that the homeserver pushed.
    pub(in crate::engine) async fn forward_ephemeral(&self, events: Vec<Box<RawValue>>) {
        for json in events {
            let Ok(event) = serde_json::from_str::<EphemeralEvent>(json.get()) else {
                continue;
            };
            if let Err(error) = self.forward_ephemeral_event(&event).await {
                tracing::debug!(room = %event.room_id, %error, "a receipt or typing could not be forwarded");
            }
        }
    }

    async fn forward_ephemeral_event(&self, event: &EphemeralEvent) -> Result<(), EngineError> {
        let room = &event.room_id;
        let Some(here) = self
            .store()
            .get::<Rooms>(room)?
            .and_then(|room| room.conversation)
        else {
            return Ok(());
        };
        let conversation = self.store().get::<Conversations>(&here.conversation)?;
        let Some(conversation) = conversation.filter(|conversation| !conversation.ended) else {
            return Ok(());
        };
        let Some(role) = conversation.role_of(room) else {
            return Ok(());
        };
        match event.kind.as_str() {
            "m.typing" => {
                self.forward_typing(&conversation, role, &event.content)
                    .await
            }
            "m.receipt" => self.forward_receipts(&conversation, role, event).await,
            _ => Ok(()),
        }
    }

    /// Forwards who is typing. `m.typing` lists everybody who is: the others have stopped.
    async fn forward_typing(
        &self,
        conversation: &Conversation,
        role: RoomRole,
        content: &Value,
    ) -> Result<(), EngineError> {
        let named = content["user_ids"].as_array();
        let types = |user: &OwnedUserId| {
            named.is_some_and(|named| named.iter().any(|it| it == user.as_str()))
        };
        let people = conversation.people.iter().enumerate();
        let people = people
            .filter(|(index, person)| person.room_role(*index) == role && person.takes_part());
        for (_, person) in people {
            let typing = types(&person.user).then_some(TYPES_FOR);
            for to in conversation.targets_of(role) {
                let Some(room) = conversation.room(to) else {
                    continue;
                };
                let acting = self.as_user(&person.ghost)?;
                // One ghost may be joining or leaving; the others are there.
                if let Err(error) = self
                    .homeserver()
                    .send_typing(acting.actor(), room, typing)
                    .await
                {
                    tracing::debug!(%room, %error, "typing could not be forwarded");
                }
            }
        }
        Ok(())
    }

    /// Returns the thread root of an event. Synapse does not tell application services which thread
    /// a receipt is in, so the thread of the message is used.
    async fn root_of(
        &self,
        conversation: &Conversation,
        role: RoomRole,
        event: &EventId,
    ) -> Result<Option<OwnedEventId>, EngineError> {
        let ghost = conversation.ghosts_at(role).next();
        let (Some(ghost), Some(room)) = (ghost, conversation.room(role)) else {
            return Ok(None);
        };
        let acting = self.as_user(&ghost.ghost)?;
        let Some(json) = self.homeserver().event(acting.actor(), room, event).await? else {
            return Ok(None);
        };
        let event: Value = serde_json::from_str(json.get())?;
        let relation = &event["content"]["m.relates_to"];
        let root = relation["event_id"].as_str();
        let root = root.filter(|_| relation["rel_type"] == "m.thread");
        Ok(root.and_then(|root| root.try_into().ok()))
    }

    async fn forward_receipts(
        &self,
        conversation: &Conversation,
        role: RoomRole,
        event: &EphemeralEvent,
    ) -> Result<(), EngineError> {
        let Some(content) = event.content.as_object() else {
            return Ok(());
        };
        for (read, receipts) in content.iter().take(EPHEMERAL_PEOPLE_MAX) {
            let Ok(read) = OwnedEventId::try_from(read.as_str()) else {
                continue;
            };
            let Some(receipts) = receipts["m.read"].as_object() else {
                continue;
            };
            let mut root = None;
            for (user, receipt) in receipts.iter().take(EPHEMERAL_PEOPLE_MAX) {
                let person = OwnedUserId::try_from(user.as_str()).ok();
                let person = person.and_then(|user| conversation.person_at(role, &user));
                let Some(person) = person.and_then(|index| conversation.people.get(index)) else {
                    continue;
                };
                for to in conversation.targets_of(role) {
                    let Some(there) = conversation.room(to) else {
                        continue;
                    };
                    let map = EventMap {
                        store: self.store(),
                        source: &event.room_id,
                        target: there,
                    };
                    let Some(copy) = map.find(&read)? else {
                        continue;
                    };
                    let named = receipt["thread_id"].as_str();
                    if named.is_none() && root.is_none() {
                        root = Some(self.root_of(conversation, role, &read).await?);
                    }
                    let root = match named {
                        None => root.clone().flatten(),
                        Some("main") => None,
                        Some(root) => match OwnedEventId::try_from(root) {
                            Ok(root) => Some(root),
                            Err(_) => continue,
                        },
                    };
                    let thread = match (root, named) {
                        (Some(root), named) => match (map.find(&root)?, named) {
                            (Some(root), _) => Receipt::Thread(root),
                            // The root is forgotten, or there is none.
                            (None, None) => Receipt::Unthreaded,
                            (None, Some(_)) => continue,
                        },
                        (None, Some(_)) => Receipt::Main,
                        (None, None) => Receipt::Unthreaded,
                    };
                    let acting = self.as_user(&person.ghost)?;
                    let shown =
                        self.homeserver()
                            .send_receipt(acting.actor(), there, &copy, thread);
                    if let Err(error) = shown.await {
                        tracing::debug!(room = %there, %error, "a receipt could not be forwarded");
                    }
                }
            }
        }
        Ok(())
    }
}
