//! `kill -9` at random moments under load, over whole machines.
//!
//! A child process runs the real store on disk and the machines of several ghosts, which take in
//! keys, make new ones, read, speak, and are put away and loaded again, all at once. The homeserver
//! and the people the ghosts talk to live in the parent, so they remember over every kill what was
//! published and said. After each kill the parent opens the store itself and looks whether all is
//! there and works, and whether anything was used twice.
//!
//! `STONECHAT_KILL_ROUNDS` says how often to kill, 20 times if it is not set.

mod child;

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use matrix_sdk_crypto::vodozemac::megolm::MegolmMessage;
use rand::Rng;
use ruma::OwnedRoomId;
use tokio::sync::{mpsc, oneshot};

use self::child::{Order, Said, Service, Told, What};
use super::*;
use crate::{
    matrix::{Homeserver, HomeserverOptions},
    store::{StoreKey, StoreOptions},
};

const ALICE: &str = "@alice:hs.test";
const BOB: &str = "@bob:hs.test";
const GHOSTS: usize = 4;
/// How long the ghosts work at most before they are killed.
const AT_WORK: Duration = Duration::from_millis(1500);
/// How many orders may wait in the child.
const OPEN_ORDERS: usize = 12;
/// How many of the events that were read long ago are read again after each kill.
const READ_AGAIN: usize = 8;

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

/// When the child is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after it was started.
    WhileItStarts(Duration),
    /// So long after it began to work.
    AtWork(Duration),
    /// When the homeserver has done what it asked for and has not answered: what went out is not
    /// to be taken back. At this path, after so many requests.
    AtRequest(&'static str, usize),
}

impl Moment {
    fn any() -> Self {
        let mut rng = rand::rng();
        match rng.random_range(0..8) {
            0 => Self::WhileItStarts(rng.random_range(Duration::ZERO..AT_WORK / 8)),
            1..=3 => Self::AtWork(rng.random_range(Duration::ZERO..AT_WORK)),
            4 | 5 => Self::AtRequest("/keys/upload", rng.random_range(0..4)),
            _ => Self::AtRequest("/sendToDevice/", rng.random_range(0..12)),
        }
    }

    fn at_last(self) -> Duration {
        match self {
            Self::WhileItStarts(moment) | Self::AtWork(moment) => moment,
            Self::AtRequest(..) => AT_WORK,
        }
    }
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_killed_at_any_moment_lose_nothing_and_use_nothing_twice() {
    let rounds =
        std::env::var("STONECHAT_KILL_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut parent = Parent::new(folder.path()).await;
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

    /// Lets the child work, gives it work, and kills it in the midst of it.
    async fn run_until_killed(&mut self, newcomer: &UserId, addressed: usize) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crypto::tests::kill_nine::child::work_until_killed",
            ])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .env(child::FOLDER, &self.folder)
            .env(child::HOMESERVER, self.fake.url().as_str())
            .env(child::NEWCOMER, newcomer.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, mut told) = mpsc::unbounded_channel();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(word) = child::parse::<Told>(&line) {
                    let _ = tell.send(word);
                }
            }
        });
        let child = Arc::new(Mutex::new(child));
        let moment = Moment::any();
        if let Moment::AtRequest(path, n) = moment {
            let child = child.clone();
            let kill = move || child.lock().unwrap().kill().unwrap();
            self.fake.at_request(path, n, kill);
        }
        let (at_work, begun) = oneshot::channel();
        let killer = tokio::spawn({
            let child = child.clone();
            async move {
                if !matches!(moment, Moment::WhileItStarts(_)) {
                    let _ = begun.await;
                }
                // Chance is the point here.
                tokio::time::sleep(moment.at_last()).await;
                child.lock().unwrap().kill().unwrap();
            }
        });
        let mut at_work = Some(at_work);
        let mut made = false;
        // Until the last word of the child is heard.
        let mut words = Vec::new();
        while told.recv_many(&mut words, 1000).await > 0 {
            for word in words.drain(..) {
                match word {
                    Told::Ready => {
                        let _ = at_work.take().unwrap().send(());
                    }
                    Told::Made => made = true,
                    word => self.note(word),
                }
            }
            if at_work.is_none() && self.open.len() < OPEN_ORDERS {
                self.give_work(&mut stdin, addressed).await;
            }
        }
        killer.abort();
        reader.join().unwrap();
        let ended = child.lock().unwrap().wait().unwrap();
        assert_eq!(ended.signal(), Some(9), "the child ended by itself");
        self.count.killed_before_work += usize::from(at_work.is_some());
        self.count.kills += 1;
        self.count.orders_cut_short += self.open.len();
        self.count.newcomers_cut_short += usize::from(!made);
    }

    fn note(&mut self, word: Told) {
        match word {
            Told::Took { number } => {
                self.count.taken += 1;
                self.open.remove(&number).unwrap();
            }
            Told::Read { number, text } => {
                self.count.read += 1;
                self.open.remove(&number).unwrap();
                self.note_read(number, &text);
            }
            Told::Said(said) => {
                self.count.said += 1;
                self.note_said(said);
            }
            Told::Ready | Told::Made => {}
            Told::Failed { why } => panic!("the child failed: {why}"),
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

    /// Alice says something to a ghost, now and then with a new key; strangers claim keys.
    async fn give_work(&mut self, stdin: &mut ChildStdin, addressed: usize) {
        let (n, fresh_key, strangers) = {
            let mut rng = rand::rng();
            (
                rng.random_range(0..GHOSTS),
                rng.random_bool(0.4),
                rng.random_bool(0.25),
            )
        };
        // But not those of the ghost to whom somebody will come with an old key: of many keys
        // that were claimed and not used, only the newest are kept.
        if strangers && n != addressed {
            self.fake.claim(&ghost(n), &self.devices[n], 30);
        }
        let heard = self.alice_says(n, fresh_key).await;
        let take = self.take(n);
        let read = self.order(
            n,
            What::Read {
                event: heard.event.clone(),
            },
        );
        self.expected.insert(read.number, heard);
        for order in [take, read] {
            // When it is dead already, the order stays open.
            let _ = stdin.write_all(&child::line(&order));
        }
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

    /// What waits on the homeserver for a ghost.
    fn take(&mut self, n: usize) -> Order {
        let incoming = self.fake.take_incoming(&ghost(n), &self.devices[n]);
        let to_device = incoming.to_device.iter();
        let left = incoming.otk_counts.unwrap().into_values().next().unwrap();
        let what = What::Take {
            to_device: to_device
                .map(|raw| serde_json::from_str(raw.get()).unwrap())
                .collect(),
            left: left.try_into().unwrap(),
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

    /// After a kill: all is there, and works.
    async fn look_around(&mut self, newcomer: &UserId, addressed: usize, early: &Person) {
        let service = Service::open(&self.folder, self.fake.connect().await);
        assert!(service.store.check().unwrap() > 0);
        // What was not acknowledged comes again.
        for (number, order) in std::mem::take(&mut self.open) {
            match service.carry_out(&order).await.unwrap() {
                Told::Read { text, .. } => self.note_read(number, &text),
                _ => assert!(matches!(order.what, What::Take { .. })),
            }
        }
        self.what_was_read_is_remembered(&service).await;
        // A key that was published before the kill opens what is sent to it after.
        let heard = says(early, addressed, "before and after".to_owned()).await;
        self.hears(&service, heard).await;
        for n in 0..GHOSTS {
            let heard = self.alice_says(n, true).await;
            self.hears(&service, heard).await;
            let run = service.store.run().number;
            let said = service
                .say(n, true, format!("ghost {n}, after run {run}"))
                .await;
            self.note_said(said.unwrap());
        }
        self.everybody_reads_what_was_said().await;
        self.nobody_is_somebody_else(&service, newcomer).await;
        if rand::rng().random() {
            service.store.shut_down().await.unwrap();
        }
    }

    async fn what_was_read_is_remembered(&self, service: &Service) {
        let newest = self.read.iter().rev().take(2);
        let others: Vec<_> = {
            let mut rng = rand::rng();
            let places =
                (0..self.read.len().min(READ_AGAIN)).map(|_| rng.random_range(0..self.read.len()));
            places.map(|place| &self.read[place]).collect()
        };
        for heard in newest.chain(others) {
            let again = service.read(heard.ghost, &heard.event).await;
            assert_eq!(again.unwrap(), heard.text);
            let mut replayed = heard.event.clone();
            replayed["event_id"] = "$replayed".into();
            let replayed = service.read(heard.ghost, &replayed).await;
            assert!(matches!(replayed, Err(DecryptError::Replayed { .. })));
        }
    }

    async fn hears(&mut self, service: &Service, heard: Heard) {
        let order = self.take(heard.ghost);
        service.carry_out(&order).await.unwrap();
        self.open.remove(&order.number);
        let text = service.read(heard.ghost, &heard.event).await;
        assert_eq!(text.unwrap(), heard.text);
    }

    async fn everybody_reads_what_was_said(&mut self) {
        self.alice.receives().await;
        self.bob.receives().await;
        for said in self.said.drain(..) {
            let content = child::raw(&said.content);
            let event = encrypted_event(&ghost(said.ghost), &room_of(said.ghost), &content);
            for reader in [Some(&self.alice), said.bob.then_some(&self.bob)]
                .into_iter()
                .flatten()
            {
                let read = reader.reads(&room_of(said.ghost), &event).await;
                assert_eq!(read.unwrap(), said.text);
            }
        }
    }

    /// Keys were published once and for good, and no place in an Olm session was used twice.
    async fn nobody_is_somebody_else(&self, service: &Service, newcomer: &UserId) {
        let machines = &service.machines;
        machines.provision(newcomer, "Newcomer").await.unwrap();
        let ghosts = (0..GHOSTS).map(ghost);
        for user in ghosts.chain([newcomer.to_owned()]) {
            let device = machines.device_of(&user).unwrap().unwrap();
            assert_eq!(self.fake.ever_published(&user), (1, 1), "{user}");
            assert_eq!(self.fake.devices(&user), [device.as_str()]);
        }
        assert_eq!(self.fake.reuses(), [""; 0]);
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
