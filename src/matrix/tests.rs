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
        .find(|(end, ..)| uri.path().ends_with(end))
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
        max_answer: 1024,
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
async fn whether_strangers_may_register_a_name_is_asked_as_a_stranger() {
    let refused = r#"{"errcode":"M_INVALID_USERNAME","error":"no"}"#;
    let (hs, script) = homeserver(vec![("/available", 400, refused.into())]).await;
    assert!(!hs.username_available("_dm_x1").await.unwrap());
    assert_eq!(script.asked.lock().unwrap()[0].2, None);
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
        matches!(error, MatrixError::TimedOut) && error.is_transient(),
        "{error}"
    );
}

#[tokio::test]
async fn nobody_listening_is_transient() {
    let url = "http://127.0.0.1:9/".parse().unwrap();
    let error = Homeserver::connect(&url, "t".into(), HomeserverOptions::default())
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error}");
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
    let page = hs
        .sync(
            ghost(),
            Some("s1"),
            Some(r#"{"room":{"rooms":[]}}"#),
            Duration::ZERO,
        )
        .await
        .unwrap();
    assert_eq!(page.next_batch, "s2");
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
    assert!(page.left.contains_key(room_id!("!left:x")));
    let uri = script.asked.lock().unwrap()[0].1.clone();
    assert!(
        uri.contains("since=s1") && uri.contains("device_id=DEV"),
        "{uri}"
    );
}
