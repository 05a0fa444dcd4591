//! `cancel`: drop what waits for a code.

use super::{Answer, Call, Command, Fail, NoticeText};
use crate::bot::confirmation;

pub(super) const COMMAND: Command = Command {
    name: "cancel",
    aliases: &["no", "stop", "abort"],
    usage: "cancel",
    about: "drops what waits for a code",
    offered: |standing| standing.is_asked,
    run,
};

fn run(call: &mut Call<'_, '_>, _: &[&str]) -> Result<Answer, Fail> {
    let waited = confirmation::cancel(call.change, call.person, call.now)?;
    let words = if waited {
        "Dropped. Nothing was changed."
    } else {
        "Nothing waits for a code, so there is nothing to cancel."
    };
    Ok(NoticeText::new(words).into())
}
