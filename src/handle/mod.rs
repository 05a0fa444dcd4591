//! Handles: the names by which people here are reached.
//!
//! A [`Handle`] is shown as its owner typed it and compared without case. Two keys are derived
//! from it: [`Handle::key`], under which it is stored, and [`Handle::lookalike_key`], which is the
//! same for all handles that a reader could mistake for one another. [`Typed::parse`] reads what
//! people type, which may be a link or name a server.
//!
//! ```
//! use stonechat::handle::{Handle, HandleRules};
//!
//! let rules = HandleRules::default();
//! let sam = Handle::parse("Sam", &rules)?;
//! assert_eq!(sam.to_string(), "@Sam");
//! assert_eq!(sam.key(), "sam");
//! assert_eq!(sam, Handle::parse("SAM", &rules)?);
//! assert_eq!(sam.ghost_localpart(), "_dm_sam");
//! # Ok::<(), stonechat::handle::HandleError>(())
//! ```

mod lookalike;
mod reserved;
mod typed;

#[cfg(test)]
mod tests;

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
};

use ruma::{OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Serialize};

use crate::ids::Ghost;

pub use self::{
    lookalike::lookalike_key,
    reserved::ReservedNames,
    typed::{Typed, linked_user},
};

/// The prefix of the localparts of all our users. People cannot register such names: Synapse
/// refuses them a localpart that begins with `_`.
pub const GHOST_PREFIX: &str = "_dm_";

/// Maximum length of a handle under any rules. It keeps a ghost's Matrix ID far below 255 bytes.
pub const HANDLE_LENGTH_MAX: usize = 64;

/// Maximum number of handles that may be invited into a room while it is being created. The module
/// in the homeserver has the same limit.
pub const HANDLES_PER_ROOM_MAX: usize = 10;

/// The rules for handles that are claimed here. Existing handles stay valid when they change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandleRules {
    /// Minimum number of characters.
    pub min: usize,
    /// Maximum number of characters, up to [`HANDLE_LENGTH_MAX`].
    pub max: usize,
}

impl HandleRules {
    /// Rules that accept every handle there can be, whatever the rules were when it was claimed.
    pub const WIDEST: HandleRules = HandleRules {
        min: 1,
        max: HANDLE_LENGTH_MAX,
    };
}

impl Default for HandleRules {
    fn default() -> Self {
        HandleRules { min: 1, max: 15 }
    }
}

/// The reason why something is not a handle, in words that can be shown to the person who typed it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// Nothing was typed.
    #[error("a handle is missing; it looks like `@sam`")]
    Empty,
    /// Fewer characters than the rules ask for.
    #[error("a handle has at least {min} characters; try a longer one")]
    TooShort {
        /// Minimum number of characters.
        min: usize,
    },
    /// More characters than the rules allow.
    #[error("a handle has at most {max} characters; try a shorter one")]
    TooLong {
        /// Maximum number of characters.
        max: usize,
    },
    /// A character that no handle has.
    #[error(
        "a handle has only the letters a to z, digits and `_`, so {found:?} cannot be in it{}",
        suggestion.as_ref().map(|s| format!("; did you mean `@{s}`?")).unwrap_or_default()
    )]
    Character {
        /// The first character that is not allowed.
        found: char,
        /// A handle that looks the same and could be typed instead.
        suggestion: Option<String>,
    },
    /// Only underscores.
    #[error("a handle needs at least one letter or digit besides `_`")]
    OnlyUnderscores,
    /// A Matrix ID that is not a ghost's.
    #[error("{0} is a Matrix ID, not a handle; a handle looks like `@sam`")]
    MatrixId(OwnedUserId),
    /// A link that does not lead to a ghost, or something with a broken server name.
    #[error("that is neither a handle like `@sam` nor a link to one")]
    NotAHandle,
}

/// A valid handle. Handles that differ only in case are equal.
#[derive(Clone)]
pub struct Handle {
    shown: Box<str>,
    key: Box<str>,
}

impl Handle {
    /// Reads a bare handle, without `@` or server; for what people type see [`Typed::parse`].
    pub fn parse(text: &str, rules: &HandleRules) -> Result<Handle, HandleError> {
        if text.is_empty() {
            return Err(HandleError::Empty);
        }
        if let Some(found) = text.chars().find(|c| !is_handle_char(*c)) {
            return Err(HandleError::Character {
                found,
                suggestion: suggest(text, rules),
            });
        }
        let max = rules.max.min(HANDLE_LENGTH_MAX);
        if text.len() > max {
            return Err(HandleError::TooLong { max });
        }
        if text.len() < rules.min {
            return Err(HandleError::TooShort { min: rules.min });
        }
        if text.bytes().all(|b| b == b'_') {
            return Err(HandleError::OnlyUnderscores);
        }
        Ok(Handle {
            shown: text.into(),
            key: text.to_ascii_lowercase().into(),
        })
    }

    /// Returns the handle whose ghost has this localpart. `None` for all other names in our
    /// namespace: the bot and ghosts without a handle have a `.` in theirs, which no handle has.
    pub fn of_ghost(localpart: &str) -> Option<Handle> {
        let name = localpart.strip_prefix(GHOST_PREFIX)?;
        let handle = Handle::parse(name, &HandleRules::WIDEST).ok()?;
        // Matrix IDs are case-sensitive: `_dm_Sam` is not ours.
        (handle.key() == name).then_some(handle)
    }

    /// Returns the handle that somebody meant who typed the Matrix ID of its ghost with capitals.
    /// That user does not exist, and cannot: a homeserver registers small letters only.
    pub fn misspelt_ghost(localpart: &str) -> Option<Handle> {
        let name = localpart.strip_prefix(GHOST_PREFIX)?;
        let handle = Handle::parse(name, &HandleRules::WIDEST).ok()?;
        (handle.key() != name).then_some(handle)
    }

    /// Returns the handle as its owner typed it, without the `@`.
    pub fn as_shown(&self) -> &str {
        &self.shown
    }

    /// Returns the handle in lower case, which is the same for all its spellings.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns a key that is the same for all handles that a reader could mistake for this one.
    pub fn lookalike_key(&self) -> String {
        lookalike_key(&self.key)
    }

    /// Returns the localpart of this handle's ghost.
    pub fn ghost_localpart(&self) -> String {
        format!("{GHOST_PREFIX}{}", self.key)
    }

    /// Returns the Matrix ID of this handle's ghost on `server`, or `None` if the server's name is
    /// too long for one.
    pub fn ghost_id(&self, server: &ServerName) -> Option<Ghost> {
        ghost_id(&self.ghost_localpart(), server)
    }

    /// Returns the Matrix ID of this handle's ghost on `server` as text, for links.
    pub fn ghost_address(&self, server: &ServerName) -> String {
        ghost_address(&self.ghost_localpart(), server)
    }
}

/// Returns the Matrix ID of a ghost by its localpart, or `None` if that is no Matrix ID.
pub fn ghost_id(localpart: &str, server: &ServerName) -> Option<Ghost> {
    UserId::parse(ghost_address(localpart, server))
        .ok()
        .map(Ghost::new)
}

fn ghost_address(localpart: &str, server: &ServerName) -> String {
    format!("@{localpart}:{server}")
}

fn is_handle_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Returns the ASCII handle that `text` looks like, for people who typed `ѕаm` or `sam!`.
fn suggest(text: &str, rules: &HandleRules) -> Option<String> {
    if text.chars().count() > HANDLE_LENGTH_MAX {
        return None;
    }
    let plain: String = text
        .chars()
        .flat_map(|c| {
            let mut buffer = [0; 4];
            let of_one = if c.is_ascii() {
                c.to_string()
            } else {
                unicode_security::skeleton(c.encode_utf8(&mut buffer)).collect()
            };
            of_one.chars().collect::<Vec<_>>()
        })
        .map(|c| if matches!(c, '-' | '.' | ' ') { '_' } else { c })
        .filter(|c| is_handle_char(*c))
        .collect();
    Handle::parse(plain.trim_matches('_'), rules)
        .ok()
        .map(|handle| handle.shown.into())
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.shown)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.shown)
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Handle {}

impl PartialOrd for Handle {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Handle {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl Hash for Handle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl Serialize for Handle {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown)
    }
}

impl<'de> Deserialize<'de> for Handle {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Handle::parse(&text, &HandleRules::WIDEST).map_err(serde::de::Error::custom)
    }
}
