//! A group whose people are introduced by several ghosts, with keys and a homeserver.

use std::{sync::Arc, time::Duration};

use matrix_sdk_crypto::CollectStrategy;
use ruma::{RoomId, UserId, room_id, user_id};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    directory::ClaimedBy,
    engine::{Engine, actors::actor::RoomActor, records::InboxItem},
    handle::{Handle, HandleRules},
    introduction::{IntroductionNotice, Phase},
    testing::{self, EventFactory, FakeHomeserver, Person, TestClock, TestEngine},
};

fn here() -> &'static RoomId {
    room_id!("!group:hs.test")
}

fn kims() -> &'static UserId {
    user_id!("@_dm_kim:hs.test")
}

fn sams() -> &'static UserId {
    user_id!("@_dm_sam:hs.test")
}

/// Alice, Dora, whose client has signed nothing, and the ghosts of Kim and Samuel.
struct Group {
    actor: RoomActor,
    engine: Engine,
    fake: FakeHomeserver,
    clock: Arc<TestClock>,
    alice: Person,
    kim: Person,
    samuel: Person,
}

impl Group {
    async fn begin(samuel_has_signed: bool) -> Self {
        let TestEngine {
            engine,
            fake,
            clock,
            ..
        } = testing::engine().build().await;
        let alice = Person::new(&fake, "@alice:hs.test").await;
        let kim = Person::new(&fake, "@kim:hs.test").await;
        let samuel = Person::unsigned(&fake, "@samuel:hs.test", "PHONE").await;
        if samuel_has_signed {
            samuel.sign().await;
        }
        let dora = Person::unsigned(&fake, "@dora:hs.test", "PHONE").await;
        for (name, owner) in [("kim", &kim), ("sam", &samuel)] {
            claim(&engine, name, owner.user()).await;
        }
        fake.add_room(here(), &[alice.user(), dora.user()]);
        let bell = Arc::new(Notify::new());
        let actor = RoomActor::load(engine.clone(), here().to_owned(), bell).unwrap();
        let mut group = Self {
            actor,
            engine,
            fake,
            clock,
            alice,
            kim,
            samuel,
        };
        for ghost in [sams(), kims()] {
            group.fake.invite(here(), group.alice.user(), ghost);
            let events = EventFactory::room(here()).sender(group.alice.user().as_str());
            let invite = events.member(ghost.as_str(), "invite");
            group.dispatch(&invite).await;
        }
        group.goes_on().await;
        group
    }

    async fn dispatch(&mut self, event: &Value) {
        let arrived = InboxItem::Event(event.to_string());
        let number = self.engine.next();
        self.actor.room.dispatch(number, arrived).await.unwrap();
    }

    async fn goes_on(&mut self) {
        while self.actor.step().await.unwrap() {}
    }

    /// Alice's client encrypts for those who are in the room when she begins to write.
    async fn alice_says(&mut self, text: &str) {
        let content = json!({ "msgtype": "m.text", "body": text });
        let (ghosts, everybody) = ([kims(), sams()], CollectStrategy::AllDevices);
        let event = self.alice.sends(here(), &ghosts, &content, everybody).await;
        for ghost in ghosts {
            let machines = self.engine.machines();
            let device = machines.device_of(ghost).unwrap().unwrap();
            let keys = self.fake.take_incoming(ghost, &device);
            machines.receive_and_respond(ghost, keys).await.unwrap();
        }
        let event = serde_json::from_str(event.get()).unwrap();
        self.dispatch(&event).await;
    }

    /// Who sent what, as this person reads it.
    async fn read_by(&self, reader: &Person) -> Vec<(String, String)> {
        reader.query(&[kims(), sams()]).await;
        reader.receives().await;
        let mut texts = Vec::new();
        for event in self.fake.events(here().as_str()) {
            if event.kind != "m.room.encrypted" {
                continue;
            }
            let shown = json!({
                "type": event.kind, "room_id": event.room, "sender": event.sender,
                "event_id": event.id, "origin_server_ts": event.sent, "content": event.value(),
            });
            let shown = serde_json::value::to_raw_value(&shown).unwrap();
            let text = reader.reads(here(), &shown).await.unwrap();
            texts.push((event.sender.clone(), text));
        }
        texts
    }

    fn are_gone(&self) -> bool {
        let here_now = &self.actor.room.record.introductions;
        here_now.iter().all(|it| it.phase == Phase::Over)
            && [kims(), sams()].map(|ghost| self.fake.membership(here(), ghost)) == ["leave"; 2]
    }
}

async fn claim(engine: &Engine, name: &str, owner: &UserId) {
    let handle = Handle::parse(name, &HandleRules::default()).unwrap();
    let owner = testing::person(owner.as_str());
    let mut tx = engine.directory().begin().await;
    tx.claim(owner, &handle, ClaimedBy::Person, engine.now())
        .unwrap();
    tx.commit().await.unwrap();
    let ghost = handle.ghost_id(&engine.settings().server_name).unwrap();
    engine.machines().provision(&ghost, name).await.unwrap();
}

#[tokio::test]
async fn both_owners_read_the_first_line_in_a_group_once() {
    let mut group = Group::begin(true).await;
    group.alice_says("the boat leaves at noon").await;
    group.goes_on().await;
    for reader in [&group.kim, &group.samuel] {
        let read = group.read_by(reader).await;
        let [(sender, text)] = read.as_slice() else {
            panic!("{read:?}");
        };
        assert_eq!(sender, kims().as_str());
        assert!(text.contains("the boat leaves at noon"), "{text}");
    }
    group.clock.advance(Duration::from_secs(4));
    group.goes_on().await;
    assert!(group.are_gone());
}

#[tokio::test]
async fn lines_that_an_owner_could_not_read_are_asked_for_again_together_in_a_group() {
    let mut group = Group::begin(false).await;
    group.alice_says("the boat leaves at noon").await;
    group.alice_says("and bring a coat").await;
    while let Ok(true) = group.actor.step().await {}
    group.clock.advance(Duration::from_secs(31));
    group.goes_on().await;
    group.clock.advance(Duration::from_secs(11));
    group.goes_on().await;
    let asked = IntroductionNotice::NotPassedOnInGroup.plain("kim");
    let read = group.read_by(&group.alice).await;
    assert_eq!(read, [(kims().to_string(), asked)]);
    assert!(group.are_gone());
}
