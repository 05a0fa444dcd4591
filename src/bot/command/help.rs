//! `help`: the commands that this person can use now.

use super::{
    ALL, Answer, Command, CommandContext, CommandError, NoticeText, admin, no_handle_text,
};

pub(super) const COMMAND: Command = Command {
    name: "help",
    aliases: &["?", "commands", "hello", "hi", "hey", "start"],
    usage: "help",
    about: "shows this",
    offered: |_| true,
    run,
};

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    if let Some(word) = words.first()
        && let Some(command) = ALL
            .iter()
            .find(|command| command.is_called(&word.to_lowercase()))
        // Only admins learn of their command.
        && (command.name != admin::COMMAND.name || context.is_admin())
    {
        return Ok(NoticeText::default()
            .code(command.usage)
            .and(" ")
            .and(command.about)
            .and(".")
            .into());
    }
    let person = context.person_state()?;
    let text = if person.handles.is_empty() {
        no_handle_text(context.may_claim())
    } else {
        NoticeText::new("What you can write to me:")
    };
    let offered = ALL.iter().filter(|command| (command.offered)(&person));
    let lines = offered.map(|command| {
        NoticeText::default()
            .code(command.usage)
            .and(" ")
            .and(command.about)
    });
    Ok(text.list(lines).into())
}
