//! Gists: what a request shows of an opening line.

use serde_json::Value;

use super::quote::{caption_of, cut, file_kind, holds_files, new_content, text_of};
use crate::text::{fit_to_quote, is_blank};

/// Maximum length of the text that a request shows, in characters.
const GIST_CHARS_MAX: usize = 1000;

/// Returns what a request shows of an opening line by `name`: its kind if it is no text, and its
/// text or caption, as translated by `told`.
pub fn gist(
    name: &str,
    event_type: &str,
    content: &Value,
    told: impl FnOnce(&str) -> Option<String>,
) -> String {
    let whole = content;
    let content = new_content(whole);
    let kind = match event_type {
        "m.room.message" => content["msgtype"].as_str().unwrap_or_default(),
        other => other,
    };
    let (what, has_text) = match (kind, file_kind(kind, content)) {
        ("m.sticker", _) => (Some("a picture"), false),
        ("m.location", _) => (Some("a place"), true),
        ("m.gallery" | "dm.filament.gallery", _) if holds_files(content) => {
            (Some("pictures"), true)
        }
        (_, None) => (None, true),
        (_, what) => (what, caption_of(content).is_some()),
    };
    let shown = match has_text.then(|| text_of(whole, content)) {
        Some(Ok(text)) => Some(text.plain())
            .filter(|text| what.is_none() || !is_blank(text))
            .map(|text| match told(&text) {
                Some(text) if is_blank(&text) => "(something without text)".to_owned(),
                Some(text) => cut(&fit_to_quote(&text), GIST_CHARS_MAX),
                None => "(a text that cannot be shown here)".to_owned(),
            }),
        Some(Err(_)) if content["body"].is_string() => {
            Some("(a text that cannot be shown here)".to_owned())
        }
        _ => None,
    };
    match (what, shown) {
        (Some(what), Some(caption)) => format!("({what}) {caption}"),
        (Some(what), None) => format!("({what})"),
        // Without the name, nobody would know who does what it says.
        (None, Some(text)) if kind == "m.emote" => format!("* {name} {text}"),
        (None, Some(text)) => text,
        (None, None) => "(something without text)".to_owned(),
    }
}
