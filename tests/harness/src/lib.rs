//! What Stonechat's stories are told with: a real Synapse in a folder of its own, the service as
//! a child process that can be killed at any moment, and people who use real clients.
//!
//! | module | what it is |
//! |---|---|
//! | [`world`] | a homeserver, the service and its people together: where a story begins |
//! | [`synapse`] | one homeserver: start, stop, kill, restart, register people; alone or with PostgreSQL, workers, or MAS |
//! | [`venv`] | the Python environment that Synapse runs in, made once |
//! | [`service`] | Stonechat itself, set up through its own command line |
//! | [`metrics`] | what the service shows to Prometheus |
//! | [`person`] | somebody with a client on matrix-sdk, and everything it has shown them |
//! | [`fake`] | the service on the homeserver of `tests/fake-homeserver`, for load and faults, and people on it |
//! | [`hostile`] | homeservers that attack ours over federation |
//! | [`js`] | somebody with a client that was not made with the Rust SDK |
//! | [`browser`] | somebody's client in a real browser, for calls |
//! | [`turn`] | a relay for calls: a coturn on loopback |
//! | [`checks`] | what must never be found in a file, and what no client may ever show |
//! | [`proxy`] | a network that can be slow or away, between any two of them |
//! | [`process`] | a child process that dies with us |
//! | [`daemon`] | the same for PostgreSQL and Redis, which know nothing of us |
//!
//! Nothing here sleeps to let something happen: every wait is for the thing itself, and its error
//! says what was seen instead.

#![recursion_limit = "512"]

pub mod browser;
pub mod checks;
pub mod daemon;
pub mod fake;
pub mod hostile;
pub mod js;
pub mod metrics;
pub mod person;
pub mod process;
pub mod proxy;
pub mod service;
pub mod synapse;
pub mod turn;
pub mod venv;
pub mod world;

/// As the `stonechat` command has it: the service runs in programs that are linked with this.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub use browser::Browser;
pub use js::JsBot;
pub use person::{Chat, ChatOptions, Invite, Log, Person, PersonOptions, Seen, Sign, Trust};
pub use process::Process;
pub use service::{Service, ServiceOptions};

pub use ruma;
pub use synapse::{Installation, Synapse, SynapseOptions};
pub use world::{World, WorldOptions};

use std::time::Duration;

/// How long anything that a story waits for may take: long, for a busy machine of two cores.
pub const PATIENCE: Duration = Duration::from_secs(30);
