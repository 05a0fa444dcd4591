//! The schema version of a store, and the steps from one version to the next.
//!
//! [`OLDEST`] is the oldest version that is read. `STEPS[0]` migrates a store from it to the next
//! version, and so on. A step reads what it needs and returns its changes. They are written in one
//! batch together with the new version, so a crash leaves the store before or after the step. The
//! changes of a step must fit into memory for a store of any size; a larger change is split into
//! several steps.

use std::path::Path;

use super::{
    StoreError,
    backend::{Backend, Op},
    integrity::checksum::Checksum,
    table::META_ID,
};

/// The key of the schema version.
const SCHEMA_KEY: &[u8] = &[META_ID, b's'];

/// One step: reads the database and returns the changes to make.
pub(super) type Step = fn(&dyn Backend) -> Result<Vec<Op>, StoreError>;

/// The oldest schema version that is read. No earlier version was released, and no step migrates
/// one.
///
/// - 1: the first; 2: the checksum of the records carries the number of the batch; 3: a record of
///   `SeenByTime` may list further events.
/// - 4: a waiting to-device message is stored under its ghost and a number (table 13), and dead
///   letters have tables of their own (28, 29).
/// - 5: the records of inbox, outbox, control rooms and conversations name their fields and variants
///   otherwise.
/// - 6: more records do, and table 9 (a session of the replay guard in one record) is gone.
/// - 7: an introduction names its pending events otherwise, and the removal of a ghost from a
///   conversation no longer says who sent it away.
/// - 8: what has arrived is kept by partition (tables 11, 12 and 14), and the map of copies by digests
///   (53 to 55). Parked room keys are sealed under a key of the ghost's ring.
/// - 9: both are written in order, and packed (the same tables).
pub(super) const OLDEST: u32 = 9;

/// All steps, in order.
pub(super) const STEPS: &[Step] = &[];

/// Returns the change that stores the schema version.
pub(super) fn version_op(version: u32) -> Op {
    Op::Put(SCHEMA_KEY.to_vec(), version.to_be_bytes().to_vec())
}

/// Loads the schema version of a database, if it has one.
pub(super) fn load_version(backend: &dyn Backend) -> Result<Option<u32>, StoreError> {
    let bytes = backend.get(SCHEMA_KEY)?;
    Ok(bytes.and_then(|bytes| bytes.try_into().ok().map(u32::from_be_bytes)))
}

/// Returns the version to which `steps` migrate.
pub(super) fn newest_version(steps: &[Step]) -> u32 {
    u32::try_from(steps.len())
        .unwrap_or(u32::MAX)
        .saturating_add(OLDEST)
}

/// Refuses a version that is too old to migrate, or newer than `newest`.
pub(super) fn check(found: u32, newest: u32, path: &Path) -> Result<(), StoreError> {
    let path = path.to_owned();
    if found > newest {
        return Err(StoreError::NewerSchema {
            path,
            found,
            newest,
        });
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

/// Runs the steps from version `from` on. Returns the checksum of the records after them.
pub(super) fn run_steps(
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
        ops.push(version_op(version + 1));
        checksum = checksum.apply(backend, ops).map_err(failed)?;
        backend.flush().map_err(failed)?;
        tracing::info!(
            from = version,
            to = version + 1,
            "the store was migrated to a new schema version"
        );
    }
    Ok(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_of_a_schema_version_is_stable() {
        let op = Op::Put(b"\x01s".to_vec(), vec![0, 0, 0, 1]);
        assert_eq!(version_op(1), op);
    }
}
