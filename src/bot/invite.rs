//! How the bot answers an invite, before it joins the room.

use ruma::UserId;

use super::{NoticeText, control_room};
use crate::{
    clock::Timestamp,
    directory::{Counted, DAY, DirectoryError, DirectoryTransaction, Limit},
    ids::{Person, host_of},
    matrix::RoomState,
};

/// Limit on the further invites that the bot declines, per person (or per other server, for all its
/// people together). After that it ignores them.
const REFUSAL_LIMIT: Limit = Limit {
    most: 10,
    window: DAY,
};

/// The bot's answer to an invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InviteAnswer {
    /// The bot joins and checks the room.
    Join,
    /// The bot declines, with this reason.
    Decline(String),
    /// The bot does nothing: there are too many invites even to decline them.
    Ignore,
}

/// Decides about an invite of `bot` by `person`, from the part of the room's state that it shows.
/// Every invite counts against the limits, even one that is declined.
pub fn answer_invite(
    person: &Person,
    view: &RoomState,
    bot: &UserId,
    tx: &mut DirectoryTransaction<'_>,
    now: Timestamp,
) -> Result<InviteAnswer, DirectoryError> {
    if tx.count_bot_invite(person, now)? {
        return Ok(match control_room::check_invite(view, person, bot) {
            None => InviteAnswer::Join,
            Some(why) => InviteAnswer::Decline(why.to_string()),
        });
    }
    let own = &tx.settings().server_name;
    let subject = if person.server_name() == own {
        person.to_string()
    } else {
        host_of(person.server_name())
    };
    if tx.count(Counted::BotRefusals, &subject, REFUSAL_LIMIT, now)? {
        Ok(InviteAnswer::Decline(too_often_text().plain))
    } else {
        Ok(InviteAnswer::Ignore)
    }
}

fn too_often_text() -> NoticeText {
    NoticeText::new(
        "You, or the people on your server, have started too many chats with me today. Please use \
         a chat that you already have with me, or try again tomorrow.",
    )
}
