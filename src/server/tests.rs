//! Attacks and accidents, as requests to the router. What needs a socket is in `socket_tests.rs`.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use axum::{Router, body::Body};
use http::{Method, Request, StatusCode, header};
use proptest::prelude::*;
use ruma::{OwnedUserId, UserId, user_id};
use secrecy::SecretString;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Appservice, AppserviceError, BODY_BYTES_MAX, Options, ThirdPartyUser, Token, router};
use crate::matrix::transaction::Transaction;

pub(super) const TOKEN: &str = "hs_0123456789abcdef0123456789abcdef";
const API: &str = "/_matrix/app/v1";

/// Remembers what reached it.
#[derive(Clone, Default)]
pub(super) struct Recorder(pub(super) Arc<Recorded>);

#[derive(Default)]
pub(super) struct Recorded {
    pub(super) transactions: Mutex<Vec<(String, usize, usize)>>,
    pub(super) pings: Mutex<Vec<Option<String>>>,
    pub(super) lookups: Mutex<Vec<String>>,
    pub(super) failing: Mutex<bool>,
    /// What a transaction waits for before it is durable.
    pub(super) gate: Option<tokio::sync::Semaphore>,
}

#[async_trait]
impl Appservice for Recorder {
    async fn accept_transaction(
        &self,
        txn_id: &str,
        body: Transaction,
    ) -> Result<(), AppserviceError> {
        if let Some(gate) = &self.0.gate {
            gate.acquire().await.unwrap().forget();
        }
        if *self.0.failing.lock().unwrap() {
            return Err(AppserviceError::Store("the disk is full".to_owned()));
        }
        let seen = (txn_id.to_owned(), body.events.len(), body.to_device.len());
        self.0.transactions.lock().unwrap().push(seen);
        Ok(())
    }

    async fn note_ping(&self, txn_id: Option<&str>) {
        self.0
            .pings
            .lock()
            .unwrap()
            .push(txn_id.map(ToOwned::to_owned));
    }

    async fn user_exists(&self, user: &UserId) -> bool {
        user == "@_dm_sam:example.org"
    }

    async fn lookup_handle(&self, handle: &str) -> Vec<ThirdPartyUser> {
        self.0.lookups.lock().unwrap().push(handle.to_owned());
        if handle.eq_ignore_ascii_case("sam") {
            vec![sam()]
        } else {
            Vec::new()
        }
    }

    async fn lookup_user(&self, user: &UserId) -> Vec<ThirdPartyUser> {
        self.0.lookups.lock().unwrap().push(user.to_string());
        if user == "@_dm_sam:example.org" {
            vec![sam()]
        } else {
            Vec::new()
        }
    }

    async fn find_owners(
        &self,
        _: &UserId,
        _: &[OwnedUserId],
    ) -> Result<Vec<Option<OwnedUserId>>, AppserviceError> {
        Err(AppserviceError::ShuttingDown)
    }

    async fn check_blocks(
        &self,
        _: &UserId,
        _: &[OwnedUserId],
    ) -> Result<Vec<bool>, AppserviceError> {
        Err(AppserviceError::ShuttingDown)
    }
}

fn sam() -> ThirdPartyUser {
    ThirdPartyUser {
        ghost: user_id!("@_dm_sam:example.org").to_owned(),
        handle: "Sam".to_owned(),
    }
}

pub(super) fn options() -> Options {
    Options {
        token: Token::new(&SecretString::from(TOKEN)),
        module_token: None,
        lookups_per_second: NonZeroU32::new(1000).unwrap(),
        max_handle: 15,
        server_name: ruma::server_name!("example.org").to_owned(),
        self_test: super::SelfTest::default(),
        health: super::Health::default(),
    }
}

fn app() -> (Router, Recorder) {
    let recorder = Recorder::default();
    (router(recorder.clone(), options()), recorder)
}

fn request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(format!("{API}{path}"))
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
        .body(body.into())
        .unwrap()
}

async fn answer(app: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn get(app: &Router, path: &str) -> (StatusCode, Value) {
    answer(app, request(Method::GET, path, Body::empty())).await
}

fn refused(status: u16, errcode: &str) -> impl Fn((StatusCode, Value), &str) {
    let errcode = errcode.to_owned();
    move |(is, body), what| {
        assert_eq!(
            (is.as_u16(), body["errcode"].as_str()),
            (status, Some(&*errcode)),
            "{what}"
        );
        assert!(body["error"].is_string(), "{what}: {body}");
    }
}

const SOME: &str = r#"{"events":[{"type":"a"},{"type":"b"}],"to_device":[{"type":"c"}]}"#;

#[tokio::test]
async fn a_transaction_is_taken_with_what_is_in_it() {
    let (app, seen) = app();
    let (status, body) = answer(&app, request(Method::PUT, "/transactions/17", SOME)).await;
    assert_eq!((status, body), (StatusCode::OK, json!({})));
    assert_eq!(
        *seen.0.transactions.lock().unwrap(),
        [("17".to_owned(), 2, 1)]
    );
}

#[tokio::test]
async fn a_transaction_that_is_not_durable_is_not_acknowledged() {
    let (app, seen) = app();
    *seen.0.failing.lock().unwrap() = true;
    let (status, body) = answer(&app, request(Method::PUT, "/transactions/1", SOME)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        !body.to_string().contains("disk"),
        "what ails us is for our log: {body}"
    );
    *seen.0.failing.lock().unwrap() = false;
    let (status, _) = answer(&app, request(Method::PUT, "/transactions/1", SOME)).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn without_the_right_token_nothing_is_done() {
    let (app, seen) = app();
    let missing = refused(401, "M_MISSING_TOKEN");
    let wrong = refused(403, "M_FORBIDDEN");
    let too_long = format!("Bearer {TOKEN}0");
    let too_short = format!("Bearer {}", &TOKEN[..TOKEN.len() - 1]);
    let upper = format!("Bearer {}", TOKEN.to_uppercase());
    let twice = format!("Bearer {TOKEN}, Bearer {TOKEN}");
    let latin = b"Bearer \xff\xfe\xfd".as_slice();
    let endless = format!("Bearer {}", "a".repeat(20_000));
    let basic = format!("Basic {TOKEN}");
    for (path, method, body) in [
        ("/transactions/1", Method::PUT, SOME),
        ("/ping", Method::POST, r#"{"transaction_id":"x"}"#),
        ("/users/@_dm_sam:example.org", Method::GET, ""),
        ("/rooms/%23a:example.org", Method::GET, ""),
        ("/thirdparty/protocol/stonechat", Method::GET, ""),
        ("/thirdparty/user/stonechat?handle=sam", Method::GET, ""),
        (
            "/thirdparty/user?userid=@_dm_sam:example.org",
            Method::GET,
            "",
        ),
        ("/thirdparty/location/stonechat", Method::GET, ""),
        ("/thirdparty/location?alias=x", Method::GET, ""),
    ] {
        let with = |value: Option<&[u8]>| {
            let mut request = request(method.clone(), path, body);
            request.headers_mut().remove(header::AUTHORIZATION);
            if let Some(value) = value {
                let value = http::HeaderValue::from_bytes(value).unwrap();
                request.headers_mut().insert(header::AUTHORIZATION, value);
            }
            request
        };
        for value in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some(TOKEN),
            Some(&basic),
        ] {
            let shown = answer(&app, with(value.map(str::as_bytes))).await;
            missing(shown, &format!("{path} {value:?}"));
        }
        for value in ["Bearer x", &too_long, &too_short, &upper, &twice, &endless] {
            wrong(
                answer(&app, with(Some(value.as_bytes()))).await,
                &format!("{path} {value:?}"),
            );
        }
        wrong(answer(&app, with(Some(latin))).await, path);
    }
    assert!(seen.0.transactions.lock().unwrap().is_empty());
    assert!(seen.0.pings.lock().unwrap().is_empty());
    assert!(seen.0.lookups.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_token_in_the_url_counts_for_nothing() {
    let (app, seen) = app();
    let path = format!("/transactions/1?access_token={TOKEN}");
    let mut bare = request(Method::PUT, &path, SOME);
    bare.headers_mut().remove(header::AUTHORIZATION);
    refused(401, "M_MISSING_TOKEN")(answer(&app, bare).await, "only in the URL");
    assert!(seen.0.transactions.lock().unwrap().is_empty());
    let (status, _) = answer(&app, request(Method::PUT, &path, SOME)).await;
    assert_eq!(status, StatusCode::OK, "in both places");
}

#[tokio::test]
async fn two_authorization_headers_are_refused_though_one_is_right() {
    let (app, _) = app();
    for order in [[TOKEN, "wrong"], ["wrong", TOKEN], [TOKEN, TOKEN]] {
        let mut request = request(Method::PUT, "/transactions/1", SOME);
        request.headers_mut().remove(header::AUTHORIZATION);
        for token in order {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().append(header::AUTHORIZATION, value);
        }
        refused(403, "M_FORBIDDEN")(answer(&app, request).await, &format!("{order:?}"));
    }
}

#[tokio::test]
async fn the_word_bearer_has_no_case() {
    let (app, _) = app();
    for word in ["bearer", "BEARER", "BeArEr"] {
        let mut request = request(Method::PUT, "/transactions/1", SOME);
        let value = format!("{word}  {TOKEN}").parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        assert_eq!(answer(&app, request).await.0, StatusCode::OK, "{word}");
    }
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_unrecognized_with_a_token_and_without() {
    let (app, _) = app();
    for with_token in [true, false] {
        let strip = |mut request: Request<Body>| {
            if !with_token {
                request.headers_mut().remove(header::AUTHORIZATION);
            }
            request
        };
        for path in [
            "/",
            "",
            "/nothing",
            "/transactions",
            "/transactions/",
            "/transactions/1/2",
            "/thirdparty/",
            "/../v1/ping/x",
            "//ping",
            "/users/",
            "/Ping",
        ] {
            let shown = answer(&app, strip(request(Method::GET, path, ""))).await;
            refused(404, "M_UNRECOGNIZED")(shown, path);
        }
        for (method, path) in [
            (Method::GET, "/transactions/1"),
            (Method::POST, "/transactions/1"),
            (Method::DELETE, "/transactions/1"),
            (Method::OPTIONS, "/transactions/1"),
            (Method::PUT, "/ping"),
            (Method::GET, "/ping"),
            (Method::POST, "/users/@_dm_sam:example.org"),
            (Method::PUT, "/thirdparty/user/stonechat"),
            (Method::POST, "/thirdparty/location"),
        ] {
            let shown = answer(&app, strip(request(method, path, ""))).await;
            refused(405, "M_UNRECOGNIZED")(shown, path);
        }
    }
    for path in [
        "/",
        "/transactions/1",
        "/_matrix/app/v2/ping",
        "/_matrix/client/v3/sync",
    ] {
        let request = Request::put(path).body(Body::from(SOME)).unwrap();
        refused(404, "M_UNRECOGNIZED")(answer(&app, request).await, path);
    }
    let request = Request::post("/health").body(Body::empty()).unwrap();
    refused(405, "M_UNRECOGNIZED")(answer(&app, request).await, "health");
}

/// A body that is made while it is read: `head`, so many chunks, `tail`.
fn streamed(head: &'static str, chunk: Vec<u8>, chunks: usize, tail: &'static str) -> Body {
    let chunk = bytes::Bytes::from(chunk);
    let pieces = std::iter::once(bytes::Bytes::from_static(head.as_bytes()))
        .chain(std::iter::repeat_n(chunk, chunks))
        .chain(std::iter::once(bytes::Bytes::from_static(tail.as_bytes())));
    Body::from_stream(futures_util::stream::iter(
        pieces.map(Ok::<_, std::io::Error>),
    ))
}

#[tokio::test]
async fn a_transaction_of_100_mib_is_accepted_and_what_is_well_formed_in_it_arrives() {
    const MIB: usize = 1 << 20;
    let (app, seen) = app();
    let junk = || vec![b'x'; MIB];
    let shapes = [
        ("{\"padding\":\"", junk(), "\",\"events\":[{\"a\":1}]}", 1),
        (
            "{\"events\":[{\"type\":\"t\",\"content\":\"",
            junk(),
            "\"},{\"a\":1}]}",
            1,
        ),
        (
            "{\"to_device\":[{\"content\":\"",
            junk(),
            "\"}],\"events\":[{\"a\":1}]}",
            1,
        ),
        (
            "{\"ephemeral\":[{\"content\":\"",
            junk(),
            "\"}],\"events\":[{\"a\":1}]}",
            1,
        ),
        ("{\"x\":", vec![b'['; MIB], "", 0),
    ];
    for (at, (head, chunk, tail, events)) in shapes.into_iter().enumerate() {
        let body = streamed(head, chunk, 100, tail);
        let path = format!("/transactions/{at}");
        let shown = answer(&app, request(Method::PUT, &path, body)).await;
        if events == 0 {
            refused(400, "M_NOT_JSON")(shown, head);
            continue;
        }
        assert_eq!(shown.0, StatusCode::OK, "{head}");
        let (_, taken, _) = seen.0.transactions.lock().unwrap().pop().unwrap();
        assert_eq!(taken, events, "{head}");
    }
    // A body that is large because there is much in it comes in parts.
    let event = format!("{{\"body\":\"{}\"}},", "x".repeat(60_000));
    let body = streamed("{\"events\":[", event.into_bytes(), 1700, "{\"a\":1}]}");
    let shown = answer(&app, request(Method::PUT, "/transactions/9", body)).await;
    assert_eq!(shown.0, StatusCode::OK);
    let parts = std::mem::take(&mut *seen.0.transactions.lock().unwrap());
    assert!(parts.len() > 40, "{} parts", parts.len());
    assert_eq!(
        parts.iter().map(|(_, events, _)| events).sum::<usize>(),
        1701
    );
    let shown = answer(
        &app,
        request(Method::POST, "/ping", vec![b' '; BODY_BYTES_MAX + 1]),
    )
    .await;
    refused(413, "M_TOO_LARGE")(shown, "ping");
}

#[tokio::test]
async fn a_transaction_that_can_never_be_read_does_not_come_for_good() {
    let (app, seen) = app();
    for _ in 0..3 {
        let shown = answer(
            &app,
            request(Method::PUT, "/transactions/1", "{\"events\":["),
        )
        .await;
        refused(400, "M_NOT_JSON")(shown, "cut short");
    }
    let shown = answer(
        &app,
        request(Method::PUT, "/transactions/1", "{\"events\":["),
    )
    .await;
    assert_eq!(shown.0, StatusCode::OK);
    assert_eq!(seen.0.transactions.lock().unwrap().len(), 1);
    // The next one has its own tries.
    let shown = answer(
        &app,
        request(Method::PUT, "/transactions/2", "{\"events\":["),
    )
    .await;
    refused(400, "M_NOT_JSON")(shown, "another");
}

#[tokio::test]
async fn what_is_not_json_is_refused_and_json_of_any_form_is_taken() {
    let (app, seen) = app();
    let not_json: [&[u8]; 7] = [
        b"",
        b"\0\0",
        b"{\"events\":[",
        b"<html>",
        b"{}{}",
        b"{\"events\":[}]",
        b"\x1f\x8b\x08\0",
    ];
    for (at, body) in not_json.into_iter().enumerate() {
        let path = format!("/transactions/{at}");
        let shown = answer(&app, request(Method::PUT, &path, body)).await;
        refused(400, "M_NOT_JSON")(shown, &String::from_utf8_lossy(body));
    }
    assert!(seen.0.transactions.lock().unwrap().is_empty());

    let deep = format!(
        "{{\"events\":[{}{}]}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    for body in [
        "{}",
        "[]",
        "null",
        "7",
        "\"text\"",
        "{\"events\":7}",
        "{\"events\":[7,null,\"x\",[]]}",
        "{\"events\":null,\"to_device\":{\"a\":1}}",
        "{\"device_lists\":{\"changed\":[\"x\",3]}}",
        "{\"events\":[{\"a\":1e999}]}",
        "{\"events\":[{\"a\":\"\\ud800\"}]}",
        "{\"events\":[],\"events\":[{}]}",
        &deep,
    ] {
        let shown = answer(
            &app,
            request(Method::PUT, "/transactions/1", body.to_owned()),
        )
        .await;
        assert_eq!(
            shown.0,
            StatusCode::OK,
            "{}",
            body.get(..80).unwrap_or(body)
        );
    }
}

proptest! {
    #[test]
    fn no_body_can_break_the_parser(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Transaction::parse(&body);
    }

    #[test]
    fn no_json_is_refused(body in json_value()) {
        let taken = Transaction::parse(json!({
            "events": body, "to_device": [body], "device_lists": {"changed": body},
            "device_one_time_keys_count": body, "org.matrix.msc3202.device_lists": body,
        }).to_string().as_bytes());
        prop_assert!(taken.is_ok());
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(@[a-z_]{1,5}:[a-z.]{1,5}|[ -~]{0,8}|\\PC{0,4})".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("(changed|left|@a:b|DEV|[a-z]{0,4})", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

#[tokio::test]
async fn ids_are_decoded_once_and_kept_within_bounds() {
    let (app, seen) = app();
    let long = "x".repeat(256);
    for (path, id) in [
        ("/transactions/a%2Fb", "a/b"),
        ("/transactions/a%252Fb", "a%2Fb"),
        ("/transactions/%E2%82%AC", "€"),
        ("/transactions/%00", "\0"),
        ("/transactions/..%2F..%2Fetc", "../../etc"),
        (&format!("/transactions/{}", &long[1..]), &long[1..]),
    ] {
        let (status, _) = answer(&app, request(Method::PUT, path, "{}")).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_eq!(seen.0.transactions.lock().unwrap().pop().unwrap().0, id);
    }
    for path in ["/transactions/%FF%FE", &format!("/transactions/{long}")] {
        let shown = answer(&app, request(Method::PUT, path, "{}")).await;
        refused(400, "M_INVALID_PARAM")(shown, path);
    }
}

#[tokio::test]
async fn a_ping_reaches_us_with_its_id() {
    let (app, seen) = app();
    for body in [
        r#"{"transaction_id":"abc"}"#,
        "{}",
        r#"{"transaction_id":null,"more":[]}"#,
    ] {
        let (status, body) = answer(&app, request(Method::POST, "/ping", body)).await;
        assert_eq!((status, body), (StatusCode::OK, json!({})));
    }
    assert_eq!(
        *seen.0.pings.lock().unwrap(),
        [Some("abc".to_owned()), None, None]
    );
    refused(400, "M_NOT_JSON")(
        answer(&app, request(Method::POST, "/ping", "{")).await,
        "cut",
    );
    let long = json!({"transaction_id": "x".repeat(300)}).to_string();
    for body in ["[]", r#"{"transaction_id":7}"#, &long] {
        let shown = answer(&app, request(Method::POST, "/ping", body.to_owned())).await;
        refused(400, "M_BAD_JSON")(shown, body);
    }
    assert_eq!(seen.0.pings.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn only_users_that_exist_exist_and_no_room_does() {
    let (app, _) = app();
    for path in [
        "/users/@_dm_sam:example.org",
        "/users/%40_dm_sam%3Aexample.org",
    ] {
        assert_eq!(get(&app, path).await, (StatusCode::OK, json!({})), "{path}");
    }
    let long = format!("/users/@_dm_{}:example.org", "x".repeat(5000));
    for path in [
        "/users/@_dm_kim:example.org",
        "/users/@sam:example.org",
        "/users/@_dm_sam:example.com",
        "/users/sam",
        "/users/%00",
        "/users/@_dm_sam",
        "/users/@:",
        "/rooms/%23sam:example.org",
        "/rooms/x",
        &long,
    ] {
        refused(404, "M_NOT_FOUND")(get(&app, path).await, path);
    }
    refused(400, "M_INVALID_PARAM")(get(&app, "/users/%FF").await, "no UTF-8");
}

#[tokio::test]
async fn a_handle_is_found_and_what_is_not_found_looks_the_same() {
    let (app, seen) = app();
    let found = json!([{
        "userid": "@_dm_sam:example.org", "protocol": "stonechat", "fields": {"handle": "Sam"},
    }]);
    for path in [
        "/thirdparty/user/stonechat?handle=sam",
        "/thirdparty/user/stonechat?handle=%40sam",
        "/thirdparty/user/stonechat?handle=+sam+&x=y",
        "/thirdparty/user?userid=@_dm_sam:example.org",
    ] {
        assert_eq!(
            get(&app, path).await,
            (StatusCode::OK, found.clone()),
            "{path}"
        );
    }
    seen.0.lookups.lock().unwrap().clear();
    let long = format!("/thirdparty/user/stonechat?handle={}", "x".repeat(400));
    for path in [
        "/thirdparty/user/stonechat",
        "/thirdparty/user/stonechat?handle=sam&handle=kim",
        "/thirdparty/user",
        "/thirdparty/user?userid=sam",
        "/thirdparty/user?userid=@sam:example.org",
        "/thirdparty/user?userid=@_dm_sam:example.com",
        "/thirdparty/user/stonechat?%",
        "/thirdparty/location/stonechat?handle=sam",
        "/thirdparty/location?alias=%23a:b",
        &long,
    ] {
        assert_eq!(get(&app, path).await, (StatusCode::OK, json!([])), "{path}");
    }
    assert!(
        seen.0.lookups.lock().unwrap().is_empty(),
        "nobody was asked"
    );
    for path in [
        "/thirdparty/user/irc?handle=sam",
        "/thirdparty/protocol/irc",
        "/thirdparty/location/irc",
        "/thirdparty/user/STONECHAT?handle=sam",
    ] {
        refused(404, "M_NOT_FOUND")(get(&app, path).await, path);
    }
}

#[tokio::test]
async fn clients_are_told_what_a_handle_looks_like() {
    let (app, _) = app();
    let (status, body) = get(&app, "/thirdparty/protocol/stonechat").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        json!({
            "user_fields": ["handle"],
            "location_fields": [],
            "icon": "",
            "field_types": {
                "handle": {"regexp": "@?[A-Za-z0-9_]{1,15}", "placeholder": "sam"},
            },
            "instances": [{
                "desc": "Handles on example.org",
                "icon": "",
                "fields": {},
                "network_id": "stonechat",
            }],
        })
    );
}

#[tokio::test]
async fn above_the_limit_a_lookup_finds_nothing() {
    let recorder = Recorder::default();
    let mut options = options();
    options.lookups_per_second = NonZeroU32::new(3).unwrap();
    let app = router(recorder.clone(), options);
    let mut found = 0;
    for n in 0..20 {
        let path = if n % 2 == 0 {
            "/thirdparty/user/stonechat?handle=sam"
        } else {
            "/thirdparty/user?userid=@_dm_sam:example.org"
        };
        let (status, body) = get(&app, path).await;
        assert_eq!(status, StatusCode::OK);
        found += body.as_array().unwrap().len();
    }
    assert!((3..10).contains(&found), "{found} found");
    assert_eq!(recorder.0.lookups.lock().unwrap().len(), found);
}

#[tokio::test]
async fn readiness_needs_no_token_and_names_the_part_that_is_not_well() {
    use super::HealthPart::{Homeserver, Transactions};
    let options = options();
    let health = options.health.clone();
    let app = router(Recorder::default(), options);
    let ready = async || {
        let mut answers = Vec::new();
        for path in ["/health", "/health/ready"] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            answers.push(answer(&app, request).await);
        }
        assert_eq!(answers[0], answers[1]);
        answers.swap_remove(0)
    };
    let (status, body) = ready().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["status"], "starting");
    health.mark_started();
    let (status, body) = ready().await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("ok")));
    for (part, name) in [(Homeserver, "homeserver"), (Transactions, "transactions")] {
        health.set_part(part, Err("it is away"));
        let (status, body) = ready().await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
        assert_eq!(body["status"], "not ready");
        for (other, state) in body["parts"].as_object().unwrap() {
            let right = if other == name { "it is away" } else { "ok" };
            assert_eq!(state, right, "{other} while {name} is away");
        }
        assert!(!health.is_ready());
        health.set_part(part, Ok(()));
        assert_eq!(ready().await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_store_that_has_failed_is_not_ready_and_still_alive() {
    let failure = crate::store::StoreFailure::default();
    let health = super::Health::new(failure.clone());
    health.mark_started();
    let options = Options {
        health,
        ..options()
    };
    let app = router(Recorder::default(), options);
    let ask = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    assert_eq!(answer(&app, ask("/health/ready")).await.0, StatusCode::OK);
    failure.record(&crate::store::StoreError::Full {
        path: "/secret/place".into(),
        why: "No space left on device".to_owned(),
    });
    let (status, body) = answer(&app, ask("/health/ready")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["parts"]["store"], "it has failed; see the log");
    assert!(!body.to_string().contains("secret"), "{body}");
    let (status, body) = answer(&app, ask("/health/live")).await;
    assert_eq!((status, body), (StatusCode::OK, json!({"status": "ok"})));
}

#[tokio::test]
async fn a_probe_does_not_keep_its_connection() {
    let (app, _) = app();
    for path in ["/health", "/health/ready", "/health/live"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()[header::CONNECTION], "close", "{path}");
    }
}

#[test]
fn the_token_does_not_show_in_debug_output() {
    assert!(!format!("{:?}", options()).contains("0123"));
}
