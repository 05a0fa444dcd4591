//! `my data`: all that is kept about the person, as a file.

use super::{Answer, Command, CommandContext, CommandError, NoticeText};
use crate::{
    bot::Effect,
    directory::{Counted, DAY, Limit},
};

/// Maximum number of files that a person gets within a day: each costs a reading of whole tables.
const FILES_A_DAY: u32 = 5;

pub(super) const COMMAND: Command = Command {
    name: "my",
    aliases: &["export", "data"],
    usage: "my data",
    about: "sends you all that I keep about you",
    offered: |_| true,
    run,
};

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    let is_data = |word: &str| word.eq_ignore_ascii_case("data");
    if !matches!(words, []) && !matches!(words, [word] if is_data(word)) {
        return Err(COMMAND.usage_error("I can send you what I keep about you", COMMAND.usage));
    }
    let limit = Limit {
        most: FILES_A_DAY,
        window: DAY,
    };
    let person = context.person;
    if !context
        .tx
        .count(Counted::DataExports, person.as_str(), limit, context.now)?
    {
        return Err(CommandError::Refused(NoticeText::new(
            "I've sent it to you several times today. Please ask again tomorrow.",
        )));
    }
    // The file says what it is.
    Ok(Answer {
        text: None,
        effects: vec![Effect::SendExport {
            person: person.clone(),
        }],
    })
}
