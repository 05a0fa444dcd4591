//! A room: its events, its state, who is in it, and who may see and do what there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

use super::event::Event;

/// A room.
#[derive(Debug, Default)]
pub struct Room {
    /// `!…`
    pub id: String,
    /// `12`, …
    pub version: String,
    /// The creators, who always have power (room version 12).
    pub creators: BTreeSet<String>,
    /// All events, in order.
    pub events: Vec<Event>,
    /// Where an event is in `events`.
    pub index: HashMap<String, usize>,
    /// Events that were fetched only to show the history: no sync mentions them.
    pub backfilled: HashSet<String>,
    /// The present state.
    pub state: BTreeMap<(String, String), usize>,
    /// Every membership that somebody ever had here, with its position.
    pub memberships: BTreeMap<String, Vec<(u64, String)>>,
    /// Read receipts: by user, kind and thread, with the position of the last change.
    pub receipts: BTreeMap<(String, String, String), Receipt>,
    /// Who types, and the position of the last change.
    pub typing: (u64, BTreeSet<String>),
}

/// How far somebody has read.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// When that changed, in positions.
    pub position: u64,
    /// The event read last.
    pub event: String,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

/// The pieces of state that somebody invited is shown.
const SHOWN_TO_INVITED: [&str; 8] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.encryption",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.bridge",
];

impl Room {
    /// The present membership of somebody; `leave` of who was never there.
    pub fn membership(&self, user: &str) -> &str {
        let last = self.memberships.get(user).and_then(|all| all.last());
        last.map_or("leave", |(_, membership)| membership)
    }

    /// Whether somebody is joined.
    pub fn is_joined(&self, user: &str) -> bool {
        self.membership(user) == "join"
    }

    /// Everybody whose membership is this.
    pub fn with_membership<'a>(&'a self, which: &'a str) -> impl Iterator<Item = &'a str> {
        self.memberships
            .keys()
            .map(String::as_str)
            .filter(move |user| self.membership(user) == which)
    }

    /// A piece of state.
    pub fn state_event(&self, kind: &str, key: &str) -> Option<&Event> {
        let at = self.state.get(&(kind.to_owned(), key.to_owned()))?;
        self.events.get(*at)
    }

    /// The content of a piece of state; null when there is none.
    pub fn state_content(&self, kind: &str, key: &str) -> Value {
        self.state_event(kind, key)
            .map(Event::value)
            .unwrap_or_default()
    }

    /// The events of the present state, in the order in which they came.
    pub fn current_state(&self) -> impl Iterator<Item = &Event> {
        let order: BTreeSet<usize> = self.state.values().copied().collect();
        order.into_iter().filter_map(|at| self.events.get(at))
    }

    /// The power of somebody.
    pub fn power(&self, user: &str) -> i64 {
        if self.creators.contains(user) {
            return i64::MAX;
        }
        let levels = self.state_content("m.room.power_levels", "");
        let default = levels["users_default"].as_i64().unwrap_or(0);
        levels["users"][user].as_i64().unwrap_or(default)
    }

    /// The power that something needs: `invite`, `kick`, `ban`, `redact`.
    pub fn power_for(&self, act: &str) -> i64 {
        let levels = self.state_content("m.room.power_levels", "");
        let default = if act == "invite" { 0 } else { 50 };
        levels[act].as_i64().unwrap_or(default)
    }

    /// The power that an event needs.
    pub fn power_for_event(&self, kind: &str, is_state: bool) -> i64 {
        let levels = self.state_content("m.room.power_levels", "");
        let default = if is_state {
            levels["state_default"].as_i64().unwrap_or(50)
        } else {
            levels["events_default"].as_i64().unwrap_or(0)
        };
        levels["events"][kind].as_i64().unwrap_or(default)
    }

    /// Whether `who` may send such an event.
    pub fn may_send(&self, who: &str, kind: &str, is_state: bool) -> bool {
        self.is_joined(who) && self.power(who) >= self.power_for_event(kind, is_state)
    }

    /// Whether `who` may give `target` this membership.
    pub fn may_set_membership(&self, who: &str, target: &str, wanted: &str) -> bool {
        let (mine, theirs) = (self.membership(who), self.membership(target));
        let public = self.state_content("m.room.join_rules", "")["join_rule"] == "public";
        if who == target {
            return match wanted {
                "join" => matches!(mine, "join" | "invite") || (public && mine != "ban"),
                "leave" => matches!(mine, "join" | "invite") || self.memberships.contains_key(who),
                _ => false,
            };
        }
        let outranks = |act| {
            self.power(who) >= self.power_for(act)
                && self.power(who) > self.power(target)
                && !self.creators.contains(target)
        };
        mine == "join"
            && match wanted {
                "invite" => {
                    !matches!(theirs, "join" | "ban") && self.power(who) >= self.power_for("invite")
                }
                "leave" => outranks("kick"),
                "ban" => outranks("ban"),
                _ => false,
            }
    }

    /// From which position to which somebody may see events, by the history visibility.
    pub fn sees(&self, user: &str) -> Option<(u64, u64)> {
        let all = self.memberships.get(user)?;
        let visibility = self.state_content("m.room.history_visibility", "");
        let first = |wanted: &[&str]| {
            let found = all.iter().find(|(_, is)| wanted.contains(&is.as_str()));
            found.map(|(position, _)| *position)
        };
        let joined = first(&["join"]);
        let from = match visibility["history_visibility"].as_str() {
            Some("joined") => joined?,
            Some("invited") => first(&["invite", "join"])?,
            _ => joined.map(|_| 0)?,
        };
        let until = match all.last() {
            Some((position, is)) if is == "leave" || is == "ban" => *position,
            _ => u64::MAX,
        };
        joined.map(|_| (from, until))
    }

    /// The state that an invited person is shown, as it is now.
    pub fn invite_state(&self, inviter: &str) -> Vec<Value> {
        let shown = SHOWN_TO_INVITED
            .into_iter()
            .filter_map(|kind| self.state_event(kind, ""));
        let inviter = self.state_event("m.room.member", inviter);
        shown.chain(inviter).map(Event::stripped).collect()
    }

    /// The receipts that changed after a position, as one event; `None` if none did. Private
    /// receipts are shown to nobody but who made them.
    pub fn receipts_since(&self, position: u64, reader: &str) -> Option<Value> {
        let mut content = json!({});
        for ((user, kind, thread), receipt) in &self.receipts {
            if receipt.position > position && (kind != "m.read.private" || user == reader) {
                let mut is = json!({"ts": receipt.at});
                if !thread.is_empty() {
                    is["thread_id"] = thread.as_str().into();
                }
                content[&receipt.event][kind][user] = is;
            }
        }
        let any = content
            .as_object()
            .is_some_and(|content| !content.is_empty());
        any.then(|| json!({"type": "m.receipt", "content": content}))
    }
}
