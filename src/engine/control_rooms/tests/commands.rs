//! What people write to the bot, read and answered or not.

use std::time::Duration;

use super::*;
use crate::{
    engine::{inbox::dedup::SEEN_FOR, records::Inbox},
    matrix::{MatrixError, Transaction},
    testing::Outage,
};

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
    let seen = house.engine.seen("$early".try_into().unwrap());
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
async fn what_has_no_valid_time_is_not_answered_again() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    let day = Duration::from_secs(24 * 60 * 60);
    let in_a_year = json!(NOW.0 + 365 * 86_400_000);
    let events = [json!(-1), in_a_year].into_iter().zip(["$never", "$ahead"]);
    let history = events.map(|(sent_at, id)| {
        let events = EventFactory::room(&room).sender(samuel().as_str());
        let content = json!({"msgtype": "m.text", "body": "hi"});
        let mut event = events.event("m.room.message", id, content);
        event["origin_server_ts"] = sent_at;
        event
    });
    let history: Vec<Value> = history.collect();
    for event in &history {
        let arrived = InboxItem::Event(event.to_string());
        let dispatched = actor.room.dispatch(house.engine.next(), arrived);
        dispatched.await.unwrap();
    }
    assert_eq!(house.due(&room).len(), 1, "once a minute");
    for _ in 0..2 {
        house.clock.advance(SEEN_FOR + day);
        house.engine.forget_old_arrivals().await.unwrap();
    }
    house.fake.put_history(room.as_str(), history);
    let look = QueuedEffect::Control(ControlEffect::Look);
    actor.room.backfill_for(&look).await.unwrap();
    assert_eq!(house.due(&room).len(), 1);
}

/// Somebody of another server writes to the bot.
#[tokio::test]
async fn what_was_written_to_the_bot_while_the_servers_were_apart_is_read() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    let bob = ids::Person::new(owned_user_id!("@bob:far.example"));
    house.fake.add_room(&room, &[&bob, &bot()]);
    actor.room.record.control.as_mut().unwrap().person = Some(bob.clone());
    actor.room.commit(Batch::new(), []).unwrap();
    let by_bob = |id: &str, minutes: u32| {
        let sent_at = house.engine.now() - Duration::from_secs(60) * minutes;
        let events = EventFactory::room(&room).sender(bob.as_str());
        let content = json!({"msgtype": "m.text", "body": "hi"});
        events.sent_at(sent_at).event("m.room.message", id, content)
    };
    let mut receive = async |event: Value| {
        let body = json!({"events": [event]}).to_string();
        let body = Transaction::parse(body.as_bytes()).unwrap();
        house.engine.accept_transaction(body).await.unwrap();
        let arrived = house.store.scan::<Inbox>(&prefix(&room), None, 10);
        for ((_, number), item) in arrived.unwrap() {
            actor.room.dispatch(number, item).await.unwrap();
        }
    };
    house.fake.put_history(room.as_str(), Vec::new());
    receive(by_bob("$before", 0)).await;
    let history = vec![by_bob("$two", 5), by_bob("$one", 5), by_bob("$before", 6)];
    house.fake.put_history(room.as_str(), history);
    receive(by_bob("$three", 4)).await;
    for id in ["$one", "$two", "$three"] {
        let seen = house.engine.seen(id.try_into().unwrap()).unwrap();
        assert!(seen.is_some_and(|seen| seen.handled), "{id}");
    }
    let requests = house.requests_to("/context/");
    receive(by_bob("$four", 0)).await;
    assert_eq!(house.requests_to("/context/"), requests);
}

#[tokio::test]
async fn old_commands_that_come_together_are_answered_once() {
    let house = House::new().await;
    let room = owned_room_id!("!room:hs.test");
    let mut actor = house.control_room(&room);
    let machines = house.engine.machines();
    machines.expect_room(&bot(), &room).await.unwrap();
    let person = Person::new(&house.fake, samuel().as_str()).await;
    let mut old = Vec::new();
    for _ in 0..30 {
        let content = r#"{"msgtype":"m.text","body":"handles"}"#;
        old.push(person.says_content(&room, &[&bot()], content).await);
    }
    let device = machines.device_of(&bot()).unwrap().unwrap();
    let keys = house.fake.take_incoming(&bot(), &device);
    machines.receive_and_respond(&bot(), keys).await.unwrap();
    house.clock.advance(Duration::from_secs(15 * 60));
    for event in old {
        let arrived = InboxItem::Event(event.get().to_owned());
        let dispatched = actor.room.dispatch(house.engine.next(), arrived);
        dispatched.await.unwrap();
    }
    let due = house.due(&room);
    let [ControlEffect::SendNotice { notice, .. }] = &due[..] else {
        panic!("{due:?}");
    };
    assert!(notice.plain.contains("15 minutes"), "{}", notice.plain);
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

    // Of a flood few are declined.
    for (minute, declined) in [(0, 5), (1, 10)] {
        for n in 0..100 {
            let content = json!({"msgtype": "m.key.verification.request", "to": bot()});
            let request = events.event("m.room.message", &format!("$flood{minute}.{n}"), content);
            let arrived = InboxItem::Event(request.to_string());
            let number = house.engine.next();
            actor.room.dispatch(number, arrived).await.unwrap();
        }
        let due = house.due(&room);
        assert_eq!(
            kinds(&due).iter().filter(|it| **it == decline).count(),
            declined
        );
        house.clock.advance(Duration::from_secs(60));
    }
}

#[tokio::test]
async fn a_command_that_was_deleted_before_it_came_is_not_answered() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    let events = EventFactory::room(&room).sender(samuel().as_str());
    let deleted = events.event("m.room.encrypted", "$deleted", json!({}));
    let arrived = InboxItem::Event(deleted.to_string());
    let dispatched = actor.room.dispatch(house.engine.next(), arrived);
    dispatched.await.unwrap();
    assert!(house.due(&room).is_empty());
    assert_eq!(actor.room.record.control.unwrap().waiting, []);
}

/// Element X and others encrypt it.
#[tokio::test]
async fn an_encrypted_request_to_verify_the_bot_is_declined_too() {
    let house = House::new().await;
    let room = owned_room_id!("!room:hs.test");
    let mut actor = house.control_room(&room);
    let machines = house.engine.machines();
    machines.expect_room(&bot(), &room).await.unwrap();
    let person = Person::new(&house.fake, samuel().as_str()).await;
    let request = json!({"msgtype": "m.key.verification.request", "body": "", "to": bot()});
    let request = person
        .says_content(&room, &[&bot()], &request.to_string())
        .await;
    let device = machines.device_of(&bot()).unwrap().unwrap();
    let keys = house.fake.take_incoming(&bot(), &device);
    machines.receive_and_respond(&bot(), keys).await.unwrap();
    let arrived = InboxItem::Event(request.get().to_owned());
    let number = house.engine.next();
    actor.room.dispatch(number, arrived).await.unwrap();
    let all = ["bot-decline-verification", "bot-send-notice"];
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
async fn a_command_whose_key_cannot_come_during_an_outage_goes_on_waiting() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    let control = actor.room.record.control.as_mut().unwrap();
    control.waiting.push(("$one".try_into().unwrap(), NOW));
    actor.room.commit(Batch::new(), []).unwrap();
    let minutes = |n: u64| std::time::Duration::from_secs(n * 60);
    house.fake.begin_outage(Outage::Failing(500));
    for _ in 0..3 {
        house.clock.advance(minutes(5));
        actor.tick().await.unwrap();
        assert!(house.due(&room).is_empty(), "nobody knows whether it comes");
    }
    house.fake.end_outage();
    house.clock.advance(minutes(4));
    actor.tick().await.unwrap();
    assert!(house.due(&room).is_empty());
    house.clock.advance(minutes(1));
    actor.tick().await.unwrap();
    assert_eq!(kinds(&house.due(&room)), ["bot-send-notice"]);
}

#[tokio::test]
async fn what_the_bot_wanted_to_say_is_kept_if_it_has_no_room_for_it_now() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let notice = InboxItem::Notify {
        person: samuel(),
        plain: "hello".to_owned(),
        html: "hello".to_owned(),
        source: "source".to_owned(),
    };
    house.actor(&room).room.give_up(1, notice).await.unwrap();
    let kept = house
        .store
        .scan::<PendingNotices>(&prefix(&samuel()), None, 10);
    let kept: Vec<_> = kept.unwrap().into_iter().map(|(_, it)| it.0).collect();
    assert_eq!(kept, ["hello"]);
}

#[tokio::test]
async fn the_bot_says_why_it_leaves_a_room_that_it_could_not_look_at() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let failing = MatrixError::Failing {
        status: http::StatusCode::INTERNAL_SERVER_ERROR,
        errcode: Some("M_UNKNOWN".to_owned()),
        message: String::new(),
        retry_after: None,
    };
    let (look, error) = (ControlEffect::Look, failing.into());
    let mut actor = house.control_room(&room);
    let given_up = actor.room.give_up_control(1, &look, &error);
    given_up.await.unwrap();
    let due = house.due(&room);
    let ControlEffect::Leave { reason } = &due[0] else {
        panic!("{due:?}");
    };
    assert_eq!(reason.as_deref(), Some(crate::bot::texts::NO_ANSWER));
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
