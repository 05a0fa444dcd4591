//! Whether a user or a room of ours exists.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use ruma::UserId;
use serde_json::{Value, json};

use super::{ApiError, App, Intake};

/// `GET /_matrix/app/v1/users/{userId}`: asked when somebody invites a user the homeserver does not
/// know. Ghosts are made when a handle is claimed and never here.
pub(super) async fn user<I: Intake>(
    State(app): State<App<I>>,
    user: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(user) = user.map_err(|_| ApiError::BadPath)?;
    let user = UserId::parse(&user).map_err(|_| ApiError::NotFound)?;
    if app.options.is_ours(&user) && app.intake.user_exists(&user).await {
        Ok(Json(json!({})))
    } else {
        Err(ApiError::NotFound)
    }
}

/// `GET /_matrix/app/v1/rooms/{alias}`: no alias is ours.
pub(super) async fn room() -> ApiError {
    ApiError::NotFound
}

impl super::Options {
    /// Whether a user id is in our namespace and on our server.
    pub(super) fn is_ours(&self, user: &UserId) -> bool {
        user.server_name() == self.server_name
            && user.localpart().starts_with(crate::handle::GHOST_PREFIX)
    }
}
