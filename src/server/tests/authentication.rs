//! Requests without the right token, and with an unknown path or method.

use axum::body::Body;
use http::{Method, Request, StatusCode, header};

use super::{SOME, TOKEN, answer, app, options, refused, request};

#[tokio::test]
async fn without_the_right_token_nothing_is_done() {
    let (app, appservice) = app();
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
    assert!(appservice.transactions().is_empty());
    assert!(appservice.pings().is_empty());
    assert!(appservice.take_lookups().is_empty());
}

#[tokio::test]
async fn a_token_in_the_url_counts_for_nothing() {
    let (app, appservice) = app();
    let path = format!("/transactions/1?access_token={TOKEN}");
    let mut bare = request(Method::PUT, &path, SOME);
    bare.headers_mut().remove(header::AUTHORIZATION);
    refused(401, "M_MISSING_TOKEN")(answer(&app, bare).await, "only in the URL");
    assert!(appservice.transactions().is_empty());
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

#[test]
fn the_token_does_not_show_in_debug_output() {
    assert!(!format!("{:?}", options()).contains("0123"));
}
