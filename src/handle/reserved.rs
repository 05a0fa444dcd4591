//! Names that nobody may claim.

use std::collections::HashSet;

use super::{Handle, lookalike_key};

/// The shipped list: one name per line, and `#` begins a comment.
const SHIPPED: &str = include_str!("reserved.txt");

/// Names that nobody may claim, and with them all names that look like one.
#[derive(Clone, Debug)]
pub struct ReservedNames {
    keys: HashSet<String>,
}

impl ReservedNames {
    /// Returns the shipped names together with the admin's own.
    pub fn new<I, S>(extra: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut keys: HashSet<String> = shipped().map(lookalike_key).collect();
        keys.extend(
            extra
                .into_iter()
                .map(|name| lookalike_key(name.as_ref().trim().trim_start_matches('@'))),
        );
        keys.remove("");
        ReservedNames { keys }
    }

    /// Returns whether this handle is reserved or looks like a reserved name.
    pub fn contains(&self, handle: &Handle) -> bool {
        self.keys.contains(&handle.lookalike_key())
    }
}

impl Default for ReservedNames {
    fn default() -> Self {
        Self::new(std::iter::empty::<&str>())
    }
}

/// Returns the shipped names.
pub(super) fn shipped() -> impl Iterator<Item = &'static str> {
    SHIPPED
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
}
