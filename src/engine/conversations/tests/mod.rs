//! A conversation that goes on in an engine that is not started: its actor does what it is told.

mod backfill;
mod durability;
mod leaving;
mod retention;
mod seed;
mod waiting;

use std::{sync::Arc, time::Duration};

use ruma::{OwnedRoomId, OwnedUserId, owned_event_id, room_id, user_id};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    clock::Timestamp,
    conversation::{Conversation, Effect, Home, Input, Notice, PortalStatus, RoomRole},
    crypto::DecryptError,
    engine::{
        Engine, EngineError,
        actors::actor::RoomActor,
        records::{
            ActiveRoomsByGhost, ConversationRoom, Conversations, Copy, EventCopies, Inbox,
            InboxItem, LostSessions, Outbox, OutboxItem, QueuedEffect, RetainedEvents, Seen,
        },
    },
    ids::{ConversationId, Ghost},
    introduction::{Admission, Introduction, Invite, PendingEvent},
    matrix::Transaction,
    relay::TranslateError,
    store::{Batch, Store, prefix},
    testing::{
        self, EventFactory, FakeHomeserver, NOW, Person, TestClock, TestEngine, participant,
    },
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn id() -> ConversationId {
    ConversationId::new("talk")
}

fn origin() -> OwnedRoomId {
    room_id!("!origin:hs.test").to_owned()
}

fn portal() -> OwnedRoomId {
    room_id!("!portal:hs.test").to_owned()
}

fn sam() -> Ghost {
    Ghost::new(user_id!("@_dm_sam:hs.test").to_owned())
}

/// Alice and `@sam`, who is masked.
fn talk() -> Conversation {
    let room = Some(portal());
    let standing = PortalStatus::Joined;
    Conversation {
        id: id(),
        people: vec![
            participant("alice", ".palice", Home::Origin { is_present: true }),
            participant(
                "samuel",
                "sam",
                Home::Portal {
                    room,
                    status: standing,
                },
            ),
        ],
        ..testing::conversation(&origin())
    }
}

struct Talk {
    actor: RoomActor,
    engine: Engine,
    store: Store,
    fake: FakeHomeserver,
    clock: Arc<TestClock>,
}

impl Talk {
    /// The conversation as it is, seen from the room of one of its places.
    async fn at(room: OwnedRoomId, talk: &Conversation) -> Self {
        let TestEngine {
            engine,
            store,
            fake,
            clock,
        } = testing::engine().build().await;
        let mut batch = Batch::new();
        batch.put::<Conversations>(&id(), talk).unwrap();
        store.apply(batch).unwrap();
        store.flush_blocking().unwrap();
        let mut actor = RoomActor::load(engine.clone(), room, Arc::new(Notify::new())).unwrap();
        actor.room.record.conversation = Some(ConversationRoom {
            conversation: id(),
            ghosts: vec![sam()],
            upgrade_pending: false,
        });
        actor.room.commit(Batch::new(), []).unwrap();
        Self {
            actor,
            engine,
            store,
            fake,
            clock,
        }
    }

    async fn begun() -> Self {
        Self::at(origin(), &talk()).await
    }

    async fn provisioned() -> Self {
        let it = Self::begun().await;
        it.engine.machines().provision(&sam(), "Sam").await.unwrap();
        it
    }

    fn outbox(&self, room: &OwnedRoomId) -> Vec<(u64, QueuedEffect)> {
        let all = self.store.scan::<Outbox>(&prefix(room), None, 1000);
        let all = all.unwrap().into_iter();
        all.map(|((_, number), due)| (number, due.what)).collect()
    }

    /// Which events are to be carried.
    fn carries(&self) -> Vec<String> {
        let all = self.outbox(&self.actor.room.id).into_iter();
        all.filter_map(|(_, what)| match what {
            QueuedEffect::Conversation {
                effect: Effect::ForwardEvent { event, .. },
                ..
            } => Some(event.to_string()),
            _ => None,
        })
        .collect()
    }

    /// What is to be said in a room.
    fn notices(&self, room: &OwnedRoomId) -> Vec<Notice> {
        let all = self.outbox(room).into_iter();
        all.filter_map(|(_, what)| match what {
            QueuedEffect::Conversation {
                effect: Effect::SendNotice { notice, .. },
                ..
            } => Some(notice),
            _ => None,
        })
        .collect()
    }

    fn is_kept(&self, event: &str) -> bool {
        let key = (self.actor.room.id.clone(), event.try_into().unwrap());
        self.store.contains::<RetainedEvents>(&key).unwrap()
    }

    fn put_due(&self, effect: Effect) -> u64 {
        let number = self.engine.next();
        let due = OutboxItem {
            since: self.engine.now(),
            what: QueuedEffect::Conversation {
                conversation: id(),
                effect,
            },
        };
        let mut batch = Batch::new();
        let key = (self.actor.room.id.clone(), number);
        batch.put::<Outbox>(&key, &due).unwrap();
        self.store.apply(batch).unwrap();
        number
    }

    fn keep(&self, event: &Value) {
        let mut batch = Batch::new();
        let id = event["event_id"].as_str().unwrap().try_into().unwrap();
        let key = (self.actor.room.id.clone(), id);
        batch
            .put::<RetainedEvents>(&key, &event.to_string())
            .unwrap();
        self.store.apply(batch).unwrap();
    }

    async fn carry_out(&mut self, number: u64) {
        let due = self.outbox(&self.actor.room.id).into_iter();
        let due = due.into_iter().find(|(n, _)| *n == number).unwrap();
        let due = OutboxItem {
            since: self.engine.now(),
            what: due.1,
        };
        self.actor.room.carry_out(number, due).await.unwrap();
    }

    /// Takes in one message, and says whether it may be carried on before it is durable.
    async fn repeatable(&mut self, id: &str) -> bool {
        let key = (self.actor.room.id.clone(), self.engine.next());
        let arrived = InboxItem::Event(message(id, NOW).to_string());
        assert!(
            self.actor
                .room
                .handle_messages(&[(key, arrived)])
                .await
                .unwrap()
        );
        let (number, what) = self.outbox(&self.actor.room.id).pop().unwrap();
        self.actor.room.is_replayable(number, &what).unwrap()
    }

    fn change(&self) {
        let mut batch = Batch::new();
        let led_back = Input::ReturnedToRoom {
            at: self.engine.now(),
            person: 0,
        };
        let (lock, _) = self
            .engine
            .lock_and_decide(&id(), &[led_back], &mut batch)
            .unwrap();
        self.store.apply(batch).unwrap();
        drop(lock);
    }

    /// Looks for what may have been lost before a message.
    async fn backfill_before(&mut self, id: &str) {
        let event = message(id, self.engine.now());
        let json = event.to_string();
        let parsed = crate::engine::event::RoomEvent::parse(&json, None).unwrap();
        self.actor
            .room
            .backfill_before(parsed, &json)
            .await
            .unwrap();
    }
}

fn message(id: &str, sent_at: Timestamp) -> Value {
    EventFactory::room(&origin()).sent_at(sent_at).encrypted(id)
}

fn membership(of: &str, membership: &str, before: Option<&str>) -> Value {
    let mut event = EventFactory::room(&origin()).member(of, membership);
    if let Some(before) = before {
        event["unsigned"] = json!({"prev_content": {"membership": before}});
    }
    event
}

fn forward(event: &str, target: RoomRole, is_last: bool) -> Effect {
    Effect::ForwardEvent {
        event: event.try_into().unwrap(),
        sender: 0,
        target,
        is_last,
    }
}
