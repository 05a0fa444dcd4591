//! How a request is shown to an owner, and how it is answered: in words, or with a reaction.

use std::time::Duration;

use ruma::EventId;

use super::{Answer, Effect, NoticeText};
use crate::{
    clock::Timestamp,
    directory::{
        BlockScope, Directory, DirectoryError, DirectoryTransaction, Discoverable, HandleRecord,
        Mode, Reach, Request,
    },
    ids::Person,
};

/// An owner's answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestChoice {
    Accept,
    Decline,
    Block,
}

/// The reactions that answer a request: the bot puts them there to be clicked.
pub const ANSWERS_TO_REQUESTS: [&str; 3] = ["✅", "❌", "🚫"];

impl RequestChoice {
    /// Reads a reaction. Clients add variation selectors and skin tones to the emoji.
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

/// A request in the form in which the owner sees it.
#[derive(Clone, Debug)]
pub struct ShownRequest<'a> {
    /// Its number.
    pub number: u32,
    /// The directory's record of it.
    pub request: &'a Request,
    /// The asker's display name, fit to be shown.
    pub name: &'a str,
    /// The opening line, if there is one that can be shown.
    pub line: Option<&'a str>,
    /// The time now.
    pub now: Timestamp,
}

/// Returns the text that shows a request to its owner.
pub fn request_text(
    shown: &ShownRequest<'_>,
    directory: &Directory,
) -> Result<NoticeText, DirectoryError> {
    let number = shown.number;
    let handle = shown.request.handle.to_string();
    let mut text = NoticeText::new(&format!("Request {number}: ")).name(shown.name);
    let hidden = shown.request.asker_alias.is_some();
    if hidden {
        text = text.and(" (you don't see their Matrix ID, and they don't see yours");
    } else {
        text = text.and(" (").name(&shown.request.asker_shown());
    }
    if !hidden && let Some(record) = pick_shown_handle(&directory.handles_of(&shown.request.asker)?)
    {
        let verified = match record.verified_at {
            Some(_) => "verified, ",
            None => "",
        };
        let age = age_text(record.age(shown.now));
        text = text.and(&format!(", {verified}handle {} for {age}", record.handle));
    }
    text = text
        .and(") asks to chat with you by your handle ")
        .name(&handle)
        .and(".");
    if let Some(line) = shown.line {
        text = text.and(" They write:").quote(line);
    } else {
        text = text.paragraph();
    }
    Ok(text
        .and("Answer with a reaction to this message: ✅ accepts, ❌ declines, 🚫 blocks them. Or write ")
        .code(&format!("accept {number}"))
        .and(", ")
        .code(&format!("decline {number}"))
        .and(" or ")
        .code(&format!("block {number}"))
        .and(if shown.request.mode == Mode::Masked {
            ". If you accept, they still don't see your Matrix ID. If you do nothing, they aren't \
             told why."
        } else {
            ". If you accept, they see your Matrix ID. If you do nothing, they aren't told why."
        }))
}

/// Returns the text that shows a request's opening line, if it came after the request was shown.
pub fn late_line_text(number: u32, name: &str, line: &str) -> NoticeText {
    NoticeText::new(&format!("Request {number}: "))
        .name(name)
        .and(" writes:")
        .quote(line)
        .and("A reaction to this message answers the request, too: ✅ accepts, ❌ declines, 🚫 blocks them.")
}

/// Returns one handle of the asker to show: a verified one, or else the oldest. It is an open
/// handle that everyone may reach and find, so that everyone could learn whose it is. Never two:
/// nobody may learn that they belong together.
fn pick_shown_handle(handles: &[HandleRecord]) -> Option<&HandleRecord> {
    handles
        .iter()
        .filter(|record| {
            record.is_active()
                && record.mode == Mode::Open
                && record.policy.direct == Reach::Everyone
                && record.discoverable != Discoverable::Link
        })
        .min_by_key(|record| (record.verified_at.is_none(), record.claimed_at))
}

fn age_text(age: Duration) -> String {
    match age.as_secs() / 86_400 {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// Answers the open request that is shown by the message to which the owner reacted, if there is one.
pub(super) fn answer_by_reaction(
    tx: &mut DirectoryTransaction<'_>,
    person: &Person,
    to: &EventId,
    key: &str,
    now: Timestamp,
) -> Result<Option<Answer>, DirectoryError> {
    let Some(choice) = RequestChoice::of_reaction(key) else {
        return Ok(None);
    };
    let mut requests = tx.requests_of(person)?.into_iter();
    let meant = requests.find(|(_, request)| request.is_shown_by(to));
    match meant {
        Some((number, _)) => answer_request(tx, person, number, choice, now),
        None => Ok(None),
    }
}

/// Returns `true` if this message shows an open request.
pub(super) fn shows_open_request(
    tx: &DirectoryTransaction<'_>,
    person: &Person,
    message: &EventId,
) -> Result<bool, DirectoryError> {
    let requests = tx.requests_of(person)?;
    Ok(requests
        .iter()
        .any(|(_, request)| request.is_shown_by(message)))
}

/// Answers a request as the owner chose. Returns `None` if there is no such request.
///
/// If the handle's mode has changed since the owner was told of it, the request stays open and the
/// owner is asked again: the mode decides whether the asker sees their Matrix ID.
pub(super) fn answer_request(
    tx: &mut DirectoryTransaction<'_>,
    person: &Person,
    number: u32,
    choice: RequestChoice,
    now: Timestamp,
) -> Result<Option<Answer>, DirectoryError> {
    let Some(request) = tx.request(person, number)? else {
        return Ok(None);
    };
    let blocked = tx.is_asker_blocked(person, &request, number)?;
    let record = tx.lookup(&request.handle)?;
    // An admin may have frozen the handle or banned one of the two since.
    let leads = match &record {
        Some(record) => tx.still_leads(record, &request.asker)?,
        None => false,
    };
    let accepted = choice == RequestChoice::Accept && !blocked && leads;
    if accepted
        && let Some(record) = record
        && record.mode != request.mode
    {
        tx.set_request_mode(person, number, record.mode)?;
        return Ok(Some(mode_changed_text(person, &record, number).into()));
    }
    tx.close_request(person, number)?;
    let masked = request.mode == Mode::Masked;
    let (asker, label) = (request.asker_named(number), request.block_label(number));
    let scope = BlockScope::Handle(request.handle.clone());
    let text = match choice {
        RequestChoice::Accept if blocked => NoticeText::default()
            .name(&asker)
            .and(" is blocked, so I've turned them down. To undo the block: ")
            .code(&format!("unblock {label}"))
            .and("."),
        RequestChoice::Accept if !leads => NoticeText::new("I've turned ")
            .name(&asker)
            .and(" down: the admin of this server no longer lets them reach you by this handle."),
        RequestChoice::Accept => accept(tx, &request, &asker, now)?,
        RequestChoice::Decline => NoticeText::new("I've turned ").name(&asker).and(
            " down. They see the same message as anyone who can't reach you. They may ask again \
             another time.",
        ),
        RequestChoice::Block => match tx.block_asker(person, &request, number, &scope, now) {
            // The request is declined even if the block is refused.
            Err(error) if error.is_refusal() => NoticeText::new("I've turned ")
                .name(&asker)
                .and(" down, but not blocked them: ")
                .and(&error.to_string())
                .and("."),
            Err(error) => return Err(error),
            Ok(_) => NoticeText::default()
                .name(&asker)
                .and(&format!(
                    " can no longer reach you by {}. To undo: ",
                    request.handle
                ))
                .code(&format!("unblock {label}"))
                .and(". If they know your Matrix ID, ignore them in your client too."),
        },
    };
    let mut answer = Answer::from(text);
    answer.effects.push(Effect::AnswerRequest {
        room: request.room,
        ghost: request.ghost,
        accepted,
        masked,
    });
    Ok(Some(answer))
}

/// Notes that the owner accepts, and returns what they are told.
fn accept(
    tx: &mut DirectoryTransaction<'_>,
    request: &Request,
    asker: &str,
    now: Timestamp,
) -> Result<NoticeText, DirectoryError> {
    let (handle, generation) = (&request.handle, request.generation);
    tx.add_contact(handle, generation, &request.asker, now)?;
    Ok(if request.mode == Mode::Masked {
        NoticeText::new("As soon as ").name(asker).and(
            " has written something that I can pass on, you're invited to a chat with them. You \
             don't see each other's Matrix IDs there. This service passes on what you write and \
             can read it on the way.",
        )
    } else {
        let text = NoticeText::new("You're invited to a chat with ").name(asker);
        text.and(
            ". If no invite comes, your server or client is rejecting invites. Then start the chat \
             yourself: ",
        )
        .link(&request.asker.matrix_to_uri().to_string())
    })
}

/// Declines the open requests that `is_meant` picks. Returns the effects.
pub(super) fn decline_requests(
    tx: &mut DirectoryTransaction<'_>,
    person: &Person,
    is_meant: impl Fn(u32, &Request) -> bool,
) -> Result<Vec<Effect>, DirectoryError> {
    let closed = tx.close_requests(person, is_meant)?.into_iter();
    Ok(closed.map(turn_down).collect())
}

/// Returns the effect that turns down the person who waits for the answer to a closed request.
pub(super) fn turn_down(request: Request) -> Effect {
    Effect::AnswerRequest {
        room: request.room,
        ghost: request.ghost,
        accepted: false,
        masked: request.mode == Mode::Masked,
    }
}

/// Tells an owner what accepting means since the handle's mode changed.
fn mode_changed_text(person: &Person, record: &HandleRecord, number: u32) -> NoticeText {
    let text = NoticeText::default().name(&record.handle.to_string());
    let text = if record.mode == Mode::Masked {
        text.and(
            " is masked now, and it wasn't when they asked. If you accept, they don't see your \
             Matrix ID, and this service passes on what you both write and can read it on the way.",
        )
    } else {
        text.and(
            " was masked when they asked and no longer is. If you accept, they see your Matrix ID, ",
        )
        .name(person.as_str())
        .and(", and know it for good.")
    };
    text.and(" To accept all the same: ")
        .code(&format!("accept {number}"))
        .and(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_bot_offers_to_be_clicked_are_all_the_answers() {
        let choices = ANSWERS_TO_REQUESTS.map(RequestChoice::of_reaction);
        let all = [
            RequestChoice::Accept,
            RequestChoice::Decline,
            RequestChoice::Block,
        ];
        assert_eq!(choices, all.map(Some));
    }

    #[test]
    fn reactions_are_read_whatever_their_form_and_colour() {
        for (key, expected) in [
            ("✅", Some(RequestChoice::Accept)),
            ("👍🏽", Some(RequestChoice::Accept)),
            ("✔️", Some(RequestChoice::Accept)),
            ("❌", Some(RequestChoice::Decline)),
            ("👎", Some(RequestChoice::Decline)),
            ("🚫", Some(RequestChoice::Block)),
            ("❤️", None),
            ("accept", None),
            ("", None),
        ] {
            assert_eq!(RequestChoice::of_reaction(key), expected, "{key}");
        }
    }
}
