//! Event types that more than one part of the service has to know.

use ruma::OwnedUserId;
use serde_json::Value;

/// Returns whether events of this type belong to a MatrixRTC call (MSC4143). Such a call lives in
/// one room and is nothing without the members of that room.
pub fn is_matrix_rtc(event_type: &str) -> bool {
    matches!(
        event_type,
        "m.call.member" | "m.call.notify" | "org.matrix.msc4075.call.notify"
    ) || event_type.starts_with("org.matrix.msc3401.call")
        || without_namespace(event_type).is_some_and(|name| name.starts_with("rtc."))
}

/// Returns a type without the namespace of the specification or of a proposal:
/// `rtc.member` of `org.matrix.msc4143.rtc.member`.
pub fn without_namespace(event_type: &str) -> Option<&str> {
    if let Some(name) = event_type.strip_prefix("m.") {
        return Some(name);
    }
    let (proposal, name) = event_type.strip_prefix("org.matrix.msc")?.split_once('.')?;
    proposal.bytes().all(|b| b.is_ascii_digit()).then_some(name)
}

/// Returns whether events of this type only go on with a call that another event has begun.
pub fn continues_call(event_type: &str) -> bool {
    if is_matrix_rtc(event_type) {
        let rings = ["notification", "call.notify"];
        return !rings.iter().any(|name| event_type.ends_with(name));
    }
    let mut namespaces = ["m.call.", "org.matrix.call."].into_iter();
    let kind = namespaces.find_map(|namespace| event_type.strip_prefix(namespace));
    kind.is_some_and(|kind| kind != "invite")
}

/// Returns whether events of this type are no messages: keys and settings, which some clients send
/// into a room by mistake, and what stands beside the messages of a room.
pub fn is_unseen(event_type: &str) -> bool {
    const KEYS: [&str; 6] = [
        "m.room_key",
        "m.forwarded_room_key",
        "m.secret.",
        "org.matrix.room_key",
        "io.element.msc4268.room_key",
        "io.element.call.",
    ];
    KEYS.iter().any(|prefix| event_type.starts_with(prefix))
        || matches!(
            event_type,
            "m.dummy"
                | "m.call.encryption_keys"
                | "m.room.encrypted"
                | "m.room.redaction"
                | "m.room.member"
                | "m.typing"
                | "m.receipt"
                | "m.presence"
                | "m.direct"
                | "m.fully_read"
                | "m.ignored_user_list"
                | "m.push_rules"
                | "m.tag"
        )
}

/// Returns whether a message, or the new text of an edit, is part of the verification of keys.
pub fn is_verification(event_type: &str, content: &Value) -> bool {
    const VERIFICATION: &str = "m.key.verification.";
    let has_kind = |content: &Value| {
        let kind = content["msgtype"].as_str();
        kind.is_some_and(|kind| kind.starts_with(VERIFICATION))
    };
    event_type.starts_with(VERIFICATION) || has_kind(content) || has_kind(&content["m.new_content"])
}

/// Returns whether an event asks to verify the keys of a user.
pub fn is_verification_request(event_type: &str, content: &Value) -> bool {
    const REQUEST: &str = "m.key.verification.request";
    event_type == REQUEST || event_type == "m.room.message" && content["msgtype"] == REQUEST
}

/// Returns the user whose keys a request asks to verify.
pub fn verified_user(content: &Value) -> Option<OwnedUserId> {
    OwnedUserId::try_from(content["to"].as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_of_one_room_are_known_by_any_name() {
        for name in [
            "m.call.member",
            "m.call.notify",
            "m.rtc.member",
            "m.rtc.something_new",
            "org.matrix.msc3401.call",
            "org.matrix.msc3401.call.member",
            "org.matrix.msc4075.call.notify",
            "org.matrix.msc4075.rtc.notification",
            "org.matrix.msc4310.rtc.decline",
            "org.matrix.msc9999.rtc.new",
        ] {
            assert!(is_matrix_rtc(name), "{name}");
        }
        for name in ["m.call.invite", "m.rtc", "org.matrix.mscx.rtc.new", "rtc.x"] {
            assert!(!is_matrix_rtc(name), "{name}");
        }
    }

    #[test]
    fn of_a_call_only_its_beginning_is_answered() {
        for begins in [
            "m.call.invite",
            "org.matrix.call.invite",
            "m.call.notify",
            "m.rtc.notification",
            "m.room.message",
        ] {
            assert!(!continues_call(begins), "{begins}");
        }
        for goes_on in [
            "m.call.candidates",
            "m.call.hangup",
            "org.matrix.call.asserted_identity",
            "org.matrix.msc4143.rtc.member",
            "m.rtc.decline",
        ] {
            assert!(continues_call(goes_on), "{goes_on}");
        }
    }

    #[test]
    fn what_clients_exchange_is_not_seen() {
        for name in [
            "m.dummy",
            "m.room_key",
            "m.room_key.withheld",
            "m.room_key_bundle",
            "m.room_key_request",
            "io.element.msc4268.room_key_bundle",
            "m.secret.send",
            "m.call.encryption_keys",
            "io.element.call.reaction",
        ] {
            assert!(is_unseen(name), "{name}");
        }
        for name in ["m.room.message", "m.reaction", "m.room.name", "m.secretary"] {
            assert!(!is_unseen(name), "{name}");
        }
    }

    #[test]
    fn verification_is_known_by_the_type_or_the_message() {
        let message = |kind: &str| json!({ "msgtype": kind, "body": "x" });
        let edit = json!({ "m.new_content": message("m.key.verification.request") });
        assert!(is_verification("m.key.verification.mac", &json!({})));
        assert!(is_verification(
            "m.room.message",
            &message("m.key.verification.start")
        ));
        assert!(is_verification("m.room.message", &edit));
        assert!(!is_verification("m.room.message", &message("m.text")));
    }
}
