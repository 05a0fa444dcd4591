//! `claim sam`: become the owner of a handle.

use ruma::UserId;

use super::{Answer, Command, CommandContext, CommandError, NoticeText, format_date, sentence};
use crate::{
    bot::Effect,
    directory::{ClaimedBy, DirectoryError},
    handle::{Handle, HandleError, Typed},
};

pub(super) const COMMAND: Command = Command {
    name: "claim",
    aliases: &["register", "take", "get"],
    usage: "claim sam",
    about: "makes a handle yours",
    offered: |person| person.can_claim_more,
    run,
};

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    let handle = parse_handle(context, words)?;
    let had_owner = context.tx.had_owner(&handle)?;
    let claimed = context
        .tx
        .claim(context.person, &handle, ClaimedBy::Person, context.now);
    let record = claimed.map_err(explain)?;
    let name = record.handle.to_string();
    let ghost = context.ghost(&record.handle)?;
    let text = NoticeText::new("")
        .name(&name)
        .and(" is yours. In a moment people can reach you by starting a chat with ")
        .name(ghost.as_str())
        .and(", or with this link: ")
        .append(link_to(&ghost))
        .paragraph()
        .and(privacy_text(record.strict, context.options.module_loaded))
        .and("People who reach you by it see your Matrix ID, ")
        .name(context.person.as_str())
        .and(", and know it from then on.")
        .append(decline_text(&ghost, context.options.module_loaded))
        .paragraph()
        .and("To be left alone: ")
        .code(&format!("policy {} nobody", record.handle.as_shown()))
        .and(". All you can do: ")
        .code("help")
        .and(".");
    let mut answer = Answer::from(text);
    let generation = record.generation;
    // What is left of an earlier owner is removed first, also if that was the same person.
    answer.effects.push(match had_owner {
        false => Effect::MakeGhost {
            ghost,
            name,
            generation,
        },
        true => Effect::ReplaceIdentity {
            ghost,
            name,
            generation,
        },
    });
    Ok(answer)
}

/// Returns the answer to a claim that was refused, with what the person can do next.
fn explain(error: DirectoryError) -> CommandError {
    let text = sentence(&error.to_string());
    CommandError::Refused(match error {
        DirectoryError::Quarantined { until, .. } => text
            .and(&format!(" It's free again on {}. ", format_date(until)))
            .and("Until then, try another name."),
        DirectoryError::Reserved(_)
        | DirectoryError::Taken(_)
        | DirectoryError::LooksLike { .. } => text.and(" Try another name."),
        DirectoryError::AlreadyYours(_) => text
            .and(" ")
            .code("handles")
            .and(" shows how it is set up."),
        error => return error.into(),
    })
}

/// Returns who can read what is written in a chat that begins with the handle.
fn privacy_text(strict: bool, module_loaded: bool) -> &'static str {
    if strict {
        "It's strict: nothing that people write passes through this service. "
    } else if module_loaded {
        "When people on this server start a chat with it, the chat is with you from the start. It \
         introduces others to you and leaves: after that, what you write is between you. "
    } else {
        "It introduces people to you and leaves: after that, what you write is between you. "
    }
}

/// Returns how to turn somebody away. Without the module the invites come from the ghost, and
/// clients offer to block the inviter.
pub(in crate::bot) fn decline_text(ghost: &UserId, module_loaded: bool) -> NoticeText {
    if module_loaded {
        return NoticeText::default();
    }
    NoticeText::default()
        .paragraph()
        .and("To keep someone out, decline the invite and write ")
        .code("block @user:server")
        .and(" to me. Don't let your client block or ignore ")
        .name(ghost.as_str())
        .and(": after that, nobody could reach you by your handle.")
}

/// Reads the handle that the person wants.
fn parse_handle(context: &CommandContext<'_, '_>, words: &[&str]) -> Result<Handle, CommandError> {
    let rules = &context.tx.settings().rules;
    let typed = words.join(" ");
    match Typed::parse(&typed, rules) {
        Ok(Typed::Handle { handle, server }) => match context.foreign_server(server) {
            Some(server) => Err(COMMAND.usage_error(
                &format!(
                    "handles on {server} are managed by that server, and here you get one of ours"
                ),
                &format!("claim {}", handle.as_shown()),
            )),
            // The parser of links and names of ghosts follows the widest rules.
            None => Ok(Handle::parse(handle.as_shown(), rules)?),
        },
        Ok(Typed::Person(user)) => Err(COMMAND.usage_error(
            &format!("{user} is a Matrix ID; a handle is a single name"),
            "claim sam",
        )),
        Err(HandleError::Empty) => {
            Err(COMMAND.usage_error("say which handle you want", "claim sam"))
        }
        Err(HandleError::NotAHandle) => Err(COMMAND.usage_error(
            "that can't be a handle; a handle is a single name",
            "claim sam",
        )),
        Err(error) => Err(error.into()),
    }
}

/// Returns a link that starts a chat with this user.
pub(in crate::bot) fn link_to(user: &UserId) -> NoticeText {
    NoticeText::default().link(&user.matrix_to_uri().to_string())
}
