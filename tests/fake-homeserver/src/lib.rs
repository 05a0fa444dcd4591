//! A homeserver that is a program of ours: fast, and able to fail at any moment. For unit tests, for
//! load and for faults; stories are told on a real Synapse.
//!
//! It keeps the rules that a service relies on, and the traps that Synapse has for it:
//!
//! * transaction ids count for all users of the application service together: the second use of
//!   one in a room, or for to-device messages, is answered with the first one's answer and does
//!   nothing. They are kept in memory, and for messages sent on a device also across restarts;
//! * to-device messages are pushed once and are gone when that fails; they stay in the inbox until
//!   the device's own sync acknowledges them;
//! * transactions come one at a time, numbered from 1 again after a restart; a restart loses room
//!   events that were queued;
//! * one-time keys are given out once, then the fallback key; key counts come with some
//!   transactions only, and say `{}` for none.
//!
//! | module | what it is |
//! |---|---|
//! | [`model`] | what it knows, and what it answers |
//! | `http` | how requests come in |
//! | [`Client`] | people on it, who live in this process |
//! | [`push`] | transactions, unless a test hands them over itself |
//! | `fault` | what goes wrong, by a seed |
//! | `script` | what goes wrong at a request that a test names, and answers of its own |

mod client;
mod fault;
mod http;
pub mod model;
pub mod push;
mod script;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinHandle},
};
use url::Url;

pub use client::Client;
pub use fault::{Faults, Outage};
pub use model::{Answer, Arrival, Ask, Device, Draft, Event, Incoming, Mail, Registration, Server};
pub use script::{Held, When};

use fault::{Chance, Delivery, Fate};
use push::Transaction;
use script::Script;

/// How the homeserver is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub server_name: String,
    /// The first pause after a transaction failed, and the longest. Synapse: 2 s and 512 s.
    pub backoff: [Duration; 2],
    /// How long a transaction may take. Synapse: 60 s.
    pub transaction_timeout: Duration,
    /// Whether it pushes transactions. If not, a test hands over what it likes.
    pub pushes: bool,
    /// Over how many connections transactions come by turns, as with several workers.
    pub connections: u8,
    /// Whether it is written down when each event was first pushed ([`Fake::pushed`]).
    pub measures: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            server_name: "fake.test".to_owned(),
            backoff: [Duration::from_millis(50), Duration::from_secs(1)],
            transaction_timeout: Duration::from_secs(20),
            pushes: true,
            connections: 1,
            measures: false,
        }
    }
}

/// How the homeserver goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// SIGTERM: the transaction under way counts as failed.
    InOrder,
    /// SIGKILL: the transaction under way is stuck until the service fails the next time.
    Killed,
}

/// The homeserver. Dropping it ends it.
pub struct Fake {
    shared: Arc<Shared>,
    url: Url,
    listening: JoinHandle<()>,
    pushing: Mutex<JoinHandle<()>>,
}

struct Shared {
    server: Mutex<Server>,
    chance: Mutex<Chance>,
    options: Options,
    /// Those that push, made when they are needed: that takes long. Their connections end with the
    /// process that opened them.
    http: Mutex<Vec<reqwest::Client>>,
    /// Something may be there to be pushed.
    news: Notify,
    /// The service was pinged and is up.
    pinged: Notify,
    away: AtomicBool,
    back: Notify,
    outage: watch::Sender<Option<Outage>>,
    connections: Mutex<Vec<AbortHandle>>,
    pushed: Mutex<HashMap<String, Instant>>,
    script: Mutex<Script>,
    /// Told when a request of the service came.
    came: Notify,
    /// How many requests the service has made.
    requests: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.listening.abort();
        lock(&self.pushing).abort();
        self.shared.break_connections();
    }
}

impl Fake {
    /// Starts one on a free port.
    pub async fn start(options: Options) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = Url::parse(&format!("http://{}/", listener.local_addr()?))?;
        let mut server = Server {
            name: options.server_name.clone(),
            ..Server::default()
        };
        server.queue.is_off = !options.pushes;
        let shared = Arc::new(Shared {
            server: Mutex::new(server),
            chance: Mutex::default(),
            options,
            http: Mutex::default(),
            news: Notify::new(),
            pinged: Notify::new(),
            away: AtomicBool::new(false),
            back: Notify::new(),
            outage: watch::Sender::new(None),
            connections: Mutex::default(),
            pushed: Mutex::default(),
            script: Mutex::default(),
            came: Notify::new(),
            requests: watch::Sender::new(0),
        });
        let serving = shared.clone();
        let listening = tokio::spawn(async move {
            http::serve(serving, listener).await;
        });
        let pushing = Mutex::new(tokio::spawn(push::push(shared.clone())));
        Ok(Self {
            shared,
            url,
            listening,
            pushing,
        })
    }

    /// Where it listens.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Its name.
    pub fn server_name(&self) -> &str {
        &self.shared.options.server_name
    }

    /// Lets it know an application service by its registration file.
    pub fn install(&self, registration: &Path) -> Result<()> {
        let text = std::fs::read_to_string(registration)
            .with_context(|| format!("cannot read {}", registration.display()))?;
        let yaml: serde_json::Value = serde_yaml::from_str(&text)?;
        let field = |name: &str| {
            let value = yaml[name].as_str().map(str::to_owned);
            value.with_context(|| format!("no {name} in the registration"))
        };
        let regex = yaml["namespaces"]["users"][0]["regex"].as_str();
        let prefix = regex.and_then(|regex| regex.split_once(".*"));
        let (prefix, _) = prefix.context("the namespace has no prefix")?;
        let service = Registration {
            id: field("id")?,
            url: field("url")?,
            as_token: field("as_token")?,
            hs_token: field("hs_token")?,
            sender: format!("@{}:{}", field("sender_localpart")?, self.server_name()),
            prefix: prefix.to_owned(),
        };
        self.serves(service);
        Ok(())
    }

    /// The same without a file.
    pub fn serves(&self, service: Registration) {
        self.with(|server| server.service = Some(service));
    }

    /// Looks at, or changes, what it knows.
    pub fn with<T>(&self, act: impl FnOnce(&mut Server) -> T) -> T {
        self.shared.with(act)
    }

    /// From now on things go wrong.
    pub fn begin_faults(&self, faults: Faults) {
        lock(&self.shared.chance).begin(faults);
    }

    /// From now on nothing goes wrong; returns what did ([`Fake::faults_so_far`]).
    pub fn end_faults(&self) -> [usize; 6] {
        let counts = self.faults_so_far();
        lock(&self.shared.chance).end();
        counts
    }

    /// How many requests failed, were limited, were dropped, were delayed; how many transactions
    /// were given up, and were lost.
    pub fn faults_so_far(&self) -> [usize; 6] {
        lock(&self.shared.chance).counts()
    }

    /// Goes down, stays away for a while, and comes back.
    pub async fn restart(&self, how: Restart, away: Duration) {
        self.shared.away.store(true, Ordering::SeqCst);
        lock(&self.pushing).abort();
        self.shared.break_connections();
        lock(&self.shared.http).clear();
        self.with(|server| {
            server.queue.restart(how == Restart::InOrder);
            server.answered.clear();
        });
        tokio::time::sleep(away).await;
        *lock(&self.pushing) = tokio::spawn(push::push(self.shared.clone()));
        self.shared.away.store(false, Ordering::SeqCst);
        self.shared.back.notify_waiters();
    }

    /// From now on none of the service's requests gets through, until [`Fake::end_outage`]. What it
    /// is pushed arrives all the same.
    pub fn begin_outage(&self, outage: Outage) {
        self.shared.outage.send_replace(Some(outage));
    }

    /// Lets requests through again.
    pub fn end_outage(&self) {
        self.shared.outage.send_replace(None);
    }

    /// How many requests the service has made, and a bell for the next.
    pub fn requests(&self) -> watch::Receiver<u64> {
        self.shared.requests.subscribe()
    }

    /// When each event was first pushed to the service, as far as the options ask for it.
    pub fn pushed(&self) -> HashMap<String, Instant> {
        lock(&self.shared.pushed).clone()
    }

    /// What must never be seen of a service: keys that were used twice.
    pub fn reuses(&self) -> Vec<String> {
        self.with(|server| server.reuses.clone())
    }

    /// A room's events, as the homeserver keeps them.
    pub fn events(&self, room: &str) -> Vec<Event> {
        self.with(|server| {
            let room = server.rooms.get(room);
            room.map(|room| room.events.clone()).unwrap_or_default()
        })
    }
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut Server) -> T) -> T {
        let mut server = lock(&self.server);
        let done = act(&mut server);
        if server.queue.has_work() {
            self.news.notify_one();
        }
        done
    }

    fn is_away(&self) -> bool {
        self.away.load(Ordering::SeqCst)
    }

    fn fate(&self) -> Fate {
        lock(&self.chance).of_request()
    }

    fn delivery(&self) -> Delivery {
        lock(&self.chance).of_transaction()
    }

    fn note_pushed(&self, transaction: &Transaction) {
        if self.options.measures {
            let now = Instant::now();
            let mut pushed = lock(&self.pushed);
            for event in &transaction.events {
                pushed.entry(event.id.clone()).or_insert(now);
            }
        }
    }

    fn keep_connection(&self, connection: AbortHandle) {
        let mut connections = lock(&self.connections);
        connections.retain(|connection| !connection.is_finished());
        connections.push(connection);
    }

    fn break_connections(&self) {
        for connection in lock(&self.connections).drain(..) {
            connection.abort();
        }
    }

    /// Answers a request of somebody whose token was looked at; a sync waits for news.
    async fn ask(&self, ask: &Ask) -> Answer {
        let wait = ask.number("timeout").filter(|_| ask.parts == ["sync"]);
        let Some(wait) = wait.filter(|wait| *wait > 0 && ask.query.contains_key("since")) else {
            return self.with(|server| server.answer(ask));
        };
        let deadline = tokio::time::Instant::now() + Duration::from_millis(wait as u64);
        loop {
            let bell = self.with(|server| {
                let account = server.accounts.get(&ask.user);
                account.map(|account| account.bell.clone())
            });
            let bell = bell.unwrap_or_default();
            let mut rung = std::pin::pin!(bell.notified());
            rung.as_mut().enable();
            let answer = self.with(|server| server.answer(ask));
            let late = tokio::time::Instant::now() >= deadline;
            if late || answer.status != 200 || model::brings_something(&answer) {
                return answer;
            }
            let _ = tokio::time::timeout_at(deadline, rung).await;
        }
    }
}
