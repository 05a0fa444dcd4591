//! `policy sam everyone`, `… ask`, `… nobody`: who may reach a person by a handle.

use super::{Answer, Command, CommandContext, CommandError, NoticeText, handles};
use crate::{
    bot::request::decline_requests,
    directory::{DirectoryError, Others, Policy, Reach, Request},
};

pub(super) const COMMAND: Command = Command {
    name: "policy",
    aliases: &["allow"],
    usage: "policy sam everyone|ask|nobody",
    about: "sets who may reach you",
    offered: |person| !person.handles.is_empty(),
    run,
};

/// A policy as it is typed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PolicyChoice {
    Everyone,
    Ask,
    Nobody,
    /// A policy that is planned, and not offered.
    NotYet(&'static str),
}

impl PolicyChoice {
    fn of(word: &str) -> Option<Self> {
        match word {
            "everyone" | "everybody" | "all" | "anyone" => Some(Self::Everyone),
            "ask" | "request" | "requests" => Some(Self::Ask),
            "nobody" | "none" | "no-one" | "noone" => Some(Self::Nobody),
            "handles" => Some(Self::NotYet("policy `handles`")),
            "verified" => Some(Self::NotYet("policy `verified`")),
            "contacts" => Some(Self::NotYet("policy `contacts`")),
            _ => None,
        }
    }
}

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    let is_value = |word: &str| PolicyChoice::of(word).is_some();
    let (record, rest) = context.find_own_handle(&COMMAND, "policy sam nobody", words, is_value)?;
    let shown = record.handle.as_shown().to_owned();
    let choice = match rest {
        [] => {
            return Ok(NoticeText::default()
                .name(&record.handle.to_string())
                .and(&format!(
                    ": {}. You can choose between ",
                    handles::reach_text(&record)
                ))
                .code(&format!("policy {shown} everyone"))
                .and(", ")
                .code(&format!("policy {shown} ask"))
                .and(" and ")
                .code(&format!("policy {shown} nobody"))
                .and(".")
                .into());
        }
        [word] => PolicyChoice::of(&word.to_lowercase()),
        _ => None,
    };
    let (direct, others) = match choice {
        Some(PolicyChoice::Everyone) => (Reach::Everyone, Others::Refuse),
        // A person whom the owner accepted once need not ask again.
        Some(PolicyChoice::Ask) => (Reach::Contacts, Others::Request),
        Some(PolicyChoice::Nobody) => (Reach::Nobody, Others::Refuse),
        Some(PolicyChoice::NotYet(what)) => {
            let refusal = DirectoryError::NotYet(what);
            return Err(
                COMMAND.usage_error(&refusal.to_string(), &format!("policy {shown} nobody"))
            );
        }
        None => {
            return Err(COMMAND.usage_error(
                "a policy is everyone, ask or nobody",
                &format!("policy {shown} ask"),
            ));
        }
    };
    let policy = Policy { direct, others };
    let record = context
        .tx
        .set_policy(context.person, &record.handle, policy)?;
    let text = NoticeText::default().name(&record.handle.to_string());
    let mut answer = Answer::from(policy_text(
        text,
        direct,
        record.is_strict(context.options.strict),
    ));
    if direct == Reach::Nobody {
        let is_meant = |_, request: &Request| request.handle == record.handle;
        answer.effects = decline_requests(context.tx, context.person, is_meant)?;
    }
    if !answer.effects.is_empty() {
        let text = answer.text.unwrap_or_default();
        answer.text = Some(text.and(" I've turned down those who were waiting for your answer."));
    }
    Ok(answer)
}

/// Returns what a policy means from now on.
fn policy_text(text: NoticeText, direct: Reach, strict: bool) -> NoticeText {
    match direct {
        Reach::Everyone => text
            .and(": from now on everyone may reach you. To keep someone out: ")
            .code("block @kim")
            .and("."),
        Reach::Nobody => text.and(
            ": from now on nobody reaches you by it. People who try see the same message as if you \
             had blocked them. Chats that you have go on.",
        ),
        _ if strict => text.and(
            ": from now on people ask first. I'll show you here who asks, and you accept, decline \
             or block them. People you have accepted once don't have to ask again. What they write \
             before you come can't be read, neither by you nor by this service.",
        ),
        _ => text.and(
            ": from now on people ask first. I'll show you here who asks and the first thing they \
             write, and you accept, decline or block them. People you have accepted once don't have \
             to ask again. While someone waits for your answer, the handle's ghost is in their room, \
             and this service can read what they write.",
        ),
    }
}
