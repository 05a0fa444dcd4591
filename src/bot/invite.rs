//! An invite of the bot: what it does about it before it goes in.

use ruma::UserId;

use super::{NoticeText, control_room};
use crate::{
    clock::Timestamp,
    directory::{Change, Counted, DAY, DirectoryError, Limit, host_of},
    introduction::RoomView,
};

/// How often within a day a person, or a whole other server, is told that this is too often.
const REFUSAL_LIMIT: Limit = Limit {
    most: 10,
    window: DAY,
};

/// What the bot does about an invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InviteAnswer {
    /// It joins and looks around.
    Join,
    /// It declines, with this reason.
    Decline(String),
    /// It does nothing: there are too many invites even to decline them.
    Ignore,
}

/// Decides on an invite of `bot` by `person`, from what it shows of the room. Every invite counts,
/// whatever becomes of it.
pub fn answer_invite(
    person: &UserId,
    view: &RoomView,
    bot: &UserId,
    change: &mut Change<'_>,
    now: Timestamp,
) -> Result<InviteAnswer, DirectoryError> {
    if change.ask_for_bot(person, now)? {
        return Ok(match control_room::check_invite(view, person, bot) {
            None => InviteAnswer::Join,
            Some(why) => InviteAnswer::Decline(why.to_string()),
        });
    }
    let own = &change.settings().server_name;
    let subject = match person.server_name() == own {
        true => person.to_string(),
        false => host_of(person.server_name()),
    };
    Ok(
        match change.count(Counted::BotRefusals, &subject, REFUSAL_LIMIT, now)? {
            true => InviteAnswer::Decline(too_often_text().plain),
            false => InviteAnswer::Ignore,
        },
    )
}

fn too_often_text() -> NoticeText {
    NoticeText::new(
        "You, or the people of your server, have started too many chats with me today. Please use \
         a chat that you have with me already, or try again tomorrow.",
    )
}
