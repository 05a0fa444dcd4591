//! `dm @sam`: a link that starts a chat.
//!
//! For an open handle the link leads to its owner and needs no ghost. It tells no more than an invite
//! of the ghost would, and costs as much: it counts as a new conversation, and the answer is the same
//! whether the asker is blocked, refused or over a limit, or the handle is frozen or unclaimed.

use super::{Answer, Command, CommandContext, CommandError, NoticeText, claim::link_to, ghost_at};
use crate::{
    directory::{ReachQuery, Verdict},
    handle::{Handle, HandleRules, Typed},
    ids::Person,
};

pub(super) const COMMAND: Command = Command {
    name: "dm",
    aliases: &["msg", "message", "chat", "write", "find"],
    usage: "dm @sam",
    about: "gives you a link that starts a chat with someone",
    offered: |_| true,
    run,
};

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    let [typed] = words else {
        return Err(COMMAND.usage_error("say whom you want to write to", "dm @sam"));
    };
    let (handle, server) = match Typed::parse(typed, &HandleRules::WIDEST)? {
        Typed::Handle { handle, server } => (handle, server),
        Typed::Person(user) => {
            return Ok(
                NoticeText::new("That's a Matrix ID, so you don't need a handle: ")
                    .link(&user.matrix_to_uri().to_string())
                    .into(),
            );
        }
    };
    if let Some(server) = context.foreign_server(server) {
        let ghost = ghost_at(&handle, &server)?;
        return Ok(NoticeText::new(&format!(
            "Handles on {server} are managed by that server. If "
        ))
        .name(&format!("{handle}@{server}"))
        .and(" exists, this starts a chat: ")
        .append(link_to(&ghost))
        .into());
    }
    let verdict = context.tx.decide_reach_by_link(&ReachQuery {
        asker: context.person,
        handle: &handle,
        now: context.now,
    })?;
    Ok(match verdict {
        Verdict::Introduce {
            owner, generation, ..
        } => introduce(context, &handle, &owner, generation)?,
        Verdict::Relay { .. } => NoticeText::default()
            .name(&handle.to_string())
            .and(
                " is masked: you don't see each other's Matrix IDs, and this service passes on what \
                 you write and can read it on the way. This starts a chat: ",
            )
            .append(link_to(&context.ghost(&handle)?)),
        Verdict::Request { strict, masked, .. } => NoticeText::default()
            .name(&handle.to_string())
            .and(if !masked && (strict || context.options.strict) {
                " wants to be asked first. Start a chat with the handle and wait until the owner \
                 has come: what you write before, they can't read. This asks them: "
            } else {
                " wants to be asked first. Start a chat with the handle and write what you want to \
                 say. The owner sees your first message and answers: "
            })
            .append(link_to(&context.ghost(&handle)?)),
        Verdict::OwnHandle { .. } => NoticeText::default()
            .name(&handle.to_string())
            .and(" is yours: that would be a chat with yourself."),
        Verdict::NotNow(_) | Verdict::Unclaimed { .. } => not_now(&handle),
    }
    .into())
}

fn introduce(
    context: &CommandContext<'_, '_>,
    handle: &Handle,
    owner: &Person,
    generation: u32,
) -> Result<NoticeText, CommandError> {
    let name = handle.to_string();
    let text = match context
        .tx
        .room_of(context.person, handle, generation, context.now)?
    {
        Some(room) => NoticeText::new("You have a room with ")
            .name(&name)
            .and(": ")
            .link(&room.matrix_to_uri().to_string())
            .and(" To start another one: "),
        None => NoticeText::new("This starts a chat with ")
            .name(&name)
            .and(": "),
    };
    Ok(text
        .link(&owner.matrix_to_uri().to_string())
        .paragraph()
        .and("It leads to the owner of the handle, so nobody comes between you."))
}

/// The one answer to everybody who cannot reach the handle's owner now.
fn not_now(handle: &Handle) -> NoticeText {
    NoticeText::new("I can't bring you together with ")
        .name(&handle.to_string())
        .and(
            " now. Perhaps nobody has this handle, perhaps its owner isn't taking new conversations, \
             perhaps you've started many today. That's all I can tell you.",
        )
}
