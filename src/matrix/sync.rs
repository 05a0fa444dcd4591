//! A ghost's own `/sync`: the truth where transactions are only a hint.
//!
//! Our own lenient types, for the same reason as in [`super::transaction`]: what strangers put into
//! rooms and messages must not be able to make a sync unreadable.

use std::{collections::BTreeMap, time::Duration};

use ruma::{OneTimeKeyAlgorithm, OwnedRoomId, OwnedUserId, RoomId, UInt};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Actor, Homeserver, MatrixError,
    transaction::{algorithms, counts, user_ids},
};

/// What one `/sync` returned.
#[derive(Debug, Default)]
pub struct SyncPage {
    /// The token for the next one. Asking with it deletes what came up to here from the
    /// homeserver's inbox of this device, so it is stored together with what came.
    pub next_batch: String,
    /// To-device messages, 100 at most; more may be waiting.
    pub to_device: Vec<Box<RawValue>>,
    /// How many one-time keys the homeserver holds for this device, with an explicit 0 for none.
    pub otk_counts: BTreeMap<OneTimeKeyAlgorithm, UInt>,
    /// For which algorithms a fallback key is held that nobody has used.
    pub fallback_types: Option<Vec<OneTimeKeyAlgorithm>>,
    /// Users whose devices changed.
    pub device_lists_changed: Vec<OwnedUserId>,
    /// Users with whom no encrypted room is shared any more.
    pub device_lists_left: Vec<OwnedUserId>,
    /// Rooms the user is joined to and in which something happened.
    pub joined: BTreeMap<OwnedRoomId, JoinedRoom>,
    /// Rooms the user is invited to, with the state shown to invited people.
    pub invited: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>,
    /// Rooms the user has left, with what happened before.
    pub left: BTreeMap<OwnedRoomId, JoinedRoom>,
}

/// A room's part of a sync.
#[derive(Debug, Default)]
pub struct JoinedRoom {
    /// The newest events, in order.
    pub timeline: Vec<Box<RawValue>>,
    /// Whether there are more between the last sync and [`JoinedRoom::prev_batch`].
    pub limited: bool,
    /// The token from which `/messages` reads back into the gap.
    pub prev_batch: Option<String>,
    /// State changes before the timeline.
    pub state: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Body {
    next_batch: String,
    #[serde(default)]
    to_device: Option<Box<RawValue>>,
    #[serde(default)]
    rooms: Option<Box<RawValue>>,
    #[serde(default)]
    device_lists: Option<Box<RawValue>>,
    #[serde(default)]
    device_one_time_keys_count: Option<Box<RawValue>>,
    #[serde(default)]
    device_unused_fallback_key_types: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct Rooms {
    #[serde(default)]
    join: BTreeMap<String, Box<RawValue>>,
    #[serde(default)]
    invite: BTreeMap<String, Box<RawValue>>,
    #[serde(default)]
    leave: BTreeMap<String, Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct Events {
    #[serde(default)]
    events: Vec<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct Timeline {
    #[serde(default)]
    events: Vec<Box<RawValue>>,
    #[serde(default)]
    limited: bool,
    #[serde(default)]
    prev_batch: Option<String>,
}

#[derive(Default, Deserialize)]
struct Room {
    #[serde(default)]
    timeline: Timeline,
    #[serde(default)]
    state: Events,
    #[serde(default)]
    invite_state: Events,
}

#[derive(Default, Deserialize)]
struct DeviceLists {
    #[serde(default)]
    changed: Option<Box<RawValue>>,
    #[serde(default)]
    left: Option<Box<RawValue>>,
}

impl Homeserver {
    /// Syncs one of our users on its device. `filter` is the JSON of a filter; `timeout` how long
    /// the homeserver may wait for something to happen.
    pub async fn sync(
        &self,
        who: Actor<'_>,
        since: Option<&str>,
        filter: Option<&str>,
        timeout: Duration,
    ) -> Result<SyncPage, MatrixError> {
        let waiting = timeout.as_millis().to_string();
        let mut query = vec![("timeout", waiting.as_str()), ("set_presence", "offline")];
        query.extend(since.map(|since| ("since", since)));
        query.extend(filter.map(|filter| ("filter", filter)));
        let path = ["_matrix", "client", "v3", "sync"];
        let body: Body = self
            .get(who, &path, &query, timeout, self.options().max_sync_answer)
            .await?;
        Ok(body.into())
    }
}

impl From<Body> for SyncPage {
    fn from(body: Body) -> Self {
        let mut dropped = 0;
        let rooms: Rooms = lenient(body.rooms.as_deref());
        let lists: DeviceLists = lenient(body.device_lists.as_deref());
        SyncPage {
            next_batch: body.next_batch,
            to_device: lenient::<Events>(body.to_device.as_deref()).events,
            otk_counts: body
                .device_one_time_keys_count
                .and_then(|json| counts(&json))
                .unwrap_or_default(),
            fallback_types: body
                .device_unused_fallback_key_types
                .and_then(|json| algorithms(&json)),
            device_lists_changed: user_ids(lists.changed.as_deref(), &mut dropped),
            device_lists_left: user_ids(lists.left.as_deref(), &mut dropped),
            joined: by_room(rooms.join, JoinedRoom::from),
            invited: by_room(rooms.invite, |room| room.invite_state.events),
            left: by_room(rooms.leave, JoinedRoom::from),
        }
    }
}

impl From<Room> for JoinedRoom {
    fn from(room: Room) -> Self {
        JoinedRoom {
            timeline: room.timeline.events,
            limited: room.timeline.limited,
            prev_batch: room.timeline.prev_batch,
            state: room.state.events,
        }
    }
}

fn by_room<T>(
    rooms: BTreeMap<String, Box<RawValue>>,
    take: impl Fn(Room) -> T,
) -> BTreeMap<OwnedRoomId, T> {
    rooms
        .into_iter()
        .filter_map(|(id, json)| {
            Some((
                RoomId::parse(id).ok()?,
                take(serde_json::from_str(json.get()).ok()?),
            ))
        })
        .collect()
}

fn lenient<'a, T: Default + Deserialize<'a>>(json: Option<&'a RawValue>) -> T {
    json.and_then(|json| serde_json::from_str(json.get()).ok())
        .unwrap_or_default()
}
