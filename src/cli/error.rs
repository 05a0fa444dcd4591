//! Errors of the subcommands.

use std::io;

use thiserror::Error;

use crate::{config::ConfigError, server::ServerError, store::StoreError};

/// Why a subcommand failed. It prints this and exits with 1.
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
