//! How the admin socket answers with what it has read, or done.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use crate::{
    bot::NoticeText,
    directory::{ActError, HandleSummary},
    store::StoreError,
};

/// The answer to an act that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActDone {
    /// What was done, in words.
    pub done: String,
    /// The handle now, if it is held or in quarantine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<HandleSummary>,
}

/// Returns what was read from the store, or why it could not be read.
pub(super) fn answer(read: Result<impl Serialize, impl std::fmt::Display>) -> Response {
    match read {
        Ok(read) => Json(read).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Returns what an act has done, or why it was not done.
pub(super) fn answer_act(
    acted: Result<NoticeText, ActError>,
    handle: impl FnOnce() -> Result<Option<HandleSummary>, StoreError>,
) -> Response {
    match acted {
        Ok(text) => answer(handle().map(|handle| ActDone {
            done: text.plain,
            handle,
        })),
        Err(error) => {
            let status = match &error {
                _ if error.is_not_found() => StatusCode::NOT_FOUND,
                _ if error.is_refusal() => StatusCode::CONFLICT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, error.to_string()).into_response()
        }
    }
}

/// Answers before the engine has started: what is asked for changes something that people are told.
pub(super) fn not_started() -> Response {
    let words = "Stonechat has not started yet, since it waits for the homeserver; `stonechat \
                 status` says more";
    (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
}

/// Runs an act to its end, also if the client goes away meanwhile: a change that is written has
/// something to follow. Fails if the act panics.
pub(super) async fn to_its_end<T: Send + 'static>(
    act: impl Future<Output = T> + Send + 'static,
) -> Result<T, Response> {
    tokio::spawn(act)
        .await
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response())
}
