//! The records that the engine keeps. Values that hold any part of an event are sealed.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{
    bot,
    clock::Timestamp,
    conversation::{self, Conversation},
    engine::{
        control_room::{Control, ControlEffect, ControlPhase},
        packs::{Copy, CopyPack, SeenEvent, SeenPack},
    },
    ids::{ConversationId, Ghost, Person},
    introduction::{Effect, Introduction, Phase},
    matrix::bounds::DeadLetter,
    store::{BackupInfo, Batch, Digest, Store, StoreError, Table},
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
    /// Items that have arrived in a room; deleted in the write that decides them.
    Inbox = 10, true, (OwnedRoomId, u64) => InboxItem
}
table! {
    /// What has arrived lately, by block, so that nothing is accepted twice: events and to-device
    /// messages. Moved to [`SeenPacks`] when the block is packed.
    Seen = 11, false, (u32, Digest) => SeenEvent
}
table! {
    /// When each block of [`Seen`] and [`SeenPacks`] was begun. Deleted with it, after one to two
    /// weeks.
    SeenBlocks = 12, false, u32 => Timestamp
}
table! {
    /// To-device messages that no machine has processed yet, by ghost and in order.
    ToDevice = 13, true, (OwnedUserId, u64) => ToDeviceItem
}
table! {
    /// What arrived in a block, in one record.
    SeenPacks = 14, false, u32 => SeenPack
}
table! {
    /// The record of a room; deleted when nothing is left to do there, unless a ghost has left it,
    /// which must never come back.
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
    /// The sync token of a ghost.
    SyncTokens = 20, false, OwnedUserId => String
}
table! {
    /// Work on ghosts that could not be done yet. Deleted when it is done.
    OwedGhosts = 21, true, Ghost => OwedGhost
}
table! {
    /// Items that were set aside because they were too large or could not be read: kind and size,
    /// never content. The newest thousand.
    DeadLetters = 28, true, u64 => DeadLetterRecord
}
table! {
    /// The number of dead letters by the name of their reason. Never deleted.
    DeadLetterCounts = 29, false, String => u64
}
table! {
    /// The rooms in which a ghost has something to do.
    ActiveRoomsByGhost = 22, false, (OwnedUserId, OwnedRoomId) => ()
}
table! {
    /// The control room of a person.
    ControlRooms = 23, false, Person => OwnedRoomId
}
table! {
    /// Notices for a person who has not joined a control room yet.
    PendingNotices = 24, true, (Person, u64) => (String, String)
}

/// Something that happened in a room.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::engine) enum InboxItem {
    /// An event as the homeserver pushed it, in JSON.
    Event(String),
    /// An event, in JSON, that is the first of its room after a possible gap, or late: the events
    /// before it are read first.
    AfterGap(String),
    /// An invite learned from a sync, which shows no event for it.
    Invite {
        /// The user who is invited.
        user: OwnedUserId,
        /// The stripped state, in JSON.
        state: Vec<String>,
    },
    /// The bot made this room in order to tell a person something.
    ControlRoomCreated {
        /// The person.
        person: Person,
    },
    /// The person has not come to the room that the bot made for them.
    ControlRoomExpired,
    /// A room key arrived.
    RoomKeyArrived {
        /// The user whose machine has it.
        user: OwnedUserId,
    },
    /// Somebody sent a strict ghost a key.
    KeyForStrict {
        /// The ghost.
        ghost: Ghost,
        /// The sender of the key.
        sender: OwnedUserId,
    },
    /// The person of this control room was erased.
    PersonErased {
        /// The person.
        person: Person,
    },
    /// The owner answered a request that waits here.
    Answered {
        /// The ghost that waits.
        ghost: Ghost,
        /// Whether the owner wants to be introduced.
        accepted: bool,
        /// Whether the handle is masked, as the owner was told.
        masked: bool,
    },
    /// The bot is to show a request here.
    ShowRequest {
        /// The owner who has to answer it.
        owner: Person,
        /// The number of the request.
        number: u32,
    },
    /// The opening line of a request came, and the bot is to show it here.
    ShowLine {
        /// The owner who has to answer the request.
        owner: Person,
        /// The number of the request.
        number: u32,
    },
    /// A portal was made here, and ghosts of a conversation are joining.
    ConversationJoined {
        /// The conversation.
        conversation: ConversationId,
        /// The ghosts.
        ghosts: Vec<Ghost>,
    },
    /// A conversation may move here soon: events wait until that is decided.
    UpgradePending {
        /// The conversation.
        conversation: ConversationId,
        /// The ghosts that are joining.
        ghosts: Vec<Ghost>,
    },
    /// A ghost was invited into the successor of this room.
    UpgradeSeen {
        /// The successor.
        to: OwnedRoomId,
        /// The person who invited it.
        by: Person,
    },
    /// The bot has a notice to send here.
    Notify {
        /// The person to whom it is sent.
        person: Person,
        /// The plain text.
        plain: String,
        /// The HTML.
        html: String,
        /// What it answers: a notice with the same source is sent only once.
        source: String,
    },
}

/// What has to be done to a ghost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct OwedGhost {
    pub effect: bot::Effect,
    /// Tells what its owner is told of it from what they were told before.
    #[serde(default)]
    pub number: u64,
}

/// What the bot still has to tell somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct OwedNotice {
    pub since: Timestamp,
    pub person: Person,
    pub notice: bot::NoticeText,
}

/// A dead letter, and when it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct DeadLetterRecord {
    pub at: Timestamp,
    pub letter: DeadLetter,
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
    /// The conversation that the room belongs to.
    #[serde(default)]
    pub conversation: Option<ConversationRoom>,
}

impl RoomRecord {
    /// Stages this as the record of a room, or its deletion if it says nothing.
    pub(in crate::engine) fn stage(
        &self,
        room: &OwnedRoomId,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        if *self == Self::default() {
            batch.delete::<Rooms>(room);
            return Ok(());
        }
        batch.put::<Rooms>(room, self)
    }

    /// Returns our user who reads the room's history where events may be missing; `None` if nobody
    /// reads here whatever is written: most ghosts leave again within seconds.
    pub(in crate::engine) fn history_reader(&self, bot: &OwnedUserId) -> Option<OwnedUserId> {
        if let Some(here) = &self.conversation {
            return here.ghosts.first().cloned().map(Into::into);
        }
        let control = self.control.as_ref();
        if control.is_some_and(|control| control.phase == ControlPhase::Ready) {
            return Some(bot.clone());
        }
        let stays =
            |it: &&Introduction| matches!(it.phase, Phase::Asking { .. } | Phase::Waiting { .. });
        let waiting = self.introductions.iter().find(stays);
        waiting.map(|introduction| introduction.ghost.clone().into())
    }
}

/// The conversation that a room belongs to, and its ghosts there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct ConversationRoom {
    pub conversation: ConversationId,
    /// The ghosts of this conversation that are in the room or are joining.
    pub ghosts: Vec<Ghost>,
    /// Whether it is undecided if the conversation moves here.
    #[serde(default)]
    pub upgrade_pending: bool,
    /// When a sender here was last told that a message waits for somebody who can read it.
    #[serde(default)]
    pub waiting_told_at: Option<Timestamp>,
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

/// The progress of a restore. Kept afterwards, to tell a handle that changed since the backup from
/// one that somebody else has taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct RestoreRecord {
    /// When it began.
    pub begun_at: Timestamp,
    /// The backup, and when it was made.
    pub backup: Option<BackupInfo>,
    /// Whether the restore is done.
    pub done: bool,
    /// The number of ghosts that have new devices.
    pub new_devices: u32,
    /// Ghosts that changed since the backup, and how.
    pub changed: Vec<(Ghost, String)>,
}

/// Maximum number of changed ghosts that are listed by name after a restore.
const CHANGED_MAX: usize = 1000;

impl RestoreRecord {
    /// Notes how a ghost differs from the backup.
    pub(in crate::engine) fn note_changed(&mut self, ghost: &Ghost, what: &str) {
        let is_known = self.changed.iter().any(|(known, _)| known == ghost);
        if self.changed.len() < CHANGED_MAX && !is_known {
            self.changed.push((ghost.clone(), what.to_owned()));
        }
    }
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

/// Returns the first number of this run. Numbers of a later run are higher than all of an earlier
/// one, so the queues keep their order over restarts without a write for each number.
pub(in crate::engine) fn first_sequence(store: &Store) -> Result<u64, StoreError> {
    let run = store.get::<RunCount>(&0)?.unwrap_or(0) + 1;
    let mut batch = Batch::new();
    batch.put::<RunCount>(&0, &run)?;
    store.apply(batch)?;
    Ok(run << 40)
}

table! {
    /// The progress of a restore from a backup. One record, never deleted.
    RestoreProgress = 26, true, u8 => RestoreRecord
}
table! {
    /// What the bot still has to tell people, by number: what follows from an act of an admin. Deleted
    /// when it waits in their control room, or after a week.
    OwedNotices = 15, true, u64 => OwedNotice
}
table! {
    /// Control rooms that the bot has to visit after a restore, and their people. Deleted after the
    /// visit.
    RoomsToNotify = 27, false, OwnedRoomId => Person
}
table! {
    /// The number of times the service was started.
    RunCount = 25, false, u8 => u64
}

table! {
    /// Conversations of masked handles. Deleted when all their rooms are left.
    Conversations = 50, true, ConversationId => Conversation
}
table! {
    /// The conversation of two people: by each person and the ghost that they see. Deleted with it.
    DirectConversations = 51, false, (Person, Ghost) => ConversationId
}
table! {
    /// The conversations that a ghost takes part in, by ghost. Deleted with them.
    ConversationsByGhost = 52, false, (Ghost, ConversationId) => ()
}
table! {
    /// The newest copies of a room's events, by that room, the number of the event and the room of
    /// the copy. Moved to [`CopyPacks`].
    EventCopies = 54, false, (Digest, u64, Digest) => Copy
}
table! {
    /// Older copies of a room's events, by that room and the number of the first of these events.
    /// Deleted after the retention, or when the room has too many.
    CopyPacks = 53, false, (Digest, u64) => CopyPack
}
table! {
    /// The number of the newest event of a room, the second one, that was known to have a copy in the
    /// first when it was last written. Deleted with the last such copy.
    CopyOrigins = 55, false, (Digest, Digest) => u64
}

table! {
    /// The group sessions whose keys got lost, by room and session. Deleted after a week, or when
    /// the room has too many.
    LostSessions = 59, true, (OwnedRoomId, String) => LostSession
}

table! {
    /// The marks of the store's newest stamps, by number: the newest 200.
    Stamps = 62, false, u64 => String
}

/// A group session whose key did not come in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct LostSession {
    /// Who writes in it.
    pub sender: OwnedUserId,
    /// When they were last told.
    pub told_at: Timestamp,
}

#[cfg(test)]
#[path = "records_tests.rs"]
pub(in crate::engine) mod tests;
