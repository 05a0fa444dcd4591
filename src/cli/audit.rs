//! `stonechat audit`: the log of what admins did.

use std::{path::Path, time::Duration};

use clap::Args;
use comfy_table::{Table, presets::NOTHING};

use super::{CliError, admin::RunningService, json::print_json, printable::Printable};
use crate::{
    clock::{Clock as _, SystemClock, Timestamp},
    config::{Setup, secrets::Environment},
    directory::AuditEntry,
    server::AuditQuery,
};

/// Shows what admins did in the last year: who, when, to what, and why; the oldest first. Stonechat
/// must be running.
#[derive(Debug, Args)]
pub struct ShowAudit {
    /// Only what is not older than this, such as `7d` or `12h`.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Only what was done to this handle, person or server.
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

impl ShowAudit {
    /// Asks the running service and prints its answer.
    pub(super) async fn run(
        self,
        config: &Path,
        environment: Environment<'_>,
    ) -> Result<(), CliError> {
        let setup = Setup::load(config, environment)?;
        let running = RunningService::of(&setup).await?;
        let mut query = AuditQuery::default();
        if let Some(age) = self.since {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            query.after = Timestamp(SystemClock.now().0.saturating_sub(age));
        }
        let mut acts = Vec::new();
        loop {
            let page = running.audit_log(query).await?;
            acts.extend(page.acts.into_iter().filter(|act| self.shows(act)));
            let Some((after, number)) = page.next else {
                break;
            };
            query = AuditQuery { after, number };
        }
        if self.json {
            return print_json(&acts);
        }
        if acts.is_empty() {
            println!("No admin has done anything of that kind.");
            return Ok(());
        }
        println!("{}", table_of(&acts));
        Ok(())
    }

    fn shows(&self, act: &AuditEntry) -> bool {
        let bare = |name: &str| name.trim_start_matches('@').to_lowercase();
        let asked = self.subject.as_deref().map(bare);
        asked.is_none_or(|asked| asked == bare(&act.record.subject))
    }
}

fn table_of(acts: &[AuditEntry]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["WHEN", "ADMIN", "ACT", "TO WHAT", "FOR WHOM", "WHY"]);
    for AuditEntry { at, record } in acts {
        let to = record.to.as_ref();
        table.add_row([
            at.to_string(),
            Printable::whole(&record.by).to_string(),
            record.act.clone(),
            Printable::whole(&record.subject).to_string(),
            to.map_or_else(String::new, |to| Printable::whole(to).to_string()),
            Printable::whole(&record.reason).to_string(),
        ]);
    }
    table
}
