//! Quotes: how a message is passed on, with the name of its author.

use serde_json::{Map, Value, json};

use crate::{
    relay::{
        TextPart, is_usable_file, may_have_spoilers, text_with_spoilers, without_reply_fallback,
    },
    text::{fit_to_quote, is_blank, push_escaped, push_escaped_lines},
};

/// Maximum size of a mark on an attachment, in bytes of JSON.
const MARK_BYTES_MAX: usize = 1024;

/// Maximum length of the reason for a mark or a spoiler, in characters.
const MARK_REASON_CHARS_MAX: usize = 100;

/// Maximum length of the name of a file, in characters.
const FILE_NAME_CHARS_MAX: usize = 255;

/// Maximum length of the id of an event, in characters.
const EVENT_ID_CHARS_MAX: usize = 255;

/// Maximum length of a text that is also sent as HTML, in bytes.
const HTML_AT_MOST: usize = 12_000;

/// Maximum size of a quote with HTML or with a mark before every line, in bytes of JSON. A Matrix
/// event holds 64 KiB in all, and encryption makes four bytes of three. A message that fitted has
/// to fit as a quote, but HTML takes six bytes for a quotation mark, and a mark two for a line.
const QUOTE_BYTES_MAX: usize = 46_000;

/// Maximum size of such a quote in an edit, which holds it twice.
const EDIT_BYTES_MAX: usize = QUOTE_BYTES_MAX / 2;

/// A message content, ready to be encrypted.
#[derive(Clone, Debug, PartialEq)]
pub struct Quote {
    /// The event type.
    pub event_type: String,
    /// The content.
    pub content: Value,
}

/// Why a message cannot be quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// Not a message: a poll, a call and the like.
    #[error("events of this type cannot be passed on")]
    NotAMessage,
    /// A file that is not encrypted: passing it on would break the promise of an encrypted room.
    #[error("the attachment is not encrypted")]
    PlainAttachment,
    /// The content does not fit its type.
    #[error("the message is malformed")]
    Malformed,
}

/// The fields of an attachment that are passed on; all others are dropped.
const ATTACHMENT_FIELDS: [&str; 8] = [
    "msgtype",
    "file",
    "info",
    "m.audio",
    "org.matrix.msc1767.audio",
    "m.voice",
    "org.matrix.msc3245.voice",
    "geo_uri",
];

/// The marks of a recording that a person spoke into their client.
const VOICE_MARKS: [&str; 2] = ["m.voice", "org.matrix.msc3245.voice"];

/// Checks that a message can be quoted.
pub fn check_quotable(event_type: &str, content: &Value) -> Result<(), QuoteError> {
    quote("", event_type, content).map(|_| ())
}

/// Quotes `content`, which `name` wrote. An edit is quoted by its new content.
pub fn quote(name: &str, event_type: &str, content: &Value) -> Result<Quote, QuoteError> {
    quote_within(QUOTE_BYTES_MAX, name, event_type, content)
}

/// Quotes `content` like [`quote`], with HTML and marks if it then has no more than `most` bytes.
fn quote_within(
    most: usize,
    name: &str,
    event_type: &str,
    content: &Value,
) -> Result<Quote, QuoteError> {
    match event_type {
        "m.room.message" => {}
        "m.sticker" => return sticker(most, name, content),
        _ => return Err(QuoteError::NotAMessage),
    }
    let whole = content;
    let content = new_content(whole);
    let kind = content["msgtype"].as_str().ok_or(QuoteError::Malformed)?;
    let own = |content| text_of(whole, content);
    let quoted = match kind {
        "m.text" | "m.notice" => text(most, name, "wrote:", kind, &own(content)?)?,
        "m.emote" => text(most, name, "does:", "m.text", &own(content)?)?,
        "m.image" | "m.file" | "m.audio" | "m.video" => attachment(most, name, kind, content)?,
        "m.location" => location(most, name, content)?,
        // Its text alone would be passed on as if there were nothing else, such as the pictures of
        // a gallery.
        _ if holds_files(content) => return Err(QuoteError::NotAMessage),
        _ => text(most, name, "wrote:", "m.text", &own(content)?)?,
    };
    let quoted = with_relation(content, quoted);
    Ok(Quote {
        event_type: "m.room.message".to_owned(),
        content: quoted,
    })
}

/// Returns whether a message holds files, whatever its type calls them.
pub(super) fn holds_files(content: &Value) -> bool {
    ["file", "url", "itemtypes"]
        .iter()
        .any(|field| content.get(field).is_some())
        || content.to_string().contains("mxc://")
}

/// Quotes an edit as an edit of `passed_on`, the event in which its original was passed on.
pub fn quote_edit(
    name: &str,
    event_type: &str,
    content: &Value,
    passed_on: &str,
) -> Result<Quote, QuoteError> {
    let mut new = quote_within(EDIT_BYTES_MAX, name, event_type, content)?;
    if let Some(fields) = new.content.as_object_mut() {
        fields.remove("m.relates_to");
    }
    let mut outer = new.content.clone();
    if let Some(body) = new.content["body"].as_str() {
        outer["body"] = Value::String(format!("* {body}"));
    }
    outer["m.new_content"] = new.content;
    outer["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": passed_on });
    Ok(Quote {
        event_type: new.event_type,
        content: outer,
    })
}

/// Returns what a message of this type is called if it is a file.
pub(super) fn file_kind(kind: &str, content: &Value) -> Option<&'static str> {
    let is_voice = || VOICE_MARKS.iter().any(|mark| content.get(mark).is_some());
    Some(match kind {
        "m.image" => "a picture",
        "m.video" => "a video",
        "m.audio" if is_voice() => "a voice message",
        "m.audio" => "a recording",
        "m.file" => "a file",
        _ => return None,
    })
}

/// Returns the caption of a file: its body, if its name stands elsewhere.
pub(super) fn caption_of(content: &Value) -> Option<&str> {
    let (body, name) = (content["body"].as_str()?, content["filename"].as_str()?);
    (name != body && !is_blank(body)).then_some(body)
}

/// Returns a text as it may stand in a quote, on one line.
fn on_one_line(text: &str) -> String {
    let line = fit_to_quote(text).replace(['\n', '\t'], " ");
    line.trim().to_owned()
}

/// Returns the new content of an edit, or else the content itself.
pub(super) fn new_content(content: &Value) -> &Value {
    match content.get("m.new_content") {
        Some(new) if new.is_object() && content["m.relates_to"]["rel_type"] == "m.replace" => new,
        _ => content,
    }
}

/// The text of a message.
pub(super) enum MessageText {
    /// Its body.
    Plain(String),
    /// What its HTML shows and covers: not all clients cover it in the body.
    WithSpoilers(Vec<TextPart>),
}

impl MessageText {
    /// Returns the text with words in place of what is covered.
    pub(super) fn plain(&self) -> String {
        match self {
            Self::Plain(body) => body.clone(),
            Self::WithSpoilers(parts) => {
                let shown = parts.iter().map(|part| match &part.spoiler {
                    None => part.text.clone(),
                    Some(reason) => match reason_for_spoiler(reason) {
                        reason if reason.is_empty() => "[spoiler]".to_owned(),
                        reason => format!("[spoiler: {reason}]"),
                    },
                });
                shown.collect()
            }
        }
    }

    fn push_html(&self, out: &mut String) {
        match self {
            Self::Plain(body) => push_escaped_lines(out, &fit_to_quote(body)),
            Self::WithSpoilers(parts) => {
                for part in parts {
                    let text = fit_to_quote(&part.text);
                    let Some(reason) = &part.spoiler else {
                        push_escaped_lines(out, &text);
                        continue;
                    };
                    out.push_str("<span data-mx-spoiler=\"");
                    push_escaped(out, &reason_for_spoiler(reason));
                    out.push_str("\">");
                    push_escaped_lines(out, &text);
                    out.push_str("</span>");
                }
            }
        }
    }
}

fn reason_for_spoiler(reason: &str) -> String {
    cut(&on_one_line(reason), MARK_REASON_CHARS_MAX)
}

/// Returns the text of a message: its body, unless something in its HTML is covered. `whole` is the
/// content in which an edit has its new `content`.
pub(super) fn text_of(whole: &Value, content: &Value) -> Result<MessageText, QuoteError> {
    let body = without_reply_fallback(whole, body_of(content)?);
    let html = content["formatted_body"].as_str();
    let Some(html) = html.filter(|html| may_have_spoilers(html)) else {
        return Ok(MessageText::Plain(body.to_owned()));
    };
    let parts = text_with_spoilers(html).ok_or(QuoteError::Malformed)?;
    Ok(if parts.iter().any(|part| part.spoiler.is_some()) {
        MessageText::WithSpoilers(parts)
    } else {
        MessageText::Plain(body.to_owned())
    })
}

fn text(
    most: usize,
    name: &str,
    verb: &str,
    msgtype: &str,
    text: &MessageText,
) -> Result<Value, QuoteError> {
    let body = &fit_to_quote(&text.plain());
    if is_blank(body) {
        let sentence = format!("{name} sent a message without text");
        return Ok(json!({ "msgtype": msgtype, "body": sentence, "m.mentions": {} }));
    }
    let fits = |quote: &Value| quote.to_string().len() <= most;
    let with_html = (body.len() <= HTML_AT_MOST)
        .then(|| text_with_html(name, verb, msgtype, body, text))
        .filter(fits);
    // Without HTML, nobody could uncover it.
    if with_html.is_none() && matches!(text, MessageText::WithSpoilers(_)) {
        return Err(QuoteError::NotAMessage);
    }
    let plain = |quoted: String| {
        json!({
            "msgtype": msgtype,
            "body": format!("{name} {verb}\n{quoted}"),
            "m.mentions": {},
        })
    };
    Ok(with_html
        .or_else(|| Some(plain(with_quote_marks(body))).filter(fits))
        .unwrap_or_else(|| plain(with_quote_marks(&joined(body)))))
}

fn text_with_html(name: &str, verb: &str, msgtype: &str, body: &str, text: &MessageText) -> Value {
    let mut html = String::with_capacity(body.len());
    push_escaped(&mut html, name);
    html.push_str(&format!(" {verb}<blockquote>"));
    text.push_html(&mut html);
    html.push_str("</blockquote>");
    json!({
        "msgtype": msgtype,
        "body": format!("{name} {verb}\n{}", with_quote_marks(body)),
        "format": "org.matrix.custom.html",
        "formatted_body": html,
        "m.mentions": {},
    })
}

/// Returns a text with the mark of a quote before every line: a line without one would look like
/// the ghost's own.
fn with_quote_marks(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("> {line}")).collect();
    lines.join("\n")
}

/// Returns a text on one line. For a text with so many lines that it has no room for their marks.
fn joined(text: &str) -> String {
    text.replace('\n', " ")
}

/// Appends a caption to the body of a quote, after `what` was sent: on the same line if it is a
/// single line, otherwise below it, as a quote.
fn put_captioned(
    most: usize,
    out: &mut Value,
    what: &str,
    text: &MessageText,
) -> Result<(), QuoteError> {
    if let MessageText::WithSpoilers(_) = text {
        let mut html = String::new();
        push_escaped(&mut html, what);
        html.push_str(":<blockquote>");
        text.push_html(&mut html);
        html.push_str("</blockquote>");
        out["format"] = "org.matrix.custom.html".into();
        out["formatted_body"] = html.into();
    }
    let caption = fit_to_quote(&text.plain());
    let in_line = |caption: &str| Value::String(format!("{what}: {}", caption.trim_end()));
    if caption.trim_end().lines().nth(1).is_none() {
        out["body"] = in_line(&caption);
    } else {
        out["body"] = Value::String(format!("{what}:\n{}", with_quote_marks(&caption)));
        if out.to_string().len() > most {
            out["body"] = in_line(&joined(&caption));
        }
    }
    // Without HTML, nobody could uncover what is covered.
    match text {
        MessageText::WithSpoilers(_) if out.to_string().len() > most => {
            Err(QuoteError::NotAMessage)
        }
        _ => Ok(()),
    }
}

fn attachment(most: usize, name: &str, kind: &str, content: &Value) -> Result<Value, QuoteError> {
    if !is_usable_file(&content["file"]) {
        let is_plain = !content["file"].is_object() && content["url"].is_string();
        return Err(match is_plain {
            true => QuoteError::PlainAttachment,
            false => QuoteError::Malformed,
        });
    }
    let body = content["body"].as_str().unwrap_or_default();
    let named = content["filename"].as_str();
    let file_name = cut(&on_one_line(named.unwrap_or(body)), FILE_NAME_CHARS_MAX);
    let what = file_kind(kind, content).unwrap_or("a file");
    let what = match mark_of(content) {
        Some(reason) if reason.is_empty() => format!("sent {what} (spoiler)"),
        Some(reason) => format!("sent {what} (spoiler: {reason})"),
        None => format!("sent {what}"),
    };
    let sent = format!("{name} {what}");
    let mut out = Map::new();
    for field in ATTACHMENT_FIELDS {
        if let Some(value) = content.get(field) {
            out.insert(field.to_owned(), value.clone());
        }
    }
    for (field, value) in marks(content) {
        out.insert(field.clone(), value.clone());
    }
    out.insert("body".to_owned(), Value::String(sent.clone()));
    if !file_name.is_empty() {
        out.insert("filename".to_owned(), Value::String(file_name));
    }
    out.insert("m.mentions".to_owned(), json!({}));
    let mut out = Value::Object(out);
    if caption_of(content).is_some() {
        put_captioned(most, &mut out, &sent, &text_of(content, content)?)?;
    }
    Ok(out)
}

/// Returns the fields that ask clients to hide an attachment until somebody wants to see it. There
/// are several, and none is in the specification yet.
fn marks(content: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let fields = content.as_object().into_iter().flatten();
    fields.filter(|(field, value)| {
        (field.contains("spoiler") || field.contains("content_warning"))
            && field.len() <= 100
            && !value.is_array()
            && value.to_string().len() <= MARK_BYTES_MAX
    })
}

/// Returns the reason for which an attachment is to be hidden, which may be empty, or `None` if it
/// is to be shown.
fn mark_of(content: &Value) -> Option<String> {
    let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    let mut marks = marks(content).filter(|(_, value)| is_set(value)).peekable();
    marks.peek()?;
    let reason = marks.find_map(|(_, value)| {
        let reason = value.as_str().or(value["description"].as_str())?;
        (!reason.is_empty()).then(|| reason.to_owned())
    });
    let reason = on_one_line(&reason.unwrap_or_default());
    Some(cut(&reason, MARK_REASON_CHARS_MAX))
}

fn location(most: usize, name: &str, content: &Value) -> Result<Value, QuoteError> {
    let uri = content["geo_uri"].as_str().ok_or(QuoteError::Malformed)?;
    let sent = format!("{name} sent a place");
    let mut out = json!({
        "msgtype": "m.location",
        "geo_uri": cut(uri, 500),
        "body": sent,
        "m.mentions": {},
    });
    if content["body"].as_str().is_some_and(|body| !is_blank(body)) {
        put_captioned(most, &mut out, &sent, &text_of(content, content)?)?;
    }
    Ok(out)
}

fn sticker(most: usize, name: &str, content: &Value) -> Result<Quote, QuoteError> {
    let content = new_content(content);
    let mut out = attachment(most, name, "m.image", content)?;
    out["msgtype"] = Value::String("m.image".to_owned());
    Ok(Quote {
        event_type: "m.room.message".to_owned(),
        content: with_relation(content, out),
    })
}

/// Returns a quote with the thread of the message and the target of its reply: both people are in
/// the room, so these are the same events for them.
fn with_relation(content: &Value, mut quote: Value) -> Value {
    let relates = &content["m.relates_to"];
    let id = |event: &Value| event.as_str().map(|event| cut(event, EVENT_ID_CHARS_MAX));
    let mut kept = Map::new();
    if relates["rel_type"] == "m.thread"
        && let Some(root) = id(&relates["event_id"])
    {
        kept.insert("rel_type".to_owned(), "m.thread".into());
        kept.insert("event_id".to_owned(), root.into());
        if relates["is_falling_back"] == true {
            kept.insert("is_falling_back".to_owned(), true.into());
        }
    }
    if let Some(event) = id(&relates["m.in_reply_to"]["event_id"]) {
        kept.insert("m.in_reply_to".to_owned(), json!({ "event_id": event }));
    }
    if !kept.is_empty() {
        quote["m.relates_to"] = Value::Object(kept);
    }
    quote
}

fn body_of(content: &Value) -> Result<&str, QuoteError> {
    content["body"].as_str().ok_or(QuoteError::Malformed)
}

pub(super) fn cut(text: &str, at_most: usize) -> String {
    let mut out: String = text.chars().take(at_most).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}
