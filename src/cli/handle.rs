//! `stonechat handle`: what the admin does with handles.

use std::{path::Path, process::ExitCode};

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets::NOTHING};
use ruma::OwnedUserId;
use serde::Serialize;

use super::{CliError, admin::RunningService, printable::Printable};
use crate::{
    config::{Setup, secrets::Environment},
    directory::{FreezeReason, HandleSummary, Mode, Others, Reach, StateFilter},
    server::{HandleDetails, HandleQuery},
};

/// Shows handles. Stonechat must be running.
#[derive(Debug, Args)]
pub struct HandleCommand {
    #[command(subcommand)]
    act: HandleAct,
}

#[derive(Debug, Subcommand)]
enum HandleAct {
    /// List the handles, with their owners and states.
    List(ListHandles),
    /// Show one handle: who owns it, how it is set up, and why it is frozen.
    Show(ShowHandle),
}

#[derive(Debug, Args)]
struct ListHandles {
    /// Only those of this person, by their Matrix ID.
    #[arg(long, value_name = "MATRIX_ID")]
    owner: Option<OwnedUserId>,
    /// Only those of people of this server.
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Only those in this state.
    #[arg(long)]
    state: Option<ShownState>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShownState {
    Active,
    Frozen,
    Quarantined,
}

impl From<ShownState> for StateFilter {
    fn from(state: ShownState) -> Self {
        match state {
            ShownState::Active => Self::Active,
            ShownState::Frozen => Self::Frozen,
            ShownState::Quarantined => Self::Quarantined,
        }
    }
}

#[derive(Debug, Args)]
struct ShowHandle {
    /// The handle, with or without @.
    handle: String,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

impl HandleCommand {
    /// Asks the running service and prints its answer. The exit code is 1 if there is no such handle.
    pub(super) async fn run(
        self,
        config: &Path,
        environment: Environment<'_>,
    ) -> Result<ExitCode, CliError> {
        let setup = Setup::load(config, environment)?;
        let running = RunningService::find(&setup.data).await?.ok_or_else(|| {
            CliError::Check("Stonechat is not running; start it, or look at its log".to_owned())
        })?;
        match self.act {
            HandleAct::List(list) => list.run(&running).await,
            HandleAct::Show(show) => show.run(&running).await,
        }
        .map(|()| ExitCode::SUCCESS)
    }
}

impl ListHandles {
    async fn run(self, running: &RunningService) -> Result<(), CliError> {
        let mut query = HandleQuery {
            owner: self.owner,
            server: self.server,
            state: self.state.map(StateFilter::from),
            after: None,
        };
        let mut handles = Vec::new();
        loop {
            let page = running.handles(&query).await?;
            handles.extend(page.handles);
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        if self.json {
            return print_json(&handles);
        }
        if handles.is_empty() {
            println!("There are no such handles.");
            return Ok(());
        }
        println!("{}", table_of(&handles));
        Ok(())
    }
}

impl ShowHandle {
    async fn run(self, running: &RunningService) -> Result<(), CliError> {
        let details = running.handle(&self.handle).await?;
        if self.json {
            return print_json(&details);
        }
        println!("{}", words_of(&details));
        Ok(())
    }
}

fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value);
    println!(
        "{}",
        json.map_err(|error| CliError::Check(error.to_string()))?
    );
    Ok(())
}

fn table_of(handles: &[HandleSummary]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["HANDLE", "OWNER", "STATE", "MODE", "CLAIMED"]);
    for handle in handles {
        table.add_row([
            handle.handle.to_string(),
            Printable::whole(&handle.owner).to_string(),
            handle.state.as_str().to_owned(),
            mode_of(handle).to_owned(),
            handle.claimed_at.to_string(),
        ]);
    }
    table
}

/// Returns the word by which the bot sets this mode.
fn mode_of(handle: &HandleSummary) -> &'static str {
    match handle.mode {
        _ if handle.strict => "strict",
        Mode::Open => "open",
        Mode::Masked => "masked",
        Mode::Sealed => "sealed",
    }
}

/// Returns who may reach the owner, and what happens to others.
fn policy_of(handle: &HandleSummary) -> String {
    let direct = match handle.reach {
        Reach::Everyone => return "everyone".to_owned(),
        Reach::Handles => "people with a handle here",
        Reach::Verified => "people with a verified handle",
        Reach::Contacts => "contacts",
        Reach::Nobody => "nobody",
    };
    let others = match handle.others {
        Others::Request => "the owner is asked about others",
        Others::Refuse => "others are refused",
    };
    format!("{direct}; {others}")
}

fn words_of(details: &HandleDetails) -> String {
    let it = &details.summary;
    let owner = Printable::whole(&it.owner);
    let mut lines = vec![match it.free_at {
        Some(free_at) => format!(
            "{}: released by {owner}; everybody can claim it from {free_at} on",
            it.handle
        ),
        None => format!("{}: held by {owner} since {}", it.handle, it.claimed_at),
    }];
    if let (Some(reason), Some(since)) = (&it.frozen_for, it.frozen_since) {
        lines.push(format!("frozen since {since}: {}", words_of_freeze(reason)));
    }
    if let Some(how) = &details.changed_since_backup {
        lines.push(format!(
            "changed since the backup: {}",
            Printable::whole(how)
        ));
    }
    if let Some(at) = it.verified_at {
        lines.push(format!("verified since {at}"));
    }
    lines.push(format!("mode: {}", mode_of(it)));
    lines.push(format!("policy: {}", policy_of(it)));
    lines.push(format!("owner number {} of this name", it.generation));
    lines.join("\n")
}

fn words_of_freeze(reason: &FreezeReason) -> String {
    match reason {
        FreezeReason::Admin { note } if note.is_empty() => "by the admin".to_owned(),
        FreezeReason::Admin { note } => format!("by the admin ({})", Printable::whole(note)),
        FreezeReason::GhostNotOurs => {
            "somebody else has the Matrix ID of its ghost, or has changed the ghost's keys"
                .to_owned()
        }
        FreezeReason::ChangedSinceBackup => {
            "it changed after the backup from which Stonechat was restored".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::owned_user_id;

    use super::*;
    use crate::{
        clock::Timestamp,
        directory::{HandleRecord, HandleState},
        handle::{Handle, HandleRules},
        ids::Person,
    };

    fn record(name: &str, owner: ruma::OwnedUserId) -> HandleRecord {
        let handle = Handle::parse(name, &HandleRules::WIDEST).unwrap();
        HandleRecord::new(handle, Person::new(owner), 2, Timestamp(1_795_376_395_450))
    }

    #[test]
    fn handles_are_listed_as_a_table_with_nothing_that_controls_a_terminal() {
        let mut kim = record("Kim", owned_user_id!("@kim:far.example"));
        kim.strict = true;
        let odd = ruma::OwnedUserId::try_from("@\u{1b}[31m\u{202e}:far.example");
        let odd = odd.unwrap_or_else(|_| owned_user_id!("@odd:far.example"));
        let handles = [record("sam", odd).into(), kim.into()];
        let shown = table_of(&handles).to_string();
        assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
        assert!(
            shown.contains("@Kim") && shown.contains("strict"),
            "{shown}"
        );
    }

    #[test]
    fn one_handle_is_shown_with_why_it_is_frozen() {
        let mut sam = record("sam", owned_user_id!("@samuel:hs.test"));
        sam.state = HandleState::Frozen {
            reason: FreezeReason::ChangedSinceBackup,
            since: Timestamp(1_795_376_395_450),
        };
        let details = HandleDetails {
            summary: sam.into(),
            changed_since_backup: Some("its device is another one".to_owned()),
        };
        insta::assert_snapshot!(words_of(&details), @r"
        @sam: held by @samuel:hs.test since 2026-11-22 19:39:55 UTC
        frozen since 2026-11-22 19:39:55 UTC: it changed after the backup from which Stonechat was restored
        changed since the backup: its device is another one
        mode: open
        policy: everyone
        owner number 2 of this name
        ");
    }
}
