//! How the admin socket answers with what it has read.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::store::StoreError;

/// Returns what was read from the store, or why it could not be read.
pub(super) fn answer(read: Result<impl Serialize, StoreError>) -> Response {
    match read {
        Ok(read) => Json(read).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
