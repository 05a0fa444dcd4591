//! `handles`: the handles of a person and their settings.

use super::{
    Answer, Command, CommandContext, CommandError, NoticeText, format_date, no_handle_text,
};
use crate::directory::{FreezeReason, HandleRecord, HandleState, Mode, Others, Reach};

pub(super) const COMMAND: Command = Command {
    name: "handles",
    aliases: &["handle", "list", "ls", "mine"],
    usage: "handles",
    about: "shows your handles and how they are set up",
    offered: |person| !person.handles.is_empty(),
    run,
};

fn run(context: &mut CommandContext<'_, '_>, _: &[&str]) -> Result<Answer, CommandError> {
    let handles = context.handles()?;
    if handles.is_empty() {
        return Ok(no_handle_text(context.may_claim()).into());
    }
    let most = context.tx.settings().handles_per_person;
    let lines = handles.iter().map(|record| {
        NoticeText::default()
            .name(&record.handle.to_string())
            .and(" ")
            .and(&describe(record, context.options.strict))
    });
    let text = NoticeText::new(&format!("You have {} of {most} handles:", handles.len()));
    Ok(text.list(lines).into())
}

/// Describes the settings of a handle.
fn describe(record: &HandleRecord, strict_server: bool) -> String {
    let mut words = vec![
        format!("since {}", format_date(record.claimed_at)),
        mode_name(record, strict_server),
    ];
    words.push(reach_text(record));
    if record.verified_at.is_some() {
        words.push("verified".to_owned());
    }
    if let HandleState::Frozen { reason, .. } = &record.state {
        words.push(match reason {
            FreezeReason::Admin { note } if note.is_empty() => "frozen by the admin".to_owned(),
            FreezeReason::Admin { note } => format!("frozen by the admin ({note})"),
            FreezeReason::GhostNotOurs => {
                "frozen, because its Matrix name or its keys aren't ours; ask the admin".to_owned()
            }
            FreezeReason::ChangedSinceBackup => {
                "frozen after a restore from a backup; ask the admin".to_owned()
            }
        });
    }
    words.join(", ")
}

/// Returns the mode of a handle, `strict_server` if every handle of this server is strict.
pub(super) fn mode_name(record: &HandleRecord, strict_server: bool) -> String {
    match record.mode {
        Mode::Open if record.strict || strict_server => "strict".to_owned(),
        other => other.to_string(),
    }
}

pub(super) fn reach_text(record: &HandleRecord) -> String {
    let direct = match record.policy.direct {
        Reach::Everyone => return "everyone may reach you".to_owned(),
        Reach::Nobody if record.policy.others == Others::Refuse => {
            return "nobody may reach you".to_owned();
        }
        Reach::Handles => "people with a handle here may reach you",
        Reach::Verified => "people with a verified handle may reach you",
        Reach::Contacts => "your contacts may reach you",
        Reach::Nobody => "nobody may reach you directly",
    };
    match record.policy.others {
        Others::Request if record.policy.direct == Reach::Contacts => {
            "people ask you first".to_owned()
        }
        Others::Request => format!("{direct}, others ask first"),
        Others::Refuse => direct.to_owned(),
    }
}
