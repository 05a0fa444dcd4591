//! A room of a hostile server, in which every event is signed by that server alone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};
use ruma::{RoomVersionId, UserId, room_version_rules::RoomVersionRules};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Draft, HostileServer, Identity, Pdu,
    event::{Position, placed, signed, signed_with_padding},
    lock,
};

/// The type of an event and its state key.
type Key = (String, String);

/// What is in a room from the beginning.
#[derive(Clone, Debug)]
pub struct RoomOptions {
    /// The room version, 3 to 11.
    pub version: String,
    /// Members of the server, besides the creator.
    pub members: usize,
    /// Further state events.
    pub state: Vec<Draft>,
    /// `m.room.encryption`.
    pub encrypted: bool,
}

impl Default for RoomOptions {
    fn default() -> Self {
        Self {
            version: "10".into(),
            members: 0,
            state: Vec::new(),
            encrypted: true,
        }
    }
}

/// The answer to a join.
#[derive(Serialize)]
struct JoinAnswer<'a> {
    origin: &'a str,
    members_omitted: bool,
    servers_in_room: [&'a str; 1],
    auth_chain: Vec<&'a RawValue>,
    state: Vec<&'a RawValue>,
    event: &'a Value,
}

/// A room whose creator is `eve`.
pub struct HostileRoom {
    id: String,
    version: String,
    creator: String,
    identity: Arc<Identity>,
    rules: RoomVersionRules,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: BTreeMap<Key, Pdu>,
    /// What state events refer to and that is state no longer.
    former: Vec<Pdu>,
    /// The events that the next one follows.
    last: Vec<String>,
    depth: i64,
}

impl HostileServer {
    /// Makes a room of `@eve`, who has all power in it.
    pub fn opens_room(&self, options: RoomOptions) -> Result<Arc<HostileRoom>> {
        let id = format!("!{:016x}:{}", rand::random::<u64>(), self.name());
        self.opens_room_as(&id, options)
    }

    /// Makes a room with an id of one's own.
    pub fn opens_room_as(&self, id: &str, options: RoomOptions) -> Result<Arc<HostileRoom>> {
        let version = RoomVersionId::try_from(options.version.as_str())?;
        let room = HostileRoom {
            id: id.to_owned(),
            version: options.version.clone(),
            creator: format!("@eve:{}", self.name()),
            identity: self.shared.identity.clone(),
            rules: version.rules().context("a room version without rules")?,
            inner: Mutex::default(),
        };
        room.fill(options)?;
        let room = Arc::new(room);
        lock(&self.shared.rooms).insert(id.to_owned(), room.clone());
        Ok(room)
    }

    /// Adds an event to a room and sends it. Returns it, and what the other server said to it:
    /// `{}` if it was taken in.
    pub async fn says(&self, room: &HostileRoom, draft: Draft) -> Result<(Pdu, Value)> {
        let event = room.adds(draft)?;
        let said = self.sends(&[&event], Vec::new()).await?;
        let said = said[&event.id].clone();
        Ok((event, said))
    }
}

impl HostileRoom {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The user who made it.
    pub fn creator(&self) -> &str {
        &self.creator
    }

    fn fill(&self, options: RoomOptions) -> Result<()> {
        let creator = self.creator.as_str();
        let rules =
            |rule: &str| Draft::state("m.room.join_rules", "", json!({ "join_rule": rule }));
        let joins = |user: &str| {
            let name = json!({ "membership": "join", "displayname": "Eve" });
            Draft::state("m.room.member", user, name).by(user)
        };
        self.adds(Draft::state(
            "m.room.create",
            "",
            json!({ "creator": creator, "room_version": self.version }),
        ))?;
        self.adds(joins(creator))?;
        self.adds(Draft::state(
            "m.room.power_levels",
            "",
            json!({ "users": { creator: 100 }, "invite": 0, "state_default": 50 }),
        ))?;
        if options.members > 0 {
            self.adds(rules("public"))?;
            for number in 0..options.members {
                self.adds(joins(&format!("@m{number}:{}", self.identity.name)))?;
            }
        }
        self.adds(rules("invite"))?;
        let visibility = json!({ "history_visibility": "shared" });
        self.adds(Draft::state("m.room.history_visibility", "", visibility))?;
        if options.encrypted {
            let algorithm = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
            self.adds(Draft::state("m.room.encryption", "", algorithm))?;
        }
        for draft in options.state {
            self.adds(draft)?;
        }
        Ok(())
    }

    /// Signs an event as the next one of the room.
    pub fn adds(&self, draft: Draft) -> Result<Pdu> {
        let mut inner = lock(&self.inner);
        let event = inner.signs(self, &draft)?;
        let key = draft.state_key.map(|key| (draft.kind, key));
        inner.takes(key, event.clone());
        Ok(event)
    }

    /// Signs an event that follows the last ones without being followed itself: the other server
    /// may refuse it, and then takes nothing that refers to it.
    pub fn adds_beside(&self, draft: &Draft) -> Result<Pdu> {
        lock(&self.inner).signs(self, draft)
    }

    /// Lets the next event follow these, of which there may be 20.
    pub fn goes_on_from(&self, events: Vec<String>) {
        let mut inner = lock(&self.inner);
        inner.depth += 1;
        inner.last = events;
    }

    /// Signs an invite, and counts it as an event of the room at once: the invited server may ask
    /// for the template of a join before it has answered.
    pub(super) fn invite(&self, user: &UserId, sent: i64) -> Result<Pdu> {
        let content = json!({ "membership": "invite", "is_direct": true });
        self.adds(Draft::state("m.room.member", user.as_str(), content).sent_at(sent))
    }

    /// Keeps the invite as the invited server has signed it.
    pub(super) fn is_countersigned(&self, invite: &str, by_server: &Value) -> Result<()> {
        let mut inner = lock(&self.inner);
        if let Some(known) = inner.state.values_mut().find(|it| it.id == invite) {
            *known = Pdu::new(invite.to_owned(), by_server.clone())?;
        }
        Ok(())
    }

    /// What a server usually tells the invited of the room.
    pub fn stripped(&self) -> Vec<Value> {
        let member = ("m.room.member".to_owned(), self.creator.clone());
        let kinds = ["m.room.create", "m.room.join_rules", "m.room.encryption"];
        let keys = kinds.map(|kind| (kind.to_owned(), String::new()));
        let inner = lock(&self.inner);
        keys.iter()
            .chain([&member])
            .filter_map(|key| inner.state.get(key))
            .map(|event| {
                let event = &event.value;
                json!({
                    "type": event["type"],
                    "state_key": event["state_key"],
                    "sender": event["sender"],
                    "content": event["content"],
                })
            })
            .collect()
    }

    /// The template of a membership of the other server's user.
    pub(super) fn template(&self, user: &str, membership: &str) -> Value {
        let content = json!({ "membership": membership });
        let draft = Draft::state("m.room.member", user, content).by(user);
        let event = placed(&draft, &lock(&self.inner).next(self, &draft));
        json!({ "room_version": self.version, "event": event })
    }

    /// Takes in a membership that the other server has made.
    pub(super) fn takes_membership(&self, id: String, event: Value) -> Result<()> {
        let user = event["state_key"].as_str().unwrap_or_default();
        let key = ("m.room.member".to_owned(), user.to_owned());
        let event = Pdu::new(id, event)?;
        lock(&self.inner).takes(Some(key), event);
        Ok(())
    }

    /// The answer to a join: the whole state before it.
    pub(super) fn answer_to_join(&self, join: &Value) -> Result<Vec<u8>> {
        let inner = lock(&self.inner);
        let answer = JoinAnswer {
            origin: &self.identity.name,
            members_omitted: false,
            servers_in_room: [&self.identity.name],
            auth_chain: inner.auth_chain(),
            state: inner.state.values().map(|it| &*it.text).collect(),
            event: join,
        };
        Ok(serde_json::to_vec(&answer)?)
    }

    /// The ids of the state and of its auth chain.
    pub(super) fn state_ids(&self) -> Value {
        let inner = lock(&self.inner);
        let state: Vec<&String> = inner.state.values().map(|it| &it.id).collect();
        let chain: Vec<&String> = inner.former.iter().map(|it| &it.id).collect();
        json!({ "pdu_ids": state, "auth_chain_ids": chain })
    }

    /// A state event by its id.
    pub(super) fn event(&self, id: &str) -> Option<Arc<Value>> {
        let inner = lock(&self.inner);
        let mut all = inner.state.values().chain(&inner.former);
        all.find(|it| it.id == id).map(|it| it.value.clone())
    }
}

impl Inner {
    /// The place of the next event.
    fn next<'a>(&self, room: &'a HostileRoom, draft: &Draft) -> Position<'a> {
        Position {
            room: &room.id,
            creator: &room.creator,
            depth: self.depth + 1,
            previous: self.last.clone(),
            auth: self.auth_of(draft, &room.creator),
        }
    }

    fn signs(&self, room: &HostileRoom, draft: &Draft) -> Result<Pdu> {
        let event = placed(draft, &self.next(room, draft));
        match draft.padding {
            0 => signed(&room.identity, &room.rules, event),
            padding => signed_with_padding(&room.identity, &room.rules, event, padding),
        }
    }

    /// The ids of the events that allow this one.
    fn auth_of(&self, draft: &Draft, creator: &str) -> Vec<String> {
        if draft.kind == "m.room.create" {
            return Vec::new();
        }
        let sender = draft.sender.as_deref().unwrap_or(creator);
        let mut keys = vec![
            ("m.room.create", ""),
            ("m.room.power_levels", ""),
            ("m.room.member", sender),
        ];
        if let ("m.room.member", Some(user)) = (draft.kind.as_str(), &draft.state_key) {
            if user != sender {
                keys.push(("m.room.member", user));
            }
            if draft.content["membership"] != "leave" {
                keys.push(("m.room.join_rules", ""));
            }
        }
        keys.into_iter()
            .filter_map(|(kind, key)| self.state.get(&(kind.to_owned(), key.to_owned())))
            .map(|event| event.id.clone())
            .collect()
    }

    fn takes(&mut self, key: Option<Key>, event: Pdu) {
        self.depth += 1;
        self.last = vec![event.id.clone()];
        if let Some(key) = key
            && let Some(former) = self.state.insert(key, event)
        {
            self.former.push(former);
        }
    }

    fn auth_chain(&self) -> Vec<&RawValue> {
        let kinds = ["m.room.create", "m.room.power_levels", "m.room.join_rules"];
        let state = self.state.iter();
        let state = state.filter(|((kind, _), _)| kinds.contains(&kind.as_str()));
        state
            .map(|(_, event)| &*event.text)
            .chain(self.former.iter().map(|event| &*event.text))
            .collect()
    }
}
