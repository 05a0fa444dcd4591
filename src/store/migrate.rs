//! From one schema version to the next.
//!
//! [`OLDEST`] is the first version that is read. `STEPS[0]` brings a store from it to the next, and
//! so on. A step reads what it needs and returns its changes; they are written in one batch together
//! with the new version, so that a crash leaves the store before or after the step. A step must be
//! able to run on any size of store within memory; a larger change is cut into several steps.

use std::path::Path;

use super::{
    StoreError,
    backend::{Backend, Op},
    integrity::checksum::Checksum,
    meta,
};

/// One step: reads the database as it is and returns what to change.
pub(super) type Step = fn(&dyn Backend) -> Result<Vec<Op>, StoreError>;

/// The oldest schema version that is read. No version before it was ever released, and no step leads
/// from one of them here.
///
/// - 1: the first; 2: the checksum of the records carries the number of the batch; 3: a record of
///   `SeenByTime` may list further events.
/// - 4: a waiting to-device message is kept under its ghost and a number (table 13), and dead letters
///   have tables of their own (28, 29).
pub(super) const OLDEST: u32 = 4;

/// Every step there is, in order.
pub(super) const STEPS: &[Step] = &[];

/// The newest version that these steps lead to.
pub(super) fn newest_version(steps: &[Step]) -> u32 {
    u32::try_from(steps.len())
        .unwrap_or(u32::MAX)
        .saturating_add(OLDEST)
}

/// Refuses a version that no step leads from or to.
pub(super) fn check(found: u32, known: u32, path: &Path) -> Result<(), StoreError> {
    let path = path.to_owned();
    if found > known {
        return Err(StoreError::NewerSchema { path, found, known });
    }
    if found < OLDEST {
        return Err(StoreError::OlderSchema {
            path,
            found,
            oldest: OLDEST,
        });
    }
    Ok(())
}

/// Runs the steps from version `from` on; returns the checksum of the records after them.
pub(super) fn run(
    backend: &dyn Backend,
    from: u32,
    mut checksum: Checksum,
    steps: &[Step],
) -> Result<Checksum, StoreError> {
    for (version, step) in (OLDEST..).zip(steps) {
        if version < from {
            continue;
        }
        let failed = |e: StoreError| StoreError::Migration {
            from: version,
            why: e.to_string(),
        };
        let mut ops = step(backend).map_err(failed)?;
        ops.push(meta::schema(version + 1));
        checksum = checksum.apply(backend, ops).map_err(failed)?;
        backend.flush().map_err(failed)?;
        tracing::info!(
            from = version,
            to = version + 1,
            "store brought to a new schema version"
        );
    }
    Ok(checksum)
}
