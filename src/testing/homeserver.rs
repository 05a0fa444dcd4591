//! A homeserver that knows users, devices, keys and to-device messages, answers over HTTP on
//! loopback, and can be told to fail. Of rooms it knows who is in them and what was sent; events are
//! handed over by the test.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use matrix_sdk_crypto::vodozemac::{base64_decode, olm};
use ruma::{DeviceId, UserId};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::{Notify, OnceCell, Semaphore};
use url::Url;

use crate::{
    crypto::IncomingCrypto,
    matrix::{Homeserver, HomeserverOptions},
};

/// When a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Nothing was done.
    Before,
    /// Everything was done, and the answer got lost.
    After,
}

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
    /// The to-device messages that the next sync brings, whoever asks.
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

/// What requests wait at.
#[derive(Clone)]
struct Gate {
    path: &'static str,
    /// A part of the body.
    body: String,
    /// A permit for each request that has come.
    come: Arc<Semaphore>,
    /// Closed when they may go on.
    open: Arc<Semaphore>,
}

/// Requests that are held back as long as this lives.
pub(crate) struct Held {
    come: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Held {
    /// Waits until one more of them has come.
    pub(crate) async fn comes(&self) {
        self.come.acquire().await.unwrap().forget();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.close();
    }
}

#[derive(Default)]
struct Room {
    members: Vec<String>,
    invited: Vec<String>,
    /// What was sent, with the path of the request that sent it.
    sent: Vec<(String, Value)>,
    /// How many of `sent` are known by their transaction id.
    forgotten: usize,
}

impl Room {
    fn state(&self, id: &str) -> Value {
        let event = |kind: &str, key: &str, content: Value| {
            json!({
                "type": kind, "state_key": key, "content": content, "room_id": id,
                "event_id": format!("${kind}{key}"), "sender": self.members[0],
                "origin_server_ts": 1,
            })
        };
        let algorithm = json!({"algorithm": "m.megolm.v1.aes-sha2"});
        let mut events = vec![
            event("m.room.create", "", json!({"room_version": "12"})),
            event("m.room.encryption", "", algorithm),
        ];
        for member in &self.members {
            let content = json!({"membership": "join"});
            events.push(event("m.room.member", member, content));
        }
        for guest in &self.invited {
            let content = json!({"membership": "invite"});
            events.push(event("m.room.member", guest, content));
        }
        events.into()
    }

    fn membership_of(&self, user: &str) -> Option<&'static str> {
        let is = |of: &[String]| of.iter().any(|id| id == user);
        match (is(&self.members), is(&self.invited)) {
            (true, _) => Some("join"),
            (_, true) => Some("invite"),
            _ => None,
        }
    }

    fn set_membership(&mut self, user: &str, membership: &str) {
        self.members.retain(|member| member != user);
        self.invited.retain(|guest| guest != user);
        match membership {
            "join" => self.members.push(user.to_owned()),
            "invite" => self.invited.push(user.to_owned()),
            _ => {}
        }
    }

    fn send(&mut self, path: &str, sender: &str, kind: &str, content: Value) -> Value {
        let known = self.sent[self.forgotten..]
            .iter()
            .find(|(by, _)| by == path);
        if let Some((_, event)) = known {
            return json!({"event_id": event["event_id"]});
        }
        let id = format!("$sent{}", self.sent.len());
        let transaction = path.rsplit('/').next().unwrap();
        let event = json!({
            "type": kind, "event_id": id, "sender": sender, "content": content,
            "origin_server_ts": 1_795_376_395_450_u64,
            "unsigned": {"transaction_id": transaction},
        });
        self.sent.push((path.to_owned(), event));
        json!({"event_id": id})
    }
}

/// Something that happens at a request of a user of ours.
struct Alarm {
    /// A part of its path.
    path: &'static str,
    /// How many come before it.
    after: usize,
    act: Box<dyn FnOnce() + Send>,
}

#[derive(Default)]
struct User {
    name: Option<String>,
    devices: BTreeMap<String, Device>,
    identity: BTreeMap<&'static str, Value>,
    /// Every master key that was ever published.
    masters: BTreeSet<String>,
    joined: Vec<String>,
    invited: Vec<String>,
}

#[derive(Default)]
struct Device {
    keys: Option<Value>,
    /// Every Ed25519 key that was ever published for this device.
    ed25519: BTreeSet<String>,
    /// Claimed in the order they were uploaded in, as Synapse does it.
    one_time: VecDeque<(String, Value)>,
    /// Every one-time key that was ever uploaded.
    uploaded: BTreeMap<String, Value>,
    /// Every fallback key that was ever uploaded.
    fallbacks: BTreeMap<String, Value>,
    fallback: Option<(String, Value)>,
    fallback_used: bool,
    inbox: Vec<Value>,
}

impl FakeHomeserver {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(Server::default()));
        let came = Arc::new(Notify::new());
        let served = (state.clone(), came.clone());
        let app = Router::new().fallback(handle).with_state(served);
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

    /// What was used twice with different content: ids of one-time and fallback keys, places in
    /// Olm sessions, transaction ids. All are signs of a store that went back.
    pub(crate) fn reuses(&self) -> Vec<String> {
        self.with(|server| server.reuses.clone())
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

    fn device<T>(&self, user: &UserId, device: &DeviceId, act: impl FnOnce(&mut Device) -> T) -> T {
        self.with(|server| {
            let user = server
                .users
                .get_mut(user.as_str())
                .expect("the user exists");
            act(user
                .devices
                .get_mut(device.as_str())
                .expect("the device exists"))
        })
    }

    /// Makes a user and a device without asking anybody.
    pub(crate) fn add_device(&self, user: &UserId, device: &DeviceId) {
        self.with(|server| {
            let user = server.users.entry(user.to_string()).or_default();
            user.devices.entry(device.to_string()).or_default();
        });
    }

    /// The `n`th request from now on fails (0 is the next).
    pub(crate) fn fail(&self, n: usize, when: When) {
        self.with(|server| server.fault = Some((server.log.len() + n, when)));
    }

    /// At the `n`th request from now on that a user of ours makes to a path of this kind, when all
    /// of it is done and nobody has been answered.
    pub(crate) fn at_request(
        &self,
        path: &'static str,
        n: usize,
        act: impl FnOnce() + Send + 'static,
    ) {
        let act = Box::new(act);
        self.with(|server| {
            server.alarm = Some(Alarm {
                path,
                after: n,
                act,
            });
        });
    }

    /// Whether the failure that was ordered has not happened yet.
    pub(crate) fn failure_pending(&self) -> bool {
        self.with(|server| server.fault.is_some())
    }

    /// Takes back a failure that was ordered.
    pub(crate) fn no_failure(&self) {
        self.with(|server| server.fault = None);
    }

    /// A user is joined to these rooms, and invited to those.
    pub(crate) fn put_into_rooms(&self, user: &UserId, joined: &[&str], invited: &[&str]) {
        self.with(|server| {
            let user = server.users.entry(user.to_string()).or_default();
            user.joined = joined.iter().map(|room| (*room).to_owned()).collect();
            user.invited = invited.iter().map(|room| (*room).to_owned()).collect();
        });
    }

    /// The rooms that a user is joined to.
    pub(crate) fn rooms_of(&self, user: &UserId) -> Vec<String> {
        self.with(|server| server.users[user.as_str()].joined.clone())
    }

    /// What `/messages` shows of a room, the newest first.
    pub(crate) fn put_history(&self, room: &str, events: Vec<Value>) {
        self.with(|server| server.history.insert(room.to_owned(), events));
    }

    /// From now on nothing is shown of what was said in rooms.
    pub(crate) fn refuse_history(&self, status: u16) {
        self.with(|server| server.refused = Some(status));
    }

    /// What the next sync shows of a room, in order, and whether it is not all.
    pub(crate) fn put_timeline(&self, room: &str, events: Vec<Value>, limited: bool) {
        let timeline = json!({
            "timeline": {"events": events, "limited": limited, "prev_batch": "p"},
        });
        self.with(|server| server.timelines.insert(room.to_owned(), timeline));
    }

    /// Messages that the next sync brings for the device that asks.
    pub(crate) fn put_to_device(&self, messages: &[Value]) {
        self.with(|server| server.to_device.extend_from_slice(messages));
    }

    /// Requests for something of this server are never answered: it accepts connections and then
    /// says nothing, and the homeserver waits.
    pub(crate) fn silence(&self, server_name: &str) {
        self.with(|server| server.silent.push(server_name.to_owned()));
    }

    /// The requests that were never answered, and whose maker may have gone.
    pub(crate) fn unanswered(&self) -> Vec<String> {
        self.with(|server| server.unanswered.clone())
    }

    /// From now on requests in which this occurs are refused.
    pub(crate) fn forbid(&self, part: &str) {
        self.with(|server| server.forbidden.push(part.to_owned()));
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

    /// Somebody's membership in a room that was made, `leave` if they are not there.
    pub(crate) fn membership(&self, room: &ruma::RoomId, user: &UserId) -> &'static str {
        self.with(|server| {
            let room = &server.rooms[room.as_str()];
            room.membership_of(user.as_str()).unwrap_or("leave")
        })
    }

    /// Holds back the answers to requests whose path and body contain these, as a slow server does.
    pub(crate) fn hold(&self, path: &'static str, body: &str) -> Held {
        let (come, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let gate = Gate {
            path,
            body: body.to_owned(),
            come: come.clone(),
            open: open.clone(),
        };
        self.with(|server| server.held.push(gate));
        Held { come, open }
    }

    /// The next sync says that the devices of this user changed.
    pub(crate) fn put_changed_devices(&self, user: &UserId) {
        self.with(|server| server.devices_changed.push(user.to_string()));
    }

    /// Shows these devices of a user, whatever they have.
    pub(crate) fn show_devices(&self, user: &UserId, devices: Value) {
        self.with(|server| {
            server.users.entry(user.to_string()).or_default();
            server.odd_devices.insert(user.to_string(), devices);
        });
    }

    /// Gives a device of a user these keys, without one-time keys.
    pub(crate) fn put_device_keys(&self, user: &UserId, device: &str, keys: Value) {
        self.with(|server| {
            let user = server.users.entry(user.to_string()).or_default();
            user.devices.entry(device.to_owned()).or_default().keys = Some(keys);
        });
    }

    /// Answers to claims of this user's keys hold this many bytes more.
    pub(crate) fn stuff_claims(&self, user: &UserId, bytes: usize) {
        self.with(|server| server.stuffed_claims.insert(user.to_string(), bytes));
    }

    /// For how many devices of a user keys were claimed at once, at most.
    pub(crate) fn claimed(&self, user: &UserId) -> usize {
        self.with(|server| {
            server
                .claimed
                .get(user.as_str())
                .copied()
                .unwrap_or_default()
        })
    }

    /// The requests made so far, as `METHOD path`.
    pub(crate) fn log(&self) -> Vec<String> {
        self.with(|server| server.log.clone())
    }

    pub(crate) fn add_room(&self, room: &ruma::RoomId, members: &[&UserId]) {
        let members = members.iter().map(|member| member.to_string()).collect();
        let room_state = Room {
            members,
            ..Room::default()
        };
        self.with(|server| server.rooms.insert(room.to_string(), room_state));
    }

    /// How many events were sent into a room.
    pub(crate) fn sent(&self, room: &ruma::RoomId) -> usize {
        self.with(|server| server.rooms[room.as_str()].sent.len())
    }

    /// Forgets all transaction ids, as Synapse does after a day.
    pub(crate) fn forget_transactions(&self) {
        self.with(|server| {
            for room in server.rooms.values_mut() {
                room.forgotten = room.sent.len();
            }
        });
    }

    pub(crate) fn set_unreachable(&self, server_name: &str, unreachable: bool) {
        self.with(|server| {
            if unreachable {
                server.unreachable.insert(server_name.to_owned());
            } else {
                server.unreachable.remove(server_name);
            }
        });
    }

    /// What a transaction would bring for a device now: its messages, and how many keys it has.
    pub(crate) fn take_incoming(&self, user: &UserId, device: &DeviceId) -> IncomingCrypto {
        self.device(user, device, |device| {
            let unused = (device.fallback.is_some() && !device.fallback_used)
                .then(|| "signed_curve25519".into());
            let count = u32::try_from(device.one_time.len()).unwrap();
            IncomingCrypto {
                to_device: std::mem::take(&mut device.inbox)
                    .into_iter()
                    .map(|message| serde_json::value::to_raw_value(&message).unwrap())
                    .collect(),
                otk_counts: Some(BTreeMap::from([("signed_curve25519".into(), count.into())])),
                fallback_types: Some(unused.into_iter().collect()),
                device_lists_changed: Vec::new(),
            }
        })
    }

    /// How many messages wait for a device.
    pub(crate) fn waiting(&self, user: &UserId, device: &DeviceId) -> usize {
        self.device(user, device, |device| device.inbox.len())
    }

    /// Claims every one-time key of a device without using any.
    pub(crate) fn claim_all(&self, user: &UserId, device: &DeviceId) -> usize {
        self.claim(user, device, usize::MAX)
    }

    /// Claims so many one-time keys of a device, or as many as there are, without using any.
    pub(crate) fn claim(&self, user: &UserId, device: &DeviceId, count: usize) -> usize {
        self.device(user, device, |device| {
            let count = count.min(device.one_time.len());
            device.one_time.drain(..count).count()
        })
    }

    /// Every one-time key ever uploaded for a device.
    pub(crate) fn uploaded(&self, user: &UserId, device: &DeviceId) -> usize {
        self.device(user, device, |device| device.uploaded.len())
    }

    /// The id of the present fallback key.
    pub(crate) fn fallback(&self, user: &UserId, device: &DeviceId) -> Option<String> {
        self.device(user, device, |device| {
            device.fallback.as_ref().map(|(id, _)| id.clone())
        })
    }

    pub(crate) fn devices(&self, user: &UserId) -> Vec<String> {
        self.with(|server| {
            server
                .users
                .get(user.as_str())
                .map_or(Vec::new(), |u| u.devices.keys().cloned().collect())
        })
    }

    pub(crate) fn name(&self, user: &UserId) -> Option<String> {
        self.with(|server| {
            server
                .users
                .get(user.as_str())
                .and_then(|user| user.name.clone())
        })
    }

    /// How many identities the user has ever published, and the most keys any of its devices had.
    pub(crate) fn ever_published(&self, user: &UserId) -> (usize, usize) {
        self.with(|server| {
            let user = &server.users[user.as_str()];
            let keys = user
                .devices
                .values()
                .map(|device| device.ed25519.len())
                .max();
            (user.masters.len(), keys.unwrap_or_default())
        })
    }
}

async fn handle(
    State((state, came)): State<(Arc<Mutex<Server>>, Arc<Notify>)>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    if uri.path().ends_with("/versions") {
        return r#"{"versions":["v1.11","v1.15"]}"#.into_response();
    }
    // When all of it is done, and nobody has been answered.
    let told = Told(came);
    let asked = format!("{method} {}", uri.path());
    let all = format!("{} {}", uri.path(), String::from_utf8_lossy(&body));
    let silent = {
        let mut server = state.lock().unwrap();
        let silent = server.silent.iter().any(|part| all.contains(part));
        if silent {
            server.log.push(asked.clone());
            server.unanswered.push(asked.clone());
        }
        silent
    };
    if silent {
        drop(told);
        return std::future::pending().await;
    }
    let _told = told;
    let held = {
        let server = state.lock().unwrap();
        let text = String::from_utf8_lossy(&body);
        let mut gates = server.held.iter();
        let gate = gates.find(|gate| uri.path().contains(gate.path) && text.contains(&gate.body));
        gate.cloned()
    };
    if let Some(gate) = held {
        gate.come.add_permits(1);
        // It is closed, and never has any.
        let _closed = gate.open.acquire().await;
    }
    let mut server = state.lock().unwrap();
    let number = server.log.len();
    server.log.push(asked);
    if server.forbidden.iter().any(|part| all.contains(part)) {
        let (status, answer) = refused(403, "M_FORBIDDEN");
        let status = StatusCode::from_u16(status).unwrap();
        return (status, answer.to_string()).into_response();
    }
    let fault = match server.fault {
        Some((at, when)) if at == number => {
            server.fault = None;
            Some(when)
        }
        _ => None,
    };
    let lost = || (StatusCode::BAD_GATEWAY, "lost").into_response();
    if fault == Some(When::Before) {
        return lost();
    }
    let (status, answer) = server.answer(&method, &uri, &body);
    server.ring(&uri);
    if fault == Some(When::After) {
        return lost();
    }
    let status = StatusCode::from_u16(status).unwrap();
    (status, answer.to_string()).into_response()
}

/// Says that a request came, when it is dropped.
struct Told(Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

fn refused(status: u16, errcode: &str) -> (u16, Value) {
    (status, json!({"errcode": errcode, "error": "refused"}))
}

impl Server {
    fn ring(&mut self, uri: &Uri) {
        let ours = |query: &str| query.contains("user_id=%40_dm_");
        let rings = |alarm: &mut Alarm| {
            if !uri.path().contains(alarm.path) || !uri.query().is_some_and(ours) {
                return false;
            }
            let now = alarm.after == 0;
            alarm.after = alarm.after.saturating_sub(1);
            now
        };
        if let Some(alarm) = self.alarm.take_if(rings) {
            (alarm.act)();
        }
    }

    fn answer(&mut self, method: &Method, uri: &Uri, body: &[u8]) -> (u16, Value) {
        let decode = |part: &str| {
            let pair = format!("x={}", part.replace('+', "%2B"));
            url::form_urlencoded::parse(pair.as_bytes())
                .next()
                .unwrap()
                .1
                .into_owned()
        };
        let path: Vec<String> = uri.path().split('/').skip(4).map(decode).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        if *method == Method::POST && path == ["register"] {
            return self.register(&body);
        }
        let Some(who) = query.get("user_id").cloned() else {
            return refused(401, "M_MISSING");
        };
        let Some(user) = self.users.get_mut(&who) else {
            return refused(403, "M_FORBIDDEN");
        };
        let device = query.get("device_id").cloned();
        if device
            .as_ref()
            .is_some_and(|device| !user.devices.contains_key(device))
        {
            return refused(400, "M_UNKNOWN_DEVICE");
        }
        if let ["rooms", id, what @ ..] = path.as_slice()
            && let Some(room) = self.rooms.get_mut(*id)
        {
            return match (method.as_str(), what) {
                ("GET", ["state"]) => (200, room.state(id)),
                ("GET", ["state", "m.room.member", of]) => match room.membership_of(of) {
                    Some(membership) => (200, json!({"membership": membership})),
                    None => refused(404, "M_NOT_FOUND"),
                },
                ("GET", ["messages"]) => {
                    let events = room.sent.iter().rev().map(|(_, event)| event);
                    let chunk: Vec<&Value> = events.collect();
                    (200, json!({"chunk": chunk, "start": "s"}))
                }
                ("PUT", ["send", kind, _]) => (200, room.send(uri.path(), &who, kind, body)),
                ("PUT", ["state", "m.room.member", of]) => {
                    let membership = body["membership"].as_str().unwrap().to_owned();
                    room.set_membership(of, &membership);
                    (200, json!({"event_id": "$member"}))
                }
                ("POST", [change @ ("join" | "leave")]) => {
                    room.set_membership(&who, change);
                    (200, json!({"room_id": id}))
                }
                _ => refused(404, "M_UNRECOGNIZED"),
            };
        }
        match (method.as_str(), path.as_slice()) {
            ("PUT", ["devices", id]) => {
                user.devices.entry((*id).to_owned()).or_default();
            }
            ("DELETE", ["devices", id]) => {
                user.devices.remove(*id);
            }
            ("GET", ["joined_rooms"]) => return (200, json!({"joined_rooms": user.joined})),
            ("POST", ["rooms", room, "join"]) => {
                user.joined.push((*room).to_owned());
                return (200, json!({"room_id": room}));
            }
            ("POST", ["createRoom"]) => {
                let id = format!("!made{}:hs.test", self.rooms.len());
                let mut room = Room {
                    members: vec![who.clone()],
                    ..Room::default()
                };
                for guest in body["invite"].as_array().into_iter().flatten() {
                    room.invited.push(guest.as_str().unwrap().to_owned());
                }
                self.rooms.insert(id.clone(), room);
                return (200, json!({"room_id": id}));
            }
            ("GET", ["rooms", room, "state", "m.room.member", of]) if *of == who => {
                let is_joined = user.joined.iter().any(|joined| joined == room);
                return match is_joined {
                    true => (200, json!({"membership": "join"})),
                    false => refused(403, "M_FORBIDDEN"),
                };
            }
            ("POST", ["rooms", room, "leave"]) => {
                user.joined.retain(|joined| joined.as_str() != *room)
            }
            ("GET", ["rooms", _, "context", _] | ["rooms", _, "messages"])
                if let Some(status) = self.refused =>
            {
                return refused(status, "M_UNKNOWN");
            }
            ("GET", ["rooms", _, "context", id]) => {
                let event = json!({
                    "type": "m.room.encrypted", "event_id": id, "sender": "@alice:hs.test",
                    "origin_server_ts": 1, "content": {},
                });
                return (200, json!({"event": event, "start": "s", "end": "e"}));
            }
            ("GET", ["rooms", _, "messages"]) if query.get("dir").is_some_and(|dir| dir == "f") => {
                return (200, json!({"chunk": [], "start": "e"}));
            }
            ("GET", ["rooms", room, "messages"]) => {
                let chunk = self.history.get(*room).cloned().unwrap_or_default();
                return (200, json!({"chunk": chunk, "start": "s"}));
            }
            ("GET", ["sync"]) => {
                let invited: serde_json::Map<_, _> = user
                    .invited
                    .iter()
                    .map(|room| {
                        let invite = json!({
                            "type": "m.room.member", "state_key": who, "sender": "@alice:hs.test",
                            "content": {"membership": "invite"},
                        });
                        (room.clone(), json!({"invite_state": {"events": [invite]}}))
                    })
                    .collect();
                return (
                    200,
                    json!({
                        "next_batch": "s1",
                        "to_device": {"events": std::mem::take(&mut self.to_device)},
                        "device_lists": {"changed": std::mem::take(&mut self.devices_changed)},
                        "rooms": {"invite": invited, "join": std::mem::take(&mut self.timelines)},
                    }),
                );
            }
            ("GET", ["devices"]) => {
                let devices: Vec<_> = user
                    .devices
                    .keys()
                    .map(|id| json!({"device_id": id}))
                    .collect();
                return (200, json!({"devices": devices}));
            }
            ("GET", ["profile", id]) => {
                return match self.users.get(*id) {
                    Some(user) => (200, json!({"displayname": user.name})),
                    None => refused(404, "M_NOT_FOUND"),
                };
            }
            ("PUT", ["profile", _, "displayname"]) => {
                user.name = body["displayname"].as_str().map(str::to_owned);
            }
            ("POST", ["keys", "upload"]) => {
                let Some(device) = device else {
                    return refused(400, "M_UNKNOWN");
                };
                let reuses = &mut self.reuses;
                return user
                    .devices
                    .get_mut(&device)
                    .unwrap()
                    .upload(&device, &body, reuses);
            }
            ("POST", ["keys", "device_signing", "upload"]) => {
                for kind in ["master_key", "self_signing_key", "user_signing_key"] {
                    if !body[kind].is_null() {
                        user.identity.insert(kind, body[kind].clone());
                    }
                }
                let master = body["master_key"]["keys"].as_object().unwrap();
                user.masters
                    .extend(master.values().map(|key| key.as_str().unwrap().to_owned()));
            }
            ("POST", ["keys", "signatures", "upload"]) => {
                for (id, signed) in body[&who].as_object().unwrap() {
                    if let Some(keys) = user
                        .devices
                        .get_mut(id)
                        .and_then(|device| device.keys.as_mut())
                    {
                        merge(&mut keys["signatures"], &signed["signatures"]);
                    }
                }
                return (200, json!({"failures": {}}));
            }
            ("POST", ["keys", "query"]) => return (200, self.query(&body)),
            ("POST", ["keys", "claim"]) => return (200, self.claim(&body)),
            ("PUT", ["sendToDevice", kind, _]) => match self.transactions.get(uri.path()) {
                Some(first) if *first == body => {}
                Some(_) => self
                    .reuses
                    .push(format!("{who}: transaction {}", uri.path())),
                None => {
                    self.put_into_inboxes(&who, kind, &body);
                    self.transactions.insert(uri.path().to_owned(), body);
                }
            },
            _ => return refused(404, "M_UNRECOGNIZED"),
        }
        (200, json!({}))
    }

    fn register(&mut self, body: &Value) -> (u16, Value) {
        if body["inhibit_login"] != true {
            return refused(400, "M_APPSERVICE_LOGIN_UNSUPPORTED");
        }
        let id = format!("@{}:hs.test", body["username"].as_str().unwrap());
        if self.users.contains_key(&id) {
            return refused(400, "M_USER_IN_USE");
        }
        self.users.insert(id.clone(), User::default());
        (200, json!({"user_id": id}))
    }

    fn query(&self, body: &Value) -> Value {
        let mut answer = json!({
            "device_keys": {}, "master_keys": {}, "self_signing_keys": {},
            "user_signing_keys": {}, "failures": {}
        });
        for id in body["device_keys"].as_object().unwrap().keys() {
            let server_name = id.split_once(':').unwrap().1;
            if self.unreachable.contains(server_name) {
                answer["failures"][server_name] = json!({"status": 503});
                continue;
            }
            let Some(user) = self.users.get(id) else {
                continue;
            };
            if let Some(devices) = self.odd_devices.get(id) {
                answer["device_keys"][id] = devices.clone();
                continue;
            }
            answer["device_keys"][id] = user
                .devices
                .iter()
                .filter_map(|(id, device)| Some((id.clone(), device.keys.clone()?)))
                .collect::<serde_json::Map<_, _>>()
                .into();
            for (kind, key) in &user.identity {
                answer[format!("{kind}s")][id] = key.clone();
            }
        }
        answer
    }

    fn claim(&mut self, body: &Value) -> Value {
        let mut keys = json!({});
        for (id, devices) in body["one_time_keys"].as_object().unwrap() {
            let count = devices.as_object().unwrap().len();
            let claimed = self.claimed.entry(id.clone()).or_default();
            *claimed = count.max(*claimed);
            if let Some(bytes) = self.stuffed_claims.get(id) {
                keys[id]["STUFFED"] = json!({"signed_curve25519:A": {"key": "x".repeat(*bytes)}});
            }
            for device_id in devices.as_object().unwrap().keys() {
                let device = self
                    .users
                    .get_mut(id)
                    .and_then(|user| user.devices.get_mut(device_id));
                let Some(device) = device else { continue };
                let key = device.one_time.pop_front().or_else(|| {
                    device.fallback_used = true;
                    device.fallback.clone()
                });
                if let Some((key_id, key)) = key {
                    keys[id][device_id][key_id] = key;
                }
            }
        }
        json!({"one_time_keys": keys, "failures": {}})
    }

    fn put_into_inboxes(&mut self, sender: &str, kind: &str, body: &Value) {
        for (id, devices) in body["messages"].as_object().unwrap() {
            for (device_id, content) in devices.as_object().unwrap() {
                for (place, text) in olm_messages(content) {
                    let first = self.olm.entry(place).or_insert_with(|| text.clone());
                    if *first != text {
                        self.reuses
                            .push(format!("{sender}: a place in its Olm session with {id}"));
                    }
                }
                let device = self
                    .users
                    .get_mut(id)
                    .and_then(|user| user.devices.get_mut(device_id));
                if let Some(device) = device {
                    device.inbox.push(json!({
                        "type": kind, "sender": sender, "content": content,
                        "to_user_id": id, "to_device_id": device_id
                    }));
                }
            }
        }
    }
}

impl Device {
    fn upload(&mut self, id: &str, body: &Value, reuses: &mut Vec<String>) -> (u16, Value) {
        for (key_id, key) in body["one_time_keys"].as_object().into_iter().flatten() {
            match self.uploaded.get(key_id) {
                // The sign of a crypto store that was rolled back.
                Some(known) if known != key => {
                    reuses.push(format!("{id}: one-time key {key_id}"));
                    return refused(400, "M_UNKNOWN");
                }
                Some(_) => {}
                None => {
                    self.uploaded.insert(key_id.clone(), key.clone());
                    self.one_time.push_back((key_id.clone(), key.clone()));
                }
            }
        }
        for (key_id, key) in body["fallback_keys"].as_object().into_iter().flatten() {
            if self
                .fallback
                .as_ref()
                .is_none_or(|(known, _)| known != key_id)
            {
                self.fallback_used = false;
            }
            let first = self.fallbacks.entry(key_id.clone());
            if first.or_insert_with(|| key.clone()) != key {
                reuses.push(format!("{id}: fallback key {key_id}"));
            }
            self.fallback = Some((key_id.clone(), key.clone()));
        }
        if !body["device_keys"].is_null() {
            self.keys = Some(body["device_keys"].clone());
            let key = &body["device_keys"]["keys"][format!("ed25519:{id}")];
            self.ed25519.insert(key.as_str().unwrap().to_owned());
        }
        (
            200,
            json!({"one_time_key_counts": {"signed_curve25519": self.one_time.len()}}),
        )
    }
}

/// Which message of an Olm session: who sends it, its ratchet key and its index in the chain. The
/// same place has the same message key.
type OlmPlace = (String, String, u64);

/// The Olm messages in the content of a to-device message, each with its place.
fn olm_messages(content: &Value) -> Vec<(OlmPlace, Vec<u8>)> {
    let Some(sender) = content["sender_key"].as_str() else {
        return Vec::new();
    };
    let messages = content["ciphertext"].as_object().into_iter().flatten();
    messages
        .map(|(_, message)| {
            let kind = message["type"].as_u64().unwrap().try_into().unwrap();
            let text = message["body"].as_str().unwrap();
            let message =
                match olm::OlmMessage::from_parts(kind, &base64_decode(text).unwrap()).unwrap() {
                    olm::OlmMessage::Normal(message) => message,
                    // What begins the session stands around the same message.
                    olm::OlmMessage::PreKey(first) => first.message().clone(),
                };
            let key = message.ratchet_key().to_base64();
            let place = (sender.to_owned(), key, message.chain_index());
            (place, message.to_bytes())
        })
        .collect()
}

fn merge(into: &mut Value, from: &Value) {
    for (user, signatures) in from.as_object().into_iter().flatten() {
        for (key, signature) in signatures.as_object().into_iter().flatten() {
            into[user][key] = signature.clone();
        }
    }
}
