//! The checks against a homeserver that is wrong in one way at a time. The stories show that they
//! pass on a real Synapse.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, delete, get, post, put},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::{
    cli::reload::ConfigReload,
    cli::{admin::RunningService, run::server_options, tests::Home},
    engine::{Stamp, StampHistory},
    permissions::CurrentPermissions,
    server::{Admin, AdminSocket, Health, Limits, Listener, SelfTest},
    shutdown,
    testing::FakeAppservice,
};

mod ghosts;
mod settings;

/// The name of a request, and the wrong status and body of its answer.
type Wrong = (&'static str, u16, Value);

struct Fake {
    wrong: Option<Wrong>,
    /// The URL that it pushes to, and the token.
    push: Mutex<Option<(String, String)>>,
    pushes_to_device: bool,
    /// The number of events and to-device messages that are still to be lost while pushes pause.
    lost: AtomicUsize,
    encrypts: bool,
}

impl Fake {
    fn or(&self, name: &str, right: Value) -> Response {
        match &self.wrong {
            Some((wrong, status, body)) if *wrong == name => {
                (StatusCode::from_u16(*status).unwrap(), Json(body.clone())).into_response()
            }
            _ => Json(right).into_response(),
        }
    }

    /// Pushes a transaction, unless pushes pause.
    async fn push_transaction(&self, to_device: Value) {
        let lose = |lost: usize| lost.checked_sub(1);
        if self.lost.fetch_update(SeqCst, SeqCst, lose).is_err() {
            let body = json!({"events": [], "de.sorunome.msc2409.to_device": to_device});
            self.push(http::Method::PUT, "/transactions/1", &body).await;
        }
    }

    async fn push(&self, method: http::Method, path: &str, body: &Value) -> u16 {
        let Some((url, token)) = self.push.lock().unwrap().clone() else {
            return 0;
        };
        let request = reqwest::Client::new().request(method, format!("{url}/_matrix/app/v1{path}"));
        let answer = request.bearer_auth(token).json(body).send().await;
        answer.map_or(0, |answer| answer.status().as_u16())
    }
}

type Shared = State<Arc<Fake>>;

async fn homeserver(fake: Arc<Fake>) -> String {
    let about = Router::new()
        .route(
            "/_synapse/admin/v1/server_version",
            get(async |State(fake): Shared| {
                fake.or("admin version", json!({"server_version": "1.163.2"}))
            }),
        )
        .route(
            "/_matrix/federation/v1/version",
            get(async |State(fake): Shared| {
                let server = json!({"name": "Synapse", "version": "1.142.1"});
                fake.or("version", json!({"server": server}))
            }),
        )
        .with_state(Arc::clone(&fake));
    let api = Router::new()
        .route(
            "/versions",
            get(async |State(fake): Shared| fake.or("versions", json!({"versions": ["v1.11"]}))),
        )
        .route(
            "/v3/register",
            post(async |State(fake): Shared, Json(body): Json<Value>| {
                if body["type"] == "m.login.application_service" {
                    fake.or("register", json!({"user_id": "@_dm_.check:example.org"}))
                } else {
                    fake.or(
                        "register as anybody",
                        json!({"errcode": "M_INVALID_USERNAME"}),
                    )
                }
            }),
        )
        .route(
            "/v3/register/available",
            get(async |State(fake): Shared| fake.or("available", json!({"available": true}))),
        )
        .route(
            "/v3/account/whoami",
            get(async |State(fake): Shared, Query(query): Query<Value>| {
                let device = query.get("device_id");
                let name = if device.is_some() {
                    "whoami with device"
                } else {
                    "whoami"
                };
                fake.or(
                    name,
                    json!({"user_id": query["user_id"], "device_id": device}),
                )
            }),
        )
        .route(
            "/v3/devices/{id}",
            put(async |State(fake): Shared| fake.or("device", json!({}))),
        )
        .route("/v3/devices/{id}", delete(async || Json(json!({}))))
        .route(
            "/v3/keys/query",
            post(async |State(fake): Shared, Json(body): Json<Value>| {
                let asked = body["device_keys"].as_object().into_iter().flatten();
                let shown = asked.map(|(user, _)| {
                    let number = user
                        .trim_start_matches("@_dm_g")
                        .trim_end_matches(":example.org");
                    (user.clone(), json!({ format!("STONE{number}"): {} }))
                });
                let shown: serde_json::Map<String, Value> = shown.collect();
                let masters = shown.keys().map(|user| (user.clone(), json!({})));
                let masters: serde_json::Map<String, Value> = masters.collect();
                fake.or(
                    "keys",
                    json!({ "device_keys": shown, "master_keys": masters }),
                )
            }),
        )
        .route(
            "/v1/appservice/{id}/ping",
            post(async |State(fake): Shared, Json(body): Json<Value>| {
                fake.push(http::Method::POST, "/ping", &body).await;
                fake.or("ping", json!({"duration_ms": 3}))
            }),
        )
        .route(
            "/v3/sendToDevice/{kind}/{txn}",
            put(
                async |State(fake): Shared,
                       Path((kind, _)): Path<(String, String)>,
                       Query(query): Query<Value>,
                       Json(body): Json<Value>| {
                    let content = body["messages"]
                        .as_object()
                        .unwrap()
                        .values()
                        .next()
                        .unwrap();
                    let content = content.as_object().unwrap().values().next().unwrap();
                    let message = json!({
                        "type": kind, "sender": query["user_id"], "content": content,
                        "to_user_id": query["user_id"], "to_device_id": query["device_id"],
                    });
                    if fake.pushes_to_device {
                        fake.push_transaction(json!([message])).await;
                    }
                    fake.or("sendToDevice", json!({}))
                },
            ),
        )
        .route(
            "/v3/createRoom",
            post(async |State(fake): Shared| {
                fake.push_transaction(json!([])).await;
                Json(json!({"room_id": "!room:example.org"}))
            }),
        )
        .route(
            "/v3/rooms/{room}/state",
            get(async |State(fake): Shared| {
                let kind = if fake.encrypts {
                    "m.room.encryption"
                } else {
                    "m.room.topic"
                };
                Json(json!([{"type": kind, "state_key": "", "content": {}}]))
            }),
        )
        .route("/v3/rooms/{room}/leave", post(async || Json(json!({}))))
        .route("/v3/rooms/{room}/forget", post(async || Json(json!({}))))
        .route(
            "/v3/joined_rooms",
            get(async |State(fake): Shared| fake.or("joined", json!({"joined_rooms": []}))),
        )
        .route(
            "/v3/profile/{user}",
            get(async |State(fake): Shared| fake.or("profile", json!({"displayname": "bot"}))),
        )
        .route(
            "/v3/user_directory/search",
            post(async |State(fake): Shared| {
                let found = json!([{"user_id": "@_dm_.bot:example.org"}]);
                fake.or("search", json!({"limited": false, "results": found}))
            }),
        )
        .route(
            "/v3/voip/turnServer",
            get(async |State(fake): Shared| fake.or("turn", json!({}))),
        )
        .route(
            "/unstable/org.matrix.msc4143/rtc/transports",
            get(async |State(fake): Shared| {
                fake.or("rtc", json!({"rtc_transports": [{"type": "livekit"}]}))
            }),
        )
        .route(
            "/v3/user/{user}/account_data/{kind}",
            get(async |State(fake): Shared| fake.or("account data", json!({}))),
        )
        .fallback(any(async || {
            (
                StatusCode::NOT_FOUND,
                Json(json!({"errcode": "M_UNRECOGNIZED", "error": "what"})),
            )
        }))
        .with_state(fake);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().nest("/_matrix/client", api).merge(about);
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// A homeserver, Stonechat, and the two observers of the homeserver's pushes.
struct Both {
    setup: Setup,
    fake: Arc<Fake>,
    appservice: FakeAppservice,
    here: Observer,
    running: Observer,
    folder: tempfile::TempDir,
    _trigger: shutdown::Trigger,
}

impl Both {
    async fn new(fake: Fake) -> Self {
        let home = Home::new();
        home.init(&[]).unwrap();
        let mut setup = home.load();
        let fake = Arc::new(fake);
        setup.config.homeserver.url = homeserver(Arc::clone(&fake)).await.parse().unwrap();
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), Limits::default())
            .await
            .unwrap();
        setup.config.appservice.listen = listener.address();
        let self_test = SelfTest::default();
        let here = Observer::Local(self_test.clone());
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::Store::in_memory();
        let admin = Admin {
            stores: crate::crypto::store::GhostStores::open(&store).unwrap(),
            store,
            health: Health::default(),
            self_test: self_test.clone(),
            clock: Arc::new(crate::clock::SystemClock),
            reload: Arc::new(ConfigReload::new(
                &setup,
                CurrentPermissions::new(setup.permissions()),
            )),
            engine: crate::server::StartedEngine::never(),
        };
        let socket = AdminSocket::bind(folder.path()).await.unwrap();
        let options = server_options(&setup, self_test, Health::default());
        let appservice = FakeAppservice::new();
        let (trigger, shutdown) = shutdown::channel();
        tokio::spawn(socket.serve(crate::server::admin_router(admin), shutdown.clone()));
        let url = format!("http://{}", listener.address());
        tokio::spawn(listener.serve(crate::server::router(appservice.clone(), options), shutdown));
        let token = setup.registration.hs_token.expose_secret().to_owned();
        *fake.push.lock().unwrap() = Some((url, token));
        let running = RunningService::find(folder.path()).await.unwrap().unwrap();
        let running = Observer::Running(running);
        Self {
            setup,
            fake,
            appservice,
            here,
            running,
            folder,
            _trigger: trigger,
        }
    }

    async fn checker(&self) -> Checker<'_> {
        Checker {
            speedup: 30,
            ..Checker::connect(&self.setup).await.unwrap()
        }
    }
}

fn right() -> Fake {
    Fake {
        wrong: None,
        push: Mutex::default(),
        pushes_to_device: true,
        lost: AtomicUsize::new(0),
        encrypts: true,
    }
}

fn wrong(name: &'static str, status: u16, body: Value) -> Fake {
    Fake {
        wrong: Some((name, status, body)),
        ..right()
    }
}

fn code(errcode: &str) -> Value {
    json!({"errcode": errcode, "error": "HTTP 403 as the homeserver says it"})
}

#[tokio::test]
async fn a_right_homeserver_passes() {
    let mut fake = right();
    fake.wrong = Some(("available", 400, code("M_INVALID_USERNAME")));
    let both = Both::new(fake).await;
    let checker = both.checker().await;
    checker.check_token().await.unwrap();
    checker.check_device().await.unwrap();
    checker.check_namespace().await.unwrap();
    checker.check_encryption_by_default().await.unwrap();
    for observer in [&both.here, &both.running] {
        checker.check_ping(observer).await.unwrap();
        checker.check_to_device(observer).await.unwrap();
    }
    checker.clean_up().await;
    let accepted = both.appservice.transactions();
    assert!(
        accepted
            .iter()
            .all(|transaction| transaction.to_device == 0),
        "messages of the checks go no further: {accepted:?}"
    );
}

#[tokio::test]
async fn a_homeserver_that_is_not_there_may_come_and_another_service_may_not() {
    let home = Home::new();
    home.init(&[]).unwrap();
    let mut setup = home.load();
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    setup.config.homeserver.url = format!("http://{free}").parse().unwrap();
    let problem = Checker::connect(&setup).await.err().unwrap();
    assert!(problem.is_temporary);
    assert!(problem.to_string().contains("refused") && problem.remedy.contains("homeserver.url"));

    for (status, body, is_temporary) in [
        (404, json!("no"), false),
        (200, json!({"hello": 1}), false),
        (502, json!({}), true),
    ] {
        let both = Both::new(wrong("versions", status, body)).await;
        let problem = Checker::connect(&both.setup).await.err().unwrap();
        assert_eq!(problem.is_temporary, is_temporary, "{problem}");
        assert!(problem.remedy.contains("homeserver.url"), "{problem}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_known_is_told_from_a_wrong_server_name() {
    for (name, status, body, remedy) in [
        (
            "register",
            401,
            code("M_UNKNOWN_TOKEN"),
            "app_service_config_files",
        ),
        (
            "register",
            400,
            code("M_EXCLUSIVE"),
            "stonechat registration",
        ),
        ("whoami", 403, code("M_FORBIDDEN"), "homeserver.server_name"),
        (
            "whoami",
            200,
            json!({"user_id": "@_dm_.check:other.org"}),
            "homeserver.server_name",
        ),
    ] {
        let both = Both::new(wrong(name, status, body)).await;
        let problem = both.checker().await.check_token().await.unwrap_err();
        assert!(problem.remedy.contains(remedy), "{name}: {problem}");
        assert!(!problem.is_temporary);
    }
    let both = Both::new(wrong("register", 400, code("M_USER_IN_USE"))).await;
    both.checker()
        .await
        .check_token()
        .await
        .expect("it is there since the last time");
}

#[tokio::test]
async fn a_homeserver_that_ignores_devices_is_too_old() {
    for (name, status, body) in [
        ("device", 404, code("M_UNRECOGNIZED")),
        (
            "whoami with device",
            200,
            json!({"user_id": "@_dm_.check:example.org"}),
        ),
        ("whoami with device", 400, code("M_UNKNOWN_DEVICE")),
    ] {
        let both = Both::new(wrong(name, status, body)).await;
        let problem = both.checker().await.check_device().await.unwrap_err();
        assert!(problem.remedy.contains(OLDEST_SYNAPSE), "{name}: {problem}");
    }
}

#[tokio::test]
async fn a_homeserver_that_only_fails_at_the_moment_needs_no_change() {
    for name in ["register", "device", "whoami with device"] {
        let both = Both::new(wrong(name, 500, code("M_UNKNOWN"))).await;
        let checker = both.checker().await;
        let checked = match name {
            "register" => checker.check_token().await,
            _ => checker.check_device().await,
        };
        let problem = checked.unwrap_err();
        assert!(problem.is_temporary, "{name}: {problem}");
        assert_eq!(problem.remedy, "see the homeserver's log", "{name}");
    }
}

#[tokio::test]
async fn names_like_ours_must_be_refused_to_people() {
    for errcode in [
        "M_EXCLUSIVE",
        "M_INVALID_USERNAME",
        "M_FORBIDDEN",
        "M_UNRECOGNIZED",
    ] {
        let both = Both::new(wrong("available", 400, code(errcode))).await;
        both.checker().await.check_namespace().await.unwrap();
    }
    // Synapse says "available" of every name when it is told not to say which are in use.
    let both = Both::new(wrong(
        "register as anybody",
        400,
        code("M_INVALID_USERNAME"),
    ))
    .await;
    both.checker().await.check_namespace().await.unwrap();
    for fake in [
        wrong(
            "register as anybody",
            401,
            json!({"flows": [], "session": "x"}),
        ),
        wrong("available", 400, code("M_USER_IN_USE")),
    ] {
        let both = Both::new(fake).await;
        let problem = both.checker().await.check_namespace().await.unwrap_err();
        assert!(problem.remedy.contains("exclusive: true"), "{problem}");
    }
    // A proxy refuses with a page of its own, and some errcodes say nothing about names.
    for fake in [
        wrong("available", 403, json!("<html>Forbidden</html>")),
        wrong("available", 401, json!("<html>Unauthorized</html>")),
        wrong("available", 200, json!("<html>Welcome</html>")),
        wrong("available", 400, code("M_UNKNOWN")),
        wrong("register as anybody", 403, json!("<html>Forbidden</html>")),
        wrong("register as anybody", 404, json!("<html>Not found</html>")),
        wrong("register as anybody", 200, json!("<html>Welcome</html>")),
    ] {
        let both = Both::new(fake).await;
        let problem = both.checker().await.check_namespace().await.unwrap_err();
        assert!(
            problem.wrong.contains("could not be found out"),
            "{problem}"
        );
        assert!(problem.remedy.contains("/register/available"), "{problem}");
        assert!(!problem.is_temporary, "{problem}");
    }
    let both = Both::new(wrong("available", 429, code("M_LIMIT_EXCEEDED"))).await;
    assert!(
        both.checker()
            .await
            .check_namespace()
            .await
            .unwrap_err()
            .is_temporary
    );
}

#[tokio::test]
async fn a_ping_that_fails_says_on_which_side() {
    for (status, errcode, wrong_word) in [
        (502, "M_CONNECTION_FAILED", "cannot reach"),
        (504, "M_CONNECTION_TIMEOUT", "no answer"),
        (502, "M_BAD_STATUS", "another hs_token"),
        (400, "M_URL_NOT_SET", "no URL"),
        (403, "M_FORBIDDEN", "another id"),
        (404, "M_UNRECOGNIZED", "cannot ping"),
    ] {
        let both = Both::new(wrong("ping", status, code(errcode))).await;
        let problem = both
            .checker()
            .await
            .check_ping(&both.here)
            .await
            .unwrap_err();
        assert!(problem.wrong.contains(wrong_word), "{errcode}: {problem}");
        assert!(!problem.is_temporary, "{errcode}");
    }
}

#[tokio::test]
async fn something_else_at_our_address_is_found_out() {
    let both = Both::new(right()).await;
    let elsewhere = Both::new(right()).await;
    let there = elsewhere.fake.push.lock().unwrap().clone();
    *both.fake.push.lock().unwrap() = there;
    let problem = both
        .checker()
        .await
        .check_ping(&both.here)
        .await
        .unwrap_err();
    assert!(problem.wrong.contains("not this Stonechat"), "{problem}");
}

#[tokio::test]
async fn a_stonechat_that_ends_meanwhile_is_no_observer() {
    let both = Both::new(right()).await;
    std::fs::remove_file(both.folder.path().join(crate::server::SOCKET)).unwrap();
    let saw = both
        .running
        .wait_for_mark("mark", std::time::Duration::ZERO)
        .await;
    let problem = saw.unwrap_err();
    assert!(problem.remedy.contains("try again"), "{problem}");
}

#[tokio::test]
async fn an_empty_list_of_to_device_messages_proves_nothing() {
    let both = Both::new(Fake {
        pushes_to_device: false,
        ..right()
    })
    .await;
    let problem = both
        .checker()
        .await
        .check_to_device(&both.here)
        .await
        .unwrap_err();
    for flag in [
        "msc2409_to_device_messages_enabled",
        "msc3202_transaction_extensions",
    ] {
        assert!(problem.remedy.contains(flag), "{problem}");
    }
}

#[tokio::test]
async fn pushes_that_pause_after_a_ping_are_waited_for() {
    let both = Both::new(Fake {
        // More than there are tries while something comes.
        lost: AtomicUsize::new(9),
        ..right()
    })
    .await;
    let found = both.checker().await.check_to_device(&both.here).await;
    assert_eq!(found.unwrap(), "a message to ourselves came back");
    assert_eq!(both.fake.lost.load(SeqCst), 0);
}

#[tokio::test]
async fn a_worker_that_pushes_nothing_is_named_and_may_come_back() {
    let both = Both::new(Fake {
        lost: AtomicUsize::new(usize::MAX),
        ..right()
    })
    .await;
    let found = both.checker().await.check_to_device(&both.here).await;
    let problem = found.unwrap_err();
    assert!(problem.is_temporary, "{problem}");
    assert!(
        problem.wrong.contains("notify_appservices_from_worker"),
        "{problem}"
    );
}

#[tokio::test]
async fn rooms_without_encryption_are_worth_an_advice() {
    let both = Both::new(Fake {
        encrypts: false,
        ..right()
    })
    .await;
    let problem = both
        .checker()
        .await
        .check_encryption_by_default()
        .await
        .unwrap_err();
    assert!(
        problem
            .remedy
            .contains("encryption_enabled_by_default_for_room_type"),
        "{problem}"
    );
}

#[tokio::test]
async fn a_data_folder_that_was_set_back_is_told_what_to_do() {
    let history = |number| StampHistory {
        has_users: true,
        stamps: vec![Stamp {
            number,
            mark: "mark".to_owned(),
        }],
        ..StampHistory::default()
    };
    let held = json!({"number": 7, "mark": "mark"});
    let both = Both::new(wrong("account data", 200, held)).await;
    let checker = both.checker().await;
    checker.check_data(&history(7)).await.unwrap();
    checker.check_data(&history(8)).await.unwrap();
    checker.check_data(&history(9)).await.unwrap();
    let set_back = checker.check_data_and_homeserver(&history(9)).await;
    let problem = set_back.unwrap_err();
    assert!(
        problem.wrong.contains("homeserver's database was set back"),
        "{problem}"
    );
    let problem = checker.check_data(&history(6)).await.unwrap_err();
    assert!(problem.wrong.contains("newer state"), "{problem}");
    assert!(problem.remedy.contains("restore --force"), "{problem}");
    assert!(!problem.is_temporary);
    for (status, body, passes) in [
        (404, code("M_NOT_FOUND"), true),
        (403, code("M_FORBIDDEN"), true),
        (200, json!({"number": "odd"}), true),
        (502, json!({}), false),
    ] {
        let both = Both::new(wrong("account data", status, body)).await;
        // The first stamp may not have reached the homeserver.
        let checked = both.checker().await.check_data(&history(1)).await;
        assert_eq!(checked.is_ok(), passes, "{status}: {checked:?}");
        assert!(checked.is_ok() || checked.unwrap_err().is_temporary);
    }
    let Observer::Running(running) = &both.running else {
        panic!("it runs");
    };
    let history = running.stamp_history().await.unwrap();
    assert_eq!(history, StampHistory::default());
}
