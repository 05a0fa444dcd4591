//! What comes from the homeserver: accepted once, bounded and durable before it is acknowledged.

pub(in crate::engine) mod accept;
#[cfg(test)]
pub(in crate::engine) mod accept_tests;
pub(in crate::engine) mod announce;
pub(in crate::engine) mod arrival_times;
pub(in crate::engine) mod arrivals;
pub(in crate::engine) mod dead_letters;
pub(in crate::engine) mod dedup;
pub(in crate::engine) mod gap;
#[cfg(test)]
pub(in crate::engine) mod property_tests;
pub(in crate::engine) mod requeue;
pub(in crate::engine) mod server_clocks;
pub(in crate::engine) mod sync;
pub(in crate::engine) mod sync_gaps;
pub(in crate::engine) mod to_device;
#[cfg(test)]
pub(in crate::engine) mod to_device_tests;
