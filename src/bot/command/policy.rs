//! `policy sam everyone`, `policy sam nobody`: who may reach somebody by a handle.

use super::{Answer, Call, Command, Fail, Say, handles, sentence};
use crate::directory::{DirectoryError, Others, Policy, Reach};

pub(super) const COMMAND: Command = Command {
    name: "policy",
    aliases: &["allow"],
    usage: "policy sam everyone|nobody",
    about: "sets who may reach you",
    offered: |standing| !standing.handles.is_empty(),
    run,
};

fn value(word: &str) -> Option<Reach> {
    match word {
        "everyone" | "everybody" | "all" | "anyone" => Some(Reach::Everyone),
        "nobody" | "none" | "no-one" | "noone" => Some(Reach::Nobody),
        "handles" => Some(Reach::Handles),
        "verified" => Some(Reach::Verified),
        "contacts" => Some(Reach::Contacts),
        _ => None,
    }
}

fn run(call: &mut Call<'_, '_>, words: &[&str]) -> Result<Answer, Fail> {
    let is_value = |word: &str| value(word).is_some();
    let (record, rest) = call.own_handle(&COMMAND, "policy sam nobody", words, is_value)?;
    let shown = record.handle.as_shown().to_owned();
    let direct = match rest {
        [] => {
            return Ok(Say::default()
                .strong(&record.handle.to_string())
                .and(&format!(
                    ": {}. You can choose between ",
                    handles::reach(&record)
                ))
                .code(&format!("policy {shown} everyone"))
                .and(" and ")
                .code(&format!("policy {shown} nobody"))
                .and(".")
                .into());
        }
        [word] => value(&word.to_lowercase()),
        _ => None,
    };
    match direct {
        Some(direct @ (Reach::Everyone | Reach::Nobody)) => {
            let policy = Policy {
                direct,
                others: Others::Refuse,
            };
            let record = call
                .change
                .set_policy(call.person, &record.handle, policy)?;
            let say = Say::default().strong(&record.handle.to_string());
            Ok(if direct == Reach::Everyone {
                say.and(": from now on everyone may reach you. To keep somebody out: ")
                    .code("block @kim")
                    .and(".")
            } else {
                say.and(
                    ": from now on nobody reaches you by it. Whoever tries is told \"not now\", \
                     in the same words as if you had blocked them. Chats that you have go on.",
                )
            }
            .into())
        }
        Some(other) => {
            let refusal = DirectoryError::NotYet(match other {
                Reach::Handles => "policy `handles`",
                Reach::Verified => "policy `verified`",
                _ => "policy `contacts`",
            });
            Err(COMMAND.wrong(
                sentence(&refusal.to_string()).trim_end_matches('.'),
                &format!("policy {shown} nobody"),
            ))
        }
        None => Err(COMMAND.wrong(
            "a policy is either everyone or nobody",
            &format!("policy {shown} nobody"),
        )),
    }
}
