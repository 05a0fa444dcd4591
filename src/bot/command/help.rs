//! `help`: what this person can do now.

use super::{ALL, Answer, Call, Command, Fail, NoticeText, no_handle};

pub(super) const COMMAND: Command = Command {
    name: "help",
    aliases: &["?", "commands", "hello", "hi", "hey", "start"],
    usage: "help",
    about: "shows this",
    offered: |_| true,
    run,
};

fn run(call: &mut Call<'_, '_>, words: &[&str]) -> Result<Answer, Fail> {
    if let Some(word) = words.first()
        && let Some(command) = ALL
            .iter()
            .find(|command| command.is_called(&word.to_lowercase()))
    {
        return Ok(NoticeText::default()
            .code(command.usage)
            .and(" ")
            .and(command.about)
            .and(".")
            .into());
    }
    let standing = call.standing()?;
    let mut text = if standing.handles.is_empty() {
        no_handle()
    } else {
        NoticeText::new("What you can write to me:")
    };
    for command in ALL.iter().filter(|command| (command.offered)(&standing)) {
        text = text.item().code(command.usage).and(" ").and(command.about);
    }
    Ok(text.into())
}
