//! An invite of the bot: what it does about it before it goes in.

use ruma::UserId;

use super::{Say, control_room};
use crate::{
    clock::Timestamp,
    directory::{Counted, DAY, DirectoryError, DirectoryTransaction, Limit, host_of},
    engine::Invited,
    introduction::RoomView,
};

/// How often within a day a person, or a whole other server, is told that this is too often.
const REFUSALS: Limit = Limit {
    most: 10,
    window: DAY,
};

/// Decides on an invite of `bot` by `person`, from what it shows of the room. Every invite counts,
/// whatever becomes of it.
pub(super) fn invited(
    person: &UserId,
    view: &RoomView,
    bot: &UserId,
    change: &mut DirectoryTransaction<'_>,
    now: Timestamp,
) -> Result<Invited, DirectoryError> {
    if change.count_bot_invite(person, now)? {
        return Ok(match control_room::look_from_outside(view, person, bot) {
            None => Invited::Come,
            Some(why) => Invited::Decline(why.to_string()),
        });
    }
    let own = &change.settings().server_name;
    let subject = match person.server_name() == own {
        true => person.to_string(),
        false => host_of(person.server_name()),
    };
    Ok(
        match change.count(Counted::BotRefusals, &subject, REFUSALS, now)? {
            true => Invited::Decline(too_often().plain().to_owned()),
            false => Invited::LeaveAlone,
        },
    )
}

fn too_often() -> Say {
    Say::text(
        "You, or the people of your server, have started too many chats with me today. Please use \
         a chat that you have with me already, or try again tomorrow.",
    )
}
