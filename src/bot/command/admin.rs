//! `admin freeze sam REASON`: what an admin does about handles, people and servers. Only people with
//! the permission `admin` can find this command.

use ruma::{OwnedUserId, UserId};

use super::{
    Answer, Command, CommandContext, CommandError, NoticeText, format_date, sentence,
    unknown_command,
};
use crate::{
    bot::{
        admin_act::{report_act, report_grantee_act},
        confirmation::{self, Action},
    },
    clock::Timestamp,
    directory::{
        ActError, ActingAdmin, DirectoryError, GranteeAct, GranteeOrder, HandleAct, HandleOrder,
        HandleRecord, HandleSummary,
    },
    handle::Handle,
    permissions::Grantee,
    text::fit_to_show,
};

pub(super) const COMMAND: Command = Command {
    name: "admin",
    aliases: &[],
    usage: "admin freeze sam",
    about: "acts on a handle, a person or a server; `admin` alone shows how",
    offered: |person| person.is_admin,
    run,
};

/// The acts, by how they are typed and what they do.
const ACTS: [(&str, &str); 12] = [
    ("admin show sam", "shows who owns it and how it is set up"),
    ("admin freeze sam", "lets nobody new reach its owner by it"),
    ("admin unfreeze sam", "takes that back"),
    ("admin verify sam", "marks it as verified"),
    ("admin unverify sam", "takes that back"),
    ("admin reserve sam", "lets nobody claim it"),
    ("admin unreserve sam", "takes that back"),
    (
        "admin claim sam @samuel:example.org",
        "gives it to somebody, if nobody has it",
    ),
    (
        "admin transfer sam @samuel:example.org",
        "takes it from its owner and gives it to somebody else",
    ),
    ("admin release sam", "takes it from its owner"),
    (
        "admin ban @eve:example.org",
        "lets a person, or the people of a server, reach nobody",
    ),
    ("admin unban @eve:example.org", "takes that back"),
];

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    if !context.is_admin() {
        return Err(CommandError::Refused(unknown_command("admin", "admin")));
    }
    let [act, words @ ..] = words else {
        return Ok(acts_text().into());
    };
    if let Some(act) = grantee_act(act) {
        return act_on_grantee(context, act, words);
    }
    let [typed, words @ ..] = words else {
        return Err(COMMAND.usage_error("say which handle you mean", COMMAND.usage));
    };
    let handle = parse_handle(context, typed)?;
    if act.eq_ignore_ascii_case("show") {
        return show(context, &handle);
    }
    let (act, words) = parse_act(act, words)?;
    let reason = words.join(" ");
    if act.is_destructive() {
        return ask_to_confirm(context, act, handle, reason);
    }
    carry_out(context, &act, &handle, &reason)
}

fn grantee_act(word: &str) -> Option<GranteeAct> {
    match word.to_ascii_lowercase().as_str() {
        "ban" => Some(GranteeAct::Ban),
        "unban" => Some(GranteeAct::Unban),
        _ => None,
    }
}

fn act_on_grantee(
    context: &mut CommandContext<'_, '_>,
    act: GranteeAct,
    words: &[&str],
) -> Result<Answer, CommandError> {
    let meant = words.split_first();
    let meant = meant.and_then(|(typed, words)| Some((typed.parse::<Grantee>().ok()?, words)));
    let Some((grantee, words)) = meant else {
        return Err(COMMAND.usage_error(
            "say whom you mean, by a Matrix ID or the name of a server",
            "admin ban @eve:example.org",
        ));
    };
    let by = ActingAdmin::Person(context.person.clone());
    let order = GranteeOrder {
        grantee: &grantee,
        act,
        reason: &words.join(" "),
        by: &by,
    };
    let acted = context.tx.act_on_grantee(&order, context.now);
    let handles = acted.map_err(act_error)?;
    Ok(report_grantee_act(&order, &handles).into())
}

fn acts_text() -> NoticeText {
    let lines = ACTS.iter();
    let lines = lines.map(|(usage, about)| NoticeText::default().code(usage).and(" ").and(about));
    NoticeText::new(
        "You're an admin here. What you write behind a command is your reason: its owner reads it, \
         and the audit log keeps it.",
    )
    .list(lines)
}

/// Reads a typed handle of this server, held or not.
fn parse_handle(context: &CommandContext<'_, '_>, typed: &str) -> Result<Handle, CommandError> {
    match context.parse_local_handle(typed) {
        Err(CommandError::Directory(DirectoryError::NotYours(_))) => Err(COMMAND.usage_error(
            "that handle belongs to another server, whose admin looks after it",
            COMMAND.usage,
        )),
        parsed => parsed,
    }
}

/// Reads an act. Returns it with the words behind it.
fn parse_act<'w>(
    act: &str,
    words: &'w [&'w str],
) -> Result<(HandleAct, &'w [&'w str]), CommandError> {
    let act = match act.to_ascii_lowercase().as_str() {
        "freeze" => HandleAct::Freeze,
        "unfreeze" => HandleAct::Unfreeze,
        "verify" => HandleAct::Verify,
        "unverify" => HandleAct::Unverify,
        "reserve" => HandleAct::Reserve,
        "unreserve" => HandleAct::Unreserve,
        "release" => HandleAct::Release,
        "claim" => {
            let (owner, words) = parse_owner("admin claim sam @samuel:example.org", words)?;
            return Ok((HandleAct::Claim { owner }, words));
        }
        "transfer" => {
            let (owner, words) = parse_owner("admin transfer sam @samuel:example.org", words)?;
            return Ok((HandleAct::Transfer { owner }, words));
        }
        _ => {
            let text = NoticeText::new("I don't know ")
                .code(&format!("admin {}", fit_to_show(act).replace('`', "'")))
                .and(". ")
                .code("admin")
                .and(" shows what there is.");
            return Err(CommandError::Refused(text));
        }
    };
    Ok((act, words))
}

fn parse_owner<'w>(
    example: &str,
    words: &'w [&'w str],
) -> Result<(OwnedUserId, &'w [&'w str]), CommandError> {
    let owner = words.split_first();
    let owner = owner.and_then(|(typed, words)| Some((UserId::parse(*typed).ok()?, words)));
    owner.ok_or_else(|| COMMAND.usage_error("say who gets it, by their Matrix ID", example))
}

fn show(context: &CommandContext<'_, '_>, handle: &Handle) -> Result<Answer, CommandError> {
    let record = context.tx.lookup(handle)?;
    let Some(record) = record.filter(|record| record.holder().is_some()) else {
        return Err(refused(&ActError::NotHeld(handle.clone())));
    };
    let summary = HandleSummary::from(record);
    let mut text = NoticeText::default()
        .name(&summary.handle.to_string())
        .and(" belongs to ")
        .name(&fit_to_show(summary.owner.as_str()))
        .and(&format!(
            " since {}. Mode: {}. Policy: {}.",
            format_date(summary.claimed_at),
            summary.mode_word(),
            summary.policy_words()
        ));
    if let Some(at) = summary.verified_at {
        text = text.and(&format!(" Verified since {}.", format_date(at)));
    }
    if let (Some(reason), Some(since)) = (&summary.frozen_for, summary.frozen_since) {
        text = text.and(&format!(" Frozen since {since}: {reason}."));
    }
    Ok(text.into())
}

fn ask_to_confirm(
    context: &mut CommandContext<'_, '_>,
    act: HandleAct,
    handle: Handle,
    reason: String,
) -> Result<Answer, CommandError> {
    let record = context.tx.lookup(&handle)?;
    let Some(record) = record.filter(|it| may_be_taken(it, &act, context.now)) else {
        return Err(refused(&ActError::NotHeld(handle)));
    };
    let text = NoticeText::new("This takes ")
        .name(&record.handle.to_string())
        .and(" from ")
        .name(&fit_to_show(record.owner.as_str()));
    let text = match act.new_owner() {
        Some(owner) => text
            .and(" and gives it to ")
            .name(&fit_to_show(owner.as_str())),
        None => text,
    };
    let text = text.and(
        ". Its masked conversations end, and how it's set up is lost. It cannot be taken back. ",
    );
    let action = Action::ActOnHandle {
        act,
        handle,
        generation: record.generation,
        reason,
    };
    let code =
        confirmation::issue_code(context.tx, context.person, action, context.now, context.rng)?;
    Ok(text.append(confirmation::code_text(&code)).into())
}

/// Carries out an act whose code has been confirmed, if the handle has the same owner still.
pub(super) fn confirmed(
    context: &mut CommandContext<'_, '_>,
    act: &HandleAct,
    handle: &Handle,
    generation: u32,
    reason: &str,
) -> Result<Answer, CommandError> {
    if !context.is_admin() {
        return Err(DirectoryError::NotYours(handle.clone()).into());
    }
    match context.tx.lookup(handle)? {
        Some(record)
            if record.generation == generation && may_be_taken(&record, act, context.now) => {}
        _ => return Err(refused(&ActError::NotHeld(handle.clone()))),
    }
    carry_out(context, act, handle, reason)
}

/// Returns whether a handle can be taken: somebody holds it, or has given it up and could take it
/// back.
fn may_be_taken(record: &HandleRecord, act: &HandleAct, now: Timestamp) -> bool {
    let is_kept = !record.is_revoked() && !record.is_free(now);
    record.holder().is_some() || (*act == HandleAct::Release && is_kept)
}

fn carry_out(
    context: &mut CommandContext<'_, '_>,
    act: &HandleAct,
    handle: &Handle,
    reason: &str,
) -> Result<Answer, CommandError> {
    let by = ActingAdmin::Person(context.person.clone());
    let order = HandleOrder {
        handle,
        act,
        reason,
        by: &by,
    };
    let acted = context.tx.act_on_handle(&order, context.now);
    let change = acted.map_err(act_error)?;
    let server = context.tx.settings().server_name.clone();
    let module = context.options.module_loaded;
    Ok(report_act(act, change, reason, &server, module).into())
}

fn act_error(error: ActError) -> CommandError {
    match error {
        ActError::Directory(error) if !error.is_refusal() => error.into(),
        refusal => refused(&refusal),
    }
}

fn refused(error: &ActError) -> CommandError {
    CommandError::Refused(sentence(&error.to_string()))
}
