//! Which events are translated, and how.

use serde_json::{Map, Value};

use super::{
    CONTENT_BYTES_MAX, calls,
    context::Context,
    fields::is_html,
    final_check::FinalCheck,
    media::{
        MediaToReupload, MediaUse, REUPLOADS_MAX, has_no_file, lacks_media, media_in, remove_media,
    },
    message,
    outcome::{SenderRemark, TranslateError, Translated},
    profile::ProfileNames,
    relation::OnMissingTarget,
    scrub::Scrubber,
};
use crate::matrix::event_type::{is_matrix_rtc, is_unseen, is_verification};

/// Maximum nesting depth of an event's content.
const CONTENT_DEPTH_MAX: usize = 100;

/// How events of a type are handled.
enum Handling {
    /// Translated. `OnMissingTarget` says what happens if the event that it refers to is unknown.
    Message(OnMissingTarget),
    /// Dropped without a notice: technical events between two clients.
    Silent,
    /// Refused, and the sender is told.
    Refused(TranslateError),
}

/// Translates an event of one room for another.
///
/// Returns `Ok(None)` if nothing is sent and nobody is told. Redactions and state events are not
/// for this function.
pub fn translate(
    event_type: &str,
    content: &Value,
    context: &Context<'_>,
) -> Result<Option<Translated>, TranslateError> {
    translate_unchecked(event_type, content, context)?
        .map(|(content, remarks)| finish(event_type, content, remarks, context))
        .transpose()
}

/// Translates an event without the final check.
pub(super) fn translate_unchecked(
    event_type: &str,
    content: &Value,
    context: &Context<'_>,
) -> Result<Option<(Map<String, Value>, Vec<SenderRemark>)>, TranslateError> {
    let on_missing = match handling(event_type) {
        Handling::Message(on_missing) => on_missing,
        Handling::Silent => return Ok(None),
        Handling::Refused(why) => return Err(why),
    };
    let Value::Object(fields) = content else {
        return Err(TranslateError::Malformed);
    };
    // The event was redacted, and this is what is left.
    if fields.is_empty() {
        return Ok(None);
    }
    if fields.values().any(|value| !fits(value, CONTENT_DEPTH_MAX)) {
        return Err(TranslateError::TooDeep);
    }
    if is_verification(event_type, content) {
        return Err(TranslateError::Verification);
    }
    let scrub = Scrubber::new(context).with_profile(ProfileNames::of(fields));
    // Types are named like Java packages: anything else could hide an identifier.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/');
    if !(1..=255).contains(&event_type.len())
        || !event_type.chars().all(plain)
        || scrub.finds_identifier(event_type)
    {
        return Err(TranslateError::IdentifyingType);
    }
    if lacks_media(&scrub, content) || has_no_file(event_type, content) {
        return Err(TranslateError::Malformed);
    }
    let mut remarks = Vec::new();
    let out = match calls::kind(event_type) {
        Some(kind) => calls::translate(&scrub, kind, fields)?,
        None => Some(message::translate(
            &scrub,
            fields,
            on_missing,
            &mut remarks,
        )?),
    };
    Ok(out.map(|out| (out, remarks)))
}

fn handling(event_type: &str) -> Handling {
    match event_type {
        "m.reaction" => Handling::Message(OnMissingTarget::Refuse(TranslateError::ReactionTarget)),
        "m.poll.response"
        | "org.matrix.msc3381.poll.response"
        | "org.matrix.msc3381.v2.poll.response"
        | "m.poll.end"
        | "org.matrix.msc3381.poll.end"
        | "org.matrix.msc3381.v2.poll.end" => {
            Handling::Message(OnMissingTarget::Refuse(TranslateError::PollTarget))
        }
        "m.beacon"
        | "m.beacon_info"
        | "org.matrix.msc3672.beacon"
        | "org.matrix.msc3672.beacon_info" => Handling::Refused(TranslateError::LiveLocation),
        kind if is_matrix_rtc(kind) => Handling::Refused(TranslateError::MatrixRtc),
        "m.key.verification.request" => Handling::Refused(TranslateError::Verification),
        // What follows on a request, which is declined.
        kind if kind.starts_with("m.key.verification.") => Handling::Silent,
        kind if is_unseen(kind) => Handling::Silent,
        _ => Handling::Message(OnMissingTarget::Remark),
    }
}

/// Checks a translated content and finds the media to upload again.
pub(super) fn finish(
    event_type: &str,
    content: Map<String, Value>,
    mut remarks: Vec<SenderRemark>,
    context: &Context<'_>,
) -> Result<Translated, TranslateError> {
    let mut content = Value::Object(content);
    if length(&content) > CONTENT_BYTES_MAX {
        if !without_formatting(&mut content) || length(&content) > CONTENT_BYTES_MAX {
            return Err(TranslateError::TooLong);
        }
        remarks.push(SenderRemark::WithoutFormatting);
    }
    FinalCheck::of(context).redact(&mut content);
    let mut media_to_reupload = media_in(&content);
    media_to_reupload.retain(|it| !context.is_local_media(&it.uri));
    let needed = media_to_reupload.iter();
    let needed = needed.filter(|media| media.used_as == MediaUse::Message);
    let (needed, surplus) = (needed.count(), media_to_reupload.iter().skip(REUPLOADS_MAX));
    // What is taken out of a list would move what is behind it, which has its place by its number.
    if needed > REUPLOADS_MAX || surplus.clone().any(MediaToReupload::is_in_list) {
        return Err(TranslateError::TooManyFiles);
    }
    for extra in surplus {
        remove_media(&mut content, extra);
    }
    media_to_reupload.truncate(REUPLOADS_MAX);
    remarks.sort_unstable();
    remarks.dedup();
    Ok(Translated {
        event_type: event_type.to_owned(),
        content,
        media_to_reupload,
        remarks,
    })
}

fn length(content: &Value) -> usize {
    serde_json::to_vec(content).map_or(usize::MAX, |json| json.len())
}

fn fits(value: &Value, depth: usize) -> bool {
    match (value, depth.checked_sub(1)) {
        (Value::Array(_) | Value::Object(_), None) => false,
        (Value::Array(values), Some(depth)) => values.iter().all(|value| fits(value, depth)),
        (Value::Object(fields), Some(depth)) => fields.values().all(|value| fits(value, depth)),
        _ => true,
    }
}

/// Removes HTML. Returns whether there was any.
fn without_formatting(content: &mut Value) -> bool {
    let Some(fields) = content.as_object_mut() else {
        return false;
    };
    let before = fields.len();
    fields.retain(|key, _| !is_html(key) && key != "format");
    let new = fields
        .get_mut("m.new_content")
        .is_some_and(without_formatting);
    new || before != content.as_object().map_or(0, Map::len)
}
