//! Handles as a third-party network, in which a client finds the ghost of a handle.
//!
//! The homeserver does not say who asks. So everybody gets the same answer, and all share one rate
//! limit; above the limit the answer is an empty list, as for a handle that does not exist.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::PathRejection, rejection::QueryRejection},
};
use ruma::UserId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, App, Appservice, ThirdPartyUser};
use crate::config::PROTOCOL;

/// Maximum length of a text that is looked up, in bytes: a handle with its server.
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

/// `GET /_matrix/app/v1/thirdparty/protocol/{protocol}`, from which clients learn how to ask for a
/// handle.
pub(super) async fn describe_protocol<A: Appservice>(
    State(app): State<App<A>>,
    protocol: PathResult,
) -> Result<Json<Value>, ApiError> {
    check_protocol(protocol)?;
    let longest = app.options.handle_chars_max;
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

/// `GET /_matrix/app/v1/thirdparty/location/{protocol}`. Handles have no locations.
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
