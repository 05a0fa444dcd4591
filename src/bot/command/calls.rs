//! `calls sam hidden|direct`: whether calls by a masked handle hide the network addresses of both
//! people.

use super::{Answer, Command, CommandContext, CommandError, NoticeText};
use crate::directory::Mode;

pub(super) const COMMAND: Command = Command {
    name: "calls",
    aliases: &["call"],
    usage: "calls sam hidden|direct",
    about: "sets whether calls by a masked handle hide where you are",
    offered: |person| {
        let mut handles = person.handles.iter();
        handles.any(|record| record.mode == Mode::Masked)
    },
    run,
};

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    let is_value = |word: &str| matches!(word, "hidden" | "direct");
    let (record, rest) = context.find_own_handle(&COMMAND, "calls sam hidden", words, is_value)?;
    let shown = record.handle.as_shown().to_owned();
    if record.mode != Mode::Masked {
        return Err(CommandError::Refused(
            NoticeText::default().name(&record.handle.to_string()).and(
                " isn't masked: you and the people who reach you by it are in one room, and call \
                 each other as in any other. This setting is for masked handles.",
            ),
        ));
    }
    let hide = match rest {
        [] => record.hide_addresses,
        [word] if word.eq_ignore_ascii_case("hidden") => true,
        [word] if word.eq_ignore_ascii_case("direct") => false,
        _ => {
            return Err(COMMAND.usage_error(
                "calls are either hidden or direct",
                &format!("calls {shown} hidden"),
            ));
        }
    };
    let record = if rest.is_empty() {
        record
    } else {
        context
            .tx
            .set_hide_addresses(context.person, &record.handle, hide)?
    };
    let text = NoticeText::new("Calls by ").name(&record.handle.to_string());
    let text = if hide {
        text.and(
            " are hidden: they go through the call server (TURN) of each homeserver, so that \
             neither of you learns the other's network address. If a homeserver has none, calls \
             can't be made. To allow direct calls: ",
        )
    } else {
        text.and(
            " are direct: the two of you can learn each other's network address, and so roughly \
             where the other is. To hide it: ",
        )
    };
    let other = if hide { "direct" } else { "hidden" };
    Ok(text.code(&format!("calls {shown} {other}")).and(".").into())
}
