//! How long the creation of a room waits for us: what the module in Synapse asks, over HTTP, with
//! 100,000 handles on disk. `cargo bench -p stonechat --bench module`
//!
//! Everything runs on one machine, those who ask too. First they ask so many times a second as
//! `--rate` says, which is more than any homeserver makes rooms; then four ask at once without a
//! pause, so that nothing is left of the machine. What the directory alone costs is printed beside
//! it, as CPU time.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on has nothing to say, what it has goes to the terminal, and what it measures is real time"
)]

#[path = "../src/testing/appservice.rs"]
#[allow(
    dead_code,
    reason = "the tests need all of it, this benchmark does not"
)]
mod fake_appservice;
#[allow(dead_code, reason = "not every benchmark needs all of it")]
mod support;

use std::{
    num::NonZeroU32,
    path::Path,
    time::{Duration, Instant},
};

use mimalloc::MiMalloc;
use ruma::{OwnedUserId, UserId, server_name};
use secrecy::SecretString;
use serde_json::{Value, json};
use stonechat::{
    clock::{self, Timestamp},
    directory::{self, BlockScope, ClaimedBy, Directory, DirectorySettings},
    handle::{self, Handle, HandleRules, Typed},
    ids::{self, Person},
    matrix,
    server::{self, Health, Limits, Listener, Options, SelfTest, Token, router},
    shutdown,
    store::{Store, StoreKey, StoreOptions},
};
use tokio::task::JoinSet;

use fake_appservice::FakeAppservice;
use support::cpu;

/// As the `stonechat` command has it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const TOKEN: &str = "mod_0123456789abcdef0123456789abcdef";
const AT_ONCE: usize = 4;
/// One owner in so many has blocked somebody.
const BLOCKERS: usize = 10;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let handles = support::option("--handles", 100_000);
    let questions = support::option("--questions", 5_000);
    println!("{}", support::machine());
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    runtime.block_on(measure(folder.path(), handles, questions));
}

async fn measure(folder: &Path, handles: usize, questions: usize) {
    let key_file = folder.join("store.key");
    StoreKey::create_file(&key_file).unwrap();
    let key = StoreKey::from_file(&key_file).unwrap();
    let store = Store::open(&folder.join("data"), &key, &StoreOptions::default()).unwrap();
    let settings = DirectorySettings::new(server_name!("example.org").to_owned());
    let directory = Directory::new(store.clone(), settings);
    let begun = Instant::now();
    fill(&directory, handles).await;
    println!("{handles} handles in {:?}\n", begun.elapsed());

    let rate = support::option("--rate", 200);
    println!(
        "| the room invites | directory, µs of CPU | {rate} a second: half within, ms | 99 % | all \
         | {AT_ONCE} without a pause: half within, ms | 99 % | all |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let asked = Asked::on(directory.clone()).await;
    for (what, named, people) in [
        ("one handle", 1, 0),
        ("ten handles", 10, 0),
        ("ten handles and a hundred people", 10, 100),
        ("a hundred people", 0, 100),
    ] {
        // What was counted before is written before this is measured.
        directory.flush_deferred().await.unwrap();
        let room = |asker: usize, n: usize| Room::new(asker, n, named, people, handles);
        let cpu = directly(&directory, questions / 10, &room).await;
        let paced = shares(asked.at_a_rate(questions, rate, &room).await);
        let pressed = shares(asked.without_a_pause(questions, &room).await);
        println!("| {what} | {cpu:.0} | {paced} | {pressed} |");
    }
    asked.end().await;
    store.shut_down().await.unwrap();
}

/// Within how many ms half, 99 % and all were answered.
fn shares(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("{:.2} | {:.2} | {:.2}", at(0.5), at(0.99), at(1.0))
}

async fn fill(directory: &Directory, handles: usize) {
    for first in (0..handles).step_by(1000) {
        let mut change = directory.begin().await;
        for n in first..handles.min(first + 1000) {
            let (owner, handle) = (Person::new(owner(n)), name(n));
            let now = Timestamp(1);
            let claimed = change.claim(&owner, &handle, ClaimedBy::Admin, now);
            claimed.unwrap();
            if n % BLOCKERS == 0 {
                let spammer = UserId::parse("@spammer:example.com").unwrap();
                let scope = BlockScope::Handle(handle);
                let blocked = change.block(&owner, &Typed::Person(spammer), &scope, now);
                blocked.unwrap();
            }
        }
        change.commit().await.unwrap();
    }
}

/// A room that is being created: everywhere in the directory, by ever new people.
struct Room {
    asker: Person,
    ghosts: Vec<OwnedUserId>,
    people: Vec<OwnedUserId>,
}

impl Room {
    fn new(asker: usize, n: usize, named: usize, people: usize, handles: usize) -> Self {
        let at = |k: usize| (n * 7919 + k * 104_729 + asker * 31) % handles;
        let ghost = |k| name(at(k)).ghost_address(server_name!("example.org"));
        Self {
            asker: Person::new(
                UserId::parse(format!("@asker{asker}_{n}_{named}_{people}:example.org")).unwrap(),
            ),
            ghosts: (0..named)
                .map(|k| UserId::parse(ghost(k)).unwrap())
                .collect(),
            people: (0..people).map(|k| owner(at(k + 10))).collect(),
        }
    }
}

fn owner(n: usize) -> OwnedUserId {
    UserId::parse(format!("@owner{n}:example.org")).unwrap()
}

/// Handles that do not look alike: in base 6, with digits of two letters each.
fn name(n: usize) -> Handle {
    const DIGITS: [&str; 6] = ["ba", "ce", "di", "fu", "go", "ha"];
    let mut text = String::new();
    let mut rest = n;
    for _ in 0..7 {
        text.push_str(DIGITS[rest % 6]);
        rest /= 6;
    }
    Handle::parse(&text, &HandleRules::default()).unwrap()
}

/// What a question costs without HTTP, in µs of CPU.
async fn directly(
    directory: &Directory,
    questions: usize,
    room: &(dyn Fn(usize, usize) -> Room + Sync),
) -> f64 {
    let rooms: Vec<_> = (0..questions).map(|n| room(AT_ONCE, n)).collect();
    let begun = cpu::by_thread();
    for room in &rooms {
        answer(directory, &room.asker, &room.ghosts, &room.people).await;
    }
    let used = cpu::between(&begun, &cpu::by_thread(), "");
    cpu::sum(&used).as_secs_f64() * 1e6 / questions as f64
}

async fn answer(
    directory: &Directory,
    asker: &Person,
    ghosts: &[OwnedUserId],
    people: &[OwnedUserId],
) -> (Vec<Option<Person>>, Vec<bool>) {
    let handles: Vec<_> = ghosts
        .iter()
        .filter_map(|ghost| Handle::of_ghost(ghost.localpart()))
        .collect();
    let owners = match handles.is_empty() {
        true => Vec::new(),
        false => directory
            .introduce(asker, &handles, Timestamp(5))
            .await
            .unwrap(),
    };
    (owners, directory.who_blocked(asker, people).unwrap())
}

/// The served API.
struct Asked {
    url: String,
    http: reqwest::Client,
    trigger: shutdown::Trigger,
    server: tokio::task::JoinHandle<()>,
    settler: tokio::task::JoinHandle<()>,
}

impl Asked {
    async fn on(directory: Directory) -> Self {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), Limits::default());
        let listener = listener.await.unwrap();
        let url = format!("http://{}/_stonechat/v1/introduce", listener.address());
        let (trigger, stop) = shutdown::channel();
        let options = Options {
            token: Token::new(&SecretString::from("hs_0123456789abcdef0123456789abcdef")),
            module_token: Some(Token::new(&SecretString::from(TOKEN))),
            lookups_per_second: NonZeroU32::MIN,
            handle_chars_max: 15,
            server_name: server_name!("example.org").to_owned(),
            self_test: SelfTest::default(),
            health: Health::default(),
        };
        // As the engine does.
        let settling = directory.clone();
        let settler = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(250));
            loop {
                ticks.tick().await;
                settling.flush_deferred().await.unwrap();
            }
        });
        let router = router(FakeAppservice::new().with_directory(directory), options);
        let server = tokio::spawn(listener.serve(router, stop));
        matrix::install_crypto_provider();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            url,
            http,
            trigger,
            server,
            settler,
        }
    }

    /// How long each was waited for, from the moment at which it was due.
    async fn at_a_rate(
        &self,
        questions: usize,
        rate: usize,
        room: &impl Fn(usize, usize) -> Room,
    ) -> Vec<Duration> {
        let mut asked = JoinSet::new();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate as u32);
        for n in 0..questions {
            let question = Question::new(&room(AT_ONCE + 1, n));
            let due = ticks.tick().await.into_std();
            asked.spawn(question.ask(self.http.clone(), self.url.clone(), due));
        }
        asked.join_all().await
    }

    async fn without_a_pause(
        &self,
        questions: usize,
        room: &impl Fn(usize, usize) -> Room,
    ) -> Vec<Duration> {
        let mut askers = JoinSet::new();
        for asker in 0..AT_ONCE {
            let questions: Vec<_> = (0..questions / AT_ONCE)
                .map(|n| Question::new(&room(asker, n)))
                .collect();
            let (http, url) = (self.http.clone(), self.url.clone());
            askers.spawn(async move {
                let mut took = Vec::with_capacity(questions.len());
                for question in questions {
                    let asked = question.ask(http.clone(), url.clone(), Instant::now());
                    took.push(asked.await);
                }
                took
            });
        }
        askers.join_all().await.into_iter().flatten().collect()
    }

    async fn end(self) {
        self.settler.abort();
        self.trigger.pull();
        self.server.await.unwrap();
    }
}

/// What the module sends.
struct Question {
    body: String,
    ghosts: usize,
}

impl Question {
    fn new(room: &Room) -> Self {
        let body = json!({
            "asker": room.asker, "handles": room.ghosts, "people": room.people,
            "direct": false, "encrypted": true,
        });
        Self {
            body: body.to_string(),
            ghosts: room.ghosts.len(),
        }
    }

    async fn ask(self, http: reqwest::Client, url: String, due: Instant) -> Duration {
        let request = http.post(&url).bearer_auth(TOKEN).body(self.body);
        let said = request.send().await.unwrap().bytes().await.unwrap();
        let took = due.elapsed();
        let said: Value = serde_json::from_slice(&said).unwrap();
        let put = said["handles"].as_object().unwrap();
        assert_eq!(put.len(), self.ghosts);
        assert!(put.values().all(|is| is["owner"].is_string()), "{said}");
        assert_eq!(said["blocked"], json!([]));
        took
    }
}
