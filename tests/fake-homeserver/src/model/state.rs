//! Who is in a room, and its state.

use serde_json::{Value, json};

use super::{
    event::{Event, Shape},
    route::{Answer, Ask},
    server::{Draft, Server},
};

impl Ask {
    /// The shape in which this request is shown events.
    pub(super) fn shape(&self) -> Shape<'_> {
        Shape::Client(&self.user, self.device.as_deref())
    }
}

impl Server {
    /// `/join`, `/leave`, `/invite`, `/kick`, `/ban`
    pub(super) fn change_membership(&mut self, ask: &Ask, room: &str, wanted: &str) -> Answer {
        let body = ask.json();
        let target = body["user_id"].as_str().unwrap_or(&ask.user).to_owned();
        let mut content = self.member_content(&target, wanted);
        if body["reason"].is_string() {
            content["reason"] = body["reason"].clone();
        }
        if !self.rooms.contains_key(room) {
            let words = "Can't join remote room because no servers that are in the room have been provided.";
            return Answer::not_found(words);
        }
        match self.set_member(ask, room, &target, content) {
            Ok(_) if wanted == "join" => Answer::ok(&json!({"room_id": room})),
            Ok(_) => Answer::empty(),
            Err(refused) => refused,
        }
    }

    /// Sets a membership, if that is allowed; the same again changes nothing.
    fn set_member(
        &mut self,
        ask: &Ask,
        room_id: &str,
        target: &str,
        content: Value,
    ) -> Result<String, Answer> {
        let Some(room) = self.rooms.get(room_id) else {
            return Err(Answer::not_found("Unknown room"));
        };
        let wanted = content["membership"].as_str().unwrap_or_default();
        if !room.may_set_membership(&ask.user, target, wanted) {
            let words = match wanted {
                "join" => "You are not invited to this room.",
                "invite" if room.is_joined(target) => "is already in the room.",
                _ => "You don't have permission to do that.",
            };
            return Err(Answer::forbidden(words));
        }
        let present = room.state_event("m.room.member", target);
        let again = present.filter(|event| {
            let gone = wanted == "leave" && room.membership(target) == "leave";
            gone || (event.sender == ask.user && event.value() == content)
                || (wanted == "join" && ask.path.ends_with("/join") && room.is_joined(target))
        });
        if let Some(event) = again {
            return Ok(event.id.clone());
        }
        let draft = Draft::state(&ask.user, "m.room.member", target, &content);
        let arrived = ask.arrived;
        Ok(self.append(room_id, Draft { arrived, ..draft }))
    }

    pub(super) fn set_state(&mut self, ask: &Ask, room_id: &str, kind: &str, key: &str) -> Answer {
        let Some(raw) = ask.content() else {
            return Answer::refused(400, "M_BAD_JSON", "no object");
        };
        if kind == "m.room.member" {
            let mut content = ask.json();
            // An invite shows the names of the invited, whatever the inviter says.
            if content["membership"] == "invite" {
                let profile = self.member_content(key, "invite");
                for field in ["displayname", "avatar_url"] {
                    if !profile[field].is_null() {
                        content[field] = profile[field].clone();
                    }
                }
            }
            return match self.set_member(ask, room_id, key, content) {
                Ok(id) => Answer::event(&id),
                Err(refused) => refused,
            };
        }
        let Some(room) = self.rooms.get(room_id) else {
            return Answer::not_found("Unknown room");
        };
        if !room.may_send(&ask.user, kind, true) || (key.starts_with('@') && key != ask.user) {
            return Answer::forbidden("You don't have permission to post that to the room.");
        }
        let present = room.state_event(kind, key);
        let same = present.filter(|event| event.sender == ask.user && event.value() == ask.json());
        if let Some(event) = same {
            return Answer::event(&event.id);
        }
        let draft = Draft {
            content: raw,
            arrived: ask.arrived,
            ..Draft::state(&ask.user, kind, key, &Value::Null)
        };
        Answer::event(&self.append(room_id, draft))
    }

    /// Only who is joined, or was, may look.
    fn may_look(&self, user: &str, room: &str) -> bool {
        self.rooms
            .get(room)
            .is_some_and(|room| room.sees(user).is_some())
    }

    pub(super) fn state(&self, ask: &Ask, room: &str, kind: &str, key: &str) -> Answer {
        if !self.may_look(&ask.user, room) {
            return Answer::forbidden("User not in room");
        }
        let event = self
            .rooms
            .get(room)
            .and_then(|room| room.state_event(kind, key));
        match event {
            Some(event) => Answer::ok(&event.content),
            None => Answer::not_found("Event not found."),
        }
    }

    pub(super) fn room_state(&self, ask: &Ask, room: &str) -> Answer {
        if !self.may_look(&ask.user, room) {
            return Answer::forbidden("User not in room");
        }
        let state = self.rooms.get(room).into_iter();
        let state: Vec<_> = state
            .flat_map(|room| room.current_state())
            .map(|event| event.shown(ask.shape()))
            .collect();
        Answer::ok(&state)
    }

    pub(super) fn members(&self, ask: &Ask, room: &str) -> Answer {
        if !self.may_look(&ask.user, room) {
            return Answer::forbidden("User not in room");
        }
        let is_member = |event: &&Event| event.kind == "m.room.member";
        let wanted = |event: &&Event| match ask.query.get("membership") {
            Some(wanted) => event.membership().is_some_and(|(_, is)| is == *wanted),
            None => true,
        };
        let state = self.rooms.get(room).into_iter();
        let chunk: Vec<_> = state
            .flat_map(|room| room.current_state())
            .filter(is_member)
            .filter(wanted)
            .map(|event| event.shown(ask.shape()))
            .collect();
        // Raw values do not survive `json!` unparsed, and need not.
        Answer::ok(&json!({"chunk": chunk}))
    }

    /// Open to the application service for every room with one of its users.
    pub(super) fn joined_members(&self, ask: &Ask, room_id: &str) -> Answer {
        let Some(room) = self.rooms.get(room_id) else {
            return Answer::not_found("Unknown room");
        };
        let mut joined = room.with_membership("join");
        let allowed =
            room.is_joined(&ask.user) || (ask.by_service && joined.any(|user| self.is_ours(user)));
        if !allowed {
            return Answer::forbidden("User not in room");
        }
        let mut members = json!({});
        for user in room.with_membership("join") {
            let content = room.state_content("m.room.member", user);
            members[user] = json!({
                "display_name": content["displayname"], "avatar_url": content["avatar_url"],
            });
        }
        Answer::ok(&json!({"joined": members}))
    }

    pub(super) fn joined_rooms(&self, ask: &Ask) -> Answer {
        let account = self.accounts.get(&ask.user);
        let rooms = account.into_iter().flat_map(|account| &account.rooms);
        let is_joined = |room: &&String| {
            self.rooms
                .get(*room)
                .is_some_and(|room| room.is_joined(&ask.user))
        };
        let rooms: Vec<&String> = rooms.filter(is_joined).collect();
        Answer::ok(&json!({"joined_rooms": rooms}))
    }
}
