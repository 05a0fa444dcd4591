//! What follows from an admin's act, and what the admin and the people concerned are told.

use ruma::ServerName;

use super::{
    Answer, Effect, NoticeText,
    command::{decline_text, link_to},
    request::turn_down,
};
use crate::{
    clock::Timestamp,
    directory::{
        GranteeAct, GranteeOrder, HandleAct, HandleChange, HandleRecord, HandleState, Mode,
    },
    handle::GHOST_PREFIX,
    ids::{Ghost, Person},
    text::fit_to_show,
};

/// What somebody can do about an act against them.
const MISTAKE: &str = " If you think that's a mistake, ask the admin.";

/// An act that was done.
#[derive(Clone, Debug)]
pub struct ActReport {
    /// What the admin is told.
    pub text: NoticeText,
    /// The effects outside the directory, the messages to owners last.
    pub effects: Vec<Effect>,
}

impl ActReport {
    /// Adds to what the admin is told who else is told.
    fn new(text: NoticeText, effects: Vec<Effect>) -> Self {
        let told = effects.iter().filter_map(|effect| match effect {
            Effect::Tell { person, .. } => Some(fit_to_show(person.as_str())),
            _ => None,
        });
        let told: Vec<String> = told.collect();
        let text = match told.is_empty() {
            true => text,
            false => text
                .and(" I tell ")
                .append(NoticeText::names(told.into_iter()))
                .and("."),
        };
        Self { text, effects }
    }
}

impl From<ActReport> for Answer {
    fn from(report: ActReport) -> Self {
        Answer {
            text: Some(report.text),
            effects: report.effects,
        }
    }
}

/// Returns what follows from an act, on the server with this name.
pub fn report_act(
    act: &HandleAct,
    change: HandleChange,
    reason: &str,
    server: &ServerName,
    module_loaded: bool,
) -> ActReport {
    let text = words_for_admin(act, &change, server);
    let mut effects: Vec<Effect> = ghost_effect(&change, server).into_iter().collect();
    let HandleChange {
        before,
        after,
        closed,
        ..
    } = change;
    effects.extend(closed.into_iter().map(turn_down));
    let mut tell = |owner: &Person, notice: NoticeText| {
        if is_person(owner, server) {
            effects.push(Effect::Tell {
                person: owner.clone(),
                notice: notice.append(reason_text(reason)),
            });
        }
    };
    if let Some(former) = &before
        && let Some(notice) = words_for_owner(act, former)
    {
        tell(&former.owner, notice);
    }
    if act.new_owner().is_some()
        && let Some(record) = &after
        && let Some(ghost) = record.handle.ghost_id(server)
    {
        tell(
            &record.owner,
            words_for_new_owner(record, &ghost, module_loaded),
        );
    }
    ActReport::new(text, effects)
}

/// Returns what has to be done to the handle's ghost.
fn ghost_effect(change: &HandleChange, server: &ServerName) -> Option<Effect> {
    let record = change.after.as_ref()?;
    let ghost = record.handle.ghost_id(server)?;
    let (name, generation) = (record.handle.to_string(), record.generation);
    match &record.state {
        HandleState::Quarantined { .. } if change.before.is_some() => Some(Effect::RetireGhost {
            ghost,
            generation,
            released_at: change.at,
        }),
        HandleState::Active if change.replace_identity => Some(Effect::ReplaceIdentity {
            ghost,
            name,
            generation,
        }),
        HandleState::Active if change.before.is_none() => Some(Effect::MakeGhost {
            ghost,
            name,
            generation,
        }),
        _ => None,
    }
}

/// Returns what follows from an act about a person with these handles, or about a server. People are
/// told only if they have handles: all others must not learn why they reach nobody.
pub fn report_grantee_act(order: &GranteeOrder<'_>, handles: &[HandleRecord]) -> ActReport {
    let names = || NoticeText::names(handles.iter().map(|record| record.handle.to_string()));
    let subject = fit_to_show(&order.grantee.to_string());
    let text = NoticeText::default().name(&subject);
    let text = match order.act {
        GranteeAct::Ban => {
            let text = text.and(
                " is banned: they reach nobody, claim nothing, and nobody new reaches them. Chats \
                 and masked conversations that have begun go on.",
            );
            match handles {
                [] => text,
                _ => text
                    .and(" They keep ")
                    .append(names())
                    .and("; ")
                    .code("release")
                    .and(" takes one from them."),
            }
        }
        GranteeAct::Unban => text.and(" is no longer banned."),
        GranteeAct::ResetLimits => text.and(" has all of the limits again."),
    };
    let notice = match order.act {
        GranteeAct::Ban => Some(
            NoticeText::new(
                "The admin of this server has banned you here: nobody new can reach you by ",
            )
            .append(names())
            .and(", and you can neither reach others by their handles nor claim more.")
            .and(MISTAKE),
        ),
        GranteeAct::Unban => Some(
            NoticeText::new(
                "The admin of this server has taken your ban back. To see how your handles are set \
                 up, write ",
            )
            .code("handles")
            .and("."),
        ),
        GranteeAct::ResetLimits => None,
    };
    let owner = handles.first().map(|record| record.owner.clone());
    let told = owner.zip(notice).map(|(person, notice)| Effect::Tell {
        person,
        notice: notice.append(reason_text(order.reason)),
    });
    ActReport::new(text, told.into_iter().collect())
}

fn reason_text(reason: &str) -> NoticeText {
    if reason.is_empty() {
        return NoticeText::default();
    }
    NoticeText::default()
        .paragraph()
        .and("The admin says:")
        .quote(reason)
}

/// Returns what the admin is told, but for who else is told.
fn words_for_admin(act: &HandleAct, change: &HandleChange, server: &ServerName) -> NoticeText {
    let record = change.after.as_ref().or(change.before.as_ref());
    let Some(record) = record else {
        return NoticeText::new(match act {
            HandleAct::Unreserve => "It's no longer reserved: people can claim it.",
            _ => "It's reserved: nobody can claim it, nor a name that looks like it.",
        });
    };
    let text = NoticeText::default().name(&record.handle.to_string());
    let owner = |text: NoticeText| match is_person(&record.owner, server) {
        true => text.name(&fit_to_show(record.owner.as_str())),
        false => text.and("somebody who is not known"),
    };
    match act {
        HandleAct::Claim { .. } | HandleAct::Transfer { .. } => {
            owner(text.and(" belongs to ")).and(" now, and its ghost is set up in a moment.")
        }
        HandleAct::Reserve => owner(text.and(" is reserved. It still belongs to "))
            .and("; after them nobody can claim it."),
        HandleAct::Unreserve => {
            owner(text.and(" is no longer reserved. It still belongs to ")).and(".")
        }
        HandleAct::Freeze => owner(text.and(" is frozen: nobody new reaches "))
            .and(" by it. Masked conversations that have begun go on; ")
            .code("release")
            .and(" ends them."),
        HandleAct::Unfreeze if change.replace_identity => text.and(
            " is no longer frozen. Its ghost gets a new device and identity in a moment, and its \
             masked conversations end.",
        ),
        HandleAct::Unfreeze => text.and(" is no longer frozen."),
        HandleAct::Verify => {
            owner(text.and(" is marked as verified. It belongs to ")).and(": be sure of that.")
        }
        HandleAct::Unverify => text.and(" is no longer marked as verified."),
        HandleAct::Release => {
            let until = match record.state {
                HandleState::Quarantined { until, .. } => until,
                _ => Timestamp::default(),
            };
            let text = match change.before {
                Some(_) => owner(text.and(" was taken from ")),
                None => owner(text.and(" was given up already, by ")),
            };
            text.and(&format!(". Nobody can claim it before {until}; "))
                .code("claim")
                .and(" gives it to somebody sooner.")
        }
    }
}

/// Returns whether this owner is a person: a handle that nobody is known to own belongs to its own
/// ghost.
fn is_person(owner: &Person, server: &ServerName) -> bool {
    owner.server_name() != server || !owner.localpart().starts_with(GHOST_PREFIX)
}

/// Returns what the person is told who held the handle before.
fn words_for_owner(act: &HandleAct, record: &HandleRecord) -> Option<NoticeText> {
    let text = NoticeText::default().name(&record.handle.to_string());
    Some(match act {
        HandleAct::Claim { .. } | HandleAct::Reserve | HandleAct::Unreserve => return None,
        HandleAct::Freeze => text
            .and(
                " was frozen by the admin of this server: it's still yours, and nobody new can \
                 reach you by it.",
            )
            .and(MISTAKE),
        HandleAct::Unfreeze => text
            .and(" is no longer frozen. To see how it's set up and who can reach you by it, write ")
            .code("handles")
            .and("."),
        HandleAct::Verify => text.and(" was marked as verified by the admin of this server."),
        HandleAct::Unverify => text.and(
            " is no longer marked as verified. The admin of this server has taken the mark back.",
        ),
        HandleAct::Transfer { .. } | HandleAct::Release => {
            let text = text.and(
                " is no longer yours: the admin of this server has taken it from you. Nobody can \
                 reach you by it.",
            );
            let text = match record.mode {
                Mode::Masked => text.and(" Its conversations end."),
                Mode::Open | Mode::Sealed => text,
            };
            text.and(MISTAKE)
        }
    })
}

/// Returns what the person is told to whom the handle was given.
fn words_for_new_owner(record: &HandleRecord, ghost: &Ghost, module_loaded: bool) -> NoticeText {
    NoticeText::new("The admin of this server gave you ")
        .name(&record.handle.to_string())
        .and(". In a moment people can reach you by starting a chat with ")
        .name(ghost.as_str())
        .and(", or with this link: ")
        .append(link_to(ghost))
        .append(decline_text(ghost, module_loaded))
        .paragraph()
        .and("To be left alone: ")
        .code(&format!("policy {} nobody", record.handle.as_shown()))
        .and(". If you don't want it: ")
        .code(&format!("release {}", record.handle.as_shown()))
        .and(". All you can do: ")
        .code("help")
        .and(".")
}
