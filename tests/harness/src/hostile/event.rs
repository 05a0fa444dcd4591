//! Events, signed by the server that makes them up.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, room_version_rules::RoomVersionRules};
use ruma_signatures::{hash_and_sign_event, reference_hash, sign_event};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use sha2::{Digest, Sha256};

use super::{Identity, now};

/// An event before it has a place in a room.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its sender; the room's creator if `None`.
    pub sender: Option<String>,
    /// Its type.
    pub kind: String,
    /// For state.
    pub state_key: Option<String>,
    /// Its content.
    pub content: Value,
    /// How many letters are added to the content, which then must be empty.
    pub padding: usize,
    /// `origin_server_ts`.
    pub sent: i64,
    /// Further fields, which win over all others.
    pub further: Map<String, Value>,
}

impl Draft {
    /// A message.
    pub fn message(kind: &str, content: Value) -> Self {
        Self {
            sender: None,
            kind: kind.to_owned(),
            state_key: None,
            content,
            padding: 0,
            sent: now(),
            further: Map::new(),
        }
    }

    /// A state event.
    pub fn state(kind: &str, state_key: &str, content: Value) -> Self {
        Self {
            state_key: Some(state_key.to_owned()),
            ..Self::message(kind, content)
        }
    }

    /// A state event with as many letters of padding, of a type that nobody knows.
    pub fn padded(state_key: &str, padding: usize) -> Self {
        Self {
            padding,
            ..Self::state("org.example.padding", state_key, json!({}))
        }
    }

    /// Changes the sender.
    pub fn by(mut self, sender: &str) -> Self {
        self.sender = Some(sender.to_owned());
        self
    }

    /// Changes the time.
    pub fn sent_at(mut self, sent: i64) -> Self {
        self.sent = sent;
        self
    }

    /// Adds a field outside of the content.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.further.insert(field.to_owned(), value);
        self
    }
}

/// The place of an event in a room.
pub(super) struct Position<'a> {
    pub room: &'a str,
    pub creator: &'a str,
    pub depth: i64,
    pub previous: Vec<String>,
    pub auth: Vec<String>,
}

/// A signed event.
#[derive(Clone, Debug)]
pub struct Pdu {
    /// Its id.
    pub id: String,
    /// The event.
    pub value: Arc<Value>,
    /// The event as text, written once: it may be answered many times, with many others.
    pub(super) text: Arc<RawValue>,
}

impl Pdu {
    pub(super) fn new(id: String, event: Value) -> Result<Self> {
        Ok(Self {
            id,
            text: to_raw_value(&event)?.into(),
            value: Arc::new(event),
        })
    }
}

/// A draft as the event of a room, without hash and signature.
pub(super) fn placed(draft: &Draft, at: &Position<'_>) -> Value {
    let mut event = json!({
        "room_id": at.room,
        "sender": draft.sender.as_deref().unwrap_or(at.creator),
        "type": draft.kind,
        "content": draft.content,
        "origin_server_ts": draft.sent,
        "depth": at.depth,
        "prev_events": at.previous,
        "auth_events": at.auth,
    });
    if let Value::Object(fields) = &mut event {
        if let Some(key) = &draft.state_key {
            fields.insert("state_key".into(), key.as_str().into());
        }
        fields.extend(draft.further.clone());
    }
    event
}

/// Hashes and signs an event.
pub(super) fn signed(identity: &Identity, rules: &RoomVersionRules, event: Value) -> Result<Pdu> {
    let mut object = canonical(event)?;
    hash_and_sign_event(&identity.name, &identity.key, &mut object, &rules.redaction)
        .context("cannot sign an event")?;
    let id = format!("${}", reference_hash(&object, rules)?);
    Pdu::new(id, serde_json::to_value(object)?)
}

/// Hashes and signs an event of an unknown type with padding in its empty content.
///
/// What is signed of such an event does not hold its content. So the padding is copied into the
/// text, and nothing walks over it letter by letter: that takes most of the time for a room with
/// thousands of such events.
pub(super) fn signed_with_padding(
    identity: &Identity,
    rules: &RoomVersionRules,
    event: Value,
    padding: usize,
) -> Result<Pdu> {
    let padding = "A".repeat(padding);
    let padded = |text: &str| {
        let content = format!("\"content\":{{\"padding\":\"{padding}\"}}");
        text.replacen("\"content\":{}", &content, 1)
    };
    let mut object = canonical(event)?;
    let hash = Sha256::digest(padded(&serde_json::to_string(&object)?));
    let hashes = canonical(json!({ "sha256": super::base64(hash) }))?;
    object.insert("hashes".into(), CanonicalJsonValue::Object(hashes));
    sign_event(&identity.name, &identity.key, &mut object, &rules.redaction)
        .context("cannot sign an event")?;
    let text = RawValue::from_string(padded(&serde_json::to_string(&object)?))?;
    let mut value = serde_json::to_value(&object)?;
    value["content"] = json!({ "padding": padding });
    Ok(Pdu {
        id: format!("${}", reference_hash(&object, rules)?),
        value: Arc::new(value),
        text: text.into(),
    })
}

/// JSON that can be signed.
pub(super) fn canonical(value: Value) -> Result<CanonicalJsonObject> {
    match CanonicalJsonValue::try_from(value)? {
        CanonicalJsonValue::Object(object) => Ok(object),
        _ => bail!("not an object"),
    }
}

#[cfg(test)]
mod tests {
    use ruma::RoomVersionId;

    use super::*;

    #[test]
    fn padding_is_signed_as_any_other_content() -> Result<()> {
        let identity = Identity {
            name: "hostile.test".into(),
            key: super::super::key_pair("1")?,
        };
        let rules = RoomVersionId::V10.rules().context("no rules")?;
        let event = |content: Value| {
            json!({
                "room_id": "!a:hostile.test",
                "sender": "@eve:hostile.test",
                "type": "org.example.padding",
                "state_key": "",
                "content": content,
                "origin_server_ts": 1,
                "depth": 2,
                "prev_events": [],
                "auth_events": [],
            })
        };
        let quick = signed_with_padding(&identity, &rules, event(json!({})), 20)?;
        let padding = "A".repeat(20);
        let slow = signed(&identity, &rules, event(json!({ "padding": padding })))?;
        assert_eq!(quick.id, slow.id);
        assert_eq!(quick.value, slow.value);
        assert_eq!(quick.text.get(), slow.text.get());
        Ok(())
    }
}
