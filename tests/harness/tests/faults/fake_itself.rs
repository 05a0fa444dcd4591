//! The fake homeserver keeps the rules and has the traps that its stories are about.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::put,
};
use harness::{
    Trust,
    fake::{Arrival, Fake, Faults, Options, Person, Registration, Restart},
};
use ruma::{RoomId, UserId, api::Direction, owned_user_id, user_id};
use serde_json::{Value, json, value::RawValue};
use stonechat::matrix::{Actor, Homeserver, HomeserverOptions, Transaction};
use tokio::sync::watch;

/// An application service that takes transactions, or does not.
#[derive(Clone)]
struct Double {
    taken: Arc<Mutex<Vec<(u64, Value)>>>,
    answers: Arc<AtomicU16>,
    news: watch::Sender<usize>,
}

async fn take(
    State(double): State<Double>,
    Path(id): Path<u64>,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let status = StatusCode::from_u16(double.answers.load(Ordering::SeqCst));
    double.taken.lock().expect("no panic").push((id, body));
    double.news.send_modify(|n| *n += 1);
    (status.expect("a status"), Json(json!({})))
}

impl Double {
    async fn start(fake: &Fake) -> Result<Self> {
        let double = Self {
            taken: Arc::default(),
            answers: Arc::new(AtomicU16::new(200)),
            news: watch::Sender::new(0),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let path = "/_matrix/app/v1/transactions/{id}";
        let app = Router::new().route(path, put(take));
        let app = app.with_state(double.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        fake.serves(Registration {
            id: "stonechat".to_owned(),
            url,
            as_token: "as".to_owned(),
            hs_token: "hs".to_owned(),
            sender: "@_dm_.svc:fake.test".to_owned(),
            prefix: "@_dm_".to_owned(),
        });
        Ok(double)
    }

    fn answers(&self, status: u16) {
        self.answers.store(status, Ordering::SeqCst);
    }

    /// Waits for a transaction that `wanted` says yes to, among all from the `from`th on.
    async fn takes(&self, from: usize, wanted: impl Fn(&Value) -> bool) -> Result<(u64, Value)> {
        let mut news = self.news.subscribe();
        let found = async {
            loop {
                let taken = self.taken.lock().expect("no panic").clone();
                let found = taken.into_iter().skip(from).find(|(_, body)| wanted(body));
                if let Some(found) = found {
                    return anyhow::Ok(found);
                }
                news.changed().await?;
            }
        };
        let found = tokio::time::timeout(harness::PATIENCE, found).await;
        found.with_context(|| format!("got only {:#?}", self.taken.lock()))?
    }

    fn count(&self) -> usize {
        self.taken.lock().expect("no panic").len()
    }
}

fn says(body: &Value, event: &str) -> bool {
    let events = body["events"].as_array().into_iter().flatten();
    events.into_iter().any(|is| is["event_id"] == event)
}

fn messages(body: &Value) -> usize {
    let messages = body["de.sorunome.msc2409.to_device"].as_array();
    messages.map_or(0, Vec::len)
}

fn ghost_id() -> &'static UserId {
    user_id!("@_dm_sam:fake.test")
}

/// A homeserver with an application service, one of its users on a device, and Alice in a room
/// with it.
struct Scene {
    fake: Fake,
    double: Double,
    hs: Homeserver,
    alice: Arc<Person>,
    room: ruma::OwnedRoomId,
}

fn ghost() -> Actor<'static> {
    Actor::device(ghost_id(), "GHOST".into())
}

async fn connect(fake: &Fake) -> Result<Homeserver> {
    let options = HomeserverOptions::default();
    Ok(Homeserver::connect(fake.url(), "as".into(), options).await?)
}

impl Scene {
    async fn new() -> Result<Self> {
        let fake = Fake::start(Options::default()).await?;
        let double = Double::start(&fake).await?;
        let hs = connect(&fake).await?;
        ensure!(hs.register("_dm_sam").await?);
        ensure!(!hs.register("_dm_sam").await?);
        hs.put_device(ghost_id(), "GHOST".into(), "a ghost").await?;
        let alice = Person::register(&fake, "alice").await?;
        let room = alice.starts_chat(&[ghost_id()]).await?;
        hs.join(ghost(), &room).await?;
        let scene = Self {
            fake,
            double,
            hs,
            alice,
            room,
        };
        scene.all_is_pushed().await?;
        Ok(scene)
    }

    /// Waits until everything that was queued has been acknowledged.
    async fn all_is_pushed(&self) -> Result<()> {
        let pushed = async {
            while !self.fake.with(|server| server.queue.is_idle()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let pushed = tokio::time::timeout(harness::PATIENCE, pushed).await;
        pushed.context("something is never acknowledged")
    }

    async fn note(&self, transaction: &str) -> Result<()> {
        let to = (ghost_id(), "GHOST".into());
        let content = ruma::serde::Raw::<Value>::from_json(raw(&json!({"mark": transaction})));
        let sending = self
            .hs
            .send_to_device(ghost(), to, "test", &content, transaction.into());
        Ok(sending.await?)
    }

    async fn says(&self, room: &RoomId, transaction: &str) -> Result<String> {
        let content = raw(&json!({"msgtype": "m.text", "body": transaction}));
        let sending = self.hs.send_message(
            ghost(),
            room,
            "m.room.message",
            &content,
            transaction.into(),
        );
        Ok(sending.await?.to_string())
    }

    async fn sync(&self, since: Option<&str>) -> Result<stonechat::matrix::SyncPage> {
        let sync = self.hs.sync(ghost(), since, None, Duration::ZERO).await?;
        Ok(sync.read_whole().await?)
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("JSON")
}

#[tokio::test]
async fn two_people_chat_from_devices_that_they_have_signed() -> Result<()> {
    let fake = Fake::start(Options::default()).await?;
    let alice = Person::register(&fake, "alice").await?;
    let sam = Person::register(&fake, "sam").await?;
    let room = alice.starts_chat(&[&sam.user_id]).await?;
    alice.says(&room, "before he is there").await?;
    let invite = sam.invited(|invite| invite.room == room).await?;
    ensure!(invite.is_direct && invite.encrypted && invite.sender == alice.user_id);
    sam.joins(&room).await?;
    for n in 0..3 {
        sam.says(&room, &format!("Sam's {n}")).await?;
        alice.says(&room, &format!("Alice's {n}")).await?;
    }
    for person in [&alice, &sam] {
        let all =
            |log: &harness::Log| (log.texts_in(&room).len() == 7).then(|| log.texts_in(&room));
        let said = person.until("seven messages", all).await?;
        let sams: Vec<&str> = said
            .iter()
            .filter(|(by, _)| *by == sam.user_id)
            .map(|(_, text)| text.as_str())
            .collect();
        ensure!(sams == ["Sam's 0", "Sam's 1", "Sam's 2"], "{said:?}");
        ensure!(person.log().shields().is_empty());
    }
    ensure!(fake.reuses().is_empty());
    Ok(())
}

#[tokio::test]
async fn nobody_reads_a_device_that_its_owner_has_not_signed() -> Result<()> {
    let fake = Fake::start(Options::default()).await?;
    let alice = Person::register(&fake, "alice").await?;
    let sam = Person::unsigned(&fake, "sam").await?;
    let room = alice.starts_chat(&[&sam.user_id]).await?;
    sam.invited(|invite| invite.room == room).await?;
    sam.joins(&room).await?;
    let unsigned = sam.says(&room, "unsigned").await?;
    let closed = |seen: &harness::Seen| seen.event_id == unsigned;
    let seen = alice.sees(&room, "his message", closed).await?;
    let Trust::Undecryptable { reason } = &seen.trust else {
        bail!("{seen:?}");
    };
    ensure!(reason.contains("not signed"), "{reason}");
    Ok(())
}

#[tokio::test]
async fn a_transaction_id_counts_for_all_users_of_the_service() -> Result<()> {
    let scene = Scene::new().await?;
    let first = scene.says(&scene.room, "once").await?;
    ensure!(scene.says(&scene.room, "once").await? == first);
    // Another user in the same room: nothing is sent, and nobody is told.
    scene.hs.register("_dm_kim").await?;
    let kim = user_id!("@_dm_kim:fake.test");
    scene.hs.put_device(kim, "KIM".into(), "another").await?;
    scene
        .hs
        .invite_direct(ghost(), &scene.room, kim, None)
        .await?;
    let kims = Actor::device(kim, "KIM".into());
    scene.hs.join(kims, &scene.room).await?;
    let content = raw(&json!({"msgtype": "m.text", "body": "Kim's"}));
    let sending =
        scene
            .hs
            .send_message(kims, &scene.room, "m.room.message", &content, "once".into());
    ensure!(sending.await?.as_str() == first);
    let said = scene.fake.events(scene.room.as_str());
    ensure!(said.iter().filter(|is| is.kind == "m.room.message").count() == 1);

    // A restart forgets those that are only in memory.
    scene.note("note").await?;
    scene.note("note").await?;
    ensure!(scene.sync(None).await?.to_device.len() == 1);
    scene.fake.restart(Restart::InOrder, Duration::ZERO).await;
    ensure!(scene.says(&scene.room, "once").await? == first);
    scene.note("note").await?;
    ensure!(scene.sync(None).await?.to_device.len() == 2);
    Ok(())
}

#[tokio::test]
async fn a_message_to_a_device_is_pushed_once_and_stays_until_a_sync_acknowledges_it() -> Result<()>
{
    let scene = Scene::new().await?;
    scene.note("pushed").await?;
    scene.double.takes(0, |body| messages(body) == 1).await?;
    scene.all_is_pushed().await?;

    // A transaction with a message and an event fails: the event comes again, the message does not.
    scene.double.answers(500);
    let before = scene.double.count();
    let event = scene.says(&scene.room, "again").await?;
    let (id, _) = scene
        .double
        .takes(before, |body| says(body, &event))
        .await?;
    scene.note("lost").await?;
    scene.double.answers(200);
    let again = |body: &Value| says(body, &event) && messages(body) == 0;
    let (again, body) = scene.double.takes(before + 1, again).await?;
    ensure!(again == id, "the same transaction has the same id");
    ensure!(body.get("org.matrix.msc3202.device_lists").is_none());
    let later = scene.says(&scene.room, "later").await?;
    scene
        .double
        .takes(before, |body| says(body, &later))
        .await?;
    let taken = scene.double.taken.lock().expect("no panic").clone();
    let pushed: usize = taken.iter().map(|(_, body)| messages(body)).sum();
    ensure!(pushed == 1, "{taken:#?}");

    // Both are in the inbox, and gone when the next sync acknowledges them.
    let page = scene.sync(None).await?;
    ensure!(page.to_device.len() == 2);
    let page = scene.sync(page.next_batch.as_deref()).await?;
    ensure!(page.to_device.is_empty());
    ensure!(scene.sync(None).await?.to_device.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_restart_loses_what_was_queued_and_counts_from_one_again() -> Result<()> {
    let scene = Scene::new().await?;
    let first = scene.says(&scene.room, "first").await?;
    let (id, _) = scene.double.takes(0, |body| says(body, &first)).await?;
    ensure!(id > 1);
    scene.all_is_pushed().await?;
    // Queued behind nothing: the homeserver goes down before it pushes.
    let before = scene.double.count();
    let lost = scene.fake.with(|server| {
        let draft = |text: &str| harness::fake::Draft {
            state_key: None,
            ..harness::fake::Draft::state(
                ghost_id().as_str(),
                "m.room.message",
                "",
                &json!({"body": text}),
            )
        };
        let lost = server.append(scene.room.as_str(), draft("lost"));
        server.queue.restart(false);
        lost
    });
    let next = scene.says(&scene.room, "next").await?;
    let (id, _) = scene.double.takes(before, |body| says(body, &next)).await?;
    ensure!(id == 1, "{id}");
    let taken = scene.double.taken.lock().expect("no panic").clone();
    ensure!(!taken.iter().any(|(_, body)| says(body, &lost)));
    // It is in the history all the same.
    let page = scene
        .hs
        .messages(ghost(), &scene.room, None, Direction::Backward, 10)
        .await?;
    ensure!(page.events.iter().any(|is| is.get().contains(&lost)));
    Ok(())
}

#[tokio::test]
async fn a_service_that_was_down_at_a_restart_is_tried_again_at_the_next_event() -> Result<()> {
    let scene = Scene::new().await?;
    scene.double.answers(500);
    let before = scene.double.count();
    let event = scene.says(&scene.room, "while down").await?;
    scene
        .double
        .takes(before, |body| says(body, &event))
        .await?;
    scene.fake.restart(Restart::InOrder, Duration::ZERO).await;
    scene.double.answers(200);
    let tries = scene.double.count();
    // Longer than any pause between two tries: nobody tries.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    scene.note("dropped").await?;
    ensure!(scene.double.count() == tries);
    let next = scene.says(&scene.room, "wakes it").await?;
    scene.double.takes(tries, |body| says(body, &event)).await?;
    scene.double.takes(tries, |body| says(body, &next)).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_pushed_has_the_shapes_of_synapse() -> Result<()> {
    let scene = Scene::new().await?;
    let is_invite = |body: &Value| body["events"][0]["content"]["membership"] == "invite";
    let (_, invite) = scene.double.takes(0, is_invite).await?;
    let state = &invite["events"][0]["unsigned"]["invite_room_state"];
    ensure!(state == &invite["events"][0]["invite_room_state"]);
    let kinds: Vec<&Value> = state
        .as_array()
        .context("state")?
        .iter()
        .map(|is| &is["type"])
        .collect();
    let want = [
        "m.room.create",
        "m.room.join_rules",
        "m.room.encryption",
        "m.room.member",
    ];
    ensure!(kinds == want, "{kinds:?}");

    scene.alice.says(&scene.room, "hello").await?;
    let is_message = |body: &Value| body["events"][0]["type"] == "m.room.encrypted";
    let (_, body) = scene.double.takes(0, is_message).await?;
    let event = &body["events"][0];
    ensure!(event["user_id"] == event["sender"] && event["age"].is_u64());
    ensure!(event["unsigned"]["transaction_id"].is_null());
    // A device without keys has an empty object and no zero.
    let counts = &body["org.matrix.msc3202.device_one_time_keys_count"];
    ensure!(
        counts[ghost_id().as_str()]["GHOST"] == json!({}),
        "{counts}"
    );
    ensure!(counts == &body["org.matrix.msc3202.device_one_time_key_counts"]);
    for (_, body) in scene.double.taken.lock().expect("no panic").iter() {
        let read = Transaction::parse(body.to_string().as_bytes())?;
        ensure!(read.dropped == 0, "{body:#}");
    }
    Ok(())
}

#[tokio::test]
async fn one_time_keys_are_given_out_once_and_then_the_fallback_key() -> Result<()> {
    let fake = Fake::start(Options::default()).await?;
    let alice = Person::register(&fake, "alice").await?;
    let sam = Person::register(&fake, "sam").await?;
    let held = |fake: &Fake| {
        fake.with(|server| {
            server.accounts["@sam:fake.test"].devices["PHONE"]
                .keys
                .one_time_count()
        })
    };
    let mut given = std::collections::BTreeSet::new();
    let count = held(&fake);
    ensure!(count > 1);
    // More than there are, so that the last comes twice.
    for _ in 0..count + 2 {
        let mut claim = ruma::api::client::keys::claim_keys::v3::Request::new(Default::default());
        claim.one_time_keys = [(
            sam.user_id.clone(),
            [("PHONE".into(), ruma::OneTimeKeyAlgorithm::SignedCurve25519)].into(),
        )]
        .into();
        let answer = alice.asks_for(claim).await?;
        let keys = &answer.one_time_keys[&sam.user_id][ruma::device_id!("PHONE")];
        given.extend(keys.values().map(|key| key.json().get().to_owned()));
    }
    ensure!(given.len() == count + 1, "{} of {count}", given.len());
    ensure!(held(&fake) == 0);
    Ok(())
}

#[tokio::test]
async fn the_invited_see_what_comes_after_their_invite() -> Result<()> {
    let scene = Scene::new().await?;
    scene.alice.says(&scene.room, "before").await?;
    let kim = Person::register(&scene.fake, "kim").await?;
    let before = scene.alice.says(&scene.room, "just before").await?;
    scene
        .hs
        .invite_direct(ghost(), &scene.room, &kim.user_id, None)
        .await?;
    let after = scene.alice.says(&scene.room, "after").await?;
    kim.joins(&scene.room).await?;
    let seen = kim.sees(&scene.room, "it", |seen| seen.event_id == after);
    ensure!(seen.await?.text() == Some("after"));
    ensure!(kim.log().find(|seen| seen.event_id == before).is_none());
    // Who is in no room sees nothing and says nothing.
    let eve = owned_user_id!("@_dm_eve:fake.test");
    scene.hs.register("_dm_eve").await?;
    let eves = Actor::user(&eve);
    ensure!(scene.hs.room_state(eves, &scene.room).await.is_err());
    ensure!(scene.hs.join(eves, &scene.room).await.is_err());
    Ok(())
}

#[tokio::test]
async fn after_a_cut_the_newest_events_are_pushed_and_the_history_has_the_others() -> Result<()> {
    let scene = Scene::new().await?;
    let bob = Person::register(&scene.fake, "bob:far.test").await?;
    let room = bob.starts_chat(&[ghost_id()]).await?;
    scene.hs.join(ghost(), &room).await?;
    scene.all_is_pushed().await?;
    let since = scene.sync(None).await?.next_batch;
    let before = scene.double.count();
    scene.fake.with(|server| server.begin_cut("far.test"));
    let mut said = Vec::new();
    for n in 0..4 {
        said.push(bob.says(&room, &format!("Bob's {n}")).await?);
    }
    // The homeserver shows nobody what he was no longer allowed to say.
    let unseen = said.remove(1);
    bob.redacts(&room, &said[1]).await?;
    scene.fake.with(|server| server.soft_fail(unseen.as_str()));
    scene.all_is_pushed().await?;
    ensure!(scene.double.count() == before);
    let newest = 3;
    scene
        .fake
        .with(|server| server.end_cut("far.test", newest, Arrival::NewestFirst));
    let redacted = |event: &Value| event["content"] == json!({});
    let is_redacted = |body: &Value| {
        let events = body["events"].as_array().into_iter().flatten();
        events.into_iter().any(redacted)
    };
    scene.double.takes(before, is_redacted).await?;
    scene.all_is_pushed().await?;
    let taken = scene.double.taken.lock().expect("no panic").clone();
    let events = taken[before..].iter().flat_map(|(_, body)| {
        let events = body["events"].as_array().into_iter().flatten();
        events.map(|event| event["event_id"].as_str().unwrap_or_default().to_owned())
    });
    let pushed: Vec<String> = events.collect();
    let [first, second, third] = said.as_slice() else {
        bail!("{said:?}");
    };
    ensure!(pushed.len() == newest && !pushed.contains(&first.to_string()));
    ensure!(pushed[1] == third.as_str() && pushed[2] == second.as_str());
    // No sync mentions the older one, and the history has it in its place.
    let synced = scene.sync(since.as_deref()).await?;
    let synced = format!("{synced:?}");
    ensure!(synced.contains(third.as_str()) && !synced.contains(first.as_str()));
    let page = scene
        .hs
        .messages(ghost(), &room, None, Direction::Backward, 10);
    let page = page.await?;
    let place = |id: &str| {
        page.events
            .iter()
            .position(|is| is.get().contains(&format!("\"event_id\":\"{id}\"")))
    };
    ensure!(
        place(first.as_str()) > place(second.as_str())
            && place(second.as_str()) > place(third.as_str())
    );
    ensure!(place(unseen.as_str()).is_none());
    Ok(())
}

#[tokio::test]
async fn requests_fail_in_every_way_and_what_they_did_stays_done() -> Result<()> {
    let scene = Scene::new().await?;
    let faults = Faults {
        failing: 0.1,
        failing_after: 0.1,
        dropped: 0.1,
        dropped_after: 0.1,
        ..Faults::of_all_kinds(5)
    };
    scene.fake.begin_faults(faults);
    let mut failures = 0;
    for n in 0..100 {
        let transaction = format!("message{n}");
        let mut tries = 0;
        while scene.says(&scene.room, &transaction).await.is_err() {
            failures += 1;
            tries += 1;
            ensure!(tries < 50);
        }
    }
    let [failed, _, dropped, delayed, ..] = scene.fake.end_faults();
    ensure!(
        failed > 5 && dropped > 5 && delayed > 0,
        "{failed} {dropped} {delayed}"
    );
    ensure!(failures >= failed, "{failures}");
    let events = scene.fake.events(scene.room.as_str());
    let said: Vec<String> = events
        .iter()
        .filter(|event| event.kind == "m.room.message")
        .filter_map(|event| Some(event.value()["body"].as_str()?.to_owned()))
        .collect();
    let want: Vec<String> = (0..100).map(|n| format!("message{n}")).collect();
    ensure!(said == want, "{said:?}");
    Ok(())
}
