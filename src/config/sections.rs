//! The sections of the configuration file and their defaults.
//!
//! A new option is a field with its default here and a line in the table of `sample.rs`. A test
//! fails if one of them is missing.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use ruma::OwnedServerName;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor},
};
use url::Url;

use crate::permissions::Permission;

/// The configuration file. Only `homeserver.url` and `homeserver.server_name` must be given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The homeserver that we serve.
    pub homeserver: HomeserverSection,
    /// How the homeserver reaches us.
    #[serde(default)]
    pub appservice: AppserviceSection,
    /// The registration file, which holds the tokens.
    #[serde(default = "default_registration")]
    pub registration: PathBuf,
    /// The folder of the database.
    #[serde(default = "default_data")]
    pub data: PathBuf,
    /// The database.
    #[serde(default)]
    pub store: StoreSection,
    /// What people may do, by Matrix ID, by server, or for everybody.
    #[serde(default, deserialize_with = "read_permissions")]
    pub permissions: BTreeMap<String, Permission>,
    /// What a handle may look like and how many a person may hold.
    #[serde(default)]
    pub handles: HandlesSection,
    /// How much one person or one server may ask of us.
    #[serde(default)]
    pub limits: LimitsSection,
    /// How a ghost brings two people together.
    #[serde(default)]
    pub introductions: IntroductionsSection,
    /// How conversations with masked handles are passed on.
    #[serde(default)]
    pub relay: RelaySection,
    /// How ghosts fetch events that the homeserver failed to push.
    #[serde(default)]
    pub reconcile: ReconcileSection,
    /// The Olm machines.
    #[serde(default)]
    pub crypto: CryptoSection,
    /// The module in the homeserver.
    #[serde(default)]
    pub module: ModuleSection,
    /// The metrics.
    #[serde(default)]
    pub metrics: MetricsSection,
    /// The log.
    #[serde(default)]
    pub log: LogSection,
}

/// Reads a map in which no key stands twice: of two permissions for one person, the wrong one could
/// hold.
fn read_permissions<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Permission>, D::Error> {
    struct OncePerKey;

    impl<'de> Visitor<'de> for OncePerKey {
        type Value = BTreeMap<String, Permission>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Matrix IDs and servers, each with what it may do")
        }

        /// Nothing is written below the key.
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut read = BTreeMap::new();
            while let Some((key, permission)) = map.next_entry::<String, _>()? {
                if read.contains_key(&key) {
                    let twice = format!("\"{key}\" stands here twice; remove one of the two");
                    return Err(de::Error::custom(twice));
                }
                read.insert(key, permission);
            }
            Ok(read)
        }
    }

    deserializer.deserialize_any(OncePerKey)
}

fn default_registration() -> PathBuf {
    PathBuf::from("../registration.yaml")
}

fn default_data() -> PathBuf {
    PathBuf::from("../data")
}

impl Default for Config {
    /// Returns the values of the sample file.
    fn default() -> Self {
        Self {
            homeserver: HomeserverSection::default(),
            appservice: AppserviceSection::default(),
            registration: default_registration(),
            data: default_data(),
            store: StoreSection::default(),
            permissions: BTreeMap::new(),
            handles: HandlesSection::default(),
            limits: LimitsSection::default(),
            introductions: IntroductionsSection::default(),
            relay: RelaySection::default(),
            reconcile: ReconcileSection::default(),
            crypto: CryptoSection::default(),
            module: ModuleSection::default(),
            metrics: MetricsSection::default(),
            log: LogSection::default(),
        }
    }
}

/// `homeserver`: the homeserver that we serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HomeserverSection {
    /// The URL of its client-server API.
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
pub struct AppserviceSection {
    /// Our name in the homeserver's list of application services.
    pub id: String,
    /// The address on which we listen.
    pub listen: SocketAddr,
    /// Our address as the homeserver sees it.
    pub url: Url,
}

impl Default for AppserviceSection {
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
pub struct HandlesSection {
    /// The shortest handle, in characters.
    pub min_length: usize,
    /// The longest handle, in characters.
    pub max_length: usize,
    /// How many handles one person may hold at a time.
    pub max_per_person: u32,
    /// How long a released handle is kept for its last owner alone.
    #[serde(with = "super::span")]
    pub quarantine: Duration,
    /// Names that nobody may claim, in addition to the shipped list.
    pub reserved: Vec<String>,
}

impl Default for HandlesSection {
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
pub struct LimitsSection {
    /// New conversations that one person may start in a day, over all handles.
    pub new_conversations_per_sender: u32,
    /// New conversations that all people of one other homeserver may start in a day.
    pub new_conversations_per_server: u32,
    /// Handles that may be invited into one room while it is being created.
    pub handles_per_room: u32,
    /// Handles that one person may claim in a day.
    pub claims_per_day: u32,
    /// Handles that all people of one other homeserver may claim in a day.
    pub claims_per_server: u32,
    /// Third-party lookups answered in a second, for everybody together.
    pub lookups_per_second: u32,
    /// Invites to names that nobody holds that are declined in a day, for everybody together.
    pub unclaimed_per_day: u32,
    /// How long a ghost takes to decline, whatever the reason.
    #[serde(with = "super::span")]
    pub decline_after: Duration,
}

impl Default for LimitsSection {
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
pub struct IntroductionsSection {
    /// Whether nothing that people write passes through us, for every handle of this server.
    pub strict: bool,
    /// How long a ghost waits for the opening line before it introduces without one.
    #[serde(with = "super::span")]
    pub wait_for_message: Duration,
    /// How long a ghost stays after the invite and after the last message.
    #[serde(with = "super::span")]
    pub linger: Duration,
    /// Maximum time that a ghost stays after the invite.
    #[serde(with = "super::span")]
    pub at_most: Duration,
    /// How long a ghost stays if the owner has to join first.
    #[serde(with = "super::span")]
    pub wait_for_owner: Duration,
    /// How long a request waits for the owner's answer.
    #[serde(with = "super::span")]
    pub wait_for_answer: Duration,
    /// How many introductions run at the same time, for people of this server and for all others.
    pub joins_at_once: usize,
    /// Maximum number of members of a room in which a ghost introduces.
    pub room_members: u32,
}

impl Default for IntroductionsSection {
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

/// `relay`: how conversations with masked handles are passed on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelaySection {
    /// Whether handles can be masked.
    pub offered: bool,
    /// Whether a read receipt shows that a message has reached the other side.
    pub delivery_receipts: bool,
    /// How long the ids of an event in both rooms are remembered. At most those of the newest 5,000
    /// events of a room are.
    #[serde(with = "super::span")]
    pub remember: Duration,
    /// How long a message whose key is missing holds up those behind it.
    #[serde(with = "super::span")]
    pub wait_for_key: Duration,
    /// Maximum size of a file from another homeserver that is passed on, in bytes.
    #[serde(with = "super::size")]
    pub media_at_most: u64,
}

impl Default for RelaySection {
    fn default() -> Self {
        Self {
            offered: true,
            delivery_receipts: true,
            remember: days(365),
            wait_for_key: Duration::from_secs(60),
            media_at_most: 100 << 20,
        }
    }
}

/// `reconcile`: how ghosts fetch events that the homeserver failed to push.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReconcileSection {
    /// How often each ghost asks the homeserver for missed events.
    #[serde(with = "super::span")]
    pub interval: Duration,
    /// How many ghosts ask in a second.
    pub ghosts_per_second: u32,
}

impl Default for ReconcileSection {
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
pub struct CryptoSection {
    /// How many machines are kept in memory. The others are loaded when they are needed.
    pub machines_in_memory: usize,
}

impl Default for CryptoSection {
    fn default() -> Self {
        Self {
            machines_in_memory: 200,
        }
    }
}

/// `module`: the module in the homeserver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModuleSection {
    /// The file with the token that the module shows us. Without it there is no module.
    pub token_file: PathBuf,
}

impl Default for ModuleSection {
    fn default() -> Self {
        Self {
            token_file: PathBuf::from("module.token"),
        }
    }
}

/// `metrics`: what Prometheus reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSection {
    /// The address to listen on; without it nothing is measured.
    pub listen: Option<SocketAddr>,
}

/// `log`: the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// The format: for people or for machines.
    pub format: LogFormat,
    /// The level from which entries are logged.
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
    /// Problems that need the admin.
    Error,
    /// And problems that may need the admin soon.
    Warn,
    /// And events of the service.
    #[default]
    Info,
    /// And details of them.
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
