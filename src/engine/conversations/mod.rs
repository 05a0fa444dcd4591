//! Conversations of masked handles: how they are decided, and how their effects are carried out.

pub(in crate::engine) mod aliases;
pub(in crate::engine) mod batch;
pub(in crate::engine) mod calls;
pub(in crate::engine) mod decisions;
pub(in crate::engine) mod delivery_receipts;
pub(in crate::engine) mod effects;
pub(in crate::engine) mod ephemeral;
pub(in crate::engine) mod event_map;
pub(in crate::engine) mod failures;
pub(in crate::engine) mod forward;
pub(in crate::engine) mod inputs;
pub(in crate::engine) mod leave;
pub(in crate::engine) mod lost_sessions;
pub(in crate::engine) mod notices;
pub(in crate::engine) mod portal;
pub(in crate::engine) mod portal_info;
pub(in crate::engine) mod portal_repair;
pub(in crate::engine) mod redactions;
pub(in crate::engine) mod removal;
pub(in crate::engine) mod repository;
#[cfg(test)]
pub(in crate::engine) mod tests;
pub(in crate::engine) mod typing;
pub(in crate::engine) mod upgrade;
