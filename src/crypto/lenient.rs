//! Payloads that browsers read and our JSON parser refuses.
//!
//! A client that cuts a text at a fixed length can leave half an emoji: an escape such as `\ud83d`
//! without its second half. JavaScript writes and reads that; the library's parser refuses the whole
//! payload. So such a payload is decrypted a second time here, and read with a replacement character
//! in that place.

use std::{borrow::Cow, fmt::Write as _};

use matrix_sdk_common::deserialized_responses::{VerificationLevel, VerificationState};
use matrix_sdk_crypto::{
    MegolmError,
    store::CryptoStore,
    types::events::room::encrypted::{EncryptedEvent, RoomEventEncryptionScheme},
    vodozemac::megolm::InboundGroupSession,
};
use ruma::{RoomId, serde::Raw};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{DecryptError, slot::InUse};

/// A decrypted payload.
#[derive(Deserialize)]
pub(super) struct Plain {
    #[serde(rename = "type")]
    pub(super) event_type: String,
    pub(super) content: Box<RawValue>,
}

const NO_EVENT: DecryptError = DecryptError::Malformed("what is inside is not an event");

/// Decrypts an event whose payload the library cannot parse. The library stops before it checks the
/// sending device, the room and the relation, so this does what is left of that.
pub(super) async fn decrypt_leniently(
    ghost: &InUse,
    room: &RoomId,
    event: &Raw<EncryptedEvent>,
) -> Result<Result<Plain, MegolmError>, DecryptError> {
    let info = ghost.machine.get_room_event_encryption_info(event, room);
    match info.await {
        Ok(info) => match &info.verification_state {
            VerificationState::Verified
            | VerificationState::Unverified(VerificationLevel::UnverifiedIdentity) => {}
            VerificationState::Unverified(level) => {
                return Ok(Err(MegolmError::SenderIdentityNotTrusted(level.clone())));
            }
        },
        Err(error) => return Ok(Err(error)),
    }
    let Ok(event) = event.deserialize() else {
        return Err(NO_EVENT);
    };
    let RoomEventEncryptionScheme::MegolmV1AesSha2(encrypted) = &event.content.scheme else {
        return Err(NO_EVENT);
    };
    let session_id = &encrypted.session_id;
    let session = ghost.store.get_inbound_group_session(room, session_id);
    let Some(session) = session.await? else {
        return Ok(Err(MegolmError::MissingRoomKey(None)));
    };
    // A copy: nothing in the store changes.
    let mut session = InboundGroupSession::from_pickle(session.pickle().await.pickle);
    let payload = match session.decrypt(&encrypted.ciphertext) {
        Ok(decrypted) => decrypted.plaintext,
        Err(error) => return Ok(Err(error.into())),
    };
    let payload = String::from_utf8_lossy(&payload);
    read_payload(&payload, room, event.content.relates_to.as_ref()).map(Ok)
}

/// Reads a payload that belongs into this room. Its relation may stand in the clear part of the
/// event.
fn read_payload(
    payload: &str,
    room: &RoomId,
    relates_to: Option<&Value>,
) -> Result<Plain, DecryptError> {
    let mut payload = parse_leniently(payload)?;
    if payload["room_id"] != room.as_str() {
        return Err(DecryptError::Malformed("it was made for another room"));
    }
    let Some(event_type) = payload["type"].as_str().map(str::to_owned) else {
        return Err(NO_EVENT);
    };
    let Some(content) = payload["content"].as_object_mut() else {
        return Err(NO_EVENT);
    };
    if let Some(relates_to) = relates_to {
        let relation = content.entry("m.relates_to");
        relation.or_insert_with(|| relates_to.clone());
    }
    let content = serde_json::value::to_raw_value(content).map_err(|_| NO_EVENT)?;
    Ok(Plain {
        event_type,
        content,
    })
}

/// Parses JSON that may hold half an emoji. JSON that is valid and still beyond our parser, because
/// it nests too deeply or has too large a number, is [`DecryptError::NotUnderstood`].
pub(crate) fn parse_leniently(json: &str) -> Result<Value, DecryptError> {
    let json = replace_lone_surrogates(json);
    serde_json::from_str(&json).map_err(|_| {
        let is_json = serde_json::from_str::<&RawValue>(&json).is_ok();
        if is_json {
            DecryptError::NotUnderstood
        } else {
            NO_EVENT
        }
    })
}

/// Replaces each escape of half a character by that of the replacement character.
fn replace_lone_surrogates(json: &str) -> Cow<'_, str> {
    let mut replaced = String::new();
    let (mut rest, mut copied) = (json, 0);
    // Outside of a string no backslash is valid, so it need not be known what is one.
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at..];
        let position = json.len() - escape.len();
        let taken = match code_unit(escape) {
            Some(0xD800..=0xDBFF)
                if matches!(escape.get(6..).and_then(code_unit), Some(0xDC00..=0xDFFF)) =>
            {
                12
            }
            Some(0xD800..=0xDFFF) => {
                let _never_fails = write!(replaced, "{}\\ufffd", &json[copied..position]);
                copied = position + 6;
                6
            }
            Some(_) => 6,
            // The character behind the backslash may be another backslash.
            None => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        rest = &escape[taken..];
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    replaced.push_str(&json[copied..]);
    Cow::Owned(replaced)
}

/// Returns the code unit of the escape `\uXXXX` at the beginning of a text.
fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let are_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    are_hex
        .then(|| u16::from_str_radix(digits, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::room_id;
    use serde_json::json;

    use super::*;

    #[test]
    fn half_an_emoji_is_replaced_and_a_whole_one_kept() {
        for (json, read) in [
            (r#""half \ud83d""#, "half \u{fffd}"),
            (r#""\ude00 the other half""#, "\u{fffd} the other half"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\uD83D\uDE00 \u00fc \\ud83d \"""#, "😀 ü \\ud83d \""),
            (r#""\ud83dé😀\ud83d""#, "\u{fffd}é😀\u{fffd}"),
        ] {
            assert_eq!(parse_leniently(json).unwrap(), json!(read), "{json}");
        }
    }

    #[test]
    fn what_is_json_and_beyond_us_is_not_called_forged() {
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        for json in [&*deep, r#"{"n": 1e400}"#] {
            assert!(matches!(
                parse_leniently(json),
                Err(DecryptError::NotUnderstood)
            ));
        }
        for no_json in ["", "{", r#""\"#, r#""\u12""#, r#""\ud83"#, r#"{"a":\}"#] {
            assert!(matches!(
                parse_leniently(no_json),
                Err(DecryptError::Malformed(_))
            ));
        }
    }

    #[test]
    fn a_payload_for_another_room_is_refused() {
        let payload = r#"{"type":"t","room_id":"!room:x","content":{"body":"\ud83d"}}"#;
        let room = room_id!("!room:x");
        let plain = read_payload(payload, room, Some(&json!({"event_id": "$e"}))).unwrap();
        let content: Value = serde_json::from_str(plain.content.get()).unwrap();
        let expected = json!({"body": "\u{fffd}", "m.relates_to": {"event_id": "$e"}});
        assert_eq!((&*plain.event_type, content), ("t", expected));
        let elsewhere = read_payload(payload, room_id!("!other:x"), None);
        assert!(matches!(elsewhere, Err(DecryptError::Malformed(_))));
        let without_content = r#"{"type":"t","room_id":"!room:x"}"#;
        let read = read_payload(without_content, room, None);
        assert!(matches!(read, Err(DecryptError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn valid_json_stays_as_it_is(text in any::<String>(), key in any::<String>()) {
            let json = json!({key: [text, 1]}).to_string();
            prop_assert_eq!(replace_lone_surrogates(&json), &*json);
        }

        #[test]
        fn any_text_is_taken(text in r#"(\\|u|d8|3d|e0|\\ud83d|\\ude00|"|é|😀|[a-f0-9]){0,40}"#) {
            let replaced = replace_lone_surrogates(&text);
            prop_assert_eq!(replace_lone_surrogates(&replaced), &*replaced);
        }
    }
}
