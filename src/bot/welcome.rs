//! What the bot says that is no answer to a command.

use std::time::Duration;

use ruma::{RoomId, ServerName, UserId};

use super::{Answer, Say, command};
use crate::{
    clock::Timestamp,
    directory::{DirectoryError, DirectoryTransaction},
    handle::Handle,
};

/// What the bot says when it comes into a control room.
pub fn greeting(
    person: &UserId,
    change: &DirectoryTransaction<'_>,
) -> Result<Answer, DirectoryError> {
    let handles = change.handles_of(person)?;
    let say = Say::text("Hello! I look after the handles of ")
        .strong(change.settings().server_name.as_str())
        .and(
            ". With a handle people can start an encrypted chat with you, knowing nothing but that \
              name.",
        )
        .par();
    let say = match handles.first() {
        None => say
            .and("To get one, pick a name and write, for example, ")
            .code("claim sam")
            .and(". "),
        Some(_) => say
            .and("You have ")
            .then(command::list(
                handles.iter().map(|record| record.handle.to_string()),
            ))
            .and(". To see more of it, write ")
            .code("handles")
            .and(". "),
    };
    Ok(say
        .and("To write to somebody: ")
        .code("dm @kim")
        .and(". All I can do: ")
        .code("help")
        .and(".")
        .into())
}

/// What somebody reads in a control room when they have a newer one.
pub(super) fn moved(room: &RoomId, via: &ServerName) -> Say {
    Say::text("You have another chat with me now, and we go on there: ")
        .link(&room.matrix_to_uri_via([via.to_owned()]).to_string())
        .and(" I am leaving this one.")
}

/// The answer to pictures, voice messages and the like.
pub fn not_text() -> Answer {
    Say::text("I only read text. Write ")
        .code("help")
        .and(" to see what I can do.")
        .into()
}

/// What somebody hears after the service was restored from a backup.
pub(super) fn restored(made: Option<Timestamp>) -> Say {
    let when = match made {
        Some(made) => format!("a backup of {made}"),
        None => "a backup".to_owned(),
    };
    Say::text(&format!(
        "I was restored from {when}. What you have asked me to change since then is undone: please \
         look at "
    ))
    .code("handles")
    .and(" and, for your blocks, at ")
    .code("unblock")
    .and(
        ". If you wrote to me and got no answer, please write it again: I can no longer read what \
         was sent before.",
    )
}

pub(super) fn slow_down() -> Say {
    Say::text("That is a lot at once. I stop listening for a minute; after that, go on.")
}

pub(super) fn too_old(age: Duration) -> Say {
    let minutes = age.as_secs() / 60;
    let age = match minutes {
        0..120 => format!("{minutes} minutes"),
        120..2880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    };
    Say::text(&format!(
        "This reached me {age} after you sent it, so I have not done it. If you still want it, \
         send it again."
    ))
}

pub(super) fn from_the_future() -> Say {
    Say::text(
        "Your message carries a time that lies in the future, so I have not done what it says. \
         The clocks of your homeserver and this one differ: please tell their admins.",
    )
}

pub(super) fn too_long() -> Say {
    Say::text("That is longer than any command of mine, so I have not read it. ")
        .code("help")
        .and(" shows what I understand.")
}

pub(super) fn one_at_a_time() -> Say {
    Say::text("One command per message, please. I have done none of these.")
}

pub(super) fn lookalike_attempt(handle: &Handle, attempt: &Handle) -> Say {
    Say::text("Somebody wanted to claim ")
        .strong(&attempt.to_string())
        .and(", which looks like your ")
        .strong(&handle.to_string())
        .and(". They did not get it. You need not do anything.")
}
