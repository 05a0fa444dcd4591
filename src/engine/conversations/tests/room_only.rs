//! What stays in its room, and is explained.

use super::*;
use crate::{
    conversation::EventKind,
    engine::{conversations::inputs::event_kind, event::RoomEvent},
};

#[test]
fn pinned_messages_and_widgets_are_noticed() {
    let state = |kind: &str, content: Value| {
        let mut event = EventFactory::room(&origin()).event(kind, "$state", content);
        event["state_key"] = json!(if kind.ends_with("events") { "" } else { "id" });
        event_kind(&RoomEvent::parse(&event.to_string(), None).unwrap())
    };
    let jitsi = json!({"type": "jitsi", "url": "https://meet.example/x"});
    let pad = json!({"type": "m.etherpad", "url": "https://pad.example/x"});
    for (kind, content, expected) in [
        (
            "m.room.pinned_events",
            json!({"pinned": ["$one"]}),
            Some(EventKind::RoomOnly),
        ),
        ("m.room.pinned_events", json!({"pinned": []}), None),
        ("m.room.pinned_events", json!({"pinned": "$one"}), None),
        (
            "im.vector.modular.widgets",
            jitsi.clone(),
            Some(EventKind::MatrixRtc),
        ),
        ("m.widget", pad, Some(EventKind::RoomOnly)),
        ("im.vector.modular.widgets", json!({}), None),
        ("io.element.widgets.layout", jitsi, None),
    ] {
        assert_eq!(state(kind, content.clone()), expected, "{kind} {content}");
    }
}
