//! What nobody waits for: slow servers, and receipts. What waits, and who is told.

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
