//! `GET /sync`

use serde_json::{Value, json};

use super::{
    event::Event,
    room::Room,
    route::{Answer, Ask},
    server::Server,
    timeline::token,
};

/// So many to-device messages come with one sync.
const TO_DEVICE: usize = 100;

/// The first part of a token: up to where rooms are known.
pub(super) fn room_part(token: &str) -> Option<u64> {
    token.strip_prefix('s')?.split('_').next()?.parse().ok()
}

fn to_device_part(token: &str) -> Option<u64> {
    token.split_once('_')?.1.parse().ok()
}

/// Whether a sync has anything new to tell.
pub(crate) fn brings_something(answer: &Answer) -> bool {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let some = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    some(&body["to_device"]["events"])
        || some(&body["device_lists"]["changed"])
        || body["rooms"].is_object()
}

/// What a filter asks for.
struct Filter {
    limit: usize,
    no_rooms: bool,
    left: bool,
    no_ephemeral: bool,
}

impl Filter {
    fn of(ask: &Ask) -> Self {
        let filter = ask.query.get("filter");
        let filter: Value = filter
            .and_then(|filter| serde_json::from_str(filter).ok())
            .unwrap_or_default();
        let room = &filter["room"];
        let limit = room["timeline"]["limit"].as_u64().unwrap_or(10);
        let empty = |list: &Value| list.as_array().is_some_and(Vec::is_empty);
        Self {
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            no_rooms: empty(&room["rooms"]),
            left: room["include_leave"] == true,
            no_ephemeral: empty(&room["ephemeral"]["types"]),
        }
    }
}

impl Server {
    /// Returns the token of a sync that brings everything but the to-device messages after
    /// `messages_up_to`.
    pub fn sync_token(&self, messages_up_to: u64) -> String {
        format!("s{}_{messages_up_to}", self.position)
    }

    pub(super) fn sync(&mut self, ask: &Ask) -> Answer {
        let service = self.service.as_ref();
        if service.is_some_and(|service| service.sender == ask.user) {
            // As Synapse: its sender has no row among the users.
            return Answer::refused(500, "M_UNKNOWN", "Internal server error");
        }
        let filter = Filter::of(ask);
        let since = ask.query.get("since").map(String::as_str);
        let (messages, up_to) = self.take_inbox(ask, since.and_then(to_device_part));
        let since = since.and_then(room_part);
        let mut body = json!({
            "next_batch": self.sync_token(up_to),
            "to_device": {"events": messages},
            "device_lists": self.device_lists(&ask.user, since),
        });
        let account = self.accounts.get(&ask.user);
        let device = ask.device.as_ref();
        let device = account
            .zip(device)
            .and_then(|(account, id)| account.devices.get(id));
        if let Some(device) = device {
            body["device_one_time_keys_count"] =
                json!({"signed_curve25519": device.keys.one_time_count()});
            body["device_unused_fallback_key_types"] = json!(device.keys.unused_fallback());
        }
        let rooms = account.into_iter().flat_map(|account| &account.rooms);
        for id in rooms.filter(|_| !filter.no_rooms) {
            if let Some(room) = self.rooms.get(id)
                && let Some((kind, part)) = room_in_sync(room, ask, since, &filter)
            {
                body["rooms"][kind][id] = part;
            }
        }
        Answer::ok(&body)
    }

    /// The messages after a position, and the position up to which they go. What was acknowledged
    /// is deleted.
    fn take_inbox(&mut self, ask: &Ask, since: Option<u64>) -> (Vec<Value>, u64) {
        let position = self.position;
        let account = self.accounts.get_mut(&ask.user);
        let device = account
            .zip(ask.device.as_ref())
            .and_then(|(account, id)| account.devices.get_mut(id));
        let Some(device) = device else {
            return (Vec::new(), position);
        };
        if let Some(since) = since {
            device.inbox.retain(|(at, _)| *at > since);
        }
        let some = device.inbox.iter().take(TO_DEVICE);
        let messages = some.map(|(_, message)| message.clone()).collect();
        // More wait: then the token goes only as far as the last of these.
        let last = device
            .inbox
            .get(TO_DEVICE)
            .and(device.inbox.get(TO_DEVICE - 1));
        (messages, last.map_or(position, |(at, _)| *at))
    }

    fn device_lists(&self, user: &str, since: Option<u64>) -> Value {
        // A client that begins knows nothing that could have changed.
        let Some(since) = since else {
            return json!({});
        };
        let mut changed = Vec::new();
        for other in self.sharing_with(user) {
            let account = self.accounts.get(&other);
            if account.is_some_and(|account| account.keys_changed > since) {
                changed.push(other);
            }
        }
        let mine = self.accounts.get(user).into_iter();
        for room in mine.flat_map(|account| &account.rooms) {
            let Some(room) = self.rooms.get(room).filter(|room| room.is_joined(user)) else {
                continue;
            };
            let me_new = joined_after(room, user, since);
            let others = room.with_membership("join");
            let new = others.filter(|other| me_new || joined_after(room, other, since));
            changed.extend(new.map(str::to_owned));
        }
        changed.sort();
        changed.dedup();
        json!({"changed": changed, "left": []})
    }
}

/// Whether somebody who is joined was not at this position.
fn joined_after(room: &Room, user: &str, since: u64) -> bool {
    let all = room.memberships.get(user).into_iter().flatten();
    let before = all.take_while(|(at, _)| *at <= since).last();
    before.is_none_or(|(_, is)| is != "join")
}

fn room_in_sync(
    room: &Room,
    ask: &Ask,
    since: Option<u64>,
    filter: &Filter,
) -> Option<(&'static str, Value)> {
    let all = room.memberships.get(&ask.user)?;
    let (changed, membership) = all.last()?;
    let from = since.unwrap_or(0);
    match membership.as_str() {
        "join" => Some(("join", joined(room, ask, since, filter)?)),
        "invite" if *changed > from => {
            let mine = room.state_event("m.room.member", &ask.user)?;
            let mut events = mine.invite_state.clone();
            events.push(mine.stripped());
            Some(("invite", json!({"invite_state": {"events": events}})))
        }
        // Who declined was never there, and is told all the same that it is over.
        "leave" | "ban" if *changed > from && (since.is_some() || filter.left) => {
            let (first, until) = room.sees(&ask.user).unwrap_or((*changed, *changed));
            let start = from.max(first.saturating_sub(1));
            let (events, limited) = timeline(room, ask, start, until, filter.limit);
            let shown: Vec<_> = events
                .iter()
                .map(|event| event.shown(ask.shape()))
                .collect();
            Some((
                "leave",
                json!({"timeline": {"events": shown, "limited": limited}, "state": {"events": []}}),
            ))
        }
        _ => None,
    }
}

/// The newest events in a span, in order, and whether there are more before them.
fn timeline<'a>(
    room: &'a Room,
    ask: &Ask,
    after: u64,
    until: u64,
    limit: usize,
) -> (Vec<&'a Event>, bool) {
    // People of other servers have synced what their own server has shown them.
    let is_shown = |event: &&Event| !ask.by_service || !room.backfilled.contains(&event.id);
    let newest = room.events.iter().rev();
    let newest = newest.skip_while(|event| event.position > until);
    let mut events: Vec<&Event> = newest
        .take_while(|event| event.position > after)
        .filter(is_shown)
        .take(limit.saturating_add(1))
        .collect();
    let limited = events.len() > limit;
    events.truncate(limit);
    events.reverse();
    (events, limited)
}

fn joined(room: &Room, ask: &Ask, since: Option<u64>, filter: &Filter) -> Option<Value> {
    let (visible, until) = room.sees(&ask.user)?;
    let from = since.unwrap_or(0);
    let new = since.is_none() || joined_after(room, &ask.user, from);
    // Who comes anew is shown what went before as well, as far as they may see it.
    let after = if new { 0 } else { from }.max(visible.saturating_sub(1));
    let (events, limited) = timeline(room, ask, after, until, filter.limit);
    let before = events
        .first()
        .map_or(room.events.last()?.position, |event| event.position - 1);
    let state: Vec<_> = room
        .current_state()
        .filter(|event| event.position <= before && (new || event.position > from))
        .map(|event| event.shown(ask.shape()))
        .collect();
    let mut ephemeral = Vec::new();
    if !filter.no_ephemeral {
        ephemeral.extend(room.receipts_since(from, &ask.user));
        if room.typing.0 > from {
            let users: Vec<&String> = room.typing.1.iter().collect();
            ephemeral.push(json!({"type": "m.typing", "content": {"user_ids": users}}));
        }
    }
    if events.is_empty() && state.is_empty() && ephemeral.is_empty() {
        return None;
    }
    let shown: Vec<_> = events
        .iter()
        .map(|event| event.shown(ask.shape()))
        .collect();
    Some(json!({
        "timeline": {"events": shown, "limited": limited, "prev_batch": token(before)},
        "state": {"events": state},
        "ephemeral": {"events": ephemeral},
    }))
}
