//! What is done on the service's own account: after a restore, and from time to time.

pub(in crate::engine) mod reconciler;
pub(in crate::engine) mod restore;
#[cfg(test)]
pub(in crate::engine) mod restore_tests;
pub(in crate::engine) mod resync;
pub(in crate::engine) mod sweeper;
