//! Translates the fields of an event, each value as its key requires.

use serde_json::{Map, Value};

use super::{html, profile::is_profile, scrub::Scrubber};
use crate::text::without_turns;

impl Scrubber<'_> {
    /// Translates the value of a key.
    pub(super) fn value(&self, key: &str, value: &Value) -> Value {
        match value {
            Value::String(text) if is_html(key) => Value::String(html::plainly(self, text)),
            Value::String(text) if is_prose(key) && !self.profile.is_empty() => {
                Value::String(self.text(&self.profile.without_name(&without_turns(text))))
            }
            Value::String(text) if is_prose(key) => Value::String(self.text(text)),
            Value::String(text) => Value::String(self.token(text)),
            Value::Array(values) => values.iter().map(|value| self.value(key, value)).collect(),
            Value::Object(fields) => Value::Object(self.fields(fields)),
            other => other.clone(),
        }
    }

    /// Translates all fields of an object except those about the sender, and those whose name is
    /// the address of media elsewhere.
    pub(super) fn fields(&self, fields: &Map<String, Value>) -> Map<String, Value> {
        let html = fields.get("mimetype").and_then(Value::as_str) == Some("text/html");
        let mut out = Map::new();
        for (key, value) in fields {
            if is_personal(key) {
                continue;
            }
            let Some(name) = self.field_name(key) else {
                continue;
            };
            let value = match value {
                Value::String(text) if html && key == "body" => {
                    Value::String(html::plainly(self, text))
                }
                value => self.value(key, value),
            };
            out.insert(name, value);
        }
        out
    }
}

/// Returns whether the value of this key is HTML.
pub(super) fn is_html(key: &str) -> bool {
    matches!(key, "formatted_body" | "org.matrix.msc1767.html" | "m.html")
}

/// Returns whether the value of this key is a text for people, whatever it looks like.
pub(super) fn is_prose(key: &str) -> bool {
    matches!(
        key,
        "body"
            | "filename"
            | "org.matrix.msc1767.text"
            | "m.text"
            | "description"
            | "name"
            | "topic"
    )
}

/// Returns whether clients identify themselves under this key.
fn is_personal(key: &str) -> bool {
    matches!(
        key,
        "via"
            | "unsigned"
            | "sender"
            | "sender_key"
            | "device_id"
            | "sender_device_id"
            | "from_device"
            | "displayname"
            | "display_name"
            | "avatar_url"
    ) || key.starts_with("io.element.")
        || is_profile(key)
}
