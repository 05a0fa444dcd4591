//! Control rooms: which of them the bot goes into, how one is made for somebody, which one stays.

mod admin_acts;
mod commands;
mod ghosts;
mod notices;
mod requests;

use std::sync::Arc;

use ruma::{OwnedRoomId, owned_room_id, owned_user_id, user_id};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    bot::NoticeText,
    engine::{
        Engine,
        actors::actor::RoomActor,
        control_room::{Control, ControlEffect, ControlPhase},
        records::{ControlRooms, InboxItem, Outbox, PendingNotices, QueuedEffect},
    },
    ids,
    store::{Batch, Store, prefix},
    testing::{self, EventFactory, FakeHomeserver, NOW, Person, TestClock, TestEngine, bot},
};

fn samuel() -> ids::Person {
    ids::Person::new(owned_user_id!("@samuel:hs.test"))
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
        engine.machines().provision(&bot(), "Bot").await.unwrap();
        Self {
            engine,
            store,
            fake,
            clock,
        }
    }

    fn actor(&self, room: &OwnedRoomId) -> RoomActor {
        RoomActor::load(self.engine.clone(), room.clone(), Arc::new(Notify::new())).unwrap()
    }

    /// A room in which the bot answers Samuel.
    fn control_room(&self, room: &OwnedRoomId) -> RoomActor {
        self.fake.add_room(room, &[&samuel(), &bot()]);
        let mut actor = self.actor(room);
        let mut control = Control::made(samuel(), NOW);
        control.phase = ControlPhase::Ready;
        actor.room.record.control = Some(control);
        let mut batch = Batch::new();
        batch.put::<ControlRooms>(&samuel(), room).unwrap();
        actor.room.commit(batch, []).unwrap();
        actor
    }

    fn due(&self, room: &OwnedRoomId) -> Vec<ControlEffect> {
        let all = self
            .store
            .scan::<Outbox>(&prefix(room), None, 1000)
            .unwrap();
        all.into_iter()
            .filter_map(|(_, due)| match due.what {
                QueuedEffect::Control(effect) => Some(effect),
                _ => None,
            })
            .collect()
    }

    /// What the bot is about to do when this person invites it into a room that shows `state`.
    async fn invited(&self, room: &str, by: &str, state: &[Value]) -> Vec<ControlEffect> {
        let room: OwnedRoomId = room.try_into().unwrap();
        self.fake.invite(&room, by.try_into().unwrap(), &bot());
        let events = EventFactory::room(&room).sender(by);
        let mut invite = events.member(bot().as_str(), "invite");
        invite["unsigned"] = json!({"invite_room_state": state});
        let arrived = InboxItem::Event(invite.to_string());
        let mut actor = self.actor(&room);
        actor
            .room
            .dispatch(self.engine.next(), arrived)
            .await
            .unwrap();
        self.due(&room)
    }

    fn requests_to(&self, part: &str) -> usize {
        let log = self.fake.log();
        log.iter().filter(|line| line.contains(part)).count()
    }
}

async fn steps(actor: &mut RoomActor) {
    while actor.step().await.unwrap() {}
}

fn kinds(effects: &[ControlEffect]) -> Vec<&'static str> {
    effects.iter().map(ControlEffect::kind).collect()
}

#[tokio::test]
async fn the_bot_declines_what_cannot_be_a_control_room_and_does_not_look_inside() {
    let house = House::new().await;
    let rule = json!({"type": "m.room.join_rules", "state_key": "", "sender": "@eve:evil.org",
        "content": {"join_rule": "public"}});
    let due = house
        .invited("!public:evil.org", "@eve:evil.org", &[rule])
        .await;
    assert_eq!(kinds(&due), ["bot-decline"]);
    let room = owned_room_id!("!public:evil.org");
    steps(&mut house.actor(&room)).await;
    assert_eq!(house.requests_to("/join"), 0);
    assert_eq!(house.requests_to("/leave"), 1);
    let due = house.invited("!chat:evil.org", "@eve:evil.org", &[]).await;
    assert_eq!(kinds(&due), ["bot-join", "bot-look"]);
}

#[tokio::test]
async fn one_stranger_makes_the_bot_enter_few_rooms_and_decline_few() {
    let house = House::new().await;
    let (mut joins, mut declined, mut nothing) = (0, 0, 0);
    for n in 0..50 {
        let room = format!("!r{n}:evil.org");
        match kinds(&house.invited(&room, "@eve:evil.org", &[]).await)[..] {
            ["bot-join", "bot-look"] => joins += 1,
            ["bot-decline"] => declined += 1,
            [] => nothing += 1,
            ref other => panic!("{other:?}"),
        }
    }
    assert_eq!((joins, declined, nothing), (10, 10, 30));
    // Nobody else is held back.
    let due = house.invited("!bob:far.org", "@bob:far.org", &[]).await;
    assert_eq!(kinds(&due), ["bot-join", "bot-look"]);
}

#[tokio::test]
async fn the_bot_waits_for_a_place_like_a_ghost() {
    let house = House::new().await;
    house.invited("!a:evil.org", "@eve:evil.org", &[]).await;
    house.invited("!b:hs.test", "@samuel:hs.test", &[]).await;
    let _taken = house.engine.place_for(user_id!("@eve:evil.org")).await;
    let mut waiting = house.actor(&owned_room_id!("!a:evil.org"));
    let mut other = house.actor(&owned_room_id!("!b:hs.test"));
    house.fake.add_room(&other.room.id, &[&samuel()]);
    tokio::select! {
        biased;
        _ = waiting.step() => panic!("it went in without a place"),
        done = other.step() => assert!(done.unwrap()),
    }
    assert_eq!(house.requests_to("!a"), 0);
    assert_eq!(house.fake.membership(&other.room.id, &bot()), "join");
}

#[tokio::test]
async fn the_bot_stays_only_with_the_person_who_invited_it() {
    let house = House::new().await;
    let room = owned_room_id!("!old:evil.org");
    house.invited(room.as_str(), "@eve:evil.org", &[]).await;
    let mut actor = house.actor(&room);
    // Eve has gone, and Samuel is in a room that he once joined for another reason.
    house.fake.add_room(&room, &[&samuel()]);
    steps(&mut actor).await;
    assert!(actor.room.record.control.is_none());
    assert_eq!(house.fake.membership(&room, &bot()), "leave");
    assert_eq!(house.store.get::<ControlRooms>(&samuel()).unwrap(), None);
}

#[tokio::test]
async fn of_two_control_rooms_of_somebody_the_older_one_is_left_with_a_word() {
    let house = House::new().await;
    let person = Person::new(&house.fake, samuel().as_str()).await;
    person.sign().await;
    let (old, new) = (
        owned_room_id!("!old:hs.test"),
        owned_room_id!("!new:hs.test"),
    );
    let mut former = house.control_room(&old);
    house.invited(new.as_str(), samuel().as_str(), &[]).await;
    house.fake.add_room(&new, &[&samuel()]);
    steps(&mut house.actor(&new)).await;
    assert_eq!(
        house.store.get::<ControlRooms>(&samuel()).unwrap().as_ref(),
        Some(&new)
    );
    steps(&mut former).await;
    assert_eq!(house.fake.sent(&old), 1, "it says where it goes on");
    assert_eq!(house.fake.membership(&old, &bot()), "leave");
    assert_eq!(house.fake.membership(&new, &bot()), "join");
    assert!(former.room.record.control.is_none());
    assert_eq!(
        house.store.get::<ControlRooms>(&samuel()).unwrap().as_ref(),
        Some(&new)
    );
}

#[tokio::test]
async fn a_room_that_the_person_never_came_to_is_left_and_its_invite_taken_back() {
    let house = House::new().await;
    let made = house.engine.control_room_of(&samuel()).await.unwrap();
    let mut waiting = house.actor(&made);
    steps(&mut waiting).await;
    assert_eq!(house.fake.membership(&made, &samuel()), "invite");
    let new = owned_room_id!("!new:hs.test");
    house.invited(new.as_str(), samuel().as_str(), &[]).await;
    house.fake.add_room(&new, &[&samuel()]);
    let person = Person::new(&house.fake, samuel().as_str()).await;
    person.sign().await;
    steps(&mut house.actor(&new)).await;
    steps(&mut waiting).await;
    for user in [bot(), samuel().into()] {
        assert_eq!(house.fake.membership(&made, &user), "leave");
    }
}

#[tokio::test]
async fn a_room_to_which_the_person_does_not_come_is_given_up_after_thirty_days() {
    let house = House::new().await;
    let news = NoticeText::new("news");
    let person = samuel();
    let told = house.engine.notify(&person, news, "1".to_owned());
    told.await.unwrap();
    let room = house.store.get::<ControlRooms>(&samuel()).unwrap().unwrap();
    let mut actor = house.actor(&room);
    steps(&mut actor).await;
    assert_eq!(house.fake.membership(&room, &samuel()), "invite");
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    house.clock.advance(29 * day);
    house.engine.sweep_control_rooms().await.unwrap();
    steps(&mut actor).await;
    assert_eq!(house.fake.membership(&room, &samuel()), "invite");
    house.clock.advance(day);
    house.engine.sweep_control_rooms().await.unwrap();
    steps(&mut actor).await;
    for user in [bot(), samuel().into()] {
        assert_eq!(house.fake.membership(&room, &user), "leave");
    }
    assert!(!house.store.contains::<ControlRooms>(&samuel()).unwrap());
    let pending = house
        .store
        .scan::<PendingNotices>(&prefix(&samuel()), None, 10);
    assert!(pending.unwrap().is_empty());
    assert!(actor.room.record.control.is_none());
}

#[tokio::test]
async fn what_was_to_be_told_to_a_person_who_declines_is_deleted() {
    let house = House::new().await;
    let (person, news) = (samuel(), NoticeText::new("news"));
    let told = house.engine.notify(&person, news, "1".to_owned());
    told.await.unwrap();
    let room = house.store.get::<ControlRooms>(&samuel()).unwrap().unwrap();
    let mut actor = house.actor(&room);
    steps(&mut actor).await;
    let notices = || {
        let all = house
            .store
            .scan::<PendingNotices>(&prefix(&samuel()), None, 10);
        all.unwrap().len()
    };
    assert_eq!(notices(), 1);
    house.fake.put_into_rooms(&samuel(), &[], &[]);
    let events = EventFactory::room(&room).sender(samuel().as_str());
    let arrived = InboxItem::Event(events.member(samuel().as_str(), "leave").to_string());
    let dispatched = actor.room.dispatch(house.engine.next(), arrived);
    dispatched.await.unwrap();
    steps(&mut actor).await;
    assert_eq!(house.fake.membership(&room, &bot()), "leave");
    assert_eq!(notices(), 0);
}
