//! Contents as clients really send them, one of each kind: what needs no change passes unchanged,
//! and [`super::altered`] makes odd ones of them.

use serde_json::{Value, json};

use super::{SAM, SAMUEL, translated};

fn file(name: &str) -> Value {
    json!({
        "v": "v2", "url": format!("mxc://far.example/{name}"), "iv": "kxPFMa0WQ1cAAAAAAAAAAA",
        "hashes": { "sha256": "fdSLu/YkRx3Wyh3KQabP3rd6+SFiKg5lsJZQHtkSAYA" },
        "key": { "alg": "A256CTR", "ext": true, "k": "aWF6-32KGYaC3A_FEUCk1Bt0JA37zP0wrStgmdCaW-0",
                 "key_ops": ["encrypt", "decrypt"], "kty": "oct" },
    })
}

fn pill() -> String {
    format!("<a href=\"https://matrix.to/#/{SAM}\">@sam</a>")
}

/// Messages, as matrix-js-sdk (Element Web), matrix-rust-sdk (Element X) and others make them.
pub(super) fn messages() -> Vec<(&'static str, Value)> {
    let message = "m.room.message";
    let reply = json!({ "m.in_reply_to": { "event_id": "$one" } });
    vec![
        (
            message,
            json!({ "msgtype": "m.text", "body": "the heron stands", "m.mentions": {} }),
        ),
        (
            message,
            json!({ "msgtype": "m.notice", "body": "a notice", "format": "org.matrix.custom.html",
            "formatted_body": "<p>a <em>notice</em></p>" }),
        ),
        (
            message,
            json!({ "msgtype": "m.emote", "body": "waves", "m.mentions": {} }),
        ),
        (
            message,
            json!({ "msgtype": "m.text", "body": "@sam: look", "format": "org.matrix.custom.html",
            "formatted_body": format!("{}: look", pill()), "m.mentions": { "user_ids": [SAM] } }),
        ),
        (
            message,
            json!({ "msgtype": "m.text", "body": "@room tea", "m.mentions": { "room": true } }),
        ),
        (
            message,
            json!({ "msgtype": "m.text", "body": "so it is", "m.mentions": { "user_ids": [SAM] },
            "m.relates_to": reply }),
        ),
        (
            message,
            json!({ "msgtype": "m.text", "body": "in a thread", "m.mentions": {}, "m.relates_to": {
            "rel_type": "m.thread", "event_id": "$one", "is_falling_back": true,
            "m.in_reply_to": { "event_id": "$two" } } }),
        ),
        (
            message,
            json!({ "msgtype": "m.text", "body": "* better", "m.mentions": {},
            "m.new_content": { "msgtype": "m.text", "body": "better", "m.mentions": {} },
            "m.relates_to": { "rel_type": "m.replace", "event_id": "$two" } }),
        ),
        (
            message,
            json!({ "msgtype": "m.image", "filename": "lock.jpg", "body": "the **lock**",
            "format": "org.matrix.custom.html", "formatted_body": "the <strong>lock</strong>",
            "file": file("lock"), "info": { "w": 800, "h": 600, "size": 91_234, "mimetype": "image/jpeg",
                "xyz.amorgan.blurhash": "LEHV6nWB2yk8pyo0adR*.7kCMdnj", "thumbnail_file": file("small"),
                "thumbnail_info": { "w": 80, "h": 60, "size": 912, "mimetype": "image/jpeg" },
                "is_animated": false }, "m.mentions": {}, "m.relates_to": reply }),
        ),
        (
            message,
            json!({ "msgtype": "m.video", "body": "swans.mp4", "file": file("swans"),
            "info": { "duration": 12_000, "w": 1280, "h": 720, "size": 4_000_000, "mimetype": "video/mp4",
                "thumbnail_url": "mxc://far.example/still" } }),
        ),
        (
            message,
            json!({ "msgtype": "m.file", "body": "a.pdf", "filename": "a.pdf", "url": "mxc://far.example/pdf",
            "info": { "size": 7, "mimetype": "application/pdf" } }),
        ),
        // A voice message of Element, under the unstable names.
        (
            message,
            json!({ "msgtype": "m.audio", "body": "Voice message", "file": file("voice"),
            "info": { "duration": 3000, "mimetype": "audio/ogg", "size": 12_000 },
            "org.matrix.msc1767.text": "Voice message",
            "org.matrix.msc1767.file": { "url": "mxc://far.example/voice", "file": file("voice"),
                "name": "Voice message.ogg", "mimetype": "audio/ogg", "size": 12_000 },
            "org.matrix.msc1767.audio": { "duration": 3000, "waveform": [0, 512, 1024] },
            "org.matrix.msc3245.voice": {}, "org.matrix.msc3245.voice.v2": { "duration": 3000 } }),
        ),
        // The same under the stable ones.
        (
            "m.voice",
            json!({ "m.text": [{ "body": "Voice message" }],
            "m.file": { "url": "mxc://far.example/voice", "mimetype": "audio/ogg", "name": "voice.ogg", "size": 9 },
            "m.audio_details": { "duration": 3, "waveform": [0, 512, 1024] }, "m.voice": {} }),
        ),
        (
            "m.sticker",
            json!({ "body": "duck", "url": "mxc://far.example/duck",
            "info": { "w": 256, "h": 256, "mimetype": "image/png" } }),
        ),
        (
            message,
            json!({ "msgtype": "m.location", "body": "Location was shared at geo:51.5,-0.1",
            "geo_uri": "geo:51.5,-0.1;u=35", "org.matrix.msc1767.text": "Location was shared at geo:51.5,-0.1",
            "org.matrix.msc3488.asset": { "type": "m.pin" }, "org.matrix.msc3488.ts": 1_690_000_000_000_u64,
            "org.matrix.msc3488.location": { "uri": "geo:51.5,-0.1;u=35", "description": "the lock" } }),
        ),
        (
            message,
            json!({ "msgtype": "org.example.new", "body": "who knows", "number": 7 }),
        ),
        (
            "m.reaction",
            json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": "$one", "key": "👍️" } }),
        ),
        (
            "m.reaction",
            json!({ "shortcode": ":duck:", "m.relates_to": {
            "rel_type": "m.annotation", "event_id": "$one", "key": "mxc://far.example/duck" } }),
        ),
        (
            "org.matrix.msc3381.poll.start",
            json!({ "org.matrix.msc1767.text": "Tea?\n1. yes\n2. no",
            "org.matrix.msc3381.poll.start": { "kind": "org.matrix.msc3381.poll.undisclosed", "max_selections": 1,
                "question": { "org.matrix.msc1767.text": "Tea?", "body": "Tea?", "msgtype": "m.text" },
                "answers": [{ "id": "a1", "org.matrix.msc1767.text": "yes" }] } }),
        ),
        (
            "m.poll.start",
            json!({ "m.text": [{ "body": "Tea?" }, { "body": "<b>Tea?</b>", "mimetype": "text/html" }],
            "m.poll": { "kind": "m.disclosed", "max_selections": 1, "question": { "m.text": [{ "body": "Tea?" }] },
                "answers": [{ "m.id": "a1", "m.text": [{ "body": "yes" }] }] } }),
        ),
        (
            "org.matrix.msc3381.poll.response",
            json!({ "body": "a vote", "org.matrix.msc3381.poll.response": { "answers": ["a1"] },
            "m.relates_to": { "rel_type": "m.reference", "event_id": "$poll" } }),
        ),
        (
            "m.poll.response",
            json!({ "m.selections": ["a1"],
            "m.relates_to": { "rel_type": "m.reference", "event_id": "$poll" } }),
        ),
        (
            "org.matrix.msc3381.poll.end",
            json!({ "org.matrix.msc1767.text": "Ended. Top answer: yes", "body": "Ended",
            "org.matrix.msc3381.poll.end": {}, "m.relates_to": { "rel_type": "m.reference", "event_id": "$poll" } }),
        ),
        (
            "m.poll.end",
            json!({ "m.text": [{ "body": "Ended" }], "m.poll.results": { "a1": 2 },
            "m.relates_to": { "rel_type": "m.reference", "event_id": "$poll" } }),
        ),
        (
            "org.example.unknown",
            json!({ "value": [1, "two", { "three": null }, true] }),
        ),
    ]
}

const SDP: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\n";

/// Events of a call, as matrix-js-sdk makes them.
pub(super) fn calls() -> Vec<(&'static str, Value)> {
    let with = |own: Value| {
        let mut all =
            json!({ "call_id": "1700000000000abcdef", "party_id": "ALICESDEVICE", "version": "1" });
        if let (Value::Object(all), Value::Object(own)) = (&mut all, own) {
            all.extend(own);
        }
        all
    };
    let streams = json!({ "stream-1": { "purpose": "m.usermedia", "audio_muted": false, "video_muted": true } });
    vec![
        (
            "m.call.invite",
            with(json!({ "lifetime": 60_000, "invitee": SAM,
            "capabilities": { "m.call.transferee": true, "m.call.dtmf": false },
            "offer": { "type": "offer", "sdp": SDP }, "org.matrix.msc3077.sdp_stream_metadata": streams })),
        ),
        (
            "m.call.answer",
            with(
                json!({ "answer": { "type": "answer", "sdp": SDP }, "sdp_stream_metadata": streams }),
            ),
        ),
        (
            "m.call.candidates",
            with(json!({ "candidates": [
            { "candidate": "candidate:9 1 udp 1 198.51.100.9 5 typ relay raddr 10.0.0.1 rport 7 generation 0",
              "sdpMid": "0", "sdpMLineIndex": 0 }, { "candidate": "" }] })),
        ),
        (
            "m.call.select_answer",
            with(json!({ "selected_party_id": "SAMSDEVICE" })),
        ),
        (
            "m.call.negotiate",
            with(json!({ "lifetime": 60_000, "description": { "type": "offer", "sdp": SDP } })),
        ),
        ("m.call.hangup", with(json!({ "reason": "user_hangup" }))),
        ("m.call.reject", with(json!({}))),
        (
            "org.matrix.call.sdp_stream_metadata_changed",
            with(json!({ "sdp_stream_metadata": streams })),
        ),
        (
            "m.call.replaces",
            with(json!({ "target_user": { "id": SAM }, "create_call": "x" })),
        ),
        (
            "org.matrix.call.asserted_identity",
            with(json!({ "asserted_identity": { "id": SAM } })),
        ),
        ("m.call.hangup", json!({ "call_id": "c0", "version": 0 })),
    ]
}

#[test]
fn what_names_nobody_passes_unchanged_but_for_who_and_which_event() {
    for (kind, content) in messages() {
        let mut expected = content.to_string().replace(SAM, SAMUEL);
        for (source, target) in [("$one", "$eins"), ("$two", "$zwei"), ("$poll", "$umfrage")] {
            expected = expected.replace(source, target);
        }
        let expected: Value = serde_json::from_str(&expected).unwrap();
        assert_eq!(translated(kind, content), expected, "{kind}");
    }
}
