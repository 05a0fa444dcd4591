//! What is tried again: for how long, and once in the room however long that took.

use std::{sync::Arc, time::Duration};

use ruma::{EventId, OwnedUserId, RoomId, room_id, user_id};
use serde_json::json;

use crate::{
    bot::NoticeText,
    conversation,
    crypto::{DecryptError, EncryptError},
    engine::{
        EngineError,
        control_room::{ControlEffect, Occasion},
        messaging::send::{Outgoing, Recipients},
        records::{Conversations, QueuedEffect},
        room::{ReplayableEffects, Room},
    },
    ids::{ConversationId, Ghost},
    introduction::{Effect, IntroductionNotice},
    matrix::{MatrixError, Transaction},
    testing::{self, EventFactory, FakeHomeserver, Person, TestClock, TestEngine},
};

fn room() -> &'static RoomId {
    room_id!("!room:hs.test")
}

fn sam() -> OwnedUserId {
    user_id!("@_dm_sam:hs.test").to_owned()
}

/// Sam's ghost in a room with Alice.
async fn actor() -> (Room, FakeHomeserver, Arc<TestClock>) {
    let TestEngine {
        engine,
        fake,
        clock,
        ..
    } = testing::engine().build().await;
    let alice = Person::new(&fake, "@alice:hs.test").await;
    alice.sign().await;
    engine.machines().provision(&sam(), "Sam").await.unwrap();
    fake.add_room(room(), &[alice.user(), &sam()]);
    let actor = Room::load(engine, room().to_owned()).unwrap();
    (actor, fake, clock)
}

async fn say(actor: &Room, transaction: &str) -> ruma::OwnedEventId {
    let content = json!({"msgtype": "m.text", "body": "hello"});
    let outgoing = Outgoing {
        sender: &sam(),
        event_type: "m.room.message",
        content: &content,
        recipients: Recipients::All,
        transaction: transaction.into(),
    };
    actor.send(outgoing).await.unwrap()
}

#[tokio::test]
async fn what_was_sent_more_than_a_day_ago_is_looked_for_in_the_room() {
    let (mut actor, fake, _) = actor().await;
    actor.due_since = actor.engine.now();
    let first = say(&actor, "one").await;
    assert_eq!(say(&actor, "one").await, first, "the homeserver knows it");
    assert_eq!(fake.sent(room()), 1);

    fake.forget_transactions();
    actor.due_since = actor.engine.now() - Duration::from_secs(25 * 60 * 60);
    assert_eq!(say(&actor, "one").await, first, "it stands in the room");
    assert_eq!(fake.sent(room()), 1);
    let second = say(&actor, "two").await;
    assert_ne!(second, first);
    assert_eq!(fake.sent(room()), 2);
}

/// Else the test above would pass without any looking.
#[tokio::test]
async fn a_homeserver_that_has_forgotten_takes_the_same_twice() {
    let (mut actor, fake, _) = actor().await;
    actor.due_since = actor.engine.now();
    say(&actor, "one").await;
    fake.forget_transactions();
    say(&actor, "one").await;
    assert_eq!(fake.sent(room()), 2);
}

/// A homeserver that answers, and cannot do it now.
fn failing() -> EngineError {
    failing_with(Some("M_UNKNOWN"))
}

/// A proxy that answers because a part of the homeserver does not.
fn outage() -> EngineError {
    failing_with(None)
}

fn failing_with(errcode: Option<&str>) -> EngineError {
    EngineError::Matrix(MatrixError::Failing {
        status: http::StatusCode::BAD_GATEWAY,
        errcode: errcode.map(str::to_owned),
        message: String::new(),
        retry_after: None,
    })
}

#[tokio::test]
async fn a_ghost_tries_to_join_for_two_minutes_and_to_leave_until_it_has() {
    let (mut actor, _, clock) = actor().await;
    let second = Duration::from_secs(1);
    let join = introduction(Effect::Join);
    assert!(actor.retries_effect(1, &join, &failing()));
    clock.advance(120 * second);
    assert!(actor.retries_effect(1, &join, &failing()));
    clock.advance(second);
    assert!(!actor.retries_effect(1, &join, &failing()));

    let leave = introduction(Effect::Leave { reason: None });
    assert!(actor.retries_effect(2, &leave, &failing()));
    clock.advance(100_000 * second);
    assert!(actor.retries_effect(2, &leave, &failing()));
    // What is refused is not tried again.
    let refused = EngineError::Refused(crate::introduction::Refusal::Forbidden);
    assert!(!actor.retries_effect(3, &join, &refused));
}

#[tokio::test]
async fn while_the_homeserver_is_away_no_time_runs() {
    let (mut actor, _, clock) = actor().await;
    let minute = Duration::from_secs(60);
    let join = introduction(Effect::Join);
    let away = EngineError::Matrix(MatrixError::RateLimited { retry_after: None });
    assert!(actor.retries_effect(1, &join, &failing()));
    clock.advance(100 * minute);
    assert!(actor.retries_effect(1, &join, &away));
    // It begins anew with the first answer.
    assert!(actor.retries_effect(1, &join, &failing()));
    clock.advance(3 * minute);
    assert!(!actor.retries_effect(1, &join, &failing()));
}

#[tokio::test]
async fn while_a_proxy_answers_for_a_part_of_the_homeserver_everything_is_tried_for_an_hour() {
    let second = Duration::from_secs(1);
    let event = || ruma::owned_event_id!("$event");
    let notice = IntroductionNotice::SendAgainEncrypted;
    let say = ControlEffect::SendNotice {
        notice: NoticeText::new("done"),
        source: "source".to_owned(),
        occasion: Occasion::Answer,
    };
    for effect in [
        introduction(Effect::Join),
        introduction(Effect::HandOver),
        introduction(Effect::SendNotice { notice }),
        introduction(Effect::PassOn {
            event: event(),
            edit: None,
        }),
        QueuedEffect::Control(say),
    ] {
        let (mut actor, _, clock) = actor().await;
        let kind = effect.kind();
        assert!(actor.retries_effect(1, &effect, &outage()), "{kind}");
        clock.advance(3600 * second);
        assert!(actor.retries_effect(1, &effect, &outage()), "{kind}");
        // That part is back, and the time that it is given begins now.
        assert!(actor.retries_effect(1, &effect, &failing()), "{kind}");
        clock.advance(29 * second);
        assert!(actor.retries_effect(1, &effect, &failing()), "{kind}");
        // A proxy that goes on to refuse this one request does not hold up the room forever.
        assert!(!actor.retries_effect(1, &effect, &outage()), "{kind}");
    }
}

#[tokio::test]
async fn words_and_what_is_said_about_them_are_tried_for_ten_minutes_if_they_fail_alone() {
    let event = ruma::owned_event_id!("$event");
    let notice = IntroductionNotice::SendAgainEncrypted;
    let users = || vec!["@samuel:hs.test".try_into().unwrap()];
    let unknown = || EngineError::Encrypt(EncryptError::KeysUnknown { users: users() });
    let of_introduction = [
        Effect::PassOn {
            event: event.clone(),
            edit: None,
        },
        Effect::PassOnEdit {
            event: event.clone(),
            of: event.clone(),
        },
        Effect::TakeBack { of: event.clone() },
        Effect::SendNotice {
            notice: notice.clone(),
        },
        Effect::TellAsker { notice },
        Effect::ShowLine,
    ];
    let told = QueuedEffect::Conversation {
        conversation: ConversationId::new("c"),
        effect: conversation::Effect::SendNotice {
            notice: conversation::Notice::Waiting,
            cause: "cause".to_owned(),
        },
    };
    let of_introduction = of_introduction.map(introduction).into_iter();
    for effect in of_introduction.chain([told]) {
        let (mut actor, _, clock) = actor().await;
        let kind = effect.kind();
        assert!(actor.retries_effect(1, &effect, &failing()), "{kind}");
        clock.advance(Duration::from_secs(10 * 60));
        assert!(actor.retries_effect(1, &effect, &failing()), "{kind}");
        clock.advance(Duration::from_secs(1));
        assert!(!actor.retries_effect(1, &effect, &failing()), "{kind}");
        // A reader whose server does not say which devices they have is waited for elsewhere.
        assert!(actor.retries_effect(2, &effect, &unknown()), "{kind}");
        clock.advance(Duration::from_secs(31));
        assert!(!actor.retries_effect(2, &effect, &unknown()), "{kind}");
    }
}

#[tokio::test]
async fn a_request_and_the_last_look_back_are_no_optional_steps() {
    for effect in [
        introduction(Effect::HandOver),
        introduction(Effect::LookBack),
        QueuedEffect::Control(ControlEffect::ShowRequest { number: 1 }),
        QueuedEffect::Control(ControlEffect::ShowLine { number: 1 }),
    ] {
        let (mut actor, _, clock) = actor().await;
        assert!(actor.retries_effect(1, &effect, &failing()));
        clock.advance(Duration::from_secs(10 * 60));
        assert!(actor.retries_effect(1, &effect, &failing()), "{effect:?}");
        clock.advance(Duration::from_secs(1));
        assert!(!actor.retries_effect(1, &effect, &failing()), "{effect:?}");
    }
}

/// The forwarding of an event of a conversation.
fn forward() -> QueuedEffect {
    QueuedEffect::Conversation {
        conversation: ConversationId::new("c"),
        effect: conversation::Effect::ForwardEvent {
            event: "$event".try_into().unwrap(),
            sender: 0,
            target: conversation::RoomRole::Origin,
            is_last: true,
        },
    }
}

#[tokio::test]
async fn readers_without_a_device_are_waited_for_although_they_are_refused() {
    let (mut actor, _, clock) = actor().await;
    let carry = forward();
    let users = vec!["@alice:hs.test".try_into().unwrap()];
    let no_device = EngineError::Encrypt(EncryptError::NoSignedDevice { users });
    assert!(actor.retries_effect(1, &carry, &no_device));
    clock.advance(actor.engine.settings().rules.wait_for_owner);
    assert!(actor.retries_effect(1, &carry, &no_device));
    clock.advance(Duration::from_secs(1));
    assert!(!actor.retries_effect(1, &carry, &no_device));
}

#[tokio::test]
async fn all_messages_of_a_silent_server_together_are_tried_for_a_short_while() {
    let (mut actor, _, clock) = actor().await;
    let second = Duration::from_secs(1);
    let forward = forward();
    let unknown = |since| {
        let server = "silent.test".try_into().unwrap();
        EngineError::Decrypt(DecryptError::SenderUnknown { server, since })
    };
    let first = actor.engine.now();
    assert!(actor.retries_effect(2, &forward, &unknown(first)));
    clock.advance(15 * second);
    assert!(actor.retries_effect(2, &forward, &unknown(first)));
    clock.advance(second);
    assert!(!actor.retries_effect(2, &forward, &unknown(first)));
    assert!(!actor.retries_effect(3, &forward, &unknown(first)));
    let again = actor.engine.now();
    assert!(actor.retries_effect(4, &forward, &unknown(again)));
}

#[tokio::test]
async fn a_key_that_is_unlikely_to_come_is_waited_for_a_moment() {
    let (mut actor, _, clock) = actor().await;
    let no_key = EngineError::KeyUnlikely;
    assert!(actor.retries_effect(1, &forward(), &no_key));
    clock.advance(Duration::from_secs(2));
    assert!(actor.retries_effect(1, &forward(), &no_key));
    clock.advance(Duration::from_millis(1));
    assert!(!actor.retries_effect(1, &forward(), &no_key));
}

#[tokio::test]
async fn no_pause_is_longer_than_what_is_left_of_the_time() {
    let (mut actor, _, clock) = actor().await;
    let no_key = EngineError::KeyUnlikely;
    let begun = actor.engine.now();
    while actor.retries_effect(1, &forward(), &no_key) {
        clock.advance(actor.pause_after(&no_key));
    }
    let waited = actor.engine.now().since(begun);
    assert!(waited <= Duration::from_millis(2001), "{waited:?}");

    // A pause that the homeserver asked for is not cut short, nor one after an error of no item.
    let limited = EngineError::Matrix(MatrixError::Failing {
        status: http::StatusCode::TOO_MANY_REQUESTS,
        errcode: Some("M_LIMIT_EXCEEDED".to_owned()),
        message: String::new(),
        retry_after: Some(Duration::from_secs(40)),
    });
    let optional = introduction(Effect::ShowAs);
    assert!(actor.retries_effect(2, &optional, &limited));
    assert_eq!(actor.pause_after(&limited), Duration::from_secs(40));
    assert!(actor.retries_effect(2, &optional, &failing()));
    for _ in 0..10 {
        actor.pause_after(&failing());
    }
    assert_eq!(actor.pause_after(&failing()), Duration::from_secs(60));
}

#[tokio::test]
async fn each_kind_of_failure_has_a_time_of_its_own() {
    let forward = forward();
    let users = || vec!["@samuel:hs.test".try_into().unwrap()];
    let no_device = || EngineError::Encrypt(EncryptError::NoSignedDevice { users: users() });
    let no_key = || EngineError::KeyOnItsWay;
    let minute = Duration::from_secs(60);

    // Samuel signs a device after three hours, and the homeserver has a hiccup.
    let (mut actor, _, clock) = actor().await;
    assert!(actor.retries_effect(1, &forward, &no_device()));
    clock.advance(180 * minute);
    assert!(actor.retries_effect(1, &forward, &failing()));
    clock.advance(10 * minute);
    assert!(actor.retries_effect(1, &forward, &failing()));
    clock.advance(minute);
    assert!(!actor.retries_effect(1, &forward, &failing()));

    // A hiccup before Samuel is waited for, and another one hours later.
    assert!(actor.retries_effect(3, &forward, &failing()));
    for _ in 0..180 {
        clock.advance(minute);
        assert!(actor.retries_effect(3, &forward, &no_device()));
    }
    assert!(actor.retries_effect(3, &forward, &failing()));

    // The key of a message turns out to be missing once the homeserver is well again.
    assert!(actor.retries_effect(2, &forward, &failing()));
    clock.advance(2 * minute);
    assert!(actor.retries_effect(2, &forward, &no_key()));
    clock.advance(minute);
    assert!(actor.retries_effect(2, &forward, &no_key()));
    // Two that take turns end with the first whose time is over.
    assert!(actor.retries_effect(2, &forward, &failing()));
    clock.advance(minute);
    assert!(!actor.retries_effect(2, &forward, &no_key()));
}

fn introduction(effect: Effect) -> QueuedEffect {
    let ghost = Ghost::new("@_dm_sam:hs.test".try_into().unwrap());
    QueuedEffect::Introduction { ghost, effect }
}

/// What a room shows to a ghost that has left it, the newest first.
async fn missed(actor: &Room, fake: &FakeHomeserver, events: &[&serde_json::Value]) -> bool {
    let events = events.iter().map(|event| (*event).clone()).collect();
    fake.put_history(room().as_str(), events);
    let owner = crate::ids::Person::new(user_id!("@samuel:hs.test").to_owned());
    let introduction = testing::introduction(room(), &Ghost::new(sam()), owner, "sam");
    actor.was_missed(&introduction).await.unwrap()
}

#[tokio::test]
async fn a_ghost_that_has_left_sees_whether_something_was_said_in_the_moment_before() {
    let TestEngine {
        engine,
        store,
        fake,
        ..
    } = testing::engine().build().await;
    let alice = Person::new(&fake, "@alice:hs.test").await;
    engine.machines().provision(&sam(), "Sam").await.unwrap();
    let actor = Room::load(engine, room().to_owned()).unwrap();
    let read = async |text: &str| -> serde_json::Value {
        let event = alice.says(room(), &[&sam()], text).await;
        serde_json::from_str(event.get()).unwrap()
    };
    let ghost = sam();
    let events = EventFactory::room(room()).sender(ghost.as_str());
    let left = events.member(ghost.as_str(), "leave");
    let (heard, last) = (read("heard").await, read("the last word").await);
    let mut batch = crate::store::Batch::new();
    let id: &EventId = heard["event_id"].as_str().unwrap().try_into().unwrap();
    actor.engine.mark_seen(id, true, &mut batch).unwrap();
    store.apply(batch).unwrap();

    // Its key has not come, and never will.
    assert!(missed(&actor, &fake, &[&left, &last, &heard]).await);
    assert!(!missed(&actor, &fake, &[&left, &heard]).await);
    // What is said afterwards is not the ghost's business, nor what others say, nor what all read.
    assert!(!missed(&actor, &fake, &[&last, &left, &heard]).await);
    let mut others = last.clone();
    others["sender"] = json!("@bob:hs.test");
    let mut in_clear = last.clone();
    in_clear["type"] = json!("m.room.message");
    assert!(!missed(&actor, &fake, &[&left, &others, &in_clear, &heard]).await);
}

#[tokio::test]
async fn a_call_counts_from_when_it_arrived_and_not_from_when_its_turn_came() {
    let TestEngine {
        engine,
        store,
        clock,
        ..
    } = testing::engine().build().await;
    let mut actor = Room::load(engine, room().to_owned()).unwrap();
    let event = ruma::owned_event_id!("$invite");
    let arrived = actor.engine.now();
    let mut batch = crate::store::Batch::new();
    actor.engine.mark_seen(&event, false, &mut batch).unwrap();
    store.apply(batch).unwrap();
    clock.advance(Duration::from_secs(40));
    actor.due_since = actor.engine.now();
    let since = |kind| actor.arrived_at(&event, kind).unwrap();
    assert_eq!(since("m.call.invite"), arrived);
    assert_eq!(since("m.room.message"), actor.due_since);
}

#[tokio::test]
async fn a_carry_is_made_sure_of_if_its_conversation_has_changed_since_it_was_decided() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    let mut actor = Room::load(engine, room().to_owned()).unwrap();
    let id = ConversationId::new("conversation");
    let mut conversation = conversation::Conversation {
        id: id.clone(),
        ..testing::conversation(room())
    };
    let write = |conversation: &conversation::Conversation| {
        let mut batch = crate::store::Batch::new();
        batch.put::<Conversations>(&id, conversation).unwrap();
        store.apply(batch).unwrap();
    };
    write(&conversation);
    actor.replayable = ReplayableEffects {
        numbers: 3..5,
        based_on: store.get_cached::<Conversations>(&id).unwrap(),
    };
    let effect = |effect| QueuedEffect::Conversation {
        conversation: id.clone(),
        effect,
    };
    let carry = effect(conversation::Effect::ForwardEvent {
        event: ruma::owned_event_id!("$event"),
        sender: 0,
        target: conversation::RoomRole::Origin,
        is_last: true,
    });
    assert!(actor.is_replayable(3, &carry).unwrap());
    assert!(actor.is_replayable(4, &carry).unwrap());
    assert!(!actor.is_replayable(5, &carry).unwrap(), "decided later");
    let depart = effect(conversation::Effect::LeaveRoom);
    assert!(!actor.is_replayable(3, &depart).unwrap());

    // Written again as it was.
    write(&conversation);
    assert!(actor.is_replayable(4, &carry).unwrap());
    conversation.ended = true;
    write(&conversation);
    assert!(!actor.is_replayable(4, &carry).unwrap());
}

#[tokio::test]
async fn who_left_in_a_lost_event_gets_no_further_key() {
    let (actor, fake, _) = actor().await;
    let alice = user_id!("@alice:hs.test");
    let bob = Person::new(&fake, "@bob:hs.test").await;
    fake.add_room(room(), &[alice, bob.user(), &sam()]);
    let content = json!({"msgtype": "m.text", "body": "hello"});
    let says = async |transaction: &str| {
        let sender = sam();
        let outgoing = Outgoing {
            sender: &sender,
            event_type: "m.room.message",
            content: &content,
            recipients: Recipients::All,
            transaction: transaction.into(),
        };
        let sent = actor.send_to_room(&room().to_owned(), outgoing).await;
        sent.unwrap();
        let keys = |user| fake.waiting(user, bob.device());
        (keys(alice), keys(bob.user()))
    };
    assert_eq!(says("one").await, (1, 1));
    // Nobody tells us.
    fake.add_room(room(), &[alice, &sam()]);
    assert_eq!(says("two").await, (1, 1));
    actor.engine.note_possible_gap();
    assert_eq!(says("three").await, (2, 1), "Bob cannot read this one");
    // What cannot be read may have been a leave as well.
    fake.add_room(room(), &[&sam()]);
    let odd = json!({"type": "m.room.member", "room_id": room(), "state_key": alice});
    let body = json!({"events": [odd]}).to_string();
    let body = Transaction::parse(body.as_bytes()).unwrap();
    actor.engine.accept_transaction(body).await.unwrap();
    let keys = fake.waiting(alice, bob.device());
    assert_eq!(says("four").await.0, keys, "nor Alice that one");
}
