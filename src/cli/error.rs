//! Why a subcommand did not do what it was asked.

use std::io;

use thiserror::Error;

use crate::{config::ConfigError, server::ServerError, store::StoreError};

/// What a subcommand says before it exits with 1.
#[derive(Debug, Error)]
pub enum CliError {
    /// Configuration, registration or a secret.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The port.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A check failed in a way that waiting does not help.
    #[error("{0}")]
    Check(String),
    /// The engine stopped by itself.
    #[error("stopped: {0}")]
    Engine(String),
    /// The system gave no threads or no signals.
    #[error("the system refused what every program needs: {0}")]
    Runtime(io::Error),
    /// A word of the command line that fits no option.
    #[error("{0}")]
    Usage(String),
}
