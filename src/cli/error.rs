//! Errors of the subcommands.

use std::io;

use thiserror::Error;

use crate::{config::ConfigError, server::ServerError, store::StoreError};

/// Why a subcommand failed. It prints this and exits with [`CliError::exit_code`].
#[derive(Debug, Error)]
pub enum CliError {
    /// The configuration, the registration or a secret is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database failed or could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A server could not start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A check failed, and waiting does not help.
    #[error("{0}")]
    Check(String),
    /// There is nothing by this name.
    #[error("{0}")]
    NotFound(String),
    /// No service is running.
    #[error("Stonechat is not running; start it, or look at its log")]
    NotRunning,
    /// The engine stopped by itself.
    #[error("stopped: {0}")]
    Engine(String),
    /// The system provided no threads or no signals.
    #[error("the system refused what every program needs: {0}")]
    Runtime(io::Error),
    /// An argument on the command line is wrong.
    #[error("{0}")]
    Usage(String),
}

impl CliError {
    /// Returns the exit code. Wrong usage, which clap notices, has 2.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NotRunning => 3,
            Self::NotFound(_) => 4,
            _ => 1,
        }
    }
}
