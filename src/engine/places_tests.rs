//! Other servers that accept a connection and never answer, and what goes on meanwhile.

use std::time::Duration;

use futures_util::FutureExt as _;
use ruma::{owned_user_id, user_id};
use serde_json::{Value, json};

use super::*;
use crate::{
    clock::{Clock as _, SystemClock},
    directory::ClaimedBy,
    engine::EngineSettings,
    handle::{Handle, HandleRules},
    matrix::{Fate, Transaction},
    testing::{self, EventFactory, FakeHomeserver, TestEngine},
};

fn server(name: &str) -> &ServerName {
    name.try_into().unwrap()
}

fn sam() -> OwnedUserId {
    owned_user_id!("@_dm_sam:hs.test")
}

#[test]
fn one_server_holds_two_places_and_our_own_people_have_theirs() {
    let places = Places::new(server("hs.test").to_owned(), 3);
    let place = |name: &str| places.acquire(server(name)).now_or_never();
    let held: Vec<_> = ["evil.org", "evil.org:81"].map(place).into();
    assert!(held.iter().all(Option::is_some));
    assert!(place("EVIL.org:82").is_none());
    let _third = place("far.org").unwrap();
    assert!(place("near.org").is_none(), "three in all");
    let home: Vec<_> = (0..3).map(|_| place("hs.test")).collect();
    assert!(home.iter().all(Option::is_some));
    assert!(place("hs.test").is_none());
    drop(held);
    assert!(place("near.org").is_some());
    assert!(place("evil.org").is_some());
}

/// An engine that runs, with `@sam` of Samuel, of this server.
async fn running(adjust: impl FnOnce(&mut EngineSettings)) -> (Engine, FakeHomeserver) {
    let built = testing::engine().real_time().settings(adjust).build();
    let TestEngine { engine, fake, .. } = built.await;
    let handle = Handle::parse("sam", &HandleRules::default()).unwrap();
    let mut tx = engine.directory().begin().await;
    let (samuel, by) = (testing::person("@samuel:hs.test"), ClaimedBy::Person);
    tx.claim(samuel, &handle, by, engine.now()).unwrap();
    tx.commit().await.unwrap();
    engine.machines().provision(&sam(), "Sam").await.unwrap();
    engine.start().await.unwrap();
    (engine, fake)
}

fn invite(room: &str, sender: &str, ghost: &UserId) -> Value {
    let events = EventFactory::room(room.try_into().unwrap()).sender(sender);
    let events = events.sent_at(SystemClock.now());
    let mut invite = events.member(ghost.as_str(), "invite");
    invite["content"]["is_direct"] = json!(true);
    invite
}

/// Lets the people invite, and pushes what comes of it.
async fn push_invites(engine: &Engine, fake: &FakeHomeserver, invites: &[Value]) {
    for invite in invites {
        let id = |field: &str| invite[field].as_str().unwrap();
        let room = id("room_id").try_into().unwrap();
        let (by, ghost) = (id("sender"), id("state_key"));
        fake.invite(room, by.try_into().unwrap(), ghost.try_into().unwrap());
    }
    push(engine, invites).await;
}

async fn push(engine: &Engine, events: &[Value]) {
    let body = json!({ "events": events }).to_string();
    let transaction = Transaction::parse(body.as_bytes()).unwrap();
    engine.accept_transaction(transaction).await.unwrap();
}

/// Two invites each by people of ten servers that never answer.
fn from_silent_servers(fake: &FakeHomeserver, ghost: &UserId) -> Vec<Value> {
    let rooms = (0..20).map(|n| (n, format!("evil{}.org", n % 10)));
    rooms
        .map(|(n, evil)| {
            fake.silence(&evil);
            invite(&format!("!r{n}:{evil}"), &format!("@eve{n}:{evil}"), ghost)
        })
        .collect()
}

/// Returns how long it takes until the owner is invited into the room of somebody of this server.
async fn introduced(
    engine: &Engine,
    fake: &FakeHomeserver,
    room: &str,
    asker: &UserId,
) -> Duration {
    let id = <&RoomId>::try_from(room).unwrap();
    fake.add_room(id, &[asker]);
    let begun = tokio::time::Instant::now();
    push_invites(engine, fake, &[invite(room, asker.as_str(), &sam())]).await;
    let samuel = user_id!("@samuel:hs.test");
    fake.until(|fake| fake.membership(id, samuel) == "invite")
        .await;
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_never_answer_hold_up_nobody_at_home() {
    let (engine, fake) = running(|settings| {
        settings.joins_at_once = 8;
        settings.rules.wait_for_message = Duration::from_millis(100);
        // Longer than the test.
        settings.rules.ask_abroad_for = Duration::from_secs(3600);
    })
    .await;
    let alone = introduced(&engine, &fake, "!quiet:hs.test", user_id!("@alice:hs.test")).await;
    push_invites(&engine, &fake, &from_silent_servers(&fake, &sam())).await;
    fake.until(|fake| fake.unanswered().len() == ABROAD_AT_ONCE)
        .await;
    let beside = introduced(&engine, &fake, "!busy:hs.test", user_id!("@bob:hs.test")).await;
    assert_eq!(fake.unanswered().len(), ABROAD_AT_ONCE, "all still wait");
    println!("introduced in {alone:?} alone, in {beside:?} beside ten silent servers");
    engine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_given_up_in_time_and_the_homeserver_is_not_asked_for_ever_more() {
    let (engine, fake) = running(|settings| {
        settings.joins_at_once = 1;
        settings.rules.ask_abroad_for = Duration::from_millis(100);
    })
    .await;
    fake.silence("evil.org");
    push_invites(
        &engine,
        &fake,
        &[invite("!r:evil.org", "@eve:evil.org", &sam())],
    )
    .await;
    // It is tried again, and no third time while the homeserver is busy with the first two.
    fake.until(|fake| fake.unanswered().len() == ABROAD_TO_A_SERVER)
        .await;
    push_invites(
        &engine,
        &fake,
        &[invite("!r:far.org", "@bob:far.org", &sam())],
    )
    .await;
    let far = "POST /_matrix/client/v3/rooms/!r:far.org/join".to_owned();
    fake.until(|fake| {
        fake.log()
            .iter()
            .any(|line| line.replace("%3A", ":") == far)
    })
    .await;
    assert_eq!(fake.unanswered().len(), ABROAD_TO_A_SERVER);
    engine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_show_its_history_holds_no_place() {
    let (engine, fake) = running(|settings| settings.joins_at_once = 1).await;
    let join_logged = |fake: &FakeHomeserver, room: &str| {
        let log = fake.log();
        log.iter()
            .any(|line| line.contains(room) && line.ends_with("/join"))
    };
    let eve = user_id!("@eve:evil.org");
    fake.add_room(<&RoomId>::try_from("!r:evil.org").unwrap(), &[eve]);
    let history = fake.hold("/messages", "");
    let invites = [invite("!r:evil.org", eve.as_str(), &sam())];
    push_invites(&engine, &fake, &invites).await;
    history.comes().await;
    let far = [invite("!r:far.org", "@bob:far.org", &sam())];
    push_invites(&engine, &fake, &far).await;
    fake.until(|fake| join_logged(fake, "far.org")).await;
    drop(history);
    engine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn declining_counts_as_asking_another_server() {
    let (engine, fake) = running(|settings| {
        settings.rules.decline_after = Duration::ZERO;
        settings.rules.ask_abroad_for = Duration::from_secs(3600);
    })
    .await;
    let nobody = owned_user_id!("@_dm_nobody:hs.test");
    push_invites(&engine, &fake, &from_silent_servers(&fake, &nobody)).await;
    fake.until(|fake| fake.unanswered().len() == ABROAD_AT_ONCE)
        .await;
    let home = invite("!home:hs.test", "@alice:hs.test", &nobody);
    push_invites(&engine, &fake, &[home]).await;
    fake.until(|fake| {
        fake.log()
            .iter()
            .any(|line| line.contains("!home") && line.ends_with("/leave"))
    })
    .await;
    assert_eq!(fake.unanswered().len(), ABROAD_AT_ONCE);
    engine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_server_is_silent_holds_up_no_other_owner_in_the_room() {
    let (engine, fake) = running(|settings| {
        settings.rules.ask_abroad_for = Duration::from_millis(100);
    })
    .await;
    let kim = owned_user_id!("@_dm_kim:hs.test");
    let handle = Handle::parse("kim", &HandleRules::default()).unwrap();
    let mut tx = engine.directory().begin().await;
    let (owner, by) = (testing::person("@kim:far.org"), ClaimedBy::Admin);
    tx.claim(owner, &handle, by, engine.now()).unwrap();
    tx.commit().await.unwrap();
    engine.machines().provision(&kim, "Kim").await.unwrap();
    let alice = testing::Person::new(&fake, "@alice:hs.test").await;
    alice.sign().await;
    let room = <&RoomId>::try_from("!group:hs.test").unwrap();
    fake.add_room(room, &[alice.user()]);
    fake.silence("@kim:far.org");
    let invites = [&kim, &sam()].map(|ghost| invite(room.as_str(), alice.user().as_str(), ghost));
    push_invites(&engine, &fake, &invites).await;
    fake.until(|fake| fake.membership(room, user_id!("@samuel:hs.test")) == "invite")
        .await;
    assert_eq!(fake.membership(room, &kim), "join", "it goes on trying");
    engine.stop().await.unwrap();
}

/// Synapse passes on the error of another server, whatever that server wrote.
#[tokio::test]
async fn another_server_cannot_tell_us_to_try_without_end() {
    let (engine, _fake) = running(|_| {}).await;
    let limited = || MatrixError::RateLimited { retry_after: None };
    let theirs = engine.ask(server("evil.org"), async move { Err::<(), _>(limited()) });
    let theirs = theirs.await.unwrap_err();
    assert_eq!(theirs.fate(), Fate::Failing);
    assert!(!theirs.is_outage(), "it counts toward the deadline");
    let ours = engine.ask(server("hs.test"), async move { Err::<(), _>(limited()) });
    assert_eq!(ours.await.unwrap_err().fate(), Fate::Away);
}
