//! How requests come in, and who answers them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Server, User, faults::When};

/// A status and a body.
pub(super) type Answer = (u16, Value);

/// A request of a user who exists, on a device that exists if it names one.
pub(super) struct Ask {
    pub(super) method: Method,
    /// The path of the request as it was sent.
    pub(super) target: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) user: String,
    pub(super) device: Option<String>,
    pub(super) body: Value,
}

pub(super) async fn handle(
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

pub(super) fn refused(status: u16, errcode: &str) -> Answer {
    (status, json!({"errcode": errcode, "error": "refused"}))
}

impl Server {
    fn answer(&mut self, method: &Method, uri: &Uri, body: &[u8]) -> Answer {
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
        let Some(user) = query.get("user_id").cloned() else {
            return refused(401, "M_MISSING");
        };
        let Some(known) = self.users.get(&user) else {
            return refused(403, "M_FORBIDDEN");
        };
        let device = query.get("device_id").cloned();
        if device
            .as_ref()
            .is_some_and(|device| !known.devices.contains_key(device))
        {
            return refused(400, "M_UNKNOWN_DEVICE");
        }
        let ask = Ask {
            method: method.clone(),
            target: uri.path().to_owned(),
            query,
            user,
            device,
            body,
        };
        match (method.as_str(), path.as_slice()) {
            ("POST", ["createRoom"]) => self.create_room(&ask),
            ("GET", ["joined_rooms"]) => {
                (200, json!({"joined_rooms": self.users[&ask.user].joined}))
            }
            (_, ["rooms", room, what @ ..]) => self.about_room(&ask, room, what),
            ("GET", ["sync"]) => (200, self.sync(&ask.user)),
            ("GET", ["profile", of]) => match self.users.get(*of) {
                Some(user) => (200, json!({"displayname": user.name})),
                None => refused(404, "M_NOT_FOUND"),
            },
            ("PUT", ["profile", _, "displayname"]) => {
                let user = self.users.get_mut(&ask.user).unwrap();
                user.name = ask.body["displayname"].as_str().map(str::to_owned);
                (200, json!({}))
            }
            (_, ["devices", ..]) => self.about_devices(&ask, &path),
            ("POST", ["keys", what @ ..]) => self.about_keys(&ask, what),
            ("PUT", ["sendToDevice", kind, _]) => self.send_to_device(&ask, kind),
            _ => refused(404, "M_UNRECOGNIZED"),
        }
    }

    fn register(&mut self, body: &Value) -> Answer {
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

    fn sync(&mut self, user: &str) -> Value {
        let invited = self.users[user].invited.iter().map(|room| {
            let invite = json!({
                "type": "m.room.member", "state_key": user, "sender": "@alice:hs.test",
                "content": {"membership": "invite"},
            });
            (room.clone(), json!({"invite_state": {"events": [invite]}}))
        });
        let invited: serde_json::Map<_, _> = invited.collect();
        json!({
            "next_batch": "s1",
            "to_device": {"events": std::mem::take(&mut self.to_device)},
            "device_lists": {"changed": std::mem::take(&mut self.devices_changed)},
            "rooms": {"invite": invited, "join": std::mem::take(&mut self.timelines)},
        })
    }
}
