//! Translates one event of a conversation from one of its rooms to another, so that neither side
//! sees the other's Matrix ID.
//!
//! Everything in this room is pure. [`translate()`] returns the event for the other room, or why it
//! cannot be translated.

pub(crate) mod calls;
mod context;
mod fields;
mod final_check;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod html;
mod identifiers;
mod linked_people;
mod media;
mod message;
#[cfg(any(test, fuzzing))]
mod oracle;
mod outcome;
mod profile;
mod relation;
mod renamed;
mod reply_fallback;
mod room_text;
mod scrub;
mod translate;

#[cfg(test)]
mod tests;

pub use calls::{ages, has_relay};
pub use context::{Alias, Context, EventMapping, Masking, device_secrets};
pub use html::{TextPart, may_have_spoilers, text_with_spoilers};
pub use linked_people::linked_people;
pub use media::{MediaToReupload, MediaUse, is_usable_file, remove_media};
pub use outcome::{SenderRemark, TranslateError, Translated};
pub use profile::without_profile_name;
pub use reply_fallback::without_reply_fallback;
pub use room_text::{NAME_CHARS_MAX, Names, TOPIC_CHARS_MAX, translate_line, translate_room_text};
pub use translate::translate;

/// Maximum size of a content, in bytes of JSON. An event may have 65,536 bytes in all, and
/// encryption makes four bytes of three.
const CONTENT_BYTES_MAX: usize = 47_000;
