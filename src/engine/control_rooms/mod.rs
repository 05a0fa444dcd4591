//! The rooms in which people talk to the bot.

pub(in crate::engine) mod effects;
pub(in crate::engine) mod erasure;
pub(in crate::engine) mod export;
pub(in crate::engine) mod inputs;
pub(in crate::engine) mod requests;
pub(in crate::engine) mod tasks;
#[cfg(test)]
pub(in crate::engine) mod tests;
pub(in crate::engine) mod waiting;
