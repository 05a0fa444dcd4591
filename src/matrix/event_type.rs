//! Event types that more than one part of the service has to know.

/// Returns whether events of this type belong to a MatrixRTC call (MSC4143). Such a call lives in
/// one room and is nothing without the members of that room.
pub fn is_matrix_rtc(event_type: &str) -> bool {
    matches!(
        event_type,
        "m.call.member"
            | "org.matrix.msc3401.call.member"
            | "org.matrix.msc3401.call"
            | "m.call.notify"
            | "org.matrix.msc4075.call.notify"
            | "m.rtc.notification"
            | "org.matrix.msc4075.rtc.notification"
            | "m.rtc.decline"
            | "org.matrix.msc4310.rtc.decline"
            | "m.rtc.member"
            | "org.matrix.msc4143.rtc.member"
    )
}
