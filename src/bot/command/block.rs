//! `block @sam`, `block @user:server`, `… on @handle`, `… all`: keep a person out.

use super::{Answer, Call, Command, Fail, NoticeText, names, no_handle, requests};
use crate::{
    bot::{
        Effect,
        request::{self, Choice},
    },
    directory::{BlockScope, Mode},
    handle::{HandleRules, Typed},
};

pub(super) const COMMAND: Command = Command {
    name: "block",
    aliases: &["ban", "mute"],
    usage: "block @kim",
    about: "keeps a person out, whichever handle of theirs they use",
    offered: |standing| !standing.handles.is_empty(),
    run,
};

/// What was typed behind `block` or `unblock`.
pub(super) struct Meant {
    pub target: Typed,
    pub scope: Option<BlockScope>,
}

/// Reads `@kim`, `@kim on @sam`, `@kim all`.
pub(super) fn read(call: &Call<'_, '_>, command: &Command, words: &[&str]) -> Result<Meant, Fail> {
    let Some((target, rest)) = words.split_first() else {
        let example = format!("{} @kim", command.name);
        return Err(command.wrong("say whom you mean, by a handle or a Matrix ID", &example));
    };
    let target = Typed::parse(target, &HandleRules::WIDEST)?;
    let lower: Vec<String> = rest.iter().map(|word| word.to_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let scope = match (lower.as_slice(), rest) {
        ([], _) => None,
        (["all"] | ["on", "all"] | ["everywhere"], _) => Some(BlockScope::All),
        (["on", _], [_, handle]) | ([_], [handle]) => {
            Some(BlockScope::Handle(call.local_handle(handle)?))
        }
        _ => {
            let example = format!("{} @kim on @sam", command.name);
            return Err(command.wrong("I did not understand all of that", &example));
        }
    };
    Ok(Meant { target, scope })
}

fn run(call: &mut Call<'_, '_>, words: &[&str]) -> Result<Answer, Fail> {
    // A number alone is never a handle: it could be meant for a request that has just gone.
    if let [typed] = words
        && let Some(number) = requests::number(typed)
    {
        return request::answer(call.change, call.person, number, Choice::Block, call.now)?
            .ok_or_else(|| requests::no_such(number));
    }
    let Meant { target, scope } = read(call, &COMMAND, words)?;
    let named = named(&target);
    let handles = call.handles()?;
    let scope = match (scope, handles.as_slice()) {
        (Some(scope), _) => scope,
        (None, [only]) => BlockScope::Handle(only.handle.clone()),
        (None, []) => return Err(Fail::Told(no_handle())),
        (None, [first, ..]) => {
            return Err(Fail::Told(
                NoticeText::new("You have ")
                    .append(names(&handles))
                    .and(". On one of them: ")
                    .code(&format!("block {named} on {}", first.handle))
                    .and(". On all: ")
                    .code(&format!("block {named} all"))
                    .and("; then they can find out that these belong together."),
            ));
        }
    };
    call.change.block(call.person, &target, &scope, call.now)?;
    // What a masked handle carries can be ended by us, and ends.
    let concerned = handles.iter().filter(|record| {
        record.mode == Mode::Masked
            && match &scope {
                BlockScope::All => true,
                BlockScope::Handle(handle) => record.handle == *handle,
            }
    });
    let mut effects = Vec::new();
    for record in concerned {
        effects.push(Effect::EndConversations {
            ghost: call.ghost(&record.handle)?,
            blocked_only: true,
        });
    }
    let text = NoticeText::new("Blocked: ").strong(&named);
    let text = match &scope {
        BlockScope::Handle(handle) => text
            .and(" cannot reach you by ")
            .strong(&handle.to_string())
            .and(" any more, with none of their handles. "),
        BlockScope::All => text.and(
            " cannot reach you by any of your handles any more, with none of theirs. If they try \
             several of yours, they can find out that these belong together. ",
        ),
    };
    let mut answer = Answer::from(text
        .and("They are not told; they see the same as when you take no new conversations.")
        .paragraph()
        .and(
            "This holds for new chats by handle. If they know your Matrix ID or you have a chat \
             with them, ignore them in your client too: open their profile and choose \"Ignore\". ",
        )
        .and("To undo: ")
        .code(&format!("unblock {named}"))
        .and("."));
    answer.effects = effects;
    Ok(answer)
}

/// How the person was named.
pub(super) fn named(target: &Typed) -> String {
    match target {
        Typed::Handle { handle, .. } => handle.to_string(),
        Typed::Person(user) => user.to_string(),
    }
}
