//! `cancel`: drop the action that waits for a code.

use super::{Answer, Command, CommandContext, CommandError, NoticeText};
use crate::bot::confirmation;

pub(super) const COMMAND: Command = Command {
    name: "cancel",
    aliases: &["no", "stop", "abort"],
    usage: "cancel",
    about: "drops what is waiting for a code",
    offered: |person| person.has_confirmation,
    run,
};

fn run(context: &mut CommandContext<'_, '_>, _: &[&str]) -> Result<Answer, CommandError> {
    let waited = confirmation::cancel(context.tx, context.person, context.now)?;
    let words = if waited {
        "Dropped. Nothing was changed."
    } else {
        "Nothing is waiting for a code, so there's nothing to cancel."
    };
    Ok(NoticeText::new(words).into())
}
