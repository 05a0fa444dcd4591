//! `stonechat config check`

use std::{path::Path, process::ExitCode};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{CliError, json::print_json, printable::Printable};
use crate::config::{OptionsInFile, Setup, read_config_text, secrets::Environment};

/// Check the configuration without starting anything.
#[derive(Debug, Args)]
pub struct ConfigCommand {
    #[command(subcommand)]
    command: ConfigSubcommand,
}

#[derive(Debug, Subcommand)]
enum ConfigSubcommand {
    /// Check the configuration, the registration and the tokens as at a start, and name every option
    /// that was renamed, is unknown, or has its default because the file leaves it out.
    ///
    /// Run it with a new version before you start that, on the configuration that you have. The exit
    /// code is 0 if Stonechat can start with the configuration, and 1 if it cannot.
    Check(CheckConfig),
}

#[derive(Debug, Args)]
struct CheckConfig {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// What the command shows.
#[derive(Debug, Serialize)]
struct ConfigReport {
    file: String,
    version: &'static str,
    /// Whether Stonechat can start with it.
    ok: bool,
    /// Why it cannot, unless that is an option that was renamed or is unknown.
    problem: Option<String>,
    #[serde(flatten)]
    options: OptionsInFile,
}

impl ConfigCommand {
    /// Checks the file and prints what it found.
    pub(super) fn run(
        self,
        config: &Path,
        environment: Environment<'_>,
    ) -> Result<ExitCode, CliError> {
        let ConfigSubcommand::Check(CheckConfig { json }) = self.command;
        let report = report_on(config, environment)?;
        if json {
            print_json(&report)?;
        } else {
            println!("{}", format_report(&report));
        }
        Ok(if report.ok {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn report_on(config: &Path, environment: Environment<'_>) -> Result<ConfigReport, CliError> {
    let options = OptionsInFile::find(config, &read_config_text(config)?)?;
    let are_known = options.renamed.is_empty() && options.unknown.is_empty();
    // With such an option the rest is not looked at.
    let problem = match are_known {
        true => Setup::load(config, environment).err(),
        false => None,
    };
    Ok(ConfigReport {
        file: config.display().to_string(),
        version: env!("CARGO_PKG_VERSION"),
        ok: are_known && problem.is_none(),
        problem: problem.map(|problem| problem.to_string()),
        options,
    })
}

fn format_report(report: &ConfigReport) -> String {
    let (file, version) = (Printable::whole(&report.file), report.version);
    let mut lines = vec![match report.ok {
        true => format!("Stonechat {version} can start with {file}."),
        false => format!("Stonechat {version} cannot start with {file}:"),
    }];
    let OptionsInFile {
        renamed,
        unknown,
        defaults,
    } = &report.options;
    for option in renamed {
        let (from, to, since) = (option.from, option.to, option.since);
        lines.push(format!(
            "  {from} is called {to} since version {since}; rename it"
        ));
    }
    for option in unknown {
        let name = Printable::whole(&option.option);
        lines.push(match option.meant {
            Some(meant) => format!("  {name} is no option; did you mean {meant}?"),
            None => format!("  {name} is no option; remove it"),
        });
    }
    if !renamed.is_empty() || !unknown.is_empty() {
        lines.push("Run this again after that: the values have not been checked yet.".to_owned());
    }
    if let Some(problem) = &report.problem {
        lines.push(format!("  {}", Printable::whole(problem)));
    }
    if !defaults.is_empty() {
        lines.push("Not in the file, so these have their defaults:".to_owned());
        let defaults = defaults.iter();
        lines.extend(defaults.map(|it| format!("  {}: {}", it.option, it.default)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::tests::{Home, no_environment};

    #[test]
    fn a_file_of_init_is_good_and_one_that_lacks_options_too() {
        let home = Home::new();
        home.init(&[]).unwrap();
        let file = home.path("config/stonechat.yaml");
        let report = report_on(&file, &no_environment).unwrap();
        assert!(
            report.ok && report.options == OptionsInFile::default(),
            "{report:?}"
        );
        let text = fs::read_to_string(&file).unwrap();
        let lacking = text.replace("  linger: 3s\n", "");
        assert_ne!(text, lacking);
        fs::write(&file, lacking).unwrap();
        let report = report_on(&file, &no_environment).unwrap();
        let words = format_report(&report).replace(file.to_str().unwrap(), "FILE");
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            words,
            format!(
                "Stonechat {version} can start with FILE.\n\
                 Not in the file, so these have their defaults:\n  introductions.linger: 3s"
            )
        );
    }

    #[test]
    fn every_wrong_option_is_named_at_once_and_then_the_first_wrong_value() {
        let home = Home::new();
        home.init(&[]).unwrap();
        let file = home.path("config/stonechat.yaml");
        let good = fs::read_to_string(&file).unwrap();
        let bad = good
            .replace("  linger: 3s", "  lingre: 3s")
            .replace("  level: info", "  shout: loud");
        fs::write(&file, bad).unwrap();
        let report = report_on(&file, &no_environment).unwrap();
        assert!(!report.ok && report.problem.is_none(), "{report:?}");
        let words = format_report(&report);
        for part in [
            "cannot start with",
            "\n  introductions.lingre is no option; did you mean introductions.linger?",
            "\n  log.shout is no option; ",
            "\nRun this again",
        ] {
            assert!(words.contains(part), "{part:?} is not in {words}");
        }
        fs::write(&file, good.replace("  linger: 3s", "  linger: soon")).unwrap();
        let report = report_on(&file, &no_environment).unwrap();
        let problem = report.problem.clone().unwrap();
        assert!(
            !report.ok && problem.contains("introductions.linger"),
            "{problem}"
        );
        assert!(format_report(&report).contains(&problem));
        fs::write(&file, "homeserver: [").unwrap();
        report_on(&file, &no_environment).unwrap_err();
    }
}
