//! `confirm 4827`: run the action that waits for this code.
//!
//! A command has to come from the person, encrypted by a device of theirs, and each code is new. So
//! nobody can replay an old message to destroy something.

use super::{
    Answer, Command, CommandContext, CommandError, NoticeText, admin, appear, forget, mode, release,
};
use crate::bot::confirmation::{self, Action, RedeemedCode};

pub(super) const COMMAND: Command = Command {
    name: "confirm",
    aliases: &["yes", "ok"],
    usage: "confirm 1234",
    about: "does what waits for that code",
    offered: |person| person.has_confirmation,
    run,
};

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    let code = words.concat();
    if code.is_empty() {
        return Err(
            if confirmation::current(context.tx, context.person, context.now)?.is_some() {
                COMMAND.usage_error("add the code I gave you", "confirm 1234")
            } else {
                nothing_waits()
            },
        );
    }
    match confirmation::redeem_code(context.tx, context.person, &code, context.now)? {
        RedeemedCode::Do(Action::Release { handle, generation }) => {
            release::confirmed(context, &handle, generation)
        }
        RedeemedCode::Do(Action::Unmask {
            handle,
            generation,
            strict,
        }) => mode::confirmed(context, &handle, generation, strict),
        RedeemedCode::Do(Action::Rename { handle, name }) => {
            appear::confirmed(context, &handle, name)
        }
        RedeemedCode::Do(Action::ActOnHandle {
            act,
            handle,
            generation,
            reason,
        }) => admin::confirmed(context, &act, &handle, generation, &reason),
        RedeemedCode::Do(Action::Forget) => Ok(forget::confirmed(context)),
        RedeemedCode::Nothing => Err(nothing_waits()),
        RedeemedCode::Wrong { tries_left: 0 } => Err(CommandError::Refused(NoticeText::new(
            "That isn't the code either, so I've dropped what was waiting for it. Nothing was changed.",
        ))),
        RedeemedCode::Wrong { tries_left } => Err(CommandError::Refused(
            NoticeText::new("That isn't the code I gave you. ")
                .and(&match tries_left {
                    1 => "You have one more try".to_owned(),
                    more => format!("You have {more} more tries"),
                })
                .and(", or write ")
                .code("cancel")
                .and("."),
        )),
    }
}

fn nothing_waits() -> CommandError {
    CommandError::Refused(NoticeText::new(
        "Nothing is waiting for a code, or the code has expired. Nothing was changed.",
    ))
}
