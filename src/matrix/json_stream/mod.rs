//! Reads a JSON document of any size in bounded memory, piece by piece.
//!
//! A document from the homeserver contains what strangers wrote, so they decide its size. A
//! [`JsonStream`] is fed the bytes as they arrive and hands out each value that a [`Selector`]
//! names as soon as it is complete. Of a value over its limit only the [`Head`] is kept: its size,
//! and a few short members that say what it was. Values that no selector names are skipped and
//! never stored. So the largest limit bounds the memory, whatever the document contains.
//!
//! This is not a validator: it follows the brackets, strings and separators on the way to the
//! selected values, and leaves parsing a value to its reader. It does not recurse, so no depth of
//! nesting exhausts the stack.

mod stream;
mod value;

use std::collections::BTreeMap;

pub use stream::JsonStream;

/// One step of the path from a document's root to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathStep {
    /// The member of an object with this name.
    Key(&'static str),
    /// Every member of an object.
    AnyKey,
    /// Every element of an array.
    Each,
}

/// Selects the values at a path, up to a size.
#[derive(Clone, Copy, Debug)]
pub struct Selector {
    /// The path from the root.
    pub path: &'static [PathStep],
    /// Maximum length of one value, in bytes of JSON text.
    pub limit: usize,
}

/// A value that a selector names.
#[derive(Debug)]
pub struct Match<'a> {
    /// The index of the selector that names it.
    pub selector: usize,
    /// The names that [`PathStep::AnyKey`] stood for, outermost first.
    pub names: &'a [String],
    /// The value.
    pub value: MatchValue<'a>,
}

/// The text of a value, or the head of one over its limit.
#[derive(Debug)]
pub enum MatchValue<'a> {
    /// The JSON text of the value. Bytes that are not UTF-8 are replaced by U+FFFD.
    Whole(&'a str),
    /// The value was over its limit.
    TooLarge(&'a Head),
}

/// The size and a few members of a value over its limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The length of the value, in bytes of JSON text.
    pub size: u64,
    /// The strings among its outermost members that say what it was, such as `room_id` and `type`.
    /// They are short, but as untrusted as the rest.
    pub members: BTreeMap<&'static str, String>,
}

impl Head {
    /// Returns one of the members.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.members.get(name).map(String::as_str)
    }
}

/// The error of a document that is not JSON, or ends too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text is not a complete JSON document (byte {at})")]
pub struct NotJson {
    /// How many bytes were understood.
    pub at: u64,
}

#[cfg(test)]
mod tests;
