//! Receipts and typing, forwarded while they are fresh. Nothing is stored; the next one makes up
//! for one that is lost.

use std::sync::Arc;

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

/// Maximum number of receipts that are processed, and of those of one event.
const EPHEMERAL_PEOPLE_MAX: usize = 50;

#[derive(Deserialize)]
struct EphemeralEvent {
    #[serde(rename = "type")]
    kind: String,
    room_id: OwnedRoomId,
    content: Value,
}

fn log_failure(event: &EphemeralEvent, error: &EngineError) {
    tracing::debug!(room = %event.room_id, %error, "a receipt or typing could not be forwarded");
}

impl Engine {
    /// Forwards the receipts and typing that the homeserver pushed. Typing is noted at once, so that
    /// no older push is taken for a newer one; nobody waits for the rest.
    pub(in crate::engine) fn forward_ephemeral(&self, events: Vec<Box<RawValue>>) {
        let mut receipts = Vec::new();
        for json in events {
            let Ok(event) = serde_json::from_str::<EphemeralEvent>(json.get()) else {
                continue;
            };
            match (event.kind.as_str(), self.conversation_of(&event.room_id)) {
                ("m.typing", Ok(Some((conversation, role)))) => {
                    self.forward_typing(&conversation, role, &event.content);
                }
                ("m.receipt", Ok(Some(_))) => receipts.push(event),
                (_, Ok(_)) => {}
                (_, Err(error)) => log_failure(&event, &error),
            }
        }
        if receipts.is_empty() {
            return;
        }
        let engine = self.clone();
        self.spawn(async move {
            for event in receipts {
                if let Err(error) = engine.forward_receipts(&event).await {
                    log_failure(&event, &error);
                }
            }
        });
    }

    /// Returns the conversation that goes on in a room, and which of its rooms that is.
    fn conversation_of(
        &self,
        room: &OwnedRoomId,
    ) -> Result<Option<(Arc<Conversation>, RoomRole)>, EngineError> {
        let record = self.store().get::<Rooms>(room)?;
        let Some(here) = record.and_then(|record| record.conversation) else {
            return Ok(None);
        };
        let known = self
            .store()
            .get_cached::<Conversations>(&here.conversation)?;
        let known = known.filter(|conversation| !conversation.ended);
        Ok(known.and_then(|conversation| {
            let role = conversation.role_of(room)?;
            Some((conversation, role))
        }))
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

    async fn forward_receipts(&self, event: &EphemeralEvent) -> Result<(), EngineError> {
        let Some((conversation, role)) = self.conversation_of(&event.room_id)? else {
            return Ok(());
        };
        let conversation = &*conversation;
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
                        engine: self,
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
