//! Introductions: what their rooms handle, and how their effects are carried out.

pub(in crate::engine) mod admission;
pub(in crate::engine) mod effects;
pub(in crate::engine) mod inputs;
pub(in crate::engine) mod missed;
pub(in crate::engine) mod request;
#[cfg(test)]
pub(in crate::engine) mod verification_tests;
