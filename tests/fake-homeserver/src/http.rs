//! The homeserver on a port of loopback: connections, tokens, and what goes wrong on the way.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Instant};

use axum::{
    body::{Body, to_bytes},
    http::{Request, Response, StatusCode, header},
};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use url::form_urlencoded;

use crate::{
    Shared,
    fault::{Fate, Outage},
    model::{Answer, Ask},
    script::Order,
};

/// The connection is to be closed without an answer.
#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection breaks")
    }
}

impl std::error::Error for Gone {}

/// Takes connections until the task is ended; while the homeserver is away they are closed at once.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) -> Infallible {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        if shared.is_away() {
            continue;
        }
        let _ = stream.set_nodelay(true);
        let serving = tokio::spawn(connection(shared.clone(), stream));
        shared.keep_connection(serving.abort_handle());
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let shared = shared.clone();
        async move { answer(&shared, request.map(Body::new)).await }
    });
    // What a client does to its connection, or we do on purpose, is no news.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(shared: &Arc<Shared>, request: Request<Body>) -> Result<Response<Body>, Gone> {
    let arrived = Instant::now();
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(|_| Gone)?.to_vec();
    let path = parts.uri.path().to_owned();
    if let Some(answer) = outage(shared).await {
        return answer;
    }
    if path.ends_with("/_matrix/client/versions") {
        let versions = json!({"versions": ["v1.11", "v1.15"], "unstable_features": {
            "fi.mau.msc2659.stable": true,
        }});
        return Ok(response(Answer::ok(&versions)));
    }
    // Until all of it is done, and nobody has been answered.
    let _told = shared.told();
    let order = shared.order(parts.method.as_str(), &path, &body).await;
    if let Order::Refuse(answer) = order {
        return Ok(response(answer));
    }
    let fate = shared.fate();
    match fate {
        Fate::Drop { after: false } => return Err(Gone),
        Fate::Fail { after: false } => return Ok(response(failure())),
        Fate::Limit(wait) => return Ok(limited(wait)),
        Fate::Delay(time) => tokio::time::sleep(time).await,
        Fate::Pass | Fate::Fail { after: true } | Fate::Drop { after: true } => {}
    }
    let token = parts.headers.get(header::AUTHORIZATION);
    let token = token.and_then(|token| token.to_str().ok()?.strip_prefix("Bearer "));
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|kind| Some(kind.to_str().ok()?.to_owned()));
    let ask = Ask {
        user: String::new(),
        device: None,
        by_service: true,
        method: parts.method.to_string(),
        parts: split(&path),
        path: path.clone(),
        query: query(parts.uri.query().unwrap_or_default()),
        content_type,
        body,
        arrived,
    };
    let answer = by_token(shared, token, ask).await;
    // It is done, and nobody has been told.
    shared.requests.send_modify(|n| *n += 1);
    shared.ring(&path);
    if let Order::Lose(answer) = order {
        return Ok(response(answer));
    }
    match fate {
        Fate::Fail { after: true } => Ok(response(failure())),
        Fate::Drop { after: true } => Err(Gone),
        _ => Ok(response(answer)),
    }
}

/// What a request gets during an outage.
async fn outage(shared: &Arc<Shared>) -> Option<Result<Response<Body>, Gone>> {
    let mut outage = shared.outage.subscribe();
    let now = *outage.borrow_and_update();
    let (status, body, kind) = match now? {
        Outage::Proxy(status) => (status, "<h1>Bad Gateway</h1>".to_owned(), "text/html"),
        Outage::Failing(status) => {
            let body = json!({"errcode": "M_UNKNOWN", "error": "Internal server error"});
            (status, body.to_string(), "application/json")
        }
        Outage::Silence => {
            // Fails only if the homeserver is gone, and then nobody waits.
            let _ = outage.wait_for(|now| now.is_none()).await;
            return Some(Err(Gone));
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Some(Ok(response))
}

/// The parts of a path after the version of the API, decoded.
pub(crate) fn split(path: &str) -> Vec<String> {
    let decode = |part: &str| {
        // As in a query, but a plus is a plus.
        let pair = format!("x={}", part.replace('+', "%2B"));
        let mut decoded = form_urlencoded::parse(pair.as_bytes());
        decoded
            .next()
            .map_or(String::new(), |(_, value)| value.into_owned())
    };
    path.split('/').skip(4).map(decode).collect()
}

pub(crate) fn query(query: &str) -> HashMap<String, String> {
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

async fn by_token(shared: &Arc<Shared>, token: Option<&str>, mut ask: Ask) -> Answer {
    let parts: Vec<&str> = ask.parts.iter().map(String::as_str).collect();
    let Some(token) = token else {
        return match parts.as_slice() {
            // Nobody can register a name that begins with an underscore by themselves.
            ["register"] | ["register", "available"] => {
                Answer::refused(400, "M_INVALID_USERNAME", "User ID may not begin with _")
            }
            _ => Answer::refused(401, "M_MISSING_TOKEN", "Missing access token"),
        };
    };
    let service = shared.with(|server| server.service.clone());
    let Some(service) = service.filter(|service| service.as_token == token) else {
        return Answer::refused(401, "M_UNKNOWN_TOKEN", "Invalid access token passed.");
    };
    match (ask.method.as_str(), parts.as_slice()) {
        ("POST", ["register"]) => {
            let body = ask.json();
            return shared.with(|server| server.register(&body));
        }
        ("POST", ["appservice", id, "ping"]) => {
            return if *id == service.id {
                shared.ping(&ask.json()).await
            } else {
                Answer::forbidden("the token is not of this application service")
            };
        }
        _ => {}
    }
    let (user, device) = (ask.query.remove("user_id"), ask.query.remove("device_id"));
    if user.is_none() && device.is_some() {
        return Answer::refused(500, "M_UNKNOWN", "Internal server error");
    }
    ask.user = user.unwrap_or_else(|| service.sender.clone());
    ask.device = device;
    let known = shared.with(|server| {
        let account = server.accounts.get(&ask.user);
        let of = |id: &String| account.is_some_and(|account| account.devices.contains_key(id));
        (account.is_some(), ask.device.as_ref().is_none_or(of))
    });
    if ask.user != service.sender {
        if !service.is_ours(&ask.user) {
            return Answer::forbidden("Application service cannot masquerade as this user");
        }
        if !known.0 {
            return Answer::forbidden("Application service has not registered this user");
        }
        if !known.1 {
            return Answer::refused(400, "M_UNKNOWN_DEVICE", "no such device");
        }
    }
    shared.ask_by_script(&ask).await
}

fn failure() -> Answer {
    Answer::refused(500, "M_UNKNOWN", "Internal server error")
}

fn limited(wait: std::time::Duration) -> Response<Body> {
    let mut body = json!({"errcode": "M_LIMIT_EXCEEDED", "error": "Too Many Requests"});
    body["retry_after_ms"] = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).into();
    let mut limited = response(Answer::ok(&body));
    *limited.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    // In whole seconds, rounded up, as Synapse does it.
    let seconds = wait.as_secs_f64().ceil() as u64;
    limited
        .headers_mut()
        .insert(header::RETRY_AFTER, seconds.into());
    limited
}

fn response(answer: Answer) -> Response<Body> {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or_default();
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
