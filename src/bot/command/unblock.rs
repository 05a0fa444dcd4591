//! `unblock @sam`: take a block back. Without a name: show all blocks.

use super::{
    Answer, Command, CommandContext, CommandError, NoticeText,
    block::{BlockTarget, parse_target, target_name},
};
use crate::directory::DirectoryError;

pub(super) const COMMAND: Command = Command {
    name: "unblock",
    aliases: &["unban", "unmute", "blocks", "blocked"],
    usage: "unblock @kim",
    about: "takes a block back; without a name it shows whom you blocked",
    offered: |person| person.has_blocks,
    run,
};

/// Maximum number of blocks that are listed.
const BLOCKS_SHOWN_MAX: usize = 50;

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    if words.is_empty() {
        return blocks(context);
    }
    // A masked asker was blocked by the number of their request.
    if let [number] = words
        && number.starts_with('#')
    {
        let label = (*number).to_owned();
        context.tx.unblock_label(context.person, label, None)?;
        return Ok(unblocked(number).into());
    }
    let BlockTarget { target, scope } = parse_target(context, &COMMAND, words)?;
    let name = target_name(&target);
    match context.tx.unblock(context.person, &target, scope.as_ref()) {
        Ok(()) => {}
        Err(DirectoryError::NotBlocked(_)) => {
            return Err(CommandError::Refused(
                NoticeText::new("You don't have such a block of ")
                    .name(&name)
                    .and(". A block is taken back by the name it was made with: ")
                    .code("unblock")
                    .and(" alone shows them."),
            ));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(unblocked(&name).into())
}

fn unblocked(name: &str) -> NoticeText {
    NoticeText::new("Unblocked: ").name(name).and(
        " can reach you again, as far as your policy allows. If you ignored them in your client, \
         undo that there.",
    )
}

fn blocks(context: &CommandContext<'_, '_>) -> Result<Answer, CommandError> {
    let blocks = context.tx.blocks_of(context.person)?;
    if blocks.is_empty() {
        return Ok(NoticeText::new("You haven't blocked anyone.").into());
    }
    let shown = blocks.iter().take(BLOCKS_SHOWN_MAX).map(|(label, on)| {
        let text = NoticeText::default().name(label);
        match on {
            Some(handle) => text.and(&format!(" on @{handle}")),
            None => text.and(" on all your handles"),
        }
    });
    let rest = blocks.len().saturating_sub(BLOCKS_SHOWN_MAX);
    let rest = (rest > 0).then(|| NoticeText::new(&format!("and {rest} more")));
    Ok(NoticeText::new("You have blocked:")
        .list(shown.chain(rest))
        .into())
}
