//! `policy sam everyone`, `… ask`, `… nobody`: who may reach somebody by a handle.

use super::{Answer, Call, Command, Fail, NoticeText, handles, sentence};
use crate::directory::{DirectoryError, Others, Policy, Reach};

pub(super) const COMMAND: Command = Command {
    name: "policy",
    aliases: &["allow"],
    usage: "policy sam everyone|ask|nobody",
    about: "sets who may reach you",
    offered: |standing| !standing.handles.is_empty(),
    run,
};

/// What can be set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Everyone,
    Ask,
    Nobody,
    /// Known, and not offered.
    NotYet(&'static str),
}

impl Choice {
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

fn run(call: &mut Call<'_, '_>, words: &[&str]) -> Result<Answer, Fail> {
    let is_value = |word: &str| Choice::of(word).is_some();
    let (record, rest) = call.own_handle(&COMMAND, "policy sam nobody", words, is_value)?;
    let shown = record.handle.as_shown().to_owned();
    let choice = match rest {
        [] => {
            return Ok(NoticeText::default()
                .strong(&record.handle.to_string())
                .and(&format!(
                    ": {}. You can choose between ",
                    handles::reach(&record)
                ))
                .code(&format!("policy {shown} everyone"))
                .and(", ")
                .code(&format!("policy {shown} ask"))
                .and(" and ")
                .code(&format!("policy {shown} nobody"))
                .and(".")
                .into());
        }
        [word] => Choice::of(&word.to_lowercase()),
        _ => None,
    };
    let (direct, others) = match choice {
        Some(Choice::Everyone) => (Reach::Everyone, Others::Refuse),
        // Whom the owner accepted once need not ask again.
        Some(Choice::Ask) => (Reach::Contacts, Others::Request),
        Some(Choice::Nobody) => (Reach::Nobody, Others::Refuse),
        Some(Choice::NotYet(what)) => {
            let refusal = DirectoryError::NotYet(what);
            return Err(COMMAND.wrong(
                sentence(&refusal.to_string()).trim_end_matches('.'),
                &format!("policy {shown} nobody"),
            ));
        }
        None => {
            return Err(COMMAND.wrong(
                "a policy is everyone, ask or nobody",
                &format!("policy {shown} ask"),
            ));
        }
    };
    let policy = Policy { direct, others };
    let record = call
        .change
        .set_policy(call.person, &record.handle, policy)?;
    let text = NoticeText::default().strong(&record.handle.to_string());
    Ok(match direct {
        Reach::Everyone => text
            .and(": from now on everyone may reach you. To keep somebody out: ")
            .code("block @kim")
            .and("."),
        Reach::Nobody => text.and(
            ": from now on nobody reaches you by it. Whoever tries is told \"not now\", in the same \
             words as if you had blocked them. Chats that you have go on.",
        ),
        _ => text.and(
            ": from now on people ask first. I show you here who asks and the first thing they \
             write, and you accept, decline or block them. Whom you accepted once need not ask \
             again. While somebody waits for your answer, the handle's ghost is in their room and \
             the service can read what they write.",
        ),
    }
    .into())
}
