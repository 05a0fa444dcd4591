//! What clients send by mistake or to deceive.

use serde_json::{Value, json};

use super::{to_sam, translated};
use crate::relay::{
    SenderRemark, TranslateError,
    oracle::{field_names, strings},
};

#[test]
fn nothing_that_turns_a_text_comes_out() {
    for turn in ["\u{202a}", "\u{202e}", "\u{2066}", "\u{2069}"] {
        let text = format!("to {turn}cod.exe");
        let content = json!({
            "msgtype": "m.file", "body": text, "filename": text, "url": "mxc://far.example/x",
            "formatted_body": format!("<b>{text}</b><span data-mx-spoiler=\"{text}\">&#x202e;x</span>"),
            "org.example.note": text, text.clone(): 1,
            "m.new_content": { "msgtype": "m.text", "body": text, "m.text": [{ "body": text }] },
            "m.relates_to": { "rel_type": "m.replace", "event_id": "$one" },
        });
        let out = translated("m.room.message", content);
        let mut all = field_names(&out);
        strings(&out, &mut all);
        let turns = |text: &&String| text.contains(crate::text::turns_text);
        assert_eq!(all.iter().find(turns), None, "{out}");
        assert_eq!(out["m.new_content"]["body"], "to cod.exe");
        assert_eq!(out["filename"], "to cod.exe");
    }
    // What says of which direction it is, and the joiners of a script, are words like others.
    let words = json!({ "msgtype": "m.text", "body": "\u{200f}שלום\u{200e} علی\u{200c}رضا" });
    assert_eq!(translated("m.room.message", words.clone()), words);
}

#[test]
fn a_name_that_only_the_html_marks_as_one_goes_from_the_body_too() {
    let html = "<strong data-mx-profile-fallback>Alice Harbour: </strong>hello";
    let text = json!({ "msgtype": "m.text", "body": "Alice Harbour: hello",
        "formatted_body": html });
    let out = translated("m.room.message", text.clone());
    assert_eq!(out["body"], "hello");
    assert_eq!(out["formatted_body"], "hello");
    let edit = json!({ "msgtype": "m.text", "body": "* Alice Harbour: hello", "m.new_content": text,
        "m.relates_to": { "rel_type": "m.replace", "event_id": "$one" } });
    let out = translated("m.room.message", edit);
    assert_eq!(out["body"], "* hello");
    assert_eq!(out["m.new_content"]["body"], "hello");
    let own = json!({ "msgtype": "m.text", "body": "Alice Harbour: hello",
        "formatted_body": "<strong>Alice Harbour: </strong>hello" });
    assert_eq!(translated("m.room.message", own.clone()), own);
}

/// Returns what the sender of a text with this relation is told.
fn told(relation: &Value) -> Vec<SenderRemark> {
    let content = json!({ "msgtype": "m.text", "body": "x", "m.relates_to": relation });
    to_sam("m.room.message", &content).unwrap().unwrap().remarks
}

#[test]
fn a_broken_relation_is_told_of_and_one_that_says_nothing_is_not() {
    use SenderRemark::{WithoutReference, WithoutReply};
    for (relation, expected) in [
        (json!({ "m.in_reply_to": { "event_id": 7 } }), WithoutReply),
        (json!({ "m.in_reply_to": "$one" }), WithoutReply),
        (json!({ "m.in_reply_to": [] }), WithoutReply),
        (
            json!({ "rel_type": 3, "event_id": "$one" }),
            WithoutReference,
        ),
        (
            json!({ "rel_type": null, "event_id": "$one" }),
            WithoutReference,
        ),
        (json!({ "event_id": "$one" }), WithoutReference),
        (json!("$one"), WithoutReference),
        (json!([]), WithoutReference),
    ] {
        assert_eq!(told(&relation), [expected], "{relation}");
    }
    for relation in [
        json!(null),
        json!({}),
        json!({ "m.in_reply_to": null }),
        json!({ "m.in_reply_to": {} }),
        json!({ "m.in_reply_to": { "event_id": null } }),
        json!({ "rel_type": null, "event_id": null, "m.in_reply_to": { "event_id": "$one" } }),
    ] {
        assert!(told(&relation).is_empty(), "{relation}");
    }
}

#[test]
fn a_file_without_a_file_is_refused() {
    for content in [
        json!({ "msgtype": "m.image", "body": "lock.jpg" }),
        json!({ "msgtype": "m.image", "body": "lock.jpg", "url": null }),
        json!({ "msgtype": "m.video", "body": "x", "file": "mxc://far.example/x" }),
        json!({ "msgtype": "m.file", "body": "x", "url": "mxc://far.example/x",
            "m.new_content": { "msgtype": "m.file", "body": "x" },
            "m.relates_to": { "rel_type": "m.replace", "event_id": "$one" } }),
    ] {
        let out = to_sam("m.room.message", &content);
        assert_eq!(out, Err(TranslateError::Malformed), "{content}");
    }
    let duck = json!({ "body": "duck" });
    assert_eq!(to_sam("m.sticker", &duck), Err(TranslateError::Malformed));
    let text = json!({ "msgtype": "m.text", "body": "x" });
    assert!(to_sam("m.room.message", &text).is_ok());
}
