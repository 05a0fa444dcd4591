//! Control rooms: which of them the bot goes into, how one is made for somebody, which one stays.

mod notices;

use std::sync::Arc;

use ruma::{OwnedRoomId, OwnedUserId, owned_room_id, owned_user_id, room_id, user_id};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    bot::{self, NoticeText},
    directory::{ClaimedBy, Mode, Request},
    engine::{
        Engine, EngineError,
        actors::actor::RoomActor,
        control_room::{Control, ControlEffect, ControlPhase},
        records::{
            ControlRooms, Inbox, InboxItem, Outbox, OwedGhosts, PendingNotices, QueuedEffect, Seen,
        },
    },
    handle::{Handle, HandleRules},
    ids,
    matrix::MatrixError,
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
async fn nobody_waits_for_a_person_who_is_told_something() {
    let house = House::new().await;
    house.fake.silence("@kim:evil.org");
    let notice = |to: &str| NoticeText {
        plain: to.to_owned(),
        html: to.to_owned(),
    };
    let kim = testing::person("@kim:evil.org");
    let told = house.engine.notify(kim, notice("kim"), "1".to_owned());
    told.await.unwrap();
    let room = house.store.get::<ControlRooms>(kim).unwrap().unwrap();
    // The room's own actor waits, and nobody else.
    let mut actor = house.actor(&room);
    let others = async {
        house.fake.until(|fake| fake.unanswered().len() == 1).await;
        let sam = samuel();
        let told = house.engine.notify(&sam, notice("samuel"), "2".to_owned());
        told.await.unwrap();
        let again = house.engine.notify(kim, notice("again"), "3".to_owned());
        again.await.unwrap();
    };
    let acting = async {
        while actor.step().await.unwrap() {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = acting => {}
        () = others => {}
    }
    assert!(house.store.contains::<ControlRooms>(&samuel()).unwrap());
    let waiting = house.store.scan::<Inbox>(&prefix(&room), None, 10).unwrap();
    assert!(
        waiting
            .iter()
            .any(|(_, it)| matches!(it, InboxItem::Notify { plain, .. } if plain == "again"))
    );
}

#[tokio::test]
async fn a_request_of_a_masked_asker_does_not_show_the_name_in_their_profile() {
    let house = House::new().await;
    let body = "Kim Harbour: hello";
    let content = json!({"msgtype": "m.text", "body": body,
        "com.beeper.per_message_profile": {"id": "x", "displayname": "Kim Harbour"}});
    let room = room_id!("!asked:hs.test");
    let shown = house
        .engine
        .without_asker(body, &content, room, user_id!("@kim:far.example"));
    assert_eq!(shown.as_deref(), Some("hello"));
}

#[tokio::test]
async fn askers_do_not_wait_for_an_owner_who_cannot_be_invited() {
    let house = House::new().await;
    let (kim, by) = (testing::person("@kim:far.org"), ClaimedBy::Person);
    let handle = Handle::parse("kim", &HandleRules::default()).unwrap();
    let mut tx = house.engine.directory().begin().await;
    let record = tx.claim(kim, &handle, by, house.engine.now()).unwrap();
    let asked_in = room_id!("!asked:hs.test").to_owned();
    let request = Request {
        handle: record.handle,
        generation: record.generation,
        asker: testing::person("@alice:hs.test").clone(),
        room: asked_in.clone(),
        ghost: ids::Ghost::new(owned_user_id!("@_dm_kim:hs.test")),
        since: house.engine.now(),
        mode: Mode::Open,
        shown: None,
        line_shown: None,
        asker_alias: None,
    };
    tx.open_request(kim, &request).unwrap().unwrap();
    tx.commit().await.unwrap();
    house.fake.forbid("m.room.member/%40kim");
    house.fake.forbid("m.room.member/@kim");
    let room = house.engine.control_room_of(kim).await.unwrap();
    let mut actor = house.actor(&room);
    steps(&mut actor).await;
    assert!(actor.room.record.control.is_none());
    assert_eq!(house.fake.membership(&room, &bot()), "leave");
    let answers = house
        .store
        .scan::<Inbox>(&prefix(&asked_in), None, 10)
        .unwrap();
    assert!(matches!(
        answers[..],
        [(
            _,
            InboxItem::Answered {
                accepted: false,
                ..
            }
        )]
    ));
}

#[tokio::test]
async fn clear_messages_are_answered_once_a_minute() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    let events = EventFactory::room(&room).sender(samuel().as_str());
    for (minute, answers) in [(0, 1), (1, 2)] {
        for n in 0..200 {
            let content = json!({"msgtype": "m.text", "body": "hi"});
            let clear = events.event("m.room.message", &format!("${minute}.{n}"), content);
            let arrived = InboxItem::Event(clear.to_string());
            actor
                .room
                .dispatch(house.engine.next(), arrived)
                .await
                .unwrap();
        }
        assert_eq!(house.due(&room).len(), answers);
        house.clock.advance(std::time::Duration::from_secs(60));
    }
}

#[tokio::test]
async fn a_command_that_is_given_up_is_not_swallowed() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    let given_up = |sender: &str, id: &str| {
        let event = EventFactory::room(&room).sender(sender).encrypted(id);
        InboxItem::Event(event.to_string())
    };
    let of_others = given_up("@eve:evil.org", "$of-others");
    actor.room.give_up(1, of_others).await.unwrap();
    assert!(house.due(&room).is_empty());
    for id in ["$one", "$two"] {
        actor
            .room
            .give_up(2, given_up(samuel().as_str(), id))
            .await
            .unwrap();
    }
    let due = house.due(&room);
    assert_eq!(kinds(&due), ["bot-send-notice"], "once a minute");
    assert!(
        matches!(&due[0], ControlEffect::SendNotice { source, .. } if source.as_str() == "$one")
    );

    // Before the bot has looked, nothing counts as handled: it reads back.
    let other = owned_room_id!("!other:hs.test");
    let mut actor = house.actor(&other);
    actor.room.record.control = Some(Control::made(samuel(), NOW));
    actor.room.commit(Batch::new(), []).unwrap();
    actor
        .room
        .give_up(3, given_up(samuel().as_str(), "$early"))
        .await
        .unwrap();
    assert!(house.due(&other).is_empty());
    let seen = house.store.get::<Seen>(&"$early".try_into().unwrap());
    assert!(seen.unwrap().is_none());
}

#[tokio::test]
async fn a_notice_is_not_lost_with_the_room_that_it_was_meant_for() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    // The bot is about to leave when the notice arrives.
    let control = actor.room.record.control.as_mut().unwrap();
    let leave = control.leave(None).into_iter().map(QueuedEffect::Control);
    actor.room.commit(Batch::new(), leave).unwrap();
    let news = NoticeText::new("news");
    let person = samuel();
    let told = house.engine.notify(&person, news, "1".to_owned());
    told.await.unwrap();
    steps(&mut actor).await;
    assert!(actor.room.record.control.is_none());
    let new = house.store.get::<ControlRooms>(&samuel()).unwrap().unwrap();
    assert_ne!(new, room);
    let waiting = house.store.scan::<Inbox>(&prefix(&new), None, 10).unwrap();
    assert!(
        waiting
            .iter()
            .any(|(_, it)| matches!(it, InboxItem::Notify { plain, .. } if plain == "news"))
    );
    // The person has not come yet, so it is kept for them.
    let mut actor = house.actor(&new);
    steps(&mut actor).await;
    let pending = house
        .store
        .scan::<PendingNotices>(&prefix(&samuel()), None, 10);
    assert_eq!(pending.unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_written_long_ago_is_not_answered_again() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    let clear = |id: &str, days: u32| {
        let at = house.engine.now() - std::time::Duration::from_secs(24 * 60 * 60) * days;
        let events = EventFactory::room(&room).sender(samuel().as_str());
        let content = json!({"msgtype": "m.text", "body": "hi"});
        events.sent_at(at).event("m.room.message", id, content)
    };
    let look = QueuedEffect::Control(ControlEffect::Look);
    let old = vec![clear("$old", 8)];
    house.fake.put_history(room.as_str(), old);
    actor.room.backfill_for(&look).await.unwrap();
    assert!(house.due(&room).is_empty());
    let both = vec![clear("$new", 1), clear("$old", 8)];
    house.fake.put_history(room.as_str(), both);
    actor.room.backfill_for(&look).await.unwrap();
    let due = house.due(&room);
    assert!(
        matches!(&due[..], [ControlEffect::SendNotice { source, .. }] if source.as_str() == "$new")
    );
}

#[tokio::test]
async fn a_ghost_that_could_not_be_made_is_made_later_and_its_owner_told() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    let handle = Handle::parse("kim", &HandleRules::default()).unwrap();
    let mut tx = house.engine.directory().begin().await;
    let (by, now) = (ClaimedBy::Person, house.engine.now());
    tx.claim(&samuel(), &handle, by, now).unwrap();
    tx.commit().await.unwrap();
    let ghost = ids::Ghost::new(owned_user_id!("@_dm_kim:hs.test"));
    let make = ControlEffect::Bot(bot::Effect::MakeGhost {
        ghost: ghost.clone(),
        name: "@kim".to_owned(),
        strict: false,
    });
    let refused = || {
        EngineError::Matrix(MatrixError::Refused {
            status: http::StatusCode::FORBIDDEN,
            errcode: Some("M_FORBIDDEN".to_owned()),
            message: String::new(),
        })
    };
    actor.room.give_up_control(1, &make, &refused()).unwrap();
    let words = |effects: &[ControlEffect]| match effects {
        [ControlEffect::SendNotice { notice, .. }] => notice.plain.clone(),
        other => panic!("{other:?}"),
    };
    let said = words(&house.due(&room));
    assert!(
        said.contains("I'll keep trying") && !said.contains("frozen"),
        "{said}"
    );
    assert!(house.store.contains::<OwedGhosts>(&ghost).unwrap());
    assert_eq!(
        crate::engine::owed_ghosts(&house.store, 9).unwrap(),
        [OwnedUserId::from(ghost.clone())]
    );
    assert!(
        crate::engine::owed_ghosts(&house.store, 0)
            .unwrap()
            .is_empty()
    );

    let machines = house.engine.machines();
    assert!(machines.device_of(&ghost).unwrap().is_none());
    house.engine.carry_out_owed().await.unwrap();
    assert!(machines.device_of(&ghost).unwrap().is_some());
    assert!(!house.store.contains::<OwedGhosts>(&ghost).unwrap());
    let told = house.store.scan::<Inbox>(&prefix(&room), None, 10).unwrap();
    assert!(
        matches!(&told[..], [(_, InboxItem::Notify { plain, .. })] if plain.contains("set up now"))
    );
}

#[tokio::test]
async fn what_was_owed_to_a_former_owner_does_not_touch_the_ghost_of_the_next() {
    let house = House::new().await;
    let handle = Handle::parse("kim", &HandleRules::default()).unwrap();
    let ghost = ids::Ghost::new(owned_user_id!("@_dm_kim:hs.test"));
    let make = bot::Effect::MakeGhost {
        ghost: ghost.clone(),
        name: "@kim".to_owned(),
        strict: false,
    };
    // Nobody holds the handle when it is given up.
    let mut batch = Batch::new();
    house.engine.stage_owed_ghost(&make, &mut batch).unwrap();
    house.store.apply(batch).unwrap();
    let mut tx = house.engine.directory().begin().await;
    let (by, now) = (ClaimedBy::Person, house.engine.now());
    tx.claim(&samuel(), &handle, by, now).unwrap();
    tx.commit().await.unwrap();
    let requests = house.fake.log().len();
    house.engine.carry_out_owed().await.unwrap();
    assert_eq!(house.fake.log().len(), requests);
    assert!(!house.store.contains::<OwedGhosts>(&ghost).unwrap());
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
    house.engine.expire_control_rooms().await.unwrap();
    steps(&mut actor).await;
    assert_eq!(house.fake.membership(&room, &samuel()), "invite");
    house.clock.advance(day);
    house.engine.expire_control_rooms().await.unwrap();
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
async fn a_request_to_verify_the_bot_is_declined_each_time_and_explained_once() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    let events = EventFactory::room(&room).sender(samuel().as_str());
    for n in 1..=2 {
        let content = json!({"msgtype": "m.key.verification.request", "to": bot()});
        let request = events.event("m.room.message", &format!("$request{n}"), content);
        let arrived = InboxItem::Event(request.to_string());
        let number = house.engine.next();
        actor.room.dispatch(number, arrived).await.unwrap();
    }
    let decline = "bot-decline-verification";
    let all = [decline, "bot-send-notice", decline];
    assert_eq!(kinds(&house.due(&room)), all);
}

#[tokio::test]
async fn commands_with_half_an_emoji_or_beyond_us_are_answered() {
    let house = House::new().await;
    let room = owned_room_id!("!room:hs.test");
    let mut actor = house.control_room(&room);
    let machines = house.engine.machines();
    machines.expect_room(&bot(), &room).await.unwrap();
    let person = Person::new(&house.fake, samuel().as_str()).await;
    let half = person.says_half_an_emoji(&room, &[&bot()]).await;
    let beyond = person
        .says_content(&room, &[&bot()], r#"{"n":1e400}"#)
        .await;
    let device = machines.device_of(&bot()).unwrap().unwrap();
    let keys = house.fake.take_incoming(&bot(), &device);
    machines.receive_and_respond(&bot(), keys).await.unwrap();
    for (event, count) in [(half, 1), (beyond, 2)] {
        let arrived = InboxItem::Event(event.get().to_owned());
        let dispatched = actor.room.dispatch(house.engine.next(), arrived);
        dispatched.await.unwrap();
        assert_eq!(house.due(&room).len(), count);
    }
    let Some(ControlEffect::SendNotice { notice, .. }) = house.due(&room).pop() else {
        panic!("nothing is said");
    };
    assert_eq!(notice, crate::bot::texts::not_understood());
}
