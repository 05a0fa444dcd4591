//! What people type in their control room, and how the bot answers. Pure.
//!
//! A person writes to the bot as to anybody: plain words in an encrypted chat. [`answer`] reads the
//! event, runs the command in it, and returns the answer. Nothing here does I/O; time and
//! randomness are arguments. Changes go into a [`DirectoryTransaction`], and effects outside the
//! directory are returned as [`Effect`]s, so that the engine writes the command, its answer and its
//! effects in one batch.
//!
//! There is one file per command in `command/`: how it is typed, what it does, what it says.

mod admin_act;
mod command;
mod confirmation;
mod control_room;
mod effect;
mod input;
mod invite;
mod mentions;
mod notice_text;
mod request;
pub mod texts;

#[cfg(test)]
mod tests;

use std::time::Duration;

use rand::RngCore;
use ruma::{EventId, OwnedUserId};
use serde_json::Value;

pub use self::{
    admin_act::{ActReport, report_act, report_grantee_act},
    confirmation::{forget_confirmation, sweep_confirmations},
    control_room::{RoomCheck, RoomProblem, check_room},
    effect::{Answer, Effect},
    input::COMMAND_AGE_MAX,
    invite::{InviteAnswer, answer_invite},
    notice_text::NoticeText,
    request::{ANSWERS_TO_REQUESTS, ShownRequest, late_line_text, request_text},
};
use self::{
    command::{CommandContext, CommandError},
    input::{Age, CommandInput, CommandLine, CommandLineError},
    mentions::Mentions,
    notice_text::sentence,
};
use crate::{
    clock::Timestamp,
    directory::{CommandCount, DirectoryError, DirectoryTransaction, Limit, OwnerNotice},
    ids::Person,
};

/// The bot's options.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bot's own Matrix ID.
    pub bot: OwnedUserId,
    /// Maximum number of commands that a person may send within a minute.
    pub commands_per_minute: u32,
    /// Whether the module is loaded in the homeserver. Then no ghost enters a chat that a person of
    /// this server starts with an open handle.
    pub module_loaded: bool,
    /// Whether every handle of this server is strict.
    pub strict: bool,
}

impl Options {
    /// Returns the default options of the bot with this Matrix ID.
    pub fn new(bot: OwnedUserId) -> Self {
        Options {
            bot,
            commands_per_minute: 20,
            module_loaded: false,
            strict: false,
        }
    }
}

/// A message to the bot, in the control room of the person who sent it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The person.
    pub person: &'a Person,
    /// The type of the decrypted event.
    pub event_type: &'a str,
    /// Its content.
    pub content: &'a Value,
    /// When it was sent, by the homeserver's clock.
    pub sent_at: Timestamp,
    /// The time now.
    pub now: Timestamp,
    /// When the bot greeted the person in this room.
    pub greeted_at: Option<Timestamp>,
}

/// How long a person's own greeting needs no other answer than the bot's.
const GREETING_TIME: Duration = Duration::from_secs(60);

/// Handles a message in a control room. An answer without text is silence: the message needs none,
/// or the person sends too much and has been told.
///
/// The caller has checked that the room is this person's control room and that a device of theirs
/// encrypted the message (reactions are never encrypted). The change has to be written whatever the
/// answer is. An error means that the store failed: nothing may be written, and the event is tried
/// again.
pub fn answer(
    message: &Message<'_>,
    options: &Options,
    tx: &mut DirectoryTransaction<'_>,
    rng: &mut dyn RngCore,
) -> Result<Answer, DirectoryError> {
    match input::read_input(message.event_type, message.content) {
        CommandInput::Ignored => Ok(Answer::default()),
        CommandInput::NotText => Ok(match check_flood(message, tx, options)? {
            Some(flooded) => flooded,
            None => texts::not_text().into(),
        }),
        CommandInput::Reaction { to, key } => react(message, &to, &key, options, tx),
        CommandInput::Text(text) => answer_text(message, &text, options, tx, rng),
    }
}

fn answer_text(
    message: &Message<'_>,
    text: &str,
    options: &Options,
    tx: &mut DirectoryTransaction<'_>,
    rng: &mut dyn RngCore,
) -> Result<Answer, DirectoryError> {
    let age = Age::of(message.sent_at, message.now);
    if let Age::Old(age) = age {
        // What was held back comes all at once, and none of it is run.
        return Ok(texts::too_old(age).into());
    }
    if let Some(flooded) = check_flood(message, tx, options)? {
        return Ok(flooded);
    }
    if age == Age::FromTheFuture {
        return Ok(texts::from_the_future().into());
    }
    let mentions = Mentions::of(message.content);
    let mention = |line: &str| mentions.put_into(line, message.person, &options.bot);
    let words = match CommandLine::parse(text, mention) {
        Ok(CommandLine(words)) => words,
        Err(CommandLineError::Empty) => vec!["help".to_owned()],
        Err(CommandLineError::TooLong) => return Ok(texts::too_long().into()),
        Err(CommandLineError::ManyLines) => return Ok(texts::one_at_a_time().into()),
        Err(CommandLineError::UnclearPerson) => return Ok(texts::unclear_person().into()),
        Err(CommandLineError::Overridden) => return Ok(texts::overridden().into()),
    };
    let greeted = message.greeted_at.map(|at| message.now.since(at));
    if command::is_greeting(&words) && greeted.is_some_and(|ago| ago < GREETING_TIME) {
        return Ok(Answer::default());
    }
    let permission = tx.permission_of(message.person)?;
    let context = CommandContext {
        person: message.person,
        permission,
        tx,
        options,
        now: message.now,
        rng,
    };
    let mut answer = match command::run(context, &words) {
        Ok(answer) => answer,
        Err(CommandError::Refused(text)) => text.into(),
        Err(CommandError::Directory(refusal)) if refusal.is_refusal() => {
            sentence(&refusal.to_string()).into()
        }
        Err(CommandError::Directory(error)) => return Err(error),
    };
    answer
        .effects
        .extend(tx.take_notices().into_iter().map(notice_effect));
    Ok(answer)
}

/// Returns whether a message was sent so long ago that it has no effect.
pub fn is_too_old(sent_at: Timestamp, now: Timestamp) -> bool {
    matches!(Age::of(sent_at, now), Age::Old(_))
}

/// Counts a message, and returns the answer to it if the bot does not listen to its sender now.
fn check_flood(
    message: &Message<'_>,
    tx: &mut DirectoryTransaction<'_>,
    options: &Options,
) -> Result<Option<Answer>, DirectoryError> {
    let limit = Limit {
        most: options.commands_per_minute,
        window: Duration::from_secs(60),
    };
    Ok(
        match tx.count_command(message.person, limit, message.now)? {
            CommandCount::Counted => None,
            CommandCount::PauseBegins => Some(texts::slow_down().into()),
            CommandCount::Paused => Some(Answer::default()),
        },
    )
}

/// Handles a person's reaction; most mean nothing. One to an open request counts like a command,
/// and has no effect if it is late.
fn react(
    message: &Message<'_>,
    to: &EventId,
    key: &str,
    options: &Options,
    tx: &mut DirectoryTransaction<'_>,
) -> Result<Answer, DirectoryError> {
    let (person, now) = (message.person, message.now);
    if !request::shows_open_request(tx, person, to)? {
        return Ok(Answer::default());
    }
    if let Some(flooded) = check_flood(message, tx, options)? {
        return Ok(flooded);
    }
    match Age::of(message.sent_at, now) {
        Age::Fresh => {
            Ok(request::answer_by_reaction(tx, person, to, key, now)?.unwrap_or_default())
        }
        // The owner thinks that they have answered, so the bot tells them that it came too late.
        Age::Old(age) => Ok(texts::too_old(age).into()),
        Age::FromTheFuture => Ok(texts::from_the_future().into()),
    }
}

/// Returns the effect that sends a person a notice of the directory.
fn notice_effect(notice: OwnerNotice) -> Effect {
    match notice {
        OwnerNotice::LookalikeAttempt {
            owner,
            handle,
            attempt,
        } => Effect::Tell {
            person: owner,
            notice: texts::lookalike_attempt(&handle, &attempt),
        },
    }
}
