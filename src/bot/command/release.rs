//! `release sam`: give a handle up. For everybody who knows the handle this cannot be undone, so the
//! command waits for `confirm` and a new code.

use super::{Answer, Command, CommandContext, CommandError, NoticeText, mode};
use crate::{
    bot::{
        Effect,
        confirmation::{self, Action},
    },
    directory::{DirectoryError, Mode},
    handle::Handle,
};

pub(super) const COMMAND: Command = Command {
    name: "release",
    aliases: &["drop", "delete", "unclaim"],
    usage: "release sam",
    about: "gives one of your handles up",
    offered: |person| !person.handles.is_empty(),
    run,
};

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    let [typed] = words else {
        let handles = context.handles()?;
        let example = handles
            .first()
            .map_or("sam", |record| record.handle.as_shown());
        return Err(COMMAND.usage_error(
            "which handle do you want to give up?",
            &format!("release {example}"),
        ));
    };
    let handle = context.parse_local_handle(typed)?;
    let record = match context.tx.lookup(&handle)? {
        Some(record) if record.is_held_by(context.person) => record,
        _ => return Err(DirectoryError::NotYours(handle).into()),
    };
    if !record.is_active() {
        return Err(DirectoryError::Frozen(record.handle).into());
    }
    let days = context.tx.settings().quarantine.as_secs() / 86_400;
    let text = NoticeText::new("Giving up ")
        .name(&record.handle.to_string())
        .and(" means that people can no longer reach you by it. ");
    let text = match record.mode {
        Mode::Masked => text.append(mode::conversations_end(&record.handle)),
        Mode::Open | Mode::Sealed => text.and("Chats that began with it go on without it."),
    };
    let text = text.and(&match days {
        0 => " Anyone can claim it then. ".to_owned(),
        days => format!(
            " For {days} days only you can claim it again, after that anyone can. How it's set up \
             is lost: it would be open to everyone. "
        ),
    });
    let action = Action::Release {
        handle: record.handle,
        generation: record.generation,
    };
    let code =
        confirmation::issue_code(context.tx, context.person, action, context.now, context.rng)?;
    Ok(text.append(confirmation::code_text(&code)).into())
}

/// Releases the handle once the code has been confirmed.
pub(super) fn confirmed(
    context: &mut CommandContext<'_, '_>,
    handle: &Handle,
    generation: u32,
) -> Result<Answer, CommandError> {
    match context.tx.lookup(handle)? {
        Some(record) if record.is_held_by(context.person) && record.generation == generation => {}
        _ => return Err(DirectoryError::NotYours(handle.clone()).into()),
    }
    let record = context.tx.release(context.person, handle, context.now)?;
    let name = record.handle.to_string();
    let text = NoticeText::new("Done: ")
        .name(&name)
        .and(" is no longer yours. If you change your mind: ")
        .code(&format!("claim {}", record.handle.as_shown()))
        .and(".");
    let mut answer = Answer::from(text);
    answer.effects.push(Effect::RetireGhost {
        ghost: context.ghost(&record.handle)?,
        generation: record.generation,
        released_at: context.now,
    });
    Ok(answer)
}
