//! The API of the module in the homeserver: see `synapse-module/`.
//!
//! | path | |
//! |---|---|
//! | `POST /_stonechat/v1/introduce` | whom to invite instead of ghosts into a room that is being created |
//! | `POST /_stonechat/v1/blocked` | which of the invited people have blocked the inviter |
//! | `POST /_stonechat/v1/deactivated` | an account of the homeserver was deactivated |
//! | `POST /_stonechat/v1/module` | the module reports that it is loaded |
//!
//! These paths have a token of their own, which is valid for nothing else; the homeserver's token
//! is not valid here. The answer never says why a ghost stays invited. A text that is not a Matrix
//! ID is ignored: people can write anything into an invite list, and one mistake must not cost the
//! others their answers.

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
use crate::handle::HANDLES_PER_ROOM_MAX;

/// Maximum size of a body, in bytes: a thousand Matrix IDs with every character escaped.
pub(super) const MODULE_BODY_BYTES_MAX: usize = 2 << 20;
/// Maximum number of people in one request.
const PEOPLE_MAX: usize = 1000;
/// Maximum length of a version that is remembered, in characters.
const VERSION_CHARS_MAX: usize = 40;
/// Maximum length of a worker's name that is remembered, in characters.
const WORKER_CHARS_MAX: usize = 64;
/// Maximum number of the homeserver's processes that are remembered.
const WORKERS_MAX: usize = 64;
/// How long `doctor` waits for the next report in one request.
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

#[derive(Deserialize)]
struct DeactivatedReport {
    user: String,
}

/// `POST /_stonechat/v1/introduce`
pub(super) async fn introduce<A: Appservice>(
    State(app): State<App<A>>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let asked: IntroduceRequest = read_json(request).await?;
    if asked.handles.len() > HANDLES_PER_ROOM_MAX || asked.people.len() > PEOPLE_MAX {
        return Err(ApiError::BadJson);
    }
    let mut handles: Map<String, Value> = Map::new();
    for ghost in &asked.handles {
        handles.insert(ghost.clone(), json!({ "owner": null }));
    }
    let Ok(asker) = UserId::parse(&asked.asker) else {
        return Ok(Json(json!({ "handles": handles, "blocked": [] })));
    };
    // Nobody is introduced in an unencrypted room: a ghost turns encryption on first, or leaves.
    let ghosts = if asked.encrypted {
        read_ids(&asked.handles)
    } else {
        Vec::new()
    };
    let owners = if ghosts.is_empty() {
        Vec::new()
    } else {
        let owners = app.appservice.find_owners(&asker, &ghosts).await;
        owners.map_err(unavailable)?
    };
    let replaced = owners.iter().flatten().count();
    debug!(
        ghosts = asked.handles.len(),
        replaced,
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
    let blockers = people
        .into_iter()
        .zip(blocked)
        .filter_map(|(person, has_blocked)| has_blocked.then_some(person));
    Ok(blockers.collect())
}

fn read_ids(ids: &[String]) -> Vec<OwnedUserId> {
    ids.iter().filter_map(|id| UserId::parse(id).ok()).collect()
}

fn unavailable(error: super::AppserviceError) -> ApiError {
    warn!(%error, "a question of the module was not answered");
    ApiError::NotNow
}

/// Reads a small JSON body.
async fn read_json<T: DeserializeOwned>(request: Request<Body>) -> Result<T, ApiError> {
    let bytes = read_body(request).await?;
    serde_json::from_slice(&bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ApiError::BadJson,
        _ => ApiError::NotJson,
    })
}

/// A report of the module about itself. Each process of the homeserver that has loaded the module
/// sends its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleReport {
    /// The module's version.
    pub version: String,
    /// The homeserver's version.
    pub synapse: String,
    /// The name of the worker, or `main`. Empty if the module is too old to say it.
    #[serde(default)]
    pub worker: String,
    /// Whether the module reports because it was called for a room of the checks.
    #[serde(default)]
    pub called: bool,
}

/// Receives the module's reports, and lets others wait for one. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ModuleMonitor(Arc<watch::Sender<ModuleStatus>>);

/// The module's reports since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleStatus {
    /// How often the module has reported that it was called for a room of the checks.
    pub calls: u64,
    /// The last report of each process, the newest last.
    pub workers: Vec<ModuleReport>,
}

impl Default for ModuleMonitor {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(ModuleStatus::default())))
    }
}

impl ModuleMonitor {
    fn record(&self, mut report: ModuleReport) {
        for (text, chars_max) in [
            (&mut report.version, VERSION_CHARS_MAX),
            (&mut report.synapse, VERSION_CHARS_MAX),
            (&mut report.worker, WORKER_CHARS_MAX),
        ] {
            text.retain(|c| c.is_ascii_graphic());
            text.truncate(chars_max);
        }
        self.0.send_modify(|seen| {
            let mut known = seen.workers.iter();
            let known = known.position(|it| it.worker == report.worker);
            let before = known.map(|at| seen.workers.remove(at));
            if before.is_none_or(|it| it.version != report.version || it.synapse != report.synapse)
            {
                info!(
                    worker = %report.worker,
                    version = %report.version,
                    synapse = %report.synapse,
                    "the module is loaded"
                );
            }
            if seen.workers.len() >= WORKERS_MAX {
                seen.workers.remove(0);
            }
            seen.calls = seen.calls.wrapping_add(report.called.into());
            seen.workers.push(report);
        });
    }

    /// Waits like [`ModuleMonitor::wait_for_call`], as long as a request of `doctor` may take.
    pub(super) async fn next_status(&self, after: u64) -> ModuleStatus {
        self.wait_for_call(after, REPORT_TIMEOUT).await
    }

    /// Returns the reports once the module has been called more than `after` times for rooms of the
    /// checks, or after `timeout`.
    pub async fn wait_for_call(&self, after: u64, timeout: Duration) -> ModuleStatus {
        let mut news = self.0.subscribe();
        let more = news.wait_for(|seen| seen.calls > after);
        // The answer after a timeout is the status as it is.
        let _ = tokio::time::timeout(timeout, more).await;
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
    app.appservice.module_reported();
    Ok(Json(json!({})))
}

/// `POST /_stonechat/v1/deactivated`
pub(super) async fn deactivated<A: Appservice>(
    State(app): State<App<A>>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let report: DeactivatedReport = read_json(request).await?;
    // Only accounts of this homeserver can be: of others it knows nothing.
    let user = UserId::parse(&report.user).map_err(|_| ApiError::BadJson)?;
    if user.server_name() != app.options.server_name {
        return Err(ApiError::BadJson);
    }
    let erased = app.appservice.user_deactivated(&user).await;
    erased.map_err(unavailable)?;
    Ok(Json(json!({})))
}
