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
        records::{ActiveRoomsByGhost, ControlRooms, Inbox, InboxItem, Rooms},
    },
    handle::{Handle, HandleRules},
    ids::Ghost,
    introduction::{Introduction, Phase},
    store::{Batch, Store, prefix},
    testing::{self, EventFactory, FakeHomeserver, NOW, Outage, TestClock, TestEngine},
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
        let (samuel, by) = (testing::person("@samuel:hs.test"), ClaimedBy::Person);
        let mut tx = self.engine.directory().begin().await;
        tx.claim(samuel, &handle(name), by, self.engine.now())
            .unwrap();
        tx.commit().await.unwrap();
        let ghost = ghost(name);
        let made = self.engine.machines().provision(&ghost, name);
        made.await.unwrap();
    }

    /// Nobody may reach the owner of a handle.
    async fn close(&self, name: &str) {
        let nobody = Policy {
            direct: Reach::Nobody,
            others: Others::Refuse,
        };
        let samuel = testing::person("@samuel:hs.test");
        let mut tx = self.engine.directory().begin().await;
        tx.set_policy(samuel, &handle(name), nobody).unwrap();
        tx.commit().await.unwrap();
    }

    fn actor(&self, room: &RoomId) -> RoomActor {
        let bell = Arc::new(Notify::new());
        RoomActor::load(self.engine.clone(), room.to_owned(), bell).unwrap()
    }

    /// Alice invites a ghost. Returns the event.
    fn invited(&self, room: &RoomId, ghost: &UserId, sent_at: Timestamp) -> Value {
        self.fake.invite(room, ALICE.try_into().unwrap(), ghost);
        let events = EventFactory::room(room).sender(ALICE).sent_at(sent_at);
        let mut invite = events.member(ghost.as_str(), "invite");
        invite["event_id"] = json!(format!("$invite-{}", self.engine.next()));
        invite["content"]["is_direct"] = json!(true);
        invite
    }

    /// Alice invites a ghost, and the homeserver pushes the event.
    async fn invite(&self, actor: &mut RoomActor, ghost: &UserId, sent_at: Timestamp) {
        let invite = self.invited(&actor.room.id, ghost, sent_at);
        dispatch(actor, &invite).await;
    }

    /// What waits in a room's inbox.
    fn waiting(&self, room: &RoomId) -> Vec<InboxItem> {
        let room = prefix(&room.to_owned());
        let waiting = self.store.scan::<Inbox>(&room, None, 1000).unwrap();
        waiting.into_iter().map(|(_, item)| item).collect()
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
    house.close("kim").await;
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

#[tokio::test]
async fn an_invite_that_cannot_be_declined_leaves_no_room_whose_keys_are_kept() {
    let house = House::new().await;
    house.claim("kim").await;
    house.close("kim").await;
    let mut actor = house.actor(&room());
    let machines = house.engine.machines();
    machines.expect_room(&ghost("kim"), &room()).await.unwrap();
    house.invite(&mut actor, &ghost("kim"), NOW).await;
    // The server of the room does not answer.
    house.fake.refuse("/leave", 502);
    house.clock.advance(Duration::from_secs(2));
    for wait in [0, 5, 6] {
        house.clock.advance(Duration::from_secs(wait * 60));
        while let Ok(true) = actor.step().await {}
    }
    assert!(house.requests_to("/leave") > 1, "it is tried");
    assert!(!machines.expects_room(&ghost("kim"), &room()).unwrap());
    assert!(!house.store.contains::<Rooms>(&room()).unwrap());
}

#[tokio::test]
async fn an_introduction_goes_on_after_an_outage_at_any_of_its_steps() {
    let samuel = UserId::parse("@samuel:hs.test").unwrap();
    let alice = UserId::parse(ALICE).unwrap();
    let second = Duration::from_secs(1);
    for (n, outage) in (0..8).zip(
        [Outage::Failing(500), Outage::Proxy(502)]
            .into_iter()
            .cycle(),
    ) {
        let house = House::new().await;
        house.claim("kim").await;
        house.fake.add_room(&room(), &[&alice]);
        let mut actor = house.actor(&room());
        let invite = house.invited(&room(), &ghost("kim"), NOW);
        let arrived = InboxItem::Event(invite.to_string());
        let mut batch = Batch::new();
        batch
            .put::<Inbox>(&(room(), house.engine.next()), &arrived)
            .unwrap();
        house.store.apply(batch).unwrap();
        house.engine.mark_durable(house.engine.next());
        for _ in 0..n {
            actor.step().await.unwrap();
            house.clock.advance(second);
        }
        house.fake.begin_outage(outage);
        for minutes in [0, 11, 54, 60] {
            house.clock.advance(minutes * 60 * second);
            while let Ok(true) = actor.step().await {}
        }
        house.fake.end_outage();
        for _ in 0..30 {
            house.clock.advance(second);
            while let Ok(true) = actor.step().await {}
        }
        assert_eq!(house.fake.membership(&room(), &samuel), "invite", "{n}");
        assert_eq!(house.fake.membership(&room(), &ghost("kim")), "leave");
    }
}

#[tokio::test]
async fn an_invite_that_cannot_be_handled_is_declined() {
    let house = House::new().await;
    house.claim("kim").await;
    for by_sync in [false, true] {
        let room = OwnedRoomId::try_from(format!("!{by_sync}:hs.test")).unwrap();
        let mut actor = house.actor(&room);
        let invite = house.invited(&room, &ghost("kim"), NOW).to_string();
        let arrived = if by_sync {
            InboxItem::Invite {
                user: ghost("kim").into(),
                state: vec![invite],
            }
        } else {
            InboxItem::Event(invite)
        };
        actor.room.give_up(1, arrived).await.unwrap();
        assert!(matches!(phase(&actor), Some(Phase::Declining { .. })));
        house.clock.advance(Duration::from_secs(2));
        steps(&mut actor).await;
        assert_eq!(house.fake.membership(&room, &ghost("kim")), "leave");
    }
}

fn phase(actor: &RoomActor) -> Option<&Phase> {
    let introductions = &actor.room.record.introductions;
    introductions.last().map(|introduction| &introduction.phase)
}

#[tokio::test]
async fn a_flood_of_invites_makes_few_users_and_holds_up_no_deadline() {
    let house = House::new().await;
    house.claim("kim").await;
    house.close("kim").await;
    let mut actor = house.actor(&room());
    house.invite(&mut actor, &ghost("kim"), NOW).await;
    let made = house.requests_to("/register");
    let mut batch = Batch::new();
    for n in 0..300 {
        let invite = house.invited(&room(), &ghost(&format!("made_up_{n}")), NOW);
        let key = (room(), house.engine.next());
        let arrived = InboxItem::Event(invite.to_string());
        batch.put::<Inbox>(&key, &arrived).unwrap();
    }
    house.store.apply(batch).unwrap();
    house.engine.mark_durable(house.engine.next());
    house.clock.advance(Duration::from_secs(2));
    while house.fake.membership(&room(), &ghost("kim")) != "leave" {
        assert!(actor.step().await.unwrap());
    }
    assert!(house.waiting(&room()).len() > 200, "the flood goes on");
    for _ in 0..3 {
        while actor.step().await.unwrap() {
            assert!(actor.room.record.introductions.len() <= 50);
        }
        house.clock.advance(Duration::from_secs(2));
    }
    assert!(house.waiting(&room()).is_empty());
    let most = house.engine.directory().settings();
    let made = house.requests_to("/register") - made;
    assert!(made <= most.new_conversations_per_sender as usize, "{made}");
    assert!(actor.room.record.introductions.is_empty());
}

#[tokio::test]
async fn handles_whose_introductions_are_over_do_not_count_against_a_room() {
    let house = House::new().await;
    house.claim("kim").await;
    let mut actor = house.actor(&room());
    let over = (0..10).map(|n| Introduction::ended(&room(), &ghost(&format!("old{n}"))));
    actor.room.record.introductions.extend(over);
    actor.room.commit(Batch::new(), []).unwrap();
    house.invite(&mut actor, &ghost("kim"), NOW).await;
    assert_eq!(phase(&actor), Some(&Phase::Joining));
}

#[tokio::test]
async fn an_invite_from_before_the_owner_is_not_meant_for_them() {
    let house = House::new().await;
    house.claim("kim").await;
    let minute = Duration::from_secs(60);
    for (n, (sent_at, introduced)) in [
        (NOW - 60 * minute, false),
        (NOW - minute, true),
        (NOW + minute, true),
    ]
    .into_iter()
    .enumerate()
    {
        let ghost = ghost("kim");
        // As the homeserver pushes it, and as a sync shows it.
        let pushed = OwnedRoomId::try_from(format!("!pushed{n}:hs.test")).unwrap();
        let mut actor = house.actor(&pushed);
        house.invite(&mut actor, &ghost, sent_at).await;
        let synced = OwnedRoomId::try_from(format!("!synced{n}:hs.test")).unwrap();
        let mut other = house.actor(&synced);
        let arrived = InboxItem::Invite {
            user: ghost.clone().into(),
            state: vec![house.invited(&synced, &ghost, sent_at).to_string()],
        };
        let number = house.engine.next();
        other.room.dispatch(number, arrived).await.unwrap();
        for actor in [&actor, &other] {
            let joins = phase(actor) == Some(&Phase::Joining);
            let declines = matches!(phase(actor), Some(Phase::Declining { .. }));
            assert_eq!((joins, declines), (introduced, !introduced), "{n}");
        }
    }
}

#[tokio::test]
async fn a_ghost_declines_without_joining_what_the_invite_shows_to_be_no_chat() {
    let house = House::new().await;
    house.claim("kim").await;
    let space = json!({ "type": "m.room.create", "state_key": "", "sender": ALICE,
        "content": { "room_version": "12", "type": "m.space" } });
    let foreign = json!({ "type": "m.room.encryption", "state_key": "", "sender": ALICE,
        "content": { "algorithm": "org.example.rot13" } });
    for (n, state) in [space, foreign].into_iter().enumerate() {
        let room = OwnedRoomId::try_from(format!("!unfit{n}:hs.test")).unwrap();
        let mut actor = house.actor(&room);
        let mut invite = house.invited(&room, &ghost("kim"), NOW);
        invite["unsigned"]["invite_room_state"] = json!([state]);
        dispatch(&mut actor, &invite).await;
        assert!(matches!(phase(&actor), Some(Phase::Declining { .. })));
        house.clock.advance(Duration::from_secs(2));
        steps(&mut actor).await;
        assert_eq!(house.fake.membership(&room, &ghost("kim")), "leave");
        assert!(actor.room.record.introductions.is_empty());
    }
    assert_eq!(house.requests_to("/join"), 0);
}

#[tokio::test]
async fn a_leaving_that_the_homeserver_refuses_is_given_up_and_the_keys_are_destroyed() {
    let house = House::new().await;
    house.claim("kim").await;
    let mut actor = house.actor(&room());
    house
        .fake
        .put_into_rooms(&ghost("kim"), &[room().as_str()], &[]);
    let machines = house.engine.machines();
    machines.expect_room(&ghost("kim"), &room()).await.unwrap();
    let owner = testing::person("@samuel:hs.test").clone();
    let mut leaving = testing::introduction(&room(), &ghost("kim"), owner, "kim");
    leaving.phase = Phase::Leaving;
    actor.room.record.introductions.push(leaving);
    actor.resume_outbox().unwrap();

    house.fake.refuse("/leave", 400);
    assert!(actor.step().await.is_err());
    house.clock.advance(Duration::from_secs(59 * 60));
    assert!(actor.step().await.is_err());
    house.clock.advance(Duration::from_secs(2 * 60));
    steps(&mut actor).await;
    assert_eq!(phase(&actor), Some(&Phase::Over));
    assert!(!machines.expects_room(&ghost("kim"), &room()).unwrap());
}

#[tokio::test]
async fn a_room_that_was_purged_counts_as_left() {
    let house = House::new().await;
    house.claim("kim").await;
    house.fake.refuse("/leave", 404);
    let (ghost, room) = (ghost("kim"), room());
    let left = house.engine.leave(&ghost, &room, None, None);
    left.await.unwrap();
}

#[tokio::test]
async fn a_person_who_types_a_ghosts_name_with_capitals_is_told_once_a_day() {
    let mut words = Vec::new();
    for is_claimed in [false, true] {
        let house = House::new().await;
        let bot = testing::bot();
        house
            .engine
            .machines()
            .provision(&bot, "Bot")
            .await
            .unwrap();
        if is_claimed {
            house.claim("kim").await;
        }
        let made = house.requests_to("/register");
        let alice = testing::person(ALICE);
        let mut told = Vec::new();
        for (n, day) in [0, 0, 2].into_iter().enumerate() {
            house.clock.advance(Duration::from_secs(24 * 60 * 60) * day);
            let room = OwnedRoomId::try_from(format!("!typed{n}:hs.test")).unwrap();
            let mut actor = house.actor(&room);
            house.invite(&mut actor, &ghost("Kim"), NOW).await;
            assert!(!house.store.contains::<Rooms>(&room).unwrap());
            let control = house.store.get::<ControlRooms>(alice).unwrap().unwrap();
            let waiting = house.waiting(&control);
            told = waiting
                .into_iter()
                .filter_map(|item| match item {
                    InboxItem::Notify { plain, .. } => Some(plain),
                    _ => None,
                })
                .collect();
            assert_eq!(told.len(), [1, 1, 2][n]);
        }
        assert_eq!(house.requests_to("/register"), made);
        words.extend(told.into_iter().next());
    }
    assert!(words[0].contains("@_dm_kim:hs.test"), "{}", words[0]);
    assert_eq!(words[0], words[1]);
}
