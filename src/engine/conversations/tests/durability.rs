//! What is carried on before it is durable, and what waits until it is.

use super::*;
use crate::store::testing::{SlowBackend, over};

#[tokio::test]
async fn what_is_decided_on_a_change_that_a_crash_could_take_is_made_sure_of() {
    let mut it = Talk::begun().await;
    assert!(it.repeatable("$one").await);
    it.change().await;
    assert!(!it.repeatable("$two").await);
    it.store.flush_blocking().unwrap();
    assert!(it.repeatable("$three").await);
}

#[tokio::test]
async fn what_others_may_have_seen_is_durable_before_its_conversation_changes() {
    let mut it = Talk::begun().await;
    assert!(it.repeatable("$one").await);
    let decided = it.store.applied();
    assert!(it.store.durable() < decided, "else nothing is shown here");
    it.change().await;
    assert!(it.store.durable() >= decided);
}

/// With one thread: if it waited for the disk, nothing would go on.
#[tokio::test]
async fn a_change_that_waits_for_the_disk_holds_up_no_other_conversation() {
    let backend = Arc::new(SlowBackend::default());
    let mut it = Talk::on(over(&backend), origin(), &talk()).await;
    let other = Conversation {
        id: ConversationId::new("another"),
        ..talk()
    };
    let mut batch = Batch::new();
    batch.put::<Conversations>(&other.id, &other).unwrap();
    it.store.commit(batch).await.unwrap();
    backend.hold_flushes();
    assert!(it.repeatable("$one").await);

    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let rescue = backend.clone();
    let rescuer = std::thread::spawn(move || {
        if is_done.recv_timeout(Duration::from_secs(20)).is_err() {
            rescue.release_flushes();
        }
    });
    let led_back = Input::ReturnedToRoom {
        at: it.engine.now(),
        person: 0,
    };
    let (engine, input) = (it.engine.clone(), led_back.clone());
    let change = tokio::spawn(async move { engine.apply(&id(), &[input], Batch::new()).await });
    tokio::task::yield_now().await;
    it.engine
        .apply(&other.id, &[led_back], Batch::new())
        .await
        .unwrap();
    let changed = it.store.get::<Conversations>(&other.id).unwrap().unwrap();
    assert_ne!(changed, other);
    assert!(!it.repeatable("$two").await, "a change waits");
    assert!(!change.is_finished());
    assert!(backend.release_flushes(), "the runtime stood still");
    done.send(()).unwrap();
    rescuer.join().unwrap();
    change.await.unwrap().unwrap();
    assert_ne!(
        it.store.get::<Conversations>(&id()).unwrap().unwrap(),
        talk()
    );
}

#[tokio::test]
async fn a_change_does_not_wait_for_what_was_seen_of_another_conversation() {
    let backend = Arc::new(SlowBackend::default());
    let mut it = Talk::on(over(&backend), origin(), &talk()).await;
    let other = Conversation {
        id: ConversationId::new("another"),
        ..talk()
    };
    let mut batch = Batch::new();
    batch.put::<Conversations>(&other.id, &other).unwrap();
    it.store.commit(batch).await.unwrap();
    let flushes = it.store.flushes();
    backend.hold_flushes();
    assert!(it.repeatable("$one").await);
    let led_back = Input::ReturnedToRoom {
        at: it.engine.now(),
        person: 0,
    };
    it.engine
        .apply(&other.id, &[led_back], Batch::new())
        .await
        .unwrap();
    assert!(it.repeatable("$two").await);
    assert_eq!(it.store.flushes(), flushes);
    backend.release_flushes();
}

#[tokio::test]
async fn nobody_begins_with_what_has_arrived_and_is_not_durable() {
    let mut it = Talk::begun().await;
    let body = json!({"events": [message("$one", NOW)]});
    let body = Transaction::parse(body.to_string().as_bytes()).unwrap();
    let mut taken = crate::engine::inbox::accept::InboxWrites::default();
    let raw = &body.events[0];
    it.engine.accept_event(raw, None, &mut taken).unwrap();
    it.store.apply(taken.batch).unwrap();
    taken.until = it.engine.next();
    it.actor.step().await.unwrap();
    assert!(it.carries().is_empty(), "it is not durable");
    assert!(!it.engine.retire_actor(&origin()).unwrap(), "it is there");
    it.store.flush_blocking().unwrap();
    it.engine.mark_durable(taken.until);
    // The first event of a room is looked at alone: nobody knows what was before it.
    it.fake.put_history(origin().as_str(), Vec::new());
    it.engine.machines().provision(&sam(), "Sam").await.unwrap();
    it.actor.step().await.unwrap();
    assert_eq!(it.carries(), ["$one"]);
}

#[tokio::test]
async fn a_room_with_something_left_to_do_keeps_its_actor() {
    let it = Talk::begun().await;
    assert!(it.engine.retire_actor(&origin()).unwrap());
    it.put_due(Effect::LeaveRoom);
    assert!(!it.engine.retire_actor(&origin()).unwrap());
}
