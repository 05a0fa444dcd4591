//! `stonechat handle`: what the admin does with handles.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets::NOTHING};
use ruma::OwnedUserId;

use super::{
    CliError, admin::RunningService, handle_acts::ActCommand, json::print_json,
    printable::Printable,
};
use crate::{
    config::{Setup, secrets::Environment},
    directory::{HandleSummary, StateFilter},
    server::{HandleDetails, HandleQuery},
};

/// Shows handles, and acts on them. Stonechat must be running.
#[derive(Debug, Args)]
pub struct HandleCommand {
    #[command(subcommand)]
    command: HandleSubcommand,
}

#[derive(Debug, Subcommand)]
enum HandleSubcommand {
    /// List the handles, with their owners and states.
    List(ListHandles),
    /// Show one handle: who owns it, how it is set up, and why it is frozen.
    Show(ShowHandle),
    #[command(flatten)]
    Act(ActCommand),
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
    /// Asks the running service and prints its answer.
    pub(super) async fn run(
        self,
        config: &Path,
        environment: Environment<'_>,
    ) -> Result<(), CliError> {
        let setup = Setup::load(config, environment)?;
        let running = RunningService::of(&setup).await?;
        match self.command {
            HandleSubcommand::List(list) => list.run(&running).await,
            HandleSubcommand::Show(show) => show.run(&running).await,
            HandleSubcommand::Act(act) => act.run(&running, environment).await,
        }
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

fn table_of(handles: &[HandleSummary]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["HANDLE", "OWNER", "STATE", "MODE", "CLAIMED"]);
    for handle in handles {
        table.add_row([
            handle.handle.to_string(),
            Printable::whole(&handle.owner).to_string(),
            handle.state.as_str().to_owned(),
            handle.mode_word().to_owned(),
            handle.claimed_at.to_string(),
        ]);
    }
    table
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
        lines.push(format!(
            "frozen since {since}: {}",
            Printable::whole(reason)
        ));
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
    lines.push(format!("mode: {}", it.mode_word()));
    lines.push(format!("policy: {}", it.policy_words()));
    lines.push(format!("owner number {} of this name", it.generation));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use ruma::owned_user_id;

    use super::*;
    use crate::{
        clock::Timestamp,
        directory::{FreezeReason, HandleRecord, HandleState},
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
