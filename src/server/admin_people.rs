//! What the admin is shown of people and servers, and does about them.

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use super::{
    admin_answer::{answer, answer_act, not_started, to_its_end},
    admin_handles::{HandleAdmin, acting_login},
};
use crate::{
    clock::Timestamp,
    directory::{GranteeAct, GranteeOrder, LimitUse, list_bans},
    ids::Person,
    permissions::Grantee,
};

/// An act about a person or a server, as it is sent over the admin socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GranteeActRequest {
    /// The person or the server; everybody only for their limits.
    pub grantee: Grantee,
    /// What is to be done.
    pub act: GranteeAct,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
    /// The login of the admin, for the audit log.
    pub login: String,
}

/// A request for what is known of a person.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PersonQuery {
    /// The person.
    pub person: OwnedUserId,
}

/// An order to erase a person, as it is sent over the admin socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureRequest {
    /// The person.
    pub person: OwnedUserId,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
    /// The login of the admin, for the audit log.
    pub login: String,
}

/// A request for what somebody has used of the limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LimitsQuery {
    /// The person or the server, or everybody.
    pub grantee: Grantee,
}

/// What somebody has used of the limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsUsed {
    /// The limits of which something is used.
    pub limits: Vec<LimitUse>,
    /// Until when the bot ignores the person, in milliseconds since 1970.
    pub ignored_until: Option<Timestamp>,
}

/// A request for a page of the bans.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BanQuery {
    /// Where the page begins: [`BanPage::next`](crate::directory::BanPage::next) of the page before.
    pub after: Option<String>,
}

/// Returns the routes of the admin socket for people and servers.
pub(super) fn people_routes(admin: HandleAdmin) -> Router {
    Router::new()
        .route("/v1/person", get(get_person))
        .route("/v1/person/export", get(get_export))
        .route("/v1/person/erase", post(post_erasure))
        .route("/v1/limits", get(get_limits))
        .route("/v1/bans", get(get_bans))
        .route("/v1/grantees/acts", post(post_grantee_act))
        .with_state(admin)
}

/// `GET /v1/person`
async fn get_person(
    State(admin): State<HandleAdmin>,
    Query(query): Query<PersonQuery>,
) -> Response {
    let Some(engine) = admin.engine.get() else {
        return not_started();
    };
    let person = Person::new(query.person);
    let shown = engine.directory().show_person(&person, admin.clock.now());
    answer(shown)
}

/// `GET /v1/person/export`
async fn get_export(
    State(admin): State<HandleAdmin>,
    Query(query): Query<PersonQuery>,
) -> Response {
    let Some(engine) = admin.engine.get() else {
        return not_started();
    };
    // It reads whole tables.
    let exported =
        tokio::task::spawn_blocking(move || engine.export_person(&Person::new(query.person)));
    match exported.await {
        Ok(exported) => answer(exported),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// `POST /v1/person/erase`
async fn post_erasure(
    State(admin): State<HandleAdmin>,
    Json(request): Json<ErasureRequest>,
) -> Response {
    let Some(engine) = admin.engine.get() else {
        return not_started();
    };
    let erased = to_its_end(async move {
        let by = acting_login(&request.login);
        let person = Person::new(request.person);
        engine.erase_person(&person, &by, &request.reason).await
    });
    match erased.await {
        Ok(erased) => answer_act(erased, || Ok(None)),
        Err(failed) => failed,
    }
}

/// `GET /v1/limits`
async fn get_limits(
    State(admin): State<HandleAdmin>,
    Query(query): Query<LimitsQuery>,
) -> Response {
    let Some(engine) = admin.engine.get() else {
        return not_started();
    };
    let (directory, now) = (engine.directory(), admin.clock.now());
    let ignored_until = match &query.grantee {
        Grantee::Person(user) => directory.ignored_until(&Person::new(user.clone()), now),
        _ => Ok(None),
    };
    let used = directory.limits_used(&query.grantee, now);
    answer(used.and_then(|limits| {
        Ok(LimitsUsed {
            limits,
            ignored_until: ignored_until?,
        })
    }))
}

/// `GET /v1/bans`
async fn get_bans(State(admin): State<HandleAdmin>, Query(query): Query<BanQuery>) -> Response {
    answer(list_bans(&admin.store, query.after.as_deref()))
}

/// `POST /v1/grantees/acts`
async fn post_grantee_act(
    State(admin): State<HandleAdmin>,
    Json(request): Json<GranteeActRequest>,
) -> Response {
    let Some(engine) = admin.engine.get() else {
        return not_started();
    };
    let acted = to_its_end(async move {
        let by = acting_login(&request.login);
        let order = GranteeOrder {
            grantee: &request.grantee,
            act: request.act,
            reason: &request.reason,
            by: &by,
        };
        engine.act_on_grantee(&order).await
    });
    match acted.await {
        Ok(acted) => answer_act(acted, || Ok(None)),
        Err(failed) => failed,
    }
}
