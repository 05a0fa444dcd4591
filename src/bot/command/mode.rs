//! `mode sam open`, `… strict`, `… masked`: how the ghost of a handle works. To take the mask off ends
//! conversations and shows the owner's Matrix ID, so that waits for `confirm` and a new code.

use super::{Answer, Command, CommandContext, CommandError, NoticeText, claim, handles};
use crate::{
    bot::{
        Effect,
        confirmation::{self, Action},
        request::decline_requests,
    },
    directory::{DirectoryError, HandleRecord, Mode, Others, Request},
    handle::Handle,
};

pub(super) const COMMAND: Command = Command {
    name: "mode",
    aliases: &["modes"],
    usage: "mode sam open|strict|masked",
    about: "sets how people are introduced to you",
    offered: |person| !person.handles.is_empty(),
    run,
};

fn parse_mode(word: &str) -> Option<(Mode, bool)> {
    match word {
        "open" => Some((Mode::Open, false)),
        "strict" => Some((Mode::Open, true)),
        "masked" => Some((Mode::Masked, false)),
        "sealed" => Some((Mode::Sealed, false)),
        _ => None,
    }
}

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    let is_value = |word: &str| parse_mode(word).is_some();
    let (record, rest) = context.find_own_handle(&COMMAND, "mode sam strict", words, is_value)?;
    let shown = record.handle.as_shown().to_owned();
    let (mode, strict) = match rest {
        [] => {
            let can_mask = context.tx.settings().capabilities.masked;
            return Ok(present_mode_text(&record, can_mask, context.options.strict).into());
        }
        [word] => parse_mode(&word.to_lowercase()),
        _ => None,
    }
    .ok_or_else(|| {
        COMMAND.usage_error(
            "a handle is open, strict or masked",
            &format!("mode {shown} strict"),
        )
    })?;
    if record.mode == Mode::Masked && mode == Mode::Open {
        return ask_to_unmask(context, record, strict);
    }
    set(context, &record.handle, mode, strict)
}

/// Says that the conversations of a masked handle are about to end.
pub(super) fn conversations_end(handle: &Handle) -> NoticeText {
    NoticeText::new("All conversations by ")
        .name(&handle.to_string())
        .and(" end at once, for both sides, and what hasn't been delivered is lost.")
}

/// Says what taking the mask off ends and shows, and gives the code for it.
fn ask_to_unmask(
    context: &mut CommandContext<'_, '_>,
    record: HandleRecord,
    strict: bool,
) -> Result<Answer, CommandError> {
    if !record.is_active() {
        return Err(DirectoryError::Frozen(record.handle).into());
    }
    let text = conversations_end(&record.handle)
        .and(" From then on, people who start a chat with it see your Matrix ID, ")
        .name(context.person.as_str())
        .and(". ");
    let action = Action::Unmask {
        handle: record.handle,
        generation: record.generation,
        strict,
    };
    let code =
        confirmation::issue_code(context.tx, context.person, action, context.now, context.rng)?;
    Ok(text.append(confirmation::code_text(&code)).into())
}

/// Takes the mask off once the code has been confirmed.
pub(super) fn confirmed(
    context: &mut CommandContext<'_, '_>,
    handle: &Handle,
    generation: u32,
    strict: bool,
) -> Result<Answer, CommandError> {
    match context.tx.lookup(handle)? {
        Some(record) if record.is_held_by(context.person) && record.generation == generation => {}
        _ => return Err(DirectoryError::NotYours(handle.clone()).into()),
    }
    set(context, handle, Mode::Open, strict)
}

/// Sets the mode, and says what it means.
fn set(
    context: &mut CommandContext<'_, '_>,
    handle: &Handle,
    mode: Mode,
    strict: bool,
) -> Result<Answer, CommandError> {
    let set = context.tx.set_mode(context.person, handle, mode, strict)?;
    let handle = &set.record.handle;
    let ghost = context.ghost(handle)?;
    let mut effects = Vec::new();
    if set.replace_identity || set.unmasked {
        // With new keys the ghost leaves all rooms, those where somebody waits for an answer among
        // them. People who asked under a mask were told that the owner won't see their Matrix ID.
        let is_meant = |_, request: &Request| {
            request.handle == set.record.handle
                && (set.replace_identity || request.asker_alias.is_some())
        };
        effects = decline_requests(context.tx, context.person, is_meant)?;
    }
    let declined = !effects.is_empty();
    if set.unmasked {
        effects.push(Effect::EndConversations {
            ghost: ghost.clone(),
            blocked_only: false,
            generation: set.record.generation,
        });
    }
    if set.replace_identity {
        effects.push(Effect::ReplaceIdentity {
            ghost: ghost.clone(),
            name: handle.to_string(),
            generation: set.record.generation,
        });
    }
    let text = NoticeText::default().name(&handle.to_string());
    let mut text = if set.record.mode == Mode::Masked {
        masked_text(context, handle, text)
    } else {
        let module_loaded = context.options.module_loaded;
        unmasked_text(context, &set.record, text).append(claim::decline_text(&ghost, module_loaded))
    };
    if set.replace_identity {
        text = text
            .paragraph()
            .and("This gives ")
            .name(ghost.as_str())
            .and(
                " new keys. People who have met it may see a warning that its identity changed. \
                 This is why.",
            );
    }
    if declined {
        text = text.and(" I've turned down those who were waiting for your answer.");
    }
    Ok(Answer {
        text: Some(text),
        effects,
    })
}

/// Returns the mode of a handle, and the modes that there are.
fn present_mode_text(record: &HandleRecord, can_mask: bool, strict: bool) -> NoticeText {
    let shown = record.handle.as_shown();
    NoticeText::default()
        .name(&record.handle.to_string())
        .and(&format!(
            " is {}. You can choose between ",
            handles::mode_name(record, strict)
        ))
        .code(&format!("mode {shown} open"))
        .append(choices_text(shown, can_mask))
}

fn choices_text(shown: &str, can_mask: bool) -> NoticeText {
    let strict = format!("mode {shown} strict");
    if can_mask {
        NoticeText::new(", ")
            .code(&strict)
            .and(" and ")
            .code(&format!("mode {shown} masked"))
            .and(".")
    } else {
        NoticeText::new(" and ").code(&strict).and(".")
    }
}

/// Returns what an unmasked handle means, before anybody writes to it.
fn unmasked_text(
    context: &CommandContext<'_, '_>,
    record: &HandleRecord,
    text: NoticeText,
) -> NoticeText {
    // People who have to ask first meet the ghost, with the module too.
    let asks_first = record.policy.others == Others::Request;
    let with_module = context.options.module_loaded && !asks_first;
    let strict = record.strict || context.options.strict;
    let text = text.and(open_text(strict, with_module));
    let text = if strict && !record.strict {
        text.and("This server makes every handle strict. ")
    } else {
        text
    };
    text.and("People who reach you by it see your Matrix ID, ")
        .name(context.person.as_str())
        .and(", and know it for good: blocking them later doesn't change that.")
}

/// Returns how an open handle's ghost works, and who can read what people write.
fn open_text(strict: bool, with_module: bool) -> &'static str {
    match (strict, with_module) {
        (true, true) => {
            " is strict: nothing that people write passes through this service, not even their first \
             message. When people on this server start a chat with it, the chat is with you from the \
             start. If you can't read the first message of others, they're asked to send it again. "
        }
        (true, false) => {
            " is strict: nothing that people write passes through this service, not even their first \
             message. You usually can't read that one; then they're asked to send it again. "
        }
        (false, true) => {
            " is open: when people on this server start a chat with it, the chat is with you from the \
             start, and nothing of it passes through this service. When others do, it takes their \
             first message, invites you, passes that message on, and leaves. From then on only the \
             two of you can read what you write. "
        }
        (false, false) => {
            " is open: when someone starts a chat with it, it takes their first message, invites \
             you, passes that message on, and leaves. From then on only the two of you can read what \
             you write. "
        }
    }
}

/// Returns what a masked handle means, before anybody writes to it.
fn masked_text(context: &CommandContext<'_, '_>, handle: &Handle, text: NoticeText) -> NoticeText {
    text.and(
        " is masked: people who start a chat with it see the handle and not your Matrix ID. What \
         they write reaches you in a room of its own, where you see them by a handle or a name. ",
    )
    .strong("This service passes everything on between the two rooms, and can read it on the way.")
    .and(
        " It doesn't keep any of it: nothing is written down in clear. For chats that nobody but \
         you two can read: ",
    )
    .code(&format!("mode {} open", handle.as_shown()))
    .paragraph()
    .and("Chats that have begun already go on as they are, with people who know your Matrix ID, ")
    .name(context.person.as_str())
    .and(". Calls hide where you are unless you say otherwise: ")
    .code(&format!("calls {} direct", handle.as_shown()))
    .and(".")
}
