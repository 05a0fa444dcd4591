//! The tags and attributes that are translated: those of the Matrix spec ("m.room.message
//! msgtypes", v1.19), and the older ones that clients still send.

use super::super::scrub::{Scrubber, is_content};

/// The tags that are written, with their contents.
const TAGS: [&str; 40] = [
    "a",
    "b",
    "blockquote",
    "br",
    "caption",
    "code",
    "del",
    "details",
    "div",
    "em",
    "font",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "img",
    "li",
    "ol",
    "p",
    "pre",
    "s",
    "span",
    "strike",
    "strong",
    "sub",
    "summary",
    "sup",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "tt",
    "u",
    "ul",
];

/// Tags whose contents are not for people to read.
const HIDDEN: [&str; 8] = [
    "mx-reply", "script", "style", "template", "iframe", "object", "title", "noscript",
];

/// Tags that end a line, and with it a link that was left open.
const BLOCKS: [&str; 22] = [
    "blockquote",
    "br",
    "caption",
    "details",
    "div",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "li",
    "ol",
    "p",
    "pre",
    "summary",
    "table",
    "td",
    "th",
    "tr",
    "ul",
];

/// Returns the name of a tag, if it is allowed.
pub(super) fn allowed_tag(tag: &str) -> Option<&'static str> {
    TAGS.iter().find(|allowed| **allowed == tag).copied()
}

/// Returns whether the contents of such a tag are dropped with it.
pub(super) fn is_hidden(tag: &str) -> bool {
    HIDDEN.contains(&tag)
}

/// Returns whether the contents of such a tag are not read as HTML: the first end tag ends it.
pub(super) fn is_raw_text(tag: &str) -> bool {
    matches!(tag, "script" | "style" | "iframe" | "title" | "noscript")
}

/// Returns whether such a tag begins or ends a block.
pub(super) fn is_block(tag: &str) -> bool {
    BLOCKS.contains(&tag)
}

/// Returns whether such a tag has no end.
pub(super) fn is_void(tag: &str) -> bool {
    matches!(tag, "br" | "hr" | "img")
}

/// Returns the allowed attributes of a tag, translated. Links are translated elsewhere.
pub(super) fn attributes(
    scrub: &Scrubber<'_>,
    tag: &str,
    all: &[(String, String)],
) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    for (name, value) in all {
        if let Some(attribute) = attribute(scrub, tag, name, value) {
            out.push(attribute);
        }
    }
    out
}

fn attribute(
    scrub: &Scrubber<'_>,
    tag: &str,
    name: &str,
    value: &str,
) -> Option<(&'static str, String)> {
    let number = || {
        short(value, |c| {
            c.is_ascii_digit() || matches!(c, '%' | '.' | '-')
        })
    };
    let color = || {
        let color = short(value, |c| c.is_ascii_alphanumeric() || c == '#');
        color.filter(|color| !scrub.finds_identifier(color))
    };
    match (tag, name) {
        ("span" | "font", "data-mx-color") => Some(("data-mx-color", color()?)),
        ("span" | "font", "data-mx-bg-color") => Some(("data-mx-bg-color", color()?)),
        ("font", "color") => Some(("color", color()?)),
        ("span", "data-mx-spoiler") => Some(("data-mx-spoiler", scrub.text(value))),
        ("span" | "div", "data-mx-maths") => Some(("data-mx-maths", scrub.text(value))),
        ("ol", "start") => Some(("start", number()?)),
        ("code", "class") => Some(("class", language(scrub, value)?)),
        ("img", "width") => Some(("width", number()?)),
        ("img", "height") => Some(("height", number()?)),
        ("img", "alt") => Some(("alt", scrub.text(value))),
        ("img", "title") => Some(("title", scrub.text(value))),
        ("img", "data-mx-emoticon") => Some(("data-mx-emoticon", String::new())),
        // Pictures are not uploaded again: their text takes their place.
        ("img", "src")
            if is_content(value)
                && scrub.context.is_local_media(value)
                && !scrub.finds_identifier(value) =>
        {
            Some(("src", value.to_owned()))
        }
        _ => None,
    }
}

fn short(value: &str, allowed: impl Fn(char) -> bool) -> Option<String> {
    let value = value.trim();
    let fits = !value.is_empty() && value.len() <= 24 && value.chars().all(allowed);
    fits.then(|| value.to_owned())
}

fn language(scrub: &Scrubber<'_>, value: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '#' | '-' | '_' | '.');
    value
        .split_ascii_whitespace()
        .filter(|class| class.starts_with("language-") && !scrub.finds_identifier(class))
        .find_map(|class| {
            (class.len() <= 64 && class.chars().all(allowed)).then(|| class.to_owned())
        })
}

/// Returns whether links of this scheme are allowed.
pub(in crate::relay) fn is_scheme(uri: &str) -> bool {
    let scheme = uri.split(':').next().unwrap_or_default();
    [
        "https", "http", "ftp", "mailto", "magnet", "matrix", "geo", "tel", "xmpp",
    ]
    .iter()
    .any(|allowed| scheme.eq_ignore_ascii_case(allowed))
        && uri.contains(':')
}
