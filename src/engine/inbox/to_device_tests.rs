//! What one ghost's messages, requests and names cost the others.

use std::{sync::Arc, time::Duration};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, room_id, user_id};
use serde_json::{Value, json, value::RawValue};
use tokio::sync::Notify;

use crate::{
    engine::{
        Engine,
        actors::actor::RoomActor,
        control_room::{Control, ControlPhase},
        messaging::send::{Outgoing, Recipients},
        records::{ActiveRoomsByGhost, RetainedEvents, Rooms, SyncTokens, ToDevice},
    },
    ids::{self, Ghost},
    introduction::{MessageKind, PendingEvent, Phase},
    matrix::Transaction,
    store::{Batch, Store},
    testing::{self, EventFactory, FakeHomeserver, Held, NOW, Person, TestEngine, bot},
};

/// How long a ghost may wait for another one. Without a slow server it takes milliseconds.
const WAITS: Duration = Duration::from_secs(1);

fn sam() -> OwnedUserId {
    user_id!("@_dm_sam:hs.test").to_owned()
}

fn sams_room() -> &'static RoomId {
    room_id!("!sam:hs.test")
}

fn bots_room() -> &'static RoomId {
    room_id!("!bot:hs.test")
}

fn slow_room() -> &'static RoomId {
    room_id!("!slow:hs.test")
}

/// A message to everybody in the room.
fn outgoing<'a>(sender: &'a OwnedUserId, content: &'a Value, transaction: &str) -> Outgoing<'a> {
    Outgoing {
        sender,
        event_type: "m.room.message",
        content,
        recipients: Recipients::All,
        transaction: transaction.into(),
    }
}

/// The bot and Sam's ghost, each with a room.
struct House {
    engine: Engine,
    store: Store,
    fake: FakeHomeserver,
    alice: Person,
}

impl House {
    async fn new() -> Self {
        let TestEngine {
            engine,
            store,
            fake,
            ..
        } = testing::engine().build().await;
        let machines = engine.machines();
        for (ghost, name, room) in [(bot(), "Bot", bots_room()), (sam(), "Sam", sams_room())] {
            machines.provision(&ghost, name).await.unwrap();
            machines.expect_room(&ghost, room).await.unwrap();
        }
        let alice = Person::new(&fake, "@alice:hs.test").await;
        Self {
            engine,
            store,
            fake,
            alice,
        }
    }

    fn actor(&self, room: &RoomId) -> RoomActor {
        RoomActor::load(
            self.engine.clone(),
            room.to_owned(),
            Arc::new(Notify::new()),
        )
        .unwrap()
    }

    /// What has come for a ghost, as a transaction shows it.
    fn messages(&self, ghost: &OwnedUserId) -> Vec<Value> {
        let device = self.engine.machines().device_of(ghost).unwrap().unwrap();
        let incoming = self.fake.take_incoming(ghost, &device).to_device;
        let pushed = incoming.into_iter().map(|message| {
            let mut message: Value = serde_json::from_str(message.get()).unwrap();
            message["to_user_id"] = json!(ghost);
            message["to_device_id"] = json!(device);
            message
        });
        pushed.collect()
    }

    async fn push(&self, messages: Vec<Value>) {
        let body = json!({"events": [], "de.sorunome.msc2409.to_device": messages});
        let body = Transaction::parse(body.to_string().as_bytes()).unwrap();
        self.engine.accept_transaction(body).await.unwrap();
    }

    async fn reads(&self, ghost: &OwnedUserId, room: &RoomId, event: &RawValue) {
        let actor = self.actor(room);
        let reading = actor.room.decrypt(ghost, event.get());
        let read = tokio::time::timeout(WAITS, reading).await;
        read.expect("it waits for nobody").unwrap();
    }

    /// Lets the bot write to somebody whose keys the homeserver asks a slow server for; returns when
    /// it waits for them.
    async fn speak_to_a_slow_server(&self) -> Held {
        let slow = Person::new(&self.fake, "@slow:hs.test").await;
        self.fake.add_room(slow_room(), &[slow.user(), &bot()]);
        let held = self.fake.hold("/keys/query", "@slow:hs.test");
        let actor = self.actor(slow_room());
        tokio::spawn(async move {
            let content = json!({"msgtype": "m.text", "body": "x"});
            let _held_back = actor.room.send(outgoing(&bot(), &content, "t1")).await;
        });
        held.comes().await;
        held
    }
}

/// A writer that waits for a machine holds up all who want to read with it. So nobody may hold a
/// machine while a server elsewhere is asked, and nobody wait for another ghost's.
#[tokio::test]
async fn a_slow_server_keeps_nobody_waiting_but_the_message_for_it() {
    let house = House::new().await;
    let machines = house.engine.machines().clone();
    let other = room_id!("!other:hs.test");
    machines.expect_room(&bot(), other).await.unwrap();
    let to_bot = house.alice.says(bots_room(), &[&bot()], "to the bot").await;
    let to_sam = house.alice.says(sams_room(), &[&sam()], "to Sam").await;
    let messages = [house.messages(&bot()), house.messages(&sam())].concat();
    let _held = house.speak_to_a_slow_server().await;
    let forgetting = machines.clone();
    let forgetting = tokio::spawn(async move {
        forgetting
            .forget_room(&bot(), room_id!("!other:hs.test"))
            .await
    });
    // Once it waits for the machine, or is done.
    tokio::task::yield_now().await;

    house.push(messages).await;
    house.reads(&sam(), sams_room(), &to_sam).await;
    // Nor does the ghost itself wait in another room.
    house.reads(&bot(), bots_room(), &to_bot).await;
    let forgotten = tokio::time::timeout(WAITS, forgetting).await;
    forgotten.expect("it waits for nobody").unwrap().unwrap();
    let kept = machines.expects_room(&bot(), other).unwrap();
    assert!(!kept, "and the other room is forgotten");
}

#[tokio::test]
async fn a_busy_ghost_keeps_its_own_messages_waiting_and_no_others() {
    let house = House::new().await;
    let to_bot = house.alice.says(bots_room(), &[&bot()], "to the bot").await;
    let to_sam = house.alice.says(sams_room(), &[&sam()], "to Sam").await;
    let device = house.engine.machines().device_of(&bot()).unwrap().unwrap();
    // More than are taken at once.
    let rubbish = (0..500).map(|n| {
        json!({
            "type": "m.room.encrypted", "sender": "@eve:evil.test", "content": {"n": n},
            "to_user_id": bot(), "to_device_id": device,
        })
    });
    let mut messages: Vec<Value> = rubbish.collect();
    messages.extend(house.messages(&bot()));
    messages.extend(house.messages(&sam()));
    let machines = house.engine.machines().clone();
    let bot = bot();
    let busy = machines.while_busy(&bot, async {
        house.push(messages).await;
        for _ in 0..50 {
            house.engine.start_processing_to_device().await;
        }
        while !house.engine.0.to_device.is_at_work(&bot) {
            tokio::task::yield_now().await;
        }
        house.reads(&sam(), sams_room(), &to_sam).await;
        assert!(house.engine.tasks().len() <= 5, "none for each push");
        let waiting = house.store.scan::<ToDevice>(&[], None, 1000).unwrap();
        assert_eq!(waiting.len(), 501, "the bot's");
    });
    busy.await;
    house.engine.process_to_device().await;
    house.reads(&bot, bots_room(), &to_bot).await;
    assert!(
        house
            .store
            .scan::<ToDevice>(&[], None, 1)
            .unwrap()
            .is_empty()
    );
}

/// Synapse loses changes that it had queued for us when there is another encrypted bridge.
#[tokio::test]
async fn a_change_of_devices_counts_when_only_a_sync_tells_of_it() {
    let house = House::new().await;
    let room = sams_room();
    house.fake.add_room(room, &[house.alice.user(), &sam()]);
    // A first sync tells of no changes.
    house.engine.sync_all_pending(&sam()).await.unwrap();
    let actor = house.actor(room);
    let says = async |id: &str| {
        let content = json!({"msgtype": "m.text", "body": id});
        let sent = actor.room.send(outgoing(&sam(), &content, id)).await;
        sent.unwrap();
        let log = house.fake.log();
        log.iter().filter(|line| line.ends_with("/query")).count()
    };
    let asked = says("one").await;
    assert_eq!(says("two").await, asked);
    house.fake.put_changed_devices(house.alice.user());
    house.engine.sync_all_pending(&sam()).await.unwrap();
    assert_eq!(says("three").await, asked + 1);
}

#[tokio::test]
async fn names_that_nobody_holds_leave_nothing_behind() {
    const NAMES: usize = 3000;
    let house = House::new().await;
    let (machines, store) = (house.engine.machines(), &house.store);
    let slots = machines.slot_count();
    let mut rooms: Vec<OwnedRoomId> = Vec::new();
    for first in (0..NAMES).step_by(100) {
        let invites = (first..first + 100).map(|n| {
            let room = OwnedRoomId::try_from(format!("!made{n}:evil.test")).unwrap();
            let by = OwnedUserId::try_from(format!("@m{n}:evil.test")).unwrap();
            let ghost = OwnedUserId::try_from(format!("@_dm_made{n}:hs.test")).unwrap();
            house.fake.invite(&room, &by, &ghost);
            let events = EventFactory::room(&room).sender(by.as_str());
            events.member(ghost.as_str(), "invite")
        });
        let body = json!({"events": invites.collect::<Vec<_>>()});
        let body = Transaction::parse(body.to_string().as_bytes()).unwrap();
        house.engine.accept_transaction(body).await.unwrap();
        rooms.extend(
            (first..first + 100).map(|n| format!("!made{n}:evil.test").try_into().unwrap()),
        );
    }
    assert_eq!(machines.slot_count(), slots);
    assert_eq!(
        machines.expected_count().unwrap(),
        2,
        "the rooms of bot and Sam"
    );
    house.engine.mark_durable(house.engine.next());
    for room in &rooms {
        while house.actor(room).step().await.unwrap() {}
    }
    let left_alone = store.scan::<Rooms>(&[], None, NAMES).unwrap();
    let declined = store.scan::<ActiveRoomsByGhost>(&[], None, NAMES).unwrap();
    // Those that are declined are limited in number.
    assert!(declined.len() <= 200, "{}", declined.len());
    assert_eq!(left_alone.len(), declined.len());
    assert_eq!(machines.slot_count(), slots);
    assert_eq!(machines.expected_count().unwrap(), 2);
}

#[tokio::test]
async fn an_opening_line_with_half_an_emoji_is_a_line_and_one_beyond_us_is_not_ignored() {
    let house = House::new().await;
    let room = sams_room();
    let ghost = Ghost::new(sam());
    let user = sam();
    let (alice, to) = (&house.alice, [&*user]);
    let half = alice.says_half_an_emoji(room, &to).await;
    let beyond = alice.says_content(room, &to, r#"{"n":1e400}"#).await;
    house.push(house.messages(&sam())).await;
    let actor = house.actor(room);
    for (event, expected) in [(half, MessageKind::Line), (beyond, MessageKind::Other)] {
        let kind = actor.room.classify_encrypted(&ghost, event.get()).await;
        assert_eq!(kind.unwrap(), Some(expected));
    }
}

/// A message to Sam's ghost and a command to the bot wait for keys that their machines have saved: a
/// crash came before the rooms were told.
async fn with_keys_saved_before_a_crash() -> House {
    let house = House::new().await;
    let (machines, ghost) = (house.engine.machines(), Ghost::new(sam()));
    let line = house.alice.says(sams_room(), &[&sam()], "hello").await;
    let command = house.alice.says(bots_room(), &[&bot()], "help").await;
    for user in [sam(), bot()] {
        let device = machines.device_of(&user).unwrap().unwrap();
        let incoming = house.fake.take_incoming(&user, &device);
        let received = machines.receive(&user, incoming).await;
        assert_eq!(received.unwrap().0.len(), 1);
    }
    let id = |event: &RawValue| -> OwnedEventId {
        let event: Value = serde_json::from_str(event.get()).unwrap();
        event["event_id"].as_str().unwrap().try_into().unwrap()
    };
    let owner = testing::person("@samuel:hs.test").clone();
    let mut introduction = testing::introduction(sams_room(), &ghost, owner, "sam");
    let until = NOW + Duration::from_secs(60);
    introduction.phase = Phase::Listening { until };
    introduction.direct = true;
    introduction.pending = vec![PendingEvent::new(id(&line), true)];
    let mut actor = house.actor(sams_room());
    actor.room.record.introductions.push(introduction);
    actor.room.commit(Batch::new(), []).unwrap();
    let mut control = Control::made(ids::Person::new(testing::alice()), NOW);
    control.phase = ControlPhase::Ready;
    control.waiting.push((id(&command), NOW));
    let mut actor = house.actor(bots_room());
    actor.room.record.control = Some(control);
    let mut batch = Batch::new();
    for (room, event) in [(sams_room(), &line), (bots_room(), &command)] {
        let place = (room.to_owned(), id(event));
        let json = event.get().to_owned();
        batch.put::<RetainedEvents>(&place, &json).unwrap();
    }
    actor.room.commit(batch, []).unwrap();
    house
}

#[tokio::test]
async fn a_start_announces_keys_that_were_saved_before_a_crash() {
    let house = with_keys_saved_before_a_crash().await;
    house.engine.start().await.unwrap();
    let waits = || {
        let record = |room: &RoomId| house.store.get::<Rooms>(&room.to_owned()).unwrap().unwrap();
        let (sams, bots) = (record(sams_room()), record(bots_room()));
        let pending = sams.introductions.iter().flat_map(|it| &it.pending);
        let command = bots.control.is_some_and(|it| !it.waiting.is_empty());
        command || pending.clone().any(|pending| pending.unreadable)
    };
    let heard = async {
        while waits() {
            tokio::task::yield_now().await;
        }
    };
    let heard = tokio::time::timeout(10 * WAITS, heard).await;
    heard.expect("both are read");
    house.engine.stop().await.unwrap();
}

#[tokio::test]
async fn a_key_that_was_saved_before_a_crash_is_announced_at_the_next_start() {
    let house = with_keys_saved_before_a_crash().await;
    // As a start does, before any actor is woken.
    house.engine.announce_keys_again().unwrap();
    let mut actor = house.actor(sams_room());
    actor.step().await.unwrap();
    assert!(!actor.room.record.introductions[0].pending[0].unreadable);
    let mut actor = house.actor(bots_room());
    actor.step().await.unwrap();
    assert!(actor.room.record.control.unwrap().waiting.is_empty());
}

#[tokio::test]
async fn a_key_that_is_pushed_before_its_invite_is_there_for_the_message() {
    let house = House::new().await;
    let (sam, room) = (sam(), room_id!("!new:hs.test"));
    let line = house.alice.says(room, &[&sam], "hello").await;
    house.push(house.messages(&sam)).await;
    house.engine.process_to_device().await;
    house.fake.invite(room, house.alice.user(), &sam);
    let invite = EventFactory::room(room).member(sam.as_str(), "invite");
    let body = json!({"events": [invite]});
    let body = Transaction::parse(body.to_string().as_bytes()).unwrap();
    house.engine.accept_transaction(body).await.unwrap();
    house.reads(&sam, room, &line).await;
}

#[tokio::test]
async fn a_message_that_waits_for_its_senders_devices_keeps_no_room_from_being_forgotten() {
    let house = House::new().await;
    let slow = Person::unsigned(&house.fake, "@slow:hs.test", "OLD").await;
    let event = slow.says(sams_room(), &[&sam()], "hello").await;
    house.push(house.messages(&sam())).await;
    house.engine.process_to_device().await;
    let held = house.fake.hold("/keys/query", "@slow:hs.test");
    let actor = house.actor(sams_room());
    tokio::spawn(async move {
        let _held_back = actor.room.decrypt(&sam(), event.get()).await;
    });
    held.comes().await;
    let (machines, user) = (house.engine.machines(), sam());
    let forgetting = machines.forget_room(&user, room_id!("!other:hs.test"));
    let forgotten = tokio::time::timeout(WAITS, forgetting).await;
    forgotten.expect("it waits for nobody").unwrap();
}

/// Another server can hold its part of a room's history back as long as it likes.
#[tokio::test]
async fn history_that_is_held_back_keeps_no_ghost_from_its_keys() {
    let house = House::new().await;
    let machines = house.engine.machines();
    let mut ghosts = Vec::new();
    for n in 0..4 {
        let ghost = OwnedUserId::try_from(format!("@_dm_slow{n}:hs.test")).unwrap();
        machines.provision(&ghost, "Slow").await.unwrap();
        ghosts.push(ghost);
    }
    ghosts.push(sam());
    let held = house.fake.hold("/messages", "");
    for (n, ghost) in ghosts.iter().enumerate() {
        let room = OwnedRoomId::try_from(format!("!far{n}:hs.test")).unwrap();
        house.fake.add_room(&room, &[house.alice.user(), ghost]);
        let mut batch = Batch::new();
        batch.put::<Rooms>(&room, &Default::default()).unwrap();
        house.store.apply(batch).unwrap();
        let events = EventFactory::room(&room).sender(house.alice.user().as_str());
        let newest = events.encrypted(&format!("$new{n}"));
        house.fake.put_timeline(room.as_str(), vec![newest], true);
        if *ghost != sam() {
            let (engine, ghost) = (house.engine.clone(), ghost.clone());
            tokio::spawn(async move { engine.sync_all_pending(&ghost).await });
            held.comes().await;
        }
    }
    // Sam has a gap of his own, and a message whose key only a sync brings.
    let line = house.alice.says(sams_room(), &[&sam()], "hello").await;
    house.reads(&sam(), sams_room(), &line).await;
    held.comes().await;
    assert_eq!(house.store.get::<SyncTokens>(&sam()).unwrap(), None);
    let room = sams_room();
    let forgetting = house.engine.forget_room(&ghosts[4], room);
    let forgotten = tokio::time::timeout(WAITS, forgetting).await;
    forgotten.expect("it waits for nobody").unwrap();
    // Once the history comes, the rest is done.
    drop(held);
    drop(house.engine.0.gap_turns.lock(sam()).await);
    let seen = house.engine.has_arrived("$new4".try_into().unwrap());
    assert!(seen.unwrap());
    assert!(house.store.get::<SyncTokens>(&sam()).unwrap().is_some());
}
