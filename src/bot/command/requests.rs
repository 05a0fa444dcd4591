//! `requests`, `accept 1`, `decline 1`: people who ask first.

use super::{Answer, Command, CommandContext, CommandError, NoticeText, format_date};
use crate::bot::request::{self, RequestChoice};

pub(super) const LIST: Command = Command {
    name: "requests",
    aliases: &["request", "pending"],
    usage: "requests",
    about: "shows who asks to chat with you",
    offered: |person| person.has_requests,
    run: list,
};

pub(super) const ACCEPT: Command = Command {
    name: "accept",
    aliases: &["admit"],
    usage: "accept 1",
    about: "accepts a request, so that you two can chat",
    offered: |person| person.has_requests,
    run: |context, words| answer_request(context, &ACCEPT, RequestChoice::Accept, words),
};

pub(super) const DECLINE: Command = Command {
    name: "decline",
    aliases: &["refuse", "reject", "deny"],
    usage: "decline 1",
    about: "turns a request down",
    offered: |person| person.has_requests,
    run: |context, words| answer_request(context, &DECLINE, RequestChoice::Decline, words),
};

fn list(context: &mut CommandContext<'_, '_>, _: &[&str]) -> Result<Answer, CommandError> {
    let requests = context.tx.requests_of(context.person)?;
    if requests.is_empty() {
        return Err(nobody_asks());
    }
    let lines = requests.iter().map(|(number, request)| {
        NoticeText::default()
            .strong(&number.to_string())
            .and(": ")
            .name(&request.asker_named(*number))
            .and(", to your handle ")
            .name(&request.handle.to_string())
            .and(&format!(", since {}", format_date(request.since)))
    });
    Ok(NoticeText::new("These people ask to chat with you:")
        .list(lines)
        .line()
        .and("Write ")
        .code("accept 1")
        .and(", ")
        .code("decline 1")
        .and(" or ")
        .code("block 1")
        .and(" with the number you mean.")
        .into())
}

fn answer_request(
    context: &mut CommandContext<'_, '_>,
    command: &Command,
    choice: RequestChoice,
    words: &[&str],
) -> Result<Answer, CommandError> {
    let requests = context.tx.requests_of(context.person)?;
    let number = match (words, requests.as_slice()) {
        (_, []) => return Err(nobody_asks()),
        ([], [(only, _)]) => *only,
        ([typed], _) => match parse_number(typed) {
            Some(number) => number,
            None => {
                return Err(command.usage_error("say which request, by its number", command.usage));
            }
        },
        _ => {
            return Err(command.usage_error(
                "several people are asking, so say which request you mean, by its number",
                command.usage,
            ));
        }
    };
    match request::answer_request(context.tx, context.person, number, choice, context.now)? {
        Some(answer) => Ok(answer),
        None => Err(no_such_request(number)),
    }
}

/// Returns the answer to the number of a request that is not open.
pub(super) fn no_such_request(number: u32) -> CommandError {
    CommandError::Refused(
        NoticeText::new(&format!("There's no open request {number}. "))
            .code("requests")
            .and(" shows those that are open."),
    )
}

/// Reads the number of a request: `1` or `#1`.
pub(super) fn parse_number(typed: &str) -> Option<u32> {
    typed.strip_prefix('#').unwrap_or(typed).parse().ok()
}

fn nobody_asks() -> CommandError {
    CommandError::Refused(NoticeText::new(
        "Nobody is asking to chat with you at the moment.",
    ))
}
