//! Relations of events: replies, threads, edits, reactions, votes.

use ruma::EventId;
use serde_json::{Map, Value, json};

use super::{
    outcome::{SenderRemark, TranslateError},
    scrub::Scrubber,
};

/// The field of an event with its relation.
pub(super) const RELATES_TO: &str = "m.relates_to";
const IN_REPLY_TO: &str = "m.in_reply_to";

/// What happens to an event that refers to an unknown event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnMissingTarget {
    /// It is sent without the reference, and its sender is told.
    Remark,
    /// It makes no sense alone and is not sent.
    Refuse(TranslateError),
}

/// Translates the relation of `content`.
pub(super) fn translate(
    scrub: &Scrubber<'_>,
    content: &Map<String, Value>,
    on_missing: OnMissingTarget,
    remarks: &mut Vec<SenderRemark>,
) -> Result<Option<Value>, TranslateError> {
    let relates = match content.get(RELATES_TO) {
        Some(Value::Object(relates)) => relates,
        broken => {
            if let OnMissingTarget::Refuse(_) = on_missing {
                return Err(TranslateError::Malformed);
            }
            if is_set(broken) {
                remarks.push(SenderRemark::WithoutReference);
            }
            return Ok(None);
        }
    };
    let reply = reply(scrub, relates);
    let Some(kind) = relates.get("rel_type").and_then(Value::as_str) else {
        if let OnMissingTarget::Refuse(_) = on_missing {
            return Err(TranslateError::Malformed);
        }
        let refers = ["rel_type", "event_id"]
            .iter()
            .any(|field| is_set(relates.get(*field)));
        match reply {
            Reply::Unknown => remarks.push(SenderRemark::WithoutReply),
            Reply::None if refers => remarks.push(SenderRemark::WithoutReference),
            Reply::None | Reply::To(_) => {}
        }
        return Ok(reply.known().map(reply_to));
    };
    let target = relates
        .get("event_id")
        .and_then(Value::as_str)
        .and_then(|event| scrub.context.mapped_event(event));
    let is_thread = matches!(kind, "m.thread" | "io.element.thread");
    let Some(target) = target else {
        return match on_missing {
            OnMissingTarget::Refuse(why) => Err(why),
            OnMissingTarget::Remark if is_thread => {
                remarks.push(SenderRemark::WithoutThread);
                Ok(outside_of_thread(relates, reply))
            }
            OnMissingTarget::Remark => {
                remarks.push(SenderRemark::WithoutReference);
                Ok(None)
            }
        };
    };
    let mut own = relates.clone();
    own.remove("event_id");
    own.remove(IN_REPLY_TO);
    let mut out = scrub.fields(&own);
    out.insert("event_id".to_owned(), Value::String(target.to_string()));
    put_reply(&mut out, reply, &target, is_thread, remarks);
    Ok(Some(Value::Object(out)))
}

/// Adds the reply to the translated relation to `target`.
fn put_reply(
    out: &mut Map<String, Value>,
    reply: Reply,
    target: &EventId,
    is_thread: bool,
    remarks: &mut Vec<SenderRemark>,
) {
    let falls_back = is_falling_back(out);
    match reply {
        Reply::None => {}
        Reply::To(event) => {
            out.insert(IN_REPLY_TO.to_owned(), json!({ "event_id": event }));
        }
        // Clients without threads then show it as a reply to the first message of the thread.
        Reply::Unknown if is_thread => {
            let to_target = json!({ "event_id": target.as_str() });
            out.insert(IN_REPLY_TO.to_owned(), to_target);
            if !falls_back {
                out.insert("is_falling_back".to_owned(), Value::Bool(true));
                remarks.push(SenderRemark::WithoutReply);
            }
        }
        Reply::Unknown => remarks.push(SenderRemark::WithoutReply),
    }
}

/// Translates the relation of an event in an unknown thread: it may still be a reply.
fn outside_of_thread(relates: &Map<String, Value>, reply: Reply) -> Option<Value> {
    // A fallback reply means nothing outside of the thread.
    if is_falling_back(relates) {
        return None;
    }
    reply.known().map(reply_to)
}

/// Returns whether the reply in this relation is only for clients without threads.
fn is_falling_back(relates: &Map<String, Value>) -> bool {
    relates.get("is_falling_back").and_then(Value::as_bool) == Some(true)
}

/// Returns the relation of a reply to this event.
fn reply_to(event: String) -> Value {
    json!({ IN_REPLY_TO: { "event_id": event } })
}

/// Returns the translated id of the event that `content` edits: `Some(None)` if that event is
/// unknown, `None` if `content` is no edit.
pub(super) fn edited(scrub: &Scrubber<'_>, content: &Map<String, Value>) -> Option<Option<String>> {
    let relates = content.get(RELATES_TO)?.as_object()?;
    if !is_edit(content) {
        return None;
    }
    let target = relates.get("event_id").and_then(Value::as_str);
    let known = target.and_then(|event| scrub.context.mapped_event(event));
    Some(known.map(|event| event.to_string()))
}

/// Returns whether `content` says that it is an edit.
pub(super) fn is_edit(content: &Map<String, Value>) -> bool {
    let relates = content.get(RELATES_TO);
    relates.is_some_and(|relates| relates["rel_type"] == "m.replace")
}

/// Returns whether `content` says that it is a reply.
pub(super) fn is_reply(content: &Map<String, Value>) -> bool {
    let relates = content.get(RELATES_TO).and_then(Value::as_object);
    relates.is_some_and(|relates| relates.contains_key(IN_REPLY_TO))
}

/// Returns whether `content` says that it is a reply, and not only for clients without threads.
pub(super) fn answers_a_message(content: &Map<String, Value>) -> bool {
    let relates = content.get(RELATES_TO).and_then(Value::as_object);
    is_reply(content) && !relates.is_some_and(is_falling_back)
}

#[derive(PartialEq)]
enum Reply {
    None,
    Unknown,
    To(String),
}

impl Reply {
    fn known(self) -> Option<String> {
        match self {
            Self::To(event) => Some(event),
            Self::None | Self::Unknown => None,
        }
    }
}

fn reply(scrub: &Scrubber<'_>, relates: &Map<String, Value>) -> Reply {
    let event = match relates.get(IN_REPLY_TO) {
        Some(Value::Object(reply)) => reply.get("event_id").filter(|event| !event.is_null()),
        reply if is_set(reply) => return Reply::Unknown,
        _ => None,
    };
    let Some(event) = event else {
        return Reply::None;
    };
    let known = event
        .as_str()
        .and_then(|event| scrub.context.mapped_event(event));
    known.map_or(Reply::Unknown, |event| Reply::To(event.to_string()))
}

/// Returns whether a field says something. Some clients write `null` into each that does not.
fn is_set(field: Option<&Value>) -> bool {
    field.is_some_and(|value| !value.is_null())
}
