//! How big it gets: thousands of ghosts on disk, made as the service makes them.
//! `cargo bench -p stonechat --bench scale`
//!
//! The homeserver lives in this process. The service runs in processes of its own, so that memory
//! and start-up are those of the service alone.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark that cannot go on has nothing to say, what it has goes to the terminal, and what it measures is real time"
)]

#[allow(dead_code, reason = "not every benchmark needs all of it")]
mod support;
#[path = "../src/testing/peers/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests need more of it")]
mod testing;

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use cap::Cap;
use mimalloc::MiMalloc;
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde_json::value::RawValue;
use stonechat::{
    clock,
    crypto::{self, EncryptTo, IncomingCrypto, MachineSettings, Machines},
    matrix::{self, Homeserver, HomeserverOptions},
    store::{Store, StoreKey, StoreOptions},
};
use tokio::{runtime::Runtime, task::JoinSet};

use support::{cpu, median, people};

/// The allocator of the `stonechat` command, counting what is allocated.
#[global_allocator]
static HEAP: Cap<MiMalloc> = Cap::new(MiMalloc, usize::MAX);

const ALICE: &str = "@alice:hs.test";
/// So that what is kept of the database in memory does not grow with what is read.
const SMALL_CACHE: u64 = 256 * 1024;
/// How many ghosts are made at the same time.
const AT_ONCE: usize = 32;

fn ghost(n: usize) -> OwnedUserId {
    OwnedUserId::try_from(format!("@_dm_ghost{n:05}:hs.test")).unwrap()
}

fn room(n: usize) -> OwnedRoomId {
    OwnedRoomId::try_from(format!("!room{n}:hs.test")).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("child") {
        let arguments: Vec<String> = arguments.collect();
        runtime().block_on(child(&arguments));
        return;
    }
    let most = support::option("--ghosts", 10_000);
    let in_use = support::option("--in-use", 100);
    let steps: Vec<usize> = [100, 1000, 10_000, 100_000]
        .into_iter()
        .filter(|step| *step < most)
        .chain([most])
        .collect();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    runtime().block_on(measure(folder.path(), &steps, in_use));
}

/// A process of the service. It tells figures, a line at a time.
struct Child {
    process: std::process::Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Child {
    fn start(folder: &Path, fake: &testing::FakeHomeserver, what: &[&str]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg("child")
            .arg(folder)
            .arg(fake.url().as_str())
            .args(what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    fn figures(&mut self) -> Vec<f64> {
        let line = self.lines.next().unwrap().unwrap();
        line.split(' ').map(|word| word.parse().unwrap()).collect()
    }

    fn end(mut self, kill: bool) {
        if kill {
            self.process.kill().unwrap();
        }
        drop(self.process.stdin.take());
        assert!(kill || self.process.wait().unwrap().success());
        self.process.wait().unwrap();
    }
}

async fn measure(folder: &Path, steps: &[usize], in_use: usize) {
    StoreKey::create_file(&folder.join("key")).unwrap();
    let fake = testing::FakeHomeserver::start().await;
    let alice = testing::Person::new(&fake, ALICE).await;
    // So that she has a fallback key and never runs out.
    alice.receives().await;
    println!("{}\n", support::machine());
    println!(
        "| ghosts | records, bytes per ghost | on disk, bytes per ghost \
         | first start after they were made, ms | start after a clean end, ms \
         | of which sled opens, ms | start after `kill -9`, ms | first use of a ghost, ms \
         | memory after the start, MB | with {in_use} machines in use: allocated by each, KB \
         | memory of the process for each, KB | : with next to no cache |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut made = 0;
    for step in steps {
        let began = Instant::now();
        let range = [made.to_string(), step.to_string()];
        let mut making = Child::start(folder, &fake, &["make", &range[0], &range[1]]);
        assert_eq!(making.figures(), [0.0]);
        making.end(false);
        let took = began.elapsed();
        let on_disk = tokio::fs::metadata(folder.join("store/sled/db"))
            .await
            .unwrap();
        let each = |bytes: f64| bytes / *step as f64;
        made = *step;

        let (mut first_start, mut clean, mut after_kill) = (0.0, Vec::new(), Vec::new());
        let (mut first_use, mut memory, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        let mut kill = false;
        for round in 0..11 {
            let mut starting = Child::start(folder, &fake, &["start", &(made / 2).to_string()]);
            let figures = starting.figures();
            match (round, kill) {
                (0, _) => first_start = figures[0],
                (_, false) => clean.push(figures[0]),
                (_, true) => after_kill.push(figures[0]),
            }
            first_use.push(figures[1]);
            memory.push(figures[2]);
            kill = !kill;
            starting.end(kill);
        }
        for _ in 0..5 {
            // As the service leaves it when it ends.
            let mut starting = Child::start(folder, &fake, &["start", "0"]);
            starting.figures();
            starting.end(false);
            let mut opening = Child::start(folder, &fake, &["bare"]);
            bare.push(opening.figures()[0]);
            opening.end(false);
        }
        let records = size_of_records(folder) as f64;
        let cache = StoreOptions::default().cache_bytes;
        let [allocated, with_cache] =
            use_machines(folder, &fake, &alice, made, in_use, 0, cache).await;
        let [_, without] = use_machines(folder, &fake, &alice, made, in_use, 1, SMALL_CACHE).await;
        println!(
            "| {made} | {:.0} | {:.0} | {first_start:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {allocated:.1} | {with_cache:.1} | {without:.1} |",
            each(records),
            each(on_disk.len() as f64),
            median(clean),
            median(bare),
            median(after_kill),
            median(first_use),
            median(memory) / 1e6,
        );
        eprintln!(
            "{made} ghosts made, {:.0} s for this step",
            took.as_secs_f64()
        );
    }
}

/// Keys and values, without what the database adds.
fn size_of_records(folder: &Path) -> usize {
    let database = sled::Config::new()
        .path(folder.join("store/sled"))
        .flush_every_ms(None);
    let database = database.open().unwrap();
    database
        .iter()
        .map(|record| record.map_or(0, |(key, value)| key.len() + value.len()))
        .sum()
}

/// Has so many ghosts read and write in a room each, and tells how much memory each took, in KB:
/// of what is allocated, and of the process.
async fn use_machines(
    folder: &Path,
    fake: &testing::FakeHomeserver,
    alice: &testing::Person,
    made: usize,
    in_use: usize,
    first: usize,
    cache: u64,
) -> [f64; 2] {
    let in_use = in_use.min(made / 2);
    let every = made / in_use;
    let what = [in_use, first, every].map(|number| number.to_string());
    let cache = cache.to_string();
    let what = ["use", &what[0], &what[1], &what[2], &cache];
    let mut using = Child::start(folder, fake, &what);
    let devices: Vec<String> = using
        .lines
        .by_ref()
        .take(in_use)
        .map(Result::unwrap)
        .collect();
    for (n, device) in devices.iter().enumerate() {
        let user = ghost(first + n * every);
        let event = alice.says(&room(n), &[&user], "hello").await;
        let incoming = fake.take_incoming(&user, device.as_str().into());
        let line = serde_json::to_string(&(incoming.to_device, event)).unwrap();
        let stdin = using.process.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
    }
    let figures = using.figures();
    using.end(false);
    [figures[0] / 1000.0, figures[1] / 1000.0]
}

/// What runs in a process of its own.
async fn child(arguments: &[String]) {
    let word = |n: usize| arguments[n].as_str();
    let number = |n: usize| word(n).parse::<usize>().unwrap();
    let folder = PathBuf::from(word(0));
    let url = word(1).parse().unwrap();
    let hs = Homeserver::connect(&url, "token".into(), HomeserverOptions::default());
    let hs = hs.await.unwrap();
    match word(2) {
        "make" => make(&folder, hs, number(3), number(4)).await,
        "start" => start(&folder, hs, number(3)).await,
        "use" => use_them(&folder, hs, number(3), number(4), number(5), number(6)).await,
        "bare" => bare(&folder),
        other => panic!("what is {other}?"),
    }
}

fn open(folder: &Path, hs: Homeserver, cache_bytes: u64) -> (Store, Machines) {
    let key = StoreKey::from_file(&folder.join("key")).unwrap();
    let options = StoreOptions { cache_bytes };
    let store = Store::open(&folder.join("store"), &key, &options).unwrap();
    let machines = Machines::new(store.clone(), hs, MachineSettings::default()).unwrap();
    (store, machines)
}

/// Makes ghosts, real ones: registered, with keys, checked back.
async fn make(folder: &Path, hs: Homeserver, from: usize, to: usize) {
    let (store, machines) = open(folder, hs, StoreOptions::default().cache_bytes);
    let next = Arc::new(AtomicUsize::new(from));
    let mut makers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (machines, next) = (machines.clone(), next.clone());
        makers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= to {
                    return;
                }
                machines.provision(&ghost(n), "Ghost").await.unwrap();
            }
        });
    }
    makers.join_all().await;
    store.shut_down().await.unwrap();
    println!("0");
}

/// Starts as the service does, and uses one ghost.
async fn start(folder: &Path, hs: Homeserver, first: usize) {
    let began = Instant::now();
    let (store, machines) = open(folder, hs, StoreOptions::default().cache_bytes);
    let started = began.elapsed();
    let memory = cpu::memory();
    let began = Instant::now();
    speak(&machines, &ghost(first), 0, Vec::new()).await;
    let used = began.elapsed();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("{} {} {memory}", ms(started), ms(used));
    // Until it is told to end, or killed.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    store.shut_down().await.unwrap();
}

/// The opening of the database alone.
fn bare(folder: &Path) {
    let began = Instant::now();
    let database = sled::Config::new()
        .path(folder.join("store/sled"))
        .cache_capacity(StoreOptions::default().cache_bytes)
        .flush_every_ms(None)
        .mode(sled::Mode::HighThroughput)
        .open()
        .unwrap();
    println!("{}", began.elapsed().as_secs_f64() * 1000.0);
    drop(database);
}

/// Has ghosts take in a key, read and write, and tells what that took of memory.
async fn use_them(
    folder: &Path,
    hs: Homeserver,
    count: usize,
    first: usize,
    every: usize,
    cache: usize,
) {
    let key = StoreKey::from_file(&folder.join("key")).unwrap();
    let options = StoreOptions {
        cache_bytes: cache as u64,
    };
    let store = Store::open(&folder.join("store"), &key, &options).unwrap();
    // Once with one machine at a time: what the database keeps of these ghosts in its cache, which
    // has a bound of its own, is there before anything is measured.
    let one = MachineSettings {
        max_live: 1,
        ..MachineSettings::default()
    };
    let machines = Machines::new(store.clone(), hs.clone(), one).unwrap();
    for n in 0..count {
        let user = ghost(first + n * every);
        speak(&machines, &user, count + n, Vec::new()).await;
    }
    drop(machines);
    let machines = Machines::new(store.clone(), hs, MachineSettings::default()).unwrap();
    for n in 0..count {
        let user = ghost(first + n * every);
        println!("{}", machines.device_of(&user).unwrap().unwrap());
    }
    let mut lines = std::io::stdin().lines();
    let mut before = 0;
    for n in 0..count {
        let line = lines.next().unwrap().unwrap();
        let (to_device, event): (Vec<Box<RawValue>>, Box<RawValue>) =
            serde_json::from_str(&line).unwrap();
        if n == count / 10 {
            // What is made once for all of them is made by now.
            before = cpu::memory();
        }
        let user = ghost(first + n * every);
        converse(&machines, &user, n, to_device, &event).await;
    }
    store.flush().await.unwrap();
    assert_eq!(machines.live_count(), count);
    let used = cpu::memory().saturating_sub(before);
    // What is freed when they are put away is theirs, whatever else the process took meanwhile.
    let allocated = HEAP.allocated();
    drop(machines);
    let allocated = allocated.saturating_sub(HEAP.allocated());
    println!(
        "{} {}",
        allocated as f64 / count as f64,
        used as f64 / (count - count / 10) as f64
    );
    store.shut_down().await.unwrap();
}

async fn converse(
    machines: &Machines,
    user: &UserId,
    n: usize,
    to_device: Vec<Box<RawValue>>,
    event: &RawValue,
) {
    machines.expect_room(user, &room(n)).await.unwrap();
    let incoming = IncomingCrypto {
        to_device,
        ..IncomingCrypto::default()
    };
    machines.receive_and_respond(user, incoming).await.unwrap();
    machines.decrypt(user, &room(n), event).await.unwrap();
    speak(machines, user, n, vec![ALICE.try_into().unwrap()]).await;
}

async fn speak(machines: &Machines, user: &UserId, n: usize, recipients: Vec<OwnedUserId>) {
    let to = EncryptTo {
        room_id: room(n),
        recipients,
        rotation_ms: None,
        rotation_msgs: None,
    };
    let content = people::message();
    machines
        .encrypt(user, &to, "m.room.message", &content)
        .await
        .unwrap();
}
