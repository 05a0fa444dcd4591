//! Introductions: what their rooms handle, and how their effects are carried out.

pub(in crate::engine) mod admission;
pub(in crate::engine) mod decline;
pub(in crate::engine) mod effects;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod handle_tests;
pub(in crate::engine) mod inputs;
pub(in crate::engine) mod invites;
pub(in crate::engine) mod missed;
pub(in crate::engine) mod passing_on;
#[cfg(test)]
pub(in crate::engine) mod passing_on_tests;
pub(in crate::engine) mod request;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(in crate::engine) mod verification_tests;
