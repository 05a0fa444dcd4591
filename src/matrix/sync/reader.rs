//! Reads the JSON of a sync, room by room.

use std::collections::BTreeMap;

use ruma::{OneTimeKeyAlgorithm, OwnedUserId, RoomId, UInt, UserId};
use serde_json::{json, value::RawValue};

use super::{JoinedRoom, PAGE_BYTES, SyncPage};
use crate::matrix::{
    MatrixError,
    bounds::{
        DeadLetter, DeadLetterReason, ITEM_MAX, STRIPPED_EVENT_MAX, STRIPPED_STATE_MAX,
        is_used_in_invite,
    },
    json_stream::{
        Head, JsonStream, Match, MatchValue,
        PathStep::{self, AnyKey, Each, Key},
        Selector,
    },
    transaction::{parse_algorithms, parse_key_counts},
};

/// Maximum size of one room's part of a sync, in bytes. Beyond it the room counts as limited, and its
/// history is read instead.
const ROOM_BYTES: usize = 4 << 20;
/// Maximum size of the to-device messages of a sync, in bytes: the 100 that Synapse sends at a time,
/// each of the maximum size.
const TO_DEVICE_BYTES: usize = 100 * ITEM_MAX;
/// Maximum number of users whose devices changed.
const CHANGED_MAX: usize = 20_000;
/// Maximum length of a token, in bytes of JSON.
const TOKEN_MAX: usize = 4 << 10;
/// What a room or an event costs in memory besides its text, in bytes.
const OVERHEAD: usize = 64;

/// What a selector of [`SELECTORS`] matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncItem {
    NextBatch,
    ToDevice,
    OtkCounts,
    FallbackTypes,
    Changed,
    Event(RoomSection),
    Limited(RoomSection),
    PrevBatch(RoomSection),
    Stripped,
}

/// The section of `rooms` that a room is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoomSection {
    Join,
    Leave,
    Invite,
}

const fn room(kind: &'static str, last: [PathStep; 2]) -> [PathStep; 5] {
    [Key("rooms"), Key(kind), AnyKey, last[0], last[1]]
}

const JOIN_LIMITED: [PathStep; 5] = room("join", [Key("timeline"), Key("limited")]);
const JOIN_PREV: [PathStep; 5] = room("join", [Key("timeline"), Key("prev_batch")]);
const LEAVE_LIMITED: [PathStep; 5] = room("leave", [Key("timeline"), Key("limited")]);
const LEAVE_PREV: [PathStep; 5] = room("leave", [Key("timeline"), Key("prev_batch")]);
const JOIN_EVENTS: [PathStep; 6] = events("join", "timeline");
const LEAVE_EVENTS: [PathStep; 6] = events("leave", "timeline");
const INVITE_EVENTS: [PathStep; 6] = events("invite", "invite_state");

const fn events(kind: &'static str, list: &'static str) -> [PathStep; 6] {
    [
        Key("rooms"),
        Key(kind),
        AnyKey,
        Key(list),
        Key("events"),
        Each,
    ]
}

static SELECTORS: [Selector; 12] = [
    select(&[Key("next_batch")], TOKEN_MAX),
    select(&[Key("to_device"), Key("events"), Each], ITEM_MAX),
    select(&[Key("device_one_time_keys_count")], TOKEN_MAX),
    select(&[Key("device_unused_fallback_key_types")], TOKEN_MAX),
    select(&[Key("device_lists"), Key("changed"), Each], TOKEN_MAX),
    select(&JOIN_EVENTS, ITEM_MAX),
    select(&LEAVE_EVENTS, ITEM_MAX),
    select(&JOIN_LIMITED, TOKEN_MAX),
    select(&LEAVE_LIMITED, TOKEN_MAX),
    select(&JOIN_PREV, TOKEN_MAX),
    select(&LEAVE_PREV, TOKEN_MAX),
    select(&INVITE_EVENTS, STRIPPED_EVENT_MAX),
];

const ITEMS: [SyncItem; SELECTORS.len()] = [
    SyncItem::NextBatch,
    SyncItem::ToDevice,
    SyncItem::OtkCounts,
    SyncItem::FallbackTypes,
    SyncItem::Changed,
    SyncItem::Event(RoomSection::Join),
    SyncItem::Event(RoomSection::Leave),
    SyncItem::Limited(RoomSection::Join),
    SyncItem::Limited(RoomSection::Leave),
    SyncItem::PrevBatch(RoomSection::Join),
    SyncItem::PrevBatch(RoomSection::Leave),
    SyncItem::Stripped,
];

const fn select(path: &'static [PathStep], limit: usize) -> Selector {
    Selector { path, limit }
}

/// The JSON of a sync that is being read.
#[derive(Debug)]
pub struct SyncReader {
    stream: JsonStream,
    partial: PartialSync,
}

#[derive(Debug)]
struct PartialSync {
    user: OwnedUserId,
    page: SyncPage,
    page_bytes: usize,
    /// The room whose part is being read.
    open_room: Option<OpenRoom>,
    to_device: Vec<Box<RawValue>>,
    to_device_count: usize,
    to_device_bytes: usize,
    otk_counts: BTreeMap<OneTimeKeyAlgorithm, UInt>,
    fallback_types: Option<Vec<OneTimeKeyAlgorithm>>,
    changed: Vec<OwnedUserId>,
    next_batch: Option<String>,
    dead_letters: Vec<DeadLetter>,
}

#[derive(Debug)]
struct OpenRoom {
    section: RoomSection,
    name: String,
    bytes: usize,
    room: JoinedRoom,
    invite_state: Vec<Box<RawValue>>,
    too_large: bool,
}

impl SyncReader {
    /// Returns a reader of a sync of `user`.
    pub fn new(user: &UserId) -> Self {
        Self {
            stream: JsonStream::new(&SELECTORS),
            partial: PartialSync {
                user: user.to_owned(),
                page: SyncPage::default(),
                page_bytes: 0,
                open_room: None,
                to_device: Vec::new(),
                to_device_count: 0,
                to_device_bytes: 0,
                otk_counts: BTreeMap::new(),
                fallback_types: None,
                changed: Vec::new(),
                next_batch: None,
                dead_letters: Vec::new(),
            },
        }
    }

    /// Reads the next bytes of the answer.
    pub fn feed(&mut self, bytes: &[u8]) {
        let partial = &mut self.partial;
        self.stream.feed(bytes, &mut |found| partial.add(found));
    }

    /// Returns a page of rooms, once enough have been read.
    pub fn take_page(&mut self) -> Option<SyncPage> {
        if self.partial.page_bytes < PAGE_BYTES {
            return None;
        }
        self.partial.page_bytes = 0;
        Some(std::mem::take(&mut self.partial.page))
    }

    /// Returns the items that were set aside since the last call.
    pub fn take_dead_letters(&mut self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.partial.dead_letters)
    }

    /// Ends the answer. Returns the last page, and the items that were set aside at its end.
    pub fn finish(mut self) -> Result<(SyncPage, Vec<DeadLetter>), MatrixError> {
        let partial = &mut self.partial;
        self.stream
            .finish(&mut |found| partial.add(found))
            .map_err(|error| MatrixError::Unexpected(error.to_string()))?;
        self.partial.close_room();
        let mut page = self.partial.page;
        page.to_device = self.partial.to_device;
        page.to_device_count = self.partial.to_device_count;
        page.otk_counts = self.partial.otk_counts;
        page.fallback_types = self.partial.fallback_types;
        page.device_lists_changed = self.partial.changed;
        page.device_lists_changed.sort();
        page.device_lists_changed.dedup();
        let token = self.partial.next_batch;
        let token = token.ok_or_else(|| MatrixError::Unexpected("no next_batch".to_owned()))?;
        page.next_batch = Some(token);
        Ok((page, self.partial.dead_letters))
    }
}

impl PartialSync {
    fn add(&mut self, found: Match<'_>) {
        let Some(item) = ITEMS.get(found.selector) else {
            return;
        };
        if *item == SyncItem::ToDevice {
            self.to_device_count += 1;
        }
        let json = match found.value {
            MatchValue::Whole(json) => json,
            MatchValue::TooLarge(head) => {
                if *item == SyncItem::Stripped
                    && let Some(room) = self.room(RoomSection::Invite, found.names)
                {
                    room.add_large_stripped(head);
                }
                let reason = match item {
                    SyncItem::Event(_) => DeadLetterReason::EventTooLarge,
                    SyncItem::ToDevice => DeadLetterReason::ToDeviceTooLarge,
                    _ => return,
                };
                let mut letter = DeadLetter::too_large(reason, head);
                letter.user = Some(self.user.clone());
                letter.room = found.names.first().and_then(|id| RoomId::parse(id).ok());
                self.dead_letters.push(letter);
                return;
            }
        };
        match *item {
            SyncItem::NextBatch => self.next_batch = serde_json::from_str(json).ok(),
            SyncItem::OtkCounts => self.otk_counts = parse_key_counts(json).unwrap_or_default(),
            SyncItem::FallbackTypes => self.fallback_types = parse_algorithms(json),
            SyncItem::Changed => self.add_changed_user(json),
            SyncItem::ToDevice => self.add_to_device(json),
            SyncItem::Event(kind) => {
                if let Some(room) = self.room(kind, found.names) {
                    room.add_event(json);
                }
            }
            SyncItem::Limited(kind) => {
                if let Some(room) = self.room(kind, found.names) {
                    room.room.limited |= json == "true";
                }
            }
            SyncItem::PrevBatch(kind) => {
                if let Some(room) = self.room(kind, found.names) {
                    room.room.prev_batch = serde_json::from_str(json).ok();
                }
            }
            SyncItem::Stripped => {
                if let Some(room) = self.room(RoomSection::Invite, found.names) {
                    room.add_stripped(json);
                }
            }
        }
    }

    fn add_changed_user(&mut self, json: &str) {
        let id = serde_json::from_str::<String>(json).ok();
        if let Some(user) = id.and_then(|id| UserId::parse(id).ok())
            && self.changed.len() < CHANGED_MAX
        {
            self.changed.push(user);
        }
    }

    fn add_to_device(&mut self, json: &str) {
        if self.to_device_bytes + json.len() > TO_DEVICE_BYTES {
            let mut letter = DeadLetter::of(DeadLetterReason::ToDeviceOverflow, json);
            letter.user = Some(self.user.clone());
            self.dead_letters.push(letter);
        } else if let Ok(message) = RawValue::from_string(json.to_owned()) {
            self.to_device_bytes += json.len();
            self.to_device.push(message);
        }
    }

    /// Returns the room that is being read; a room that was being read before is complete.
    fn room(&mut self, section: RoomSection, names: &[String]) -> Option<&mut OpenRoom> {
        let name = names.first()?;
        let same = |it: &OpenRoom| it.section == section && it.name == *name;
        if !self.open_room.as_ref().is_some_and(same) {
            self.close_room();
            self.open_room = Some(OpenRoom {
                section,
                name: name.clone(),
                bytes: OVERHEAD + name.len(),
                room: JoinedRoom::default(),
                invite_state: Vec::new(),
                too_large: false,
            });
        }
        self.open_room.as_mut()
    }

    fn close_room(&mut self) {
        let Some(mut current) = self.open_room.take() else {
            return;
        };
        let Ok(id) = RoomId::parse(&current.name) else {
            return;
        };
        self.page_bytes += current.bytes;
        if current.too_large {
            current.room = JoinedRoom {
                timeline: Vec::new(),
                limited: true,
                prev_batch: None,
            };
            self.dead_letters.push(DeadLetter {
                reason: DeadLetterReason::SyncOverflow,
                room: Some(id.clone()),
                user: Some(self.user.clone()),
                event_type: None,
                size: current.bytes as u64,
            });
        }
        match current.section {
            RoomSection::Join => _ = self.page.joined.insert(id, current.room),
            RoomSection::Leave => _ = self.page.left.insert(id, current.room),
            RoomSection::Invite => {
                self.page.invited.insert(id, current.invite_state);
            }
        }
    }
}

impl OpenRoom {
    fn add_event(&mut self, json: &str) {
        self.bytes += json.len() + OVERHEAD;
        if self.bytes > ROOM_BYTES {
            self.too_large = true;
            self.room.timeline = Vec::new();
        } else if let Ok(event) = RawValue::from_string(json.to_owned()) {
            self.room.timeline.push(event);
        }
    }

    /// Adds a membership event that is too large without its content. If the invite itself were left
    /// out, a forged event before it would be taken for the invite.
    fn add_large_stripped(&mut self, head: &Head) {
        if head.get("type") == Some("m.room.member") {
            let stub = json!({
                "type": "m.room.member",
                "state_key": head.get("state_key"),
                "sender": head.get("sender"),
                "content": { "membership": "invite" },
            });
            self.add_stripped(&stub.to_string());
        }
    }

    /// Adds an event if it is used. Above the maximum the event replaces the last one: the invite itself
    /// comes last, and each event is parsed only once.
    fn add_stripped(&mut self, json: &str) {
        if !is_used_in_invite(json) {
            return;
        }
        if let Ok(event) = RawValue::from_string(json.to_owned()) {
            if self.invite_state.len() == STRIPPED_STATE_MAX
                && let Some(last) = self.invite_state.pop()
            {
                self.bytes = self.bytes.saturating_sub(last.get().len());
            }
            self.bytes += json.len();
            self.invite_state.push(event);
        }
    }
}
