//! A person's sync, and the reading of what it brings.

use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use anyhow::{Result, bail};
use ruma::{
    OneTimeKeyAlgorithm, OwnedRoomId, RoomId, UInt, UserId,
    api::client::sync::sync_events::DeviceLists, events::AnyToDeviceEvent, serde::Raw,
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::Person;
use crate::{
    Seen, Trust,
    person::{read_invite, read_raw},
};

/// More than is ever said between two syncs.
const FILTER: &str = r#"{"room":{"timeline":{"limit":100000}}}"#;

/// How far a person has synced.
#[derive(Default)]
pub(super) struct State {
    since: Option<String>,
    /// What could not be decrypted yet.
    closed: Vec<(OwnedRoomId, Box<RawValue>)>,
}

#[derive(Deserialize)]
struct Body {
    next_batch: String,
    to_device: Events<Raw<AnyToDeviceEvent>>,
    #[serde(default)]
    device_lists: Changed,
    #[serde(default)]
    device_one_time_keys_count: BTreeMap<OneTimeKeyAlgorithm, UInt>,
    #[serde(default)]
    device_unused_fallback_key_types: Vec<OneTimeKeyAlgorithm>,
    #[serde(default)]
    rooms: Rooms,
}

#[derive(Deserialize)]
struct Events<T> {
    #[serde(default = "Vec::new")]
    events: Vec<T>,
}

#[derive(Default, Deserialize)]
struct Changed {
    #[serde(default)]
    changed: Vec<ruma::OwnedUserId>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rooms {
    join: BTreeMap<OwnedRoomId, Joined>,
    invite: BTreeMap<OwnedRoomId, Invited>,
    leave: BTreeMap<OwnedRoomId, Joined>,
}

#[derive(Deserialize)]
struct Joined {
    timeline: Timeline,
    state: Events<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Timeline {
    events: Vec<Box<RawValue>>,
    #[serde(default)]
    limited: bool,
}

#[derive(Deserialize)]
struct Invited {
    invite_state: Events<Value>,
}

impl Person {
    /// Takes in what is new.
    pub async fn syncs(&self) -> Result<()> {
        let mut state = self.syncing.lock().await;
        let query = {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("filter", FILTER);
            query.extend_pairs(state.since.iter().map(|since| ("since", since)));
            query.finish()
        };
        let path = "/_matrix/client/v3/sync";
        let answer = self.client.ask("GET", path, &query, Vec::new()).await;
        if answer.status != 200 {
            bail!("a sync was refused: {}", answer.status);
        }
        let body: Body = serde_json::from_slice(&answer.body)?;
        self.takes_in(&body).await?;
        self.errands().await?;

        let mut events = Vec::new();
        let mut left = Vec::new();
        for (room, joined) in body.rooms.join.iter().chain(&body.rooms.leave) {
            if joined.timeline.limited {
                bail!("{} was away for too long: a gap in {room}", self.user_id);
            }
            for json in joined.state.events.iter().chain(&joined.timeline.events) {
                let seen = self.reads(room, json, false).await;
                if seen.as_ref().is_some_and(is_closed) {
                    state.closed.push((room.clone(), json.clone()));
                }
                events.extend(seen);
            }
        }
        left.extend(body.rooms.leave.into_keys());
        let me = self.user_id.as_str();
        let invites = body.rooms.invite.into_iter();
        let invites = invites
            .filter_map(|(room, invited)| read_invite(room, me, invited.invite_state.events));
        self.log
            .note_sync(events, invites.collect(), left, Vec::new());

        // The key may have come, or the sender's device.
        let mut closed = Vec::new();
        for (room, json) in std::mem::take(&mut state.closed) {
            match self.reads(&room, &json, true).await {
                Some(seen) if !is_closed(&seen) => self.log.note_change(seen),
                _ => closed.push((room, json)),
            }
        }
        state.closed = closed;
        state.since = Some(body.next_batch);
        Ok(())
    }

    async fn takes_in(&self, body: &Body) -> Result<()> {
        let mut lists = DeviceLists::new();
        lists.changed = body.device_lists.changed.clone();
        let receiving = self.client.receive(
            body.to_device.events.clone(),
            &lists,
            &body.device_one_time_keys_count,
            &body.device_unused_fallback_key_types,
        );
        receiving.await?;
        for (room, joined) in &body.rooms.join {
            let came = joined.state.events.iter().chain(&joined.timeline.events);
            let came: Vec<Seen> = came
                .filter_map(|json| {
                    read_raw(room, &Raw::<()>::from_json(json.clone()), Trust::Clear)
                })
                .collect();
            let members = came.iter().filter_map(Seen::membership);
            let members = members.filter(|(_, is)| matches!(*is, "join" | "invite"));
            let members = members.filter_map(|(user, _)| user.try_into().ok());
            // Who has spoken may have left since.
            let speakers = came.iter().filter(|seen| seen.state_key.is_none());
            let known: HashSet<&UserId> =
                members.chain(speakers.map(|seen| &*seen.sender)).collect();
            self.machine().update_tracked_users(known).await?;
        }
        Ok(())
    }

    /// An event as this client shows it: decrypted only when it is from a device that its owner has
    /// signed.
    async fn reads(&self, room: &RoomId, json: &RawValue, late: bool) -> Option<Seen> {
        let raw = Raw::<()>::from_json(json.to_owned());
        let clear = read_raw(room, &raw, Trust::Clear)?;
        if clear.event_type != "m.room.encrypted" || clear.content["algorithm"].is_null() {
            return Some(clear);
        }
        match self.client.decrypt(room, json).await {
            Ok(open) => {
                let trust = Trust::decrypted(&open.encryption_info, late);
                read_raw(room, &open.event, trust)
            }
            Err(error) => {
                let reason = error.to_string();
                let trust = Trust::Undecryptable { reason };
                Some(Seen {
                    trust,
                    at: Instant::now(),
                    ..clear
                })
            }
        }
    }
}

fn is_closed(seen: &Seen) -> bool {
    matches!(seen.trust, Trust::Undecryptable { .. })
}
