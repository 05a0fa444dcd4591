//! Calls between two people (`m.call.*`, spec v1.19, "Voice over IP"). Their events are forwarded;
//! sound and picture go directly from one person to the other.
//!
//! Every content is built from the fields that the spec knows. With
//! [`super::Context::hide_addresses`] only candidates of relays pass ([`sdp`]).

use std::time::Duration;

use serde_json::{Map, Value, json};

mod pseudonym;
mod sdp;

use super::{outcome::TranslateError, scrub::Scrubber};
pub(crate) use sdp::is_complete;

/// Maximum number of candidates in one event.
const CANDIDATES_MAX: usize = 100;
/// Maximum number of streams in one event.
const STREAMS_MAX: usize = 50;

/// Returns the event type without its namespace, or `None` if it is not of a call.
pub(crate) fn kind(event_type: &str) -> Option<&str> {
    ["m.call.", "org.matrix.call."]
        .into_iter()
        .find_map(|namespace| event_type.strip_prefix(namespace))
}

/// Returns whether a call event has candidates of a relay.
pub fn has_relay(content: &Value) -> bool {
    let descriptions = ["offer", "answer", "description"];
    let mut descriptions = descriptions
        .iter()
        .filter_map(|name| content[name]["sdp"].as_str());
    let mut candidates = content["candidates"].as_array().into_iter().flatten();
    descriptions.any(sdp::has_relay)
        || candidates.any(|it| it["candidate"].as_str().is_some_and(sdp::has_relay))
}

/// Shortens the lifetime of an offer by its age, so that a call that was delayed rings only as long
/// as the caller waits, or not at all.
pub fn ages(event_type: &str, content: &mut Value, by: Duration) {
    let offers = matches!(kind(event_type), Some("invite" | "negotiate"));
    if let Some(lifetime) = content["lifetime"].as_u64().filter(|_| offers) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        content["lifetime"] = lifetime.saturating_sub(by).into();
    }
}

/// Translates the content of a call event.
pub(super) fn translate(
    scrub: &Scrubber<'_>,
    kind: &str,
    content: &Map<String, Value>,
) -> Result<Option<Map<String, Value>>, TranslateError> {
    // These types are not translated, whatever their content.
    match kind {
        "replaces" => return Err(TranslateError::CallTransfer),
        // It names the caller, which is the secret.
        "asserted_identity" | "asserted_identity.v3" => return Ok(None),
        _ => {}
    }
    let mut out = Map::new();
    common(scrub, content, &mut out)?;
    match kind {
        "invite" => {
            invitee(scrub, content, &mut out)?;
            description(scrub, content, "offer", &mut out)?;
        }
        "answer" => description(scrub, content, "answer", &mut out)?,
        "negotiate" => description(scrub, content, "description", &mut out)?,
        "candidates" => {
            let Some(candidates) = candidates(scrub, content) else {
                return Ok(None);
            };
            out.insert("candidates".to_owned(), candidates);
        }
        "select_answer" => {
            let selected = content
                .get("selected_party_id")
                .and_then(Value::as_str)
                .and_then(|id| pseudonym::of_another(scrub.context, id))
                .ok_or(TranslateError::Malformed)?;
            out.insert("selected_party_id".to_owned(), selected.into());
        }
        "hangup" | "reject" => {}
        "sdp_stream_metadata_changed" => {}
        _ => return Err(TranslateError::MatrixRtc),
    }
    Ok(Some(out))
}

/// Translates the fields that most call events have.
fn common(
    scrub: &Scrubber<'_>,
    content: &Map<String, Value>,
    out: &mut Map<String, Value>,
) -> Result<(), TranslateError> {
    let call = content
        .get("call_id")
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty() && id.len() <= 255)
        .ok_or(TranslateError::Malformed)?;
    out.insert("call_id".to_owned(), scrub.text(call).into());
    for name in ["version", "lifetime"] {
        match content.get(name) {
            Some(Value::Number(number)) => {
                out.insert(name.to_owned(), Value::Number(number.clone()));
            }
            Some(Value::String(text)) if text.len() <= 32 => {
                out.insert(name.to_owned(), scrub.text(text).into());
            }
            _ => {}
        }
    }
    if let Some(reason) = content.get("reason").and_then(Value::as_str)
        && reason.len() <= 64
    {
        out.insert("reason".to_owned(), scrub.text(reason).into());
    }
    let party = content.get("party_id").and_then(Value::as_str);
    if let Some(party) = party.and_then(|id| pseudonym::own(scrub.context, id)) {
        out.insert("party_id".to_owned(), party.into());
    }
    if let Some(able) = content.get("capabilities").and_then(Value::as_object) {
        let able: Map<String, Value> = able
            .iter()
            .filter(|(_, value)| value.is_boolean())
            .filter(|(name, _)| name.len() <= 64 && !scrub.finds_identifier(name))
            .take(STREAMS_MAX)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        out.insert("capabilities".to_owned(), able.into());
    }
    for name in [
        "sdp_stream_metadata",
        "org.matrix.msc3077.sdp_stream_metadata",
    ] {
        if let Some(streams) = content.get(name).and_then(Value::as_object) {
            out.insert(name.to_owned(), self::streams(scrub, streams));
        }
    }
    Ok(())
}

/// Translates the metadata of streams, by the ids that browsers generate for them.
fn streams(scrub: &Scrubber<'_>, streams: &Map<String, Value>) -> Value {
    let mut out = Map::new();
    for (id, about) in streams.iter().take(STREAMS_MAX) {
        if id.len() > 255 || scrub.finds_identifier(id) {
            continue;
        }
        let mut stream = Map::new();
        if let Some(purpose) = about["purpose"].as_str().filter(|text| text.len() <= 64) {
            stream.insert("purpose".to_owned(), scrub.text(purpose).into());
        }
        for name in ["audio_muted", "video_muted"] {
            if let Some(muted) = about[name].as_bool() {
                stream.insert(name.to_owned(), muted.into());
            }
        }
        let user = about["user_id"].as_str();
        if let Some(alias) = user.and_then(|user| scrub.context.alias_to_mention(user)) {
            stream.insert("user_id".to_owned(), alias.target.as_str().into());
        }
        out.insert(id.clone(), stream.into());
    }
    out.into()
}

fn invitee(
    scrub: &Scrubber<'_>,
    content: &Map<String, Value>,
    out: &mut Map<String, Value>,
) -> Result<(), TranslateError> {
    let Some(invitee) = content.get("invitee").and_then(Value::as_str) else {
        return Ok(());
    };
    let alias = scrub
        .context
        .alias_to_mention(invitee)
        .ok_or(TranslateError::CallTransfer)?;
    out.insert("invitee".to_owned(), alias.target.as_str().into());
    Ok(())
}

fn description(
    scrub: &Scrubber<'_>,
    content: &Map<String, Value>,
    name: &str,
    out: &mut Map<String, Value>,
) -> Result<(), TranslateError> {
    let described = content.get(name).ok_or(TranslateError::Malformed)?;
    let sdp = described["sdp"].as_str().ok_or(TranslateError::Malformed)?;
    if sdp.len() > sdp::SDP_BYTES_MAX {
        return Err(TranslateError::TooLong);
    }
    let kind = match described["type"].as_str() {
        Some(kind @ ("offer" | "answer" | "pranswer" | "rollback")) => kind,
        _ => return Err(TranslateError::Malformed),
    };
    let sdp = sdp::description(scrub, sdp);
    // Only what takes an earlier description back has none of its own.
    if sdp.trim().is_empty() && kind != "rollback" {
        return Err(TranslateError::CallDescription);
    }
    out.insert(name.to_owned(), json!({ "type": kind, "sdp": sdp }));
    Ok(())
}

/// Translates candidates; `None` if none passes.
fn candidates(scrub: &Scrubber<'_>, content: &Map<String, Value>) -> Option<Value> {
    let all = content.get("candidates").and_then(Value::as_array)?;
    let mut out = Vec::new();
    for one in all.iter().take(CANDIDATES_MAX) {
        let Some(line) = one["candidate"].as_str().filter(|line| line.len() <= 1024) else {
            continue;
        };
        // An empty candidate marks the end.
        let line = if line.is_empty() {
            Some(String::new())
        } else {
            sdp::candidate(scrub, line)
        };
        let Some(line) = line else { continue };
        let mut candidate = Map::new();
        candidate.insert("candidate".to_owned(), line.into());
        if let Some(mid) = one["sdpMid"].as_str().filter(|mid| mid.len() <= 64) {
            candidate.insert("sdpMid".to_owned(), scrub.text(mid).into());
        }
        if let Some(index) = one["sdpMLineIndex"].as_u64() {
            candidate.insert("sdpMLineIndex".to_owned(), index.into());
        }
        out.push(Value::Object(candidate));
    }
    (!out.is_empty()).then_some(Value::Array(out))
}
