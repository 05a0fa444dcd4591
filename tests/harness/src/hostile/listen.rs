//! The server's port: TLS, the federation API, and the requests that are never answered.

use std::sync::Arc;

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use ruma_signatures::sign_json;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{Endpoint, Shared, base64, event::canonical, lock, now};
use crate::synapse::federation::Member;

type Server = State<Arc<Shared>>;

/// Reads the server's certificate.
pub(super) fn tls(own: &Member) -> Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_file_iter(own.certificate())?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(own.key())?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .context("the certificate cannot be used")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Takes connections until the task is ended, which ends them as well.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, tls: TlsAcceptor) {
    let router = router(shared);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(tls.clone(), stream, router.clone()));
                }
            }
            // Those that have ended are of no use.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(tls: TlsAcceptor, stream: TcpStream, router: Router) {
    // What a client does to its connection is no news.
    if let Ok(stream) = tls.accept(stream).await {
        let _ = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
            .await;
    }
}

fn router(shared: Arc<Shared>) -> Router {
    let federation = Router::new()
        .route("/v1/make_join/{room}/{user}", get(make_join))
        .route("/v2/send_join/{room}/{event}", put(send_join))
        .route("/v1/make_leave/{room}/{user}", get(make_leave))
        .route("/v2/send_leave/{room}/{event}", put(send_leave))
        .route("/v1/user/devices/{user}", get(devices))
        .route("/v1/user/keys/query", post(query_keys))
        .route("/v1/user/keys/claim", post(claim_keys))
        .route("/v1/send/{transaction}", put(transaction))
        .route("/v1/query/profile", get(profile))
        .route("/v1/state_ids/{room}", get(state_ids))
        .route("/v1/event/{event}", get(event))
        .route("/v1/backfill/{room}", get(backfill))
        .route("/v1/get_missing_events/{room}", post(missing_events));
    Router::new()
        .route("/_matrix/key/v2/server", get(server_keys))
        .nest("/_matrix/federation", federation)
        .fallback(|| async { unknown() })
        .layer(middleware::from_fn_with_state(shared.clone(), count))
        .layer(DefaultBodyLimit::disable())
        .with_state(shared)
}

/// Counts a request, and keeps it waiting for good if its endpoint stalls.
async fn count(State(server): Server, request: Request, next: Next) -> Response {
    let endpoint = Endpoint::of(request.uri().path());
    server
        .asked
        .send_modify(|asked| *asked.entry(endpoint).or_default() += 1);
    if lock(&server.stalled).contains(&endpoint) {
        std::future::pending::<()>().await;
    }
    next.run(request).await
}

fn unknown() -> Response {
    let error = json!({ "errcode": "M_NOT_FOUND", "error": "not here" });
    (StatusCode::NOT_FOUND, Json(error)).into_response()
}

fn found(value: Option<Value>) -> Response {
    value.map_or_else(unknown, |value| Json(value).into_response())
}

async fn server_keys(State(server): Server) -> Response {
    let identity = &server.identity;
    let key = format!("ed25519:{}", identity.key.version());
    let keys = json!({
        "server_name": identity.name,
        "valid_until_ts": now() + 24 * 60 * 60 * 1000,
        "verify_keys": { key: { "key": base64(identity.key.public_key()) } },
        "old_verify_keys": {},
    });
    let signed = canonical(keys).and_then(|mut keys| {
        sign_json(&identity.name, &identity.key, &mut keys)?;
        Ok(serde_json::to_value(keys)?)
    });
    found(signed.ok())
}

async fn make_join(State(server): Server, Path((room, user)): Path<(String, String)>) -> Response {
    found(server.room(&room).map(|room| room.template(&user, "join")))
}

async fn send_join(
    State(server): Server,
    Path((room, id)): Path<(String, String)>,
    Json(join): Json<Value>,
) -> Response {
    let Some(room) = server.room(&room) else {
        return unknown();
    };
    let answer = room.answer_to_join(&join);
    let taken = room.takes_membership(id, join.clone());
    let (Ok(answer), Ok(())) = (answer, taken) else {
        return unknown();
    };
    server.heard.send_modify(|heard| heard.push(join));
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, Body::from(Bytes::from(answer))).into_response()
}

async fn make_leave(State(server): Server, Path((room, user)): Path<(String, String)>) -> Response {
    found(server.room(&room).map(|room| room.template(&user, "leave")))
}

async fn send_leave(
    State(server): Server,
    Path((room, id)): Path<(String, String)>,
    Json(leave): Json<Value>,
) -> Response {
    let room = server.room(&room);
    if room.is_none_or(|room| room.takes_membership(id, leave.clone()).is_err()) {
        return unknown();
    }
    server.heard.send_modify(|heard| heard.push(leave));
    Json(json!({})).into_response()
}

async fn devices(State(server): Server, Path(user): Path<String>) -> Response {
    let list = lock(&server.devices).get(&user).cloned();
    let none = json!({ "user_id": user, "stream_id": 1, "devices": [] });
    Json(list.map_or(none, |list| list.all())).into_response()
}

async fn query_keys(State(server): Server, Json(query): Json<Value>) -> Response {
    let users = query["device_keys"].as_object();
    let mut users = users.into_iter().flat_map(|users| users.keys());
    // Stories ask for one at a time.
    let list = users.find_map(|user| lock(&server.devices).get(user).cloned());
    let none = json!({ "device_keys": {} });
    Json(list.map_or(none, |list| list.queried())).into_response()
}

async fn claim_keys() -> Response {
    Json(json!({ "one_time_keys": {} })).into_response()
}

async fn transaction(State(server): Server, Json(mut content): Json<Value>) -> Response {
    if let Value::Array(events) = content["pdus"].take() {
        server.heard.send_modify(|heard| heard.extend(events));
    }
    Json(json!({ "pdus": {} })).into_response()
}

async fn profile() -> Response {
    Json(json!({ "displayname": "Eve" })).into_response()
}

async fn state_ids(State(server): Server, Path(room): Path<String>) -> Response {
    found(server.room(&room).map(|room| room.state_ids()))
}

async fn event(State(server): Server, Path(id): Path<String>) -> Response {
    let rooms: Vec<_> = lock(&server.rooms).values().cloned().collect();
    let event = rooms.iter().find_map(|room| room.event(&id));
    let event = event.map(|event| {
        json!({ "origin": server.identity.name, "origin_server_ts": now(), "pdus": [event] })
    });
    found(event)
}

async fn backfill(State(server): Server) -> Response {
    let nothing = json!({
        "origin": server.identity.name,
        "origin_server_ts": now(),
        "pdus": [],
    });
    Json(nothing).into_response()
}

async fn missing_events() -> Response {
    Json(json!({ "events": [] })).into_response()
}
