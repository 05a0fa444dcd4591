use ruma::{RoomId, UserId, room_id, user_id};
use serde_json::json;

use super::*;
use crate::testing::{self, FakeHomeserver, TestEngine, When};

fn room() -> &'static RoomId {
    room_id!("!room:hs.test")
}

fn sam() -> Ghost {
    Ghost::new(user_id!("@_dm_sam:hs.test").to_owned())
}

/// Sam's ghost in a room in which it has sent twelve messages.
async fn twelve_messages() -> (Engine, FakeHomeserver) {
    let TestEngine { engine, fake, .. } = testing::engine().build().await;
    engine.machines().provision(&sam(), "Sam").await.unwrap();
    let members: [&UserId; 1] = [&sam()];
    fake.add_room(room(), &members);
    let acting = engine.as_user(&sam()).unwrap();
    for n in 1..=12 {
        let content = serde_json::value::to_raw_value(&json!({"body": n})).unwrap();
        let (homeserver, kind) = (engine.homeserver(), "m.room.message");
        let transaction = format!("t{n}").into();
        homeserver
            .send_message(acting.actor(), room(), kind, &content, transaction)
            .await
            .unwrap();
    }
    (engine, fake)
}

/// Returns the numbers of the messages in a page.
fn numbers(page: Option<Vec<Box<RawValue>>>) -> Vec<u64> {
    let events = page.unwrap().into_iter();
    let events = events.map(|json| serde_json::from_str::<serde_json::Value>(json.get()).unwrap());
    events
        .filter_map(|event| event["content"]["body"].as_u64())
        .collect()
}

fn pages_requested(fake: &FakeHomeserver) -> usize {
    let log = fake.log();
    log.iter()
        .filter(|line| line.ends_with("/messages"))
        .count()
}

#[tokio::test]
async fn pages_follow_one_another_up_to_the_maximum_number() {
    let (engine, fake) = twelve_messages().await;
    let acting = engine.as_user(&sam()).unwrap();
    let mut history = engine.history(acting.actor(), room()).limit(2, 5);
    assert_eq!(
        numbers(history.next_page().await.unwrap()),
        [12, 11, 10, 9, 8]
    );
    assert_eq!(numbers(history.next_page().await.unwrap()), [7, 6, 5, 4, 3]);
    assert!(history.next_page().await.unwrap().is_none());
    assert_eq!(pages_requested(&fake), 2);

    let mut history = engine.history(acting.actor(), room()).limit(100, 5);
    let mut all = Vec::new();
    while let Some(page) = history.next_page().await.unwrap() {
        all.extend(numbers(Some(page)));
    }
    assert_eq!(all, (1..=12).rev().collect::<Vec<_>>());
    assert!(history.next_page().await.unwrap().is_none());
}

#[tokio::test]
async fn a_page_that_fails_is_requested_again_and_a_refusal_is_not() {
    let (engine, fake) = twelve_messages().await;
    let acting = engine.as_user(&sam()).unwrap();
    let history = engine.history(acting.actor(), room()).limit(3, 5);
    let mut history = history.with_retries();
    assert_eq!(numbers(history.next_page().await.unwrap()).len(), 5);
    fake.fail(0, When::Before);
    assert_eq!(numbers(history.next_page().await.unwrap()), [7, 6, 5, 4, 3]);
    assert_eq!(pages_requested(&fake), 3);

    fake.forbid("/messages");
    let error = history.next_page().await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert_eq!(pages_requested(&fake), 4);
}

/// An actor holds its place, for which others wait, while it looks what was said.
#[tokio::test]
async fn a_short_reading_leaves_retries_to_the_retry_policy() {
    let (engine, fake) = twelve_messages().await;
    fake.fail(0, When::Before);
    let room = room().to_owned();
    let error = engine.read_back(&sam(), &room).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(pages_requested(&fake), 1);
}

#[tokio::test]
async fn a_homeserver_that_holds_history_back_is_waited_for_a_while_in_all() {
    let (engine, fake) = twelve_messages().await;
    let acting = engine.as_user(&sam()).unwrap();
    fake.silence("/messages");
    let history = engine.history(acting.actor(), room()).limit(3, 5);
    let mut history = history.with_retries().within(Duration::from_millis(100));
    for _ in 0..2 {
        let error = history.next_page().await.unwrap_err();
        assert!(matches!(error, EngineError::HistoryTooSlow), "{error}");
        assert!(error.is_transient() && error.may_be_outage());
    }
}
