//! The client's background sync, and the reading of what it brings.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use matrix_sdk::{
    Client, Room,
    config::SyncSettings,
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    room::MessagesOptions,
    ruma::{
        OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt,
        api::client::filter::FilterDefinition, serde::Raw,
    },
    sync::{State, SyncResponse, Timeline},
};
use serde::Deserialize;
use serde_json::Value;

use super::log::{Invite, Log, Seen, Sign, Trust};

/// More than any story writes between two syncs: no gap in a timeline.
const TIMELINE: u32 = 500;

/// How long to wait before the homeserver is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// How often it is asked for what a failed sync may have hidden.
const TRIES: u32 = 50;

pub async fn run(client: Client, log: Arc<Log>) {
    let mut filter = FilterDefinition::default();
    filter.room.timeline.limit = Some(UInt::from(TIMELINE));
    let settings = SyncSettings::new()
        .timeout(Duration::from_secs(30))
        .filter(filter.into());
    // The client notes the token of a response before it has told of everything in it. If it fails
    // in between, its next sync does not bring that again.
    let mut has_failed = false;
    loop {
        match client.sync_once(settings.clone()).await {
            Ok(response) => {
                if std::mem::take(&mut has_failed) {
                    let missed = Box::pin(missed(&client, &log)).await;
                    log.note_missed(missed);
                }
                let signs = read_signs(&response);
                let (events, invites, left) = Box::pin(read(&client, response)).await;
                log.note_sync(events, invites, left, signs);
                Box::pin(look_again(&client, &log)).await;
            }
            Err(error) => {
                // The homeserver is away; stories stop and restart it.
                tracing::debug!(%error, "sync failed");
                log.note_failed_sync(format!("{error:?}"));
                has_failed = true;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn read_signs(response: &SyncResponse) -> Vec<Sign> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(rename = "type")]
        kind: String,
        content: Value,
    }
    let joined = response.rooms.joined.iter();
    let all = joined.flat_map(|(room, update)| update.ephemeral.iter().map(move |it| (room, it)));
    all.filter_map(|(room, raw)| {
        let Fields { kind, content } = serde_json::from_str(raw.json().get()).ok()?;
        let room = room.clone();
        Some(Sign {
            room,
            kind,
            content,
        })
    })
    .collect()
}

async fn read(
    client: &Client,
    response: SyncResponse,
) -> (Vec<Seen>, Vec<Invite>, Vec<OwnedRoomId>) {
    let mut events = Vec::new();
    for (room, update) in response.rooms.joined {
        let before = before(client, &room, &update.timeline).await;
        read_room(&room, &update.state, before, &update.timeline, &mut events);
    }
    let mut left = Vec::new();
    for (room, update) in response.rooms.left {
        read_room(
            &room,
            &update.state,
            Vec::new(),
            &update.timeline,
            &mut events,
        );
        left.push(room);
    }
    let me = client
        .user_id()
        .map(ToString::to_string)
        .unwrap_or_default();
    let invites = response
        .rooms
        .invited
        .into_iter()
        .filter_map(|(room, update)| {
            let state = update.invite_state.events.iter();
            let state = state
                .filter_map(|e| serde_json::from_str(e.json().get()).ok())
                .collect();
            read_invite(room, &me, state)
        })
        .collect();
    (events, invites, left)
}

/// What happened before a timeline that does not reach back to the last sync, as a client loads it
/// when the room is opened. After a join over federation that is everything since the invite.
async fn before(client: &Client, room: &RoomId, timeline: &Timeline) -> Vec<TimelineEvent> {
    let (true, Some(from)) = (timeline.limited, &timeline.prev_batch) else {
        return Vec::new();
    };
    let Some(room) = client.get_room(room) else {
        return Vec::new();
    };
    let mut options = MessagesOptions::backward().from(from.as_str());
    options.limit = UInt::from(TIMELINE);
    match room.messages(options).await {
        Ok(mut messages) => {
            messages.chunk.reverse();
            messages.chunk
        }
        Err(error) => {
            tracing::debug!(%error, "no earlier messages");
            Vec::new()
        }
    }
}

/// The newest events of a room, the newest first. What the homeserver does not answer is asked again: it
/// may be away once more.
async fn newest_messages(room: &Room) -> Vec<TimelineEvent> {
    for _ in 0..TRIES {
        let mut options = MessagesOptions::backward();
        options.limit = UInt::from(TIMELINE);
        match room.messages(options).await {
            Ok(messages) => return messages.chunk,
            Err(error) => tracing::debug!(%error, "no messages"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Vec::new()
}

/// What has happened in each room since the newest event that the client has shown of it, as it loads
/// that when the room is opened.
async fn missed(client: &Client, log: &Log) -> Vec<Seen> {
    let mut all = Vec::new();
    for room in client.joined_rooms() {
        let newest_first = newest_messages(&room).await;
        let newest_first = newest_first.iter();
        let newest_first: Vec<Seen> = newest_first
            .filter_map(|event| read_event(room.room_id(), event, false))
            .collect();
        let known = newest_first.iter().position(|seen| log.has(&seen.event_id));
        // Of a room of which nothing was shown, the sync itself brings what may be.
        let missed = newest_first.into_iter().take(known.unwrap_or_default());
        let mut missed: Vec<Seen> = missed.collect();
        missed.reverse();
        all.extend(missed);
    }
    all
}

fn read_room(
    room: &RoomId,
    state: &State,
    before: Vec<TimelineEvent>,
    timeline: &Timeline,
    events: &mut Vec<Seen>,
) {
    let said = before.iter().chain(&timeline.events);
    let said = said.filter_map(|event| read_event(room, event, false));
    let clear = |event| read_raw(room, event, Trust::Clear);
    match state {
        State::Before(state) => events.extend(state.iter().filter_map(clear).chain(said)),
        // What the timeline has as well is known by then.
        State::After(state) => events.extend(said.chain(state.iter().filter_map(clear))),
    }
}

fn read_event(room: &RoomId, event: &TimelineEvent, late: bool) -> Option<Seen> {
    match &event.kind {
        TimelineEventKind::Decrypted(decrypted) => {
            let trust = Trust::decrypted(&decrypted.encryption_info, late);
            read_raw(room, &decrypted.event, trust)
        }
        TimelineEventKind::UnableToDecrypt { event, utd_info } => read_raw(
            room,
            event,
            Trust::Undecryptable {
                reason: format!("{:?}", utd_info.reason),
            },
        ),
        TimelineEventKind::PlainText { event } => read_raw(room, event, Trust::Clear),
    }
}

pub(crate) fn read_raw<T>(room: &RoomId, event: &Raw<T>, trust: Trust) -> Option<Seen> {
    #[derive(Deserialize)]
    struct Fields {
        event_id: OwnedEventId,
        sender: OwnedUserId,
        #[serde(rename = "type")]
        event_type: String,
        state_key: Option<String>,
        #[serde(default)]
        origin_server_ts: u64,
        #[serde(default)]
        content: Value,
    }
    let fields: Fields = serde_json::from_str(event.json().get()).ok()?;
    Some(Seen {
        room: room.to_owned(),
        event_id: fields.event_id,
        sender: fields.sender,
        event_type: fields.event_type,
        state_key: fields.state_key,
        content: fields.content,
        trust,
        sent: fields.origin_server_ts,
        at: Instant::now(),
    })
}

pub(crate) fn read_invite(room: OwnedRoomId, me: &str, state: Vec<Value>) -> Option<Invite> {
    let member = |who: &str| {
        state
            .iter()
            .find(|e| e["type"] == "m.room.member" && e["state_key"] == who)
            .cloned()
    };
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let of_type = |kind: &str| state.iter().find(|e| e["type"] == kind);
    let mine = member(me)?;
    let sender = mine["sender"].as_str()?;
    Some(Invite {
        sender: OwnedUserId::try_from(sender).ok()?,
        sender_name: member(sender).and_then(|e| text(&e["content"]["displayname"])),
        is_direct: mine["content"]["is_direct"] == true,
        reason: text(&mine["content"]["reason"]),
        room_name: of_type("m.room.name").and_then(|e| text(&e["content"]["name"])),
        encrypted: of_type("m.room.encryption").is_some(),
        room,
        state,
        at: Instant::now(),
    })
}

/// Looks again at what showed a warning: the key or the device's signature may have come since.
/// Clients do the same, and change what they show.
async fn look_again(client: &Client, log: &Log) {
    for shown in log.shields() {
        let Some(room) = client.get_room(&shown.room) else {
            continue;
        };
        match &shown.trust {
            Trust::Undecryptable { .. } => {
                let event = serde_json::json!({
                    "type": "m.room.encrypted",
                    "event_id": shown.event_id,
                    "sender": shown.sender,
                    "origin_server_ts": shown.sent,
                    "content": shown.content,
                });
                let Ok(raw) = serde_json::value::to_raw_value(&event) else {
                    continue;
                };
                let Ok(opened) = room.decrypt_event(&Raw::from_json(raw), None).await else {
                    continue;
                };
                if let Some(seen) = read_event(&shown.room, &opened, true)
                    && !matches!(seen.trust, Trust::Undecryptable { .. })
                {
                    log.note_change(seen);
                }
            }
            Trust::Decrypted {
                session: Some(session),
                late,
                ..
            } => {
                let info = room.get_encryption_info(session, &shown.sender).await;
                if let Some(info) = info {
                    let trust = Trust::decrypted(&info, *late);
                    log.note_change(Seen { trust, ..shown });
                }
            }
            _ => {}
        }
    }
}
