//! The names that clients put before a text for people whose client does not know profiles of single
//! messages (MSC4144): `Alice: hi`.

use serde_json::{Map, Value};

use super::html::pieces::{Piece, pieces};
use crate::text::without_turns;

/// What the attribute ends with that marks such a name in HTML.
const FALLBACK_MARK: &str = "profile-fallback";

/// Maximum number of names that are looked for in one event.
const NAMES_MAX: usize = 10;

/// The names in the profiles of one message.
#[derive(Debug, Default)]
pub(super) struct ProfileNames {
    names: Vec<String>,
    /// Whether the text says what its author does, and so begins with their name alone.
    is_emote: bool,
}

impl ProfileNames {
    /// Returns the names in all profiles of a content, be it an edit, and those that its HTML marks
    /// as such names: bridges leave the profile out.
    pub(super) fn of(content: &Map<String, Value>) -> Self {
        let mut names = Vec::new();
        collect(content, &mut names);
        let new = content.get("m.new_content").and_then(Value::as_object);
        for content in [Some(content), new].into_iter().flatten() {
            let html = content.get("formatted_body").and_then(Value::as_str);
            collect_marked(html.unwrap_or_default(), &mut names);
        }
        // The longest first, so that no name is taken for the beginning of another.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let is_emote = |content: &Map<String, Value>| {
            content.get("msgtype").and_then(Value::as_str) == Some("m.emote")
        };
        Self {
            names,
            is_emote: is_emote(content) || new.is_some_and(is_emote),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns a text without a name at its beginning. It has nothing that turns it, and the names
    /// have not either.
    pub(super) fn without_name(&self, text: &str) -> String {
        let mut names = self.names.iter();
        match names.find_map(|name| self.rest(text, name)) {
            // The mark of an edit stays.
            Some((true, rest)) => format!("* {rest}"),
            Some((false, rest)) => rest.to_owned(),
            None => text.to_owned(),
        }
    }

    /// Returns what follows `name` at the beginning of a text, and whether the mark of an edit stood
    /// before it.
    fn rest<'a>(&self, text: &'a str, name: &str) -> Option<(bool, &'a str)> {
        let text = text.trim_start();
        let after_mark = text.strip_prefix("* ");
        let bare = after_mark.unwrap_or(text).trim_start();
        // Markdown for the bold type in which clients show the name.
        let named = bare.trim_start_matches(['*', '_']);
        let marks = &bare[..bare.len() - named.len()];
        let after = named.strip_prefix(name)?;
        let after = after.strip_prefix(marks).unwrap_or(after);
        if let Some(said) = after.trim_start().strip_prefix([':', '：']) {
            let said = said.strip_prefix(marks).unwrap_or(said);
            return Some((after_mark.is_some() && !self.is_emote, said.trim_start()));
        }
        let ends = after.is_empty() || after.starts_with(char::is_whitespace);
        (self.is_emote && ends).then(|| (false, after.trim_start()))
    }

    /// Returns how many bytes at the beginning of a text are a name with its colon.
    pub(super) fn length_in(&self, text: &str) -> usize {
        let mut names = self.names.iter();
        let rest = names.find_map(|name| self.rest(text, name));
        rest.map_or(0, |(_, rest)| text.len() - rest.len())
    }
}

/// Returns whether clients put a profile for a single message under this key.
pub(super) fn is_profile(key: &str) -> bool {
    key.starts_with("org.matrix.msc4144") || key.contains("per_message_profile")
}

/// Returns `text`, the body of a message with this content, without the name that a profile in it
/// puts at its beginning. Names are compared without what turns a text.
pub fn without_profile_name(content: &Value, text: &str) -> String {
    match content.as_object() {
        Some(content) => ProfileNames::of(content).without_name(text),
        None => text.to_owned(),
    }
}

/// Returns whether these are the attributes of a name that a client puts before a text for people
/// whose client does not know profiles of single messages.
pub(super) fn is_fallback_name(attributes: &[(String, String)]) -> bool {
    let mut names = attributes.iter().map(|(name, _)| name.as_str());
    names.any(|name| name.ends_with(FALLBACK_MARK))
}

/// Collects the names that HTML marks as standing before a text.
fn collect_marked(html: &str, names: &mut Vec<String>) {
    if !html.to_ascii_lowercase().contains(FALLBACK_MARK) {
        return;
    }
    let mut open: Option<(String, String)> = None;
    for piece in pieces(html).unwrap_or_default() {
        match (piece, &mut open) {
            (Piece::Open(tag, attributes), None) if is_fallback_name(&attributes) => {
                open = Some((tag, String::new()));
            }
            (Piece::Text(text), Some((_, name))) => name.push_str(&text),
            (Piece::Close(closed), Some((tag, _))) if closed == *tag => {
                let (_, name) = open.take().unwrap_or_default();
                let name = without_turns(&name);
                let name = name.trim().trim_end_matches([':', '：']).trim();
                if !name.is_empty() && names.len() < NAMES_MAX {
                    names.push(name.to_owned());
                }
            }
            _ => {}
        }
    }
}

fn collect(fields: &Map<String, Value>, names: &mut Vec<String>) {
    let mut left = vec![(false, fields)];
    while let Some((in_profile, fields)) = left.pop() {
        let named = ["displayname", "display_name", "name", "id"];
        if let Some(name) = named.iter().find_map(|key| fields.get(*key)?.as_str())
            && in_profile
            && !name.trim().is_empty()
            && names.len() < NAMES_MAX
        {
            names.push(without_turns(name).trim().to_owned());
        }
        for (key, value) in fields {
            let in_profile = is_profile(key);
            let values = match value {
                Value::Array(values) => values.as_slice(),
                value => std::slice::from_ref(value),
            };
            let objects = values.iter().filter_map(Value::as_object);
            left.extend(objects.map(|fields| (in_profile, fields)));
        }
    }
}
