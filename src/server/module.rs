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

use super::{ApiError, App, Intake, transactions::read};
use crate::directory::HANDLES_PER_ROOM_MAX;

/// The largest body that is read: a thousand Matrix IDs, and every character of them escaped.
pub(super) const MAX_BODY: usize = 2 << 20;
/// How many people are looked at for one room.
const MOST_PEOPLE: usize = 1000;
/// The longest version that is remembered.
const MAX_VERSION: usize = 40;
/// How long `doctor` is kept waiting for the next report.
const WAIT: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Introduce {
    asker: String,
    handles: Vec<String>,
    #[serde(default)]
    people: Vec<String>,
    direct: bool,
    encrypted: bool,
}

#[derive(Deserialize)]
struct Invite {
    inviter: String,
    people: Vec<String>,
}

/// `POST /_stonechat/v1/introduce`
pub(super) async fn introduce<I: Intake>(
    State(app): State<App<I>>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let asked: Introduce = body(request).await?;
    if asked.handles.len() > HANDLES_PER_ROOM_MAX || asked.people.len() > MOST_PEOPLE {
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
        false => app.intake.introduce(&asker, &ghosts).await.map_err(later)?,
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
    let blocked = who_blocked(&app, &asker, &asked.people).await?;
    Ok(Json(json!({ "handles": handles, "blocked": blocked })))
}

/// `POST /_stonechat/v1/blocked`
pub(super) async fn blocked<I: Intake>(
    State(app): State<App<I>>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let invite: Invite = body(request).await?;
    if invite.people.len() > MOST_PEOPLE {
        return Err(ApiError::BadJson);
    }
    let Ok(inviter) = UserId::parse(&invite.inviter) else {
        return Ok(Json(json!({ "blocked": [] })));
    };
    let blocked = who_blocked(&app, &inviter, &invite.people).await?;
    Ok(Json(json!({ "blocked": blocked })))
}

async fn who_blocked<I: Intake>(
    app: &App<I>,
    inviter: &UserId,
    people: &[String],
) -> Result<Vec<OwnedUserId>, ApiError> {
    let people = read_ids(people);
    if people.is_empty() {
        return Ok(people);
    }
    let blocked = app.intake.blocked(inviter, &people).await.map_err(later)?;
    let of = people.into_iter().zip(blocked);
    Ok(of.filter_map(|(person, is)| is.then_some(person)).collect())
}

fn read_ids(ids: &[String]) -> Vec<OwnedUserId> {
    ids.iter().filter_map(|id| UserId::parse(id).ok()).collect()
}

fn later(error: super::IntakeError) -> ApiError {
    warn!(%error, "the module is not answered");
    ApiError::NotNow
}

/// A small JSON body.
async fn body<T: DeserializeOwned>(request: Request<Body>) -> Result<T, ApiError> {
    let bytes = read(request).await?;
    serde_json::from_slice(&bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ApiError::BadJson,
        _ => ApiError::NotJson,
    })
}

/// What the module says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The module's version.
    pub version: String,
    /// Its homeserver's.
    pub synapse: String,
}

/// Whether the module has reported itself since we started. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sightings(Arc<watch::Sender<Seen>>);

/// How often the module has reported itself, and what it said last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// How often.
    pub reports: u64,
    /// The last report.
    pub last: Option<Report>,
}

impl Default for Sightings {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Seen::default())))
    }
}

impl Sightings {
    fn saw(&self, mut report: Report) {
        for text in [&mut report.version, &mut report.synapse] {
            text.retain(|c| c.is_ascii_graphic());
            text.truncate(MAX_VERSION);
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
    pub(super) async fn wait_for_next(&self, after: u64) -> Seen {
        self.wait(after, WAIT).await
    }

    /// What has been seen, as soon as there were more than `after` reports, or else after so long.
    pub async fn wait(&self, after: u64, at_most: Duration) -> Seen {
        let mut news = self.0.subscribe();
        let more = news.wait_for(|seen| seen.reports > after);
        // Too late or not: what there is is told.
        let _ = tokio::time::timeout(at_most, more).await;
        self.0.borrow().clone()
    }
}

/// `POST /_stonechat/v1/module`
pub(super) async fn report<I: Intake>(
    State(app): State<App<I>>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let report: Report = body(request).await?;
    app.options.self_test.module().saw(report);
    Ok(Json(json!({})))
}
