//! Whether the service is live and ready, for anything that monitors it.
//!
//! *Live* means that the process runs and answers. *Ready* means that the start is over, the store
//! can be written, the homeserver answers, and the homeserver reaches us. A probe asks nobody: it
//! gets what the parts have reported last.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tracing::{info, warn};

use crate::store::StoreFailure;

/// The state of a part that works.
const OK: &str = "ok";
/// The state of the homeserver until the start is over.
const NOT_KNOWN_YET: &str = "not known yet; the log says what the start waits for";

/// A part of readiness that can come and go while the service runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthPart {
    /// The homeserver answers our requests.
    Homeserver,
    /// The homeserver's transactions reach us.
    Transactions,
}

impl fmt::Display for HealthPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Homeserver => "homeserver",
            Self::Transactions => "transactions",
        })
    }
}

/// Readiness, part by part. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    started: AtomicBool,
    store: StoreFailure,
    /// Why the homeserver and the transactions fail, in this order.
    failures: Mutex<[Option<&'static str>; 2]>,
}

impl Health {
    /// Returns the health of a service that is starting, on a store with this failure.
    pub fn new(store: StoreFailure) -> Self {
        Self(Arc::new(Inner {
            store,
            ..Inner::default()
        }))
    }

    /// Returns `true` if every part works.
    pub fn is_ready(&self) -> bool {
        self.parts().iter().all(|(_, state)| *state == OK)
    }

    /// Returns the state in a few words: `ready`, or the first part that is not, and why.
    pub fn in_words(&self) -> String {
        let mut parts = self.parts().into_iter();
        match parts.find(|(_, state)| *state != OK) {
            None => "ready".to_owned(),
            Some(("start", state)) => state.to_owned(),
            Some((part, state)) => format!("not ready: {part}: {state}"),
        }
    }

    /// Returns the parts and their states: `ok`, or why a part does not work.
    pub fn parts(&self) -> [(&'static str, &'static str); 4] {
        let started = self.0.started.load(Ordering::Relaxed);
        let [homeserver, transactions] = *self.failures();
        let store = self.0.store.get().map(|_| "it has failed; see the log");
        // Nothing was asked yet, or the start waits for the answer.
        let unknown = if started { OK } else { NOT_KNOWN_YET };
        [
            ("start", if started { OK } else { "starting" }),
            ("store", store.unwrap_or(OK)),
            ("homeserver", homeserver.unwrap_or(unknown)),
            ("transactions", transactions.unwrap_or(unknown)),
        ]
    }

    /// Notes that the start is over.
    pub fn mark_started(&self) {
        self.0.started.store(true, Ordering::Relaxed);
    }

    /// Sets the state of a part: working, or the reason why not. Everybody who can reach the port
    /// sees the reason, so it names no user.
    pub fn set_part(&self, part: HealthPart, state: Result<(), &'static str>) {
        let mut failures = self.failures();
        let known = &mut failures[part as usize];
        match (*known, state) {
            (Some(_), Ok(())) => info!("{part}: works again"),
            (before, Err(why)) if before != Some(why) => warn!("not ready: {part}: {why}"),
            _ => {}
        }
        *known = state.err();
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, [Option<&'static str>; 2]> {
        self.0
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers `GET /health/ready`.
    pub(super) fn respond(&self) -> Response {
        let parts = self.parts();
        let status = if self.0.store.get().is_some() {
            "not ready"
        } else if !self.0.started.load(Ordering::Relaxed) {
            "starting"
        } else if parts.iter().any(|(_, state)| *state != OK) {
            "not ready"
        } else {
            OK
        };
        let code = if status == OK {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let parts: serde_json::Map<_, _> = parts
            .into_iter()
            .map(|(part, state)| (part.to_owned(), state.into()))
            .collect();
        respond(code, &json!({ "status": status, "parts": parts }))
    }
}

/// Answers `GET /health/live`.
pub(super) fn respond_live() -> Response {
    respond(StatusCode::OK, &json!({ "status": OK }))
}

/// Closes the connection after the answer: a probe shows no token, so it would be closed soon
/// anyway.
fn respond(code: StatusCode, body: &serde_json::Value) -> Response {
    (code, [(header::CONNECTION, "close")], Json(body)).into_response()
}
