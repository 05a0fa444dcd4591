use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ALICE, SAM, SAMUEL, Way, to_sam, with_passage};
use crate::relay::{CannotCarry, Passage, Remark, carry, has_relay};

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

fn invite() -> Value {
    json!({
        "call_id": "c1", "party_id": "ALICESDEVICE", "version": "1", "lifetime": 60000,
        "invitee": SAM, "offer": { "type": "offer", "sdp": OFFER },
        "capabilities": { "m.call.transferee": true, "m.call.dtmf": false },
        "sdp_stream_metadata": { "stream": { "purpose": "m.usermedia", "user_id": ALICE, "audio_muted": false } },
        "io.element.device": ALICE,
    })
}

fn both_ways(way: Way, kind: &str, content: &Value) -> Value {
    with_passage(way, true, |passage| {
        carry(kind, content, passage).unwrap().unwrap().content
    })
}

#[test]
fn a_whole_call_is_understood_on_both_sides_and_names_nobodys_device() {
    let shown = both_ways(Way::ToSam, "m.call.invite", &invite());
    let alices = shown["party_id"].as_str().unwrap().to_owned();
    assert_ne!(alices, "ALICESDEVICE");
    assert_eq!(shown["invitee"], SAMUEL);
    assert_eq!(shown["version"], "1");
    assert_eq!(shown["lifetime"], 60000);
    assert!(shown.get("io.element.device").is_none());
    assert!(!shown.to_string().contains("alice"), "{shown}");

    let answer = json!({ "call_id": "c1", "party_id": "SAMSDEVICE", "version": "1",
                         "answer": { "type": "answer", "sdp": "v=0\r\n" } });
    let answer = both_ways(Way::ToAlice, "m.call.answer", &answer);
    let sams = answer["party_id"].as_str().unwrap().to_owned();
    assert_ne!(sams, "SAMSDEVICE");

    // Alice says which answer she takes, as it was shown to her: Sam's client finds its own.
    let select = json!({ "call_id": "c1", "party_id": "ALICESDEVICE", "version": "1",
                         "selected_party_id": sams });
    let select = both_ways(Way::ToSam, "m.call.select_answer", &select);
    assert_eq!(select["selected_party_id"], "SAMSDEVICE");
    assert_eq!(select["party_id"], alices.as_str());
    let hangup = json!({ "call_id": "c1", "party_id": "ALICESDEVICE", "version": "1", "reason": "user_hangup" });
    let hangup = both_ways(Way::ToSam, "m.call.hangup", &hangup);
    assert_eq!(hangup["party_id"], alices.as_str());
    assert_eq!(hangup["reason"], "user_hangup");
}

#[test]
fn in_a_group_nobody_but_its_owner_learns_what_a_party_calls_itself() {
    let content = json!({ "call_id": "c1", "party_id": "SAMSDEVICE", "version": "1",
                          "answer": { "type": "answer", "sdp": "v=0\r\n" } });
    let shown = both_ways(Way::ToAlice, "m.call.answer", &content);
    let shown = shown["party_id"].as_str().unwrap();
    // Alice takes Sam's answer. In the portal of somebody else both of them are ghosts.
    let select = json!({ "call_id": "c1", "party_id": "ALICESDEVICE", "version": "1", "selected_party_id": shown });
    let elsewhere = with_passage(Way::ToSam, true, |passage| {
        let mut people = passage.people.to_vec();
        people[1].there = people[1].here.clone();
        let passage = Passage {
            people: &people,
            ..passage.clone()
        };
        carry("m.call.select_answer", &select, &passage)
            .unwrap()
            .unwrap()
            .content
    });
    assert!(!elsewhere.to_string().contains("SAMSDEVICE"), "{elsewhere}");
    let home = both_ways(Way::ToSam, "m.call.select_answer", &select);
    assert_eq!(home["selected_party_id"], "SAMSDEVICE");
    // Nor does it come out when somebody says that it is theirs.
    let stolen = json!({ "call_id": "c1", "party_id": shown, "version": "1" });
    let stolen = both_ways(Way::ToSam, "m.call.hangup", &stolen);
    assert!(!stolen.to_string().contains("SAMSDEVICE"), "{stolen}");
}

#[test]
fn a_description_shows_the_relay_and_no_other_address() {
    let shown = both_ways(Way::ToSam, "m.call.invite", &invite());
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
fn without_hiding_addresses_pass_and_names_do_not() {
    let shown = with_passage(Way::ToSam, false, |passage| {
        carry("m.call.invite", &invite(), passage)
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
    assert_eq!(out.remarks, [Remark::NoRelay]);
    assert!(!has_relay(&out.content));
}

#[test]
fn what_is_no_call_between_the_two_is_refused() {
    let mut other = invite();
    other["invitee"] = json!("@stranger:elsewhere.example");
    assert_eq!(
        to_sam("m.call.invite", &other),
        Err(CannotCarry::CallTransfer)
    );
    let content = json!({ "call_id": "c1", "version": "1" });
    assert_eq!(
        to_sam("m.call.replaces", &content),
        Err(CannotCarry::CallTransfer)
    );
    assert_eq!(to_sam("m.call.asserted_identity", &content), Ok(None));
    assert_eq!(
        to_sam("m.call.invite", &content),
        Err(CannotCarry::Malformed)
    );
    assert_eq!(
        to_sam("m.call.hangup", &json!({ "reason": "x" })),
        Err(CannotCarry::Malformed)
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
        let out = both_ways(Way::ToSam, "m.call.invite", &content);
        let sdp = out["offer"]["sdp"].as_str().unwrap();
        prop_assert!(!sdp.contains(&address), "{sdp}");
    }
}
