//! Errors of the store. Their text says what to do next.

use std::{io, path::Path, path::PathBuf};

use thiserror::Error;

/// An error of the store. Errors name tables and files, never keys or values.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// Another process, or another [`super::Store`] of this one, has the store open.
    #[error("the store at {path} is in use by another process; stop that one first")]
    InUse {
        /// The folder of the store.
        path: PathBuf,
    },
    /// The folder or a file in it cannot be written.
    #[error("cannot write to {path} ({why}); give the user that runs stonechat write access to it")]
    NotWritable {
        /// The file or folder.
        path: PathBuf,
        /// The system's message.
        why: String,
    },
    /// The disk or the quota is full.
    #[error("no space left for {path} ({why}); free some space and start again")]
    Full {
        /// The file or folder.
        path: PathBuf,
        /// The system's message.
        why: String,
    },
    /// Any other failure of the file system.
    #[error("cannot {doing} {path}: {why}")]
    Io {
        /// What was attempted, as a verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's message.
        why: String,
    },
    /// A file of the store does not contain what was written to it.
    #[error("the store at {path} is damaged: {why}; restore it from a backup")]
    Damaged {
        /// The folder or file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The database opened, but writes that were acknowledged are not in it.
    #[error(
        "the store at {path} has lost acknowledged writes: {}; a file was truncated, damaged or \
         replaced by an older one; restore the store from a backup",
        describe_loss(*.found, *.expected)
    )]
    LostWrites {
        /// The folder of the store.
        path: PathBuf,
        /// The last batch that the database knows.
        found: u64,
        /// The last batch that was confirmed.
        expected: u64,
    },
    /// The store was made with another key.
    #[error(
        "the key given does not open the store at {path}; use the key that it was made with \
         (nothing was changed)"
    )]
    WrongKey {
        /// The folder of the store.
        path: PathBuf,
    },
    /// The key file or key variable is not usable.
    #[error("the store key {place} cannot be used: {why}")]
    Key {
        /// The file or variable.
        place: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The store was written by a newer version.
    #[error(
        "the store at {path} has schema version {found}, this stonechat reads versions up to \
         {newest}; run a newer stonechat or restore an older backup"
    )]
    NewerSchema {
        /// The folder of the store.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version that is read.
        newest: u32,
    },
    /// The store was written by a version from before the first release.
    #[error(
        "the store at {path} has schema version {found}, and this stonechat reads versions from \
         {oldest} on: it was written by a development version from before the first release; run \
         that version on it, or begin with an empty folder (handles are then claimed again)"
    )]
    OlderSchema {
        /// The folder of the store.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The oldest version that is read.
        oldest: u32,
    },
    /// A step from one schema version to the next failed; nothing of that step was written.
    #[error("cannot bring the store from schema version {from} to the next: {why}")]
    Migration {
        /// The version before the step.
        from: u32,
        /// What failed.
        why: String,
    },
    /// A key or value is longer than the store takes.
    #[error("{what} of {size} bytes for table {table} is over the limit of {limit}")]
    TooLarge {
        /// The table.
        table: &'static str,
        /// "a key" or "a value".
        what: &'static str,
        /// Its length.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A value could not be turned into bytes.
    #[error("cannot write a record of table {table}: {why}")]
    Encode {
        /// The table.
        table: &'static str,
        /// The encoder's message, without the value.
        why: String,
    },
    /// The bytes of a record are not what its table holds.
    #[error("cannot read a record of table {table}: {why}; run `stonechat doctor`")]
    Decode {
        /// The table.
        table: &'static str,
        /// The decoder's message, without the value.
        why: String,
    },
    /// A sealed record was changed, moved, or sealed under another key.
    #[error("a sealed record of {table} does not open: it was changed, or its key is gone")]
    Unseal {
        /// The table or kind of record.
        table: &'static str,
    },
    /// The system returned no random bytes, or a cipher refused its input.
    #[error("sealing failed: {0}")]
    Seal(&'static str),
    /// The store has stopped after an earlier failure, so that nothing relies on writes that may
    /// not be on disk.
    #[error("the store has stopped after an earlier failure: {0}; restart stonechat")]
    Stopped(String),
    /// The store was shut down.
    #[error("the store is shut down")]
    Closed,
    /// A backup cannot be written or read.
    #[error("{0}")]
    Backup(String),
}

fn describe_loss(found: u64, expected: u64) -> String {
    match expected {
        // A restored store whose records are gone before its first start.
        0 => "its database is empty".to_owned(),
        _ => format!("it ends with batch {found}, but batch {expected} was confirmed"),
    }
}

impl StoreError {
    /// Returns the error for a failed file operation, by what the admin can do about it.
    pub(crate) fn io(doing: &'static str, path: &Path, error: &io::Error) -> Self {
        let (path, why) = (path.to_owned(), error.to_string());
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path, why }
            }
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full { path, why },
            _ => Self::Io { doing, path, why },
        }
    }

    /// Returns `true` if the store answers nothing more: it has failed or was shut down.
    pub fn is_down(&self) -> bool {
        self.is_fatal() || matches!(self, Self::Closed)
    }

    /// Returns `true` if the store as a whole has failed, as opposed to one request to it or one
    /// record in it. A store that was shut down has not failed.
    pub fn is_fatal(&self) -> bool {
        !matches!(
            self,
            Self::TooLarge { .. }
                | Self::Encode { .. }
                | Self::Decode { .. }
                | Self::Unseal { .. }
                | Self::Closed
                | Self::Backup(_)
        )
    }
}
