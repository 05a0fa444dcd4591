//! A homeserver that knows users, devices, keys and to-device messages, answers over HTTP on
//! loopback, and can be told to fail. Of rooms it knows who is in them and what was sent; events are
//! handed over by the test.

mod devices;
mod faults;
mod http;
mod rooms;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use axum::Router;
use fake_homeserver::model::keys::Identity;
use ruma::UserId;
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::{Notify, OnceCell};
use url::Url;

use self::{
    devices::{Device, OlmPlace},
    faults::{Alarm, Gate},
    rooms::Room,
};
use crate::matrix::{Homeserver, HomeserverOptions};

pub(crate) use faults::{Held, When};

/// The homeserver. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct FakeHomeserver {
    url: Url,
    state: Arc<Mutex<Server>>,
    /// Told when a request came.
    came: Arc<Notify>,
    /// One client for all: to make one takes long without optimisation.
    client: Arc<OnceCell<Homeserver>>,
}

#[derive(Default)]
struct Server {
    users: BTreeMap<String, User>,
    /// Requests made, but for `/versions`.
    log: Vec<String>,
    /// Which request from the beginning fails, and when.
    fault: Option<(usize, When)>,
    alarm: Option<Alarm>,
    /// Paths with transaction ids that were used, and for what: over all users, as Synapse does it.
    transactions: BTreeMap<String, Value>,
    /// What was sent at each place of each Olm session.
    olm: BTreeMap<OlmPlace, Vec<u8>>,
    /// What must never be seen of a client: keys and places in sessions that were used twice.
    reuses: Vec<String>,
    /// Servers that do not answer key queries.
    unreachable: BTreeSet<String>,
    /// Requests in which one of these occurs are never answered.
    silent: Vec<String>,
    /// Those that wait for an answer now.
    unanswered: Vec<String>,
    /// Requests in which one of these occurs are refused.
    forbidden: Vec<String>,
    /// What was said in rooms, the newest first.
    history: BTreeMap<String, Vec<Value>>,
    /// With which status it is refused to show that.
    refused: Option<u16>,
    /// The to-device messages that the next sync brings, to any user.
    to_device: Vec<Value>,
    /// What a sync shows of rooms.
    timelines: BTreeMap<String, Value>,
    /// Whose devices changed, as the next sync says.
    devices_changed: Vec<String>,
    /// What takes the place of somebody's devices in an answer.
    odd_devices: BTreeMap<String, Value>,
    /// Whose one-time keys have this much beside them, in bytes.
    stuffed_claims: BTreeMap<String, usize>,
    /// For how many devices of a user keys were claimed at once, at most.
    claimed: BTreeMap<String, usize>,
    /// Requests that wait to be answered.
    held: Vec<Gate>,
    rooms: BTreeMap<String, Room>,
}

#[derive(Default)]
struct User {
    name: Option<String>,
    devices: BTreeMap<String, Device>,
    identity: Identity,
    joined: Vec<String>,
    invited: Vec<String>,
}

impl FakeHomeserver {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(Server::default()));
        let came = Arc::new(Notify::new());
        let served = (state.clone(), came.clone());
        let app = Router::new().fallback(http::handle).with_state(served);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            url,
            state,
            came,
            client: Arc::default(),
        }
    }

    /// Where it listens, for another process.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) async fn connect(&self) -> Homeserver {
        let connecting = || async {
            let token = SecretString::from("token");
            Homeserver::connect(&self.url, token, HomeserverOptions::default())
                .await
                .unwrap()
        };
        self.client.get_or_init(connecting).await.clone()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Server) -> T) -> T {
        act(&mut self.state.lock().unwrap())
    }

    /// The requests made so far, as `METHOD path`.
    pub(crate) fn log(&self) -> Vec<String> {
        self.with(|server| server.log.clone())
    }

    /// Waits until `done` is true of the requests made so far.
    pub(crate) async fn until(&self, done: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let came = self.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                if done(self) {
                    return;
                }
                came.await;
            }
        };
        let limit = std::time::Duration::from_secs(10);
        let in_time = tokio::time::timeout(limit, waiting).await.is_ok();
        assert!(in_time, "waited in vain; requests: {:#?}", self.log());
    }

    /// What was used twice with different content: ids of one-time and fallback keys, places in
    /// Olm sessions, transaction ids. All are signs of a store that went back.
    pub(crate) fn reuses(&self) -> Vec<String> {
        self.with(|server| server.reuses.clone())
    }

    pub(crate) fn name(&self, user: &UserId) -> Option<String> {
        self.with(|server| {
            server
                .users
                .get(user.as_str())
                .and_then(|user| user.name.clone())
        })
    }
}
