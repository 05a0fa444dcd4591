//! Transactions, pings and their bodies.

use axum::body::Body;
use http::{Method, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{SOME, answer, app, refused, request};
use crate::{
    matrix::transaction::Transaction, server::BODY_BYTES_MAX, testing::RecordedTransaction,
};

#[tokio::test]
async fn a_transaction_is_accepted_with_its_events_and_to_device_messages() {
    let (app, appservice) = app();
    let (status, body) = answer(&app, request(Method::PUT, "/transactions/17", SOME)).await;
    assert_eq!((status, body), (StatusCode::OK, json!({})));
    assert_eq!(
        appservice.transactions(),
        [RecordedTransaction {
            id: "17".to_owned(),
            events: 2,
            to_device: 1,
            after_gap: true,
        }]
    );
}

#[tokio::test]
async fn a_transaction_that_is_not_durable_is_not_acknowledged() {
    let (app, appservice) = app();
    appservice.set_failing(true);
    let (status, body) = answer(&app, request(Method::PUT, "/transactions/1", SOME)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        !body.to_string().contains("disk"),
        "the reason is for our log alone: {body}"
    );
    appservice.set_failing(false);
    let (status, _) = answer(&app, request(Method::PUT, "/transactions/1", SOME)).await;
    assert_eq!(status, StatusCode::OK);
}

/// Returns a body that is produced while it is read: `head`, `chunk` repeated, and `tail`.
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
async fn a_transaction_of_100_mib_is_accepted_and_its_well_formed_items_arrive() {
    const MIB: usize = 1 << 20;
    let (app, appservice) = app();
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
        let accepted = appservice.take_transactions().pop().unwrap();
        assert_eq!(accepted.events, events, "{head}");
    }
    // A body that is large because it holds many events comes in parts.
    let event = format!("{{\"body\":\"{}\"}},", "x".repeat(60_000));
    let body = streamed("{\"events\":[", event.into_bytes(), 1700, "{\"a\":1}]}");
    let shown = answer(&app, request(Method::PUT, "/transactions/9", body)).await;
    assert_eq!(shown.0, StatusCode::OK);
    let parts = appservice.take_transactions();
    assert!(parts.len() > 40, "{} parts", parts.len());
    assert_eq!(parts.iter().map(|part| part.events).sum::<usize>(), 1701);
    let shown = answer(
        &app,
        request(Method::POST, "/ping", vec![b' '; BODY_BYTES_MAX + 1]),
    )
    .await;
    refused(413, "M_TOO_LARGE")(shown, "ping");
}

#[tokio::test]
async fn a_transaction_that_stays_unreadable_is_acknowledged_in_the_end() {
    let (app, appservice) = app();
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
    assert_eq!(appservice.transactions().len(), 1);
    // The next one has its own tries.
    let shown = answer(
        &app,
        request(Method::PUT, "/transactions/2", "{\"events\":["),
    )
    .await;
    refused(400, "M_NOT_JSON")(shown, "another");
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused_and_json_of_any_form_accepted() {
    let (app, appservice) = app();
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
    assert!(appservice.transactions().is_empty());

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
    let (app, appservice) = app();
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
        assert_eq!(appservice.take_transactions().pop().unwrap().id, id);
    }
    for path in ["/transactions/%FF%FE", &format!("/transactions/{long}")] {
        let shown = answer(&app, request(Method::PUT, path, "{}")).await;
        refused(400, "M_INVALID_PARAM")(shown, path);
    }
}

#[tokio::test]
async fn a_ping_reaches_us_with_its_id() {
    let (app, appservice) = app();
    for body in [
        r#"{"transaction_id":"abc"}"#,
        "{}",
        r#"{"transaction_id":null,"more":[]}"#,
    ] {
        let (status, body) = answer(&app, request(Method::POST, "/ping", body)).await;
        assert_eq!((status, body), (StatusCode::OK, json!({})));
    }
    assert_eq!(appservice.pings(), [Some("abc".to_owned()), None, None]);
    refused(400, "M_NOT_JSON")(
        answer(&app, request(Method::POST, "/ping", "{")).await,
        "cut",
    );
    let long = json!({"transaction_id": "x".repeat(300)}).to_string();
    for body in ["[]", r#"{"transaction_id":7}"#, &long] {
        let shown = answer(&app, request(Method::POST, "/ping", body.to_owned())).await;
        refused(400, "M_BAD_JSON")(shown, body);
    }
    assert_eq!(appservice.pings().len(), 3);
}
