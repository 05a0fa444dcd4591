//! The lines in which older clients quote, before a text, the message that it replies to.

use serde_json::{Map, Value};

use super::relation::{answers_a_message, is_edit, is_reply};

/// Whom the first of these lines names as the author of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FallbackAuthor {
    /// Somebody by their Matrix ID, as in `> <@alice:example.org> hello`.
    MatrixId,
    /// Somebody by any name. A person may write such a line too, so it has to be known that the text
    /// is a reply.
    AnyName,
}

/// Returns `text`, the body of a message with this content, without the quote of the message that
/// it replies to.
pub fn without_reply_fallback<'a>(content: &Value, text: &'a str) -> &'a str {
    let Some(fields) = content.as_object() else {
        return text;
    };
    let html = fields.get("formatted_body").and_then(Value::as_str);
    let quotes = html.is_some_and(|html| html.to_ascii_lowercase().contains("<mx-reply"));
    own_text(fields, quotes, is_edit(fields), text)
}

/// Returns the body of a message without the quote of the message that it replies to. `quotes` says
/// whether its HTML has one, `is_edit` whether it is the text of an edit.
pub(super) fn own_text<'a>(
    content: &Map<String, Value>,
    quotes: bool,
    is_edit: bool,
    text: &'a str,
) -> &'a str {
    let author = if quotes || answers_a_message(content) {
        FallbackAuthor::AnyName
    } else if is_edit || is_reply(content) {
        FallbackAuthor::MatrixId
    } else {
        return text;
    };
    without_quote(text, author)
}

fn without_quote(text: &str, author: FallbackAuthor) -> &str {
    if !begins_with_quote(text, author) {
        return text;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if !line.starts_with('>') && !line.starts_with("* >") {
            break;
        }
        rest = after;
    }
    rest.trim_start_matches('\n')
}

fn begins_with_quote(text: &str, author: FallbackAuthor) -> bool {
    let line = text.lines().next().unwrap_or_default();
    let quote = line.trim_start_matches("* ").strip_prefix("> ");
    // An emote is marked as one.
    let named = quote.and_then(|quote| quote.trim_start_matches("* ").strip_prefix('<'));
    named.is_some_and(|named| match author {
        FallbackAuthor::MatrixId => named.starts_with('@'),
        FallbackAuthor::AnyName => named.find('>').is_some_and(|end| end > 0),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_quote_before_a_reply_is_taken_out() {
        let reply = json!({ "m.relates_to": { "m.in_reply_to": { "event_id": "$one" } } });
        let edit = json!({ "m.relates_to": { "rel_type": "m.replace", "event_id": "$one" } });
        let html = json!({ "formatted_body": "<MX-reply>quoted</mx-reply>said" });
        let thread = json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": "$one",
            "is_falling_back": true, "m.in_reply_to": { "event_id": "$two" } } });
        let (by_id, by_name) = (
            "> <@alice:far.example> a\n> b\n\nsaid",
            "> <Alice H.> a\n\nsaid",
        );
        let emote = "> * <Alice H.> waves\nsaid";
        let own = "> as they say\n\nindeed";
        for (content, text, expected) in [
            (&reply, by_id, "said"),
            (&reply, by_name, "said"),
            (&reply, emote, "said"),
            (&reply, own, own),
            (&reply, "> <> x\nsaid", "> <> x\nsaid"),
            (&html, by_name, "said"),
            (&edit, by_id, "said"),
            (&edit, by_name, by_name),
            (&thread, by_id, "said"),
            (&thread, by_name, by_name),
            (&json!({}), by_id, by_id),
            (&json!([]), by_id, by_id),
        ] {
            assert_eq!(without_reply_fallback(content, text), expected, "{content}");
        }
    }
}
