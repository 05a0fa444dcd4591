//! What people type in their control room, and what they are told.
//!
//! A person writes to the bot as to anybody: plain words in an encrypted chat. [`hear()`] reads the
//! event, [`answer`] does what it says and finds the words to say so. Nothing here does I/O:
//! a command's writes go into a [`DirectoryTransaction`], and what has to happen
//! outside is handed back as [`BotEffect`]s, so that the command, its answer and its effects are
//! written in one batch.
//!
//! There is one file per command in `command/`: how it is typed, what it does, what it says.

mod command;
mod control_room;
mod hear;
mod invite;
mod pending;
mod request;
mod say;
mod spokesperson;
mod welcome;

pub use spokesperson::Bot;

#[cfg(test)]
mod tests;

use std::time::Duration;

use rand::RngCore;
use ruma::{EventId, OwnedRoomId, OwnedUserId, UserId};

use self::{
    command::{Call, Fail},
    hear::{Age, NoCommand, Words, age},
    say::sentence,
};
pub use self::{
    control_room::{ControlRoomVerdict, NoControlRoom, RoomView, judge},
    hear::{FRESH, Heard, LONGEST, hear},
    pending::sweep,
    say::Say,
    welcome::{greeting, not_text},
};
use crate::{
    clock::Timestamp,
    directory::{Counted, DirectoryError, DirectoryTransaction, Limit, OwnerNotice},
    handle::Handle,
};

/// What the bot knows of where it is.
#[derive(Clone, Debug)]
pub struct BotContext {
    /// The bot's own Matrix ID.
    pub bot: OwnedUserId,
    /// How many commands somebody may send within a minute.
    pub commands_per_minute: u32,
}

impl BotContext {
    /// With the default limits.
    pub fn new(bot: OwnedUserId) -> Self {
        BotContext {
            bot,
            commands_per_minute: 20,
        }
    }
}

/// What the bot says, and what has to happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The `body`.
    pub plain: String,
    /// The `formatted_body`, in `org.matrix.custom.html`.
    pub html: String,
    /// What has to happen outside the directory, in this order.
    pub effects: Vec<BotEffect>,
}

impl From<Say> for Answer {
    fn from(say: Say) -> Answer {
        Answer {
            plain: say.plain().to_owned(),
            html: say.html().to_owned(),
            effects: Vec::new(),
        }
    }
}

/// What a command makes happen outside the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BotEffect {
    /// The handle was claimed: make its ghost, with keys as the record says (strict or not).
    ProvisionGhost {
        /// The handle.
        handle: Handle,
        /// Which owner of it.
        generation: u32,
    },
    /// The handle became strict or stopped being so, or somebody holds it who is not the first to:
    /// its ghost needs another device and identity.
    ReplaceIdentity {
        /// The handle.
        handle: Handle,
        /// Which owner of it.
        generation: u32,
    },
    /// The handle was released: its ghost leaves every room, its identity is put away.
    RetireGhost {
        /// The handle.
        handle: Handle,
        /// Which owner of it.
        generation: u32,
    },
    /// What the handle's masked ghost carries ends.
    EndConversations {
        /// The handle.
        handle: Handle,
        /// Only with people whom the owner has blocked.
        blocked_only: bool,
    },
    /// Somebody chose another name for what they have with a masked handle already.
    Appear {
        /// Who.
        person: OwnedUserId,
        /// The handle.
        handle: Handle,
        /// What its owner is to see.
        name: String,
    },
    /// The owner answered a request.
    AnswerRequest {
        /// The room in which the asker waits.
        room: OwnedRoomId,
        /// The ghost that waits there.
        ghost: OwnedUserId,
        /// Whether they want to be introduced.
        accepted: bool,
    },
    /// Tell somebody else something, in their own control room.
    Tell {
        /// Whom.
        person: OwnedUserId,
        /// What, as plain text.
        plain: String,
        /// What, as HTML.
        html: String,
    },
}

/// How often a flood is answered.
const FLOOD_ANSWERS: Limit = Limit {
    most: 1,
    window: Duration::from_secs(10 * 60),
};

/// Does what a person typed in their control room. `None` is silence: they send too much, and
/// know it.
///
/// The caller has made sure that the room is this person's control room and that the words were
/// sent encrypted by a device of theirs. The change has to be written whatever the answer is. An
/// error means that the store failed; then nothing is to be written, and the event tried again.
pub fn answer(
    person: &UserId,
    text: &str,
    sent_at: Timestamp,
    change: &mut DirectoryTransaction<'_>,
    context: &BotContext,
    now: Timestamp,
    rng: &mut dyn RngCore,
) -> Result<Option<Answer>, DirectoryError> {
    if let Some(flooded) = flood(person, change, context, now)? {
        return Ok(flooded);
    }
    let words = match (age(sent_at, now), Words::of(text)) {
        (Age::Old(age), _) => return Ok(Some(welcome::too_old(age).into())),
        (Age::FromTheFuture, _) => return Ok(Some(welcome::from_the_future().into())),
        (Age::Fresh, Err(NoCommand::Empty)) => vec!["help".to_owned()],
        (Age::Fresh, Err(NoCommand::TooLong)) => return Ok(Some(welcome::too_long().into())),
        (Age::Fresh, Err(NoCommand::ManyLines)) => {
            return Ok(Some(welcome::one_at_a_time().into()));
        }
        (Age::Fresh, Ok(Words(words))) => words,
    };
    let call = Call {
        person,
        change,
        context,
        now,
        rng,
    };
    let mut answer = match command::run(call, &words) {
        Ok(answer) => answer,
        Err(Fail::Say(say)) => say.into(),
        Err(Fail::Directory(refusal)) if refusal.is_refusal() => {
            Say::text(&sentence(&refusal.to_string())).into()
        }
        Err(Fail::Directory(error)) => return Err(error),
    };
    answer
        .effects
        .extend(change.take_notices().into_iter().map(tell));
    Ok(Some(answer))
}

/// Answers what is no command; it counts like one.
fn not_a_command(
    person: &UserId,
    answer: Answer,
    change: &mut DirectoryTransaction<'_>,
    context: &BotContext,
    now: Timestamp,
) -> Result<Option<Answer>, DirectoryError> {
    Ok(flood(person, change, context, now)?.unwrap_or(Some(answer)))
}

/// Counts a message, and returns the answer to it where there are too many.
fn flood(
    person: &UserId,
    change: &mut DirectoryTransaction<'_>,
    context: &BotContext,
    now: Timestamp,
) -> Result<Option<Option<Answer>>, DirectoryError> {
    let limit = Limit {
        most: context.commands_per_minute,
        window: Duration::from_secs(60),
    };
    if change.count(Counted::Commands, person.as_str(), limit, now)? {
        return Ok(None);
    }
    let first = change.count(Counted::FloodAnswers, person.as_str(), FLOOD_ANSWERS, now)?;
    Ok(Some(first.then(|| welcome::slow_down().into())))
}

/// Does what a person's reaction in their control room means; most mean nothing. Like a command,
/// one that comes late is not obeyed.
pub fn react(
    person: &UserId,
    to: &EventId,
    key: &str,
    sent_at: Timestamp,
    change: &mut DirectoryTransaction<'_>,
    now: Timestamp,
) -> Result<Option<Answer>, DirectoryError> {
    match age(sent_at, now) {
        Age::Fresh => request::react(change, person, to, key, now),
        // Whoever thinks that they have answered is told that they have not.
        Age::Old(age) if request::is_shown_by(change, person, to)? => {
            Ok(Some(welcome::too_old(age).into()))
        }
        Age::Old(_) | Age::FromTheFuture => Ok(None),
    }
}

/// The effect by which somebody hears a notice of the directory.
pub fn tell(notice: OwnerNotice) -> BotEffect {
    match notice {
        OwnerNotice::LookalikeAttempt {
            owner,
            handle,
            attempt,
        } => {
            let say = welcome::lookalike_attempt(&handle, &attempt);
            BotEffect::Tell {
                person: owner,
                plain: say.plain().to_owned(),
                html: say.html().to_owned(),
            }
        }
    }
}
