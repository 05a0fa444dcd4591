//! Answers that are not what the homeserver knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ruma::UserId;
use serde_json::{Value, json};

use crate::{
    Fake,
    model::{Answer, Ask},
};

/// What takes the place of answers, or of parts of them.
#[derive(Default)]
pub(super) struct Odd {
    /// What was said in rooms, the newest first.
    histories: BTreeMap<String, Vec<Value>>,
    /// What was said in rooms after any event that somebody looks at, in order.
    continuations: BTreeMap<String, Vec<Value>>,
    /// The answer by which it is refused to show what was said in rooms.
    refused: Option<Answer>,
    /// What the next sync shows of rooms.
    timelines: BTreeMap<String, Value>,
    /// What takes the place of somebody's devices.
    devices: BTreeMap<String, Value>,
    /// Whose one-time keys have this much beside them, in bytes.
    stuffed: BTreeMap<String, usize>,
    /// Servers that do not answer key queries.
    unreachable: BTreeSet<String>,
    /// Servers that accept connections and then say nothing, and how long our homeserver waits for
    /// what they know of keys.
    silent: BTreeMap<String, Duration>,
}

impl Fake {
    /// Shows this history of a room, the newest first, to everybody who asks.
    pub fn put_history(&self, room: &str, events: Vec<Value>) {
        self.script(|script| script.odd.histories.insert(room.to_owned(), events));
    }

    /// Shows these events, in order, to everybody who reads on from an event of a room with a
    /// history of its own.
    pub fn put_continuation(&self, room: &str, events: Vec<Value>) {
        self.script(|script| script.odd.continuations.insert(room.to_owned(), events));
    }

    /// Shows nothing of what was said in rooms.
    pub fn refuse_history(&self, status: u16) {
        let answer = Answer::refused(status, "M_UNKNOWN", "refused");
        self.script(|script| script.odd.refused = Some(answer));
    }

    /// Shows nothing of what was said in rooms, with an answer that is not a homeserver's.
    pub fn refuse_history_as_a_proxy(&self, status: u16) {
        let mut answer = Answer::ok(&json!("nothing is here"));
        answer.status = status;
        self.script(|script| script.odd.refused = Some(answer));
    }

    /// Lets the next sync show these events of a room, in order, and say whether they are not all.
    pub fn put_timeline(&self, room: &str, events: Vec<Value>, limited: bool) {
        let timeline = json!({
            "timeline": {"events": events, "limited": limited, "prev_batch": "p"},
        });
        self.script(|script| script.odd.timelines.insert(room.to_owned(), timeline));
    }

    /// Shows these devices of a user, whatever they have.
    pub fn show_devices(&self, user: &UserId, devices: Value) {
        self.script(|script| script.odd.devices.insert(user.to_string(), devices));
    }

    /// Adds this many bytes to answers to claims of a user's keys.
    pub fn stuff_claims(&self, user: &UserId, bytes: usize) {
        self.script(|script| script.odd.stuffed.insert(user.to_string(), bytes));
    }

    /// Lets a server accept connections and then say nothing. Our homeserver gives key queries up
    /// after this time, and waits for files as long as somebody wants them.
    pub fn set_silent(&self, server_name: &str, given_up_after: Duration) {
        let server_name = server_name.to_owned();
        self.script(|script| script.odd.silent.insert(server_name, given_up_after));
    }

    /// Lets a server answer key queries no longer, or again.
    pub fn set_unreachable(&self, server_name: &str, unreachable: bool) {
        self.script(|script| {
            let all = &mut script.odd.unreachable;
            if unreachable {
                all.insert(server_name.to_owned())
            } else {
                all.remove(server_name)
            }
        });
    }
}

fn parts(ask: &Ask) -> Vec<&str> {
    ask.parts.iter().map(String::as_str).collect()
}

fn keys(object: &Value) -> impl Iterator<Item = &String> {
    object.as_object().into_iter().flat_map(|all| all.keys())
}

impl Odd {
    /// Returns the answer to a request for what was said in a room, if a test has put one there.
    pub(super) fn answer(&self, ask: &Ask) -> Option<Answer> {
        let parts = parts(ask);
        let ("GET", ["rooms", room, what @ ("context" | "messages"), rest @ ..]) =
            (ask.method.as_str(), parts.as_slice())
        else {
            return None;
        };
        if let Some(answer) = &self.refused {
            return Some(answer.clone());
        }
        let history = self.histories.get(*room)?;
        let forward = ask.query.get("dir").is_some_and(|dir| dir == "f");
        Some(Answer::ok(&match (*what, rest) {
            ("context", [event]) => json!({
                "event": {
                    "type": "m.room.encrypted", "event_id": event, "sender": "@alice:hs.test",
                    "origin_server_ts": 1, "content": {},
                },
                "start": "s", "end": "e",
            }),
            _ if forward => {
                let events = self.continuations.get(*room);
                json!({"chunk": events.into_iter().flatten().collect::<Vec<_>>(), "start": "e"})
            }
            _ => json!({"chunk": history, "start": "s"}),
        }))
    }

    /// Returns how long our homeserver waits for another server before it answers; with `MAX` it
    /// never does.
    pub(super) fn wait_for_silent(&self, ask: &Ask) -> Option<Duration> {
        let asked = ask.json();
        match parts(ask).as_slice() {
            ["media", "download", server, ..] => {
                self.silent.contains_key(*server).then_some(Duration::MAX)
            }
            ["keys", kind @ ("query" | "claim")] => {
                let field = if *kind == "query" {
                    "device_keys"
                } else {
                    "one_time_keys"
                };
                let servers = keys(&asked[field]).filter_map(|user| user.split_once(':'));
                let waits = servers.filter_map(|(_, server)| self.silent.get(server));
                waits.max().copied()
            }
            _ => None,
        }
    }

    /// Returns whether the answer to this request may have to be changed.
    pub(super) fn is_about(&self, ask: &Ask) -> bool {
        match parts(ask).as_slice() {
            ["sync"] => !self.timelines.is_empty(),
            ["keys", "query"] => {
                !self.devices.is_empty() || !self.unreachable.is_empty() || !self.silent.is_empty()
            }
            ["keys", "claim"] => !self.stuffed.is_empty(),
            _ => false,
        }
    }

    /// Changes an answer.
    pub(super) fn change(&mut self, ask: &Ask, answer: &mut Value) {
        let asked = ask.json();
        match parts(ask).as_slice() {
            ["sync"] => {
                for (room, timeline) in std::mem::take(&mut self.timelines) {
                    answer["rooms"]["join"][room] = timeline;
                }
            }
            ["keys", "query"] => {
                for user in keys(&asked["device_keys"]) {
                    self.change_keys(user, answer);
                }
            }
            _ => {
                for user in keys(&asked["one_time_keys"]) {
                    if let Some(bytes) = self.stuffed.get(user) {
                        let key = json!({"key": "x".repeat(*bytes)});
                        answer["one_time_keys"][user]["STUFFED"] =
                            json!({"signed_curve25519:A": key});
                    }
                }
            }
        }
    }

    fn change_keys(&self, user: &str, answer: &mut Value) {
        let server_name = user.split_once(':').map_or("", |(_, server)| server);
        let away = self.unreachable.contains(server_name) || self.silent.contains_key(server_name);
        let devices = self.devices.get(user);
        if !away && devices.is_none() {
            return;
        }
        let kinds = [
            "device_keys",
            "master_keys",
            "self_signing_keys",
            "user_signing_keys",
        ];
        for kind in kinds {
            answer[kind].as_object_mut().map(|all| all.remove(user));
        }
        if away {
            answer["failures"][server_name] = json!({"status": 503});
        } else if let Some(devices) = devices {
            answer["device_keys"][user] = devices.clone();
        }
    }
}
