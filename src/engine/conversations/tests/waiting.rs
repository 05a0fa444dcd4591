//! What nobody waits for: slow servers, and receipts. What waits, and who is told.

use super::*;
use crate::{
    crypto::CryptoError,
    engine::{
        conversations::failures::not_delivered, event::RoomEvent, records::LostSession,
        retry::Retry,
    },
    testing::{Outage, When},
};

#[tokio::test]
async fn a_ghost_that_waits_for_a_slow_server_keeps_nobody_waiting() {
    let it = Talk::provisioned().await;
    let alice = Person::new(&it.fake, "@alice:hs.test").await;
    let machines = it.engine.machines().clone();
    machines.expect_room(&sam(), &origin()).await.unwrap();
    let event = alice.says(&origin(), &[&sam()], "hello").await;
    let device = it.engine.machines().device_of(&sam()).unwrap().unwrap();
    let mut messages = Vec::new();
    for message in it.fake.take_incoming(&sam(), &device).to_device {
        let mut message: Value = serde_json::from_str(message.get()).unwrap();
        message["to_user_id"] = json!(sam());
        message["to_device_id"] = json!(device);
        messages.push(message);
    }
    assert!(!messages.is_empty());
    let body = json!({"events": [], "de.sorunome.msc2409.to_device": messages});
    let body = Transaction::parse(body.to_string().as_bytes()).unwrap();
    let ghost = sam();
    let drained = machines.while_requests_wait(&ghost, async {
        it.engine.accept_transaction(body).await.unwrap();
        let drained = it.engine.process_to_device();
        tokio::time::timeout(Duration::from_secs(10), drained).await
    });
    drained.await.expect("it waits for nobody");
    it.actor.room.decrypt(&sam(), event.get()).await.unwrap();
}

#[tokio::test]
async fn a_stop_waits_for_no_receipt() {
    let it = Talk::begun().await;
    it.actor
        .room
        .show_delivery(&talk(), RoomRole::Origin, &owned_event_id!("$one"));
    let stopped = tokio::time::timeout(Duration::from_secs(1), it.engine.stop());
    stopped.await.expect("it waits for nobody").unwrap();
}

#[tokio::test]
async fn a_ghost_that_has_left_shows_no_delivery() {
    let mut it = Talk::provisioned().await;
    let event = owned_event_id!("$one");
    it.actor.room.deliveries.note(sam(), event);
    let (mut batch, talk) = (Batch::new(), talk());
    it.actor
        .room
        .leave_conversation_room(&id(), Some(&talk), false, &mut batch)
        .await
        .unwrap();
    assert_eq!(it.actor.room.deliveries.take(), None);
}

#[tokio::test]
async fn a_sender_is_told_once_that_nobody_can_read_their_message() {
    let minute = Duration::from_secs(60);
    let mut it = TwoPeople::begin(false).await;
    it.alice_says("are you there?").await;
    it.go_on().await;
    it.talk.clock.advance(minute);
    it.go_on().await;
    assert_eq!(it.told_to_alice().await, [""; 0], "he may be about to sign");
    it.talk.clock.advance(2 * minute);
    it.go_on().await;
    assert_eq!(it.told_to_alice().await, [Notice::Waiting.text()]);
    it.alice_says("hello?").await;
    it.talk.clock.advance(60 * minute);
    it.go_on().await;
    assert_eq!(it.told_to_alice().await.len(), 1, "the same day");
    it.talk.clock.advance(DAY);
    it.go_on().await;
    assert_eq!(it.told_to_alice().await.len(), 1, "about the same message");
    it.samuel_signs().await;
    it.go_on().await;
    assert_eq!(it.talk.fake.sent(&portal()), 2);
}

#[tokio::test]
async fn what_waits_for_a_reader_ends_after_seven_days_however_much_waits_before_it() {
    let mut it = TwoPeople::begin(false).await;
    it.alice_says("one").await;
    it.alice_says("two").await;
    it.go_on().await;
    let waiting = |it: &TwoPeople| {
        let arrived = it.talk.store.scan::<Inbox>(&prefix(&origin()), None, 9);
        arrived.unwrap().len() + it.talk.carries().len()
    };
    assert!(waiting(&it) >= 2);
    it.talk.clock.advance(7 * DAY + Duration::from_secs(60));
    it.go_on().await;
    assert_eq!(waiting(&it), 0);
}

#[tokio::test]
async fn a_sender_whose_server_is_silent_holds_up_a_group_for_a_moment_only() {
    let mut it = Talk::begun().await;
    let mut event = message("$one", NOW);
    event["type"] = json!("m.room.encrypted");
    let item = InboxItem::Event(event.to_string());
    let error = EngineError::Decrypt(DecryptError::SenderUnknown {
        server: "silent.test".try_into().unwrap(),
        since: NOW,
    });
    let moment = Retry::For(Duration::from_secs(15));
    assert_eq!(it.actor.room.retry_of_arrival(&item, &error), moment);
    it.clock.advance(Duration::from_secs(16));
    assert_eq!(it.actor.room.retry_of_arrival(&item, &error), Retry::Never);
    // Where nobody else is held up, it is waited for as for any answer.
    it.actor.room.record.conversation = None;
    let alone = Retry::For(Duration::from_secs(2 * 60));
    assert_eq!(it.actor.room.retry_of_arrival(&item, &error), alone);
}

#[tokio::test]
async fn the_sender_of_a_message_that_is_given_up_is_told() {
    let failed = || CryptoError::Busy { user: sam().into() };
    for (error, text) in [
        (
            DecryptError::NotUnderstood,
            Some(TranslateError::Malformed.notice_text()),
        ),
        (
            DecryptError::SenderUnknown {
                server: "silent.test".try_into().unwrap(),
                since: NOW,
            },
            Some(not_delivered(&talk())),
        ),
        (failed().into(), Some(not_delivered(&talk()))),
        // Nobody has written these.
        (DecryptError::Replayed { first: None }, None),
        (DecryptError::Malformed("it is damaged"), None),
    ] {
        let mut it = Talk::begun().await;
        let carry = forward("$one", RoomRole::Portal(1), true);
        let number = it.put_due(carry.clone());
        let (room, talk) = (&mut it.actor.room, id());
        let error = EngineError::Decrypt(error);
        room.give_up_conversation(number, &talk, &carry, &error)
            .await
            .unwrap();
        let told = text.map(|text| Notice::NotForwarded {
            text: text.to_owned(),
        });
        assert_eq!(it.notices(&origin()), told.as_slice(), "{error}");
    }
}

#[tokio::test]
async fn a_message_waits_for_a_ghost_that_the_homeserver_lost() {
    let mut it = Talk::begun().await;
    let shown = user_id!("@_dm_.palice:hs.test");
    let machines = it.engine.machines().clone();
    machines.provision(shown, "Alice").await.unwrap();
    let samuel = Person::new(&it.fake, "@samuel:hs.test").await;
    it.fake.add_room(&portal(), &[shown, samuel.user()]);
    let mut event = message("$one", NOW);
    event["type"] = json!("org.example.hello");
    event["content"] = json!({"body": "in clear"});
    it.keep(&event);
    it.fake.with(|server| {
        let account = server.accounts.get_mut(shown.as_str()).unwrap();
        account.devices.clear();
    });
    let sent = it.fake.sent(&portal());
    let number = it.put_due(forward("$one", RoomRole::Portal(1), true));
    let due = || OutboxItem {
        since: NOW,
        what: QueuedEffect::Conversation {
            conversation: id(),
            effect: forward("$one", RoomRole::Portal(1), true),
        },
    };
    let error = it.actor.room.carry_out(number, due()).await.unwrap_err();
    assert_eq!(error.missing_user(), Some(shown), "{error}");
    it.actor.room.carry_out(number, due()).await.unwrap();
    assert_eq!(it.fake.sent(&portal()), sent + 1);
    assert_eq!(it.notices(&origin()), []);
}

#[tokio::test]
async fn a_ghost_that_is_made_again_by_half_gets_its_keys_all_the_same() {
    let mut it = Talk::begun().await;
    let shown = user_id!("@_dm_.palice:hs.test");
    let machines = it.engine.machines().clone();
    machines.provision(shown, "Alice").await.unwrap();
    it.fake.add_room(&portal(), &[shown]);
    let mut event = message("$one", NOW);
    event["type"] = json!("org.example.hello");
    it.keep(&event);
    it.fake.with(|server| {
        let account = server.accounts.get_mut(shown.as_str()).unwrap();
        account.devices.clear();
    });
    // After the message that is refused, the registration and the device.
    it.fake.fail(3, When::Before);
    let number = it.put_due(forward("$one", RoomRole::Portal(1), true));
    assert!(!it.try_again(number).await);
    assert!(!it.fake.failure_pending());
    let is_signed = || it.fake.with(|server| server.is_signed(shown.as_str()));
    assert!(!is_signed(), "the device is there without its keys");
    it.engine.finish_restores().await.unwrap();
    assert!(is_signed());
}

/// A conversation whose messages can be sent, and Alice, who writes in it.
async fn with_alice() -> (Talk, Person) {
    let it = Talk::provisioned().await;
    let shown = user_id!("@_dm_.palice:hs.test");
    let machines = it.engine.machines();
    machines.provision(shown, "Alice").await.unwrap();
    machines.expect_room(&sam(), &origin()).await.unwrap();
    let samuel = Person::new(&it.fake, "@samuel:hs.test").await;
    it.fake.add_room(&portal(), &[shown, samuel.user()]);
    let alice = Person::new(&it.fake, "@alice:hs.test").await;
    (it, alice)
}

impl Talk {
    /// Alice says something, and its forwarding is tried once. Returns whether that is over.
    async fn hears(&mut self, alice: &Person, text: &str) -> (u64, bool) {
        let event = alice.says(&origin(), &[&sam()], text).await;
        let event: Value = serde_json::from_str(event.get()).unwrap();
        self.keep(&event);
        let id = event["event_id"].as_str().unwrap();
        let number = self.put_due(forward(id, RoomRole::Portal(1), true));
        (number, self.try_again(number).await)
    }

    async fn try_again(&mut self, number: u64) -> bool {
        let due = self.outbox(&self.actor.room.id).into_iter();
        let (_, what) = due.into_iter().find(|(n, _)| *n == number).unwrap();
        let since = self.engine.now();
        let due = OutboxItem { since, what };
        self.actor.room.carry_out(number, due).await.is_ok()
    }
}

#[tokio::test]
async fn a_lost_key_costs_one_wait_and_one_notice_and_comes_with_the_next_message() {
    let (mut it, alice) = with_alice().await;
    let device = it.engine.machines().device_of(&sam()).unwrap().unwrap();
    let (first, over) = it.hears(&alice, "lost").await;
    assert!(over, "its key came with a sync");
    assert_eq!(it.fake.sent(&portal()), 1);

    let key = alice.machine.identity_keys().curve25519.to_base64();
    it.engine.machines().make_sessions_old(&sam(), &key).await;
    // Another session, whose key gets lost.
    alice.machine.discard_room_key(&origin()).await.unwrap();
    let event = alice.says(&origin(), &[&sam()], "one").await;
    it.fake.take_incoming(&sam(), &device);
    let event: Value = serde_json::from_str(event.get()).unwrap();
    it.keep(&event);
    let id = event["event_id"].as_str().unwrap();
    let number = it.put_due(forward(id, RoomRole::Portal(1), true));
    assert!(number > first && !it.try_again(number).await, "it waits");
    it.clock
        .advance(it.engine.settings().conversations.wait_for_key + Duration::from_secs(1));
    assert!(it.try_again(number).await, "it is given up");
    assert_eq!(it.notices(&origin()).len(), 1);
    for text in ["two", "three", "four"] {
        assert!(it.hears(&alice, text).await.1, "nobody waits for {text}");
    }
    assert_eq!(it.notices(&origin()).len(), 1);
    assert_eq!(it.fake.sent(&portal()), 1);

    let greeted = |fake: &FakeHomeserver| fake.waiting(alice.user(), alice.device()) > 0;
    it.fake.until(greeted).await;
    alice.receives().await;
    it.clock.advance(Duration::from_secs(3));
    assert!(it.hears(&alice, "five").await.1);
    assert_eq!(it.fake.sent(&portal()), 2);
    assert_eq!(it.notices(&origin()).len(), 1);
}

#[tokio::test]
async fn somebody_whose_keys_always_get_lost_holds_up_others_a_moment_and_then_not_at_all() {
    let mut it = Talk::begun().await;
    it.actor.room.due_since = it.engine.now();
    let error = |it: &Talk, sender: &str, session: &str| {
        let mut event = message("$next", NOW);
        event["sender"] = json!(sender);
        event["content"]["session_id"] = json!(session);
        let event = RoomEvent::parse(&event.to_string(), Some(&origin())).unwrap();
        it.actor.room.missing_key(&event)
    };
    let is_final = |error: EngineError| !error.is_transient();
    let waits = |it: &Talk, sender: &str| match error(it, sender, "another") {
        EngineError::KeyOnItsWay => true,
        EngineError::KeyUnlikely => false,
        other => panic!("{other}"),
    };
    let sender = message("$any", NOW)["sender"].as_str().unwrap().to_owned();
    let too_long = "x".repeat(101);
    assert!(is_final(error(&it, &sender, &too_long)), "it is no session");
    it.loses(0);
    assert!(waits(&it, &sender), "once can happen");
    for n in 1..5 {
        it.loses(n);
        assert!(n == 4 || !waits(&it, &sender));
    }
    for round in 0..2 {
        assert!(is_final(error(&it, &sender, "another")));
        // They go on.
        it.clock.advance(Duration::from_secs(5 * 60));
        for n in 5..9 {
            it.loses(10 * round + n);
        }
    }
    assert!(is_final(error(&it, &sender, "another")));
    assert!(waits(&it, "@bob:hs.test"));
    // Several accounts can take turns.
    let mut batch = Batch::new();
    for user in ["@eve:hs.test", "@mallory:hs.test"] {
        let lost = LostSession {
            sender: user.try_into().unwrap(),
            told_at: it.engine.now(),
        };
        let key = (origin(), user.to_owned());
        batch.put::<LostSessions>(&key, &lost).unwrap();
    }
    it.store.apply(batch).unwrap();
    assert!(!waits(&it, "@eve:hs.test"));
    assert!(waits(&it, "@bob:hs.test"), "he has lost none");
    it.clock.advance(Duration::from_secs(10 * 60));
    assert!(waits(&it, &sender));
}

#[tokio::test]
async fn a_silent_server_holds_up_a_room_once_in_ten_minutes() {
    let (mut it, _) = with_alice().await;
    let alice = Person::new(&it.fake, "@alice:silent.test").await;
    let mut known = talk();
    known.people[0].user = crate::ids::Person::new(alice.user().to_owned());
    let mut batch = Batch::new();
    batch.put::<Conversations>(&id(), &known).unwrap();
    it.store.apply(batch).unwrap();
    it.fake.set_unreachable("silent.test", true);
    let (first, over) = it.hears(&alice, "one").await;
    assert!(!over, "it waits");
    let held = it.fake.hold("/keys/query", "@alice:silent.test");
    it.clock.advance(Duration::from_secs(16));
    assert!(it.try_again(first).await, "it is given up");
    held.comes().await;
    assert_eq!(it.notices(&origin()).len(), 1);
    let hearing = tokio::time::timeout(Duration::from_secs(10), it.hears(&alice, "two"));
    assert!(hearing.await.unwrap().1, "nobody waits for it");
    assert_eq!(it.notices(&origin()).len(), 2);
    drop(held);

    it.clock.advance(Duration::from_secs(10 * 60));
    let (third, over) = it.hears(&alice, "three").await;
    assert!(!over, "it waits again");
    it.fake.set_unreachable("silent.test", false);
    let trying = async { while !it.try_again(third).await {} };
    let tried = tokio::time::timeout(Duration::from_secs(10), trying);
    tried.await.expect("it is asked in the background");
    assert_eq!(it.fake.sent(&portal()), 1);
    assert_eq!(it.notices(&origin()).len(), 2);
}

#[tokio::test]
async fn a_key_that_comes_after_its_message_is_waited_for() {
    late_key_after(0).await;
}

#[tokio::test]
async fn a_late_key_is_used_though_others_of_its_sender_got_lost() {
    late_key_after(2).await;
}

/// A key comes after its message, and so many of the sender's sessions got lost before.
async fn late_key_after(lost: usize) {
    let (mut it, alice) = with_alice().await;
    it.actor.room.due_since = it.engine.now();
    for n in 0..lost {
        it.loses(n);
    }
    let device = it.engine.machines().device_of(&sam()).unwrap().unwrap();
    let event = alice.says(&origin(), &[&sam()], "late").await;
    let key = it.fake.take_incoming(&sam(), &device);
    let event: Value = serde_json::from_str(event.get()).unwrap();
    it.keep(&event);
    let id = event["event_id"].as_str().unwrap();
    let number = it.put_due(forward(id, RoomRole::Portal(1), true));
    assert!(!it.try_again(number).await, "it waits");
    assert_eq!(it.fake.sent(&portal()), 0);
    let machines = it.engine.machines().clone();
    machines.receive_and_respond(&sam(), key).await.unwrap();
    assert!(it.try_again(number).await);
    assert_eq!(it.fake.sent(&portal()), 1);
    assert_eq!(it.notices(&origin()), []);
}

impl Talk {
    /// A message of a session is given up. Returns what its sender is told.
    fn loses(&mut self, n: usize) -> Option<&'static str> {
        let mut event = message(&format!("$lost{n}"), NOW);
        event["content"]["session_id"] = json!(format!("session{n}"));
        self.keep(&event);
        let id = event["event_id"].as_str().unwrap().try_into().unwrap();
        let mut batch = Batch::new();
        let room = &self.actor.room;
        let told = room.note_lost_session(&talk(), RoomRole::Origin, &id, &mut batch);
        self.store.apply(batch).unwrap();
        self.clock.advance(Duration::from_secs(1));
        told.unwrap()
    }
}

#[tokio::test]
async fn lost_sessions_are_remembered_for_a_week_and_few_of_a_room() {
    let mut it = Talk::begun().await;
    it.actor.room.due_since = it.engine.now();
    let first = it.loses(0).unwrap();
    assert_eq!(it.loses(0), None, "sent before its sender was told");
    let again = it.loses(1).unwrap();
    assert!(again.contains("/discardsession") && !first.contains("/discardsession"));
    it.actor.room.due_since = it.engine.now();
    assert_eq!(it.loses(0), Some(again), "sent afterwards");
    for n in 2..130 {
        assert_eq!(it.loses(n), Some(again));
    }
    let known = |it: &Talk| it.store.scan::<LostSessions>(&[], None, 200).unwrap().len();
    assert_eq!(known(&it), 100);
    assert_eq!(it.loses(1), Some(again), "the oldest went");
    it.clock.advance(7 * DAY - Duration::from_secs(5));
    it.engine.forget_lost_sessions().unwrap();
    assert_eq!(known(&it), 5);
}

#[tokio::test]
async fn what_is_written_during_an_outage_arrives_once_and_nobody_is_told_anything() {
    let minute = Duration::from_secs(60);
    for outage in [Outage::Failing(500), Outage::Proxy(504)] {
        let mut it = TwoPeople::begin(true).await;
        it.alice_says("first").await;
        it.talk.fake.begin_outage(outage);
        for wait in [0, 11, 54, 60] {
            it.talk.clock.advance(wait * minute);
            it.go_on().await;
            let waiting = it.talk.store.scan::<Inbox>(&prefix(&origin()), None, 9);
            let waiting = waiting.unwrap().len() + it.talk.carries().len();
            assert!(waiting > 0, "{outage:?}: it waits");
        }
        it.talk.fake.end_outage();
        it.talk.clock.advance(minute);
        it.go_on().await;
        assert_eq!(it.talk.fake.sent(&portal()), 1, "{outage:?}");
        assert_eq!(it.told_to_alice().await, [""; 0], "{outage:?}");
    }
}

#[tokio::test]
async fn who_is_to_be_told_of_a_lost_message_is_told_later_if_that_fails_too() {
    let minute = Duration::from_secs(60);
    let mut it = TwoPeople::begin(true).await;
    // The homeserver answers, and can send nothing.
    it.talk.fake.refuse("/send/", 500);
    it.alice_says("hello?").await;
    let pauses = [0, 5, 6, 0, 5, 4];
    for pause in pauses {
        it.talk.clock.advance(pause * minute);
        let actor = &mut it.talk.actor;
        while let Ok(true) = actor.step().await {}
    }
    assert_eq!(it.talk.carries(), [""; 0], "it is given up");
    assert_eq!(it.talk.notices(&origin()).len(), 1);
    it.talk.fake.refuse_nothing();
    it.go_on().await;
    assert_eq!(it.told_to_alice().await, [not_delivered(&talk())]);
}

#[tokio::test]
async fn a_key_that_cannot_come_during_an_outage_is_waited_for() {
    let (mut it, alice) = with_alice().await;
    let event = alice.says(&origin(), &[&sam()], "hello").await;
    let event: Value = serde_json::from_str(event.get()).unwrap();
    let device = it.engine.machines().device_of(&sam()).unwrap().unwrap();
    let key = it.fake.take_incoming(&sam(), &device);
    it.keep(&event);
    let id = event["event_id"].as_str().unwrap();
    let number = it.put_due(forward(id, RoomRole::Portal(1), true));
    assert!(!it.try_again(number).await, "its key has not come");
    it.fake.begin_outage(Outage::Failing(503));
    for _ in 0..3 {
        it.clock.advance(Duration::from_secs(61));
        assert!(!it.try_again(number).await, "nobody knows whether it comes");
    }
    it.fake.end_outage();
    it.clock.advance(Duration::from_secs(61));
    let machines = it.engine.machines().clone();
    machines.receive_and_respond(&sam(), key).await.unwrap();
    assert!(it.try_again(number).await);
    assert_eq!(it.fake.sent(&portal()), 1);
    assert_eq!(it.notices(&origin()), []);
}

/// The room of Kim, whose server is another one.
fn kims() -> OwnedRoomId {
    room_id!("!kims:hs.test").to_owned()
}

/// Alice, Samuel, and Kim, who is yet to be invited and whose server does not answer.
async fn with_kim() -> TwoPeople {
    let it = TwoPeople::begin(true).await;
    let mut group = talk();
    let home = Home::Portal {
        room: Some(kims()),
        status: PortalStatus::NotInvited,
    };
    group.direct = false;
    group.people.push(Participant {
        user: crate::ids::Person::new(user_id!("@kim:far.org").to_owned()),
        ..participant("kim", "kim", home)
    });
    let mut batch = Batch::new();
    batch.put::<Conversations>(&id(), &group).unwrap();
    it.talk.store.apply(batch).unwrap();
    let kim = user_id!("@_dm_kim:hs.test");
    let machines = it.talk.engine.machines();
    machines.provision(kim, "Kim").await.unwrap();
    let fake = &it.talk.fake;
    fake.add_room(&kims(), &[&alices_ghost(), &sam()]);
    fake.refuse("@kim:far.org", 502);
    it
}

#[tokio::test]
async fn a_group_is_told_once_a_day_who_cannot_read_along() {
    let mut it = TwoPeople::begin(false).await;
    let mut group = talk();
    group.direct = false;
    let mut batch = Batch::new();
    batch.put::<Conversations>(&id(), &group).unwrap();
    it.talk.store.apply(batch).unwrap();
    for n in 1..=2 {
        it.alice_says("hello").await;
        it.go_on().await;
        assert_eq!(it.talk.fake.sent(&portal()), n, "it is not held up");
    }
    let told = it.told_to_alice().await;
    let told: Vec<_> = told
        .iter()
        .filter(|text| text.contains("can't read what is written here"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test]
async fn an_owner_whose_server_does_not_answer_holds_up_nobody_else() {
    let mut it = with_kim().await;
    for n in 1..=3 {
        it.alice_says("hello").await;
        it.go_on().await;
        assert_eq!(it.talk.fake.sent(&portal()), n);
    }
    assert_eq!(it.talk.carries().len(), 3, "they wait for Kim");
    let asked = |it: &TwoPeople| {
        let log = it.talk.fake.log().into_iter();
        log.filter(|line| line.contains("@kim:far.org")).count()
    };
    assert_eq!(asked(&it), 1);
    it.talk.clock.advance(Duration::from_secs(31));
    it.go_on().await;
    assert_eq!(asked(&it), 2);

    it.talk.fake.refuse_nothing();
    it.talk.clock.advance(Duration::from_secs(61));
    it.go_on().await;
    assert!(it.talk.outbox(&origin()).is_empty());
    assert_eq!(it.talk.fake.sent(&portal()), 3);
    assert_eq!(it.talk.fake.sent(&kims()), 3);
    // Kim has no device yet.
    let told = it.told_to_alice().await;
    let of_kim = |text: &String| text.starts_with("kim can't read what is written here");
    assert!(told.iter().all(of_kim), "{told:?}");
}

#[tokio::test]
async fn who_writes_to_an_owner_whose_server_stays_silent_is_told() {
    let mut it = with_kim().await;
    it.alice_says("hello").await;
    for _ in 0..12 {
        it.go_on().await;
        it.talk.clock.advance(Duration::from_secs(61));
    }
    assert_eq!(it.talk.fake.sent(&portal()), 1);
    assert!(it.talk.outbox(&origin()).is_empty());
    let known = it.talk.store.get::<Conversations>(&id()).unwrap().unwrap();
    assert!(!known.ended && !known.people[2].takes_part());
    let told = it.told_to_alice().await;
    assert!(told.contains(&not_delivered(&known).to_owned()), "{told:?}");
}
