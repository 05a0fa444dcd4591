//! A file beside the database which says that sled skipped a part of its log, until all records
//! have been verified and copied into a new database. sled repairs the database when it opens it,
//! so the next start would find no trace of the damage.

use std::{
    io::{ErrorKind, Write as _},
    path::Path,
};

use crate::store::{
    StoreError,
    files::{open_private, sync_folder},
};

const NAME: &str = "needs-repair";

/// Writes the marker if something was skipped at this start, durably. Returns what was skipped at
/// this start or at an earlier one whose records were not verified.
pub(super) fn update(
    database: &Path,
    skipped: Option<String>,
) -> Result<Option<String>, StoreError> {
    let path = database.join(NAME);
    let Some(skipped) = skipped else {
        return match std::fs::read_to_string(&path) {
            Ok(earlier) => Ok(Some(earlier)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("read", &path, &e)),
        };
    };
    let io = |e| StoreError::io("write", &path, &e);
    let mut file = open_private(&path)?;
    file.write_all(skipped.as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)?;
    sync_folder(database)?;
    Ok(Some(skipped))
}
