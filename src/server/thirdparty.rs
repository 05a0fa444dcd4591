//! Handles as a third-party network: how a client finds the ghost of a handle.
//!
//! The homeserver does not say who asks. So the answer is the same for everybody, and one limit
//! holds for all of them together; above it the answer is the empty list, as for a handle that
//! nobody has.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::PathRejection, rejection::QueryRejection},
};
use ruma::UserId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, App, Appservice, ThirdPartyUser};
use crate::config::PROTOCOL;

/// The longest thing that is looked up at all: a handle with its server.
const QUERY_BYTES_MAX: usize = 300;

type PathResult = Result<Path<String>, PathRejection>;

#[derive(Deserialize)]
pub(super) struct ByHandle {
    handle: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct ByUser {
    userid: Option<String>,
}

/// `GET /_matrix/app/v1/thirdparty/protocol/{protocol}`: what clients need to ask for a handle.
pub(super) async fn describe_protocol<A: Appservice>(
    State(app): State<App<A>>,
    protocol: PathResult,
) -> Result<Json<Value>, ApiError> {
    check_protocol(protocol)?;
    let longest = app.options.max_handle;
    let server = &app.options.server_name;
    Ok(Json(json!({
        "user_fields": ["handle"],
        "location_fields": [],
        "icon": "",
        "field_types": {
            "handle": {
                "regexp": format!("@?[A-Za-z0-9_]{{1,{longest}}}"),
                "placeholder": "sam",
            },
        },
        "instances": [{
            "desc": format!("Handles on {server}"),
            "icon": "",
            "fields": {},
            "network_id": PROTOCOL,
        }],
    })))
}

/// `GET /_matrix/app/v1/thirdparty/user/{protocol}?handle=sam`
pub(super) async fn find_users_by_handle<A: Appservice>(
    State(app): State<App<A>>,
    protocol: PathResult,
    query: Result<Query<ByHandle>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    check_protocol(protocol)?;
    let asked = query.ok().and_then(|Query(query)| query.handle);
    let found = match asked {
        Some(handle) if handle.len() <= QUERY_BYTES_MAX && app.lookups.check().is_ok() => {
            let handle = handle.trim();
            app.appservice
                .lookup_handle(handle.strip_prefix('@').unwrap_or(handle))
                .await
        }
        _ => Vec::new(),
    };
    Ok(users_json(found))
}

/// `GET /_matrix/app/v1/thirdparty/user?userid=@_dm_sam:example.org`
pub(super) async fn find_users_by_id<A: Appservice>(
    State(app): State<App<A>>,
    query: Result<Query<ByUser>, QueryRejection>,
) -> Json<Value> {
    let asked = query.ok().and_then(|Query(query)| query.userid);
    let user = asked.and_then(|user| UserId::parse(user).ok());
    let found = match user {
        Some(user) if app.options.is_ours(&user) && app.lookups.check().is_ok() => {
            app.appservice.lookup_user(&user).await
        }
        _ => Vec::new(),
    };
    users_json(found)
}

/// `GET /_matrix/app/v1/thirdparty/location/{protocol}`: a handle is no place.
pub(super) async fn find_locations_by_protocol(
    protocol: PathResult,
) -> Result<Json<Value>, ApiError> {
    check_protocol(protocol)?;
    Ok(Json(json!([])))
}

/// `GET /_matrix/app/v1/thirdparty/location`
pub(super) async fn find_locations_by_alias() -> Json<Value> {
    Json(json!([]))
}

fn check_protocol(protocol: PathResult) -> Result<(), ApiError> {
    match protocol {
        Ok(Path(protocol)) if protocol == PROTOCOL => Ok(()),
        Ok(_) => Err(ApiError::NotFound),
        Err(_) => Err(ApiError::BadPath),
    }
}

fn users_json(found: Vec<ThirdPartyUser>) -> Json<Value> {
    let users = found.into_iter().map(|user| {
        json!({
            "userid": user.ghost,
            "protocol": PROTOCOL,
            "fields": {"handle": user.handle},
        })
    });
    Json(Value::Array(users.collect()))
}
