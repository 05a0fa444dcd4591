//! What the admin is shown of handles, and does to them.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::admin_answer::{answer, answer_act, not_started, to_its_end};
use crate::{
    clock::{Clock, Timestamp},
    directory::{
        ActingAdmin, HandleAct, HandleFilter, HandleOrder, HandleSummary, StateFilter, audit_log,
        list_handles, show_handle,
    },
    engine::{Engine, change_since_backup},
    handle::{Handle, HandleRules},
    store::{Store, StoreError},
};

/// Maximum length of a login in the audit log, in characters.
const LOGIN_CHARS_MAX: usize = 64;

/// The engine, once it has started.
#[derive(Clone, Debug)]
pub struct StartedEngine {
    /// The engine.
    pub engine: watch::Receiver<Option<Engine>>,
    /// Whether it has started.
    pub started: watch::Receiver<bool>,
}

impl StartedEngine {
    /// Returns one that never starts.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self {
            engine: watch::channel(None).1,
            started: watch::channel(false).1,
        }
    }

    /// Returns it.
    pub fn get(&self) -> Option<Engine> {
        let engine = self.engine.borrow().clone();
        engine.filter(|_| *self.started.borrow())
    }
}

/// An act on a handle, as it is sent over the admin socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActRequest {
    /// What is to be done.
    pub act: HandleAct,
    /// Why, in words for the owner; may be empty.
    #[serde(default)]
    pub reason: String,
    /// The login of the admin, for the audit log.
    pub login: String,
}

/// A request for a page of the audit log.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct AuditQuery {
    /// Where the page begins: the time of [`AuditPage::next`](crate::directory::AuditPage::next) of
    /// the page before, or any time, in milliseconds since 1970.
    #[serde(default)]
    pub after: Timestamp,
    /// The number of `next`.
    #[serde(default)]
    pub number: u64,
}

/// What the admin's requests about handles and people work on.
#[derive(Clone, Debug)]
pub(super) struct HandleAdmin {
    pub(super) store: Store,
    pub(super) engine: StartedEngine,
    pub(super) clock: Arc<dyn Clock>,
}

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
pub(super) fn handle_routes(admin: HandleAdmin) -> Router {
    Router::new()
        .route("/v1/handles", get(get_handles))
        .route("/v1/handles/{handle}", get(get_handle))
        .route("/v1/handles/{handle}/acts", post(post_act))
        .route("/v1/audit", get(get_audit_log))
        .with_state(admin)
}

/// `GET /v1/handles`
async fn get_handles(
    State(HandleAdmin { store, .. }): State<HandleAdmin>,
    Query(query): Query<HandleQuery>,
) -> Response {
    let filter = HandleFilter {
        owner: query.owner,
        server: query.server,
        state: query.state,
    };
    let after = query.after.as_deref();
    answer(list_handles(&store, &filter, after))
}

/// `GET /v1/handles/{handle}`
async fn get_handle(
    State(HandleAdmin { store, .. }): State<HandleAdmin>,
    Path(handle): Path<String>,
) -> Response {
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

/// `POST /v1/handles/{handle}/acts`
async fn post_act(
    State(HandleAdmin { store, engine, .. }): State<HandleAdmin>,
    Path(handle): Path<String>,
    Json(request): Json<ActRequest>,
) -> Response {
    let handle = match Handle::parse(&handle, &HandleRules::WIDEST) {
        Ok(handle) => handle,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let Some(engine) = engine.get() else {
        return not_started();
    };
    let named = handle.clone();
    let acted = to_its_end(async move {
        let by = acting_login(&request.login);
        let order = HandleOrder {
            handle: &named,
            act: &request.act,
            reason: &request.reason,
            by: &by,
        };
        engine.act_on_handle(&order).await
    });
    let acted = match acted.await {
        Ok(acted) => acted,
        Err(failed) => return failed,
    };
    answer_act(acted, || show_handle(&store, &handle))
}

/// Returns the admin with this login.
pub(super) fn acting_login(login: &str) -> ActingAdmin {
    ActingAdmin::Login(login.chars().take(LOGIN_CHARS_MAX).collect())
}

/// `GET /v1/audit`
async fn get_audit_log(
    State(HandleAdmin { store, .. }): State<HandleAdmin>,
    Query(query): Query<AuditQuery>,
) -> Response {
    answer(audit_log(&store, Some((query.after, query.number))))
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
