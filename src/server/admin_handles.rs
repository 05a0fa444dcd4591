//! What the admin is shown of handles.

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use super::admin_answer::answer;
use crate::{
    directory::{HandleFilter, HandleSummary, StateFilter, list_handles, show_handle},
    engine::change_since_backup,
    handle::{Handle, HandleRules},
    store::{Store, StoreError},
};

/// A request for a page of the list of handles.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HandleQuery {
    /// Only those of this person.
    pub owner: Option<OwnedUserId>,
    /// Only those of people of this server.
    pub server: Option<String>,
    /// Only those in this state.
    pub state: Option<StateFilter>,
    /// Where the page begins: [`HandlePage::next`](crate::directory::HandlePage::next) of the page
    /// before.
    pub after: Option<String>,
}

/// What is known of one handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandleDetails {
    /// What the list shows.
    #[serde(flatten)]
    pub summary: HandleSummary,
    /// How its ghost differed from the backup from which the service was restored.
    pub changed_since_backup: Option<String>,
}

/// Returns the routes of the admin socket for handles.
pub(super) fn handle_routes(store: Store) -> Router {
    Router::new()
        .route("/v1/handles", get(get_handles))
        .route("/v1/handles/{handle}", get(get_handle))
        .with_state(store)
}

/// `GET /v1/handles`
async fn get_handles(State(store): State<Store>, Query(query): Query<HandleQuery>) -> Response {
    let filter = HandleFilter {
        owner: query.owner,
        server: query.server,
        state: query.state,
    };
    let after = query.after.as_deref();
    answer(list_handles(&store, &filter, after))
}

/// `GET /v1/handles/{handle}`
async fn get_handle(State(store): State<Store>, Path(handle): Path<String>) -> Response {
    let handle = match Handle::parse(&handle, &HandleRules::WIDEST) {
        Ok(handle) => handle,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match details_of(&store, &handle) {
        Ok(Some(details)) => Json(details).into_response(),
        Ok(None) => {
            let words = format!("nobody holds {handle}, and nobody has released it lately");
            (StatusCode::NOT_FOUND, words).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn details_of(store: &Store, handle: &Handle) -> Result<Option<HandleDetails>, StoreError> {
    let Some(summary) = show_handle(store, handle)? else {
        return Ok(None);
    };
    Ok(Some(HandleDetails {
        summary,
        changed_since_backup: change_since_backup(store, handle)?,
    }))
}
