//! Whether we are up, for whatever watches over us.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// Whether the start is over: the homeserver was found and passed the checks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// Whether everything is up.
    pub fn is_ready(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// From now on all is up.
    pub fn ready(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn answer(&self) -> Response {
        if self.0.load(Ordering::Relaxed) {
            Json(json!({"status": "ok"})).into_response()
        } else {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                Json(json!({"status": "starting"})),
            )
                .into_response()
        }
    }
}
