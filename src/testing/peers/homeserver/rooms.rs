//! Rooms: who is in them, what was sent there, and what their history shows.

use ruma::{RoomId, UserId};
use serde_json::{Value, json};

use super::{
    FakeHomeserver, Server,
    http::{Answer, Ask, refused},
};

#[derive(Default)]
pub(super) struct Room {
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

    fn answer(&mut self, ask: &Ask, id: &str, what: &[&str]) -> Answer {
        match (ask.method.as_str(), what) {
            ("GET", ["state"]) => (200, self.state(id)),
            ("GET", ["state", "m.room.member", of]) => match self.membership_of(of) {
                Some(membership) => (200, json!({"membership": membership})),
                None => refused(404, "M_NOT_FOUND"),
            },
            ("GET", ["messages"]) => {
                let events = self.sent.iter().rev().map(|(_, event)| event);
                let chunk: Vec<&Value> = events.collect();
                (200, json!({"chunk": chunk, "start": "s"}))
            }
            ("PUT", ["send", kind, _]) => {
                let content = ask.body.clone();
                (200, self.send(&ask.target, &ask.user, kind, content))
            }
            ("PUT", ["state", "m.room.member", of]) => {
                let membership = ask.body["membership"].as_str().unwrap();
                self.set_membership(of, membership);
                (200, json!({"event_id": "$member"}))
            }
            ("POST", [change @ ("join" | "leave")]) => {
                self.set_membership(&ask.user, change);
                (200, json!({"room_id": id}))
            }
            _ => refused(404, "M_UNRECOGNIZED"),
        }
    }
}

impl FakeHomeserver {
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

    pub(crate) fn add_room(&self, room: &RoomId, members: &[&UserId]) {
        let members = members.iter().map(|member| member.to_string()).collect();
        let room_state = Room {
            members,
            ..Room::default()
        };
        self.with(|server| server.rooms.insert(room.to_string(), room_state));
    }

    /// Somebody's membership in a room that was made, `leave` if they are not there.
    pub(crate) fn membership(&self, room: &RoomId, user: &UserId) -> &'static str {
        self.with(|server| {
            let room = &server.rooms[room.as_str()];
            room.membership_of(user.as_str()).unwrap_or("leave")
        })
    }

    /// How many events were sent into a room.
    pub(crate) fn sent(&self, room: &RoomId) -> usize {
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
}

impl Server {
    pub(super) fn create_room(&mut self, ask: &Ask) -> Answer {
        let id = format!("!made{}:hs.test", self.rooms.len());
        let mut room = Room {
            members: vec![ask.user.clone()],
            ..Room::default()
        };
        for guest in ask.body["invite"].as_array().into_iter().flatten() {
            room.invited.push(guest.as_str().unwrap().to_owned());
        }
        self.rooms.insert(id.clone(), room);
        (200, json!({"room_id": id}))
    }

    /// Answers about a room that was made here, or of which only this is known: who is in it, and
    /// what its history shows.
    pub(super) fn about_room(&mut self, ask: &Ask, id: &str, what: &[&str]) -> Answer {
        match self.rooms.get_mut(id) {
            Some(room) => room.answer(ask, id, what),
            None => self.about_other_room(ask, id, what),
        }
    }

    fn about_other_room(&mut self, ask: &Ask, id: &str, what: &[&str]) -> Answer {
        let user = self.users.get_mut(&ask.user).unwrap();
        match (ask.method.as_str(), what) {
            ("POST", ["join"]) => {
                user.joined.push(id.to_owned());
                (200, json!({"room_id": id}))
            }
            ("POST", ["leave"]) => {
                user.joined.retain(|joined| joined != id);
                (200, json!({}))
            }
            ("GET", ["state", "m.room.member", of]) if *of == ask.user => {
                if user.joined.iter().any(|joined| joined == id) {
                    (200, json!({"membership": "join"}))
                } else {
                    refused(403, "M_FORBIDDEN")
                }
            }
            ("GET", ["context", _] | ["messages"]) if let Some(status) = self.refused => {
                refused(status, "M_UNKNOWN")
            }
            ("GET", ["context", event]) => {
                let event = json!({
                    "type": "m.room.encrypted", "event_id": event, "sender": "@alice:hs.test",
                    "origin_server_ts": 1, "content": {},
                });
                (200, json!({"event": event, "start": "s", "end": "e"}))
            }
            ("GET", ["messages"]) if ask.query.get("dir").is_some_and(|dir| dir == "f") => {
                (200, json!({"chunk": [], "start": "e"}))
            }
            ("GET", ["messages"]) => {
                let chunk = self.history.get(id).cloned().unwrap_or_default();
                (200, json!({"chunk": chunk, "start": "s"}))
            }
            _ => refused(404, "M_UNRECOGNIZED"),
        }
    }
}
