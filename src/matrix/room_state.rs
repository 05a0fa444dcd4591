//! A room's state, reduced to what the rules ask about.

use std::{collections::BTreeMap, time::Duration};

use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde_json::{Value, value::RawValue};

/// The only encryption algorithm that we support.
pub const MEGOLM: &str = "m.megolm.v1.aes-sha2";

/// How often the Megolm sessions of a room are to be replaced (`m.room.encryption`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// How long a session is used.
    pub period: Duration,
    /// Maximum number of messages in a session.
    pub messages: u64,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(7 * 24 * 60 * 60),
            messages: 100,
        }
    }
}

/// The state of a room, as one of its members sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomState {
    /// The room version (`m.room.create`); `1` when not given.
    pub version: String,
    /// The users with a creator's unlimited power (room version 12 and later).
    pub creators: Vec<OwnedUserId>,
    /// How often sessions are replaced, if messages must be encrypted.
    pub encryption: Option<Rotation>,
    /// Whether messages must be encrypted with an algorithm that we do not support.
    pub foreign_encryption: bool,
    /// `m.room.history_visibility`; `shared` when not given.
    pub history_visibility: String,
    /// `m.room.join_rules`; `invite` when not given.
    pub join_rule: String,
    /// The rooms whose members may join uninvited if the join rule is `restricted`.
    pub allowed_rooms: Vec<String>,
    /// The membership of each user.
    pub members: BTreeMap<OwnedUserId, String>,
    /// Display names in this room.
    pub names: BTreeMap<OwnedUserId, String>,
    /// The content of `m.room.power_levels`.
    pub power_levels: Option<Value>,
    /// The name of the room.
    pub name: Option<Box<RoomText>>,
    /// The topic of the room.
    pub topic: Option<Box<RoomText>>,
    /// The `type` of `m.room.create`, which chats do not have: `m.space` and the like.
    pub room_type: Option<String>,
    /// The room that has replaced this one (`m.room.tombstone`).
    pub replaced_by: Option<OwnedRoomId>,
    /// The room that this one has replaced (`m.room.create`).
    pub predecessor: Option<OwnedRoomId>,
}

/// A name or topic of a room, with its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomText {
    /// The author.
    pub by: OwnedUserId,
    /// The text; empty if it was removed.
    pub text: String,
}

impl RoomState {
    /// Reads full state events, or the stripped ones of an invite. Malformed fields count as
    /// absent: every field of every event is hostile.
    pub fn from_state<'a>(events: impl IntoIterator<Item = &'a RawValue>) -> Self {
        let mut state = Self {
            version: "1".to_owned(),
            history_visibility: "shared".to_owned(),
            join_rule: "invite".to_owned(),
            ..Self::default()
        };
        for event in events {
            if let Ok(event) = serde_json::from_str::<Value>(event.get()) {
                state.add(&event);
            }
        }
        state
    }

    fn add(&mut self, event: &Value) {
        let (Some(kind), Some(key)) = (event["type"].as_str(), event["state_key"].as_str()) else {
            return;
        };
        let content = &event["content"];
        let text = |field: &str| content[field].as_str().map(ToOwned::to_owned);
        if kind == "m.room.member" {
            let (Ok(user), Some(membership)) = (UserId::parse(key), text("membership")) else {
                return;
            };
            if let Some(name) = text("displayname") {
                self.names.insert(user.clone(), name);
            }
            self.members.insert(user, membership);
            return;
        }
        if !key.is_empty() {
            return;
        }
        match kind {
            "m.room.create" => self.add_create(event),
            "m.room.encryption" if text("algorithm").as_deref() != Some(MEGOLM) => {
                self.foreign_encryption = true;
            }
            "m.room.encryption" => {
                let default = Rotation::default();
                let number = |field: &str| u64::try_from(integer(&content[field])?).ok();
                self.encryption = Some(Rotation {
                    period: number("rotation_period_ms")
                        .map_or(default.period, Duration::from_millis),
                    messages: number("rotation_period_msgs").unwrap_or(default.messages),
                });
            }
            "m.room.history_visibility" => {
                if let Some(value) = text("history_visibility") {
                    self.history_visibility = value;
                }
            }
            "m.room.join_rules" => {
                if let Some(value) = text("join_rule") {
                    self.join_rule = value;
                }
                let allow = content["allow"].as_array().into_iter().flatten();
                let rooms = allow.filter_map(|one| one["room_id"].as_str());
                self.allowed_rooms = rooms.map(str::to_owned).collect();
            }
            "m.room.power_levels" => self.power_levels = Some(content.clone()),
            "m.room.name" => self.name = room_text(event, "name"),
            "m.room.topic" => self.topic = room_text(event, "topic"),
            "m.room.tombstone" => {
                self.replaced_by = text("replacement_room").and_then(|room| room.try_into().ok());
            }
            _ => {}
        }
    }

    fn add_create(&mut self, event: &Value) {
        let content = &event["content"];
        if let Some(version) = content["room_version"].as_str() {
            self.version = version.to_owned();
        }
        self.room_type = content["type"].as_str().map(ToOwned::to_owned);
        let predecessor = content["predecessor"]["room_id"].as_str();
        self.predecessor = predecessor.and_then(|room| room.try_into().ok());
        if !self.has_powerful_creators() {
            return;
        }
        let additional = content["additional_creators"].as_array();
        let named = additional.into_iter().flatten().filter_map(Value::as_str);
        for user in event["sender"].as_str().into_iter().chain(named) {
            if let Ok(user) = UserId::parse(user) {
                self.creators.push(user);
            }
        }
    }

    /// Returns whether this room version gives its creators unlimited power (MSC4289).
    pub fn has_powerful_creators(&self) -> bool {
        !matches!(
            self.version.as_str(),
            "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "10" | "11"
        )
    }

    /// Returns whether this user has the power to invite others.
    pub fn may_invite(&self, user: &UserId) -> bool {
        self.power(user) >= self.level("invite", 0)
    }

    /// Returns whether this user may redact the events of others.
    pub fn may_redact(&self, user: &UserId) -> bool {
        self.power(user) >= self.level("redact", 50)
    }

    /// Returns whether this user may send state of this type.
    pub fn may_send_state(&self, user: &UserId, event_type: &str) -> bool {
        let default = self.level(
            "state_default",
            if self.power_levels.is_some() { 50 } else { 0 },
        );
        let levels = self.power_levels.as_ref();
        let needed = levels.and_then(|levels| integer(&levels["events"][event_type]));
        self.power(user) >= needed.unwrap_or(default)
    }

    fn power(&self, user: &UserId) -> i64 {
        if self.creators.iter().any(|creator| creator == user) {
            return i64::MAX;
        }
        let own = self
            .power_levels
            .as_ref()
            .and_then(|levels| integer(&levels["users"][user.as_str()]));
        own.unwrap_or_else(|| self.level("users_default", 0))
    }

    fn level(&self, name: &str, default: i64) -> i64 {
        self.power_levels
            .as_ref()
            .and_then(|levels| integer(&levels[name]))
            .unwrap_or(default)
    }

    /// Returns the users who have joined.
    pub fn joined(&self) -> impl Iterator<Item = &OwnedUserId> {
        self.with("join")
    }

    /// Returns the users who are invited.
    pub fn invited(&self) -> impl Iterator<Item = &OwnedUserId> {
        self.with("invite")
    }

    /// Returns the users who can read messages now or after accepting their invite.
    pub fn readers(&self) -> impl Iterator<Item = &OwnedUserId> {
        self.joined().chain(self.invited())
    }

    /// Returns the membership of a user; `leave` if they were never here.
    pub fn membership(&self, user: &UserId) -> &str {
        self.members.get(user).map_or("leave", String::as_str)
    }

    fn with<'a>(&'a self, membership: &'a str) -> impl Iterator<Item = &'a OwnedUserId> {
        self.members
            .iter()
            .filter(move |(_, m)| *m == membership)
            .map(|(user, _)| user)
    }
}

/// Returns an integer, which room versions before 10 also allow as a string or a fraction.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        // A fraction is cut, and what is out of range saturates.
        Value::Number(number) => number.as_i64().or_else(|| Some(number.as_f64()? as i64)),
        _ => None,
    }
}

fn room_text(event: &Value, field: &str) -> Option<Box<RoomText>> {
    let by = event["sender"].as_str()?;
    Some(Box::new(RoomText {
        by: UserId::parse(by).ok()?,
        text: event["content"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_read_as_old_room_versions_write_them() {
        for (value, read) in [
            (json!(50), Some(50)),
            (json!(-1), Some(-1)),
            (json!("50"), Some(50)),
            (json!(" 50 "), Some(50)),
            (json!(50.9), Some(50)),
            (json!(1e300), Some(i64::MAX)),
            (json!(u64::MAX), Some(i64::MAX)),
            (json!("many"), None),
            (json!(null), None),
            (json!([50]), None),
        ] {
            assert_eq!(integer(&value), read, "{value}");
        }
    }
}
