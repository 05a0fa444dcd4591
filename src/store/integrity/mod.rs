//! Detection of lost and damaged records, and the rebuild of a database that may have lost some.

pub(super) mod checksum;
pub(super) mod rebuild;
mod repair_marker;
