//! The fuzz target of this room: every quote fits into an event.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a fuzz target reports a fault"
)]

use ruma::user_id;
use serde_json::{Value, json};

use super::{clean_name, gist, quote, quote_edit};
use crate::text::turns_text;

/// Maximum size of a content that a client can send encrypted, in bytes of JSON.
const CONTENT_AT_MOST: usize = 47_000;
/// Maximum size that a quote adds: a name, a verb, and the names of fields.
const ADDED_AT_MOST: usize = 1_000;
/// Maximum length of the gist of a message, in characters, with the mark of a cut.
const GIST_CHARS_MAX: usize = 1_001;

/// Checks a message of any kind: its quote, the quote of an edit of it, and its gist.
pub(crate) fn message(input: &[u8]) {
    let event = event_of(input);
    let content = &event["content"];
    let kind = event["type"].as_str().unwrap_or("m.room.message");
    let name = clean_name(event["name"].as_str(), user_id!("@asker:far.example"));
    let limit = size(content).max(CONTENT_AT_MOST) + ADDED_AT_MOST;
    if let Ok(quote) = quote(&name, kind, content) {
        assert_eq!(quote.event_type, "m.room.message");
        assert!(
            size(&quote.content) <= limit,
            "{} bytes",
            size(&quote.content)
        );
        let body = quote.content["body"].as_str().unwrap();
        assert!(
            body.starts_with(&name),
            "{body:?} does not say whose words these are"
        );
        check_html(&quote.content);
    }
    if let Ok(edit) = quote_edit(&name, kind, content, "$passed_on") {
        assert!(
            size(&edit.content) <= 2 * limit,
            "{} bytes",
            size(&edit.content)
        );
        assert_eq!(edit.content["m.relates_to"]["event_id"], "$passed_on");
        check_html(&edit.content["m.new_content"]);
    }
    let gist = gist(&name, kind, content, |body| Some(body.to_owned()));
    assert!(gist.chars().count() <= GIST_CHARS_MAX + ADDED_AT_MOST);
    let breaks = |c: char| c.is_control() && !matches!(c, '\n' | '\t') || turns_text(c);
    assert!(!gist.contains(breaks), "{gist:?}");
}

/// Returns an event with `name`, `type` and `content`, or else a message with this text.
fn event_of(input: &[u8]) -> Value {
    match serde_json::from_slice(input) {
        Ok(Value::Object(event)) => Value::Object(event),
        _ => {
            let text = String::from_utf8_lossy(input);
            json!({ "name": text, "content": { "msgtype": "m.text", "body": text } })
        }
    }
}

fn size(content: &Value) -> usize {
    serde_json::to_vec(content).unwrap().len()
}

/// Checks that nothing from the sender is read as HTML outside of the quote.
fn check_html(content: &Value) {
    let Some(html) = content["formatted_body"].as_str() else {
        return;
    };
    let (_, quoted) = html.split_once("<blockquote>").unwrap();
    let quoted = quoted.strip_suffix("</blockquote>").unwrap();
    let text = without_spoilers(&quoted.replace("<br>", ""));
    assert!(!text.contains(['<', '>', '"']), "{html:?}");
}

/// Returns HTML without the tags that cover a part of it.
fn without_spoilers(html: &str) -> String {
    let mut parts = html.split("<span data-mx-spoiler=\"");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (reason, rest) = part.split_once("\">").unwrap();
        let (hidden, rest) = rest.split_once("</span>").unwrap();
        out.extend([reason, hidden, rest]);
    }
    out
}
