//! Attacks and accidents, as requests to the router, and over real connections.

mod admin;
mod authentication;
mod connections;
mod health;
mod module;
mod queries;
mod transactions;

use std::num::NonZeroU32;

use axum::{Router, body::Body};
use http::{Method, Request, StatusCode, header};
use ruma::user_id;
use secrecy::SecretString;
use serde_json::Value;
use tower::ServiceExt;

use super::{Health, Options, SelfTest, Token, router};
use crate::testing::FakeAppservice;

const TOKEN: &str = "hs_0123456789abcdef0123456789abcdef";
const API: &str = "/_matrix/app/v1";

fn options() -> Options {
    Options {
        token: Token::new(&SecretString::from(TOKEN)),
        module_token: None,
        lookups_per_second: NonZeroU32::new(1000).unwrap(),
        handle_chars_max: 15,
        server_name: ruma::server_name!("example.org").to_owned(),
        self_test: SelfTest::default(),
        health: Health::default(),
    }
}

/// Returns a service that knows the handle `Sam`.
fn fake_appservice() -> FakeAppservice {
    FakeAppservice::new().with_handle("Sam", user_id!("@_dm_sam:example.org"))
}

fn app() -> (Router, FakeAppservice) {
    let appservice = fake_appservice();
    (router(appservice.clone(), options()), appservice)
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
    move |(expected, body), what| {
        assert_eq!(
            (expected.as_u16(), body["errcode"].as_str()),
            (status, Some(&*errcode)),
            "{what}"
        );
        assert!(body["error"].is_string(), "{what}: {body}");
    }
}

const SOME: &str = r#"{"events":[{"type":"a"},{"type":"b"}],"to_device":[{"type":"c"}]}"#;
