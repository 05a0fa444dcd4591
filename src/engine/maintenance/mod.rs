//! What the service does by itself: after a restore, from time to time, and when events may have
//! been lost.

pub(in crate::engine) mod lost_keys;
pub(in crate::engine) mod lost_rooms;
pub(in crate::engine) mod reconciler;
pub(in crate::engine) mod restore;
#[cfg(test)]
pub(in crate::engine) mod restore_tests;
pub(in crate::engine) mod resync;
pub(in crate::engine) mod stamp;
#[cfg(test)]
mod stamp_tests;
pub(in crate::engine) mod sweeper;
