//! Which request is answered where.

use std::{collections::HashMap, time::Instant};

use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::server::Server;

/// A request, by somebody who may make requests as this user.
#[derive(Clone, Debug)]
pub struct Ask {
    /// As whom.
    pub user: String,
    /// On which device.
    pub device: Option<String>,
    /// Whether the application service makes it.
    pub by_service: bool,
    /// `GET`, …
    pub method: String,
    /// The whole path, as it came.
    pub path: String,
    /// The parts of the path after the version, decoded.
    pub parts: Vec<String>,
    /// The query, decoded.
    pub query: HashMap<String, String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// When it arrived.
    pub arrived: Instant,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body: JSON, but for media.
    pub body: Vec<u8>,
}

impl Answer {
    /// 200 with this.
    pub fn ok(body: &impl Serialize) -> Self {
        Self {
            status: 200,
            body: serde_json::to_vec(body).unwrap_or_default(),
        }
    }

    /// 200 with `{}`.
    pub fn empty() -> Self {
        Self::ok(&json!({}))
    }

    /// An error with an errcode.
    pub fn refused(status: u16, errcode: &str, error: &str) -> Self {
        let body = json!({"errcode": errcode, "error": error});
        Self {
            status,
            ..Self::ok(&body)
        }
    }

    /// 403 M_FORBIDDEN
    pub fn forbidden(error: &str) -> Self {
        Self::refused(403, "M_FORBIDDEN", error)
    }

    /// 404 M_NOT_FOUND
    pub fn not_found(error: &str) -> Self {
        Self::refused(404, "M_NOT_FOUND", error)
    }

    /// 200 with an event's id.
    pub fn event(id: &str) -> Self {
        Self::ok(&json!({"event_id": id}))
    }
}

impl Ask {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as an object that need not be looked into.
    pub fn content(&self) -> Option<Box<RawValue>> {
        let raw: Box<RawValue> = serde_json::from_slice(&self.body).ok()?;
        raw.get().starts_with('{').then_some(raw)
    }

    /// A number of the query.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.query.get(name)?.parse().ok()
    }

    /// Within what a transaction id is unique: over all users of the application service, but by
    /// user and device for everybody else.
    fn scope(&self) -> String {
        if self.by_service {
            return format!("service {}", self.path);
        }
        let device = self.device.as_deref().unwrap_or_default();
        format!("{} {device} {}", self.user, self.path)
    }
}

impl Server {
    /// Answers a request.
    pub fn answer(&mut self, ask: &Ask) -> Answer {
        let parts: Vec<&str> = ask.parts.iter().map(String::as_str).collect();
        let with_transaction = ask.method == "PUT"
            && matches!(
                parts.as_slice(),
                ["rooms", _, "send" | "redact", _, _] | ["sendToDevice", _, _]
            );
        if !with_transaction {
            return self.route(ask, &parts);
        }
        let scope = ask.scope();
        if parts[0] == "sendToDevice" && self.firsts.is_other_body(&scope, &ask.body) {
            self.reuses
                .push(format!("{}: transaction {}", ask.user, ask.path));
        }
        if let Some(first) = self.answered.get(&scope) {
            return first.clone();
        }
        let answer = self.route(ask, &parts);
        if answer.status == 200 {
            self.answered.insert(scope, answer.clone());
        }
        answer
    }

    fn route(&mut self, ask: &Ask, parts: &[&str]) -> Answer {
        match (ask.method.as_str(), parts) {
            ("GET", ["account", "whoami"]) => {
                Answer::ok(&json!({"user_id": ask.user, "device_id": ask.device}))
            }
            ("GET", ["profile", user]) => self.profile(user, None),
            ("GET", ["profile", user, field]) => self.profile(user, Some(field)),
            ("PUT", ["profile", user, field]) => self.set_profile(ask, user, field),
            ("GET", ["user", user, "account_data", kind]) => self.account_data(user, kind),
            ("PUT", ["user", user, "account_data", kind]) => self.set_account_data(ask, user, kind),
            (_, ["devices" | "delete_devices" | "keys" | "sendToDevice", ..]) => {
                self.route_keys(ask, parts)
            }
            ("POST", ["createRoom"]) => self.create_room(ask),
            ("GET", ["joined_rooms"]) => self.joined_rooms(ask),
            ("POST", ["join", room]) => self.change_membership(ask, room, "join"),
            ("GET", ["sync"]) => self.sync(ask),
            ("GET", ["voip", "turnServer"]) => Answer::ok(&json!({
                "username": "somebody", "password": "something", "ttl": 86400,
                "uris": ["turn:turn.invalid:3478?transport=udp"],
            })),
            ("POST", ["upload"]) => self.upload_media(ask),
            ("GET", ["media", "config"] | ["config"]) => {
                Answer::ok(&json!({"m.upload.size": self.upload_limit.unwrap_or(50 << 20)}))
            }
            ("GET", ["media", "download", _, id, ..] | ["download", _, id, ..]) => {
                self.download_media(id)
            }
            (_, ["rooms", room, what @ ..]) => self.route_room(ask, room, what),
            _ => Answer::refused(404, "M_UNRECOGNIZED", "Unrecognized request"),
        }
    }

    fn route_keys(&mut self, ask: &Ask, parts: &[&str]) -> Answer {
        match (ask.method.as_str(), parts) {
            ("GET", ["devices"]) => self.devices(ask),
            ("GET", ["devices", device]) => self.device(ask, device),
            ("PUT", ["devices", device]) => self.put_device(ask, device),
            ("DELETE", ["devices", device]) => self.delete_device(ask, device),
            ("POST", ["keys", "upload"]) => self.upload_keys(ask),
            ("POST", ["keys", "query"]) => self.query_keys(ask),
            ("POST", ["keys", "claim"]) => self.claim_keys(ask),
            ("GET", ["keys", "changes"]) => self.changed_keys(ask),
            ("POST", ["keys", "device_signing", "upload"]) => self.upload_identity(ask),
            ("POST", ["keys", "signatures", "upload"]) => self.upload_signatures(ask),
            ("PUT", ["sendToDevice", kind, _]) => self.send_to_device(ask, kind),
            _ => Answer::refused(404, "M_UNRECOGNIZED", "Unrecognized request"),
        }
    }

    fn route_room(&mut self, ask: &Ask, room: &str, what: &[&str]) -> Answer {
        if !self.rooms.contains_key(room) {
            return Answer::not_found("Unknown room");
        }
        match (ask.method.as_str(), what) {
            ("POST", ["join"]) => self.change_membership(ask, room, "join"),
            ("POST", ["leave"]) => self.change_membership(ask, room, "leave"),
            ("POST", ["invite"]) => self.change_membership(ask, room, "invite"),
            ("POST", ["kick"]) => self.change_membership(ask, room, "leave"),
            ("POST", ["ban"]) => self.change_membership(ask, room, "ban"),
            ("POST", ["forget"]) => Answer::empty(),
            ("GET", ["state"]) => self.room_state(ask, room),
            ("GET", ["state", kind]) => self.state(ask, room, kind, ""),
            ("GET", ["state", kind, key]) => self.state(ask, room, kind, key),
            ("PUT", ["state", kind]) => self.set_state(ask, room, kind, ""),
            ("PUT", ["state", kind, key]) => self.set_state(ask, room, kind, key),
            ("GET", ["members"]) => self.members(ask, room),
            ("GET", ["joined_members"]) => self.joined_members(ask, room),
            ("PUT", ["send", kind, transaction]) => {
                self.send_event(ask, room, kind, transaction, None)
            }
            ("PUT", ["redact", event, transaction]) => {
                self.send_event(ask, room, "m.room.redaction", transaction, Some(event))
            }
            ("GET", ["messages"]) => self.messages(ask, room),
            ("GET", ["context", event]) => self.context(ask, room, event),
            ("GET", ["event", event]) => self.event(ask, room, event),
            ("POST", ["receipt", kind, event]) => self.receipt(ask, room, kind, event),
            ("POST", ["read_markers"]) => self.read_markers(ask, room),
            ("PUT", ["typing", user]) => self.typing(ask, room, user),
            _ => Answer::refused(404, "M_UNRECOGNIZED", "Unrecognized request"),
        }
    }
}
