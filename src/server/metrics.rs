//! The metrics, on a port of their own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{sync::Mutex, task::JoinError, time::Instant};
use tracing::warn;

use super::{Admin, Exposition, Limits, Listener, ServerError};
use crate::{
    clock::sleep, engine::count_dead_letters, matrix::bounds::DeadLetterReason,
    metrics::catalogue as metric, shutdown::Shutdown, store::StoreError,
};

/// Maximum number of connections. Two Prometheus servers use two.
const CONNECTIONS_MAX: usize = 8;
/// How long the same is shown again, so that many readers cost no more than one.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How often the recorder is tidied, also if nobody reads.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// A port for the metrics that is bound and not served yet.
#[derive(Debug)]
pub struct MetricsListener {
    listener: Listener,
    exposition: Exposition,
}

impl MetricsListener {
    /// Binds the address, and begins to record.
    pub async fn bind(address: SocketAddr) -> Result<Self, ServerError> {
        let limits = Limits {
            connections_max: CONNECTIONS_MAX,
            shutdown_timeout: Duration::from_secs(5),
            ..Limits::default()
        };
        let listener = Listener::bind_for("metrics.listen", address, limits).await?;
        let exposition = Exposition::install()?;
        metric::BUILD.set([env!("CARGO_PKG_VERSION")], 1);
        Ok(Self {
            listener,
            exposition,
        })
    }

    /// Returns the address listened on.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves the metrics of a service until `stop` asks to end.
    pub async fn serve(self, admin: Admin, stop: Shutdown) {
        let router = metrics_router(admin, self.exposition.clone());
        let serving = self.listener.serve(router, stop);
        let tidying = async {
            loop {
                sleep(TIDY_EVERY).await;
                self.exposition.tidy();
            }
        };
        tokio::select! {
            () = serving => {}
            () = tidying => {}
        }
    }
}

struct MetricsState {
    admin: Admin,
    exposition: Exposition,
    /// What was last shown, and when; held while it is made.
    shown: Mutex<Option<(Instant, String)>>,
}

fn metrics_router(admin: Admin, exposition: Exposition) -> Router {
    let state = Arc::new(MetricsState {
        admin,
        exposition,
        shown: Mutex::default(),
    });
    Router::new()
        .route("/metrics", get(get_metrics))
        .with_state(state)
}

async fn get_metrics(State(state): State<Arc<MetricsState>>) -> Response {
    // In a task, so that it goes on when a reader goes away: the next one would begin another.
    match tokio::spawn(async move { state.show().await }).await {
        Ok(Ok(text)) => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            // A reader shows no token, so its connection would be closed soon anyway.
            let headers = [(header::CONTENT_TYPE, kind), (header::CONNECTION, "close")];
            (headers, text).into_response()
        }
        Ok(Err(error)) | Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}

impl MetricsState {
    /// Returns the metrics as they were within [`FRESH_FOR`].
    async fn show(&self) -> Result<String, JoinError> {
        let mut shown = self.shown.lock().await;
        if let Some((at, text)) = &*shown
            && at.elapsed() < FRESH_FOR
        {
            return Ok(text.clone());
        }
        let (admin, exposition) = (self.admin.clone(), self.exposition.clone());
        // The queues may be long.
        let made = tokio::task::spawn_blocking(move || {
            measure(&admin);
            exposition.render()
        });
        let text = made.await?;
        *shown = Some((Instant::now(), text.clone()));
        Ok(text)
    }
}

/// Sets the metrics that are read when somebody asks. If the store has failed, those of the parts say
/// so, and the others keep their values.
fn measure(admin: &Admin) {
    for (part, state) in admin.health.parts() {
        metric::PARTS.set([part], u64::from(state == "ok"));
    }
    let engine = admin.engine.get();
    let machines = engine.map_or(0, |engine| engine.machines_in_memory());
    metric::MACHINES.set([], machines as u64);
    if let Err(error) = measure_store(admin) {
        warn!(%error, "the metrics of the store cannot be read");
    }
}

fn measure_store(admin: &Admin) -> Result<(), StoreError> {
    let waiting = admin.waiting()?;
    metric::INBOX.set([], waiting.inbox);
    metric::INBOX_AGE.set([], waiting.oldest_item_seconds.unwrap_or(0));
    metric::OUTBOX.set([], waiting.outbox);
    metric::OUTBOX_AGE.set([], waiting.oldest_effect_seconds.unwrap_or(0));
    metric::OWED_GHOSTS.set([], waiting.owed_ghosts as u64);
    metric::OWED_NOTICES.set([], waiting.owed_notices);
    let letters = count_dead_letters(&admin.store)?;
    for reason in DeadLetterReason::ALL.map(DeadLetterReason::name) {
        let count = letters.get(reason).copied().unwrap_or(0);
        metric::DEAD_LETTERS.reach([reason], count);
    }
    metric::STORE_SIZE.set([], admin.store.size_on_disk()?);
    Ok(())
}
