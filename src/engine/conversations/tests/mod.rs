//! A conversation that goes on in an engine that is not started: its actor does what it is told.

mod backfill;
mod durability;
mod ephemeral;
mod erasure;
mod event_map;
mod growth;
mod leaving;
mod media;
mod naming;
mod quiet;
mod redactions;
mod removal;
mod retention;
mod returning;
mod room_only;
mod seed;
mod verification;
mod waiting;

use std::{sync::Arc, time::Duration};

use matrix_sdk_crypto::CollectStrategy;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, owned_event_id, room_id, user_id};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    clock::Timestamp,
    conversation::{
        Conversation, Effect, Home, Input, Notice, Participant, PortalStatus, RoomRole,
    },
    crypto::DecryptError,
    engine::{
        Engine, EngineError,
        actors::actor::RoomActor,
        conversations::event_map::NewCopy,
        records::{
            ActiveRoomsByGhost, ConversationRoom, Conversations, Inbox, InboxItem, LostSessions,
            Outbox, OutboxItem, QueuedEffect, RetainedEvents, RoomRecord, Rooms,
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
        Self::on(Store::in_memory(), room, talk).await
    }

    async fn on(store: Store, room: OwnedRoomId, talk: &Conversation) -> Self {
        let TestEngine {
            engine,
            store,
            fake,
            clock,
        } = testing::engine().store(&store).build().await;
        let mut batch = Batch::new();
        batch.put::<Conversations>(&id(), talk).unwrap();
        store.apply(batch).unwrap();
        store.flush_blocking().unwrap();
        let mut actor = RoomActor::load(engine.clone(), room, Arc::new(Notify::new())).unwrap();
        actor.room.record.conversation = Some(ConversationRoom {
            conversation: id(),
            ghosts: vec![sam()],
            upgrade_pending: false,
            waiting_told_at: None,
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

    /// An event of the origin is forwarded to the portal.
    fn note_copy(&self, event: &str, copy: &OwnedEventId, by: usize) {
        let copy = NewCopy {
            source: &origin(),
            event: event.try_into().unwrap(),
            target: &portal(),
            copy,
            by,
        };
        let mut batch = Batch::new();
        self.engine.note_copy(&copy, &mut batch).unwrap();
        self.store.apply(batch).unwrap();
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

    async fn change(&self) {
        let mut batch = Batch::new();
        let led_back = Input::ReturnedToRoom {
            at: self.engine.now(),
            person: 0,
        };
        let (id, engine) = (id(), &self.engine);
        let inputs = [led_back];
        let decided = engine.lock_and_decide(&id, &inputs, engine.now(), &mut batch);
        let (lock, _) = decided.await.unwrap();
        self.store.apply(batch).unwrap();
        drop(lock);
    }

    /// Looks for what may have been lost before a message.
    async fn backfill_before(&mut self, id: &str) {
        let event = message(id, self.engine.now());
        let json = event.to_string();
        let parsed = crate::engine::event::RoomEvent::parse(&json, None).unwrap();
        backfill(&mut self.actor.room, parsed, &json).await.unwrap();
    }
}

/// Looks for what may have been lost before an event, and handles all.
async fn backfill(
    room: &mut crate::engine::room::Room,
    event: crate::engine::event::RoomEvent,
    json: &str,
) -> Result<(), EngineError> {
    match room.read_gap_before(&event).await? {
        Some(gap) => room.handle_gap(gap, event, json).await,
        None => Ok(()),
    }
}

/// Alice and Samuel, who have clients, in the two rooms of the conversation.
struct TwoPeople {
    talk: Talk,
    alice: Person,
    samuel: Person,
}

/// The ghost that shows Alice to Samuel.
fn alices_ghost() -> Ghost {
    Ghost::new(user_id!("@_dm_.palice:hs.test").to_owned())
}

impl TwoPeople {
    /// Their ghosts are in both rooms. Samuel has signed his device, or not yet.
    async fn begin(samuel_has_signed: bool) -> Self {
        let talk = Talk::provisioned().await;
        let (machines, fake) = (talk.engine.machines(), &talk.fake);
        machines.provision(&alices_ghost(), "Alice").await.unwrap();
        let alice = Person::new(fake, "@alice:hs.test").await;
        let samuel = Person::unsigned(fake, "@samuel:hs.test", "PHONE").await;
        if samuel_has_signed {
            samuel.sign().await;
        }
        machines.expect_room(&sam(), &origin()).await.unwrap();
        fake.add_room(&origin(), &[alice.user(), &sam()]);
        fake.add_room(&portal(), &[&alices_ghost(), samuel.user()]);
        let record = RoomRecord {
            conversation: Some(ConversationRoom {
                conversation: id(),
                ghosts: vec![alices_ghost()],
                upgrade_pending: false,
                waiting_told_at: None,
            }),
            ..RoomRecord::default()
        };
        let mut batch = Batch::new();
        batch.put::<Rooms>(&portal(), &record).unwrap();
        let key = (alices_ghost().into(), portal());
        batch.put::<ActiveRoomsByGhost>(&key, &()).unwrap();
        talk.store.apply(batch).unwrap();
        Self {
            talk,
            alice,
            samuel,
        }
    }

    /// Pushes events of the origin, with the keys that were sent to `@sam`.
    async fn push(&self, events: &[Value]) {
        let engine = &self.talk.engine;
        let device = engine.machines().device_of(&sam()).unwrap().unwrap();
        let mut messages = Vec::new();
        for message in self.talk.fake.take_incoming(&sam(), &device).to_device {
            let mut message: Value = serde_json::from_str(message.get()).unwrap();
            message["to_user_id"] = json!(sam());
            message["to_device_id"] = json!(device);
            messages.push(message);
        }
        let body = json!({"events": events, "de.sorunome.msc2409.to_device": messages});
        let body = Transaction::parse(body.to_string().as_bytes()).unwrap();
        engine.accept_transaction(body).await.unwrap();
        engine.process_to_device().await;
    }

    /// An event that Alice sends, and that is not pushed yet.
    async fn alice_sends(&self, content: &Value) -> Value {
        let everybody = CollectStrategy::AllDevices;
        let (room, ghost) = (origin(), sam());
        let event = self.alice.sends(&room, &[&ghost], content, everybody).await;
        serde_json::from_str(event.get()).unwrap()
    }

    async fn alice_says(&self, text: &str) -> Value {
        let content = json!({"msgtype": "m.text", "body": text});
        let event = self.alice_sends(&content).await;
        self.push(std::slice::from_ref(&event)).await;
        event
    }

    /// Samuel signs his device, and the homeserver says so.
    async fn samuel_signs(&self) {
        self.samuel.sign().await;
        let changed = [self.samuel.user().to_owned()];
        let machines = self.talk.engine.machines();
        machines.mark_device_lists_outdated_for_all(&changed);
    }

    /// Lets the actor of the origin go on until it has nothing to do or has to wait.
    async fn go_on(&mut self) {
        let actor = &mut self.talk.actor;
        while let Ok(true) = actor.step().await {
            actor.room.failures = 0;
            actor.room.failing = None;
        }
    }

    /// What Alice reads of the ghosts in her room: the text of each event, or its type.
    async fn told_to_alice(&self) -> Vec<String> {
        self.alice.query(&[&sam()]).await;
        self.alice.receives().await;
        let mut texts = Vec::new();
        for event in self.talk.fake.events(origin().as_str()) {
            if event.kind != "m.room.encrypted" {
                continue;
            }
            let shown = json!({
                "type": event.kind, "room_id": event.room, "sender": event.sender,
                "event_id": event.id, "origin_server_ts": event.sent, "content": event.value(),
            });
            let shown = serde_json::value::to_raw_value(&shown).unwrap();
            let decrypted = self.alice.decrypt(&origin(), &shown).await.unwrap();
            let event: Value = decrypted.event.deserialize_as_unchecked().unwrap();
            let text = event["content"]["body"].as_str();
            let text = text.or(event["type"].as_str());
            texts.push(text.unwrap().to_owned());
        }
        texts
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

/// Alice in a chat of two and in a group, where she is or has been.
async fn direct_and_group(is_present: bool) -> (Talk, Conversation, Conversation) {
    let mut direct = talk();
    direct.people[0].is_alias = true;
    let mut group = Conversation {
        id: ConversationId::new("group"),
        origin: Some(room_id!("!group:hs.test").to_owned()),
        direct: false,
        ..direct.clone()
    };
    group.people[0] = participant("alice", ".pother", Home::Origin { is_present });
    group.people[0].is_alias = true;
    let it = Talk::at(origin(), &direct).await;
    let mut batch = Batch::new();
    for conversation in [&direct, &group] {
        let mut lock = it.engine.lock_decisions();
        it.engine
            .write_conversation(&mut lock, conversation, Some(conversation), &mut batch)
            .unwrap();
    }
    it.store.apply(batch).unwrap();
    (it, direct, group)
}
