//! The sections of the configuration file and their defaults.
//!
//! A new option is a field with its default here and a line in the table of `sample.rs`; a test
//! refuses the one without the other.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};
use url::Url;

/// The configuration file. Only `homeserver.url` and `homeserver.server_name` must be given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The homeserver we serve.
    pub homeserver: HomeserverSection,
    /// How the homeserver reaches us.
    #[serde(default)]
    pub appservice: Appservice,
    /// The registration file, which holds the tokens.
    #[serde(default = "default_registration")]
    pub registration: PathBuf,
    /// The folder of the database.
    #[serde(default = "default_data")]
    pub data: PathBuf,
    /// The database.
    #[serde(default)]
    pub store: StoreSection,
    /// What a handle may look like and how many a person may hold.
    #[serde(default)]
    pub handles: Handles,
    /// How much one person or one server may ask of us.
    #[serde(default)]
    pub limits: Limits,
    /// How a ghost brings two people together.
    #[serde(default)]
    pub introductions: Introductions,
    /// How conversations with masked handles are carried.
    #[serde(default)]
    pub relay: RelaySection,
    /// How gaps in what the homeserver pushed are filled.
    #[serde(default)]
    pub reconcile: Reconcile,
    /// The Olm machines.
    #[serde(default)]
    pub crypto: Crypto,
    /// The module in the homeserver.
    #[serde(default)]
    pub module: Module,
    /// What is logged, and how.
    #[serde(default)]
    pub log: Log,
}

fn default_registration() -> PathBuf {
    PathBuf::from("../registration.yaml")
}

fn default_data() -> PathBuf {
    PathBuf::from("../data")
}

impl Default for Config {
    /// What the sample file says.
    fn default() -> Self {
        Self {
            homeserver: HomeserverSection::default(),
            appservice: Appservice::default(),
            registration: default_registration(),
            data: default_data(),
            store: StoreSection::default(),
            handles: Handles::default(),
            limits: Limits::default(),
            introductions: Introductions::default(),
            relay: RelaySection::default(),
            reconcile: Reconcile::default(),
            crypto: Crypto::default(),
            module: Module::default(),
            log: Log::default(),
        }
    }
}

/// `homeserver`: the homeserver we serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HomeserverSection {
    /// Where we reach its client-server API.
    pub url: Url,
    /// Its name, the part of a user id after the colon.
    pub server_name: OwnedServerName,
    /// How long a request to it may take.
    #[serde(default = "default_timeout", with = "super::span")]
    pub timeout: Duration,
    /// The proxy through which we reach it.
    #[serde(default)]
    pub proxy: Option<Url>,
}

fn default_timeout() -> Duration {
    Duration::from_secs(60)
}

impl Default for HomeserverSection {
    #[expect(
        clippy::unwrap_used,
        reason = "two constants that every test of this room parses"
    )]
    fn default() -> Self {
        Self {
            url: Url::parse("http://127.0.0.1:8008").unwrap(),
            server_name: ruma::ServerName::parse("example.org").unwrap(),
            timeout: default_timeout(),
            proxy: None,
        }
    }
}

/// `appservice`: how the homeserver reaches us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Appservice {
    /// Our name in the homeserver's list of application services.
    pub id: String,
    /// The address we listen on.
    pub listen: SocketAddr,
    /// Our address as the homeserver sees it.
    pub url: Url,
}

impl Default for Appservice {
    #[expect(
        clippy::unwrap_used,
        reason = "a constant that every test of this room parses"
    )]
    fn default() -> Self {
        Self {
            id: "stonechat".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 29331)),
            url: Url::parse("http://127.0.0.1:29331").unwrap(),
        }
    }
}

/// `store`: the database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSection {
    /// Memory for the cache of the database, in MiB.
    pub cache_mib: u64,
    /// The file with the key under which secrets are kept in the database.
    pub key_file: PathBuf,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self {
            cache_mib: 64,
            key_file: PathBuf::from("store.key"),
        }
    }
}

/// `handles`: what a handle may look like and how many a person may hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Handles {
    /// The shortest handle, in characters.
    pub min_length: usize,
    /// The longest handle, in characters.
    pub max_length: usize,
    /// How many handles one person may hold at a time.
    pub max_per_person: u32,
    /// How long a released handle is kept for its last owner alone.
    #[serde(with = "super::span")]
    pub quarantine: Duration,
    /// Names that nobody may claim, besides the list that is shipped.
    pub reserved: Vec<String>,
}

impl Default for Handles {
    fn default() -> Self {
        Self {
            min_length: 1,
            max_length: 15,
            max_per_person: 5,
            quarantine: days(365) + Duration::from_secs(6 * 3600),
            reserved: Vec::new(),
        }
    }
}

/// `limits`: how much one person or one server may ask of us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// New conversations that one person may start in a day, over all handles.
    pub new_conversations_per_sender: u32,
    /// New conversations that all people of one other homeserver may start in a day.
    pub new_conversations_per_server: u32,
    /// Ghosts that may be invited into one room while it is being made.
    pub handles_per_room: u32,
    /// Handles that one person may claim in a day.
    pub claims_per_day: u32,
    /// Handles that all people of one other homeserver may claim in a day.
    pub claims_per_server: u32,
    /// Third-party lookups answered in a second, for everybody together.
    pub lookups_per_second: u32,
    /// Invites to names that nobody holds, declined in a day, for everybody together.
    pub unclaimed_per_day: u32,
    /// How long a ghost takes to decline, whatever the reason.
    #[serde(with = "super::span")]
    pub decline_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            new_conversations_per_sender: 30,
            new_conversations_per_server: 300,
            handles_per_room: 10,
            claims_per_day: 10,
            claims_per_server: 20,
            lookups_per_second: 20,
            unclaimed_per_day: 200,
            decline_after: Duration::from_secs(2),
        }
    }
}

/// `introductions`: how a ghost brings two people together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Introductions {
    /// Whether no opening line passes through us, for every handle of this server.
    pub strict: bool,
    /// How long a ghost waits for the opening line before it introduces without one.
    #[serde(with = "super::span")]
    pub wait_for_message: Duration,
    /// How long a ghost stays after the invite and after the last message it heard.
    #[serde(with = "super::span")]
    pub linger: Duration,
    /// How long a ghost stays after the invite at most.
    #[serde(with = "super::span")]
    pub at_most: Duration,
    /// How long a ghost stays where the owner has to join first.
    #[serde(with = "super::span")]
    pub wait_for_owner: Duration,
    /// How long a request waits for the owner's answer.
    #[serde(with = "super::span")]
    pub wait_for_answer: Duration,
    /// How many introductions go on at the same time, for people of this server and for others.
    pub joins_at_once: usize,
    /// The largest room a ghost introduces in.
    pub room_members: u32,
}

impl Default for Introductions {
    fn default() -> Self {
        Self {
            strict: false,
            wait_for_message: Duration::from_secs(5),
            linger: Duration::from_secs(3),
            at_most: Duration::from_secs(10),
            wait_for_owner: days(7),
            wait_for_answer: days(7),
            joins_at_once: 8,
            room_members: 50,
        }
    }
}

/// `relay`: how conversations with masked handles are carried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelaySection {
    /// Whether handles can be masked.
    pub offered: bool,
    /// Whether a read receipt shows that a message has reached the other side.
    pub delivery_receipts: bool,
    /// For how long it is remembered which event here is which there.
    #[serde(with = "super::span")]
    pub remember: Duration,
    /// How long a message whose key is missing holds up those behind it.
    #[serde(with = "super::span")]
    pub wait_for_key: Duration,
}

impl Default for RelaySection {
    fn default() -> Self {
        Self {
            offered: true,
            delivery_receipts: true,
            remember: days(365),
            wait_for_key: Duration::from_secs(60),
        }
    }
}

/// `reconcile`: how gaps in what the homeserver pushed are filled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reconcile {
    /// How often each ghost with open work asks the homeserver what it missed.
    #[serde(with = "super::span")]
    pub interval: Duration,
    /// How many ghosts ask in a second.
    pub ghosts_per_second: u32,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(3600),
            ghosts_per_second: 5,
        }
    }
}

/// `crypto`: the Olm machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Crypto {
    /// How many machines are kept in memory; the others are loaded when they are needed.
    pub machines_in_memory: usize,
}

impl Default for Crypto {
    fn default() -> Self {
        Self {
            machines_in_memory: 200,
        }
    }
}

/// `module`: the module in the homeserver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Module {
    /// The file with the token that the module shows us. There is no module while it is not there.
    pub token_file: PathBuf,
}

impl Default for Module {
    fn default() -> Self {
        Self {
            token_file: PathBuf::from("module.token"),
        }
    }
}

/// `log`: what is logged, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// How much.
    pub level: LogLevel,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line for each entry.
    #[default]
    Text,
    /// One JSON object for each entry.
    Json,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what needs an admin.
    Error,
    /// And what may need one soon.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// And how.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

const fn days(n: u64) -> Duration {
    Duration::from_secs(n * 24 * 3600)
}
