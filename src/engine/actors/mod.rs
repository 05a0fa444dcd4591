//! One actor per room, which takes what arrives there in order.

pub(in crate::engine) mod actor;
pub(in crate::engine) mod backfill;
pub(in crate::engine) mod dispatch;
pub(in crate::engine) mod executor;
pub(in crate::engine) mod give_up;
pub(in crate::engine) mod registry;
