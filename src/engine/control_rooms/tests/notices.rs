//! What the bot says, in which order, and whether a client notifies of it.

use std::time::Duration;

use super::*;
use crate::{
    engine::{control_room::Occasion, records::Inbox},
    testing::encrypted_event,
};

/// What the bot has said in a room, as Samuel's client reads it.
async fn said(house: &House, person: &Person, room: &OwnedRoomId) -> Vec<Value> {
    person.query(&[&bot()]).await;
    person.receives().await;
    let mut contents = Vec::new();
    for event in house.fake.events(room.as_str()) {
        if event.kind == "m.room.encrypted" {
            let event = encrypted_event(&bot(), room, &event.content);
            contents.push(person.reads_content(room, &event).await.unwrap());
        }
    }
    contents
}

async fn notify(house: &House, words: &str) {
    let (engine, sam) = (&house.engine, samuel());
    let notice = NoticeText::new(words);
    engine.notify(&sam, notice, words.to_owned()).await.unwrap();
}

async fn signed(house: &House) -> Person {
    let person = Person::new(&house.fake, samuel().as_str()).await;
    person.sign().await;
    person
}

#[tokio::test]
async fn clients_notify_of_news_and_not_of_answers() {
    let house = House::new().await;
    let person = signed(&house).await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    notify(&house, "news").await;
    let answer = ControlEffect::SendNotice {
        notice: NoticeText::new("answer"),
        source: "2".to_owned(),
        occasion: Occasion::Answer,
    };
    let answer = [QueuedEffect::Control(answer)];
    actor.room.commit(Batch::new(), answer).unwrap();
    steps(&mut actor).await;
    let said = said(&house, &person, &room).await;
    let said: Vec<_> = said
        .iter()
        .map(|it| (&it["body"], &it["msgtype"], &it["m.mentions"]))
        .collect();
    assert_eq!(
        said,
        [
            (&json!("answer"), &json!("m.notice"), &json!({})),
            (
                &json!("news"),
                &json!("m.text"),
                &json!({ "user_ids": ["@samuel:hs.test"] })
            ),
        ]
    );
}

#[tokio::test]
async fn what_the_bot_came_to_say_comes_before_its_greeting() {
    let house = House::new().await;
    let person = signed(&house).await;
    notify(&house, "It failed.").await;
    let room = house.store.get::<ControlRooms>(&samuel()).unwrap().unwrap();
    let mut actor = house.actor(&room);
    steps(&mut actor).await;
    house.fake.add_room(&room, &[&samuel(), &bot()]);
    let joined = EventFactory::room(&room).member(samuel().as_str(), "join");
    let item = InboxItem::Event(joined.to_string());
    actor
        .room
        .dispatch(house.engine.next(), item)
        .await
        .unwrap();
    steps(&mut actor).await;
    let said = said(&house, &person, &room).await;
    let said: Vec<_> = said.iter().map(|it| it["body"].as_str().unwrap()).collect();
    assert_eq!(
        said,
        [
            "It failed.",
            "I'm the bot that looks after handles here. `help` shows what I can do."
        ]
    );
}

#[tokio::test]
async fn any_number_of_events_costs_few_checks_of_a_room() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    let events = EventFactory::room(&room).sender(samuel().as_str());
    let mut looks = 0;
    for n in 0..200 {
        let rule = json!({"join_rule": "invite"});
        let mut rule = events.event("m.room.join_rules", &format!("${n}"), rule);
        rule["state_key"] = json!("");
        let item = InboxItem::Event(rule.to_string());
        let number = house.engine.next();
        actor.room.dispatch(number, item).await.unwrap();
        looks += due_looks(&mut actor, &house, &room);
    }
    assert_eq!(looks, 1);
    // The last of them is not missed.
    house.clock.advance(Duration::from_secs(5));
    actor.tick().await.unwrap();
    assert_eq!(due_looks(&mut actor, &house, &room), 1);
    house.clock.advance(Duration::from_secs(5));
    actor.tick().await.unwrap();
    assert_eq!(due_looks(&mut actor, &house, &room), 0);
}

/// Takes the checks out of the outbox and returns their number.
fn due_looks(actor: &mut RoomActor, house: &House, room: &OwnedRoomId) -> usize {
    let due = house.store.scan::<Outbox>(&prefix(room), None, 1000);
    let looks: Vec<_> = due
        .unwrap()
        .into_iter()
        .filter(|(_, it)| matches!(it.what, QueuedEffect::Control(ControlEffect::Look)))
        .collect();
    for ((_, number), _) in &looks {
        let done = actor.room.outbox_done(*number);
        actor.room.commit(done, []).unwrap();
    }
    looks.len()
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
async fn a_control_room_that_the_homeserver_has_lost_is_replaced_when_there_is_news() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    house.engine.compare_rooms(&bot()).await.unwrap();
    steps(&mut actor).await;
    assert!(house.store.contains::<ControlRooms>(&samuel()).unwrap());
    house.fake.with(|server| server.rooms.remove(room.as_str()));
    house.engine.compare_rooms(&bot()).await.unwrap();
    house.engine.mark_durable(house.engine.next());
    steps(&mut actor).await;
    let now = house.store.get::<ControlRooms>(&samuel()).unwrap();
    assert_ne!(now, Some(room));
}
