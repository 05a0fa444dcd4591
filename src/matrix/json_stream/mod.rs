//! Reads a JSON document of any size in bounded memory, piece by piece.
//!
//! A document from the homeserver holds what strangers wrote, so its size is theirs to choose. A
//! [`JsonStream`] is fed the bytes as they arrive and hands out the values that a [`Selector`] names,
//! each as it completes. A value over its limit is not kept: only its [`Head`], a few short members
//! that say what it was, and its size. Everything that no selector names is passed over without
//! being stored. So memory is bounded by the largest limit, whatever the document holds.
//!
//! This is no validator: it follows the brackets, strings and separators on the way to the selected
//! values, and leaves it to the reader of a value to parse it. It does not recurse, so no depth of
//! nesting exhausts the stack.

mod stream;
mod value;

use std::collections::BTreeMap;

pub use stream::JsonStream;

/// One step of the path from a document's root to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The member of an object with this name.
    Key(&'static str),
    /// Every member of an object.
    AnyKey,
    /// Every element of an array.
    Each,
}

/// The values at a path, and how large each may be.
#[derive(Clone, Copy, Debug)]
pub struct Selector {
    /// The way from the root.
    pub path: &'static [Step],
    /// Maximum length of one value, in bytes of JSON text.
    pub limit: usize,
}

/// A selected value.
#[derive(Debug)]
pub struct Match<'a> {
    /// The index of the selector that names it.
    pub selector: usize,
    /// The names that [`Step::AnyKey`] stood for, outermost first.
    pub names: &'a [String],
    /// The value.
    pub value: MatchValue<'a>,
}

/// A selected value, or what is left of one over its limit.
#[derive(Debug)]
pub enum MatchValue<'a> {
    /// The JSON text of the value. Bytes that are not UTF-8 are replaced by U+FFFD.
    Whole(&'a str),
    /// The value was over its limit.
    TooLarge(&'a Head),
}

/// What is known of a value over its limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The length of the value, in bytes of JSON text.
    pub size: u64,
    /// The strings among its outermost members that say what it was, such as `room_id` and `type`.
    /// Short by construction, but as hostile as everything else.
    pub members: BTreeMap<&'static str, String>,
}

impl Head {
    /// Returns one of the members.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.members.get(name).map(String::as_str)
    }
}

/// A document that is not JSON, or ends too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text is not a complete JSON document (byte {at})")]
pub struct NotJson {
    /// How many bytes were understood.
    pub at: u64,
}

#[cfg(test)]
mod tests;
