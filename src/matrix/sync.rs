//! A ghost's own `/sync`: the truth where transactions are only a hint.
//!
//! An answer can be as large as strangers make it, so it is read as it arrives and handed on in
//! pages of whole rooms. What exceeds a bound is set aside (see [`super::bounds`]), and the page goes
//! on: nothing that strangers put into rooms and messages makes a sync unreadable.

use std::{collections::BTreeMap, time::Duration};

use ruma::{OneTimeKeyAlgorithm, OwnedRoomId, OwnedUserId, RoomId, UInt, UserId};
use serde_json::{json, value::RawValue};

use super::{
    Actor, Homeserver, MatrixError,
    bounds::{
        DeadLetter, DeadLetterReason, ITEM_MAX, STRIPPED_EVENT_MAX, STRIPPED_STATE_MAX,
        is_used_in_invite,
    },
    homeserver::AnswerStream,
    json_stream::{
        Head, JsonStream, Match, MatchValue, Selector,
        Step::{self, AnyKey, Each, Key},
    },
    transaction::{algorithms, counts},
};

/// How many bytes of rooms are read before a page is handed on.
const PAGE_BYTES: usize = 2 << 20;
/// Maximum size of one room's part of a sync, in bytes. Beyond it the room counts as limited, and its
/// history is read instead.
const ROOM_BYTES: usize = 4 << 20;
/// Maximum size of the to-device messages of a sync, in bytes: the 100 that Synapse sends at a time,
/// each as large as may be.
const TO_DEVICE_BYTES: usize = 100 * ITEM_MAX;
/// Maximum number of users whose devices changed that are told apart.
const CHANGED_MAX: usize = 20_000;
/// Maximum size of a sync that is read as a whole, in bytes.
const WHOLE_MAX: usize = 32 << 20;
/// Maximum length of a token, in bytes of JSON.
const TOKEN_MAX: usize = 4 << 10;
/// What a room or an event costs in memory besides its text, in bytes.
const OVERHEAD: usize = 64;

/// What a `/sync` returned, or some of its rooms.
#[derive(Debug, Default)]
pub struct SyncPage {
    /// To-device messages, 100 at most; more may be waiting. All of them come with the last page.
    pub to_device: Vec<Box<RawValue>>,
    /// How many to-device messages there were, those that were set aside among them.
    pub to_device_count: usize,
    /// How many one-time keys the homeserver holds for this device, with an explicit 0 for none.
    pub otk_counts: BTreeMap<OneTimeKeyAlgorithm, UInt>,
    /// For which algorithms a fallback key is held that nobody has used.
    pub fallback_types: Option<Vec<OneTimeKeyAlgorithm>>,
    /// Users whose devices changed.
    pub device_lists_changed: Vec<OwnedUserId>,
    /// Rooms the user is joined to and in which something happened.
    pub joined: BTreeMap<OwnedRoomId, JoinedRoom>,
    /// Rooms the user is invited to, with the state shown to invited people. The homeserver puts the
    /// invite itself last.
    pub invited: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>,
    /// Rooms the user has left, with what happened before.
    pub left: BTreeMap<OwnedRoomId, JoinedRoom>,
    /// The token for the next sync; on the last page only. Asking with it deletes what came up to
    /// here from the homeserver's inbox of this device, so it is stored after, or together with, what
    /// came.
    pub next_batch: Option<String>,
}

/// A room's part of a sync.
#[derive(Debug, Default)]
pub struct JoinedRoom {
    /// The newest events, in order.
    pub timeline: Vec<Box<RawValue>>,
    /// Whether there are more between the last sync and [`JoinedRoom::prev_batch`].
    pub limited: bool,
    /// The token from which `/messages` reads back into the gap; where there is none, it reads back
    /// from the room's newest event.
    pub prev_batch: Option<String>,
}

/// What a selector of [`SELECTORS`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    NextBatch,
    ToDevice,
    OtkCounts,
    FallbackTypes,
    Changed,
    Event(Kind),
    Limited(Kind),
    PrevBatch(Kind),
    Stripped,
}

/// Under which heading a room stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Join,
    Leave,
    Invite,
}

const fn room(kind: &'static str, last: [Step; 2]) -> [Step; 5] {
    [Key("rooms"), Key(kind), AnyKey, last[0], last[1]]
}

const JOIN_LIMITED: [Step; 5] = room("join", [Key("timeline"), Key("limited")]);
const JOIN_PREV: [Step; 5] = room("join", [Key("timeline"), Key("prev_batch")]);
const LEAVE_LIMITED: [Step; 5] = room("leave", [Key("timeline"), Key("limited")]);
const LEAVE_PREV: [Step; 5] = room("leave", [Key("timeline"), Key("prev_batch")]);
const JOIN_EVENTS: [Step; 6] = events("join", "timeline");
const LEAVE_EVENTS: [Step; 6] = events("leave", "timeline");
const INVITE_EVENTS: [Step; 6] = events("invite", "invite_state");

const fn events(kind: &'static str, list: &'static str) -> [Step; 6] {
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

const SECTIONS: [Section; SELECTORS.len()] = [
    Section::NextBatch,
    Section::ToDevice,
    Section::OtkCounts,
    Section::FallbackTypes,
    Section::Changed,
    Section::Event(Kind::Join),
    Section::Event(Kind::Leave),
    Section::Limited(Kind::Join),
    Section::Limited(Kind::Leave),
    Section::PrevBatch(Kind::Join),
    Section::PrevBatch(Kind::Leave),
    Section::Stripped,
];

const fn select(path: &'static [Step], limit: usize) -> Selector {
    Selector { path, limit }
}

impl Homeserver {
    /// Syncs one of our users on its device. `filter` is the JSON of a filter; `timeout` how long
    /// the homeserver may wait for something to happen.
    ///
    /// Implements `GET /_matrix/client/v3/sync` of the
    /// [client-server API](https://spec.matrix.org/v1.19/client-server-api/#syncing).
    pub async fn sync(
        &self,
        who: Actor<'_>,
        since: Option<&str>,
        filter: Option<&str>,
        timeout: Duration,
    ) -> Result<SyncReading, MatrixError> {
        let waiting = timeout.as_millis().to_string();
        let mut query = vec![("timeout", waiting.as_str()), ("set_presence", "offline")];
        query.extend(since.map(|since| ("since", since)));
        query.extend(filter.map(|filter| ("filter", filter)));
        let path = ["_matrix", "client", "v3", "sync"];
        let answer = self.stream(who, &path, &query, timeout).await?;
        Ok(SyncReading {
            homeserver: self.clone(),
            reader: Some(SyncReader::new(who.user)),
            answer,
        })
    }
}

/// An answer to a sync that is being read.
#[derive(Debug)]
pub struct SyncReading {
    homeserver: Homeserver,
    answer: AnswerStream,
    reader: Option<SyncReader>,
}

impl SyncReading {
    /// Returns the next page; `None` after the last one, which has the token for the next sync.
    pub async fn next_page(&mut self) -> Result<Option<SyncPage>, MatrixError> {
        loop {
            let Some(reader) = &mut self.reader else {
                return Ok(None);
            };
            if let Some(page) = reader.take_page() {
                return Ok(Some(page));
            }
            let Some(chunk) = self.answer.chunk().await? else {
                break;
            };
            reader.feed(&chunk);
            for letter in reader.take_dead_letters() {
                self.homeserver.set_aside(letter);
            }
        }
        let Some(reader) = self.reader.take() else {
            return Ok(None);
        };
        let (page, letters) = reader.finish()?;
        for letter in letters {
            self.homeserver.set_aside(letter);
        }
        Ok(Some(page))
    }

    /// Returns all of it as one page.
    ///
    /// # Errors
    ///
    /// [`MatrixError::TooLong`] over 32 MiB.
    pub async fn whole(mut self) -> Result<SyncPage, MatrixError> {
        let mut whole = SyncPage::default();
        let mut size = 0;
        while let Some(page) = self.next_page().await? {
            size += PAGE_BYTES;
            if size > WHOLE_MAX {
                return Err(MatrixError::TooLong { limit: WHOLE_MAX });
            }
            whole.joined.extend(page.joined);
            whole.invited.extend(page.invited);
            whole.left.extend(page.left);
            if page.next_batch.is_some() {
                whole = SyncPage {
                    joined: whole.joined,
                    invited: whole.invited,
                    left: whole.left,
                    ..page
                };
            }
        }
        Ok(whole)
    }
}

/// The JSON of a sync that is being read.
#[derive(Debug)]
pub struct SyncReader {
    stream: JsonStream,
    taken: Taken,
}

#[derive(Debug)]
struct Taken {
    user: OwnedUserId,
    page: SyncPage,
    page_bytes: usize,
    /// The room whose part is being read.
    current: Option<Current>,
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
struct Current {
    kind: Kind,
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
            taken: Taken {
                user: user.to_owned(),
                page: SyncPage::default(),
                page_bytes: 0,
                current: None,
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
        let taken = &mut self.taken;
        self.stream.feed(bytes, &mut |found| taken.take(found));
    }

    /// Returns the rooms that have been read once they are enough for a page.
    pub fn take_page(&mut self) -> Option<SyncPage> {
        if self.taken.page_bytes < PAGE_BYTES {
            return None;
        }
        self.taken.page_bytes = 0;
        Some(std::mem::take(&mut self.taken.page))
    }

    /// Returns what was set aside since this was asked last.
    pub fn take_dead_letters(&mut self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.taken.dead_letters)
    }

    /// Ends the answer and returns the last page, and what was set aside at its end.
    pub fn finish(mut self) -> Result<(SyncPage, Vec<DeadLetter>), MatrixError> {
        let taken = &mut self.taken;
        self.stream
            .finish(&mut |found| taken.take(found))
            .map_err(|error| MatrixError::Unexpected(error.to_string()))?;
        self.taken.room_ends();
        let mut page = self.taken.page;
        page.to_device = self.taken.to_device;
        page.to_device_count = self.taken.to_device_count;
        page.otk_counts = self.taken.otk_counts;
        page.fallback_types = self.taken.fallback_types;
        page.device_lists_changed = self.taken.changed;
        page.device_lists_changed.sort();
        page.device_lists_changed.dedup();
        let token = self.taken.next_batch;
        let token = token.ok_or_else(|| MatrixError::Unexpected("no next_batch".to_owned()))?;
        page.next_batch = Some(token);
        Ok((page, self.taken.dead_letters))
    }
}

impl Taken {
    fn take(&mut self, found: Match<'_>) {
        let Some(section) = SECTIONS.get(found.selector) else {
            return;
        };
        if *section == Section::ToDevice {
            self.to_device_count += 1;
        }
        let json = match found.value {
            MatchValue::Whole(json) => json,
            MatchValue::TooLarge(head) => {
                if *section == Section::Stripped
                    && let Some(room) = self.room(Kind::Invite, found.names)
                {
                    room.large_stripped(head);
                }
                let reason = match section {
                    Section::Event(_) => DeadLetterReason::EventTooLarge,
                    Section::ToDevice => DeadLetterReason::ToDeviceTooLarge,
                    _ => return,
                };
                let mut letter = DeadLetter::too_large(reason, head);
                letter.user = Some(self.user.clone());
                letter.room = found.names.first().and_then(|id| RoomId::parse(id).ok());
                self.dead_letters.push(letter);
                return;
            }
        };
        match *section {
            Section::NextBatch => self.next_batch = serde_json::from_str(json).ok(),
            Section::OtkCounts => self.otk_counts = counts(json).unwrap_or_default(),
            Section::FallbackTypes => self.fallback_types = algorithms(json),
            Section::Changed => self.changed(json),
            Section::ToDevice => self.device_message(json),
            Section::Event(kind) => {
                if let Some(room) = self.room(kind, found.names) {
                    room.event(json);
                }
            }
            Section::Limited(kind) => {
                if let Some(room) = self.room(kind, found.names) {
                    room.room.limited |= json == "true";
                }
            }
            Section::PrevBatch(kind) => {
                if let Some(room) = self.room(kind, found.names) {
                    room.room.prev_batch = serde_json::from_str(json).ok();
                }
            }
            Section::Stripped => {
                if let Some(room) = self.room(Kind::Invite, found.names) {
                    room.stripped(json);
                }
            }
        }
    }

    fn changed(&mut self, json: &str) {
        let id = serde_json::from_str::<String>(json).ok();
        if let Some(user) = id.and_then(|id| UserId::parse(id).ok())
            && self.changed.len() < CHANGED_MAX
        {
            self.changed.push(user);
        }
    }

    fn device_message(&mut self, json: &str) {
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
    fn room(&mut self, kind: Kind, names: &[String]) -> Option<&mut Current> {
        let name = names.first()?;
        let same = |it: &Current| it.kind == kind && it.name == *name;
        if !self.current.as_ref().is_some_and(same) {
            self.room_ends();
            self.current = Some(Current {
                kind,
                name: name.clone(),
                bytes: OVERHEAD + name.len(),
                room: JoinedRoom::default(),
                invite_state: Vec::new(),
                too_large: false,
            });
        }
        self.current.as_mut()
    }

    fn room_ends(&mut self) {
        let Some(mut current) = self.current.take() else {
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
        match current.kind {
            Kind::Join => _ = self.page.joined.insert(id, current.room),
            Kind::Leave => _ = self.page.left.insert(id, current.room),
            Kind::Invite => {
                self.page.invited.insert(id, current.invite_state);
            }
        }
    }
}

impl Current {
    fn event(&mut self, json: &str) {
        self.bytes += json.len() + OVERHEAD;
        if self.bytes > ROOM_BYTES {
            self.too_large = true;
            self.room.timeline = Vec::new();
        } else if let Ok(event) = RawValue::from_string(json.to_owned()) {
            self.room.timeline.push(event);
        }
    }

    /// Keeps who sent a membership event that is too large: were the invite itself left out, a forged
    /// one before it would be taken for it.
    fn large_stripped(&mut self, head: &Head) {
        if head.get("type") == Some("m.room.member") {
            let stub = json!({
                "type": "m.room.member",
                "state_key": head.get("state_key"),
                "sender": head.get("sender"),
                "content": { "membership": "invite" },
            });
            self.stripped(&stub.to_string());
        }
    }

    /// Keeps an event if it is used. With as many as may be, the last one makes room: the invite
    /// comes last, and each event is looked at once, however many there are.
    fn stripped(&mut self, json: &str) {
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

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
