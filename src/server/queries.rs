//! Queries for our users and rooms.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use ruma::UserId;
use serde_json::{Value, json};

use super::{ApiError, App, Appservice};

/// `GET /_matrix/app/v1/users/{userId}`, sent when a user is invited that the homeserver does not
/// know. Ghosts are created when a handle is claimed and never here.
pub(super) async fn query_user<A: Appservice>(
    State(app): State<App<A>>,
    user: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(user) = user.map_err(|_| ApiError::BadPath)?;
    let user = UserId::parse(&user).map_err(|_| ApiError::NotFound)?;
    if app.options.is_ours(&user) && app.appservice.user_exists(&user).await {
        Ok(Json(json!({})))
    } else {
        Err(ApiError::NotFound)
    }
}

/// `GET /_matrix/app/v1/rooms/{alias}`. The service has no aliases.
pub(super) async fn query_room() -> ApiError {
    ApiError::NotFound
}

impl super::Options {
    /// Returns whether a user id is in our namespace and on our server.
    pub(super) fn is_ours(&self, user: &UserId) -> bool {
        user.server_name() == self.server_name
            && user.localpart().starts_with(crate::handle::GHOST_PREFIX)
    }
}
