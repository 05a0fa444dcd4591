//! What the module in the homeserver asks: see `synapse-module/`.
//!
//! | path | |
//! |---|---|
//! | `POST /_stonechat/v1/introduce` | a room is being created: whom to invite instead of ghosts |
//! | `POST /_stonechat/v1/blocked` | somebody is being invited: whether they blocked the inviter |
//! | `POST /_stonechat/v1/module` | the module is loaded |
//!
//! These have a token of their own, which opens nothing else; the homeserver's does not open them.
//! Nothing is said about why a ghost is left where it is. What cannot be read as a Matrix ID is
//! passed over: people can write anything into an invite list, and their mistakes are not to
//! cost others their answers.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{ApiError, App, Appservice, transactions::read_body};
use crate::directory::HANDLES_PER_ROOM;

/// The largest body that is read: a thousand Matrix IDs, and every character of them escaped.
pub(super) const MODULE_BODY_BYTES_MAX: usize = 2 << 20;
/// How many people are looked at for one room.
const PEOPLE_MAX: usize = 1000;
/// The longest version that is remembered.
const VERSION_CHARS_MAX: usize = 40;
/// How long `doctor` is kept waiting for the next report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct IntroduceRequest {
    asker: String,
    handles: Vec<String>,
    #[serde(default)]
    people: Vec<String>,
    direct: bool,
    encrypted: bool,
}

#[derive(Deserialize)]
struct BlockedRequest {
    inviter: String,
    people: Vec<String>,
}

/// `POST /_stonechat/v1/introduce`
pub(super) async fn introduce<A: Appservice>(
    State(app): State<App<A>>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let asked: IntroduceRequest = read_json(request).await?;
    if asked.handles.len() > HANDLES_PER_ROOM || asked.people.len() > PEOPLE_MAX {
        return Err(ApiError::BadJson);
    }
    let mut handles: Map<String, Value> = Map::new();
    for ghost in &asked.handles {
        handles.insert(ghost.clone(), json!({ "owner": null }));
    }
    let Ok(asker) = UserId::parse(&asked.asker) else {
        return Ok(Json(json!({ "handles": handles, "blocked": [] })));
    };
    // Nobody is brought together in the clear: a ghost turns encryption on first, or goes.
    let ghosts = match asked.encrypted {
        true => read_ids(&asked.handles),
        false => Vec::new(),
    };
    let owners = match ghosts.is_empty() {
        true => Vec::new(),
        false => app
            .appservice
            .find_owners(&asker, &ghosts)
            .await
            .map_err(unavailable)?,
    };
    let put = owners.iter().flatten().count();
    debug!(
        ghosts = asked.handles.len(),
        put,
        direct = asked.direct,
        encrypted = asked.encrypted,
        "a room is being created"
    );
    for (ghost, owner) in ghosts.into_iter().zip(owners) {
        handles.insert(ghost.into(), json!({ "owner": owner }));
    }
    let blocked = find_blockers(&app, &asker, &asked.people).await?;
    Ok(Json(json!({ "handles": handles, "blocked": blocked })))
}

/// `POST /_stonechat/v1/blocked`
pub(super) async fn blocked<A: Appservice>(
    State(app): State<App<A>>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let invite: BlockedRequest = read_json(request).await?;
    if invite.people.len() > PEOPLE_MAX {
        return Err(ApiError::BadJson);
    }
    let Ok(inviter) = UserId::parse(&invite.inviter) else {
        return Ok(Json(json!({ "blocked": [] })));
    };
    let blocked = find_blockers(&app, &inviter, &invite.people).await?;
    Ok(Json(json!({ "blocked": blocked })))
}

async fn find_blockers<A: Appservice>(
    app: &App<A>,
    inviter: &UserId,
    people: &[String],
) -> Result<Vec<OwnedUserId>, ApiError> {
    let people = read_ids(people);
    if people.is_empty() {
        return Ok(people);
    }
    let blocked = app
        .appservice
        .check_blocks(inviter, &people)
        .await
        .map_err(unavailable)?;
    let of = people.into_iter().zip(blocked);
    Ok(of.filter_map(|(person, is)| is.then_some(person)).collect())
}

fn read_ids(ids: &[String]) -> Vec<OwnedUserId> {
    ids.iter().filter_map(|id| UserId::parse(id).ok()).collect()
}

fn unavailable(error: super::AppserviceError) -> ApiError {
    warn!(%error, "the module is not answered");
    ApiError::NotNow
}

/// A small JSON body.
async fn read_json<T: DeserializeOwned>(request: Request<Body>) -> Result<T, ApiError> {
    let bytes = read_body(request).await?;
    serde_json::from_slice(&bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ApiError::BadJson,
        _ => ApiError::NotJson,
    })
}

/// What the module says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleReport {
    /// The module's version.
    pub version: String,
    /// Its homeserver's.
    pub synapse: String,
}

/// Whether the module has reported itself since we started. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ModuleMonitor(Arc<watch::Sender<ModuleStatus>>);

/// How often the module has reported itself, and what it said last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleStatus {
    /// How often.
    pub reports: u64,
    /// The last report.
    pub last: Option<ModuleReport>,
}

impl Default for ModuleMonitor {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(ModuleStatus::default())))
    }
}

impl ModuleMonitor {
    fn record(&self, mut report: ModuleReport) {
        for text in [&mut report.version, &mut report.synapse] {
            text.retain(|c| c.is_ascii_graphic());
            text.truncate(VERSION_CHARS_MAX);
        }
        self.0.send_modify(|seen| {
            if seen.last.as_ref() != Some(&report) {
                info!(version = %report.version, synapse = %report.synapse, "the module is loaded");
            }
            seen.reports = seen.reports.wrapping_add(1);
            seen.last = Some(report);
        });
    }

    /// What has been seen, for a `doctor` in another process, as soon as there were more than `after`
    /// reports or after some seconds.
    pub(super) async fn next_status(&self, after: u64) -> ModuleStatus {
        self.wait_for_report(after, REPORT_TIMEOUT).await
    }

    /// What has been seen, as soon as there were more than `after` reports, or else after so long.
    pub async fn wait_for_report(&self, after: u64, at_most: Duration) -> ModuleStatus {
        let mut news = self.0.subscribe();
        let more = news.wait_for(|seen| seen.reports > after);
        // Too late or not: what there is is told.
        let _ = tokio::time::timeout(at_most, more).await;
        self.0.borrow().clone()
    }
}

/// `POST /_stonechat/v1/module`
pub(super) async fn report<A: Appservice>(
    State(app): State<App<A>>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let report: ModuleReport = read_json(request).await?;
    app.options.self_test.module().record(report);
    Ok(Json(json!({})))
}
