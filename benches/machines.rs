//! What a machine costs: our store on disk, the crate's store in memory, and the bare operation of
//! vodozemac, in CPU time, in the same run. `cargo bench -p stonechat --bench machines`
//!
//! `--ghosts N` says how many ghosts work at the same time and share flushes, `--rounds N` how
//! often everything is measured; the middle counts.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on has nothing to say, and what it has goes to the terminal"
)]

#[path = "support/bare.rs"]
mod bare;
mod support;
#[path = "../src/testing/peers/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests need more of it")]
mod testing;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use matrix_sdk_crypto::{OlmMachine, store::MemoryStore};
use mimalloc::MiMalloc;
use ruma::{OwnedRoomId, OwnedUserId};
use stonechat::{
    clock,
    crypto::{self, EncryptTo, MachineSettings, Machines, store::GhostStores},
    matrix,
    store::{Store, StoreKey, StoreOptions},
};
use tokio::{runtime::Runtime, task::JoinSet};

use support::{
    cpu, median,
    people::{self, Directory},
};

/// As the `stonechat` command has it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How many messages each ghost encrypts and decrypts in a round.
const MESSAGES: usize = 40;

const CREATE: &str = "make a ghost";
const LOAD: &str = "load a machine";
const FIRST: &str = "first encryption to a new device";
const TAKE: &str = "take in a room key";
const ENCRYPT: &str = "encrypt 300 bytes";
const DECRYPT: &str = "decrypt 300 bytes";
const DECRYPT_AND_FLUSH: &str = "decrypt 300 bytes, a flush for each";
const OPERATIONS: [&str; 6] = [CREATE, LOAD, FIRST, TAKE, ENCRYPT, DECRYPT];

/// Nanoseconds of CPU per operation, one figure per round.
#[derive(Default)]
struct Figures {
    each: BTreeMap<&'static str, Vec<f64>>,
    /// The same by kind of thread.
    by_thread: BTreeMap<(&'static str, &'static str), Vec<f64>>,
    /// How many operations shared a flush.
    shared: BTreeMap<&'static str, Vec<f64>>,
}

impl Figures {
    fn note(&mut self, operation: &'static str, used: &cpu::Threads, times: usize) {
        let each = |used: Duration| used.as_nanos() as f64 / times as f64;
        let all = each(cpu::sum(used));
        self.each.entry(operation).or_default().push(all);
        for (kind, threads) in [("flush", "store-commit"), ("sled", "sled-io")] {
            let some = used.iter().filter(|(name, _)| name.starts_with(threads));
            let some = each(some.map(|(_, used)| *used).sum());
            self.by_thread
                .entry((operation, kind))
                .or_default()
                .push(some);
        }
    }

    fn note_flushes(&mut self, operation: &'static str, flushes: u64, times: usize) {
        let shared = times as f64 / flushes as f64;
        self.shared.entry(operation).or_default().push(shared);
    }

    fn of_thread(&self, operation: &'static str, kind: &'static str) -> f64 {
        median(self.by_thread[&(operation, kind)].clone())
    }

    fn of(&self, operation: &str) -> f64 {
        median(self.each.get(operation).cloned().unwrap_or_default())
    }
}

/// Where machines keep their keys.
#[derive(Clone)]
enum Keeper {
    Disk(Store, GhostStores),
    Memory,
}

#[derive(Clone)]
struct Ghost {
    user: OwnedUserId,
    keeper: Keeper,
    /// The store in memory outlives the machine.
    memory: Arc<MemoryStore>,
    machine: Option<OlmMachine>,
}

impl Ghost {
    fn new(user: String, keeper: &Keeper) -> Self {
        Self {
            user: OwnedUserId::try_from(user).unwrap(),
            keeper: keeper.clone(),
            memory: Arc::new(MemoryStore::new()),
            machine: None,
        }
    }

    async fn open(&mut self) {
        let (user, device) = (&self.user, "DEVICE".into());
        let opened = match &self.keeper {
            Keeper::Disk(_, stores) => {
                let store = stores.ghost(user).unwrap();
                OlmMachine::with_store(user, device, store, None).await
            }
            Keeper::Memory => OlmMachine::with_store(user, device, self.memory.clone(), None).await,
        };
        self.machine = Some(opened.unwrap());
    }

    fn machine(&self) -> &OlmMachine {
        self.machine.as_ref().unwrap()
    }

    /// Nothing leaves before it is durable.
    async fn flush(&self) {
        if let Keeper::Disk(store, _) = &self.keeper {
            store.flush().await.unwrap();
        }
    }
}

impl Keeper {
    /// How many flushes there were so far.
    fn flushes(&self) -> Option<u64> {
        match self {
            Self::Disk(store, _) => Some(store.flushes()),
            Self::Memory => None,
        }
    }
}

/// Does all of it at the same time and tells what it cost.
fn together<T: Send + 'static>(
    runtime: &Runtime,
    work: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> (Vec<T>, cpu::Threads) {
    let before = cpu::by_thread();
    let done = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for work in work {
            tasks.spawn(work);
        }
        tasks.join_all().await
    });
    let used = cpu::between(&before, &cpu::by_thread(), "homeserver");
    (done, used)
}

/// One round of everything, for a crowd of ghosts of one keeper.
fn round(runtime: &Runtime, keeper: &Keeper, name: &str, crowd: usize, figures: &mut Figures) {
    let directory = Arc::new(Directory::default());
    let (alice, bob) = runtime.block_on(async {
        let alice = OlmMachine::new(ruma::user_id!("@alice:hs.test"), "PHONE".into()).await;
        let bob = OlmMachine::new(ruma::user_id!("@bob:hs.test"), "PHONE".into()).await;
        directory.settle(&alice).await;
        directory.settle(&bob).await;
        (alice, bob)
    });

    let ghosts = (0..crowd).map(|n| Ghost::new(format!("@_dm_{name}_{n}:hs.test"), keeper));
    let making = ghosts.map(|mut ghost| {
        let directory = directory.clone();
        async move {
            ghost.open().await;
            directory.settle(ghost.machine()).await;
            ghost.flush().await;
            ghost
        }
    });
    let (ghosts, used) = together(runtime, making);
    figures.note(CREATE, &used, crowd);

    let loading = ghosts.into_iter().map(|mut ghost| async move {
        ghost.machine = None;
        ghost.open().await;
        ghost
    });
    let (ghosts, used) = together(runtime, loading);
    figures.note(LOAD, &used, crowd);

    let room = OwnedRoomId::try_from("!room:hs.test").unwrap();
    let content = people::message();
    let meeting = ghosts.into_iter().map(|ghost| {
        let (directory, room, content) = (directory.clone(), room.clone(), content.clone());
        async move {
            let bob = ruma::user_id!("@bob:hs.test");
            directory.look_up(ghost.machine(), bob).await;
            directory.claim(ghost.machine(), bob).await;
            let shared = people::share(ghost.machine(), &room, &[bob]).await;
            assert_eq!(shared.len(), 1);
            ghost.flush().await;
            people::encrypt(ghost.machine(), &room, &content).await;
            ghost
        }
    });
    let (ghosts, used) = together(runtime, meeting);
    figures.note(FIRST, &used, crowd);
    drop(bob);

    // Alice begins a session with each ghost and gives it a room key.
    let users: Vec<OwnedUserId> = ghosts.iter().map(|ghost| ghost.user.clone()).collect();
    let hers = OwnedRoomId::try_from("!hers:hs.test").unwrap();
    let (keys, said) = runtime.block_on(async {
        for user in &users {
            directory.look_up(&alice, user).await;
            directory.claim(&alice, user).await;
        }
        let users: Vec<_> = users.iter().map(|user| &**user).collect();
        let keys: BTreeMap<_, _> = people::share(&alice, &hers, &users)
            .await
            .into_iter()
            .collect();
        let mut said = Vec::new();
        for n in 0..MESSAGES {
            let content = people::encrypt(&alice, &hers, &content).await;
            said.push(people::event(alice.user_id(), n, &content));
        }
        (keys, Arc::new(said))
    });
    let taking = ghosts.into_iter().map(|ghost| {
        let key = keys[&ghost.user].clone();
        async move {
            people::receive(ghost.machine(), vec![key], None).await;
            ghost.flush().await;
            ghost
        }
    });
    let before = keeper.flushes();
    let (ghosts, used) = together(runtime, taking);
    figures.note(TAKE, &used, crowd);
    if let (Some(before), Some(after)) = (before, keeper.flushes()) {
        figures.note_flushes(TAKE, after - before, crowd);
    }

    let knowing = ghosts.into_iter().map(|ghost| {
        let directory = directory.clone();
        async move {
            directory
                .look_up(ghost.machine(), ruma::user_id!("@alice:hs.test"))
                .await;
            ghost
        }
    });
    let (ghosts, _) = together(runtime, knowing);

    let encrypting = ghosts.into_iter().map(|ghost| {
        let (room, content) = (room.clone(), content.clone());
        async move {
            for _ in 0..MESSAGES {
                people::encrypt(ghost.machine(), &room, &content).await;
            }
            ghost
        }
    });
    let (ghosts, used) = together(runtime, encrypting);
    figures.note(ENCRYPT, &used, crowd * MESSAGES);

    let decrypting = ghosts.into_iter().map(|ghost| {
        let (hers, said) = (hers.clone(), said.clone());
        async move {
            for event in &*said {
                people::decrypt(ghost.machine(), &hers, event).await;
            }
        }
    });
    let (_, used) = together(runtime, decrypting);
    figures.note(DECRYPT, &used, crowd * MESSAGES);
}

/// The calls that the service makes, with all that they do besides.
struct Service {
    runtime: Runtime,
    fake: testing::FakeHomeserver,
    store: Store,
    machines: Machines,
    alice: testing::Person,
    ghosts: Vec<OwnedUserId>,
}

impl Service {
    fn new(runtime: Runtime, others: &Runtime, folder: &Path, crowd: usize) -> Self {
        let (fake, alice) = others.block_on(async {
            let fake = testing::FakeHomeserver::start().await;
            let alice = testing::Person::new(&fake, "@alice:hs.test").await;
            // So that she has a fallback key and never runs out.
            alice.receives().await;
            (fake, alice)
        });
        let store = open(folder);
        let machines = runtime.block_on(async {
            let hs = fake.connect().await;
            Machines::new(store.clone(), hs, MachineSettings::default()).unwrap()
        });
        let ghosts: Vec<_> = (0..crowd)
            .map(|n| OwnedUserId::try_from(format!("@_dm_service{n}:hs.test")).unwrap())
            .collect();
        let making = ghosts.iter().cloned().map(|user| {
            let machines = machines.clone();
            async move {
                machines.provision(&user, "Ghost").await.unwrap();
                let rooms = [
                    ruma::room_id!("!room:hs.test"),
                    ruma::room_id!("!hers:hs.test"),
                ];
                for room in rooms {
                    machines.expect_room(&user, room).await.unwrap();
                }
            }
        });
        together(&runtime, making);
        Self {
            runtime,
            fake,
            store,
            machines,
            alice,
            ghosts,
        }
    }

    fn round(&self, others: &Runtime, figures: &mut Figures) {
        let users: Vec<_> = self.ghosts.iter().map(|user| &**user).collect();
        let hers = ruma::room_id!("!hers:hs.test");
        let content = people::message();
        let said = others.block_on(async {
            // A new session, so that every round is alike.
            let _ = self.alice.machine.discard_room_key(hers).await;
            let mut said = Vec::new();
            for n in 0..MESSAGES {
                said.push(if n == 0 {
                    self.alice.says(hers, &users, "the first").await
                } else {
                    let content = people::encrypt(&self.alice.machine, hers, &content).await;
                    testing::encrypted_event(self.alice.user(), hers, &content)
                });
            }
            Arc::new(said)
        });
        let to = Arc::new(EncryptTo {
            room_id: "!room:hs.test".try_into().unwrap(),
            recipients: vec![self.alice.user().to_owned()],
            rotation_ms: None,
            rotation_msgs: None,
        });
        // Not measured: keys arrive, and the first message of a session is said and heard.
        let beginning = self.ghosts.iter().cloned().map(|user| {
            let device = self.machines.device_of(&user).unwrap().unwrap();
            let incoming = self.fake.take_incoming(&user, &device);
            let (machines, to, said, content) = (
                self.machines.clone(),
                to.clone(),
                said.clone(),
                content.clone(),
            );
            async move {
                machines.receive_and_respond(&user, incoming).await.unwrap();
                machines.decrypt(&user, hers, &said[0]).await.unwrap();
                machines
                    .encrypt(&user, &to, "m.room.message", &content)
                    .await
                    .unwrap();
            }
        });
        together(&self.runtime, beginning);

        let encrypting = self.ghosts.iter().cloned().map(|user| {
            let (machines, to, content) = (self.machines.clone(), to.clone(), content.clone());
            async move {
                for _ in 0..MESSAGES {
                    let encrypting = machines.encrypt(&user, &to, "m.room.message", &content);
                    encrypting.await.unwrap();
                }
            }
        });
        let (_, used) = together(&self.runtime, encrypting);
        figures.note(ENCRYPT, &used, self.ghosts.len() * MESSAGES);

        for (operation, flush_each, part) in [
            (DECRYPT, false, 1..MESSAGES / 2),
            (DECRYPT_AND_FLUSH, true, MESSAGES / 2..MESSAGES),
        ] {
            let times = self.ghosts.len() * part.len();
            let decrypting = self.ghosts.iter().cloned().map(|user| {
                let (machines, store) = (self.machines.clone(), self.store.clone());
                let (said, part) = (said.clone(), part.clone());
                async move {
                    for event in &said[part] {
                        machines.decrypt(&user, hers, event).await.unwrap();
                        if flush_each {
                            store.flush().await.unwrap();
                        }
                    }
                    store.flush().await.unwrap();
                }
            });
            let (_, used) = together(&self.runtime, decrypting);
            figures.note(operation, &used, times);
        }
    }
}

fn open(folder: &Path) -> Store {
    let key = StoreKey::random().unwrap();
    Store::open(folder, &key, &StoreOptions::default()).unwrap()
}

fn runtime(name: &str) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(name)
        .enable_all()
        .build()
        .unwrap()
}

fn main() {
    let crowd = support::option("--ghosts", 100);
    let rounds = support::option("--rounds", 5);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = open(&folder.path().join("crowd"));
    let disk = Keeper::Disk(store.clone(), GhostStores::open(&store).unwrap());
    let (main, others) = (runtime("machines"), runtime("homeserver"));

    let (mut on_disk, mut in_memory, mut alone, mut bare, mut service) = (
        Figures::default(),
        Figures::default(),
        Figures::default(),
        Figures::default(),
        Figures::default(),
    );
    let whole = Service::new(
        runtime("service"),
        &others,
        &folder.path().join("service"),
        crowd,
    );
    for n in 0..rounds {
        // Side by side, so that both meet the same weather.
        round(&main, &disk, &format!("disk{n}"), crowd, &mut on_disk);
        round(
            &main,
            &Keeper::Memory,
            &format!("memory{n}"),
            crowd,
            &mut in_memory,
        );
        for again in 0..5 {
            round(&main, &disk, &format!("alone{n}_{again}"), 1, &mut alone);
        }
        bare::round(&mut bare);
        whole.round(&others, &mut service);
    }

    println!(
        "{}, {crowd} ghosts at the same time, {rounds} rounds",
        support::machine()
    );
    println!("µs of CPU per operation, all threads together\n");
    println!(
        "| operation | store on disk, flushes shared | memory store | bare vodozemac | disk : memory | disk : bare | on disk, alone |"
    );
    println!("|---|---|---|---|---|---|---|");
    for operation in OPERATIONS {
        let us = |figures: &Figures| figures.of(operation) / 1000.0;
        let (disk, memory, bare) = (us(&on_disk), us(&in_memory), us(&bare));
        println!(
            "| {operation} | {disk:.0} | {memory:.0} | {bare:.0} | {:.2} | {:.1} | {:.0} |",
            disk / memory,
            disk / bare,
            us(&alone)
        );
    }
    let us = |figures: &Figures, kind| figures.of_thread(TAKE, kind) / 1000.0;
    for (who, figures) in [("together", &on_disk), ("alone", &alone)] {
        println!(
            "\n{TAKE} on disk, {who}: {:.1} to a flush, {:.0} µs in the thread that flushes, {:.0} µs in sled's",
            median(figures.shared[TAKE].clone()),
            us(figures, "flush"),
            us(figures, "sled"),
        );
    }
    println!("\n| the whole call of the service | µs of CPU | : memory store's machine |");
    println!("|---|---|---|");
    for (operation, bare) in [
        (ENCRYPT, ENCRYPT),
        (DECRYPT, DECRYPT),
        (DECRYPT_AND_FLUSH, DECRYPT),
    ] {
        let (whole, memory) = (service.of(operation), in_memory.of(bare));
        println!(
            "| {operation} | {:.0} | {:.2} |",
            whole / 1000.0,
            whole / memory
        );
    }
}
