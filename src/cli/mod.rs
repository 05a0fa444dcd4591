//! The command line: one file per subcommand.
//!
//! This is the only module that prints. Results go to standard output. Errors go to standard error,
//! in a line or two that say what to do.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line prints"
)]

mod admin;
mod audit;
mod backup;
mod checks;
mod config;
mod doctor;
mod engine_setup;
mod error;
mod handle;
mod handle_acts;
mod init;
mod json;
mod logging;
mod people;
mod pings;
mod places;
mod printable;
mod registration;
mod reload;
mod restore;
pub mod run;
mod service;
mod service_manager;
mod shell;
mod status;
mod watchdog;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, Subcommand};

pub use error::CliError;
pub use service::Service;

use self::printable::Printable;
use crate::{
    config::{Setup, secrets, secrets::Environment},
    store::{Store, StoreKey, StoreOptions},
};

/// Returns the generator of the secrets in a new setup, and of the seed of the engine's own generator.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where randomness comes in"
)]
fn rng() -> rand::rngs::ThreadRng {
    rand::rng()
}

/// Handles, and end-to-end encrypted direct messages by handle, for a Matrix homeserver.
#[derive(Debug, Parser)]
#[command(name = "stonechat", version, about, max_term_width = 100)]
struct Cli {
    /// The configuration file. If none is given: /etc/stonechat/stonechat.yaml where the folder
    /// /etc/stonechat exists, as with the Debian package, otherwise config/stonechat.yaml.
    #[arg(
        long,
        short,
        global = true,
        env = "STONECHAT_CONFIG",
        default_value_os_t = places::config(),
        hide_default_value = true
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the configuration, the registration and the key of the database, and show what to add
    /// to the homeserver's configuration.
    Init(Box<init::Init>),
    /// Write the registration again from the configuration, with its current tokens.
    Registration(registration::WriteRegistration),
    /// Check the configuration, also one of an earlier version, without starting anything.
    Config(config::ConfigCommand),
    /// Check everything that Stonechat needs, and show what is wrong and what to change.
    Doctor,
    /// Run the service.
    Run,
    /// Show whether the running Stonechat is ready, what waits, and how much it has set aside.
    Status(status::ShowStatus),
    /// List and show handles, freeze one, give one to somebody, and what else an admin does.
    Handle(handle::HandleCommand),
    /// Show a person, or ban them.
    Person(people::PersonCommand),
    /// Ban a server.
    Server(people::ServerCommand),
    /// Show who is banned.
    Bans(people::ShowBans),
    /// Show what is used of the limits, or reset it.
    Limits(people::LimitsCommand),
    /// Show what admins did, to what, when and why.
    Audit(audit::ShowAudit),
    /// Let changes of `permissions` in the configuration take effect in the running Stonechat.
    Reload(reload::ReloadConfig),
    /// Write a backup of the database to a file, also while Stonechat is running.
    Backup(backup::Backup),
    /// Replace the database by a backup, while Stonechat is stopped.
    Restore(restore::Restore),
    /// Print the script by which a shell completes these commands.
    Completions(shell::PrintCompletions),
    /// Write the man pages to a folder.
    Man(shell::WriteManPages),
}

/// The environment variable that lets a debugger of the same user read our memory.
const DEBUGGABLE: &str = "STONECHAT_DEBUGGABLE";

/// Keeps the keys in our memory from core dumps and from other processes of the same user.
fn guard_memory(environment: Environment<'_>) -> rustix::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if environment(DEBUGGABLE).is_some() {
        return Ok(());
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Parses the command line and runs the subcommand.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let environment: Environment<'_> = &secrets::process_environment;
    if let Err(error) = guard_memory(environment) {
        eprintln!("stonechat: core dumps could contain keys: {error}");
    }
    let done = match cli.command {
        Command::Init(init) => init.run(&cli.config).map(|()| ExitCode::SUCCESS),
        Command::Registration(write) => write.run(&cli.config).map(|()| ExitCode::SUCCESS),
        Command::Config(check) => check.run(&cli.config, environment),
        Command::Doctor => block_on(doctor::run(&cli.config, environment)),
        Command::Run => block_on(run::run(&cli.config, environment)).map(|()| ExitCode::SUCCESS),
        Command::Status(status) => block_on(status.run(&cli.config, environment)),
        Command::Handle(handle) => {
            block_on(handle.run(&cli.config, environment)).map(|()| ExitCode::SUCCESS)
        }
        Command::Person(person) => {
            block_on(person.run(&cli.config, environment)).map(|()| ExitCode::SUCCESS)
        }
        Command::Server(server) => {
            block_on(server.run(&cli.config, environment)).map(|()| ExitCode::SUCCESS)
        }
        Command::Bans(bans) => {
            block_on(bans.run(&cli.config, environment)).map(|()| ExitCode::SUCCESS)
        }
        Command::Limits(limits) => {
            block_on(limits.run(&cli.config, environment)).map(|()| ExitCode::SUCCESS)
        }
        Command::Audit(audit) => {
            block_on(audit.run(&cli.config, environment)).map(|()| ExitCode::SUCCESS)
        }
        Command::Reload(reload) => {
            block_on(reload.run(&cli.config, environment)).map(|()| ExitCode::SUCCESS)
        }
        Command::Backup(backup) => {
            block_on(backup.run(&cli.config, environment)).map(|()| ExitCode::SUCCESS)
        }
        Command::Restore(restore) => {
            block_on(restore.run(&cli.config, environment)).map(|()| ExitCode::SUCCESS)
        }
        Command::Completions(print) => print.run(Cli::command()).map(|()| ExitCode::SUCCESS),
        Command::Man(write) => write.run(Cli::command()).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        let code = error.exit_code();
        eprintln!("stonechat: {}", Printable::whole(error));
        ExitCode::from(code)
    })
}

/// How long busy threads may take to end after the work is done.
const THREADS_END_TIMEOUT: Duration = Duration::from_secs(2);

/// Size of the stack of a worker thread, in bytes. What one event can lead to is a deep chain of calls,
/// and without optimisation it takes more than the 2 MiB that a thread has by default.
const STACK_BYTES: usize = 16 << 20;

fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(THREADS_END_TIMEOUT);
    done
}

/// Opens the database with the key from the environment or its file.
fn open_store(setup: &Setup, environment: Environment<'_>) -> Result<Store, CliError> {
    let key = store_key(setup, environment)?;
    Ok(Store::open(&setup.data, &key, &store_options(setup))?)
}

/// Returns the key of the database, from the environment or its file.
fn store_key(setup: &Setup, environment: Environment<'_>) -> Result<StoreKey, CliError> {
    Ok(match environment(secrets::STORE_KEY) {
        Some(value) => StoreKey::from_env(secrets::STORE_KEY, &value.into())?,
        None => StoreKey::from_file(&setup.key_file)?,
    })
}

fn store_options(setup: &Setup) -> StoreOptions {
    StoreOptions {
        cache_bytes: setup.config.store.cache_mib.saturating_mul(1 << 20),
    }
}

#[cfg(test)]
mod backup_tests;
#[cfg(test)]
mod ownership_tests;
#[cfg(test)]
mod tests;
