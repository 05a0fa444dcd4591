//! How a request is shown to an owner, and how it is answered: in words, or with a reaction.

use std::time::Duration;

use ruma::{EventId, UserId};

use super::{Answer, BotEffect, Say};
use crate::{
    clock::Timestamp,
    directory::{Directory, DirectoryError, DirectoryTransaction, HandleRecord, Mode},
    engine::Shown,
};

/// What an owner answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Accept,
    Decline,
    Block,
}

impl Choice {
    /// What a reaction means. Clients add the form and the colour of a hand to it.
    pub(super) fn of_reaction(key: &str) -> Option<Self> {
        let plain: String = key
            .chars()
            .filter(|c| !matches!(c, '\u{FE0E}' | '\u{FE0F}' | '\u{1F3FB}'..='\u{1F3FF}'))
            .collect();
        match plain.as_str() {
            "✅" | "👍" | "✔" | "☑" => Some(Self::Accept),
            "❌" | "👎" | "✖" | "❎" => Some(Self::Decline),
            "🚫" | "⛔" => Some(Self::Block),
            _ => None,
        }
    }
}

/// A request, as the owner reads it.
pub(super) fn show(
    shown: &Shown<'_>,
    directory: &Directory,
    now: Timestamp,
) -> Result<Say, DirectoryError> {
    let number = shown.number;
    let handle = shown.request.handle.to_string();
    let mut say = Say::text(&format!("Request {number}: ")).strong(shown.name);
    let masked = shown.request.masked_as.is_some();
    if masked {
        say = say.and(" (their Matrix ID is not shown to you, nor yours to them");
    } else {
        say = say.and(&format!(" ({}", shown.request.asker_shown()));
    }
    if !masked && let Some(record) = handle_to_show(&directory.handles_of(&shown.request.asker)?) {
        let verified = match record.verified_at {
            Some(_) => "verified, ",
            None => "",
        };
        let age = age(record.age(now));
        say = say.and(&format!(", {verified}handle {} for {age}", record.handle));
    }
    say = say
        .and(") asks to chat with you by your handle ")
        .strong(&handle)
        .and(".");
    if let Some(line) = shown.line {
        say = say.and(" They write:").quote(line);
    } else {
        say = say.par();
    }
    Ok(say
        .and("Answer with a reaction to this message: ✅ accepts, ❌ declines, 🚫 blocks them. Or write ")
        .code(&format!("accept {number}"))
        .and(", ")
        .code(&format!("decline {number}"))
        .and(" or ")
        .code(&format!("block {number}"))
        .and(match masked {
            true => {
                ". If you accept, they still do not see your Matrix ID. If you do nothing, they are \
                 not told why."
            }
            false => {
                ". If you accept, they see your Matrix ID. If you do nothing, they are not told why."
            }
        }))
}

/// One handle of somebody who asks: a verified one, or the oldest. Only one whose owner shows their
/// Matrix ID anyway, and never two, which nobody is to know to belong together.
fn handle_to_show(handles: &[HandleRecord]) -> Option<&HandleRecord> {
    handles
        .iter()
        .filter(|record| record.is_active() && record.mode == Mode::Open)
        .min_by_key(|record| (record.verified_at.is_none(), record.claimed_at))
}

fn age(age: Duration) -> String {
    match age.as_secs() / 86_400 {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// The owner reacted to a message of the bot. Nothing follows unless it shows an open request.
pub(super) fn react(
    change: &mut DirectoryTransaction<'_>,
    person: &UserId,
    to: &EventId,
    key: &str,
    now: Timestamp,
) -> Result<Option<Answer>, DirectoryError> {
    let Some(choice) = Choice::of_reaction(key) else {
        return Ok(None);
    };
    let mut requests = change.requests_of(person)?.into_iter();
    let meant = requests.find(|(_, request)| request.shown.as_deref() == Some(to));
    match meant {
        Some((number, _)) => answer(change, person, number, choice, now),
        None => Ok(None),
    }
}

/// Whether this message shows an open request.
pub(super) fn is_shown_by(
    change: &DirectoryTransaction<'_>,
    person: &UserId,
    message: &EventId,
) -> Result<bool, DirectoryError> {
    let requests = change.requests_of(person)?;
    let mut shown = requests.iter().map(|(_, request)| &request.shown);
    Ok(shown.any(|shown| shown.as_deref() == Some(message)))
}

/// Does what the owner chose; `None` when there is no such request.
pub(super) fn answer(
    change: &mut DirectoryTransaction<'_>,
    person: &UserId,
    number: u32,
    choice: Choice,
    now: Timestamp,
) -> Result<Option<Answer>, DirectoryError> {
    let Some(request) = change.close_request(person, number)? else {
        return Ok(None);
    };
    let blocked = change.is_asker_blocked(person, &request)?;
    let accepted = choice == Choice::Accept && !blocked;
    let (asker, label) = (request.asker_named(number), request.block_label(number));
    let say = match choice {
        Choice::Accept if blocked => Say::default()
            .strong(&asker)
            .and(" is blocked, so I have turned them down. To undo the block: ")
            .code(&format!("unblock {label}"))
            .and("."),
        Choice::Accept if request.masked_as.is_some() => {
            let (handle, generation) = (&request.handle, request.generation);
            change.add_contact(handle, generation, &request.asker, now)?;
            Say::text("You are invited to a chat with ").strong(&asker).and(
                ". They do not see your Matrix ID there, nor you theirs; this service carries what \
                 you write and can read it on the way.",
            )
        }
        Choice::Accept => {
            let (handle, generation) = (&request.handle, request.generation);
            change.add_contact(handle, generation, &request.asker, now)?;
            Say::text("You are invited to a chat with ")
                .strong(&asker)
                .and(". If no invite comes, your server or client turns invites away; then start the chat yourself: ")
                .link(&request.asker.matrix_to_uri().to_string())
        }
        Choice::Decline => Say::text("I have turned ").strong(&asker).and(
            " down. They are told what everybody is told who cannot reach you now. They may ask \
             again another time.",
        ),
        Choice::Block => match change.block_asker(person, &request, number, now) {
            // They are turned down all the same.
            Err(error) if error.is_refusal() => Say::text("I have turned ")
                .strong(&asker)
                .and(" down, but not blocked them: ")
                .and(&error.to_string())
                .and("."),
            Err(error) => return Err(error),
            Ok(()) => Say::default()
                .strong(&asker)
                .and(&format!(
                    " cannot reach you by {} any more. To undo: ",
                    request.handle
                ))
                .code(&format!("unblock {label}"))
                .and(". If they know your Matrix ID, ignore them in your client too."),
        },
    };
    let mut answer = Answer::from(say);
    answer.effects.push(BotEffect::AnswerRequest {
        room: request.room,
        ghost: request.ghost,
        accepted,
    });
    Ok(Some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reactions_are_read_whatever_their_form_and_colour() {
        for (key, expected) in [
            ("✅", Some(Choice::Accept)),
            ("👍🏽", Some(Choice::Accept)),
            ("✔️", Some(Choice::Accept)),
            ("❌", Some(Choice::Decline)),
            ("👎", Some(Choice::Decline)),
            ("🚫", Some(Choice::Block)),
            ("❤️", None),
            ("accept", None),
            ("", None),
        ] {
            assert_eq!(Choice::of_reaction(key), expected, "{key}");
        }
    }
}
