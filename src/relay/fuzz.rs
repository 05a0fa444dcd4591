//! The fuzz targets of this room: whatever comes in, no output identifies its sender.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a fuzz target reports a fault"
)]

use serde_json::{Value, json};

use super::{
    CONTENT_BYTES_MAX, Context, Names, TOPIC_CHARS_MAX, Translated,
    final_check::FinalCheck,
    html::{self, attributes::is_scheme},
    oracle::{
        Direction, field_names, identifies_sender, leads_elsewhere, loaded, strings,
        with_every_context,
    },
    scrub::Scrubber,
    translate::{finish, translate_unchecked},
    translate_room_text,
};

/// The tags of the Matrix spec and the older ones that clients still send, with their attributes.
#[rustfmt::skip]
const TAGS: [(&str, &[&str]); 40] = [
    ("a", &["href"]), ("b", &[]), ("blockquote", &[]), ("br", &[]), ("caption", &[]),
    ("code", &["class"]), ("del", &[]), ("details", &[]), ("div", &["data-mx-maths"]), ("em", &[]),
    ("font", &["data-mx-color", "data-mx-bg-color", "color"]), ("h1", &[]), ("h2", &[]),
    ("h3", &[]), ("h4", &[]), ("h5", &[]), ("h6", &[]), ("hr", &[]), ("i", &[]),
    ("img", &["width", "height", "alt", "title", "src", "data-mx-emoticon"]), ("li", &[]),
    ("ol", &["start"]), ("p", &[]), ("pre", &[]), ("s", &[]),
    ("span", &["data-mx-color", "data-mx-bg-color", "data-mx-spoiler", "data-mx-maths"]),
    ("strike", &[]), ("strong", &[]), ("sub", &[]), ("summary", &[]), ("sup", &[]), ("table", &[]),
    ("tbody", &[]), ("td", &[]), ("th", &[]), ("thead", &[]), ("tr", &[]), ("tt", &[]), ("u", &[]),
    ("ul", &[]),
];
/// Maximum number of open tags: that of the spec.
const HTML_DEPTH_MAX: usize = 100;

/// Checks `formatted_body`: the output is well-formed, holds only what the spec allows, and
/// identifies nobody.
pub(crate) fn html(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    with_every_context(|context, direction| {
        let scrub = Scrubber::new(context);
        let Some(once) = html::translate(&scrub, text) else {
            return;
        };
        check_html(&once.html, context);
        assert!(
            !identifies_sender(direction, &once.html),
            "{:?} names the sender",
            once.html
        );
        for (_, now) in &once.renamed {
            assert!(
                !identifies_sender(direction, now),
                "{now:?} names the sender"
            );
        }
    });
}

/// Checks any event: the output identifies nobody, fits into an event, and loads nothing from
/// elsewhere.
pub(crate) fn event(input: &[u8]) {
    let (kind, content) = event_of(input);
    with_every_context(|context, direction| {
        if let Ok(Some((content, remarks))) = translate_unchecked(&kind, &content, context) {
            let mut checked = Value::Object(content.clone());
            let redacted = FinalCheck::of(context).redact(&mut checked);
            assert_eq!(
                redacted, 0,
                "the final check has redacted something: {checked}"
            );
            if let Ok(translated) = finish(&kind, content, remarks, context) {
                check_translated(&translated, context, direction);
            }
        }
        let words = content["body"].as_str().unwrap_or_default();
        let topic = translate_room_text(words, context, &Names::default(), TOPIC_CHARS_MAX);
        if let Some(topic) = topic {
            assert!(
                !identifies_sender(direction, &topic),
                "{topic:?} names the sender"
            );
            assert!(topic.chars().count() <= TOPIC_CHARS_MAX);
        }
    });
}

/// Returns the type and content of an event: `{"type": …, "content": …}`, or else a message with
/// this text.
fn event_of(input: &[u8]) -> (String, Value) {
    let event: Option<Value> = serde_json::from_slice(input).ok();
    let parts = event.and_then(|event| {
        let kind = event["type"].as_str()?.to_owned();
        Some((kind, event.get("content")?.clone()))
    });
    parts.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(input);
        let content = json!({
            "msgtype": "m.text",
            "body": text,
            "format": "org.matrix.custom.html",
            "formatted_body": text,
        });
        ("m.room.message".to_owned(), content)
    })
}

fn check_translated(translated: &Translated, context: &Context<'_>, direction: Direction) {
    let mut all = vec![translated.event_type.clone()];
    strings(&translated.content, &mut all);
    for text in &all {
        assert!(
            !identifies_sender(direction, text),
            "{text:?} names the sender"
        );
    }
    assert!(serde_json::to_vec(&translated.content).unwrap().len() <= CONTENT_BYTES_MAX);
    let anew: Vec<&str> = translated
        .media_to_reupload
        .iter()
        .map(|it| &*it.pointer)
        .collect();
    for pointer in &anew {
        assert!(translated.content.pointer(pointer).is_some(), "{pointer}");
    }
    for name in field_names(&translated.content) {
        let home = context.homeserver.as_str();
        assert!(!leads_elsewhere("", &name, home), "a field {name:?}");
    }
    for (pointer, key, text) in loaded(&translated.content) {
        let foreign = leads_elsewhere(&key, &text, context.homeserver.as_str());
        assert!(
            !foreign || anew.contains(&&*pointer),
            "{text:?} is elsewhere"
        );
    }
}

/// Checks HTML against the grammar in which this room writes it: every tag known, closed and in
/// order, every attribute quoted, every special character escaped.
fn check_html(html: &str, context: &Context<'_>) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some((text, after)) = rest.split_once('<') {
        check_text(text);
        let Some((tag, after)) = after.split_once('>') else {
            panic!("a tag without end in {html:?}");
        };
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{html:?}");
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        let Some((name, allowed)) = TAGS.iter().find(|(known, _)| *known == name) else {
            panic!("{name:?} is no tag of the spec");
        };
        check_attributes(name, attributes, allowed, context);
        assert!(
            *name != "a" || !open.contains(&"a"),
            "a link in a link: {html:?}"
        );
        if !matches!(*name, "br" | "hr" | "img") {
            open.push(name);
        }
        assert!(open.len() <= HTML_DEPTH_MAX + 1, "{} open tags", open.len());
    }
    check_text(rest);
    assert!(open.is_empty(), "{open:?} are left open in {html:?}");
}

fn check_attributes(tag: &str, mut rest: &str, allowed: &[&str], context: &Context<'_>) {
    while !rest.is_empty() {
        let end = rest.find([' ', '=']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        assert!(allowed.contains(&name), "{name:?} is no attribute of {tag}");
        let value = match after.strip_prefix("=\"") {
            Some(quoted) => {
                let (value, after) = quoted.split_once('"').unwrap();
                rest = after.strip_prefix(' ').unwrap_or(after);
                value
            }
            None => {
                rest = after.strip_prefix(' ').unwrap_or(after);
                ""
            }
        };
        check_text(value);
        match (tag, name) {
            ("a", "href") => assert!(is_scheme(value), "a link to {value:?}"),
            ("img", "src") => assert!(context.is_local_media(value), "a picture from {value:?}"),
            _ => {}
        }
    }
}

/// Checks that a text or the value of an attribute has only the entities that are written.
fn check_text(text: &str) {
    assert!(!text.contains(['<', '>', '"']), "{text:?}");
    for (at, _) in text.match_indices('&') {
        let entities = ["&amp;", "&lt;", "&gt;", "&quot;"];
        assert!(
            entities.iter().any(|it| text[at..].starts_with(it)),
            "{text:?}"
        );
    }
}
