//! What the inbox holds after transactions that come again, come twice at once, or hold rubbish.
//! The engine is not started: what was taken in stays where it can be counted.

use std::time::Duration;

use ruma::{OwnedRoomId, event_id, room_id, user_id};
use serde_json::{Value, json};

use crate::{
    engine::{
        inbox::dead_letters::count_dead_letters,
        records::{DeadLetters, Inbox, Rooms, Seen, SeenBlocks, SeenPacks, SyncTokens, ToDevice},
    },
    matrix::Transaction,
    store::{Batch, Digest, Store, Table, prefix},
    testing::{self, EventFactory, TestEngine},
};

fn room() -> OwnedRoomId {
    room_id!("!room:hs.test").to_owned()
}

fn event(id: &str) -> Value {
    EventFactory::room(&room()).encrypted(id)
}

fn transaction(events: &[Value]) -> Transaction {
    let body = json!({ "events": events });
    Transaction::parse(body.to_string().as_bytes()).unwrap()
}

fn taken(store: &Store) -> usize {
    store
        .scan::<Inbox>(&prefix(&room()), None, 10_000)
        .unwrap()
        .len()
}

#[tokio::test]
async fn a_transaction_that_comes_again_is_taken_in_once() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    let events = [event("$one"), event("$two")];
    engine
        .accept_transaction(transaction(&events))
        .await
        .unwrap();
    engine
        .accept_transaction(transaction(&events))
        .await
        .unwrap();
    assert_eq!(taken(&store), 2);
    let more = [event("$two"), event("$three"), event("$three")];
    engine.accept_transaction(transaction(&more)).await.unwrap();
    assert_eq!(taken(&store), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transaction_that_comes_twice_at_the_same_time_is_taken_in_once() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    let events: Vec<Value> = (0..100).map(|n| event(&format!("$event{n}"))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (engine, body) = (engine.clone(), transaction(&events));
        tasks.spawn(async move { engine.accept_transaction(body).await });
    }
    while let Some(taken) = tasks.join_next().await {
        taken.unwrap().unwrap();
    }
    assert_eq!(taken(&store), 100);
}

#[tokio::test]
async fn the_same_to_device_message_is_kept_once_however_it_comes() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    // Nobody's machine takes it out again: this ghost has none.
    let message = json!({
        "type": "m.room.encrypted", "sender": "@alice:hs.test", "content": { "body": "x" },
        "to_user_id": "@_dm_sam:hs.test", "to_device_id": "DEV",
    });
    let raw = serde_json::value::to_raw_value(&message).unwrap();
    let mut pushed = crate::engine::inbox::accept::InboxWrites::default();
    engine.accept_to_device(&raw, None, &mut pushed).unwrap();
    store.apply(pushed.batch).unwrap();

    let synced = json!({
        "content": { "body": "x" }, "sender": "@alice:hs.test", "type": "m.room.encrypted",
    });
    let raw = serde_json::value::to_raw_value(&synced).unwrap();
    let ghost = user_id!("@_dm_sam:hs.test").to_owned();
    let mut again = crate::engine::inbox::accept::InboxWrites::default();
    engine
        .accept_to_device(&raw, Some(&ghost), &mut again)
        .unwrap();
    assert!(again.batch.is_empty());
    assert_eq!(store.scan::<ToDevice>(&[], None, 10).unwrap().len(), 1);

    // Nothing but keys concerns a machine, and nothing is remembered of the rest.
    let request = json!({
        "type": "m.room_key_request", "sender": "@eve:evil.test", "content": {},
        "to_user_id": "@_dm_sam:hs.test", "to_device_id": "DEV",
    });
    let raw = serde_json::value::to_raw_value(&request).unwrap();
    let mut ignored = crate::engine::inbox::accept::InboxWrites::default();
    engine.accept_to_device(&raw, None, &mut ignored).unwrap();
    assert!(ignored.batch.is_empty() && ignored.dead_letters.is_empty());
}

#[tokio::test]
async fn what_we_have_said_ourselves_is_answered_two_milliseconds_apart() {
    let engine = testing::engine().build().await.engine;
    let began = tokio::time::Instant::now();
    for n in 0..50 {
        let mut own = event(&format!("$own{n}"));
        own["sender"] = json!("@_dm_sam:hs.test");
        engine
            .accept_transaction(transaction(&[own]))
            .await
            .unwrap();
    }
    assert!(began.elapsed() >= Duration::from_millis(49 * 2));
}

#[tokio::test]
async fn what_cannot_be_read_is_set_aside_and_the_rest_goes_on() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    let rubbish = [
        json!({}),
        json!({ "type": "m.room.encrypted", "event_id": 7 }),
        json!({ "type": "m.room.encrypted", "event_id": "$x", "sender": "nobody" }),
        json!({ "type": "m.room.encrypted", "event_id": "$y", "sender": "@a:b", "content": {} }),
        event("$good"),
    ];
    engine
        .accept_transaction(transaction(&rubbish))
        .await
        .unwrap();
    assert_eq!(taken(&store), 1);
    assert_eq!(store.scan::<DeadLetters>(&[], None, 100).unwrap().len(), 4);
    let counts = count_dead_letters(&store).unwrap();
    assert_eq!(counts, [("event_malformed".to_owned(), 4)].into());
}

/// [`Rooms`] with a record that nobody can read.
struct BrokenRooms;

impl Table for BrokenRooms {
    const ID: u8 = Rooms::ID;
    const NAME: &'static str = Rooms::NAME;
    const SECRET: bool = Rooms::SECRET;
    type Key = <Rooms as Table>::Key;
    type Value = String;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_keeps_out_nothing_that_arrives() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    let broken = "no record".to_owned();
    let mut batch = Batch::new();
    batch.put::<BrokenRooms>(&room(), &broken).unwrap();
    store.apply(batch).unwrap();
    assert!(store.get::<Rooms>(&room()).is_err());
    let invite = EventFactory::room(&room()).member("@_dm_sam:hs.test", "invite");
    let other = room_id!("!other:hs.test").to_owned();
    let events = [
        invite,
        event("$one"),
        EventFactory::room(&other).encrypted("$two"),
    ];
    engine
        .accept_transaction(transaction(&events))
        .await
        .unwrap();
    assert_eq!(taken(&store), 2);
    let others = store.scan::<Inbox>(&prefix(&other), None, 10).unwrap();
    assert_eq!(others.len(), 1);
}

#[tokio::test]
async fn what_arrived_is_known_for_a_week_and_forgotten_after_two() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let TestEngine {
        engine,
        store,
        clock,
        ..
    } = testing::engine().build().await;
    let has_arrived = |id: &str| engine.has_arrived(id.try_into().unwrap()).unwrap();
    let records = || {
        let loose = store.scan::<Seen>(&[], None, 9999).unwrap().len();
        let packed = store
            .scan::<SeenPacks>(&[], None, 9999)
            .unwrap()
            .into_iter();
        packed.fold(loose, |sum, (_, pack)| sum + pack.arrivals.len())
    };
    // What a long gap in a room brings at once.
    let many: Vec<Value> = (0..3000).map(|n| event(&format!("$gap{n}"))).collect();
    engine.accept_transaction(transaction(&many)).await.unwrap();
    let mut batch = Batch::new();
    let message = Digest::of("message");
    engine.mark_seen_to_device(message, &mut batch).unwrap();
    store.apply(batch).unwrap();

    clock.advance(6 * DAY);
    engine.forget_old_arrivals().await.unwrap();
    engine
        .accept_transaction(transaction(&[event("$younger")]))
        .await
        .unwrap();
    for _ in 0..7 {
        clock.advance(DAY);
        engine.forget_old_arrivals().await.unwrap();
        // An event that is handled late moves to the present block, and keeps its time.
        let mut batch = Batch::new();
        engine
            .mark_seen(event_id!("$gap0"), true, &mut batch)
            .unwrap();
        store.apply(batch).unwrap();
        for id in ["$gap0", "$gap2999", "$younger"] {
            assert!(has_arrived(id), "{id}");
        }
        assert!(engine.has_arrived_to_device(message).unwrap());
    }
    let seen = engine.seen(event_id!("$gap0")).unwrap().unwrap();
    assert!(seen.handled && engine.now().since(seen.at) == 13 * DAY);

    // Of the first day, and of the sixth.
    for (forgotten, known) in [("$gap2999", "$younger"), ("$younger", "$gap0")] {
        clock.advance(DAY);
        engine.forget_old_arrivals().await.unwrap();
        assert!(has_arrived(known), "{known}");
        assert!(!has_arrived(forgotten), "{forgotten}");
        assert!(!engine.has_arrived_to_device(message).unwrap());
    }
    clock.advance(9 * DAY);
    engine.forget_old_arrivals().await.unwrap();
    assert_eq!(records(), 0);
    assert_eq!(store.scan::<SeenBlocks>(&[], None, 99).unwrap().len(), 1);
}

#[tokio::test]
async fn a_clock_that_was_ahead_does_not_keep_arrivals_from_being_forgotten() {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    let store = Store::in_memory();
    let year_ahead = testing::NOW + 52 * WEEK;
    let mut batch = Batch::new();
    batch.put::<SeenBlocks>(&1, &year_ahead).unwrap();
    store.apply(batch).unwrap();
    let TestEngine { engine, clock, .. } = testing::engine().store(&store).build().await;
    let body = transaction(&[event("$one")]);
    engine.accept_transaction(body).await.unwrap();
    for _ in 0..3 {
        engine.forget_old_arrivals().await.unwrap();
        clock.advance(WEEK);
    }
    engine.forget_old_arrivals().await.unwrap();
    assert!(!engine.has_arrived(event_id!("$one")).unwrap());
    assert_eq!(store.scan::<Seen>(&[], None, 9).unwrap().len(), 0);
}

/// An invite with as much stripped state as is asked for.
fn invite(id: &str, bytes: usize) -> Value {
    let state = json!([
        {"type": "m.room.create", "state_key": "", "sender": "@eve:evil.org", "content": {}},
        {"type": "m.room.topic", "state_key": "", "sender": "@eve:evil.org",
            "content": {"topic": "A".repeat(bytes)}},
    ]);
    json!({
        "type": "m.room.member", "event_id": id, "room_id": "!big:evil.org",
        "sender": "@eve:evil.org", "origin_server_ts": -1, "state_key": "@_dm_sam:hs.test",
        "content": {"membership": "invite"},
        "unsigned": {"invite_room_state": state}, "invite_room_state": state,
    })
}

#[tokio::test]
async fn an_invite_with_any_amount_of_stripped_state_stops_nothing() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    for (at, kib) in [4, 400, 600, 1500, 6000].into_iter().enumerate() {
        let (big, beside) = (format!("$big{at}"), format!("$beside{at}"));
        let events = [event(&beside), invite(&big, kib << 10)];
        engine
            .accept_transaction(transaction(&events))
            .await
            .unwrap();
        let seen = |id: &str| engine.has_arrived(id.try_into().unwrap()).unwrap();
        assert!(seen(&beside), "{kib} KiB");
        // Above 4 MiB even its reduction is not tried.
        assert_eq!(seen(&big), kib < 2000, "{kib} KiB");
    }
    let counts = count_dead_letters(&store).unwrap();
    assert_eq!(counts, [("event_too_large".to_owned(), 1)].into());
    let letters = store.scan::<DeadLetters>(&[], None, 9).unwrap();
    let letter = &letters[0].1.letter;
    assert_eq!(letter.room.as_deref(), Some(room_id!("!big:evil.org")));
    assert_eq!(letter.user.as_deref(), Some(user_id!("@_dm_sam:hs.test")));
    assert!(letter.size > 12_000_000, "{}", letter.size);
}

#[tokio::test]
async fn a_message_to_a_device_that_is_too_large_is_counted_and_the_rest_goes_on() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    let message = |bytes: usize| {
        json!({"type": "m.room.encrypted", "sender": "@eve:evil.org",
            "to_user_id": "@_dm_.bot:hs.test", "to_device_id": "DEV",
            "content": {"pad": "A".repeat(bytes)}})
    };
    let body = json!({"events": [event("$good")],
        "to_device": [message(10), message(1 << 20), message(5 << 20), message(20)]});
    let body = Transaction::parse(body.to_string().as_bytes()).unwrap();
    engine.accept_transaction(body).await.unwrap();
    assert_eq!(taken(&store), 1);
    assert_eq!(store.scan::<ToDevice>(&[], None, 9).unwrap().len(), 2);
    let counts = count_dead_letters(&store).unwrap();
    assert_eq!(counts, [("to_device_too_large".to_owned(), 2)].into());
}

#[tokio::test]
async fn a_sync_goes_on_behind_what_is_too_large() {
    let TestEngine {
        engine,
        store,
        fake,
        ..
    } = testing::engine().build().await;
    let sam = user_id!("@_dm_sam:hs.test").to_owned();
    engine.machines().provision(&sam, "Sam").await.unwrap();
    let large = json!({"type": "m.room.encrypted", "sender": "@eve:evil.org",
        "content": {"pad": "A".repeat(2 << 20)}});
    fake.put_to_device(&sam, &[large.clone(), large]);
    engine.sync_all_pending(&sam).await.unwrap();
    let token = store.get::<SyncTokens>(&sam).unwrap();
    assert_eq!(token, Some(fake.sync_token()));
    let counts = count_dead_letters(&store).unwrap();
    assert_eq!(counts, [("to_device_too_large".to_owned(), 2)].into());
}

#[tokio::test]
async fn the_parts_of_a_large_transaction_wake_their_rooms_with_the_last() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    let mut part = transaction(&[event("$one")]);
    part.more = true;
    engine.accept_transaction(part).await.unwrap();
    assert_eq!(taken(&store), 1);
    assert_eq!(*engine.0.held_rooms.lock().await, [room()]);
    engine
        .accept_transaction(transaction(&[event("$two")]))
        .await
        .unwrap();
    assert_eq!(taken(&store), 2);
    assert!(engine.0.held_rooms.lock().await.is_empty());
}

#[tokio::test]
async fn what_was_set_aside_marks_its_room_for_backfill() {
    let engine = testing::engine().build().await.engine;
    engine
        .accept_transaction(transaction(&[event("$one")]))
        .await
        .unwrap();
    let is_checked = || {
        engine
            .0
            .gap_checked_at
            .lock()
            .unwrap()
            .contains_key(&room())
    };
    assert!(is_checked());
    let mut large = event("$large");
    large["content"]["body"] = json!("x".repeat(200_000));
    engine
        .accept_transaction(transaction(&[large]))
        .await
        .unwrap();
    assert!(
        !is_checked(),
        "its next event is preceded by a look at its history"
    );
}

#[tokio::test]
async fn only_the_newest_thousand_dead_letters_are_kept() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    let rubbish: Vec<Value> = (0..1500).map(|n| json!({"odd": n})).collect();
    engine
        .accept_transaction(transaction(&rubbish))
        .await
        .unwrap();
    engine
        .accept_transaction(transaction(&rubbish))
        .await
        .unwrap();
    let counts = count_dead_letters(&store).unwrap();
    assert_eq!(counts, [("event_malformed".to_owned(), 3000)].into());
    assert_eq!(
        store.scan::<DeadLetters>(&[], None, 9999).unwrap().len(),
        1000
    );
}

#[tokio::test]
async fn events_of_countless_small_parts_are_accepted_one_after_the_other() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    let dense = |id: &str| {
        let mut event = event(id);
        event["content"]["x"] = json!(vec![json!({}); 12_000]);
        event
    };
    let events = [event("$first"), dense("$a"), dense("$b"), event("$last")];
    let json = |event: &Value| serde_json::value::to_raw_value(event).unwrap();
    let raw: Vec<_> = events.iter().map(json).collect();
    assert!(super::accept::parse_unless_dense(&raw).is_none());
    assert!(super::accept::parse_unless_dense(&raw[..2]).is_some());
    engine
        .accept_transaction(transaction(&events))
        .await
        .unwrap();
    assert_eq!(taken(&store), 4);
}
