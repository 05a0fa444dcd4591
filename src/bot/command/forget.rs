//! `forget me`: delete what is kept about the person. It cannot be undone, so the command waits for
//! `confirm` and a new code.

use super::{Answer, Command, CommandContext, CommandError, NoticeText};
use crate::bot::{
    Effect,
    confirmation::{self, Action},
};

pub(super) const COMMAND: Command = Command {
    name: "forget",
    aliases: &["erase"],
    usage: "forget me",
    about: "deletes what I keep about you",
    offered: |_| true,
    run,
};

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    if !matches!(words, [me] if me.eq_ignore_ascii_case("me")) {
        return Err(COMMAND.usage_error("I can forget you, and nobody else", COMMAND.usage));
    }
    let names = context.handles()?.into_iter();
    let names: Vec<String> = names.map(|record| record.handle.to_string()).collect();
    let text = NoticeText::new(
        "I'd delete what I keep about you, end your masked conversations (groups go on), turn down \
         those who wait for your answer, and leave this chat.",
    );
    let text = match names.is_empty() {
        true => text,
        false => text
            .and(" You'd lose ")
            .append(NoticeText::names(names.into_iter()))
            .and(" for good, and nobody could claim what you had for a long time."),
    };
    let text = text.and(
        " Chats that an open handle has led to go on between you and the other person. What others \
         have blocked, and what an admin has decided, stays; so does what older backups hold. ",
    );
    let action = Action::Forget;
    let code =
        confirmation::issue_code(context.tx, context.person, action, context.now, context.rng)?;
    Ok(text.append(confirmation::code_text(&code)).into())
}

/// Erases the person once the code has been confirmed.
pub(super) fn confirmed(context: &CommandContext<'_, '_>) -> Answer {
    let mut answer = Answer::from(NoticeText::new(
        "Done. I leave this chat now. If you write to me again, in a new chat, I'll know nothing of \
         you, but what you have used of today's limits still counts.",
    ));
    answer.effects.push(Effect::ErasePerson {
        person: context.person.clone(),
    });
    answer
}
