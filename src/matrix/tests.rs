//! The client against a homeserver of a few lines on loopback.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use ruma::{OneTimeKeyAlgorithm, device_id, event_id, room_id, uint, user_id};
use secrecy::SecretString;
use serde_json::{json, value::RawValue};

use super::*;

/// Method, address, authorization and body of a request.
type Asked = (Method, String, Option<String>, String);

/// What was asked, and what to answer by the path's end.
#[derive(Default)]
struct Script {
    asked: Mutex<Vec<Asked>>,
    answers: Mutex<Vec<(&'static str, u16, String)>>,
}

async fn answer(
    State(script): State<Arc<Script>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if uri.path().ends_with("/versions") {
        return r#"{"versions":["v1.11","v1.15","v9.9"]}"#.into_response();
    }
    let token = headers
        .get("authorization")
        .map(|value| value.to_str().unwrap().to_owned());
    let body = String::from_utf8(body.to_vec()).unwrap();
    script
        .asked
        .lock()
        .unwrap()
        .push((method, uri.to_string(), token, body));
    let found = script
        .answers
        .lock()
        .unwrap()
        .iter()
        .find(|(part, ..)| uri.to_string().contains(part))
        .map(|(_, status, text)| (StatusCode::from_u16(*status).unwrap(), text.clone()));
    let Some((status, text)) = found else {
        // Never answers.
        return std::future::pending().await;
    };
    (status, [("location", "/elsewhere")], text).into_response()
}

async fn homeserver(answers: Vec<(&'static str, u16, String)>) -> (Homeserver, Arc<Script>) {
    let script = Arc::new(Script {
        answers: Mutex::new(answers),
        ..Default::default()
    });
    let app = Router::new().fallback(answer).with_state(script.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let options = HomeserverOptions {
        request_timeout: Duration::from_millis(500),
        answer_bytes_max: 1024,
        ..Default::default()
    };
    let url = format!("http://{address}/base").parse().unwrap();
    let token = SecretString::from("the-token");
    (
        Homeserver::connect(&url, token, options).await.unwrap(),
        script,
    )
}

fn ghost() -> Actor<'static> {
    Actor::device(user_id!("@_dm_sam:hs.test"), device_id!("DEV"))
}

#[tokio::test]
async fn a_message_is_sent_as_the_ghost_and_its_device() {
    let (hs, script) = homeserver(vec![("/t1", 200, r#"{"event_id":"$e"}"#.into())]).await;
    let content = RawValue::from_string(r#"{"body":"x", "n":1}"#.into()).unwrap();
    let sent = hs
        .send_message(
            ghost(),
            room_id!("!r:hs.test"),
            "m.room.encrypted",
            &content,
            "t1".into(),
        )
        .await
        .unwrap();
    assert_eq!(sent, event_id!("$e"));
    let (method, uri, token, body) = script.asked.lock().unwrap()[0].clone();
    assert_eq!(method, Method::PUT);
    assert_eq!(
        uri,
        "/base/_matrix/client/v3/rooms/!r:hs.test/send/m.room.encrypted/t1\
         ?user_id=%40_dm_sam%3Ahs.test&device_id=DEV"
    );
    assert_eq!(token.as_deref(), Some("Bearer the-token"));
    assert_eq!(body, content.get());
}

#[tokio::test]
async fn a_name_that_is_taken_is_no_error() {
    let taken = r#"{"errcode":"M_USER_IN_USE","error":"taken"}"#;
    let (hs, script) = homeserver(vec![("/register", 400, taken.into())]).await;
    assert!(!hs.register("_dm_sam").await.unwrap());
    let (_, uri, token, body) = script.asked.lock().unwrap()[0].clone();
    assert!(!uri.contains("user_id"));
    assert!(token.is_some());
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let wanted =
        json!({"type":"m.login.application_service","username":"_dm_sam","inhibit_login":true});
    assert_eq!(body, wanted);
}

#[tokio::test]
async fn whether_strangers_may_register_a_name_is_asked_without_a_token() {
    let refused = r#"{"errcode":"M_INVALID_USERNAME","error":"no"}"#;
    let (hs, script) = homeserver(vec![("/available", 400, refused.into())]).await;
    assert!(!hs.username_available("_dm_x1").await.unwrap());
    assert_eq!(script.asked.lock().unwrap()[0].2, None);
}

#[tokio::test]
async fn what_a_proxy_does_not_find_may_be_there() {
    let html = || "<html>not here</html>".to_owned();
    let not_found = || r#"{"errcode":"M_NOT_FOUND","error":"no"}"#.to_owned();
    let user = user_id!("@_dm_sam:hs.test");
    let (room, device) = (room_id!("!room:hs.test"), device_id!("DEVICE"));
    let paths = ["/leave", "/devices/", "/profile/", "/available"];
    for (body, is_sure) in [(html(), false), (not_found(), true)] {
        let answers = paths.map(|path| (path, 404, body.clone()));
        let (homeserver, _) = homeserver(answers.to_vec()).await;
        let left = homeserver.leave(ghost(), room, None).await;
        assert_eq!(left.is_ok(), is_sure, "{left:?}");
        let has_device = homeserver.has_device(user, device).await;
        assert_eq!(has_device.ok(), is_sure.then_some(false));
        let deleted = homeserver.delete_device(user, device).await;
        assert_eq!(deleted.is_ok(), is_sure, "{deleted:?}");
        let profile = homeserver.profile(ghost(), user).await;
        assert_eq!(profile.is_ok(), is_sure, "{profile:?}");
        let available = homeserver.username_available("sam").await;
        assert_eq!(available.ok(), is_sure.then_some(false));
    }
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let (hs, _) = homeserver(vec![("/whoami", 200, " ".repeat(5000))]).await;
    let error = hs.whoami(ghost()).await.unwrap_err();
    assert!(
        matches!(error, MatrixError::TooLong { limit: 1024 }),
        "{error}"
    );
}

#[tokio::test]
async fn silence_is_transient() {
    let (hs, _) = homeserver(vec![]).await;
    let error = hs.whoami(ghost()).await.unwrap_err();
    assert!(
        matches!(error, MatrixError::TimedOut) && error.is_temporary(),
        "{error}"
    );
}

#[tokio::test]
async fn nobody_listening_is_transient() {
    let url = "http://127.0.0.1:9/".parse().unwrap();
    let error = Homeserver::connect(&url, "t".into(), HomeserverOptions::default())
        .await
        .unwrap_err();
    assert!(error.is_temporary(), "{error}");
}

#[tokio::test]
async fn the_token_does_not_follow_a_redirect() {
    let (hs, script) = homeserver(vec![("/whoami", 302, String::new())]).await;
    assert!(matches!(
        hs.whoami(ghost()).await,
        Err(MatrixError::Unexpected(_))
    ));
    assert_eq!(script.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_token_is_in_no_debug_output() {
    let (hs, _) = homeserver(vec![]).await;
    assert!(!format!("{hs:?}").contains("the-token"));
}

#[tokio::test]
async fn a_name_is_set_only_when_it_changes() {
    let answers = vec![
        ("/@_dm_sam:hs.test", 200, r#"{"displayname":"Sam"}"#.into()),
        ("/displayname", 200, "{}".into()),
    ];
    let (hs, script) = homeserver(answers).await;
    hs.set_display_name(ghost(), "Sam").await.unwrap();
    assert_eq!(script.asked.lock().unwrap().len(), 1);
    hs.set_display_name(ghost(), "Samantha").await.unwrap();
    let asked = script.asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[2].3, r#"{"displayname":"Samantha"}"#);
}

/// Another server can answer a request that the homeserver passes on.
#[tokio::test]
async fn a_missing_device_is_believed_only_without_another_server() {
    let unknown = r#"{"errcode":"M_UNKNOWN_DEVICE","error":"no such device"}"#;
    let there = r#"{"user_id":"@_dm_sam:hs.test","device_id":"STONE"}"#;
    for (status, whoami, is_missing) in
        [(200, there, false), (400, unknown, true), (502, "", false)]
    {
        let answers = vec![
            ("/whoami", status, whoami.to_owned()),
            ("/m.room.member/", 400, unknown.to_owned()),
        ];
        let (hs, _) = homeserver(answers).await;
        let (room, other) = (room_id!("!r:evil.org"), user_id!("@eve:evil.org"));
        let asked = hs.invite_direct(ghost(), room, other, None).await;
        let error = asked.unwrap_err();
        assert_eq!(error.missing_user().is_some(), is_missing, "{error}");
        assert_eq!(error.fate(), Fate::Failing, "{error}");
    }
}

#[tokio::test]
async fn a_homeserver_is_down_that_cannot_say_who_asks_or_write() {
    let there = r#"{"user_id":"@_dm_sam:hs.test","device_id":"DEV"}"#;
    let with = |errcode: &str| format!(r#"{{"errcode":"{errcode}","error":"no"}}"#);
    for (status, body, is_down) in [
        (200, there.to_owned(), false),
        (500, with("M_UNKNOWN"), true),
        (503, with("M_UNKNOWN"), true),
        (502, "<h1>Bad Gateway</h1>".to_owned(), true),
        (504, String::new(), true),
        (401, with("M_UNKNOWN_TOKEN"), true),
        // It has lost the user or the device, or wants fewer questions.
        (403, with("M_FORBIDDEN"), false),
        (400, with("M_UNKNOWN_DEVICE"), false),
        (429, with("M_LIMIT_EXCEEDED"), false),
    ] {
        let written = ("/account_data/", 200, "{}".to_owned());
        let (hs, _) = homeserver(vec![("/whoami", status, body.clone()), written]).await;
        assert_eq!(hs.is_down(ghost()).await, is_down, "{status}");
        if !is_down {
            let busy = ("/account_data/", 429, with("M_LIMIT_EXCEEDED"));
            let (hs, _) = homeserver(vec![("/whoami", status, body.clone()), busy]).await;
            assert!(!hs.is_down(ghost()).await, "{status}");
            // Its disk is full: it can read and not write.
            let not_written = ("/account_data/", 500, with("M_UNKNOWN"));
            let (hs, _) = homeserver(vec![("/whoami", status, body), not_written]).await;
            assert!(hs.is_down(ghost()).await, "{status}");
        }
    }
    let (silent, _) = homeserver(Vec::new()).await;
    assert!(silent.is_down(ghost()).await);
}

#[tokio::test]
async fn a_refusal_is_final_only_once_the_homeserver_says_that_it_has_the_user() {
    let forbidden = r#"{"errcode":"M_FORBIDDEN","error":"not you"}"#;
    let there = r#"{"user_id":"@_dm_sam:hs.test","device_id":"STONE"}"#;
    let cases = [
        (200, there, Fate::Final),
        (403, forbidden, Fate::Failing),
        (502, "", Fate::Failing),
        (404, "<html>", Fate::Unclear),
    ];
    for (status, whoami, fate) in cases {
        let answers = vec![
            ("/whoami", status, whoami.to_owned()),
            ("/m.room.member/", 403, forbidden.to_owned()),
        ];
        let (hs, _) = homeserver(answers).await;
        let (room, other) = (room_id!("!r:hs.test"), user_id!("@alice:hs.test"));
        let asked = hs.invite_direct(ghost(), room, other, None).await;
        let error = asked.unwrap_err();
        assert_eq!(error.fate(), fate, "{error}");
        assert_eq!(error.missing_user().is_some(), status == 403, "{error}");
    }
}

/// A request was refused because the user was missing, and before we asked about that, somebody else
/// had noticed it and the user was made again.
#[tokio::test]
async fn a_refusal_from_before_a_user_was_made_again_is_not_final() {
    let forbidden = || r#"{"errcode":"M_FORBIDDEN","error":"no such user"}"#.to_owned();
    let there = r#"{"user_id":"@_dm_sam:hs.test","device_id":"STONE"}"#;
    let (hs, script) = homeserver(vec![
        ("/whoami", 403, forbidden()),
        ("/m.room.member/", 403, forbidden()),
    ])
    .await;
    let (room, other) = (room_id!("!r:hs.test"), user_id!("@alice:hs.test"));
    let invite = async || {
        let asked = hs.invite_direct(ghost(), room, other, None).await;
        asked.unwrap_err()
    };
    let began = tokio::time::Instant::now();
    assert!(invite().await.missing_user().is_some());
    script.answers.lock().unwrap()[0] = ("/whoami", 200, there.to_owned());
    let refused = MatrixError::Refused {
        status: StatusCode::FORBIDDEN,
        errcode: Some("M_FORBIDDEN".to_owned()),
        message: String::new(),
    };
    let error = hs.explain(ghost(), refused, began).await;
    assert_eq!(error.fate(), Fate::Failing, "{error}");
    assert!(error.missing_user().is_none());
    // One that begins now is about the request itself.
    assert_eq!(invite().await.fate(), Fate::Final);
}

#[tokio::test]
async fn a_direct_invite_is_a_member_event() {
    let (hs, script) =
        homeserver(vec![("/@sam:hs.test", 200, r#"{"event_id":"$i"}"#.into())]).await;
    hs.invite_direct(
        ghost(),
        room_id!("!r:hs.test"),
        user_id!("@sam:hs.test"),
        Some("why"),
    )
    .await
    .unwrap();
    let asked = script.asked.lock().unwrap();
    assert!(
        asked[0]
            .1
            .contains("/rooms/!r:hs.test/state/m.room.member/@sam:hs.test?")
    );
    let body: serde_json::Value = serde_json::from_str(&asked[0].3).unwrap();
    assert_eq!(
        body,
        json!({"membership":"invite","is_direct":true,"reason":"why"})
    );
}

#[tokio::test]
async fn a_sync_survives_whatever_strangers_put_into_it() {
    let body = json!({
        "next_batch": "s2",
        "to_device": {"events": [{"type":"m.room.encrypted"}, {"odd":1}]},
        "device_lists": {"changed": ["@a:x", "nonsense", 4], "left": []},
        "device_one_time_keys_count": {},
        "device_unused_fallback_key_types": ["signed_curve25519", "odd"],
        "rooms": {
            "join": {
                "!good:x": {"timeline": {"events": [{"type":"m"}], "limited": true, "prev_batch": "p"}},
                "!bad:x": {"timeline": 7},
                "not a room": {}
            },
            "invite": {"!inv:x": {"invite_state": {"events": [{"type":"m.room.create"}]}}},
            "leave": {"!left:x": {}}
        },
        "presence": 8
    });
    let (hs, script) = homeserver(vec![("/sync", 200, body.to_string())]).await;
    let sync = hs.sync(
        ghost(),
        Some("s1"),
        Some(r#"{"room":{"rooms":[]}}"#),
        Duration::ZERO,
    );
    let page = sync.await.unwrap().read_whole().await.unwrap();
    assert_eq!(page.next_batch.as_deref(), Some("s2"));
    assert_eq!(page.to_device.len(), 2);
    assert_eq!(page.device_lists_changed, [user_id!("@a:x")]);
    assert_eq!(
        page.otk_counts[&OneTimeKeyAlgorithm::SignedCurve25519],
        uint!(0)
    );
    assert_eq!(page.fallback_types.as_ref().map(Vec::len), Some(2));
    assert_eq!(page.joined.len(), 1);
    let room = &page.joined[room_id!("!good:x")];
    assert!(room.limited && room.prev_batch.as_deref() == Some("p"));
    assert_eq!(page.invited[room_id!("!inv:x")].len(), 1);
    let uri = script.asked.lock().unwrap()[0].1.clone();
    assert!(
        uri.contains("since=s1") && uri.contains("device_id=DEV"),
        "{uri}"
    );
}

/// A chunk of `count` messages with `size` bytes of text each.
fn chunk(count: usize, size: usize) -> serde_json::Value {
    let event = |n| {
        json!({"event_id": format!("$e{n}"), "room_id": "!r:x", "type": "m.room.message",
        "content": {"body": "x".repeat(size)}})
    };
    json!({"chunk": (0..count).map(event).collect::<Vec<_>>(), "start": "s", "end": "e"})
}

#[tokio::test]
async fn a_page_of_history_leaves_out_what_is_too_large_and_says_so() {
    let mut page = chunk(3, 10);
    page["chunk"][1]["content"]["body"] = json!("x".repeat(1 << 20));
    let (hs, _) = homeserver(vec![("/messages", 200, page.to_string())]).await;
    let room = room_id!("!r:x");
    let back = ruma::api::Direction::Backward;
    let page = hs.messages(ghost(), room, None, back, 100).await.unwrap();
    assert_eq!(page.events.len(), 2);
    assert_eq!((page.start.as_str(), page.end.as_deref()), ("s", Some("e")));
    let letters = hs.take_dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].room.as_deref(), Some(room));
    assert!(hs.take_dead_letters().is_empty());
}

#[tokio::test]
async fn a_page_of_history_that_is_too_large_is_asked_for_in_smaller_ones() {
    let small = chunk(25, 100).to_string();
    let answers = vec![
        ("limit=100", 200, chunk(140, 100_000).to_string()),
        ("limit=25", 200, small),
    ];
    let (hs, script) = homeserver(answers).await;
    let back = ruma::api::Direction::Backward;
    let page = hs.messages(ghost(), room_id!("!r:x"), Some("t"), back, 100);
    assert_eq!(page.await.unwrap().events.len(), 25);
    let asked = script.asked.lock().unwrap();
    assert!(
        asked[0].1.contains("dir=b&limit=100&from=t"),
        "{}",
        asked[0].1
    );
    assert!(asked[1].1.contains("limit=25"), "{}", asked[1].1);
}

#[tokio::test]
async fn an_event_is_shown_with_what_surrounds_it_and_without_the_state() {
    let answer = json!({
        "event": {"event_id": "$e"}, "events_before": [{"a": 1}, {"a": 2}], "events_after": [{"b": 1}],
        "start": "s", "end": "e", "state": [{"content": "x".repeat(20 << 20)}],
    });
    let (hs, _) = homeserver(vec![("/context/", 200, answer.to_string())]).await;
    let context = hs
        .context(ghost(), room_id!("!r:x"), event_id!("$e"), 3)
        .await
        .unwrap();
    assert_eq!(context.event.unwrap().get(), r#"{"event_id":"$e"}"#);
    assert_eq!((context.before.len(), context.after.len()), (2, 1));
    assert_eq!(
        (context.start.as_deref(), context.end.as_deref()),
        (Some("s"), Some("e"))
    );
}

#[tokio::test]
async fn of_a_rooms_state_only_what_is_used_is_kept() {
    let state = |kind: &str, key: &str, size: usize| {
        json!({"type": kind, "state_key": key, "sender": "@a:x", "content": {
            "x": "y".repeat(size), "membership": "join", "displayname": "n".repeat(size)}})
    };
    let mut all: Vec<_> = (0..300)
        .map(|n| state("junk", &n.to_string(), 60_000))
        .collect();
    all.extend((0..300).map(|n| state("m.room.topic", &n.to_string(), 60_000)));
    all.extend((0..200).map(|n| state("m.room.member", &format!("@m{n}:x"), 60_000)));
    all.push(state("m.room.create", "", 10));
    all.push(state("m.room.power_levels", "", 1000));
    all.push(state("m.room.join_rules", "", 1 << 20));
    let mut gone = state("m.room.member", "@gone:x", 1);
    gone["content"]["membership"] = json!("leave");
    all.push(gone);
    let body = serde_json::Value::from(all).to_string();
    assert!(body.len() > 40_000_000);
    let (hs, _) = homeserver(vec![("/state", 200, body)]).await;
    let state = hs.room_state(ghost(), room_id!("!r:x")).await.unwrap();
    assert_eq!(state.len(), 200 + 2);
    let kept: usize = state.iter().map(|event| event.get().len()).sum();
    assert!(kept < 200_000, "{kept} bytes");
    assert_eq!(hs.take_dead_letters().len(), 1, "the join rules");
}

#[tokio::test]
async fn joined_members_are_read_one_by_one() {
    let member = |n: usize| {
        (
            format!("@m{n}:x"),
            json!({"display_name": "n".repeat(50_000)}),
        )
    };
    let members: serde_json::Map<_, _> = (0..300).map(member).collect();
    let body = json!({"joined": members}).to_string();
    let (hs, _) = homeserver(vec![("/joined_members", 200, body)]).await;
    let members = hs.joined_members(ghost(), room_id!("!r:x")).await.unwrap();
    assert_eq!(members.len(), 300);
    assert_eq!(
        members[user_id!("@m0:x")].as_ref().map(String::len),
        Some(256)
    );
}
