//! `dm @sam`: a link that starts a chat.
//!
//! For an open handle that is a link to its owner, which needs no ghost. Whoever asks here learns
//! no more and no cheaper than by inviting the ghost: it counts as a new conversation, and
//! blocked, refused, limited, frozen and unclaimed are answered in the same words.

use ruma::UserId;

use super::{Answer, Call, Command, Fail, Say, claim::link_to};
use crate::{
    directory::{ReachQuery, Verdict},
    handle::{Handle, HandleRules, Typed},
};

pub(super) const COMMAND: Command = Command {
    name: "dm",
    aliases: &["msg", "message", "chat", "write", "find"],
    usage: "dm @sam",
    about: "gives you a link that starts a chat with somebody",
    offered: |_| true,
    run,
};

fn run(call: &mut Call<'_, '_>, words: &[&str]) -> Result<Answer, Fail> {
    let [typed] = words else {
        return Err(COMMAND.wrong("say whom you want to write to", "dm @sam"));
    };
    let (handle, server) = match Typed::parse(typed, &HandleRules::WIDEST)? {
        Typed::Handle { handle, server } => (handle, server),
        Typed::Person(user) => {
            return Ok(Say::text("That is a Matrix ID, so you need no handle: ")
                .link(&user.matrix_to_uri().to_string())
                .into());
        }
    };
    if let Some(server) = call.elsewhere(server) {
        let ghost = handle.ghost_address(&server);
        return Ok(
            Say::text(&format!("Handles of {server} are looked after there. If "))
                .strong(&format!("{handle}@{server}"))
                .and(" exists, this starts a chat: ")
                .then(link_to(&ghost))
                .into(),
        );
    }
    let verdict = call.change.decide_reach_by_link(&ReachQuery {
        asker: call.person,
        handle: &handle,
        now: call.now,
    })?;
    Ok(match verdict {
        Verdict::Introduce {
            owner, generation, ..
        } => introduce(call, &handle, &owner, generation)?,
        Verdict::Relay { .. } => Say::default()
            .strong(&handle.to_string())
            .and(
                " is masked: you do not see each other's Matrix ID, and this service carries what \
                 you write and can read it on the way. This starts a chat: ",
            )
            .then(link_to(&call.ghost(&handle))),
        Verdict::Request { .. } => Say::default()
            .strong(&handle.to_string())
            .and(
                " likes to be asked first. Start a chat with the handle and write what you want to \
                  say; the owner sees your first message and answers: ",
            )
            .then(link_to(&call.ghost(&handle))),
        Verdict::OwnHandle { .. } => Say::default()
            .strong(&handle.to_string())
            .and(" is yours: that would be a chat with yourself."),
        Verdict::NotNow(_) | Verdict::Unclaimed { .. } => not_now(&handle),
    }
    .into())
}

fn introduce(
    call: &Call<'_, '_>,
    handle: &Handle,
    owner: &UserId,
    generation: u32,
) -> Result<Say, Fail> {
    let name = handle.to_string();
    let say = match call
        .change
        .room_of(call.person, handle, generation, call.now)?
    {
        Some(room) => Say::text("You have a room with ")
            .strong(&name)
            .and(": ")
            .link(&room.matrix_to_uri().to_string())
            .and(" To start another one: "),
        None => Say::text("This starts a chat with ")
            .strong(&name)
            .and(": "),
    };
    Ok(say
        .link(&owner.matrix_to_uri().to_string())
        .par()
        .and("It leads to the owner of the handle, so nobody comes between you."))
}

/// The one answer to all who cannot be brought together with somebody now.
fn not_now(handle: &Handle) -> Say {
    Say::text("I cannot bring you together with ")
        .strong(&handle.to_string())
        .and(
            " now. Perhaps nobody has this handle, perhaps its owner is not taking new \
             conversations, perhaps you have started many today. I do not know more than this to \
             tell you.",
        )
}
