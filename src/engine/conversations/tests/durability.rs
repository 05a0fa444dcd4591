//! What is carried on before it is durable, and what waits until it is.

use super::*;

#[tokio::test]
async fn what_is_decided_on_a_change_that_a_crash_could_take_is_made_sure_of() {
    let mut it = Talk::begun().await;
    assert!(it.repeatable("$one").await);
    it.change();
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
    it.change();
    assert!(it.store.durable() >= decided);
}

#[tokio::test]
async fn nobody_begins_with_what_has_arrived_and_is_not_durable() {
    let mut it = Talk::begun().await;
    let body = json!({"events": [message("$one", NOW)]});
    let body = Transaction::parse(body.to_string().as_bytes()).unwrap();
    let mut taken = crate::engine::inbox::accept::InboxWrites::default();
    let raw = &body.events[0];
    it.engine.accept_event(raw, None, &mut taken).unwrap();
    it.store.apply(taken.finish_batch().unwrap()).unwrap();
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
