//! `stonechat status`

use std::{path::Path, process::ExitCode, time::Duration};

use clap::Args;
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{
    CliError, admin::RunningService, backup::format_size, json::print_json, printable::Printable,
};
use crate::{
    config::{Setup, secrets::Environment},
    engine::{StorePart, WaitingWork},
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
    let state = match status.restoring {
        true => format!("{}; it is finishing a restore", status.state),
        false => status.state.clone(),
    };
    let mut text = format!("Stonechat {}: {state}\n", status.version);
    let part = |name: &str| status.parts.get(name).map_or("unknown", String::as_str);
    let lines = [
        ("homeserver", part("homeserver").to_owned()),
        ("transactions", part("transactions").to_owned()),
        ("waiting", words_of_waiting(&status.waiting)),
        (
            "database",
            format!("{} on disk", format_size(status.size_on_disk)),
        ),
    ];
    let lines = lines.map(|(name, state)| format!("{name}: {state}"));
    text.push_str(&lines.join("\n"));
    for stuck in &status.waiting.stuck {
        let room = Printable::whole(&stuck.room);
        text.push_str(&format!(
            "\nstuck: {} in {room}, since {}",
            stuck.what, stuck.since
        ));
    }
    if let Some(parts) = store {
        text.push_str("\nThe database consists of, before what it adds itself:\n");
        let rows = parts.iter().map(|part| {
            let records = format!("{} records", part.records);
            [part.what.clone(), records, format_size(part.bytes)]
        });
        text.push_str(&table_of(rows).to_string());
    }
    if status.dead_letters.is_empty() {
        text.push_str("\nNothing from the homeserver has been set aside.");
        return text;
    }
    text.push_str("\nSet aside, because it was too large or could not be read:\n");
    let letters = status.dead_letters.iter();
    let rows = letters.map(|(reason, count)| [reason.clone(), count.to_string()]);
    text.push_str(&table_of(rows).to_string());
    text
}

/// Returns what waits to be done, in a line.
fn words_of_waiting(waiting: &WaitingWork) -> String {
    let mut words = Vec::new();
    if waiting.inbox > 0 {
        let since = words_of_age(waiting.oldest_item_seconds);
        words.push(format!("{} to be decided{since}", waiting.inbox));
    }
    if waiting.outbox > 0 {
        let since = words_of_age(waiting.oldest_effect_seconds);
        words.push(format!("{} to be done{since}", waiting.outbox));
    }
    if waiting.owed_ghosts > 0 {
        words.push(format!(
            "ghosts to be made or removed: {}",
            waiting.owed_ghosts
        ));
    }
    if waiting.owed_notices > 0 {
        words.push(format!("notices to be sent: {}", waiting.owed_notices));
    }
    if words.is_empty() {
        return "nothing".to_owned();
    }
    words.join(", ")
}

/// Returns for how long the oldest of several has been waiting, in brackets.
fn words_of_age(seconds: Option<u64>) -> String {
    let age = seconds.map(Duration::from_secs);
    age.map_or_else(String::new, |age| {
        format!(" (the oldest for {})", humantime::format_duration(age))
    })
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
    use ruma::owned_room_id;

    use super::*;
    use crate::{clock::Timestamp, engine::StuckEffect};

    fn report() -> StatusReport {
        let parts = ["start", "store", "homeserver", "transactions"];
        let parts = parts.map(|part| (part.to_owned(), "ok".to_owned()));
        let status = Status {
            version: "0.1.0".to_owned(),
            ready: true,
            state: "ready".to_owned(),
            parts: parts.into(),
            restoring: false,
            waiting: WaitingWork::default(),
            dead_letters: Default::default(),
            size_on_disk: 25_480_000,
        };
        StatusReport {
            status,
            store: None,
        }
    }

    #[test]
    fn a_service_that_is_well_is_shown_in_a_few_lines() {
        insta::assert_snapshot!(format_status(&report()), @r"
        Stonechat 0.1.0: ready
        homeserver: ok
        transactions: ok
        waiting: nothing
        database: 24.3 MiB on disk
        Nothing from the homeserver has been set aside.
        ");
    }

    #[test]
    fn what_is_wrong_and_what_is_stuck_is_named() {
        let mut report = report();
        let status = &mut report.status;
        status.ready = false;
        status.state = "not ready: homeserver: it does not answer".to_owned();
        status.restoring = true;
        let homeserver = ("homeserver".to_owned(), "it does not answer".to_owned());
        status.parts.extend([homeserver]);
        status.waiting = WaitingWork {
            inbox: 2,
            outbox: 14,
            oldest_item_seconds: Some(4),
            oldest_effect_seconds: Some(3_723),
            owed_ghosts: 1,
            owed_notices: 3,
            stuck: vec![StuckEffect {
                room: owned_room_id!("!room:hs.test"),
                what: "forward".to_owned(),
                since: Timestamp(1_795_376_395_450),
            }],
        };
        let letters = &mut status.dead_letters;
        letters.insert("event_too_large".to_owned(), 12);
        letters.insert("to_device_too_large".to_owned(), 3);
        insta::assert_snapshot!(format_status(&report), @r"
        Stonechat 0.1.0: not ready: homeserver: it does not answer; it is finishing a restore
        homeserver: it does not answer
        transactions: ok
        waiting: 2 to be decided (the oldest for 4s), 14 to be done (the oldest for 1h 2m 3s), ghosts to be made or removed: 1, notices to be sent: 3
        database: 24.3 MiB on disk
        stuck: forward in !room:hs.test, since 2026-11-22 19:39:55 UTC
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
        Stonechat 0.1.0: ready
        homeserver: ok
        transactions: ok
        waiting: nothing
        database: 24.3 MiB on disk
        The database consists of, before what it adds itself:
         copies of messages in masked conversations  30000 records  2.8 MiB 
         rooms and introductions                     12 records     4.0 KiB 
        Nothing from the homeserver has been set aside.
        ");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["store"][1]["records"], 12);
    }
}
