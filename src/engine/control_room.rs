//! Control rooms: the encrypted room in which a person and the bot talk. Pure.
//!
//! [`crate::bot`] decides what the bot answers and whether a room is a control room. This module
//! tracks the room's state, and the messages whose key has not come.

use std::time::Duration;

use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use crate::{
    bot::{self, NoticeText, RoomCheck, RoomProblem},
    clock::Timestamp,
    ids::Person,
};

/// How long a message in a control room waits for its key.
pub(in crate::engine) const KEY_WAIT: Duration = Duration::from_secs(5 * 60);
/// How long the bot does not repeat a remark about messages that it cannot act on.
const REMARK_PAUSE: Duration = Duration::from_secs(60);
/// How long events in a room do not lead to another check of it.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// How long a room that the bot made waits for its person.
pub(in crate::engine) const PERSON_WAIT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Maximum number of messages that wait for their key at once.
const WAITING_AT_MOST: usize = 20;

/// The state of a control room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct Control {
    pub person: Option<Person>,
    pub phase: ControlPhase,
    /// Messages whose key has not come.
    pub waiting: Vec<(OwnedEventId, Timestamp)>,
    pub encrypted_by_us: bool,
    /// When the bot made the room, if it did.
    #[serde(default)]
    pub made_at: Option<Timestamp>,
    /// When each remark was made last, so that it is not repeated for every message.
    #[serde(default)]
    pub answered: Vec<(Remark, Timestamp)>,
    /// When the bot greeted the person.
    #[serde(default)]
    pub greeted_at: Option<Timestamp>,
    /// When the room was last checked because of an event in it.
    #[serde(default)]
    pub looked_at: Option<Timestamp>,
    /// When it is checked again, because of further events.
    #[serde(default)]
    pub look_at: Option<Timestamp>,
}

/// A remark about messages that the bot cannot act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) enum Remark {
    NotEncrypted,
    Unreadable,
    UnsignedDevice,
    TooManyDevices,
    Verification,
    NotUnderstood,
    TooOld,
    UnknownDevice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) enum ControlPhase {
    Joining,
    Looking,
    Ready,
    Left,
}

/// The occasion on which the bot says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) enum Occasion {
    /// The person has just written or joined, so they are looking.
    Answer,
    /// Something happened elsewhere: the person's client has to tell them.
    News,
}

/// Something to be done in a control room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) enum ControlEffect {
    /// Invite the person to a room that the bot made for them.
    Invite,
    Join,
    /// Decline an invite by this person.
    Decline {
        inviter: Person,
        reason: String,
    },
    Look,
    TurnOnEncryption,
    /// Tell the person which control room to use instead, and leave.
    MoveTo {
        room: OwnedRoomId,
    },
    Leave {
        reason: Option<String>,
    },
    /// Send a notice. `source` names what it answers; the transaction id is derived from it.
    SendNotice {
        notice: NoticeText,
        source: String,
        occasion: Occasion,
    },
    /// Decline a request to verify the bot's keys.
    DeclineVerification {
        event: OwnedEventId,
    },
    /// Show the request with this number.
    ShowRequest {
        number: u32,
    },
    /// Show the opening line of the request with this number, if it came after the request was
    /// shown.
    ShowLine {
        number: u32,
    },
    /// React to the message that shows a request with each of its answers, so that the person only
    /// has to click one.
    OfferAnswers {
        to: OwnedEventId,
    },
    Bot(bot::Effect),
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
            Self::SendNotice { .. } => "bot-send-notice",
            Self::DeclineVerification { .. } => "bot-decline-verification",
            Self::ShowRequest { .. } => "bot-ask",
            Self::ShowLine { .. } => "bot-show-line",
            Self::OfferAnswers { .. } => "bot-offer-answers",
            Self::Bot(effect) => effect.kind(),
            Self::Forget => "bot-forget",
        }
    }
}

impl Control {
    /// Returns the state of a room into which this person has invited the bot.
    pub(in crate::engine) fn invited(person: Person) -> (Self, Vec<ControlEffect>) {
        let control = Self {
            person: Some(person),
            phase: ControlPhase::Joining,
            waiting: Vec::new(),
            encrypted_by_us: false,
            made_at: None,
            answered: Vec::new(),
            greeted_at: None,
            looked_at: None,
            look_at: None,
        };
        (control, vec![ControlEffect::Join, ControlEffect::Look])
    }

    /// Returns the state of a room that the bot made itself in order to tell this person something.
    pub(in crate::engine) fn made(person: Person, now: Timestamp) -> Self {
        let (mut control, _) = Self::invited(person);
        control.phase = ControlPhase::Looking;
        control.made_at = Some(now);
        control
    }

    /// Returns whether the person has not come to the room that was made for them, for so long that
    /// it is given up.
    pub(in crate::engine) fn has_expired(&self, now: Timestamp) -> bool {
        let made_at = self.made_at.filter(|_| self.phase == ControlPhase::Looking);
        made_at.is_some_and(|made_at| made_at + PERSON_WAIT <= now)
    }

    /// Returns whether the bot made the room and still waits for its person, who never came.
    pub(in crate::engine) fn was_never_entered(&self) -> bool {
        let waits = self.phase == ControlPhase::Looking;
        waits && self.made_at.is_some() && self.greeted_at.is_none()
    }

    /// Applies the result of the room's check. Returns what to do and whether to greet.
    pub(in crate::engine) fn looked(&mut self, check: RoomCheck) -> (Vec<ControlEffect>, bool) {
        let was_ready = self.phase == ControlPhase::Ready;
        match check {
            RoomCheck::ControlRoom(person) => {
                self.person = Some(person);
                self.phase = ControlPhase::Ready;
                (Vec::new(), !was_ready)
            }
            RoomCheck::NotEncrypted(person) if !self.encrypted_by_us => {
                self.person = Some(person);
                self.encrypted_by_us = true;
                self.phase = ControlPhase::Looking;
                (
                    vec![ControlEffect::TurnOnEncryption, ControlEffect::Look],
                    false,
                )
            }
            RoomCheck::NotEncrypted(_) => {
                let reason = RoomProblem::NotEncrypted.to_string();
                (self.leave(Some(reason)), false)
            }
            RoomCheck::Waiting => {
                self.phase = ControlPhase::Looking;
                (Vec::new(), false)
            }
            RoomCheck::Leave(reason) => (self.leave(Some(reason.to_string())), false),
        }
    }

    /// Returns the effects by which the bot leaves and forgets the room's keys.
    pub(in crate::engine) fn leave(&mut self, reason: Option<String>) -> Vec<ControlEffect> {
        self.phase = ControlPhase::Left;
        self.waiting.clear();
        self.look_at = None;
        vec![ControlEffect::Leave { reason }, ControlEffect::Forget]
    }

    /// Returns whether the bot may make this remark now: at most once per [`REMARK_PAUSE`], however
    /// many messages call for it.
    pub(in crate::engine) fn may_remark(&mut self, remark: Remark, now: Timestamp) -> bool {
        self.answered
            .retain(|(_, at)| now.since(*at) < REMARK_PAUSE && *at <= now);
        let free = self.answered.iter().all(|(said, _)| *said != remark);
        if free {
            self.answered.push((remark, now));
        }
        free
    }

    /// Returns whether the room may be checked now. If it was checked less than [`LOOK_PAUSE`] ago,
    /// notes that it has to be checked after that.
    pub(in crate::engine) fn may_look(&mut self, now: Timestamp) -> bool {
        match self.looked_at {
            Some(at) if at <= now && now.since(at) < LOOK_PAUSE => {
                self.look_at = Some(at + LOOK_PAUSE);
                false
            }
            _ => {
                self.look_at = None;
                self.looked_at = Some(now);
                true
            }
        }
    }

    /// Returns whether the check that [`Control::may_look`] put off is due, and notes that it is
    /// made.
    pub(in crate::engine) fn is_look_due(&mut self, now: Timestamp) -> bool {
        let due = self.look_at.is_some_and(|at| at <= now);
        due && self.may_look(now)
    }

    /// Notes that a message waits for its key. Returns `false` if too many wait already.
    pub(in crate::engine) fn wait_for_key(&mut self, event: OwnedEventId, now: Timestamp) -> bool {
        let known = self.waiting.iter().any(|(waiting, _)| *waiting == event);
        if known || self.waiting.len() >= WAITING_AT_MOST {
            return known;
        }
        self.waiting.push((event, now));
        true
    }

    /// Removes and returns the messages that have waited long enough.
    pub(in crate::engine) fn give_up(&mut self, now: Timestamp) -> Vec<OwnedEventId> {
        let (late, waiting) = self
            .waiting
            .drain(..)
            .partition(|(_, since)| now.since(*since) >= KEY_WAIT);
        self.waiting = waiting;
        let late: Vec<(OwnedEventId, Timestamp)> = late;
        late.into_iter().map(|(event, _)| event).collect()
    }

    /// Returns whether a message has waited for its key as long as it may.
    pub(in crate::engine) fn is_late(&self, now: Timestamp) -> bool {
        let mut waiting = self.waiting.iter();
        waiting.any(|(_, since)| now.since(*since) >= KEY_WAIT)
    }

    /// Lets all waiting messages wait for their keys as long as if they had come now.
    pub(in crate::engine) fn wait_anew(&mut self, now: Timestamp) {
        for (_, since) in &mut self.waiting {
            *since = now;
        }
    }

    /// Returns when the room or its waiting messages have to be looked at again.
    pub(in crate::engine) fn wake(&self) -> Option<Timestamp> {
        let waiting = self.waiting.iter().map(|(_, since)| *since + KEY_WAIT);
        waiting.chain(self.look_at).min()
    }
}
