//! The texts of the bot that do not answer a command.

use std::time::Duration;

use ruma::{RoomId, ServerName, UserId};

use super::{Effect, NoticeText};
use crate::{
    clock::Timestamp,
    directory::{DirectoryError, DirectoryTransaction, HandleRecord, HandleState},
    handle::Handle,
    ids::Person,
    permissions::Permission,
    text::fit_to_show,
};

/// Greets a person when their control room is ready.
pub fn greeting(
    person: &Person,
    tx: &DirectoryTransaction<'_>,
) -> Result<NoticeText, DirectoryError> {
    let handles = tx.handles_of(person)?;
    let text = NoticeText::new("Hello! I look after the handles of ")
        .strong(tx.settings().server_name.as_str())
        .and(
            ". A handle is a name by which people can start an encrypted chat with you. They need to \
             know nothing else about you.",
        )
        .paragraph();
    let text = match handles.first() {
        None if tx.permission_of(person)? < Permission::Claim => {
            text.and("On this server the admin decides who can have one. ")
        }
        None => text
            .and("To get one, pick a name and write, for example, ")
            .code("claim sam")
            .and(". "),
        Some(_) => text
            .and("You have ")
            .append(NoticeText::names(
                handles.iter().map(|record| record.handle.to_string()),
            ))
            .and(match handles.len() {
                1 => ". To see how it's set up, write ",
                _ => ". To see how they're set up, write ",
            })
            .code("handles")
            .and(". "),
    };
    Ok(text
        .and("To write to someone: ")
        .code("dm @kim")
        .and(". All I can do: ")
        .code("help")
        .and("."))
}

/// Introduces the bot to a person to whom it had something else to say first.
pub fn short_greeting() -> NoticeText {
    NoticeText::new("I'm the bot that looks after handles here. ")
        .code("help")
        .and(" shows what I can do.")
}

/// Says in an old control room that the person has a newer one.
pub fn moved(room: &RoomId, via: &ServerName) -> NoticeText {
    NoticeText::new("You have another chat with me now. Let's go on there: ")
        .link(&room.matrix_to_uri_via([via.to_owned()]).to_string())
        .and(" I'm leaving this one.")
}

/// Answers pictures, voice messages and the like.
pub(super) fn not_text() -> NoticeText {
    NoticeText::new("I only read text. Write ")
        .code("help")
        .and(" to see what I can do.")
}

/// Tells a person that the service was restored from a backup.
pub fn restored(made: Option<Timestamp>) -> NoticeText {
    let when = match made {
        Some(made) => format!("a backup of {made}"),
        None => "a backup".to_owned(),
    };
    NoticeText::new(&format!(
        "I was restored from {when}. Whatever you've asked me to change since then is undone. Please \
         check "
    ))
    .code("handles")
    .and(" and, for your blocks, ")
    .code("unblock")
    .and(
        ". If you wrote to me and got no answer, please send it again: I can no longer read older \
         messages.",
    )
}

/// Tells a person that the ghost they invited does not exist, because its name has capitals.
pub fn misspelt_ghost(invited: &UserId, ghost: &UserId, handle: &Handle) -> NoticeText {
    NoticeText::new("Nobody got your invite of ")
        .name(invited.as_str())
        .and(": such a name has small letters only. To reach ")
        .name(&handle.to_string())
        .and(", start a chat with ")
        .name(ghost.as_str())
        .and(" (")
        .link(&ghost.matrix_to_uri().to_string())
        .and(").")
}

/// Why the bot leaves a room that it could not join or look at: unencrypted, for everybody.
pub const NO_ANSWER: &str =
    "A server didn't answer in time, so I can't stay here. Please start a new chat with me.";

/// Why the bot leaves the control room of a person who was erased.
pub const ERASED: &str = "What I kept about you is deleted, your handles are released, and masked conversations have ended.";

/// Tells an admin that a person was erased, with the handles that they held.
pub fn erased(person: &UserId, released: &[HandleRecord]) -> NoticeText {
    let names = |are_frozen: bool| {
        let is_frozen = |it: &&HandleRecord| matches!(it.state, HandleState::Frozen { .. });
        let those = released.iter();
        let those = those.filter(move |it| is_frozen(it) == are_frozen);
        those.map(|record| record.handle.to_string()).peekable()
    };
    let mut text = NoticeText::default()
        .name(&fit_to_show(person.as_str()))
        .and(" is erased.");
    if released.is_empty() {
        text = text.and(" They had no handle.");
    }
    if names(false).peek().is_some() {
        text = text
            .and(" Nobody can claim ")
            .append(NoticeText::names(names(false)))
            .and(" before the end of its quarantine.");
    }
    if names(true).peek().is_some() {
        text = text
            .and(" What was frozen stays frozen, until it is transferred or released: ")
            .append(NoticeText::names(names(true)))
            .and(".");
    }
    text.and(
        " Their masked conversations end soon, but for groups, which go on. Backups still have what \
         they had when they were made.",
    )
}

/// Why the bot leaves a room that is not encrypted.
pub const NOT_ENCRYPTED: &str = "This room is not encrypted, and I can't turn encryption on. Start a new, encrypted chat with me.";

/// Answers a message that could not be decrypted.
pub fn unreadable() -> NoticeText {
    NoticeText::new(
        "I couldn't decrypt that message, so I haven't done anything. Please send it again. If that \
         doesn't help, start a new chat with me.",
    )
}

/// Answers a message whose content is valid and beyond what we read.
pub fn not_understood() -> NoticeText {
    NoticeText::new(
        "I couldn't read that message, so I haven't done anything. Please type it again, as plain \
         text.",
    )
}

/// Answers a message that was not encrypted.
pub fn not_encrypted() -> NoticeText {
    NoticeText::new(
        "That message wasn't encrypted, so I haven't done anything. This room is encrypted now: \
         please send it again.",
    )
}

/// Tells an owner that the ghost of their handle is not made yet. Returns `None` for every other
/// effect.
pub fn ghost_owed(effect: &Effect) -> Option<NoticeText> {
    let (Effect::MakeGhost { name, .. } | Effect::ReplaceIdentity { name, .. }) = effect else {
        return None;
    };
    Some(NoticeText::new(&format!(
        "I couldn't set up {name} yet, because the homeserver doesn't let me. Until then, people \
         can't start a chat with it. I'll keep trying and tell you when it's done."
    )))
}

/// Tells a person that something they asked for about themselves was not done. Returns `None` for
/// every other effect.
pub fn not_done(effect: &Effect) -> Option<NoticeText> {
    let what = match effect {
        Effect::SendExport { .. } => {
            "I couldn't send you the file, because the homeserver didn't take it."
        }
        Effect::ErasePerson { .. } => "I couldn't delete what I keep about you.",
        _ => return None,
    };
    Some(NoticeText::new(what).and(" Please try again later, or ask the admin of this server."))
}

/// Tells an owner that the ghost of their handle is made at last. Returns `None` for every other
/// effect.
pub fn ghost_made(effect: &Effect) -> Option<NoticeText> {
    let (Effect::MakeGhost { name, .. } | Effect::ReplaceIdentity { name, .. }) = effect else {
        return None;
    };
    Some(NoticeText::new(&format!(
        "{name} is set up now: people can start a chat with it."
    )))
}

/// Answers a request to verify the bot.
pub fn not_verified() -> NoticeText {
    NoticeText::new(
        "I declined your verification: I'm a service, and nobody is here who could compare emoji \
         with you. You don't need to verify me to write to me.",
    )
}

/// Tells an owner that the ghost of their handle could not be made. Returns `None` for every other
/// effect: the person is not told when one of those fails.
pub fn ghost_failed(effect: &Effect) -> Option<NoticeText> {
    let (Effect::MakeGhost { name, .. } | Effect::ReplaceIdentity { name, .. }) = effect else {
        return None;
    };
    Some(NoticeText::new(&format!(
        "I couldn't set up {name}: something on this server already uses its name or its keys. \
         It's frozen, so nobody can reach you by it. Please ask the admin of this server to look \
         into it."
    )))
}

/// Tells an owner, who invited the ghost of their own handle, what it is for.
pub fn own_handle(handle: &Handle) -> NoticeText {
    NoticeText::default().name(&handle.to_string()).and(
        " is yours, so its ghost has declined your invite. Other people reach you by starting a \
         chat with it.",
    )
}

/// Tells an owner, who has declined the invite of their handle's ghost, how to keep out the asker
/// and nobody else. Clients offer to block the inviter, which is the ghost.
pub fn declined(asker: &UserId, handle: &Handle, ghost: &UserId) -> NoticeText {
    let shown = fit_to_show(asker.as_str());
    // An ID with characters that are not shown is typed by its link.
    let typed = match shown == asker.as_str() {
        true => shown.clone(),
        false => asker.matrix_to_uri().to_string(),
    };
    NoticeText::new("You declined the chat that ")
        .name(&shown)
        .and(" started with you by your handle ")
        .name(&handle.to_string())
        .and(". They may try again. To keep them out: ")
        .code(&format!("block {typed} on {handle}"))
        .and(".")
        .paragraph()
        .and("If your client has also blocked or ignored ")
        .name(ghost.as_str())
        .and(
            ", it hides every chat that anybody starts with you by this handle, and nobody is \
             told. To undo that, remove it from the ignored users in your client's settings, or \
             write ",
        )
        .code(&format!("/unignore {ghost}"))
        .and(" in a client that has this command.")
}

pub(super) fn slow_down() -> NoticeText {
    NoticeText::new(
        "That's a lot at once. I haven't done this one, and for the next minute I ignore whatever \
         you send me. After that, please send it again.",
    )
}

/// Returns the answer to a command that is too old to be run.
pub fn too_old(age: Duration) -> NoticeText {
    let minutes = age.as_secs() / 60;
    let age = match minutes {
        0..120 => format!("{minutes} minutes"),
        120..2880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    };
    NoticeText::new(&format!(
        "This reached me {age} after you sent it, so I haven't done it. If you still want it, send \
         it again."
    ))
}

/// Tells an owner that a request can no longer be answered.
pub fn request_ended(number: u32, asker: &str) -> NoticeText {
    NoticeText::new(&format!(
        "Request {number} has ended without an answer, so you can no longer accept it. If "
    ))
    .name(asker)
    .and(" asks again, I'll show you a new request.")
}

/// Says that a command came from a device that its owner has not signed.
pub fn unsigned_device() -> NoticeText {
    NoticeText::new(
        "I haven't done what you wrote, because you haven't verified the device that you sent it \
         from. Verify it in your client's settings, then send it again.",
    )
}

/// Says that a command came from a device that the account no longer has.
pub fn unknown_device() -> NoticeText {
    NoticeText::new(
        "I haven't done what you wrote, because your account no longer has the device that it came \
         from. Please send it again from one that you have verified.",
    )
}

/// Says that a command came from an account with too many devices.
pub fn too_many_devices() -> NoticeText {
    NoticeText::new(
        "I couldn't read what you wrote: your account has too many devices, or their keys are too \
         large. Sign out of the devices that you no longer use, then send it again.",
    )
}

pub(super) fn from_the_future() -> NoticeText {
    NoticeText::new(
        "The time on your message is in the future, so I haven't done what it says. The clocks of \
         your homeserver and this one differ: please tell their admins.",
    )
}

pub(super) fn too_long() -> NoticeText {
    NoticeText::new("That's longer than any of my commands, so I haven't read it. ")
        .code("help")
        .and(" shows what I understand.")
}

pub(super) fn one_at_a_time() -> NoticeText {
    NoticeText::new("One command per message, please. I haven't done any of these.")
}

pub(super) fn unclear_person() -> NoticeText {
    NoticeText::new(
        "I'm not sure whom you mean, so I haven't done anything. Please write the handle or the \
         Matrix ID, for example ",
    )
    .code("block @kim")
    .and(".")
}

pub(super) fn overridden() -> NoticeText {
    NoticeText::new(
        "Your message has an invisible character that turns words around, so what you see isn't \
         what I would read. I haven't done anything. Please type it by hand.",
    )
}

pub(super) fn lookalike_attempt(handle: &Handle, attempt: &Handle) -> NoticeText {
    NoticeText::new("Someone tried to claim ")
        .name(&attempt.to_string())
        .and(", which looks like your ")
        .name(&handle.to_string())
        .and(". They didn't get it. You don't have to do anything.")
}
