//! `stonechat reload`, and what the running service does then.

use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::{CliError, admin::RunningService, json::print_json};
use crate::{
    config::{
        Config, Setup, changed_options,
        secrets::{self, Environment},
    },
    permissions::CurrentPermissions,
    server::{Reload, Reloaded},
};

/// Lets changes of `permissions` in the configuration take effect in the running Stonechat. The file
/// is checked as at a start, and nothing changes if it is refused. Other options take effect at the
/// next start. SIGHUP does the same.
#[derive(Debug, Args)]
pub struct ReloadConfig {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

impl ReloadConfig {
    /// Asks the running service and prints what it did.
    pub(super) async fn run(
        self,
        config: &Path,
        environment: Environment<'_>,
    ) -> Result<(), CliError> {
        let setup = Setup::load(config, environment)?;
        let running = RunningService::of(&setup).await?;
        let reloaded = running.reload().await?;
        if self.json {
            print_json(&reloaded)?;
        } else {
            println!("{}", words_of(&reloaded));
        }
        Ok(())
    }
}

fn words_of(reloaded: &Reloaded) -> String {
    let mut words = match reloaded.permissions_changed {
        true => "The new permissions hold now.",
        false => "The permissions are the same as before.",
    }
    .to_owned();
    if !reloaded.need_restart.is_empty() {
        words.push_str(&format!(
            "\nThese changes take effect when Stonechat is started again: {}.",
            reloaded.need_restart.join(", ")
        ));
    }
    words
}

/// Reads the configuration of the running service again.
#[derive(Clone, Debug)]
pub struct ConfigReload {
    path: PathBuf,
    /// The configuration with which the service was started.
    started_with: Config,
    permissions: CurrentPermissions,
}

impl ConfigReload {
    /// Reads again what this setup was read from, and replaces these permissions.
    pub fn new(setup: &Setup, permissions: CurrentPermissions) -> Self {
        Self {
            path: setup.config_path.clone(),
            started_with: setup.config.clone(),
            permissions,
        }
    }

    /// Reloads at each SIGHUP, and says in the log what came of it.
    pub(super) fn on_hangup(self) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                // The socket says what came of it to its caller only.
                if let Err(problem) = self.reload() {
                    error!("the configuration is refused, and nothing has changed: {problem}");
                }
            }
        });
        Ok(())
    }
}

impl Reload for ConfigReload {
    fn reload(&self) -> Result<Reloaded, String> {
        let setup = Setup::load(&self.path, &secrets::process_environment);
        let setup = setup.map_err(|error| error.to_string())?;
        // Its own name changes at the next start, if at all.
        let server = &self.started_with.homeserver.server_name;
        let permissions_changed = self.permissions.replace(setup.permissions_on(server));
        let changed = changed_options(&self.path, &self.started_with, &setup.config);
        let mut need_restart = changed.map_err(|error| error.to_string())?;
        need_restart.retain(|option| option != "permissions");
        info!(permissions_changed, "the configuration was read again");
        if !need_restart.is_empty() {
            warn!("these options take effect at the next start: {need_restart:?}");
        }
        Ok(Reloaded {
            permissions_changed,
            need_restart,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_effect_now_and_what_does_not_is_said() {
        let mut reloaded = Reloaded {
            permissions_changed: true,
            need_restart: Vec::new(),
        };
        assert_eq!(words_of(&reloaded), "The new permissions hold now.");
        reloaded.permissions_changed = false;
        reloaded.need_restart = vec!["log.level".to_owned(), "data".to_owned()];
        assert_eq!(
            words_of(&reloaded),
            "The permissions are the same as before.\nThese changes take effect when Stonechat is \
             started again: log.level, data."
        );
    }
}
