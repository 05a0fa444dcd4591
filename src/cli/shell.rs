//! `stonechat completions` and `stonechat man`: what a package ships beside the program, made from
//! the command line itself.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::CliError;

/// The name of the program.
const PROGRAM: &str = "stonechat";

/// The manual that the pages belong to, which stands in their first line.
const MANUAL: &str = "Stonechat";

/// What the page of the program says below its options: a heading, and terms with their meaning.
const SECTIONS: [(&str, &[(&str, &str)]); 3] = [
    (
        "FILES",
        &[
            (
                "/etc/stonechat/stonechat.yaml",
                "The configuration, where the folder /etc/stonechat exists, as with the Debian \
                 package; otherwise config/stonechat.yaml in the current folder.",
            ),
            (
                "store.key",
                "The key of the database, beside the configuration. Without it the database and \
                 its backups cannot be read: keep a copy in another place.",
            ),
            (
                "registration.yaml",
                "Tells the homeserver about Stonechat. The homeserver must be able to read it.",
            ),
            (
                "/var/lib/stonechat",
                "The database of the service that systemd runs.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("STONECHAT_CONFIG", "The configuration file."),
            (
                "STONECHAT_AS_TOKEN, STONECHAT_HS_TOKEN",
                "Replace the tokens of the registration.",
            ),
            (
                "STONECHAT_MODULE_TOKEN",
                "Replaces the token of the module.",
            ),
            (
                "STONECHAT_STORE_KEY",
                "Replaces the file with the key of the database.",
            ),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "All is well."),
            ("1", "The command was refused or failed."),
            ("2", "The command line is wrong."),
            ("3", "Stonechat is not running."),
            ("4", "Nobody holds this handle."),
        ],
    ),
];

/// The arguments of `completions`.
#[derive(Debug, Args)]
pub struct PrintCompletions {
    /// The shell.
    shell: Shell,
}

impl PrintCompletions {
    /// Prints the script by which the shell completes the commands and options of `program`.
    pub fn run(self, program: Command) -> Result<(), CliError> {
        let script = script(self.shell, program);
        let mut output = io::stdout().lock();
        let written = output.write_all(&script).and_then(|()| output.flush());
        written.map_err(|error| CliError::Check(format!("cannot print the completions: {error}")))
    }
}

/// Returns the script for a shell. It goes through memory because the generator panics where it
/// cannot write.
fn script(shell: Shell, mut program: Command) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, PROGRAM, &mut script);
    script
}

/// The arguments of `man`.
#[derive(Debug, Args)]
pub struct WriteManPages {
    /// The folder to write them to. It is made if it does not exist.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

impl WriteManPages {
    /// Writes a page for `program`, and one for each of its commands.
    pub fn run(self, program: Command) -> Result<(), CliError> {
        let failed = |path: &Path, error: io::Error| {
            let path = path.display();
            CliError::Check(format!(
                "{path}: cannot be written: {error}; name a folder that you can write to"
            ))
        };
        fs::create_dir_all(&self.folder).map_err(|error| failed(&self.folder, error))?;
        for (name, page) in pages(program).map_err(|error| failed(&self.folder, error))? {
            let path = self.folder.join(name);
            fs::write(&path, page).map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }
}

/// Returns all pages with the names of their files.
fn pages(program: Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    // A page for `help` of every command would say nothing.
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let version = program.get_version().unwrap_or_default();
    let source = format!("{PROGRAM} {version}");
    let mut pages = Vec::new();
    let mut waiting = vec![program];
    while let Some(command) = waiting.pop() {
        let visible = command.get_subcommands().filter(|it| !it.is_hide_set());
        waiting.extend(visible.cloned());
        let is_program = command.get_name() == PROGRAM;
        let man = Man::new(command).source(&source).manual(MANUAL);
        let mut page = Vec::new();
        man.render(&mut page)?;
        if is_program {
            further_sections().to_writer(&mut page)?;
        }
        pages.push((man.get_filename(), page));
    }
    Ok(pages)
}

/// Returns [`SECTIONS`] as they stand in a page.
fn further_sections() -> Roff {
    let mut page = Roff::new();
    for (heading, terms) in SECTIONS {
        page.control("SH", [heading]);
        for (term, meaning) in terms {
            page.control("TP", []);
            page.text([bold(*term)]);
            page.text([roman(*meaning)]);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::{CommandFactory, Parser, ValueEnum};

    use super::*;
    use crate::cli::Cli;

    fn all_pages() -> BTreeMap<String, String> {
        let pages = pages(Cli::command()).unwrap().into_iter();
        pages
            .map(|(name, page)| (name, String::from_utf8(page).unwrap()))
            .collect()
    }

    /// Returns the names of all visible commands below this one, with the names before them.
    fn names(command: &Command, before: &str) -> Vec<String> {
        let visible = command.get_subcommands().filter(|it| !it.is_hide_set());
        visible
            .flat_map(|it| {
                let name = format!("{before}-{}", it.get_name());
                let below = names(it, &name);
                [name].into_iter().chain(below)
            })
            .collect()
    }

    #[test]
    fn each_command_has_a_page_by_its_whole_name() {
        let pages = all_pages();
        let mut expected = names(&Cli::command(), PROGRAM);
        assert!(expected.contains(&"stonechat-handle-freeze".to_owned()));
        expected.push(PROGRAM.to_owned());
        expected.sort();
        let mut found: Vec<_> = pages.keys().map(|it| it.replace(".1", "")).collect();
        found.sort();
        assert_eq!(found, expected);
        let header = format!("\"{PROGRAM} {}\"", env!("CARGO_PKG_VERSION"));
        for (name, page) in &pages {
            let title = page.lines().find(|line| line.starts_with(".TH"));
            assert!(
                title.is_some_and(|it| it.contains(&header)),
                "{name}: {title:?}"
            );
        }
    }

    #[test]
    fn the_page_of_the_program_names_files_variables_and_exit_codes() {
        let pages = all_pages();
        let page = &pages["stonechat.1"];
        for word in ["/etc/stonechat", "store.key", "STONECHAT_STORE_KEY"] {
            assert!(page.replace("\\-", "-").contains(word), "{word}:\n{page}");
        }
        for heading in [".SH FILES", ".SH ENVIRONMENT", ".SH \"EXIT STATUS\""] {
            assert!(page.contains(heading), "{heading}:\n{page}");
        }
        assert!(!pages["stonechat-init.1"].contains("EXIT STATUS"));
        for code in [
            CliError::Check(String::new()),
            CliError::Usage(String::new()),
            CliError::NotRunning,
            CliError::NotFound(String::new()),
        ] {
            let code = code.exit_code().to_string();
            let codes = SECTIONS
                .iter()
                .find(|(heading, _)| *heading == "EXIT STATUS");
            let (_, codes) = codes.unwrap();
            assert!(codes.iter().any(|(it, _)| *it == code), "{code}");
        }
    }

    #[test]
    fn man_pages_are_written_and_a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let run = |folder: &Path| {
            let line = [PROGRAM, "man", folder.to_str().unwrap()];
            match Cli::try_parse_from(line).unwrap().command {
                crate::cli::Command::Man(man) => man.run(Cli::command()),
                other => unreachable!("{other:?}"),
            }
        };
        let new = folder.path().join("a/b");
        run(&new).unwrap();
        let page = fs::read_to_string(new.join("stonechat-init.1")).unwrap();
        assert!(page.contains("server\\-name"), "{page}");
        let error = run(&new.join("stonechat.1")).unwrap_err().to_string();
        assert!(error.contains("stonechat.1: cannot be written"), "{error}");
    }

    #[test]
    fn each_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell, Cli::command())).unwrap();
            for command in Cli::command().get_subcommands() {
                let name = command.get_name();
                assert!(script.contains(name), "{shell}: {name}");
            }
            assert!(script.contains("server-name"), "{shell}");
        }
    }
}
