//! What the homeserver knows, and how an event comes into being.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use ruma::{
    MilliSecondsSinceUnixEpoch,
    serde::{Base64, base64::UrlSafe},
};
use serde_json::{Value, json, value::RawValue};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::{
    device::{Device, Mail},
    event::{Event, Shape},
    federation::Cut,
    keys::Identity,
    reuse::Firsts,
    room::Room,
    route::Answer,
};
use crate::push::Queue;

/// The application service, as its registration describes it.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// Its id.
    pub id: String,
    /// Where it is reached.
    pub url: String,
    /// The token it shows us.
    pub as_token: String,
    /// The token we show it.
    pub hs_token: String,
    /// The user as whom it acts when it names none.
    pub sender: String,
    /// What its users' ids begin with.
    pub prefix: String,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Server {
    /// The homeserver's name.
    pub name: String,
    /// Rises with everything that happens.
    pub position: u64,
    /// Everybody.
    pub accounts: HashMap<String, Account>,
    /// Every room.
    pub rooms: HashMap<String, Room>,
    /// Uploaded files: content type and bytes.
    pub media: HashMap<String, (String, Vec<u8>)>,
    /// The largest file that may be uploaded, in bytes, if it is not Synapse's default.
    pub upload_limit: Option<u64>,
    /// The application service.
    pub service: Option<Registration>,
    /// What is to be pushed to it.
    pub queue: Queue,
    /// Answers by transaction id, in memory: gone after a restart.
    pub answered: HashMap<String, Answer>,
    /// Events by room, user, device and transaction id, in the database.
    pub sent: HashMap<(String, String, String, String), String>,
    /// What becomes of the to-device messages of these people, if they do not simply arrive.
    pub mail: HashMap<String, Mail>,
    /// What people of servers have done that do not reach ours, by the server's name.
    pub cuts: HashMap<String, Cut>,
    /// Whose devices change without anybody being told.
    pub unseen: BTreeSet<String>,
    /// What was sent first in each place where nothing else may come.
    pub firsts: Firsts,
    /// What must never be seen of a client: keys, transaction ids and places in sessions that were
    /// used twice with different content.
    pub reuses: Vec<String>,
}

/// A user.
#[derive(Debug, Default)]
pub struct Account {
    /// Profile fields.
    pub profile: BTreeMap<String, Value>,
    /// Devices by id.
    pub devices: BTreeMap<String, Device>,
    /// Who they are.
    pub identity: Identity,
    /// When devices or identity last changed, in positions.
    pub keys_changed: u64,
    /// Rooms in which this user has ever had a membership.
    pub rooms: BTreeSet<String>,
    /// Account data by type.
    pub account_data: BTreeMap<String, Value>,
    /// For how many devices keys were claimed at once, at most.
    pub most_claimed: usize,
    /// Rung when there may be something new for a sync.
    pub bell: Arc<Notify>,
}

/// An event that somebody wants to send.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Who sends it.
    pub sender: String,
    /// Its type.
    pub kind: String,
    /// For state.
    pub state_key: Option<String>,
    /// Its content.
    pub content: Box<RawValue>,
    /// The event it redacts.
    pub redacts: Option<String>,
    /// The device and the transaction id of the request.
    pub by: Option<(String, String)>,
    /// When the request arrived.
    pub arrived: Instant,
}

impl Draft {
    /// State without a transaction id.
    pub fn state(sender: &str, kind: &str, key: &str, content: &Value) -> Self {
        Self {
            sender: sender.to_owned(),
            kind: kind.to_owned(),
            state_key: Some(key.to_owned()),
            content: serde_json::value::to_raw_value(content).unwrap_or_default(),
            redacts: None,
            by: None,
            arrived: Instant::now(),
        }
    }
}

/// The homeserver's clock, in milliseconds since 1970.
pub fn now() -> u64 {
    MilliSecondsSinceUnixEpoch::now().get().into()
}

impl Server {
    /// The next position.
    pub fn step(&mut self) -> u64 {
        self.position += 1;
        self.position
    }

    /// A random-looking id of 43 letters, which nobody can guess from another.
    pub fn fresh_id(&mut self, what: &str) -> String {
        let position = self.step();
        let hash = Sha256::digest(format!("{what} {position} of {}", self.name));
        Base64::<UrlSafe, _>::new(hash.to_vec()).encode()
    }

    /// Whether this user is the application service's.
    pub fn is_ours(&self, user: &str) -> bool {
        self.service
            .as_ref()
            .is_some_and(|service| service.is_ours(user))
    }

    /// Rings somebody who may be waiting in a sync.
    pub fn ring(&self, user: &str) {
        if let Some(account) = self.accounts.get(user) {
            account.bell.notify_waiters();
        }
    }

    /// The devices or the identity of somebody changed.
    pub fn keys_changed(&mut self, user: &str) {
        let position = self.step();
        let Some(account) = self.accounts.get_mut(user) else {
            return;
        };
        if self.unseen.contains(user) {
            return;
        }
        account.keys_changed = position;
        let sharing = self.sharing_with(user);
        if self.is_ours(user) || sharing.iter().any(|other| self.is_ours(other)) {
            self.queue.push_device_list(user);
        }
        for other in sharing {
            self.ring(&other);
        }
    }

    /// Who shares a room with somebody, themselves included.
    pub fn sharing_with(&self, user: &str) -> BTreeSet<String> {
        let mut sharing = BTreeSet::from([user.to_owned()]);
        let rooms = self.accounts.get(user).map(|account| &account.rooms);
        for room in rooms.into_iter().flatten() {
            if let Some(room) = self.rooms.get(room)
                && room.is_joined(user)
            {
                sharing.extend(room.with_membership("join").map(str::to_owned));
            }
        }
        sharing
    }

    /// Puts an event into a room, without asking whether its sender may do that; returns its id.
    pub fn append(&mut self, room_id: &str, draft: Draft) -> String {
        let id = format!("${}", self.fresh_id("event"));
        if let Some(draft) = self.hold(room_id, &id, draft) {
            self.insert(room_id, id.clone(), draft, now());
            self.announce(room_id, &id);
        }
        id
    }

    /// Puts an event into a room's history and tells nobody.
    pub(super) fn insert(&mut self, room_id: &str, id: String, draft: Draft, sent: u64) {
        let position = self.step();
        let Some(room) = self.rooms.get_mut(room_id) else {
            return;
        };
        let place = draft
            .state_key
            .as_ref()
            .map(|key| (draft.kind.clone(), key.clone()));
        let replaced = place
            .as_ref()
            .and_then(|(kind, key)| room.state_event(kind, key))
            .map(|event| event.content.clone());
        let mut event = Event {
            position,
            id: id.clone(),
            room: room_id.to_owned(),
            kind: draft.kind,
            sender: draft.sender,
            state_key: draft.state_key,
            content: draft.content,
            sent,
            arrived: draft.arrived,
            redacts: draft.redacts,
            replaced,
            by: draft.by,
            invite_state: Vec::new(),
            redacted_by: None,
        };
        let membership = event.membership();
        let membership = membership.map(|(user, is)| (user.to_owned(), is));
        if let Some((user, membership)) = membership {
            if membership == "invite" {
                event.invite_state = room.invite_state(&event.sender);
            }
            let all = room.memberships.entry(user.clone()).or_default();
            all.push((position, membership));
            if let Some(account) = self.accounts.get_mut(&user) {
                account.rooms.insert(room_id.to_owned());
            }
        }
        if let Some(place) = place {
            room.state.insert(place, room.events.len());
        }
        let redacted = event.redacts.as_ref().and_then(|id| room.index.get(id));
        if let Some(redacted) = redacted.and_then(|at| room.events.get_mut(*at)) {
            redacted.content = serde_json::value::to_raw_value(&json!({})).unwrap_or_default();
            redacted.redacted_by = Some(id.clone());
        }
        room.index.insert(id, room.events.len());
        room.events.push(event);
    }

    /// Rings everybody whom an event concerns, and queues it for the application service when it
    /// is of interest to it: one of its users is joined, sends it, or is whom it is about. Who is
    /// only invited sees only the invite.
    pub(super) fn announce(&mut self, room: &str, id: &str) {
        let Some(room) = self.rooms.get(room) else {
            return;
        };
        let event = room.index.get(id).and_then(|at| room.events.get(*at));
        let Some(event) = event.cloned() else {
            return;
        };
        let about = event
            .membership()
            .map(|(user, _)| user.to_owned())
            .into_iter();
        let concerned: Vec<String> = room
            .with_membership("join")
            .map(str::to_owned)
            .chain(about)
            .chain([event.sender.clone()])
            .collect();
        for user in &concerned {
            self.ring(user);
        }
        if concerned.iter().any(|user| self.is_ours(user)) {
            let shown = event.shown(Shape::Service);
            let unknown = event.membership().map(|(user, _)| user.to_owned());
            let unknown =
                unknown.filter(|user| self.is_ours(user) && !self.accounts.contains_key(user));
            self.queue
                .push_event(&event.id, &event.room, shown, unknown);
        }
    }

    /// A member event's content, with the names of the profile.
    pub fn member_content(&self, user: &str, membership: &str) -> Value {
        let mut content = json!({"membership": membership});
        for field in ["displayname", "avatar_url"] {
            let profile = self.accounts.get(user).map(|account| &account.profile);
            if let Some(value) = profile.and_then(|profile| profile.get(field)) {
                content[field] = value.clone();
            }
        }
        content
    }
}

impl Registration {
    /// Whether this user is in the namespace.
    pub fn is_ours(&self, user: &str) -> bool {
        user.starts_with(&self.prefix) || user == self.sender
    }
}
