//! `kill -9` at random moments under load, over whole machines.
//!
//! A child process runs the real store on disk and the machines of several ghosts, which take in
//! keys, make new ones, read, speak, and are put away and loaded again, all at once. The homeserver
//! and the people the ghosts talk to live in the parent, so they remember over every kill what was
//! published and said. After each kill the parent opens the store itself and looks whether all is
//! there and works, and whether anything was used twice.
//!
//! `STONECHAT_KILL_ROUNDS` says how often to kill, 20 times if it is not set.
#![allow(
    clippy::disallowed_methods,
    reason = "the moments of its kills are random, and pass in real time"
)]

mod after;
mod child;
mod kill;

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    time::Duration,
};

use matrix_sdk_crypto::vodozemac::megolm::MegolmMessage;
use rand::Rng;
use ruma::OwnedRoomId;

use self::child::{Order, Said, Service, What};
use super::*;
use crate::{
    matrix::{Homeserver, HomeserverOptions},
    store::{StoreKey, StoreOptions},
};

const ALICE: &str = "@alice:hs.test";
const BOB: &str = "@bob:hs.test";
const GHOSTS: usize = 4;

fn ghost(n: usize) -> OwnedUserId {
    OwnedUserId::try_from(format!("@_dm_ghost{n}:hs.test")).unwrap()
}

/// Each ghost has a room of its own.
fn room_of(n: usize) -> OwnedRoomId {
    OwnedRoomId::try_from(format!("!room{n}:hs.test")).unwrap()
}

/// What somebody says to a ghost, and what it says in clear.
#[derive(Clone)]
struct Heard {
    ghost: usize,
    event: Value,
    text: String,
}

/// A place in a session of a ghost: no two messages may have the same.
type Place = (usize, String, u32);

/// What the world knows.
struct Parent {
    fake: FakeHomeserver,
    folder: PathBuf,
    alice: Person,
    bob: Person,
    devices: Vec<OwnedDeviceId>,
    places: BTreeMap<Place, String>,
    /// What the child was told to do and has not said that it did, in order.
    open: BTreeMap<u64, Order>,
    /// What is to come of the orders to read.
    expected: BTreeMap<u64, Heard>,
    /// What ghosts have said that they read; the newest last.
    read: VecDeque<Heard>,
    /// What ghosts have sent and nobody has looked at.
    said: Vec<Said>,
    orders: u64,
    count: Count,
}

/// What happened in all rounds.
#[derive(Debug, Default)]
struct Count {
    kills: usize,
    killed_before_work: usize,
    orders_cut_short: usize,
    taken: usize,
    read: usize,
    said: usize,
    newcomers_cut_short: usize,
}

/// What a kill has left is looked at when it is not what it should be.
struct KeptOnFailure(tempfile::TempDir);

impl Drop for KeptOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            eprintln!("the store is kept in {}", self.0.path().display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_killed_at_any_moment_lose_nothing_and_use_nothing_twice() {
    let rounds =
        std::env::var("STONECHAT_KILL_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    let folder = KeptOnFailure(tempfile::tempdir().unwrap());
    let mut parent = Parent::new(folder.0.path()).await;
    for round in 0..rounds {
        // Somebody who claims a key before the kill and uses it after.
        let early = Person::new(&parent.fake, &format!("@early{round}:hs.test")).await;
        let addressed = round % GHOSTS;
        early.query(&[&ghost(addressed)]).await;
        early.claim(&[&ghost(addressed)]).await;

        let newcomer = OwnedUserId::try_from(format!("@_dm_new{round}:hs.test")).unwrap();
        parent.run_until_killed(&newcomer, addressed).await;
        parent.look_around(&newcomer, addressed, &early).await;
    }
    let Parent { fake, count, .. } = parent;
    println!("{count:?}, {} requests", fake.log().len());
    assert!(
        count.said > rounds && count.taken > rounds && count.read > rounds,
        "hardly anything was done: {count:?}"
    );
    assert!(
        count.orders_cut_short > rounds / 4,
        "nothing was cut short: {count:?}"
    );
}

impl Parent {
    async fn new(folder: &Path) -> Self {
        StoreKey::create_file(&folder.join("key")).unwrap();
        let fake = FakeHomeserver::start().await;
        let service = Service::open(folder, fake.connect().await);
        let mut devices = Vec::new();
        for n in 0..GHOSTS {
            let machines = &service.machines;
            machines.provision(&ghost(n), "Ghost").await.unwrap();
            machines.expect_room(&ghost(n), &room_of(n)).await.unwrap();
            devices.push(machines.device_of(&ghost(n)).unwrap().unwrap());
        }
        service.store.shut_down().await.unwrap();
        drop(service);
        let (alice, bob) = (
            Person::new(&fake, ALICE).await,
            Person::new(&fake, BOB).await,
        );
        for person in [&alice, &bob] {
            for n in 0..GHOSTS {
                person.query(&[&ghost(n)]).await;
            }
        }
        Self {
            fake,
            folder: folder.to_owned(),
            alice,
            bob,
            devices,
            places: BTreeMap::new(),
            open: BTreeMap::new(),
            expected: BTreeMap::new(),
            read: VecDeque::new(),
            said: Vec::new(),
            orders: 0,
            count: Count::default(),
        }
    }

    fn note_read(&mut self, number: u64, text: &str) {
        let heard = self.expected.remove(&number).unwrap();
        assert_eq!(heard.text, text);
        self.read.push_back(heard);
        if self.read.len() > 100 {
            self.read.pop_front();
        }
    }

    /// No two messages have the same place in a session.
    fn note_said(&mut self, said: Said) {
        let session = said.content["session_id"].as_str().unwrap().to_owned();
        let text = said.content["ciphertext"].as_str().unwrap().to_owned();
        let index = MegolmMessage::from_base64(&text).unwrap().message_index();
        let first = self
            .places
            .entry((said.ghost, session, index))
            .or_insert(text.clone());
        assert_eq!(*first, text, "message index {index} was used twice");
        self.said.push(said);
    }

    async fn alice_says(&self, n: usize, fresh_key: bool) -> Heard {
        if fresh_key {
            self.alice
                .machine
                .discard_room_key(&room_of(n))
                .await
                .unwrap();
        }
        says(
            &self.alice,
            n,
            format!("order {} to ghost {n}", self.orders),
        )
        .await
    }

    /// What waits on the homeserver for a ghost. One that is to keep its old keys is not told that
    /// it has few, and nobody is told twice: of many keys that are made the oldest go, and the
    /// homeserver would still have some of them.
    fn take(&mut self, n: usize, keeps_old_keys: bool) -> Order {
        let incoming = self.fake.take_incoming(&ghost(n), &self.devices[n]);
        let to_device = incoming.to_device.iter();
        let left = incoming.otk_counts.unwrap().into_values().next().unwrap();
        let left = u32::try_from(left).unwrap();
        let told = |order: &Order| order.ghost == n && matches!(order.what, What::Take { .. });
        let told = keeps_old_keys || self.open.values().any(told);
        let what = What::Take {
            to_device: to_device
                .map(|raw| serde_json::from_str(raw.get()).unwrap())
                .collect(),
            left: if told { left.max(50) } else { left },
        };
        self.order(n, what)
    }

    fn order(&mut self, ghost: usize, what: What) -> Order {
        self.orders += 1;
        let order = Order {
            number: self.orders,
            ghost,
            what,
        };
        self.open.insert(order.number, order.clone());
        order
    }
}

async fn says(person: &Person, n: usize, text: String) -> Heard {
    let event = person.says(&room_of(n), &[&ghost(n)], &text).await;
    Heard {
        ghost: n,
        event: serde_json::from_str(event.get()).unwrap(),
        text,
    }
}
