//! Invites of ghosts: what each of them costs, and what is left of those that come to nothing.

use std::{sync::Arc, time::Duration};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, owned_room_id};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    clock::Timestamp,
    directory::{ClaimedBy, Others, Policy, Reach},
    engine::{
        Engine,
        actors::actor::RoomActor,
        records::{ActiveRoomsByGhost, InboxItem, Rooms},
    },
    handle::{Handle, HandleRules},
    ids::Ghost,
    store::Store,
    testing::{self, EventFactory, FakeHomeserver, NOW, TestClock, TestEngine},
};

const ALICE: &str = "@alice:hs.test";

fn ghost(name: &str) -> Ghost {
    Ghost::new(OwnedUserId::try_from(format!("@_dm_{name}:hs.test")).unwrap())
}

fn handle(name: &str) -> Handle {
    Handle::parse(name, &HandleRules::default()).unwrap()
}

fn room() -> OwnedRoomId {
    owned_room_id!("!room:hs.test")
}

struct House {
    engine: Engine,
    store: Store,
    fake: FakeHomeserver,
    clock: Arc<TestClock>,
}

impl House {
    async fn new() -> Self {
        let TestEngine {
            engine,
            store,
            fake,
            clock,
        } = testing::engine().build().await;
        Self {
            engine,
            store,
            fake,
            clock,
        }
    }

    /// Samuel claims a handle, and its ghost is made.
    async fn claim(&self, name: &str) {
        let mut tx = self.engine.directory().begin().await;
        let (samuel, by) = (testing::person("@samuel:hs.test"), ClaimedBy::Person);
        tx.claim(samuel, &handle(name), by, self.engine.now())
            .unwrap();
        tx.commit().await.unwrap();
        let ghost = ghost(name);
        let made = self.engine.machines().provision(&ghost, name);
        made.await.unwrap();
    }

    fn actor(&self, room: &RoomId) -> RoomActor {
        let bell = Arc::new(Notify::new());
        RoomActor::load(self.engine.clone(), room.to_owned(), bell).unwrap()
    }

    /// Alice invites a ghost, and the homeserver pushes the event.
    async fn invite(&self, actor: &mut RoomActor, ghost: &UserId, sent_at: Timestamp) {
        let room = &actor.room.id;
        self.fake.invite(room, ALICE.try_into().unwrap(), ghost);
        let events = EventFactory::room(room).sender(ALICE).sent_at(sent_at);
        let mut invite = events.member(ghost.as_str(), "invite");
        invite["event_id"] = json!(format!("$invite-{}", self.engine.next()));
        invite["content"]["is_direct"] = json!(true);
        dispatch(actor, &invite).await;
    }

    fn requests_to(&self, part: &str) -> usize {
        let log = self.fake.log();
        log.iter().filter(|line| line.contains(part)).count()
    }
}

async fn dispatch(actor: &mut RoomActor, event: &Value) {
    let number = actor.room.engine.next();
    let arrived = InboxItem::Event(event.to_string());
    actor.room.dispatch(number, arrived).await.unwrap();
}

async fn steps(actor: &mut RoomActor) {
    while actor.step().await.unwrap() {}
}

#[tokio::test]
async fn an_invite_that_is_taken_back_before_it_is_declined_leaves_nothing() {
    let house = House::new().await;
    house.claim("kim").await;
    let mut tx = house.engine.directory().begin().await;
    let samuel = testing::person("@samuel:hs.test");
    let nobody = Policy {
        direct: Reach::Nobody,
        others: Others::Refuse,
    };
    tx.set_policy(samuel, &handle("kim"), nobody).unwrap();
    tx.commit().await.unwrap();

    let mut actor = house.actor(&room());
    let machines = house.engine.machines();
    machines.expect_room(&ghost("kim"), &room()).await.unwrap();
    house.invite(&mut actor, &ghost("kim"), NOW).await;
    let row = (ghost("kim").into(), room());
    assert!(house.store.contains::<ActiveRoomsByGhost>(&row).unwrap());
    assert!(machines.expects_room(&ghost("kim"), &room()).unwrap());

    let events = EventFactory::room(&room()).sender(ALICE);
    let taken_back = events.member(ghost("kim").as_str(), "leave");
    dispatch(&mut actor, &taken_back).await;
    house.clock.advance(Duration::from_secs(2));
    steps(&mut actor).await;
    assert!(!house.store.contains::<ActiveRoomsByGhost>(&row).unwrap());
    assert!(!machines.expects_room(&ghost("kim"), &room()).unwrap());
    assert!(!house.store.contains::<Rooms>(&room()).unwrap());
    assert_eq!(house.requests_to("/leave"), 0);
}
