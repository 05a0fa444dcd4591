//! The contents of what the service itself says in a room.

use serde_json::{Value, json};

use crate::{bot::NoticeText, ids::Person};

/// Returns a notice in plain text: an `m.room.message` of the type `m.notice`, which clients do not
/// notify of. The empty `m.mentions` says that words which look like a name mention nobody.
pub(in crate::engine) fn plain_notice(body: &str) -> Value {
    json!({ "msgtype": "m.notice", "body": body, "m.mentions": {} })
}

/// Returns a notice with HTML.
pub(in crate::engine) fn notice(text: &NoticeText) -> Value {
    formatted(text, "m.notice", json!({}))
}

/// Returns news for a person: a text that mentions them, so that clients notify.
pub(in crate::engine) fn news(text: &NoticeText, person: &Person) -> Value {
    formatted(text, "m.text", json!({ "user_ids": [person] }))
}

fn formatted(text: &NoticeText, msgtype: &str, mentions: Value) -> Value {
    json!({
        "msgtype": msgtype,
        "body": text.plain,
        "format": "org.matrix.custom.html",
        "formatted_body": text.html,
        "m.mentions": mentions,
    })
}
