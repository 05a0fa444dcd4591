//! `stonechat status`

use std::{path::Path, process::ExitCode};

use clap::Args;
use comfy_table::{Table, presets::NOTHING};

use super::{CliError, admin::RunningService};
use crate::{
    config::{Setup, secrets::Environment},
    server::Status,
};

/// Shows the state of the running Stonechat. The exit code is 0 when it is ready and 1 when it is
/// not.
#[derive(Debug, Args)]
pub struct ShowStatus {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

impl ShowStatus {
    /// Asks the running service and prints its answer.
    pub(super) async fn run(
        self,
        config: &Path,
        environment: Environment<'_>,
    ) -> Result<ExitCode, CliError> {
        let setup = Setup::load(config, environment)?;
        let running = RunningService::find(&setup.data).await?.ok_or_else(|| {
            CliError::Check("Stonechat is not running; start it, or look at its log".to_owned())
        })?;
        let status = running.status().await?;
        if self.json {
            let json = serde_json::to_string_pretty(&status);
            println!(
                "{}",
                json.map_err(|error| CliError::Check(error.to_string()))?
            );
        } else {
            println!("{}", format_status(&status));
        }
        Ok(if status.ready {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn format_status(status: &Status) -> String {
    let state = match (status.ready, status.restoring) {
        (_, true) => "is finishing a restore",
        (true, false) => "is ready",
        (false, false) => "is not ready",
    };
    let mut text = format!("Stonechat {} {state}.\n\n", status.version);
    if status.dead_letters.is_empty() {
        text.push_str("Nothing from the homeserver has been set aside.");
        return text;
    }
    text.push_str("Set aside, because it was too large or could not be read:\n");
    let mut table = Table::new();
    table.load_preset(NOTHING);
    for (reason, count) in &status.dead_letters {
        table.add_row([reason.clone(), count.to_string()]);
    }
    text.push_str(&table.to_string());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_are_shown_by_reason() {
        let mut status = Status {
            version: "0.1.0".to_owned(),
            ready: true,
            restoring: false,
            dead_letters: Default::default(),
        };
        insta::assert_snapshot!(format_status(&status), @r"
        Stonechat 0.1.0 is ready.

        Nothing from the homeserver has been set aside.
        ");
        status.ready = false;
        status.dead_letters.insert("event_too_large".to_owned(), 12);
        status
            .dead_letters
            .insert("to_device_too_large".to_owned(), 3);
        insta::assert_snapshot!(format_status(&status), @r"
        Stonechat 0.1.0 is not ready.

        Set aside, because it was too large or could not be read:
         event_too_large      12 
         to_device_too_large  3
        ");
    }
}
