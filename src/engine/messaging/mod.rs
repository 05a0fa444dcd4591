//! Reading, sending and leaving as one of our users, and what rooms look like.

pub(in crate::engine) mod decrypt;
pub(in crate::engine) mod failing_media;
pub(in crate::engine) mod media;
pub(in crate::engine) mod membership;
pub(in crate::engine) mod notice;
pub(in crate::engine) mod room_cache;
pub(in crate::engine) mod send;
#[cfg(test)]
pub(in crate::engine) mod send_tests;
pub(in crate::engine) mod verification;
