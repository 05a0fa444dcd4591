//! From one schema version to the next.
//!
//! Version 1 is the first. `STEPS[0]` brings a store from 1 to 2, and so on. A step reads what it
//! needs and returns its changes; they are written in one batch together with the new version, so
//! that a crash leaves the store before or after the step. A step must be able to run on any size
//! of store within memory; a larger change is cut into several steps.

use super::{
    StoreError,
    backend::{Backend, Op},
    meta,
    sum::{FLUSHES, Sum},
};

/// One step: reads the database as it is and returns what to change.
pub(super) type Step = fn(&dyn Backend) -> Result<Vec<Op>, StoreError>;

/// Every step there is, in order.
pub(super) const STEPS: &[Step] = &[number_the_batches, list_what_came_together];

/// 1 to 2: the sum of the records carries the number of the batch; the number of the last flush was
/// a record of its own. [`Sum::kept`] reads both, every step writes the new one.
fn number_the_batches(_: &dyn Backend) -> Result<Vec<Op>, StoreError> {
    Ok(vec![Op::Delete(FLUSHES.to_vec())])
}

/// 2 to 3: a record of `SeenByTime` may list further events. The old ones list none and are read as
/// they are; a program that knows version 2 could not read the new ones.
fn list_what_came_together(_: &dyn Backend) -> Result<Vec<Op>, StoreError> {
    Ok(Vec::new())
}

/// The newest version that these steps lead to.
pub(super) fn known(steps: &[Step]) -> u32 {
    u32::try_from(steps.len())
        .unwrap_or(u32::MAX)
        .saturating_add(1)
}

/// Runs the steps from version `from` on; returns the sum of the records after them.
pub(super) fn run(
    backend: &dyn Backend,
    from: u32,
    mut sum: Sum,
    steps: &[Step],
) -> Result<Sum, StoreError> {
    for (version, step) in (1u32..).zip(steps) {
        if version < from {
            continue;
        }
        let failed = |e: StoreError| StoreError::Migration {
            from: version,
            why: e.to_string(),
        };
        let mut ops = step(backend).map_err(failed)?;
        ops.push(meta::schema(version + 1));
        sum = sum.apply(backend, ops).map_err(failed)?;
        backend.flush().map_err(failed)?;
        tracing::info!(
            from = version,
            to = version + 1,
            "store brought to a new schema version"
        );
    }
    Ok(sum)
}
