//! What nobody waits for: slow servers, and receipts.

use super::*;

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
        it.engine.transaction(body).await.unwrap();
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
        .leave_conversation_room(&id(), Some(&talk), &mut batch)
        .await
        .unwrap();
    assert_eq!(it.actor.room.deliveries.take(), None);
}

#[tokio::test]
async fn the_sender_of_a_message_beyond_us_is_told() {
    let mut it = Talk::begun().await;
    let carry = forward("$one", RoomRole::Portal(1), true);
    let number = it.put_due(carry.clone());
    let error = EngineError::Decrypt(DecryptError::NotUnderstood);
    let (room, talk) = (&mut it.actor.room, id());
    room.give_up_conversation(number, &talk, &carry, &error)
        .await
        .unwrap();
    let text = TranslateError::Malformed.notice_text().to_owned();
    assert_eq!(it.notices(&origin()), [Notice::NotForwarded { text }]);
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

