//! `unblock @sam`: take a block back. Without a name: whom somebody blocked.

use super::{
    Answer, Call, Command, Fail, NoticeText,
    block::{Meant, named, read},
};
use crate::directory::DirectoryError;

pub(super) const COMMAND: Command = Command {
    name: "unblock",
    aliases: &["unban", "unmute", "blocks", "blocked"],
    usage: "unblock @kim",
    about: "takes a block back; without a name it shows whom you blocked",
    offered: |standing| standing.has_blocks,
    run,
};

/// How many blocks are shown.
const SHOWN: usize = 50;

fn run(call: &mut Call<'_, '_>, words: &[&str]) -> Result<Answer, Fail> {
    if words.is_empty() {
        return blocks(call);
    }
    // Somebody who was known by nothing but the number of their request.
    if let [number] = words
        && number.starts_with('#')
    {
        let label = (*number).to_owned();
        call.change.unblock_label(call.person, label, None)?;
        return Ok(unblocked(number).into());
    }
    let Meant { target, scope } = read(call, &COMMAND, words)?;
    let named = named(&target);
    match call.change.unblock(call.person, &target, scope.as_ref()) {
        Ok(()) => {}
        Err(DirectoryError::NotBlocked(_)) => {
            return Err(Fail::Told(
                NoticeText::new("You have no such block of ")
                    .strong(&named)
                    .and(". A block is taken back by the name it was made with; ")
                    .code("unblock")
                    .and(" alone shows them."),
            ));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(unblocked(&named).into())
}

fn unblocked(named: &str) -> NoticeText {
    NoticeText::new("Unblocked: ").strong(named).and(
        " can reach you again, as your policy allows. If you ignored them in your client, end that \
         there.",
    )
}

fn blocks(call: &Call<'_, '_>) -> Result<Answer, Fail> {
    let blocks = call.change.blocks_of(call.person)?;
    if blocks.is_empty() {
        return Ok(NoticeText::new("You have blocked nobody.").into());
    }
    let mut text = NoticeText::new("You have blocked:");
    for (label, on) in blocks.iter().take(SHOWN) {
        text = text.item().strong(label).and(&match on {
            Some(handle) => format!(" on @{handle}"),
            None => " on all your handles".to_owned(),
        });
    }
    if blocks.len() > SHOWN {
        text = text
            .item()
            .and(&format!("and {} more", blocks.len() - SHOWN));
    }
    Ok(text.into())
}
