//! The answers to probes.

use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::json;
use tower::ServiceExt;

use super::{answer, app, fake_appservice, options};
use crate::server::{Health, Options, router};

#[tokio::test]
async fn readiness_needs_no_token_and_names_the_part_that_is_not_well() {
    use crate::server::HealthPart::{Homeserver, Transactions};
    let options = options();
    let health = options.health.clone();
    let app = router(fake_appservice(), options);
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
    let health = Health::new(failure.clone());
    health.mark_started();
    let options = Options {
        health,
        ..options()
    };
    let app = router(fake_appservice(), options);
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
