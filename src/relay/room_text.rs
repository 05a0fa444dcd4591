//! What a room is called, so that another room of the conversation can be called the same.
//!
//! Such texts are made of people's names more often than messages are, and they stay. So here, and
//! only here, people's own names are taken out as well as their Matrix IDs.

use ruma::UserId;
use unicode_normalization::UnicodeNormalization as _;

use super::{context::Context, final_check::FinalCheck, scrub::Scrubber};
use crate::text::{clean, is_invisible};

/// The longest name of a room, in characters.
pub const NAME_CHARS_MAX: usize = 120;
/// The longest topic of a room, in characters.
pub const TOPIC_CHARS_MAX: usize = 1000;
/// Longer texts are not looked at.
const TEXT_CHARS_MAX: usize = 5000;
/// Shorter names are not looked for: they are found everywhere.
const NAME_CHARS_MIN: usize = 2;
/// Shorter parts of names are not looked for.
const NAME_PART_CHARS_MIN: usize = 3;
/// What has more words than this is no name whose parts name somebody.
const NAME_PARTS_MAX: usize = 3;

/// Names by which people are known where a text comes from, and what they are called where it
/// goes.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<(Vec<char>, String)>);

impl Names {
    /// Somebody's own names: what they are called, the parts of that, and what their Matrix ID
    /// begins with.
    pub fn add(&mut self, user: &UserId, called: Option<&str>, replacement: &str) {
        let replacement = match clean(replacement) {
            name if name.is_empty() => "Someone".to_owned(),
            name => name,
        };
        // An é can be one letter, or two that look like it.
        let called: String = called.unwrap_or_default().nfc().collect();
        let parts: Vec<&str> = called
            .split(|c: char| !c.is_alphanumeric())
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
        // The longest first: who has found it need not look for its parts.
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

    /// The text with everybody called as they are there.
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

/// Whether a name stands here, as a word of its own where there are such.
fn stands_at(letters: &[(usize, char)], at: usize, name: &[char]) -> bool {
    let Some(found) = letters.get(at..at + name.len()) else {
        return false;
    };
    let goes_on = |one: Option<&char>, other: Option<&(usize, char)>| {
        let of_a_word = |c: char| c.is_lowercase() || c.is_uppercase() || c.is_numeric();
        one.is_some_and(|c| of_a_word(*c)) && other.is_some_and(|(_, c)| of_a_word(*c))
    };
    let before = at.checked_sub(1).and_then(|at| letters.get(at));
    // Many languages say whose something is by an s and nothing before it.
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

/// One letter for each letter, so that places stay what they are.
fn lower(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) => lower,
        _ => c,
    }
}

/// Translates the name or the topic of a room. `None` if it cannot be told without naming anybody.
pub fn translate_room_text(
    text: &str,
    context: &Context<'_>,
    names: &Names,
    at_most: usize,
) -> Option<String> {
    if text.chars().count() > TEXT_CHARS_MAX {
        return None;
    }
    let visible = |c: &char| !c.is_control() || *c == '\n';
    let text: String = text.chars().filter(visible).nfc().collect();
    let text = names.replace(&Scrubber::new(context).text(&text));
    let text: String = text.trim().chars().take(at_most).collect();
    (!FinalCheck::of(context).finds_identifier(&text)).then_some(text)
}

#[cfg(test)]
#[path = "room_text_tests.rs"]
mod tests;
