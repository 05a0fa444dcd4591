//! Control rooms: the encrypted room in which a person and the bot talk. Pure.
//!
//! What the bot answers, and whether a room is a control room, is decided by a [`Spokesperson`]; this
//! module keeps where the room stands, and what is done about a message whose key has not come.

use std::{fmt, time::Duration};

use rand::RngCore;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    directory::{Change, Directory, DirectoryError},
    engine::introductions::request::Shown,
    introduction::RoomView,
};

/// How long a message in a control room may wait for its key.
pub(in crate::engine) const KEY_WAIT: Duration = Duration::from_secs(5 * 60);
/// How long the bot does not repeat what it says to messages that it cannot act on.
const REMARK_PAUSE: Duration = Duration::from_secs(60);
/// How many messages may wait for their key at once.
const WAITING_AT_MOST: usize = 20;

/// Who speaks for the service: the bot.
pub trait Spokesperson: Send + Sync + fmt::Debug + 'static {
    /// What the bot says when a control room is ready.
    fn greeting(&self, person: &UserId, change: &Change<'_>) -> Result<Words, DirectoryError>;
    /// What it answers to a message, and what it changes in the directory.
    fn answer(
        &self,
        message: Message<'_>,
        change: &mut Change<'_>,
        rng: &mut dyn RngCore,
    ) -> Result<Answer, DirectoryError>;
    /// How it shows a request to the owner.
    fn request(&self, shown: &Shown<'_>, directory: &Directory) -> Result<Words, DirectoryError>;
    /// Deletes what has expired; returns how many records it looked at.
    fn sweep(
        &self,
        change: &mut Change<'_>,
        now: Timestamp,
        limit: usize,
    ) -> Result<usize, DirectoryError>;
    /// What it says when a message could not be decrypted.
    fn unreadable(&self) -> Words;
    /// What it says after the service was restored from a backup of this time.
    fn restored(&self, made: Option<Timestamp>) -> Words;
    /// What it says when a message came in clear.
    fn not_encrypted(&self) -> Words;
    /// What the bot does about an invite by `person`, from what it shows of the room.
    fn invited(
        &self,
        person: &UserId,
        view: &RoomView,
        change: &mut Change<'_>,
        now: Timestamp,
    ) -> Result<Invited, DirectoryError>;
    /// What it says in a control room when its person has another one now.
    fn moved(&self, room: &RoomId) -> Words;
    /// Whether a room with these properties is a control room, of `expected` if that is given.
    fn judge(&self, view: &RoomView, bot: &UserId, expected: Option<&UserId>) -> Judgement;
}

/// A message to the bot.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Who wrote it.
    pub person: &'a UserId,
    /// The type of the decrypted event.
    pub event_type: &'a str,
    /// Its content.
    pub content: &'a serde_json::Value,
    /// When it was sent, by the homeserver's clock.
    pub sent_at: Timestamp,
    /// The time now.
    pub now: Timestamp,
}

/// The same sentence twice: plain, and as HTML.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// In plain text.
    pub plain: String,
    /// In HTML.
    pub html: String,
}

/// What a message leads to.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// What the bot says; nothing when the sender floods it.
    pub words: Option<Words>,
    /// What has to be done before it says so.
    pub tasks: Vec<Task>,
}

/// What a command sets going beside its change to the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Make the ghost of a handle, with its keys.
    MakeGhost {
        /// The ghost.
        ghost: OwnedUserId,
        /// Its display name.
        name: String,
        /// Without keys of ours.
        strict: bool,
    },
    /// Replace the ghost's identity: the mode changed, or the owner.
    ReplaceIdentity {
        /// The ghost.
        ghost: OwnedUserId,
        /// Its display name.
        name: String,
        /// Without keys of ours.
        strict: bool,
    },
    /// The handle has lost its owner.
    RetireGhost {
        /// The ghost.
        ghost: OwnedUserId,
        /// Which owner of the handle has given it up, counted from 1; 0 if that is not known.
        #[serde(default)]
        generation: u32,
    },
    /// What a masked handle's ghost carries ends.
    EndConversations {
        /// The ghost.
        ghost: OwnedUserId,
        /// Only with people whom the owner has blocked.
        blocked_only: bool,
    },
    /// Somebody is called otherwise from now on in what they have with a masked handle's ghost.
    Appear {
        /// Who.
        person: OwnedUserId,
        /// The ghost.
        ghost: OwnedUserId,
        /// How they are called.
        name: String,
    },
    /// An owner answered a request: the room in which the asker waits goes on.
    AnswerRequest {
        /// The room.
        room: OwnedRoomId,
        /// The ghost that waits there.
        ghost: OwnedUserId,
        /// Whether they want to be introduced.
        accepted: bool,
    },
    /// Tell another person something.
    Tell {
        /// Whom.
        person: OwnedUserId,
        /// What.
        words: Words,
    },
}

/// What the bot does about an invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invited {
    /// It goes in and looks around.
    Come,
    /// It declines, and says this.
    Decline(String),
    /// Nothing: so many came that it does not even decline.
    LeaveAlone,
}

/// Whether a room may be a control room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is one, of this person.
    ControlRoom(OwnedUserId),
    /// It would be one if it were encrypted.
    NotEncrypted(OwnedUserId),
    /// The person has not come yet: they are invited.
    Waiting,
    /// It is none; this is said on leaving.
    Leave(String),
}

/// Where a control room stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct Control {
    pub person: Option<OwnedUserId>,
    pub phase: ControlPhase,
    /// Messages whose key has not come.
    pub waiting: Vec<(OwnedEventId, Timestamp)>,
    pub encrypted_by_us: bool,
    /// When something was answered last that needs no answer each time.
    #[serde(default)]
    pub answered: Vec<(Remark, Timestamp)>,
}

/// What the bot says to a message that it cannot act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) enum Remark {
    NotEncrypted,
    Unreadable,
    UnsignedDevice,
    TooManyDevices,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) enum ControlPhase {
    Joining,
    Looking,
    Ready,
    Left,
}

/// What has to be done in a control room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) enum ControlEffect {
    /// Invite the person to a room that the bot made for them.
    Invite,
    Join,
    /// Decline an invite by this person.
    Decline {
        inviter: OwnedUserId,
        reason: String,
    },
    Look,
    TurnOnEncryption,
    /// Say where it goes on, and leave.
    MoveTo {
        room: OwnedRoomId,
    },
    Leave {
        reason: Option<String>,
    },
    /// `source` names what is answered: the transaction id follows from it.
    Say {
        words: Words,
        source: String,
    },
    /// Show a request of this number.
    Ask {
        number: u32,
    },
    Task(Task),
    Forget,
}

impl ControlEffect {
    pub(in crate::engine) fn kind(&self) -> &'static str {
        match self {
            Self::Invite => "bot-invite",
            Self::Join => "bot-join",
            Self::Decline { .. } => "bot-decline",
            Self::MoveTo { .. } => "bot-move",
            Self::Look => "bot-look",
            Self::TurnOnEncryption => "bot-turn-on-encryption",
            Self::Leave { .. } => "bot-leave",
            Self::Say { .. } => "bot-say",
            Self::Ask { .. } => "bot-ask",
            Self::Task(Task::AnswerRequest { .. }) => "answer-request",
            Self::Task(Task::EndConversations { .. }) => "end-conversations",
            Self::Task(Task::MakeGhost { .. }) => "make-ghost",
            Self::Task(Task::ReplaceIdentity { .. }) => "replace-identity",
            Self::Task(Task::RetireGhost { .. }) => "retire-ghost",
            Self::Task(Task::Tell { .. }) => "tell",
            Self::Task(Task::Appear { .. }) => "appear",
            Self::Forget => "bot-forget",
        }
    }
}

impl Control {
    /// The bot was invited by this person.
    pub(in crate::engine) fn invited(person: OwnedUserId) -> (Self, Vec<ControlEffect>) {
        let control = Self {
            person: Some(person),
            phase: ControlPhase::Joining,
            waiting: Vec::new(),
            encrypted_by_us: false,
            answered: Vec::new(),
        };
        (control, vec![ControlEffect::Join, ControlEffect::Look])
    }

    /// A room that the bot made itself, to tell somebody something.
    pub(in crate::engine) fn made(person: OwnedUserId) -> Self {
        let (mut control, _) = Self::invited(person);
        control.phase = ControlPhase::Looking;
        control
    }

    /// What the room looks like has been read. Returns what to do and whether to greet.
    pub(in crate::engine) fn looked(&mut self, judgement: Judgement) -> (Vec<ControlEffect>, bool) {
        let was_ready = self.phase == ControlPhase::Ready;
        match judgement {
            Judgement::ControlRoom(person) => {
                self.person = Some(person);
                self.phase = ControlPhase::Ready;
                (Vec::new(), !was_ready)
            }
            Judgement::NotEncrypted(person) if !self.encrypted_by_us => {
                self.person = Some(person);
                self.encrypted_by_us = true;
                self.phase = ControlPhase::Looking;
                (
                    vec![ControlEffect::TurnOnEncryption, ControlEffect::Look],
                    false,
                )
            }
            Judgement::NotEncrypted(_) => (self.leave(None), false),
            Judgement::Waiting => {
                self.phase = ControlPhase::Looking;
                (Vec::new(), false)
            }
            Judgement::Leave(reason) => (self.leave(Some(reason)), false),
        }
    }

    /// The bot goes, and forgets the room's keys.
    pub(in crate::engine) fn leave(&mut self, reason: Option<String>) -> Vec<ControlEffect> {
        self.phase = ControlPhase::Left;
        self.waiting.clear();
        vec![ControlEffect::Leave { reason }, ControlEffect::Forget]
    }

    /// Whether the bot is to say this now: not again within [`REMARK_PAUSE`], however many messages
    /// would lead to it.
    pub(in crate::engine) fn may_remark(&mut self, remark: Remark, now: Timestamp) -> bool {
        self.answered
            .retain(|(_, at)| now.since(*at) < REMARK_PAUSE && *at <= now);
        let free = self.answered.iter().all(|(said, _)| *said != remark);
        if free {
            self.answered.push((remark, now));
        }
        free
    }

    /// A message has no key yet. Returns false when too many wait already.
    pub(in crate::engine) fn wait_for_key(&mut self, event: OwnedEventId, now: Timestamp) -> bool {
        let known = self.waiting.iter().any(|(waiting, _)| *waiting == event);
        if known || self.waiting.len() >= WAITING_AT_MOST {
            return known;
        }
        self.waiting.push((event, now));
        true
    }

    /// Messages that have waited long enough.
    pub(in crate::engine) fn give_up(&mut self, now: Timestamp) -> Vec<OwnedEventId> {
        let (late, waiting) = self
            .waiting
            .drain(..)
            .partition(|(_, since)| now.since(*since) >= KEY_WAIT);
        self.waiting = waiting;
        let late: Vec<(OwnedEventId, Timestamp)> = late;
        late.into_iter().map(|(event, _)| event).collect()
    }

    /// When to look at the waiting messages again.
    pub(in crate::engine) fn wake(&self) -> Option<Timestamp> {
        self.waiting
            .iter()
            .map(|(_, since)| *since + KEY_WAIT)
            .min()
    }
}
