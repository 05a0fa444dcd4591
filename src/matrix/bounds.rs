//! The maximum size of each kind of item from outside, and what happens to larger ones.
//!
//! These bounds hold for transactions and for the answers to `/sync`, `/messages`, `/context` and
//! `/state`. A Matrix event has at most 65,536 bytes, but the stripped state that a remote server
//! adds to an invite and a federated to-device message have no limit of their own. An item that
//! exceeds its bound becomes a [`DeadLetter`]. It is counted, and is never an error that stops the
//! items behind it.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};
use serde_json::value::{RawValue, to_raw_value};

use super::json_stream::Head;

/// Maximum size of an event or a to-device message that is processed, in bytes of JSON. Twice what
/// the specification allows an event, since the homeserver adds fields of its own.
pub const ITEM_MAX: usize = 128 << 10;
/// Maximum size of an event before its stripped state is reduced, in bytes of JSON. More than the
/// largest stripped state that well-behaved servers send, which is some ten events.
pub const UNREDUCED_ITEM_MAX: usize = 4 << 20;
/// Maximum number of events of the stripped state of an invite.
pub const STRIPPED_STATE_MAX: usize = 50;
/// Maximum size of one event of the stripped state, in bytes of JSON.
pub const STRIPPED_EVENT_MAX: usize = 4 << 10;
/// Maximum length of an event's type in a dead letter, in characters.
const TYPE_CHARS_MAX: usize = 100;

/// The event types of a stripped state that are used.
const STRIPPED_TYPES: [&str; 6] = [
    "m.room.create",
    "m.room.encryption",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.member",
    "m.room.tombstone",
];

/// Why an item was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterReason {
    /// A room event over [`ITEM_MAX`].
    EventTooLarge,
    /// A room event without the fields that every event has, or nested too deeply.
    EventMalformed,
    /// A to-device message over [`ITEM_MAX`].
    ToDeviceTooLarge,
    /// A to-device message without a recipient.
    ToDeviceMalformed,
    /// A to-device message beyond what one transaction may bring. The homeserver keeps it for the
    /// ghost's next sync.
    ToDeviceOverflow,
    /// A receipt, typing or presence item over [`ITEM_MAX`].
    EphemeralTooLarge,
    /// A state event that is too large to be kept in a room's state.
    StateTooLarge,
    /// An invite that names no inviter, or two.
    InviteWithoutAsker,
    /// A gap in a room's history that the homeserver did not show.
    GapUnreadable,
    /// The older part of a gap in a room's history that was too large to be read.
    GapTooLarge,
    /// An event of a room whose part of a sync was too large. The room's history is read instead.
    SyncOverflow,
}

impl DeadLetterReason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::EventTooLarge,
        Self::EventMalformed,
        Self::ToDeviceTooLarge,
        Self::ToDeviceMalformed,
        Self::ToDeviceOverflow,
        Self::EphemeralTooLarge,
        Self::StateTooLarge,
        Self::InviteWithoutAsker,
        Self::GapUnreadable,
        Self::GapTooLarge,
        Self::SyncOverflow,
    ];

    /// Returns the name under which the reason is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::EventTooLarge => "event_too_large",
            Self::EventMalformed => "event_malformed",
            Self::ToDeviceTooLarge => "to_device_too_large",
            Self::ToDeviceMalformed => "to_device_malformed",
            Self::ToDeviceOverflow => "to_device_overflow",
            Self::EphemeralTooLarge => "ephemeral_too_large",
            Self::StateTooLarge => "state_too_large",
            Self::InviteWithoutAsker => "invite_without_asker",
            Self::GapUnreadable => "gap_unreadable",
            Self::GapTooLarge => "gap_too_large",
            Self::SyncOverflow => "sync_overflow",
        }
    }
}

impl fmt::Display for DeadLetterReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An item from the homeserver that was set aside, without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Why it was set aside.
    pub reason: DeadLetterReason,
    /// The room that it belongs to, if that could be read.
    pub room: Option<OwnedRoomId>,
    /// Our user that it was for: the recipient of a to-device message, or the invited user.
    pub user: Option<OwnedUserId>,
    /// The event type, cut.
    pub event_type: Option<String>,
    /// The size of the JSON, in bytes.
    pub size: u64,
}

impl DeadLetter {
    /// Returns the dead letter of an item over its limit.
    pub fn too_large(reason: DeadLetterReason, head: &Head) -> Self {
        let user = |name: &str| head.get(name).and_then(|id| UserId::parse(id).ok());
        // The state key of a membership event names its user.
        let member = head.get("type") == Some("m.room.member");
        let invited = member.then(|| user("state_key")).flatten();
        Self {
            reason,
            room: head.get("room_id").and_then(|id| RoomId::parse(id).ok()),
            user: user("to_user_id").or(invited),
            event_type: head.get("type").map(cut),
            size: head.size,
        }
    }

    /// Returns the dead letter of an item whose JSON is at hand, valid or not.
    pub fn of(reason: DeadLetterReason, json: &str) -> Self {
        let mut head = Head {
            size: json.len() as u64,
            ..Head::default()
        };
        // A parser fails at deep nesting, but the outermost members can still be read.
        let mut stream = super::json_stream::JsonStream::new(&WHOLE);
        stream.feed(json.as_bytes(), &mut |found| {
            if let super::json_stream::MatchValue::TooLarge(known) = found.value {
                head.members = known.members.clone();
            }
        });
        Self::too_large(reason, &head)
    }
}

/// Selects the document itself, with a limit that makes it a [`Head`].
static WHOLE: [super::json_stream::Selector; 1] = [super::json_stream::Selector {
    path: &[],
    limit: 0,
}];

/// Maximum number of objects and lists in what a person has encrypted. Galleries have the most of all
/// honest messages, some hundreds.
pub const PARTS_MAX: usize = 2000;

/// Returns the number of objects and lists in a valid JSON text. They decide how much memory it takes
/// once it is parsed: an empty object takes hundreds of bytes.
pub fn parts_of(json: &str) -> usize {
    let mut parts = 0;
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            // What people write may have any number of brackets.
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => parts += 1,
            _ => {}
        }
    }
    parts
}

fn cut(text: &str) -> String {
    text.chars().take(TYPE_CHARS_MAX).collect()
}

/// Returns an event of at most [`ITEM_MAX`] bytes: as it came, or with its stripped state reduced
/// to the events that are used. An event that stays too large is a dead letter.
pub fn bounded_event(json: &str) -> Result<Box<RawValue>, DeadLetter> {
    let malformed = || DeadLetter::of(DeadLetterReason::EventMalformed, json);
    if json.len() <= ITEM_MAX {
        return RawValue::from_string(json.to_owned()).map_err(|_| malformed());
    }
    let reduced = reduce_stripped_state(json).ok_or_else(malformed)?;
    if reduced.len() > ITEM_MAX {
        let mut letter = DeadLetter::of(DeadLetterReason::EventTooLarge, json);
        letter.size = json.len() as u64;
        return Err(letter);
    }
    RawValue::from_string(reduced).map_err(|_| malformed())
}

/// Returns an event with its stripped state reduced. Its other members are not parsed, since they
/// may be nested more deeply than a parser goes.
fn reduce_stripped_state(json: &str) -> Option<String> {
    type Fields = BTreeMap<String, Box<RawValue>>;
    let mut event: Fields = serde_json::from_str(json).ok()?;
    // Synapse sends the stripped state twice.
    event.remove("invite_room_state");
    event.remove("knock_room_state");
    let unsigned = event.get("unsigned");
    let unsigned = unsigned.and_then(|it| serde_json::from_str::<Fields>(it.get()).ok());
    if let Some(mut unsigned) = unsigned
        && let Some(state) = unsigned.remove("invite_room_state")
    {
        let state: StrippedState = serde_json::from_str(state.get()).unwrap_or_default();
        let state = to_raw_value(&state.0).ok()?;
        unsigned.insert("invite_room_state".to_owned(), state);
        event.insert("unsigned".to_owned(), to_raw_value(&unsigned).ok()?);
    }
    serde_json::to_string(&event).ok()
}

/// The part of an invite's stripped state that is used: at most [`STRIPPED_STATE_MAX`] events of
/// the used types, each of at most [`STRIPPED_EVENT_MAX`] bytes. The last one always stays: the
/// homeserver puts the invite itself there, after the events of the inviting server.
///
/// Entries that are not kept cost no memory while the list is read.
#[derive(Debug, Default)]
pub struct StrippedState(pub Vec<Box<RawValue>>);

impl StrippedState {
    fn add(&mut self, event: &RawValue) {
        if event.get().len() > STRIPPED_EVENT_MAX || !is_used_in_invite(event.get()) {
            return;
        }
        if self.0.len() == STRIPPED_STATE_MAX {
            self.0.pop();
        }
        self.0.push(event.to_owned());
    }
}

impl<'de> Deserialize<'de> for StrippedState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Events;

        impl<'de> Visitor<'de> for Events {
            type Value = StrippedState;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of events")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut events: A,
            ) -> Result<StrippedState, A::Error> {
                let mut kept = StrippedState::default();
                while let Some(event) = events.next_element::<&RawValue>()? {
                    kept.add(event);
                }
                Ok(kept)
            }
        }

        deserializer.deserialize_seq(Events)
    }
}

/// Returns whether an event of a stripped state is of a type that is used.
pub(super) fn is_used_in_invite(json: &str) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
    }
    let kind = serde_json::from_str::<Kind<'_>>(json);
    kind.is_ok_and(|it| STRIPPED_TYPES.contains(&&*it.kind))
}

#[cfg(test)]
#[path = "bounds_tests.rs"]
mod tests;
