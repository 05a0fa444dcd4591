use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ALICE, Direction, GHOST, SAM, SAMUEL, to_sam, with_context};
use crate::relay::{Context, TranslateError, ages, has_relay, translate};

/// As Chrome writes it, shortened.
const OFFER: &str = "v=0\r\no=alice 4611731400430051336 2 IN IP4 192.168.1.20\r\ns=alice's call\r\n\
t=0 0\r\na=group:BUNDLE 0\r\na=msid-semantic: WMS stream\r\nm=audio 54321 UDP/TLS/RTP/SAVPF 111\r\n\
c=IN IP4 203.0.113.7\r\na=rtcp:54322 IN IP4 203.0.113.7\r\n\
a=candidate:1 1 udp 2122260223 192.168.1.20 54321 typ host generation 0\r\n\
a=candidate:2 1 udp 2122260223 3f8a-11.local 54321 typ host\r\n\
a=candidate:3 1 udp 1686052607 203.0.113.7 54321 typ srflx raddr 192.168.1.20 rport 54321\r\n\
a=candidate:4 1 udp 41885439 198.51.100.9 60000 typ relay raddr 203.0.113.7 rport 54321 generation 0 ufrag EEtu network-id 3\r\n\
a=ice-ufrag:EEtu\r\na=ice-pwd:secretsecretsecretsecret\r\na=fingerprint:sha-256 AA:BB:CC\r\n\
a=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=rtpmap:111 opus/48000/2\r\na=ssrc:1 cname:random\r\n";

/// What Chrome offers for sound and picture, with fewer codecs.
const CHROME: &[&str] = &[
    "v=0",
    "o=- 6823446034391042951 2 IN IP4 127.0.0.1",
    "s=-",
    "t=0 0",
    "a=group:BUNDLE 0 1",
    "a=extmap-allow-mixed",
    "a=msid-semantic: WMS 0c8d41a9-4f0e-4b8e-9d0d-5b7b4f3a1c55",
    "m=audio 60003 UDP/TLS/RTP/SAVPF 111 63 0",
    "c=IN IP4 198.51.100.9",
    "a=rtcp:9 IN IP4 0.0.0.0",
    "a=candidate:1467250027 1 udp 2122260223 192.168.1.20 46243 typ host generation 0 network-id 1 network-cost 10",
    "a=candidate:435653019 1 tcp 1518280447 2001:db8:5::17 9 typ host tcptype active generation 0 network-id 2",
    "a=candidate:842163049 1 udp 1686052607 203.0.113.7 46243 typ srflx raddr 192.168.1.20 rport 46243 generation 0",
    "a=candidate:3 1 udp 41885439 198.51.100.9 60003 typ relay raddr 203.0.113.7 rport 46243 generation 0",
    "a=ice-ufrag:h+Zf",
    "a=ice-pwd:aBcDeF0123456789+/aBcDeF",
    "a=ice-options:trickle",
    "a=fingerprint:sha-256 3B:56:0A:11:D2:9F:7C:E8:01:44:AA:BC:90:1D:FE:02:3B:56:0A:11:D2:9F:7C:E8:01:44:AA:BC:90:1D:FE:02",
    "a=setup:actpass",
    "a=mid:0",
    "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "a=sendrecv",
    "a=msid:0c8d41a9-4f0e-4b8e-9d0d-5b7b4f3a1c55 7a5c6f5e-8a40-4a57-a1c4-6f6b5a7f0d9b",
    "a=rtcp-mux",
    "a=rtcp-rsize",
    "a=rtpmap:111 opus/48000/2",
    "a=rtcp-fb:111 transport-cc",
    "a=fmtp:111 minptime=10;useinbandfec=1",
    "a=rtpmap:63 red/48000/2",
    "a=fmtp:63 111/111",
    "a=ssrc:2405060471 cname:4Rq5AAk3Zb0lX8Gn",
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
    "c=IN IP4 0.0.0.0",
    "a=rtcp:46244 IN IP4 192.168.1.20",
    "a=mid:1",
    "a=extmap:14 urn:ietf:params:rtp-hdrext:toffset",
    "a=rtpmap:96 VP8/90000",
    "a=rtcp-fb:96 goog-remb",
    "a=rtcp-fb:96 ccm fir",
    "a=rtpmap:97 rtx/90000",
    "a=fmtp:97 apt=96",
    "a=ssrc-group:FID 2231627014 632943048",
];

fn invite() -> Value {
    json!({
        "call_id": "c1", "party_id": "ALICESDEVICE", "version": "1", "lifetime": 60000,
        "invitee": SAM, "offer": { "type": "offer", "sdp": OFFER },
        "capabilities": { "m.call.transferee": true, "m.call.dtmf": false },
        "sdp_stream_metadata": { "stream": { "purpose": "m.usermedia", "user_id": ALICE, "audio_muted": false } },
        "io.element.device": ALICE,
    })
}

fn translated_to(direction: Direction, kind: &str, content: &Value) -> Value {
    with_context(direction, true, |context| {
        translate(kind, content, context).unwrap().unwrap().content
    })
}

#[test]
fn a_whole_call_is_understood_on_both_sides_and_names_nobodys_device() {
    let shown = translated_to(Direction::ToSam, "m.call.invite", &invite());
    let alices = shown["party_id"].as_str().unwrap().to_owned();
    assert_ne!(alices, "ALICESDEVICE");
    assert_eq!(shown["invitee"], SAMUEL);
    assert_eq!(shown["version"], "1");
    assert_eq!(shown["lifetime"], 60000);
    assert!(shown.get("io.element.device").is_none());
    assert!(!shown.to_string().contains("alice"), "{shown}");

    let answer = json!({ "call_id": "c1", "party_id": "SAMSDEVICE", "version": "1",
                         "answer": { "type": "answer", "sdp": "v=0\r\n" } });
    let answer = translated_to(Direction::ToAlice, "m.call.answer", &answer);
    let sams = answer["party_id"].as_str().unwrap().to_owned();
    assert_ne!(sams, "SAMSDEVICE");

    // Alice says which answer she takes, as it was shown to her: Sam's client finds its own.
    let select = json!({ "call_id": "c1", "party_id": "ALICESDEVICE", "version": "1",
                         "selected_party_id": sams });
    let select = translated_to(Direction::ToSam, "m.call.select_answer", &select);
    assert_eq!(select["selected_party_id"], "SAMSDEVICE");
    assert_eq!(select["party_id"], alices.as_str());
    let relay = "candidate:1 1 udp 1 198.51.100.9 60000 typ relay raddr 192.168.1.20 rport 5";
    let batch = |party: &str| {
        json!({ "call_id": "c1", "party_id": party, "version": "1",
                                     "candidates": [{ "candidate": relay, "sdpMid": "0", "sdpMLineIndex": 0 }] })
    };
    for (direction, device, party) in [
        (Direction::ToSam, "ALICESDEVICE", &alices),
        (Direction::ToAlice, "SAMSDEVICE", &sams),
    ] {
        let shown = translated_to(direction, "m.call.candidates", &batch(device));
        assert_eq!(shown["party_id"], party.as_str());
        assert_eq!(shown["candidates"][0]["sdpMid"], "0");
        assert!(!shown.to_string().contains(device), "{shown}");
    }
    let hangup = json!({ "call_id": "c1", "party_id": "ALICESDEVICE", "version": "1", "reason": "user_hangup" });
    let hangup = translated_to(Direction::ToSam, "m.call.hangup", &hangup);
    assert_eq!(hangup["party_id"], alices.as_str());
    assert_eq!(hangup["reason"], "user_hangup");
}

#[test]
fn in_a_group_nobody_but_its_owner_learns_what_a_party_calls_itself() {
    let content = json!({ "call_id": "c1", "party_id": "SAMSDEVICE", "version": "1",
                          "answer": { "type": "answer", "sdp": "v=0\r\n" } });
    let shown = translated_to(Direction::ToAlice, "m.call.answer", &content);
    let shown = shown["party_id"].as_str().unwrap();
    // Alice takes Sam's answer. In the portal of somebody else both of them are ghosts.
    let select = json!({ "call_id": "c1", "party_id": "ALICESDEVICE", "version": "1", "selected_party_id": shown });
    let elsewhere = with_context(Direction::ToSam, true, |context| {
        let mut aliases = context.aliases.to_vec();
        aliases[1].target = aliases[1].source.clone();
        let context = Context {
            aliases: &aliases,
            ..context.clone()
        };
        translate("m.call.select_answer", &select, &context)
            .unwrap()
            .unwrap()
            .content
    });
    assert!(!elsewhere.to_string().contains("SAMSDEVICE"), "{elsewhere}");
    let home = translated_to(Direction::ToSam, "m.call.select_answer", &select);
    assert_eq!(home["selected_party_id"], "SAMSDEVICE");
    // Nor does it come out when somebody says that it is theirs.
    let stolen = json!({ "call_id": "c1", "party_id": shown, "version": "1" });
    let stolen = translated_to(Direction::ToSam, "m.call.hangup", &stolen);
    assert!(!stolen.to_string().contains("SAMSDEVICE"), "{stolen}");
}

#[test]
fn an_answer_of_a_party_with_a_long_name_is_found_again() {
    let device = "d".repeat(255);
    let answer = json!({ "call_id": "c1", "party_id": device, "version": "1",
                         "answer": { "type": "answer", "sdp": "v=0\r\n" } });
    let shown = translated_to(Direction::ToAlice, "m.call.answer", &answer)["party_id"].clone();
    let select =
        json!({ "call_id": "c1", "party_id": "a", "version": "1", "selected_party_id": shown });
    let select = translated_to(Direction::ToSam, "m.call.select_answer", &select);
    assert_eq!(select["selected_party_id"], device);
}

#[test]
fn the_first_calls_of_clients_have_a_number_for_a_version_and_no_party() {
    let content = json!({ "call_id": "c1", "version": 0, "reason": "user_hangup" });
    assert_eq!(
        translated_to(Direction::ToSam, "m.call.hangup", &content),
        content
    );
    let stream = json!({ "stream": { "purpose": "m.usermedia", "video_muted": true,
                                     "user_id": ALICE, "device_id": "ALICESDEVICE" } });
    let content = json!({ "call_id": "c1", "version": "1",
                          "org.matrix.msc3077.sdp_stream_metadata": stream });
    let kind = "org.matrix.call.sdp_stream_metadata_changed";
    let shown = translated_to(Direction::ToSam, kind, &content);
    let stream =
        json!({ "stream": { "purpose": "m.usermedia", "video_muted": true, "user_id": GHOST } });
    assert_eq!(shown["org.matrix.msc3077.sdp_stream_metadata"], stream);
}

#[test]
fn an_offer_of_chrome_with_sound_and_picture_keeps_all_but_its_addresses() {
    let sdp = CHROME.join("\r\n") + "\r\n";
    let mut content = invite();
    content["offer"]["sdp"] = json!(sdp);
    let shown = translated_to(Direction::ToSam, "m.call.invite", &content);
    let shown: Vec<&str> = shown["offer"]["sdp"].as_str().unwrap().lines().collect();
    let moved = |line: &str| {
        let changed = ["o=", "m=", "c=", "a=rtcp:", "a=candidate:"];
        changed.iter().any(|start| line.starts_with(start))
    };
    let kept = |lines: &[&str]| -> Vec<String> {
        let kept = lines.iter().filter(|line| !moved(line));
        kept.map(|line| (*line).to_owned()).collect()
    };
    assert_eq!(kept(&shown), kept(CHROME));
    let count = |start: &str| shown.iter().filter(|l| l.starts_with(start)).count();
    assert_eq!((count("m="), count("a=rtcp:9 IN IP4 0.0.0.0")), (2, 2));
    assert_eq!((count("c=IN IP4 0.0.0.0"), count("a=candidate:")), (2, 1));
}

#[test]
fn who_a_provider_says_that_somebody_is_never_passes() {
    for hide in [true, false] {
        let mut content = invite();
        content["offer"]["sdp"] =
            json!("v=0\r\na=identity:eyJ1c2VyIjoiYWxpY2UifQ==\r\na=mid:0\r\n");
        let shown = with_context(Direction::ToSam, hide, |context| {
            translate("m.call.invite", &content, context)
                .unwrap()
                .unwrap()
        });
        assert_eq!(shown.content["offer"]["sdp"], "v=0\r\na=mid:0\r\n");
    }
}

#[test]
fn a_description_shows_the_relay_and_no_other_address() {
    let shown = translated_to(Direction::ToSam, "m.call.invite", &invite());
    let sdp = shown["offer"]["sdp"].as_str().unwrap();
    for address in [
        "192.168.1.20",
        "203.0.113.7",
        ".local",
        "54321",
        "alice",
        "network-id",
    ] {
        assert!(!sdp.contains(address), "{address} in {sdp}");
    }
    assert!(
        sdp.contains("198.51.100.9 60000 typ relay raddr 0.0.0.0 rport 9"),
        "{sdp}"
    );
    for kept in [
        "a=ice-ufrag:EEtu",
        "a=fingerprint:sha-256 AA:BB:CC",
        "a=mid:0",
        "a=rtpmap:111 opus/48000/2",
        "a=ssrc:1 cname:random",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "c=IN IP4 0.0.0.0",
    ] {
        assert!(sdp.contains(kept), "{kept} not in {sdp}");
    }
    assert!(sdp.ends_with("\r\n"));
    assert!(has_relay(&shown));
}

#[test]
fn a_call_that_waited_rings_for_the_rest_of_its_time() {
    let aged = |kind: &str, lifetime: Value, by: u64| {
        let mut content = json!({ "call_id": "c1", "lifetime": lifetime });
        ages(kind, &mut content, Duration::from_millis(by));
        content["lifetime"].clone()
    };
    assert_eq!(aged("m.call.invite", json!(60_000), 250), 59_750);
    assert_eq!(aged("m.call.negotiate", json!(60_000), 250), 59_750);
    assert_eq!(aged("m.call.invite", json!(60_000), 3_600_000), 0);
    assert_eq!(aged("m.call.invite", json!("60000"), 250), "60000");
    assert_eq!(aged("m.room.message", json!(60_000), 250), 60_000);
    let mut none = json!({ "call_id": "c1" });
    ages("m.call.invite", &mut none, Duration::from_secs(1));
    assert_eq!(none, json!({ "call_id": "c1" }));
}

#[test]
fn without_hiding_addresses_pass_and_names_do_not() {
    let shown = with_context(Direction::ToSam, false, |context| {
        translate("m.call.invite", &invite(), context)
            .unwrap()
            .unwrap()
            .content
    });
    let sdp = shown["offer"]["sdp"].as_str().unwrap();
    assert!(sdp.contains("192.168.1.20 54321 typ host"), "{sdp}");
    assert!(!shown.to_string().contains(ALICE));
}

#[test]
fn candidates_that_show_where_somebody_is_do_not_pass() {
    let host = json!({ "candidate": "candidate:1 1 udp 1 192.168.1.20 5 typ host", "sdpMid": "0", "sdpMLineIndex": 0 });
    let relay = json!({ "candidate": "candidate:9 1 UDP 1 198.51.100.9 5 TYP Relay raddr 10.0.0.1 rport 7", "sdpMid": "0", "sdpMLineIndex": 0 });
    let end = json!({ "candidate": "", "sdpMid": "0", "sdpMLineIndex": 0 });
    let batch = |all: &[&Value]| json!({ "call_id": "c1", "version": "1", "party_id": "x", "candidates": all });
    // Nothing is left to say.
    assert_eq!(to_sam("m.call.candidates", &batch(&[&host])), Ok(None));
    let out = to_sam("m.call.candidates", &batch(&[&host, &relay, &end]))
        .unwrap()
        .unwrap();
    assert_eq!(out.remarks, []);
    assert_eq!(out.content["candidates"].as_array().unwrap().len(), 2);
    assert!(has_relay(&out.content));
    let out = to_sam("m.call.candidates", &batch(&[&host, &end]))
        .unwrap()
        .unwrap();
    assert_eq!(out.content["candidates"].as_array().unwrap().len(), 1);
    assert!(!has_relay(&out.content));
}

#[test]
fn what_is_no_call_between_the_two_is_refused() {
    let mut other = invite();
    other["invitee"] = json!("@stranger:elsewhere.example");
    assert_eq!(
        to_sam("m.call.invite", &other),
        Err(TranslateError::CallTransfer)
    );
    let content = json!({ "call_id": "c1", "version": "1" });
    assert_eq!(
        to_sam("m.call.replaces", &content),
        Err(TranslateError::CallTransfer)
    );
    assert_eq!(to_sam("m.call.asserted_identity", &content), Ok(None));
    // Whatever is, or is not, in them.
    let odd = json!({ "reason": "x" });
    assert_eq!(
        to_sam("m.call.replaces", &odd),
        Err(TranslateError::CallTransfer)
    );
    assert_eq!(to_sam("org.matrix.call.asserted_identity", &odd), Ok(None));
    assert_eq!(
        to_sam("m.call.invite", &content),
        Err(TranslateError::Malformed)
    );
    assert_eq!(
        to_sam("m.call.hangup", &json!({ "reason": "x" })),
        Err(TranslateError::Malformed)
    );
}

proptest! {
    #[test]
    fn no_line_whatever_its_form_shows_an_address(
        space in "[ \t]{1,3}", kind in "(host|srflx|prflx|HOST|relay2|rel ay|)",
        typ in "(typ|TYP|Typ)", extra in "[a-z0-9 :=]{0,30}", upper in any::<bool>(),
        address in "(192\\.168\\.7\\.7|fe80::7:7|2001:db8::77|x7\\.local)",
    ) {
        let name = if upper { "a=CANDIDATE:" } else { "a=candidate:" };
        let s = &space;
        let line = format!("{name}1{s}1{s}udp{s}1{s}{address}{s}5{s}{typ}{s}{kind}{s}raddr{s}{address}{s}{extra}");
        let sdp = format!("v=0\r\n{line}\r\na=x-custom:{address}\r\na={address}\r\na=x:({address})\r\na=y:IP6:{address}\r\nb={address}\r\na=remote-candidates:1 {address} 5\r\nc=IN IP6 {address}\r\no=- 1 1 IN IP6 {address}\r\n");
        let mut content = invite();
        content["offer"]["sdp"] = json!(sdp);
        let out = translated_to(Direction::ToSam, "m.call.invite", &content);
        let sdp = out["offer"]["sdp"].as_str().unwrap();
        prop_assert!(!sdp.contains(&address), "{sdp}");
    }

    #[test]
    fn of_whatever_lines_only_the_address_of_the_relay_comes_out(
        at in ("[0-9]{1,2}", 0..256_u16, 1..0xffff_u16, any::<bool>()),
        lines in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "a=candidate:", "A=candidate:", " a=Candidate: ", "a=end-of-candidates ", "a=x:", "a=",
                    "a=fingerprint:", "a=rtcp:", "a=fmtp:96 ", "m=audio ", "b=", "c=", "o=", "t=", "e=", "",
                ]),
                prop::collection::vec(prop::sample::select(vec![
                    "1", "udp", "typ", "TYP", "host", "srflx", "raddr", "rport", "IN", "IP6", "AT", "[AT]:5",
                    "AT:5:6", "AT/24", "AT-AT", "(AT)", "x=AT", "IP4:AT", "AT.", "AT;y",
                    "1 1 udp 1 198.51.100.9 5 typ relay raddr AT rport 5 AT AT ufrag AT",
                ]), 0..12),
                prop::sample::select(vec![" ", "  ", "\t", " \t "]),
            ),
            1..12,
        ),
        end in prop::sample::select(vec!["\r\n", "\n", "\r"]),
    ) {
        let (a, b, c, local) = at;
        let address = match (local, c % 3) {
            (true, _) => format!("{c:x}-{b:x}.local"),
            (_, 0) => format!("2001:DB8::{c:x}"),
            (_, 1) => format!("fe80:0:0:0:0:{b:x}:{c:x}:1"),
            _ => format!("10.{a}.{}.{}", b % 256, c % 256),
        };
        let line = |(start, words, space): &(&str, Vec<&str>, &str)| format!("{start}{}", words.join(space));
        let sdp: Vec<String> = lines.iter().map(line).collect();
        let sdp = sdp.join(end).replace("AT", &address);
        let mut content = invite();
        // Without a line that is left the call would be refused.
        content["offer"]["sdp"] = json!(format!("v=0\r\n{sdp}"));
        let out = translated_to(Direction::ToSam, "m.call.invite", &content);
        let shown = out["offer"]["sdp"].as_str().unwrap();
        prop_assert!(!shown.contains(&address), "{address} of {sdp:?} in {shown:?}");
        for line in sdp.lines().map(|line| line.trim_start_matches(" a=")) {
            let batch = json!({ "call_id": "c1", "version": "1", "candidates": [{ "candidate": line }] });
            let out = to_sam("m.call.candidates", &batch).unwrap();
            let shown = out.map(|out| out.content.to_string()).unwrap_or_default();
            prop_assert!(!shown.contains(&address), "{address} of {line:?} in {shown}");
        }
    }
}

#[test]
fn a_call_of_which_nothing_is_left_is_refused() {
    let invite = |kind: &str, sdp: &str| {
        json!({ "call_id": "1", "version": "1", "party_id": "a",
                "lifetime": 60000, "offer": { "type": kind, "sdp": sdp } })
    };
    for sdp in ["", " \r\n", "hello", "x=1\r\n"] {
        let refused = to_sam("m.call.invite", &invite("offer", sdp));
        assert_eq!(refused, Err(TranslateError::CallDescription), "{sdp:?}");
    }
    assert!(to_sam("m.call.invite", &invite("offer", "v=0\r\n")).is_ok());
    // What takes an earlier description back has none.
    assert!(to_sam("m.call.invite", &invite("rollback", "")).is_ok());
}
