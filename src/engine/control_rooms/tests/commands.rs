//! What people write to the bot, read and answered or not.

use super::*;
use crate::engine::records::Seen;

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

#[tokio::test]
async fn a_command_that_is_deleted_while_its_key_is_missing_does_not_run() {
    for is_deleted in [false, true] {
        let house = House::new().await;
        let room = owned_room_id!("!control:hs.test");
        let mut actor = house.control_room(&room);
        house
            .engine
            .machines()
            .expect_room(&bot(), &room)
            .await
            .unwrap();
        let sam = Person::new(&house.fake, samuel().as_str()).await;
        let bot = bot();
        let command = sam.says(&room, &[&bot], "handles").await;
        let device = house.engine.machines().device_of(&bot).unwrap().unwrap();
        let key = house.fake.take_incoming(&bot, &device);
        let arrived = InboxItem::Event(command.get().to_owned());
        let next = house.engine.next();
        actor.room.dispatch(next, arrived).await.unwrap();
        let waits = |actor: &RoomActor| {
            !actor
                .room
                .record
                .control
                .as_ref()
                .unwrap()
                .waiting
                .is_empty()
        };
        assert!(waits(&actor));
        if is_deleted {
            let parsed: Value = serde_json::from_str(command.get()).unwrap();
            let of = &parsed["event_id"];
            let events = EventFactory::room(&room).sender(samuel().as_str());
            let mut deleted = events.event("m.room.redaction", "$gone", json!({"redacts": of}));
            deleted["redacts"] = of.clone();
            let arrived = InboxItem::Event(deleted.to_string());
            let next = house.engine.next();
            actor.room.dispatch(next, arrived).await.unwrap();
            assert!(!waits(&actor));
        }
        let received = house.engine.machines().receive(&bot, key).await.unwrap();
        assert_eq!(received.0.len(), 1);
        let arrived = InboxItem::RoomKeyArrived { user: bot.clone() };
        let next = house.engine.next();
        actor.room.dispatch(next, arrived).await.unwrap();
        assert_eq!(house.due(&room).is_empty(), is_deleted);
    }
}
