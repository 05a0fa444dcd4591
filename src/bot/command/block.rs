//! `block @sam`, `block @user:server`, `… on @handle`, `… all`: keep a person out.

use super::{
    Answer, Command, CommandContext, CommandError, NoticeText, handle_names, no_handle_text,
    requests,
};
use crate::{
    bot::{
        Effect,
        request::{self, RequestChoice},
    },
    directory::{BlockScope, HandleRecord, Mode, Request},
    handle::{HandleRules, Typed},
    text::fit_to_show,
};

pub(super) const COMMAND: Command = Command {
    name: "block",
    aliases: &["ban", "mute"],
    usage: "block @kim",
    about: "keeps a person out, whichever of their handles they use",
    offered: |person| !person.handles.is_empty(),
    run,
};

/// A person to be blocked.
enum Blocked {
    /// The asker of the open request with this number.
    Asker(u32, Request),
    Typed(Typed),
}

/// The arguments of `block` and `unblock`.
pub(super) struct BlockTarget {
    pub target: Typed,
    pub scope: Option<BlockScope>,
}

/// Reads `@kim`, `@kim on @sam`, `@kim all`.
pub(super) fn parse_target(
    context: &CommandContext<'_, '_>,
    command: &Command,
    words: &[&str],
) -> Result<BlockTarget, CommandError> {
    let Some((target, rest)) = words.split_first() else {
        let example = format!("{} @kim", command.name);
        return Err(command.usage_error("say whom you mean, by a handle or a Matrix ID", &example));
    };
    let own_server = &context.tx.settings().server_name;
    let target = Typed::parse_to_block(target, &HandleRules::WIDEST, own_server)?;
    let scope = parse_scope(context, command, rest)?;
    Ok(BlockTarget { target, scope })
}

/// Reads what follows the name: nothing, `on @sam` or `all`.
pub(super) fn parse_scope(
    context: &CommandContext<'_, '_>,
    command: &Command,
    rest: &[&str],
) -> Result<Option<BlockScope>, CommandError> {
    let lower: Vec<String> = rest.iter().map(|word| word.to_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    match (lower.as_slice(), rest) {
        ([], _) => Ok(None),
        (["all"] | ["on", "all"] | ["everywhere"], _) => Ok(Some(BlockScope::All)),
        (["on", _], [_, handle]) | ([_], [handle]) => Ok(Some(BlockScope::Handle(
            context.parse_local_handle(handle)?,
        ))),
        _ => {
            let example = format!("{} @kim on @sam", command.name);
            Err(command.usage_error("I didn't understand all of that", &example))
        }
    }
}

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    // A number alone always means a request, even one that was just closed, and never a handle.
    if let [typed] = words
        && let Some(number) = requests::parse_number(typed)
    {
        return request::answer_request(
            context.tx,
            context.person,
            number,
            RequestChoice::Block,
            context.now,
        )?
        .ok_or_else(|| requests::no_such_request(number));
    }
    let (target, scope) = read_target(context, words)?;
    let name = match &target {
        Blocked::Asker(number, request) => request.block_label(*number),
        Blocked::Typed(target) => target_name(target),
    };
    let handles = context.handles()?;
    let scope = match (scope, handles.as_slice()) {
        (Some(scope), _) => scope,
        (None, [only]) => BlockScope::Handle(only.handle.clone()),
        (None, []) => return Err(CommandError::Refused(no_handle_text(context.may_claim()))),
        (None, [first, ..]) => {
            return Err(CommandError::Refused(
                NoticeText::new("You have ")
                    .append(handle_names(&handles))
                    .and(". On one of them: ")
                    .code(&format!("block {name} on {}", first.handle))
                    .and(". On all: ")
                    .code(&format!("block {name} all"))
                    .and("; then they can find out that these belong together."),
            ));
        }
    };
    let (tx, person, now) = (&mut *context.tx, context.person, context.now);
    let label = match &target {
        Blocked::Asker(number, request) => tx.block_asker(person, request, *number, &scope, now)?,
        Blocked::Typed(target) => tx.block(person, target, &scope, now)?,
    };
    let label = fit_to_show(&label);
    // Messages of a masked handle's conversations pass through us, so those end at once.
    let concerned = handles.iter().filter(|record| {
        record.mode == Mode::Masked
            && match &scope {
                BlockScope::All => true,
                BlockScope::Handle(handle) => record.handle == *handle,
            }
    });
    let mut effects = Vec::new();
    let shows_in_person = context.options.module_loaded && shows_in_person(&handles, &scope);
    for record in concerned {
        effects.push(Effect::EndConversations {
            ghost: context.ghost(&record.handle)?,
            blocked_only: true,
            generation: record.generation,
        });
    }
    let declined = decline_requests(context, &label, &scope)?;
    let mut text = blocked_text(&name, &scope, !effects.is_empty(), shows_in_person);
    if !declined.is_empty() {
        text = text.and(" I've turned down their request.");
    }
    effects.extend(declined);
    Ok(Answer {
        text: Some(text),
        effects,
    })
}

/// Returns whether the module shows a block to the person who is blocked: see `who_blocked` of the
/// directory.
fn shows_in_person(handles: &[HandleRecord], scope: &BlockScope) -> bool {
    handles.iter().any(|record| match scope {
        BlockScope::All => true,
        BlockScope::Handle(handle) => record.handle == *handle && record.mode == Mode::Open,
    })
}

/// Reads what follows `block`. The number of an open request means its asker, whatever follows it:
/// a handle could be the same number.
fn read_target(
    context: &CommandContext<'_, '_>,
    words: &[&str],
) -> Result<(Blocked, Option<BlockScope>), CommandError> {
    if let [typed, rest @ ..] = words
        && let Some(number) = requests::parse_number(typed)
    {
        if let Some(request) = context.tx.request(context.person, number)? {
            let scope = parse_scope(context, &COMMAND, rest)?;
            return Ok((Blocked::Asker(number, request), scope));
        }
        if typed.starts_with('#') {
            return Err(requests::no_such_request(number));
        }
    }
    let BlockTarget { target, scope } = parse_target(context, &COMMAND, words)?;
    Ok((Blocked::Typed(target), scope))
}

/// Declines the requests of a person who was blocked, under the name that was blocked: if others
/// ended too, that would show that both names are one person's.
fn decline_requests(
    context: &mut CommandContext<'_, '_>,
    label: &str,
    scope: &BlockScope,
) -> Result<Vec<Effect>, CommandError> {
    let is_meant = |number, request: &Request| {
        request.block_label(number) == label
            && match scope {
                BlockScope::All => true,
                BlockScope::Handle(handle) => request.handle == *handle,
            }
    };
    Ok(request::decline_requests(
        context.tx,
        context.person,
        is_meant,
    )?)
}

/// Returns what the block of a person means, and how to undo it: whether it ends chats of masked
/// handles, and whether it shows when the person invites the blocker's Matrix ID.
fn blocked_text(
    name: &str,
    scope: &BlockScope,
    ends_chats: bool,
    shows_in_person: bool,
) -> NoticeText {
    let text = NoticeText::new("Blocked: ").name(name);
    let text = match scope {
        BlockScope::Handle(handle) => text
            .and(" can no longer reach you by ")
            .name(&handle.to_string())
            .and(", whichever of their handles they use. "),
        BlockScope::All => text.and(
            " can no longer reach you by any of your handles, whichever of theirs they use. If \
             they try several of yours, they can find out that these belong together. ",
        ),
    };
    let text = text
        .and("They aren't told: they see the same message as anyone who can't reach you.")
        .paragraph();
    let text = if ends_chats {
        text.and("If you two have a masked chat in which they're called ")
            .name(name)
            .and(
                ", it ends at once, and they see that. Groups go on, and so do chats in which \
                 they have another name. ",
            )
    } else {
        text.and("This only affects new chats by handle. ")
    };
    let text = if shows_in_person {
        text.and("If they invite your Matrix ID, this server tells them that they can't. ")
    } else {
        text
    };
    text.and(
        "If they know your Matrix ID or you have a chat with them, ignore them in your client too: \
         open their profile and choose \"Ignore\". ",
    )
    .and("To undo: ")
    .code(&format!("unblock {name}"))
    .and(".")
}

/// Returns the name by which the person was typed.
pub(super) fn target_name(target: &Typed) -> String {
    match target {
        Typed::Handle { handle, .. } => handle.to_string(),
        Typed::Person(user) => fit_to_show(user.as_str()),
    }
}
