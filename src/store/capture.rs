//! The changes that are written to the database while a backup is made.

use super::backend::Op;

/// Maximum size of the changes captured during one backup, in bytes of keys and values.
const CAPTURED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The changes written to the database since the capture began.
#[derive(Default)]
pub(super) struct Capture {
    ops: Vec<Op>,
    bytes: usize,
}

impl Capture {
    /// Adds changes. Drops everything if the changes are too large to keep.
    pub(super) fn add(&mut self, ops: &[Op]) {
        for op in ops {
            self.bytes += match op {
                Op::Put(key, value) => key.len() + value.len(),
                Op::Delete(key) => key.len(),
            };
            if self.bytes <= CAPTURED_BYTES_MAX {
                self.ops.push(op.clone());
            } else {
                self.ops = Vec::new();
            }
        }
    }

    /// Returns the changes in order, or `None` if they were too large to keep.
    pub(super) fn into_ops(self) -> Option<Vec<Op>> {
        (self.bytes <= CAPTURED_BYTES_MAX).then_some(self.ops)
    }
}
