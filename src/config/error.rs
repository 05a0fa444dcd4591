//! Errors of the configuration, each with words that tell the admin what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// The reason why a configuration, a registration or a secret could not be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("{}: cannot be read: {reason}; {remedy}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        reason: io::Error,
        /// What to do next.
        remedy: String,
    },

    /// A file is not the YAML that was expected.
    #[error("{}{}: {problem}", path.display(), line.map(|l| format!(", line {l}")).unwrap_or_default())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, if it is known.
        line: Option<usize>,
        /// What is wrong and what to do next.
        problem: String,
    },

    /// A value is of the right type but cannot be used.
    #[error("{}: {key}: {problem}; {remedy}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, with dots between the sections.
        key: String,
        /// What is wrong.
        problem: String,
        /// What to do next.
        remedy: String,
    },

    /// Others can read a file with secrets.
    #[error("{}: can be read by {who} (mode {mode:03o}); run: chmod {want:03o} {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Who can read it.
        who: &'static str,
        /// The mode it has.
        mode: u32,
        /// The mode it should have.
        want: u32,
    },

    /// The file exists already.
    #[error("{}: exists already; use --force to replace it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },

    /// A file could not be written.
    #[error("{}: cannot be written: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        reason: io::Error,
    },

    /// A file cannot be replaced without taking access from somebody who has it.
    #[error(
        "{}: belongs to user {owner} and group {group}, and you can neither write to it nor give a \
         new one to them; nothing was changed. Run this as root or as its owner", path.display()
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// The id of its owner.
        owner: u32,
        /// The id of its group.
        group: u32,
    },

    /// An environment variable has a value that cannot be used. The value is never repeated.
    #[error("environment variable {name}: {problem}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// What is wrong and what to do next.
        problem: String,
    },
}

impl ConfigError {
    /// Returns a [`ConfigError::Value`].
    pub(super) fn value(
        path: &Path,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Value {
            path: path.to_owned(),
            key: key.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}
