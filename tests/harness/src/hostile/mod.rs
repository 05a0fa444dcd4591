//! A homeserver that means harm: it speaks enough of the federation API to be believed, and then
//! floods, lies or stalls.
//!
//! Each listens on a port of its own on loopback, and `localhost:PORT` is its name: ten of them are
//! ten servers.

mod devices;
mod event;
mod listen;
mod request;
mod room;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use ruma::{OwnedUserId, UserId};
use ruma_signatures::Ed25519KeyPair;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::synapse::federation::Member;

pub use devices::DeviceList;
pub use event::{Draft, Pdu};
pub use request::{Prepared, Reply, to_device};
pub use room::{HostileRoom, RoomOptions};

/// The version of its signing key.
const KEY_VERSION: &str = "hostile";

/// What the other servers ask a homeserver for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// Its signing keys.
    ServerKeys,
    /// The template of a join.
    MakeJoin,
    /// A signed join, which is answered with the room's state.
    SendJoin,
    /// The template of a leave.
    MakeLeave,
    /// A signed leave.
    SendLeave,
    /// All devices of a user.
    Devices,
    /// The keys of some users' devices.
    KeyQuery,
    /// One-time keys.
    KeyClaim,
    /// A transaction with events.
    Transaction,
    /// Anything else.
    Other,
}

impl Endpoint {
    fn of(path: &str) -> Self {
        let mut parts = path.split('/').skip(2);
        let (Some(api), Some(_version), Some(first)) = (parts.next(), parts.next(), parts.next())
        else {
            return Self::Other;
        };
        match (api, first, parts.next(), parts.next()) {
            ("key", ..) => Self::ServerKeys,
            (_, "make_join", ..) => Self::MakeJoin,
            (_, "send_join", ..) => Self::SendJoin,
            (_, "make_leave", ..) => Self::MakeLeave,
            (_, "send_leave", ..) => Self::SendLeave,
            (_, "user", Some("devices"), _) => Self::Devices,
            (_, "user", Some("keys"), Some("query")) => Self::KeyQuery,
            (_, "user", Some("keys"), Some("claim")) => Self::KeyClaim,
            (_, "send", ..) => Self::Transaction,
            _ => Self::Other,
        }
    }
}

/// The name and the signing key of a homeserver.
struct Identity {
    name: String,
    key: Ed25519KeyPair,
}

/// What the server has and does; its connections share it.
struct Shared {
    identity: Arc<Identity>,
    rooms: Mutex<BTreeMap<String, Arc<HostileRoom>>>,
    devices: Mutex<BTreeMap<String, Arc<DeviceList>>>,
    stalled: Mutex<BTreeSet<Endpoint>>,
    asked: watch::Sender<BTreeMap<Endpoint, usize>>,
    heard: watch::Sender<Vec<Value>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn room(&self, id: &str) -> Option<Arc<HostileRoom>> {
        lock(&self.rooms).get(id).cloned()
    }
}

/// A hostile homeserver. Dropping it closes its port and every connection.
pub struct HostileServer {
    shared: Arc<Shared>,
    target: Member,
    http: reqwest::Client,
    listening: JoinHandle<()>,
}

impl Drop for HostileServer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl HostileServer {
    /// Starts a server as `own`, against `target`.
    pub async fn start(own: &Member, target: &Member) -> Result<Self> {
        // Fails if it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let identity = Identity {
            name: own.server_name.clone(),
            key: key_pair(KEY_VERSION)?,
        };
        let shared = Arc::new(Shared {
            identity: Arc::new(identity),
            rooms: Mutex::default(),
            devices: Mutex::default(),
            stalled: Mutex::default(),
            asked: watch::Sender::default(),
            heard: watch::Sender::default(),
        });
        let listener = TcpListener::bind(("127.0.0.1", own.port))
            .await
            .with_context(|| format!("cannot listen on port {}", own.port))?;
        let tls = listen::tls(own)?;
        let listening = tokio::spawn(listen::serve(shared.clone(), listener, tls));
        Ok(Self {
            shared,
            target: target.clone(),
            http: request::client(own)?,
            listening,
        })
    }

    /// Its name, `localhost:PORT`.
    pub fn name(&self) -> &str {
        &self.shared.identity.name
    }

    /// One of its users.
    pub fn user(&self, localpart: &str) -> Result<OwnedUserId> {
        Ok(UserId::parse(format!("@{localpart}:{}", self.name()))?)
    }

    /// Never answers requests to these endpoints from now on.
    pub fn stalls(&self, endpoints: &[Endpoint]) {
        lock(&self.shared.stalled).extend(endpoints);
    }

    /// Shows this list as a user's devices from now on.
    pub fn shows_devices(&self, user: &UserId, list: Arc<DeviceList>) {
        lock(&self.shared.devices).insert(user.to_string(), list);
    }

    /// Returns how often these endpoints were asked so far, together.
    pub fn asked(&self, endpoints: &[Endpoint]) -> usize {
        total(&self.shared.asked.borrow(), endpoints)
    }

    /// Waits until these endpoints have been asked `times` times, together.
    pub async fn is_asked(
        &self,
        endpoints: &[Endpoint],
        times: usize,
        within: Duration,
    ) -> Result<()> {
        let mut asked = self.shared.asked.subscribe();
        let enough = asked.wait_for(|asked| total(asked, endpoints) >= times);
        let enough = tokio::time::timeout(within, enough).await;
        if let Ok(found) = enough {
            found?;
            return Ok(());
        }
        bail!(
            "{} was not asked for {endpoints:?} {times} times within {within:?}, but for {:?}",
            self.name(),
            *self.shared.asked.borrow()
        )
    }

    /// Waits until this server has been sent an event that `wanted` says yes to: in a transaction,
    /// or as a join or a leave.
    pub async fn hears(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut heard = self.shared.heard.subscribe();
        let found = heard.wait_for(|events| events.iter().any(&wanted));
        match tokio::time::timeout(within, found).await {
            Ok(events) => {
                let events = events?;
                let event = events.iter().find(|event| wanted(event));
                event.cloned().context("it was there a moment ago")
            }
            Err(_) => {
                let heard: Vec<String> = self.shared.heard.borrow().iter().map(outline).collect();
                bail!(
                    "{} did not hear {what} within {within:?}, but {heard:?}",
                    self.name()
                )
            }
        }
    }

    /// Waits until a user of the attacked server has joined a room of this one, or has left or
    /// declined it.
    pub async fn hears_membership(
        &self,
        user: &UserId,
        room: &HostileRoom,
        membership: &str,
        within: Duration,
    ) -> Result<()> {
        let what = format!("{user} {membership} {}", room.id());
        self.hears(&what, within, |event| {
            event["room_id"] == room.id()
                && event["state_key"] == user.as_str()
                && event["content"]["membership"] == membership
        })
        .await?;
        Ok(())
    }
}

fn total(asked: &BTreeMap<Endpoint, usize>, endpoints: &[Endpoint]) -> usize {
    endpoints.iter().filter_map(|it| asked.get(it)).sum()
}

/// The type, the room and the membership of an event, for an error message.
fn outline(event: &Value) -> String {
    format!(
        "{} {} {} {}",
        event["type"], event["room_id"], event["state_key"], event["content"]["membership"]
    )
}

/// A new signing key.
fn key_pair(version: &str) -> Result<Ed25519KeyPair> {
    let document = Ed25519KeyPair::generate();
    Ed25519KeyPair::from_der(&document, version.to_owned()).context("cannot make a signing key")
}

/// Bytes in unpadded base64, as Matrix writes keys.
fn base64(bytes: impl AsRef<[u8]>) -> String {
    ruma::serde::Base64::<ruma::serde::base64::Standard, _>::new(bytes).encode()
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    ruma::MilliSecondsSinceUnixEpoch::now().get().into()
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn requests_are_told_apart_by_their_paths() {
        let of = |path: &str| Endpoint::of(&format!("/_matrix/{path}"));
        assert_eq!(of("key/v2/server"), Endpoint::ServerKeys);
        assert_eq!(of("federation/v1/make_join/!a/@b"), Endpoint::MakeJoin);
        assert_eq!(of("federation/v2/send_join/!a/$b"), Endpoint::SendJoin);
        assert_eq!(of("federation/v1/user/devices/@a"), Endpoint::Devices);
        assert_eq!(of("federation/v1/user/keys/query"), Endpoint::KeyQuery);
        assert_eq!(of("federation/v1/send/1"), Endpoint::Transaction);
        assert_eq!(of("federation/v1/query/profile"), Endpoint::Other);
        assert_eq!(Endpoint::of("/"), Endpoint::Other);
    }
}
