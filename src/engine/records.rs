//! What the engine keeps. Values that hold anything from an event are sealed.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    conversation::{self, Conversation},
    engine::control_room::{Control, ControlEffect},
    ids::{ConversationId, Ghost, Person},
    introduction::{Effect, Introduction},
    matrix::bounds::DeadLetter,
    store::{BackupInfo, Batch, Store, StoreError, Table},
};

macro_rules! table {
    ($(#[$doc:meta])* $name:ident = $id:literal, $secret:literal, $key:ty => $value:ty) => {
        $(#[$doc])*
        pub(in crate::engine) struct $name;

        impl Table for $name {
            const ID: u8 = $id;
            const NAME: &'static str = stringify!($name);
            const SECRET: bool = $secret;
            type Key = $key;
            type Value = $value;
        }
    };
}

table! {
    /// What has arrived in a room and is not decided yet; deleted in the write that decides it.
    Inbox = 10, true, (OwnedRoomId, u64) => InboxItem
}
table! {
    /// Events that have arrived, so that none is taken twice; forgotten after a week.
    Seen = 11, false, OwnedEventId => SeenEvent
}
table! {
    /// [`Seen`] by age. What arrived together is one record, under the first: it lists the others.
    SeenByTime = 12, false, (Timestamp, OwnedEventId) => Option<Vec<OwnedEventId>>
}
table! {
    /// To-device messages that no machine has taken yet, by ghost and in order.
    ToDevice = 13, true, (OwnedUserId, u64) => ToDeviceItem
}
table! {
    /// Digests of to-device messages that have arrived; forgotten after a week.
    SeenToDevice = 14, false, [u8; 32] => Timestamp
}
table! {
    /// [`SeenToDevice`] by age.
    SeenToDeviceByTime = 15, false, (Timestamp, [u8; 32]) => ()
}
table! {
    /// What the engine knows of a room; deleted when nothing is left to do there, except that a
    /// ghost which has left must never come back.
    Rooms = 16, true, OwnedRoomId => RoomRecord
}
table! {
    /// Effects that are decided and not carried out yet, in order.
    Outbox = 17, true, (OwnedRoomId, u64) => OutboxItem
}
table! {
    /// Events, as ciphertext, that are to be passed on or wait for their key.
    RetainedEvents = 18, true, (OwnedRoomId, OwnedEventId) => String
}
table! {
    /// Which event passed on which; deleted when the ghost leaves.
    QuotedEvents = 19, false, (OwnedRoomId, OwnedEventId) => OwnedEventId
}
table! {
    /// How far a ghost has synced.
    SyncTokens = 20, false, OwnedUserId => String
}
table! {
    /// What was set aside because it was too large or could not be read: what it was and how large,
    /// never what it said. The newest thousand.
    DeadLetters = 28, true, u64 => DeadLetterRecord
}
table! {
    /// How many dead letters there have been, by the name of their reason. Stays.
    DeadLetterCounts = 29, false, String => u64
}
table! {
    /// In which rooms a ghost has something to do.
    ActiveRoomsByGhost = 22, false, (OwnedUserId, OwnedRoomId) => ()
}
table! {
    /// The control room of a person.
    ControlRooms = 23, false, Person => OwnedRoomId
}
table! {
    /// What the bot has to tell a person who has not come to a control room yet.
    Untold = 24, true, (Person, u64) => (String, String)
}

/// Something that happened in a room.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::engine) enum InboxItem {
    /// An event as the homeserver pushed it, JSON.
    Event(String),
    /// The same, the first of its room after something may have been lost: what lies before it is
    /// read first.
    AfterGap(String),
    /// An invite learned from a sync, which shows no event of it: the stripped state, JSON.
    Invite {
        /// Who is invited.
        user: OwnedUserId,
        /// The stripped state.
        state: Vec<String>,
    },
    /// The bot made this room, to tell somebody something.
    ControlRoomCreated {
        /// Whom.
        person: Person,
    },
    /// A room key came.
    RoomKeyArrived {
        /// Whose machine has it.
        user: OwnedUserId,
    },
    /// Somebody sent a strict ghost a key.
    KeyForStrict {
        /// The ghost.
        ghost: Ghost,
        /// Who sent it.
        sender: OwnedUserId,
    },
    /// The owner answered a request that waits here.
    Answered {
        /// The ghost that waits.
        ghost: Ghost,
        /// Whether they want to be introduced.
        accepted: bool,
    },
    /// The bot is to show a request here.
    ShowRequest {
        /// Whose it is to answer.
        owner: Person,
        /// Which.
        number: u32,
    },
    /// A portal was made here, and ghosts of a conversation come in.
    ConversationJoined {
        /// The conversation.
        conversation: ConversationId,
        /// The ghosts.
        ghosts: Vec<Ghost>,
    },
    /// A conversation may go on here soon: what is said meanwhile waits for that.
    UpgradePending {
        /// The conversation.
        conversation: ConversationId,
        /// The ghosts that are on their way in.
        ghosts: Vec<Ghost>,
    },
    /// A ghost was invited into the room that has replaced this one.
    UpgradeSeen {
        /// The room.
        to: OwnedRoomId,
        /// Who invited it.
        by: Person,
    },
    /// The bot is to say something here.
    Notify {
        /// In plain text.
        plain: String,
        /// In HTML.
        html: String,
        /// What it follows from: the same source is never told twice.
        source: String,
    },
}

/// A dead letter, and when it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct DeadLetterRecord {
    pub at: Timestamp,
    pub letter: DeadLetter,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::engine) struct SeenEvent {
    pub at: Timestamp,
    pub handled: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::engine) struct ToDeviceItem {
    pub user: OwnedUserId,
    pub json: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct RoomRecord {
    pub introductions: Vec<Introduction>,
    pub control: Option<Control>,
    /// The room is one of a conversation's.
    #[serde(default)]
    pub conversation: Option<ConversationRoom>,
}

/// Which conversation a room shows, and by which ghosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct ConversationRoom {
    pub conversation: ConversationId,
    /// The ghosts of this conversation that are in the room, or on their way in.
    pub ghosts: Vec<Ghost>,
    /// It is not decided yet whether the conversation goes on here.
    #[serde(default)]
    pub upgrade_pending: bool,
}

/// An effect that has to be carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::engine) struct OutboxItem {
    pub since: Timestamp,
    pub what: QueuedEffect,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::engine) enum QueuedEffect {
    Introduction {
        ghost: Ghost,
        effect: Effect,
    },
    Control(ControlEffect),
    Conversation {
        conversation: ConversationId,
        effect: conversation::Effect,
    },
}

/// How far a restore is. Stays when it is done, to tell a handle that changed since the backup from
/// one that somebody else has taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct RestoreRecord {
    /// When it began.
    pub begun_at: Timestamp,
    /// The backup, and when it was made.
    pub backup: Option<BackupInfo>,
    /// Whether it is done.
    pub done: bool,
    /// How many ghosts have new devices.
    pub new_devices: u32,
    /// Ghosts that changed since the backup, and what about them.
    pub changed: Vec<(Ghost, String)>,
}

impl QueuedEffect {
    pub(in crate::engine) fn kind(&self) -> &'static str {
        match self {
            Self::Introduction { effect, .. } => effect.kind(),
            Self::Control(effect) => effect.kind(),
            Self::Conversation { effect, .. } => effect.kind(),
        }
    }
}

/// Returns the first number of a new run. Numbers of a later run are higher than all of an earlier
/// one, so the queues keep their order over restarts without a write for each number.
pub(in crate::engine) fn first_sequence(store: &Store) -> Result<u64, StoreError> {
    let run = store.get::<Run>(&0)?.unwrap_or(0) + 1;
    let mut batch = Batch::new();
    batch.put::<Run>(&0, &run)?;
    store.apply(batch)?;
    Ok(run << 40)
}

table! {
    /// How far a restore from a backup is. One record; stays.
    RestoreProgress = 26, true, u8 => RestoreRecord
}
table! {
    /// Control rooms that the bot has to visit after a restore, and whose they are. Deleted when it
    /// has.
    RoomsToNotify = 27, false, OwnedRoomId => Person
}
table! {
    /// How often the service was started.
    Run = 25, false, u8 => u64
}

table! {
    /// Conversations of masked handles. Deleted when all their rooms are left.
    Conversations = 50, true, ConversationId => Conversation
}
table! {
    /// The conversation of two: by a person and the ghost that they see. Deleted with it.
    DirectConversations = 51, false, (Person, Ghost) => ConversationId
}
table! {
    /// By ghost: the conversations that it takes part in. Deleted with them.
    ConversationsByGhost = 52, false, (Ghost, ConversationId) => ()
}
table! {
    /// By room and event: of which event this is a copy. Ids only; deleted after the retention.
    EventSources = 53, false, (OwnedRoomId, OwnedEventId) => Source
}
table! {
    /// By room, event and another room: the copy of the event there. Deleted with it.
    EventCopies = 54, false, (OwnedRoomId, OwnedEventId, OwnedRoomId) => Copy
}
table! {
    /// [`EventCopies`] by age.
    EventCopiesByTime = 55, false, (Timestamp, OwnedRoomId, OwnedEventId, OwnedRoomId) => ()
}

/// What a copy is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct Source {
    pub room: OwnedRoomId,
    pub event: OwnedEventId,
}

/// The copy of an event in another room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct Copy {
    pub event: OwnedEventId,
    /// The place of its author among the people of the conversation.
    pub by: u32,
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
