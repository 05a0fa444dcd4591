//! `requests`, `accept 1`, `decline 1`: people who ask first.

use super::{Answer, Call, Command, Fail, NoticeText, date};
use crate::bot::request::{self, Choice};

pub(super) const LIST: Command = Command {
    name: "requests",
    aliases: &["request", "pending"],
    usage: "requests",
    about: "shows who asks to chat with you",
    offered: |standing| standing.is_requested,
    run: list,
};

pub(super) const ACCEPT: Command = Command {
    name: "accept",
    aliases: &["admit"],
    usage: "accept 1",
    about: "lets somebody who asks chat with you",
    offered: |standing| standing.is_requested,
    run: |call, words| answer(call, &ACCEPT, Choice::Accept, words),
};

pub(super) const DECLINE: Command = Command {
    name: "decline",
    aliases: &["refuse", "reject", "deny"],
    usage: "decline 1",
    about: "turns down somebody who asks",
    offered: |standing| standing.is_requested,
    run: |call, words| answer(call, &DECLINE, Choice::Decline, words),
};

fn list(call: &mut Call<'_, '_>, _: &[&str]) -> Result<Answer, Fail> {
    let requests = call.change.requests_of(call.person)?;
    if requests.is_empty() {
        return Err(nobody_asks());
    }
    let mut text = NoticeText::new("These people ask to chat with you:");
    for (number, request) in &requests {
        text = text.item().strong(&number.to_string()).and(&format!(
            ": {}, to your handle {}, since {}",
            request.asker_named(*number),
            request.handle,
            date(request.since)
        ));
    }
    Ok(text
        .line()
        .and("Write ")
        .code("accept 1")
        .and(", ")
        .code("decline 1")
        .and(" or ")
        .code("block 1")
        .and(" with the number that you mean.")
        .into())
}

fn answer(
    call: &mut Call<'_, '_>,
    command: &Command,
    choice: Choice,
    words: &[&str],
) -> Result<Answer, Fail> {
    let requests = call.change.requests_of(call.person)?;
    let number = match (words, requests.as_slice()) {
        (_, []) => return Err(nobody_asks()),
        ([], [(only, _)]) => *only,
        ([typed], _) => match number(typed) {
            Some(number) => number,
            None => return Err(command.wrong("say which request, by its number", command.usage)),
        },
        _ => {
            return Err(command.wrong(
                "several people ask, so say which request you mean, by its number",
                command.usage,
            ));
        }
    };
    match request::answer(call.change, call.person, number, choice, call.now)? {
        Some(answer) => Ok(answer),
        None => Err(no_such(number)),
    }
}

/// What to say of a number behind which nobody asks.
pub(super) fn no_such(number: u32) -> Fail {
    Fail::Told(
        NoticeText::new(&format!("There is no request {number} any more. "))
            .code("requests")
            .and(" shows those that there are."),
    )
}

/// The number of a request, as it is typed: `1`, `#1`.
pub(super) fn number(typed: &str) -> Option<u32> {
    typed.strip_prefix('#').unwrap_or(typed).parse().ok()
}

fn nobody_asks() -> Fail {
    Fail::Told(NoticeText::new(
        "Nobody asks to chat with you at the moment.",
    ))
}
