//! The final check of an event before it is sent.
//!
//! Every string was searched before. This check decodes them once more, with other code, and
//! redacts whole strings. It finds nothing unless an earlier step failed.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::{
    context::Context,
    html::pieces::{Piece, pieces},
    scrub::REDACTED,
};
use crate::text::is_invisible;

/// Maximum number of decoded forms of a string that are searched.
const CHECKED_FORMS_MAX: usize = 24;

/// Searches for the identifiers of one translation.
pub(super) struct FinalCheck {
    needles: Vec<String>,
}

impl FinalCheck {
    pub(super) fn of(context: &Context<'_>) -> Self {
        let room = context.source.as_str().to_lowercase();
        let mut needles = vec![format!("roomid/{}", room.trim_start_matches('!')), room];
        let others = context.aliases.iter().filter(|p| p.source != p.target);
        let mut users: Vec<&str> = others.map(|p| p.source.as_str()).collect();
        if !context.is_participant(context.sender) {
            users.push(context.sender.as_str());
        }
        for user in users {
            let user = user.to_lowercase();
            needles.push(format!("u/{}", user.trim_start_matches('@')));
            needles.push(user);
        }
        Self { needles }
    }

    /// Redacts strings that hold an identifier. Returns their number.
    pub(super) fn redact(&self, value: &mut Value) -> usize {
        match value {
            Value::String(text) if self.finds_identifier(text) => {
                REDACTED.clone_into(text);
                1
            }
            Value::Array(values) => values.iter_mut().map(|value| self.redact(value)).sum(),
            Value::Object(fields) => {
                let all: Map<String, Value> = std::mem::take(fields);
                let mut redacted = 0;
                for (key, mut value) in all {
                    if self.finds_identifier(&key) {
                        redacted += 1;
                        continue;
                    }
                    redacted += self.redact(&mut value);
                    fields.insert(key, value);
                }
                redacted
            }
            _ => 0,
        }
    }

    /// Returns whether `text` has an identifier, as it is or decoded, in any order.
    pub(super) fn finds_identifier(&self, text: &str) -> bool {
        let mut forms = vec![text.to_owned()];
        let mut at = 0;
        while let Some(form) = forms.get(at).cloned() {
            at += 1;
            if self.named_in(&form) {
                return true;
            }
            if forms.len() >= CHECKED_FORMS_MAX
                || !form.bytes().any(|b| matches!(b, b'%' | b'&' | b'<'))
            {
                continue;
            }
            let percent = percent_decode_str(&form).decode_utf8_lossy().into_owned();
            // An overlong tag is not HTML but a text with a `<` in it.
            let (html, entities) = (in_html(&form), in_html(&form.replace(['<', '>'], " ")));
            for next in [Some(percent), html, entities].into_iter().flatten() {
                if !forms.contains(&next) {
                    forms.push(next);
                }
            }
        }
        false
    }

    fn named_in(&self, text: &str) -> bool {
        let seen = |c: &char| !is_invisible(*c) && (!c.is_control() || c.is_whitespace());
        let text: String = text
            .chars()
            .filter(seen)
            .flat_map(char::to_lowercase)
            .collect();
        self.needles
            .iter()
            .any(|needle| text.contains(needle.as_str()))
    }
}

/// Returns a text read as HTML: its text and the values of its attributes.
fn in_html(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut attributes = String::new();
    for piece in pieces(text)? {
        match piece {
            Piece::Text(text) => out.push_str(&text),
            Piece::Open(_, all) => {
                for (_, value) in all {
                    attributes.push('\n');
                    attributes.push_str(&value);
                }
            }
            Piece::Close(_) => {}
        }
    }
    out.push_str(&attributes);
    Some(out)
}
