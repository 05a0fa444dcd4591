//! The last look at what is about to leave.
//!
//! Everything was searched before; this decodes once more what goes out, by other code, and strikes
//! out whole strings. It has nothing to do unless something before it failed.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::{
    context::Context,
    html::pieces::{Piece, pieces},
    scrub::REDACTED,
};
use crate::text::is_invisible;

/// In as many forms is a string looked at.
const CHECKED_FORMS_MAX: usize = 24;

pub(super) struct FinalCheck {
    needles: Vec<String>,
}

impl FinalCheck {
    pub(super) fn of(context: &Context<'_>) -> Self {
        let room = context.source.as_str().to_lowercase();
        let mut needles = vec![format!("roomid/{}", room.trim_start_matches('!')), room];
        let others = context.aliases.iter().filter(|p| p.source != p.target);
        let mut users: Vec<&str> = others.map(|p| p.source.as_str()).collect();
        if context.alias_of(context.sender.as_str()).is_none() {
            users.push(context.sender.as_str());
        }
        for user in users {
            let user = user.to_lowercase();
            needles.push(format!("u/{}", user.trim_start_matches('@')));
            needles.push(user);
        }
        Self { needles }
    }

    /// Strikes out what names somebody, and says how many strings that were.
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

    /// Whether somebody is named in `text`, as it is or decoded, in whatever order.
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
            // With a tag longer than anybody writes it is no HTML, but text with a sign in it.
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

/// What a reader of HTML would find in the text, in its text and its attributes.
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
