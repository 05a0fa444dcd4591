//! `unblock @sam`: take a block back. Without a name: show all blocks.

use std::char::REPLACEMENT_CHARACTER;

use super::{
    Answer, Command, CommandContext, CommandError, NoticeText,
    block::{BlockTarget, parse_scope, parse_target, target_name},
    requests,
};
use crate::{directory::DirectoryError, text::fit_to_show};

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
    let (name, done) = match words {
        // A masked asker was blocked by the number of their request, and some Matrix IDs cannot be
        // typed as they are: those are taken back by the label that the bot shows.
        [label, rest @ ..]
            if label.starts_with('#')
                || label.contains(REPLACEMENT_CHARACTER)
                || is_number_of_block(context, label)? =>
        {
            let scope = parse_scope(context, &COMMAND, rest)?;
            let number = requests::parse_number(label);
            let label = number.map_or_else(|| (*label).to_owned(), |number| format!("#{number}"));
            let (person, name) = (context.person, label.clone());
            let done = context.tx.unblock_label(person, label, scope.as_ref());
            (name, done)
        }
        _ => {
            let BlockTarget { target, scope } = parse_target(context, &COMMAND, words)?;
            let done = context.tx.unblock(context.person, &target, scope.as_ref());
            (target_name(&target), done)
        }
    };
    match done {
        Ok(()) => {}
        Err(DirectoryError::NotBlocked(_)) => {
            return Err(CommandError::Refused(
                NoticeText::new("You haven't blocked ")
                    .name(&name)
                    .and(" under that name. Use the name that you blocked them by: ")
                    .code("unblock")
                    .and(" alone shows them."),
            ));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(unblocked(&name).into())
}

/// Returns whether somebody was blocked by the number of their request that is typed.
fn is_number_of_block(context: &CommandContext<'_, '_>, typed: &str) -> Result<bool, CommandError> {
    let Some(number) = requests::parse_number(typed) else {
        return Ok(false);
    };
    let label = format!("#{number}");
    let blocks = context.tx.blocks_of(context.person)?;
    Ok(blocks.iter().any(|(known, _)| *known == label))
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
        let text = NoticeText::default().name(&fit_to_show(label));
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
