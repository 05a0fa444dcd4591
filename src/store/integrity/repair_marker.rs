//! A file beside the database that says that it passed over something when it was opened, until all
//! records have been counted and lie in a new database. Opening repairs the database, so that the
//! next start would see nothing to doubt any more.

use std::{
    fs::File,
    io::{ErrorKind, Write as _},
    path::Path,
};

use crate::store::{StoreError, files::open_private};

const NAME: &str = "doubt";

/// What was passed over: now, or at an earlier start that did not get to the counting. Durable when
/// this returns.
pub(in crate::store) fn remember(
    folder: &Path,
    skipped: Option<String>,
) -> Result<Option<String>, StoreError> {
    let path = folder.join(NAME);
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
    sync(folder)?;
    Ok(Some(skipped))
}

fn sync(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| StoreError::io("write", folder, &e))
}
