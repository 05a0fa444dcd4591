//! What is said in rooms: sending it, taking it back, reading it; receipts and typing.

use serde_json::{Value, json};

use super::{
    event::Event,
    room::{Receipt, Room},
    route::{Answer, Ask},
    server::{Draft, Server, now},
};

/// A token of `/messages`: between the event at this position and the next.
pub(super) fn token(position: u64) -> String {
    format!("t{position}")
}

/// The position that any token stands for, one of a sync too.
fn position(token: &str) -> Option<u64> {
    let number = token.trim_start_matches(['t', 's']);
    number.split('_').next()?.parse().ok()
}

impl Server {
    pub(super) fn send_event(
        &mut self,
        ask: &Ask,
        room_id: &str,
        kind: &str,
        transaction: &str,
        redacts: Option<&str>,
    ) -> Answer {
        let is_held = redacts.is_some_and(|id| self.is_held(&ask.user, id));
        let Some(room) = self.rooms.get(room_id) else {
            return Answer::not_found("Unknown room");
        };
        // Kept in the database when the request names a device.
        let key = ask.device.as_ref().map(|device| {
            let key = [room_id, &ask.user, device, transaction].map(str::to_owned);
            <(String, String, String, String)>::from(key)
        });
        if let Some(id) = key.as_ref().and_then(|key| self.sent.get(key)) {
            return Answer::event(id);
        }
        let target = redacts.and_then(|id| room.index.get(id)).copied();
        let own = target
            .and_then(|at| room.events.get(at))
            .map_or(is_held, |event| event.sender == ask.user);
        let may_redact = own || room.power(&ask.user) >= room.power_for("redact");
        if !room.may_send(&ask.user, kind, false) || (redacts.is_some() && !may_redact) {
            return Answer::forbidden("You don't have permission to post that to the room.");
        }
        let mut content = ask.content();
        if let Some(redacts) = redacts {
            if target.is_none() && !is_held {
                return Answer::not_found("Event not found");
            }
            let mut with_target = ask.json();
            with_target["redacts"] = redacts.into();
            content = serde_json::value::to_raw_value(&with_target).ok();
        }
        let Some(content) = content else {
            return Answer::refused(400, "M_BAD_JSON", "no object");
        };
        let device = ask.device.clone();
        let id = self.append(
            room_id,
            Draft {
                sender: ask.user.clone(),
                kind: kind.to_owned(),
                state_key: None,
                content,
                redacts: redacts.map(str::to_owned),
                by: device.map(|device| (device, transaction.to_owned())),
                arrived: ask.arrived,
            },
        );
        if let Some(key) = key {
            self.sent.insert(key, id.clone());
        }
        Answer::event(&id)
    }

    pub(super) fn messages(&self, ask: &Ask, room: &str) -> Answer {
        let room = self.rooms.get(room);
        let Some((room, (from, until))) = room.and_then(|room| Some((room, room.sees(&ask.user)?)))
        else {
            return Answer::forbidden("User not in room");
        };
        let limit = ask.number("limit").unwrap_or(10).clamp(1, 1000);
        let back = ask.query.get("dir").is_none_or(|dir| dir == "b");
        let start = ask.query.get("from").and_then(|token| position(token));
        let start = start.unwrap_or(if back { u64::MAX } else { 0 });
        let visible = |event: &&Event| from <= event.position && event.position <= until;
        let events: Vec<&Event> = if back {
            let all = room.events.iter().rev().filter(visible);
            all.filter(|event| event.position <= start)
                .take(limit + 1)
                .collect()
        } else {
            let all = room.events.iter().filter(visible);
            all.filter(|event| event.position > start)
                .take(limit + 1)
                .collect()
        };
        let more = events.len() > limit;
        let chunk: Vec<_> = events
            .iter()
            .take(limit)
            .map(|event| event.shown(ask.shape()))
            .collect();
        let last = events.iter().take(limit).next_back();
        let end = last.filter(|_| more).map(|last| {
            token(if back {
                last.position.saturating_sub(1)
            } else {
                last.position
            })
        });
        let mut answer = json!({"chunk": chunk, "start": token(start.min(self.position))});
        if let Some(end) = end {
            answer["end"] = end.into();
        }
        Answer::ok(&answer)
    }

    pub(super) fn context(&self, ask: &Ask, room: &str, id: &str) -> Answer {
        let Some((room, at)) = self.visible(ask, room, id) else {
            return Answer::not_found("Event not found.");
        };
        let (from, until) = room.sees(&ask.user).unwrap_or((u64::MAX, 0));
        let around = ask.number("limit").unwrap_or(10) / 2;
        let visible = |event: &&Event| from <= event.position && event.position <= until;
        let (before, after) = room.events.split_at(at);
        let shown = |event: &Event| event.shown(ask.shape());
        let before: Vec<&Event> = before.iter().rev().filter(visible).take(around).collect();
        let after: Vec<&Event> = after.iter().skip(1).filter(visible).take(around).collect();
        let here = &room.events[at];
        let start = before.last().map_or(here.position, |event| event.position);
        let end = after.last().map_or(here.position, |event| event.position);
        Answer::ok(&json!({
            "event": shown(here),
            "events_before": before.into_iter().map(shown).collect::<Vec<_>>(),
            "events_after": after.into_iter().map(shown).collect::<Vec<_>>(),
            "start": token(start - 1), "end": token(end), "state": [],
        }))
    }

    pub(super) fn event(&self, ask: &Ask, room: &str, id: &str) -> Answer {
        match self.visible(ask, room, id) {
            Some((room, at)) => Answer::ok(&room.events[at].shown(ask.shape())),
            None => Answer::not_found("Event not found."),
        }
    }

    fn visible<'a>(&'a self, ask: &Ask, room: &str, id: &str) -> Option<(&'a Room, usize)> {
        let room = self.rooms.get(room)?;
        let (from, until) = room.sees(&ask.user)?;
        let at = *room.index.get(id)?;
        let position = room.events.get(at)?.position;
        (from <= position && position <= until).then_some((room, at))
    }

    pub(super) fn receipt(&mut self, ask: &Ask, room: &str, kind: &str, event: &str) -> Answer {
        let thread = ask.json()["thread_id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.read(ask, room, kind, event, &thread)
    }

    pub(super) fn read_markers(&mut self, ask: &Ask, room: &str) -> Answer {
        let body = ask.json();
        for kind in ["m.read", "m.read.private"] {
            if let Some(event) = body[kind].as_str() {
                let answer = self.read(ask, room, kind, event, "");
                if answer.status != 200 {
                    return answer;
                }
            }
        }
        Answer::empty()
    }

    fn read(&mut self, ask: &Ask, room_id: &str, kind: &str, event: &str, thread: &str) -> Answer {
        let position = self.step();
        let Some(room) = self.rooms.get_mut(room_id) else {
            return Answer::not_found("Unknown room");
        };
        if !room.is_joined(&ask.user) || !room.index.contains_key(event) {
            return Answer::forbidden("User not in room");
        }
        let receipt = Receipt {
            position,
            event: event.to_owned(),
            at: now(),
        };
        let key = (ask.user.clone(), kind.to_owned(), thread.to_owned());
        room.receipts.insert(key, receipt);
        // A private one is told to nobody else.
        if kind == "m.read.private" {
            return Answer::empty();
        }
        let mut told = room.receipts_since(position - 1, "").unwrap_or_default();
        told["room_id"] = room_id.into();
        self.tell_room(room_id, told);
        Answer::empty()
    }

    pub(super) fn typing(&mut self, ask: &Ask, room_id: &str, user: &str) -> Answer {
        let position = self.step();
        let Some(room) = self.rooms.get_mut(room_id) else {
            return Answer::not_found("Unknown room");
        };
        if !room.is_joined(&ask.user) || ask.user != user {
            return Answer::forbidden("User not in room");
        }
        let changed = if ask.json()["typing"] == true {
            room.typing.1.insert(user.to_owned())
        } else {
            room.typing.1.remove(user)
        };
        if changed {
            room.typing.0 = position;
            let users: Vec<&String> = room.typing.1.iter().collect();
            let told =
                json!({"type": "m.typing", "content": {"user_ids": users}, "room_id": room_id});
            self.tell_room(room_id, told);
        }
        Answer::empty()
    }

    /// Something that is in no timeline changed in a room.
    fn tell_room(&mut self, room: &str, event: Value) {
        let Some(room) = self.rooms.get(room) else {
            return;
        };
        let joined: Vec<String> = room.with_membership("join").map(str::to_owned).collect();
        if joined.iter().any(|user| self.is_ours(user)) {
            self.queue.push_ephemeral(event);
        }
        for user in joined {
            self.ring(&user);
        }
    }
}
