//! `stonechat person`, `server`, `bans` and `limits`: what the admin does about people and servers.

use std::{path::Path, time::Duration};

use clap::{Args, Subcommand};
use comfy_table::{Table, presets::NOTHING};
use ruma::{OwnedServerName, OwnedUserId};

use super::{
    CliError,
    admin::RunningService,
    handle_acts::{HowToAct, login, print_done},
    json::print_json,
    printable::Printable,
};
use crate::{
    config::{Setup, secrets::Environment},
    directory::{BanEntry, GranteeAct, LimitUse, PersonSummary},
    permissions::Grantee,
    server::{ErasureRequest, GranteeActRequest, LimitsUsed},
};

/// Shows what is known of a person, exports it for them, erases or bans them. Stonechat must be running.
#[derive(Debug, Args)]
pub struct PersonCommand {
    #[command(subcommand)]
    command: PersonSubcommand,
}

#[derive(Debug, Subcommand)]
enum PersonSubcommand {
    /// Show what they may do, their handles, and what they have used of their limits.
    Show {
        /// The Matrix ID.
        person: OwnedUserId,
        /// Print JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Print what is kept about them, as JSON, to be given to them. Of other people it holds only
    /// what this person has seen.
    Export {
        /// The Matrix ID.
        person: OwnedUserId,
    },
    /// Delete what is kept about them, release their handles and end their masked conversations. It
    /// cannot be undone. docs/data-protection.md says what stays.
    Erase {
        /// The Matrix ID.
        person: OwnedUserId,
        /// Do it without asking. Without this, the command only says what would happen.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        how: HowToAct,
    },
    /// Let them reach nobody and claim nothing, and let nobody new reach them. They keep their
    /// handles, and conversations that have begun go on.
    Ban {
        /// The Matrix ID.
        person: OwnedUserId,
        #[command(flatten)]
        how: HowToAct,
    },
    /// Take a ban back.
    Unban {
        /// The Matrix ID.
        person: OwnedUserId,
        #[command(flatten)]
        how: HowToAct,
    },
}

/// Bans the people of a server, or takes that back. Stonechat must be running.
#[derive(Debug, Args)]
pub struct ServerCommand {
    #[command(subcommand)]
    command: ServerSubcommand,
}

#[derive(Debug, Subcommand)]
enum ServerSubcommand {
    /// Let its people reach nobody and claim nothing, and let nobody new reach them.
    Ban {
        /// The server, with every port unless it has one.
        server: OwnedServerName,
        #[command(flatten)]
        how: HowToAct,
    },
    /// Take a ban back.
    Unban {
        /// The server, as it was banned.
        server: OwnedServerName,
        #[command(flatten)]
        how: HowToAct,
    },
}

/// Shows who is banned, since when and why. Stonechat must be running.
#[derive(Debug, Args)]
pub struct ShowBans {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Shows what a person, a server or everybody has used of the limits, or resets it. Stonechat must
/// be running.
#[derive(Debug, Args)]
pub struct LimitsCommand {
    #[command(subcommand)]
    command: LimitsSubcommand,
}

#[derive(Debug, Subcommand)]
enum LimitsSubcommand {
    /// Show what is used.
    Show {
        /// A Matrix ID, a server, or `*` for what counts for everybody together.
        whose: Grantee,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Forget what was used. A person whom the bot ignores for a minute is listened to again.
    Reset {
        /// A Matrix ID, a server, or `*` for what counts for everybody together.
        whose: Grantee,
        #[command(flatten)]
        how: HowToAct,
    },
}

/// Finds the running service of a configuration.
async fn find(config: &Path, environment: Environment<'_>) -> Result<RunningService, CliError> {
    RunningService::of(&Setup::load(config, environment)?).await
}

/// Orders an act and prints what came of it.
async fn order(
    running: &RunningService,
    environment: Environment<'_>,
    (grantee, act): (Grantee, GranteeAct),
    how: HowToAct,
) -> Result<(), CliError> {
    let request = GranteeActRequest {
        grantee,
        act,
        reason: how.reason,
        login: login(environment),
    };
    print_done(&running.act_on_grantee(&request).await?, how.json)
}

/// Erases a person, if that is confirmed, and prints what was done.
async fn erase(
    running: &RunningService,
    environment: Environment<'_>,
    person: OwnedUserId,
    is_confirmed: bool,
    how: HowToAct,
) -> Result<(), CliError> {
    if !is_confirmed {
        println!("{}", words_of(&running.person(&person).await?));
        let problem = "nothing was done: this cannot be undone, so repeat the command with --yes";
        return Err(CliError::Usage(problem.to_owned()));
    }
    let request = ErasureRequest {
        person,
        reason: how.reason,
        login: login(environment),
    };
    print_done(&running.erase_person(&request).await?, how.json)
}

impl PersonCommand {
    /// Asks the running service and prints its answer.
    pub(super) async fn run(
        self,
        config: &Path,
        environment: Environment<'_>,
    ) -> Result<(), CliError> {
        let running = find(config, environment).await?;
        let (person, act, how) = match self.command {
            PersonSubcommand::Show { person, json } => {
                let shown = running.person(&person).await?;
                if json {
                    return print_json(&shown);
                }
                println!("{}", words_of(&shown));
                return Ok(());
            }
            PersonSubcommand::Export { person } => {
                return print_json(&running.export_person(&person).await?);
            }
            PersonSubcommand::Erase { person, yes, how } => {
                return erase(&running, environment, person, yes, how).await;
            }
            PersonSubcommand::Ban { person, how } => (person, GranteeAct::Ban, how),
            PersonSubcommand::Unban { person, how } => (person, GranteeAct::Unban, how),
        };
        let act = (Grantee::Person(person), act);
        order(&running, environment, act, how).await
    }
}

impl ServerCommand {
    /// Asks the running service and prints its answer.
    pub(super) async fn run(
        self,
        config: &Path,
        environment: Environment<'_>,
    ) -> Result<(), CliError> {
        let running = find(config, environment).await?;
        let (server, act, how) = match self.command {
            ServerSubcommand::Ban { server, how } => (server, GranteeAct::Ban, how),
            ServerSubcommand::Unban { server, how } => (server, GranteeAct::Unban, how),
        };
        let act = (Grantee::of_server(&server), act);
        order(&running, environment, act, how).await
    }
}

impl ShowBans {
    /// Asks the running service and prints its answer.
    pub(super) async fn run(
        self,
        config: &Path,
        environment: Environment<'_>,
    ) -> Result<(), CliError> {
        let running = find(config, environment).await?;
        let (mut bans, mut after) = (Vec::new(), None);
        loop {
            let page = running.bans(after.as_deref()).await?;
            bans.extend(page.bans);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if self.json {
            return print_json(&bans);
        }
        if bans.is_empty() {
            println!("Nobody is banned.");
            return Ok(());
        }
        println!("{}", table_of_bans(&bans));
        Ok(())
    }
}

impl LimitsCommand {
    /// Asks the running service and prints its answer.
    pub(super) async fn run(
        self,
        config: &Path,
        environment: Environment<'_>,
    ) -> Result<(), CliError> {
        let running = find(config, environment).await?;
        match self.command {
            LimitsSubcommand::Show { whose, json } => {
                let used = running.limits(&whose).await?;
                if json {
                    return print_json(&used);
                }
                println!("{}", words_of_limits(&used));
                Ok(())
            }
            LimitsSubcommand::Reset { whose, how } => {
                let act = (whose, GranteeAct::ResetLimits);
                order(&running, environment, act, how).await
            }
        }
    }
}

fn table_of_bans(bans: &[BanEntry]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["WHO", "SINCE", "WHY"]);
    for entry in bans {
        table.add_row([
            Printable::whole(&entry.subject).to_string(),
            entry.ban.since.to_string(),
            Printable::whole(&entry.ban.reason).to_string(),
        ]);
    }
    table
}

fn words_of_limits(used: &LimitsUsed) -> String {
    let mut text = match used.limits.is_empty() {
        true => "Nothing is used.".to_owned(),
        false => table_of_limits(&used.limits).to_string(),
    };
    if let Some(until) = used.ignored_until {
        text.push_str(&format!("\nThe bot ignores them until {until}."));
    }
    text
}

fn table_of_limits(limits: &[LimitUse]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["LIMIT", "USED", "OF", "WITHIN"]);
    for limit in limits {
        let window = humantime::format_duration(Duration::from_secs(limit.seconds));
        table.add_row([
            limit.what.clone(),
            limit.used.to_string(),
            limit.most.to_string(),
            window.to_string(),
        ]);
    }
    table
}

fn words_of(it: &PersonSummary) -> String {
    let who = Printable::whole(&it.person);
    let mut lines = vec![format!("{who} may {}", it.permission.words())];
    if let Some(ban) = &it.ban {
        let why = match ban.reason.is_empty() {
            true => String::new(),
            false => format!(": {}", Printable::whole(&ban.reason)),
        };
        lines.push(format!("banned since {}{why}", ban.since));
    }
    let handles = it.handles.iter();
    let handles: Vec<String> = handles.map(|it| it.handle.to_string()).collect();
    lines.push(match handles.is_empty() {
        true => "handles: none".to_owned(),
        false => format!("handles: {}", handles.join(", ")),
    });
    lines.push(format!(
        "people who wait for their answer: {}",
        it.open_requests
    ));
    lines.push(format!("blocks that they made: {}", it.blocks));
    if !it.limits.is_empty() {
        lines.push(table_of_limits(&it.limits).to_string());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use ruma::owned_user_id;

    use super::*;
    use crate::{clock::Timestamp, directory::Ban, permissions::Permission};

    #[test]
    fn a_person_is_shown_with_what_they_may_do_and_have_used() {
        let shown = PersonSummary {
            person: owned_user_id!("@eve:far.example"),
            permission: Permission::None,
            ban: Some(Ban {
                since: Timestamp(1_795_376_395_450),
                reason: "spam\u{1b}".to_owned(),
            }),
            handles: Vec::new(),
            open_requests: 0,
            blocks: 2,
            limits: vec![LimitUse {
                what: "claims".to_owned(),
                used: 3,
                most: 10,
                seconds: 86_400,
            }],
        };
        insta::assert_snapshot!(words_of(&shown), @r"
        @eve:far.example may reach nobody
        banned since 2026-11-22 19:39:55 UTC: spam\u{1b}
        handles: none
        people who wait for their answer: 0
        blocks that they made: 2
         LIMIT   USED  OF  WITHIN 
         claims  3     10  1day
        ");
    }
}
