//! Names and topics of rooms, translated for another room of the conversation.
//!
//! Such texts name people more often than messages do, and they stay. So here, and only here,
//! people's own names are replaced as well as their Matrix IDs.

use ruma::UserId;
use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

use super::{context::Context, final_check::FinalCheck, scrub::Scrubber};
use crate::text::{clean, is_invisible, with_plain_breaks};

/// Maximum length of a room's name, in characters.
pub const NAME_CHARS_MAX: usize = 120;
/// Maximum length of a room's topic, in characters.
pub const TOPIC_CHARS_MAX: usize = 1000;
/// Maximum length of a text that is translated, in characters.
const TEXT_CHARS_MAX: usize = 5000;
/// Minimum length of a name that is looked for, in characters: shorter ones are found everywhere.
const NAME_CHARS_MIN: usize = 2;
/// Minimum length of a part of a name that is looked for, in characters.
const NAME_PART_CHARS_MIN: usize = 3;
/// Maximum number of words of a name whose parts are looked for.
const NAME_PARTS_MAX: usize = 3;

/// The names of people in the room that a text comes from, with their names in the room that it
/// goes to.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<(Vec<char>, String)>);

impl Names {
    /// Adds a person's own names: their display name, its parts, and the localpart of their Matrix
    /// ID.
    pub fn add(&mut self, user: &UserId, called: Option<&str>, replacement: &str) {
        let replacement = match clean(replacement) {
            name if name.is_empty() => "Someone".to_owned(),
            name => name,
        };
        // An é can be one letter, or two that look like it.
        let called: String = called.unwrap_or_default().nfc().collect();
        let parts: Vec<&str> = called
            .split(|c: char| !c.is_alphanumeric() && !is_combining_mark(c) && !is_invisible(c))
            .filter(|part| !part.is_empty())
            .collect();
        let named = [called.trim(), user.localpart()];
        for name in named {
            self.add_one(name, NAME_CHARS_MIN, &replacement);
        }
        if parts.len() <= NAME_PARTS_MAX {
            for part in parts {
                self.add_one(part, NAME_PART_CHARS_MIN, &replacement);
            }
        }
        // The longest first, so that a name is found before its parts.
        self.0
            .sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    }

    fn add_one(&mut self, name: &str, shortest: usize, replacement: &str) {
        let name: Vec<char> = name
            .chars()
            .filter(|c| !is_invisible(*c))
            .map(lower)
            .collect();
        let known = self.0.iter().any(|(known, _)| *known == name)
            || replacement.chars().map(lower).eq(name.iter().copied());
        if (shortest..=TEXT_CHARS_MAX).contains(&name.len()) && !known {
            self.0.push((name, replacement.to_owned()));
        }
    }

    /// Returns the text with all names replaced.
    pub(crate) fn replace(&self, text: &str) -> String {
        let letters: Vec<(usize, char)> = text
            .char_indices()
            .filter(|(_, c)| !is_invisible(*c))
            .collect();
        let mut out = String::with_capacity(text.len());
        let (mut at, mut copied) = (0, 0);
        while at < letters.len() {
            let found = self
                .0
                .iter()
                .find(|(name, _)| stands_at(&letters, at, name));
            let Some((name, replacement)) = found else {
                at += 1;
                continue;
            };
            out.push_str(&text[copied..letters[at].0]);
            out.push_str(replacement);
            at += name.len();
            copied = letters.get(at).map_or(text.len(), |(start, _)| *start);
        }
        out.push_str(&text[copied..]);
        out
    }
}

/// Returns whether a name begins at `at`, as a word of its own in scripts that have words.
fn stands_at(letters: &[(usize, char)], at: usize, name: &[char]) -> bool {
    let Some(found) = letters.get(at..at + name.len()) else {
        return false;
    };
    let goes_on = |one: Option<&char>, other: Option<&(usize, char)>| {
        let of_a_word = |c: char| c.is_lowercase() || c.is_uppercase() || c.is_numeric();
        one.is_some_and(|c| of_a_word(*c)) && other.is_some_and(|(_, c)| of_a_word(*c))
    };
    let before = at.checked_sub(1).and_then(|at| letters.get(at));
    // Many languages form the genitive with a bare s.
    let mut behind = at + name.len();
    if name.len() >= NAME_PART_CHARS_MIN
        && letters.get(behind).is_some_and(|(_, c)| lower(*c) == 's')
    {
        behind += 1;
    }
    let ends = |next: usize| {
        let last = next.checked_sub(1).and_then(|at| letters.get(at));
        !goes_on(last.map(|(_, c)| c), letters.get(next))
    };
    found
        .iter()
        .zip(name)
        .all(|((_, c), wanted)| lower(*c) == *wanted)
        && !goes_on(name.first(), before)
        && (ends(at + name.len()) || ends(behind))
}

/// Returns one lower-case letter for each letter, so that positions do not change.
fn lower(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) => lower,
        _ => c,
    }
}

/// Translates the name or topic of a room. Returns `None` if it would still identify a person.
pub fn translate_room_text(
    text: &str,
    context: &Context<'_>,
    names: &Names,
    at_most: usize,
) -> Option<String> {
    if text.chars().count() > TEXT_CHARS_MAX {
        return None;
    }
    let text = names.replace(&translate_readable(text, context));
    checked(&text, context, at_most)
}

/// Translates the words of a message that are shown in a sentence of ours, up to `at_most`
/// characters. Returns `None` if they would still identify a person.
///
/// Messages are bounded, and no names are looked for in them, so the whole text is searched: a cut
/// could leave a part of an identifier.
pub fn translate_line(text: &str, context: &Context<'_>, at_most: usize) -> Option<String> {
    checked(&translate_readable(text, context), context, at_most)
}

/// Translates a text and leaves out its control characters. Those between two words keep them apart.
fn translate_readable(text: &str, context: &Context<'_>) -> String {
    let scrub = Scrubber::new(context);
    // What breaks a line for some clients joins an identifier for others: so it is looked for while
    // such characters are there, and once more when they are gone.
    let text = scrub.text(&text.nfc().collect::<String>());
    let text = with_plain_breaks(&text).replace('\t', " ");
    let visible = |c: &char| !c.is_control() || *c == '\n';
    scrub.text(&text.chars().filter(visible).nfc().collect::<String>())
}

/// Returns the beginning of a translated text if it identifies nobody.
fn checked(text: &str, context: &Context<'_>, at_most: usize) -> Option<String> {
    let text: String = text.trim().chars().take(at_most).collect();
    (!FinalCheck::of(context).finds_identifier(&text)).then_some(text)
}

#[cfg(test)]
#[path = "room_text_tests.rs"]
mod tests;
