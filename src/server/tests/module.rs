//! Requests of the module in the homeserver.

use std::time::Duration;

use axum::{Router, body::Body};
use http::{Method, Request, StatusCode, header};
use ruma::{server_name, user_id};
use secrecy::SecretString;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::TOKEN;
use crate::{
    clock::Timestamp,
    directory::{BlockScope, ClaimedBy, Directory, DirectorySettings},
    handle::{Handle, HandleRules, Typed},
    server::{ModuleStatus, Options, SelfTest, Token, router},
    store::Store,
    testing::{FakeAppservice, person},
};

const MODULE: &str = "mod_0123456789abcdef0123456789abcdef";

/// Returns a service in whose directory `@sam` belongs to `@samuel`, who has blocked `@bob`.
async fn appservice_with_sam() -> FakeAppservice {
    let settings = DirectorySettings::new(server_name!("example.org").to_owned());
    let directory = Directory::new(Store::in_memory(), settings);
    let mut tx = directory.begin().await;
    let (owner, sam) = (person("@samuel:example.org"), handle("sam"));
    tx.claim(owner, &sam, ClaimedBy::Person, Timestamp(1))
        .unwrap();
    let bob = Typed::Person(user_id!("@bob:example.org").to_owned());
    let scope = BlockScope::Handle(sam);
    tx.block(owner, &bob, &scope, Timestamp(1)).unwrap();
    tx.commit().await.unwrap();
    FakeAppservice::new().with_directory(directory)
}

fn handle(text: &str) -> Handle {
    Handle::parse(text, &HandleRules::default()).unwrap()
}

fn options() -> Options {
    Options {
        module_token: Some(Token::new(&SecretString::from(MODULE))),
        ..super::options()
    }
}

async fn send(
    app: &Router,
    method: Method,
    path: &str,
    token: &str,
    body: impl Into<Body>,
) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(body.into())
        .unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 4 << 20).await;
    (
        status,
        serde_json::from_slice(&body.unwrap()).unwrap_or(Value::Null),
    )
}

async fn ask(app: &Router, what: &str, body: &Value) -> (StatusCode, Value) {
    let path = format!("/_stonechat/v1/{what}");
    send(app, Method::POST, &path, MODULE, body.to_string()).await
}

fn room(asker: &str, handles: &[&str], people: &[&str]) -> Value {
    json!({
        "asker": asker, "handles": handles, "people": people, "direct": true, "encrypted": true,
    })
}

#[tokio::test]
async fn owners_are_named_and_no_reason_is_given_for_other_ghosts() {
    let app = router(appservice_with_sam().await, options());
    let (sam, nobody) = ("@_dm_sam:example.org", "@_dm_nobody:example.org");
    let body = room(
        "@alice:example.org",
        &[sam, nobody],
        &["@samuel:example.org"],
    );
    let answer = ask(&app, "introduce", &body).await;
    let handles = json!({ sam: { "owner": "@samuel:example.org" }, nobody: { "owner": null } });
    let wanted = json!({ "handles": handles, "blocked": [] });
    assert_eq!(answer, (StatusCode::OK, wanted));

    // Blocked by his handle, and by his name.
    let body = room(
        "@bob:example.org",
        &[sam],
        &["@samuel:example.org", "@kim:example.org"],
    );
    let answer = ask(&app, "introduce", &body).await;
    let handles = json!({ sam: { "owner": null } });
    let wanted = json!({ "handles": handles, "blocked": ["@samuel:example.org"] });
    assert_eq!(answer, (StatusCode::OK, wanted.clone()));
    let people = json!(["@samuel:example.org", "@kim:example.org"]);
    let body = json!({ "inviter": "@bob:example.org", "people": people });
    let (status, answer) = ask(&app, "blocked", &body).await;
    assert_eq!(
        (status, &answer["blocked"]),
        (StatusCode::OK, &wanted["blocked"])
    );
    let body = json!({ "inviter": "@alice:example.org", "people": people });
    let (_, answer) = ask(&app, "blocked", &body).await;
    assert_eq!(answer["blocked"], json!([]));
}

#[tokio::test]
async fn in_an_unencrypted_room_every_ghost_stays_and_nothing_is_counted() {
    let appservice = appservice_with_sam().await;
    let app = router(appservice.clone(), options());
    let mut body = room("@alice:example.org", &["@_dm_sam:example.org"], &[]);
    body["encrypted"] = json!(false);
    let (status, answer) = ask(&app, "introduce", &body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        answer["handles"]["@_dm_sam:example.org"]["owner"],
        Value::Null
    );
    assert_eq!(appservice.owner_queries(), 0);
}

#[tokio::test]
async fn the_modules_token_is_valid_for_its_own_paths_alone() {
    let appservice = appservice_with_sam().await;
    let app = router(appservice.clone(), options());
    let body = room("@alice:example.org", &["@_dm_sam:example.org"], &[]).to_string();
    for what in ["introduce", "blocked", "module"] {
        let path = format!("/_stonechat/v1/{what}");
        for wrong in [TOKEN, "x", &MODULE[1..], &MODULE.to_uppercase()] {
            let (status, answer) = send(&app, Method::POST, &path, wrong, body.clone()).await;
            assert_eq!(
                (status, &answer["errcode"]),
                (StatusCode::FORBIDDEN, &json!("M_FORBIDDEN")),
                "{what} {wrong}"
            );
        }
        let (status, _) = send(&app, Method::GET, &path, MODULE, "").await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    }
    for (method, path) in [
        (Method::PUT, "/_matrix/app/v1/transactions/1"),
        (Method::POST, "/_matrix/app/v1/ping"),
        (Method::GET, "/_matrix/app/v1/users/@_dm_sam:example.org"),
    ] {
        let (status, _) = send(&app, method, path, MODULE, "{}").await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(appservice.owner_queries(), 0);

    // Without a token for the module its paths do not exist.
    let closed = router(appservice.clone(), super::options());
    for token in [MODULE, TOKEN, ""] {
        let path = "/_stonechat/v1/introduce";
        let (status, _) = send(&closed, Method::POST, path, token, body.clone()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{token}");
    }
}

#[tokio::test]
async fn malformed_or_large_requests_are_refused_and_invalid_user_ids_ignored() {
    let appservice = appservice_with_sam().await;
    let app = router(appservice.clone(), options());
    let alice = "@alice:example.org";
    let path = "/_stonechat/v1/introduce";
    for (body, errcode) in [
        ("", "M_NOT_JSON"),
        ("{", "M_NOT_JSON"),
        ("[]", "M_BAD_JSON"),
        ("{}", "M_BAD_JSON"),
        (
            r#"{"asker":5,"handles":[],"direct":true,"encrypted":true}"#,
            "M_BAD_JSON",
        ),
        (
            r#"{"asker":"@a:b","handles":[5],"direct":true,"encrypted":true}"#,
            "M_BAD_JSON",
        ),
    ] {
        let (status, answer) = send(&app, Method::POST, path, MODULE, body).await;
        assert_eq!(
            (status, &answer["errcode"]),
            (StatusCode::BAD_REQUEST, &json!(errcode)),
            "{body}"
        );
    }
    let eleven: Vec<_> = (0..11).map(|n| format!("@_dm_h{n}:example.org")).collect();
    let eleven: Vec<_> = eleven.iter().map(String::as_str).collect();
    let (status, _) = ask(&app, "introduce", &room(alice, &eleven, &[])).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let crowd = vec!["@guest:example.org"; 1001];
    let (status, _) = ask(&app, "introduce", &room(alice, &[], &crowd)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = ask(&app, "blocked", &json!({"inviter": alice, "people": crowd})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, answer) = send(&app, Method::POST, path, MODULE, vec![b' '; 3 << 20]).await;
    assert_eq!(
        (status, &answer["errcode"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("M_TOO_LARGE"))
    );
    assert_eq!(appservice.owner_queries(), 0);

    let sam = "@_dm_sam:example.org";
    let body = room(alice, &["nonsense", sam], &["@", "@samuel:example.org"]);
    let (status, answer) = ask(&app, "introduce", &body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["handles"]["nonsense"]["owner"], Value::Null);
    assert_eq!(answer["handles"][sam]["owner"], "@samuel:example.org");
    let (status, answer) = ask(&app, "introduce", &room("somebody", &[sam], &[])).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["handles"][sam]["owner"], Value::Null);
}

#[tokio::test]
async fn a_failed_store_is_answered_by_503_without_its_reason() {
    let appservice = appservice_with_sam().await;
    appservice.set_failing(true);
    let app = router(appservice.clone(), options());
    let body = room("@alice:example.org", &["@_dm_sam:example.org"], &[]);
    let (status, answer) = ask(&app, "introduce", &body).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.to_string().contains("disk"), "{answer}");
}

#[tokio::test]
async fn the_reports_of_each_worker_are_remembered_for_those_who_wait() {
    let self_test = SelfTest::default();
    let options = Options {
        self_test: self_test.clone(),
        ..options()
    };
    let app = router(appservice_with_sam().await, options);
    let nobody = self_test.module().wait_for_call(0, Duration::ZERO).await;
    assert_eq!(nobody, ModuleStatus::default());
    let waiting = tokio::spawn({
        let self_test = self_test.clone();
        async move { self_test.module().next_status(0).await }
    });
    let report = |worker: &str, called: bool| json!({"version": "0.1.0", "synapse": "1.163.2", "worker": worker, "called": called});
    // An older module names no worker.
    let long = format!("1.163.2\n{}", "x".repeat(100));
    for body in [
        json!({"version": "0.1.0", "synapse": long}),
        report("generic1", false),
        report("main", false),
        report("generic1", true),
    ] {
        let (status, _) = ask(&app, "module", &body).await;
        assert_eq!(status, StatusCode::OK);
    }
    let seen = waiting.await.unwrap();
    assert_eq!(seen.calls, 1);
    let workers = |seen: &ModuleStatus| -> Vec<String> {
        seen.workers.iter().map(|it| it.worker.clone()).collect()
    };
    assert_eq!(workers(&seen), ["", "main", "generic1"]);
    let old = &seen.workers[0];
    assert_eq!(old.version, "0.1.0");
    assert!(
        old.synapse.starts_with("1.163.2xxx") && old.synapse.len() == 40,
        "{}",
        old.synapse
    );
    let (status, _) = ask(&app, "module", &json!({"version": 5})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);

    // Those who were heard of last stay, with names that are not too long.
    for n in 0..70 {
        ask(&app, "module", &report(&format!("\u{1b}worker{n}"), false)).await;
    }
    ask(&app, "module", &report(&"w".repeat(1000), false)).await;
    let seen = self_test.module().wait_for_call(0, Duration::ZERO).await;
    let workers = workers(&seen);
    assert_eq!(workers.len(), 64);
    assert_eq!(workers[0], "worker7");
    assert_eq!(workers[63], "w".repeat(64));
}

#[tokio::test]
async fn a_deactivated_account_of_this_server_is_passed_on() {
    let appservice = appservice_with_sam().await;
    let app = router(appservice.clone(), options());
    let path = "/_stonechat/v1/deactivated";
    let report = |user: &str| json!({ "user": user }).to_string();
    for (user, expected) in [
        ("@samuel:example.org", StatusCode::OK),
        // Of other servers it knows nothing, and this is no Matrix ID.
        ("@sam:far.example", StatusCode::BAD_REQUEST),
        ("samuel", StatusCode::BAD_REQUEST),
    ] {
        let (status, _) = send(&app, Method::POST, path, MODULE, report(user)).await;
        assert_eq!(status, expected, "{user}");
    }
    let (status, _) = send(
        &app,
        Method::POST,
        path,
        TOKEN,
        report("@samuel:example.org"),
    )
    .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(appservice.deactivated(), ["@samuel:example.org"]);
}
