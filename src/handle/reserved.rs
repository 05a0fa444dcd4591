//! Names that nobody may claim.

use std::collections::HashSet;

use super::{Handle, lookalike_key};

/// What ships with Stonechat: one name a line, `#` begins a comment.
const SHIPPED: &str = include_str!("reserved.txt");

/// Names that nobody may claim, nor anything that looks like one of them.
#[derive(Clone, Debug)]
pub struct ReservedNames {
    keys: HashSet<String>,
}

impl ReservedNames {
    /// The shipped names and the admin's own.
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

    /// Whether this handle is reserved, or looks like a name that is.
    pub fn contains(&self, handle: &Handle) -> bool {
        self.keys.contains(&handle.lookalike_key())
    }
}

impl Default for ReservedNames {
    fn default() -> Self {
        Self::new(std::iter::empty::<&str>())
    }
}

/// The names that ship with Stonechat.
pub(super) fn shipped() -> impl Iterator<Item = &'static str> {
    SHIPPED
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
}
