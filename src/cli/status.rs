//! `stonechat status`

use std::{path::Path, process::ExitCode};

use clap::Args;
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{CliError, admin::RunningService, backup::format_size, json::print_json};
use crate::{
    config::{Setup, secrets::Environment},
    engine::StorePart,
    server::Status,
};

/// Shows the state of the running Stonechat. The exit code is 0 when it is ready and 1 when it is
/// not.
#[derive(Debug, Args)]
pub struct ShowStatus {
    /// Also show what the database consists of. Every record is read for it: a second for some
    /// 100,000 of them.
    #[arg(long)]
    sizes: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// What the command shows.
#[derive(Serialize)]
struct StatusReport {
    #[serde(flatten)]
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<Vec<StorePart>>,
}

impl ShowStatus {
    /// Asks the running service and prints its answer.
    pub(super) async fn run(
        self,
        config: &Path,
        environment: Environment<'_>,
    ) -> Result<ExitCode, CliError> {
        let setup = Setup::load(config, environment)?;
        let running = RunningService::of(&setup).await?;
        let status = running.status().await?;
        let is_ready = status.ready;
        let store = if self.sizes {
            Some(running.store_parts().await?)
        } else {
            None
        };
        let report = StatusReport { status, store };
        if self.json {
            print_json(&report)?;
        } else {
            println!("{}", format_status(&report));
        }
        Ok(if is_ready {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn format_status(StatusReport { status, store }: &StatusReport) -> String {
    let state = match (status.ready, status.restoring) {
        (_, true) => "is finishing a restore",
        (true, false) => "is ready",
        (false, false) => "is not ready",
    };
    let mut text = format!("Stonechat {} {state}.\n\n", status.version);
    let size = format_size(status.size_on_disk);
    text.push_str(&format!("The database takes {size} on disk.\n"));
    if let Some(parts) = store {
        text.push_str("It consists of, before what the database itself adds:\n");
        let rows = parts.iter().map(|part| {
            let records = format!("{} records", part.records);
            [part.what.clone(), records, format_size(part.bytes)]
        });
        text.push_str(&format!("{}\n", table_of(rows)));
    }
    text.push('\n');
    if status.dead_letters.is_empty() {
        text.push_str("Nothing from the homeserver has been set aside.");
        return text;
    }
    text.push_str("Set aside, because it was too large or could not be read:\n");
    let letters = status.dead_letters.iter();
    let rows = letters.map(|(reason, count)| [reason.clone(), count.to_string()]);
    text.push_str(&table_of(rows).to_string());
    text
}

fn table_of<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    for row in rows {
        table.add_row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> StatusReport {
        let status = Status {
            version: "0.1.0".to_owned(),
            ready: true,
            restoring: false,
            dead_letters: Default::default(),
            size_on_disk: 25_480_000,
        };
        StatusReport {
            status,
            store: None,
        }
    }

    #[test]
    fn dead_letters_are_shown_by_reason() {
        let mut report = report();
        insta::assert_snapshot!(format_status(&report), @r"
        Stonechat 0.1.0 is ready.

        The database takes 24.3 MiB on disk.

        Nothing from the homeserver has been set aside.
        ");
        report.status.ready = false;
        let letters = &mut report.status.dead_letters;
        letters.insert("event_too_large".to_owned(), 12);
        letters.insert("to_device_too_large".to_owned(), 3);
        insta::assert_snapshot!(format_status(&report), @r"
        Stonechat 0.1.0 is not ready.

        The database takes 24.3 MiB on disk.

        Set aside, because it was too large or could not be read:
         event_too_large      12 
         to_device_too_large  3
        ");
    }

    #[test]
    fn what_the_database_consists_of_is_shown_on_demand() {
        let part = |what: &str, records, bytes| StorePart {
            what: what.to_owned(),
            records,
            bytes,
        };
        let mut report = report();
        let json = serde_json::to_value(&report).unwrap();
        assert!(json.get("store").is_none() && json["size_on_disk"] == 25_480_000);
        report.store = Some(vec![
            part(
                "copies of messages in masked conversations",
                30_000,
                2_900_000,
            ),
            part("rooms and introductions", 12, 4_100),
        ]);
        insta::assert_snapshot!(format_status(&report), @r"
        Stonechat 0.1.0 is ready.

        The database takes 24.3 MiB on disk.
        It consists of, before what the database itself adds:
         copies of messages in masked conversations  30000 records  2.8 MiB 
         rooms and introductions                     12 records     4.0 KiB 

        Nothing from the homeserver has been set aside.
        ");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["store"][1]["records"], 12);
    }
}
