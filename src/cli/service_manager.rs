//! What systemd is told of the service: that it serves, in what state it is, and that it works.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::Service;
use crate::{
    clock::sleep,
    server::{Health, StartedEngine},
    shutdown::Shutdown,
    store::Store,
};

/// How often the state is looked at, unless the watchdog wants to hear of it sooner.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The part of the watchdog's time after which it is told again that all is well.
const PART_OF_WATCHDOG: u32 = 3;

/// The service manager that started this process, if there is one. Everything told to nobody is
/// dropped.
#[derive(Debug)]
pub struct ServiceManager {
    following: JoinHandle<()>,
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl ServiceManager {
    /// Tells it that a service serves, and follows the service until it stops. It may still wait for
    /// the homeserver: that is no reason to end it, and what the homeserver sends meanwhile is
    /// accepted.
    pub fn tell_of(service: &Service, health: &Health, shutdown: &Shutdown) -> Self {
        tell(&[NotifyState::Ready, NotifyState::Status("starting")]);
        let (store, engine) = (service.store().clone(), service.started_engine());
        let follow = follow(health.clone(), store, engine, shutdown.clone());
        Self {
            following: tokio::spawn(follow),
        }
    }

    /// Tells it that the service ends.
    pub fn stops(&self) {
        self.following.abort();
        tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }
}

/// Tells the manager the state of the service whenever that changes, and the watchdog that work gets
/// done, until the service stops.
async fn follow(health: Health, store: Store, engine: StartedEngine, shutdown: Shutdown) {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(LOOK_EVERY, |watchdog| {
        LOOK_EVERY.min(watchdog / PART_OF_WATCHDOG)
    });
    let mut told = String::new();
    loop {
        let state = health.in_words();
        if state != told {
            tell(&[NotifyState::Status(&state)]);
            told = state;
        }
        if watchdog.is_some() {
            // What hangs here keeps the watchdog waiting, which then ends the process.
            match prove_progress(&store, &engine).await {
                Ok(()) => tell(&[NotifyState::Watchdog]),
                Err(what) => error!("the watchdog is not told that all is well: {what}"),
            }
        }
        if shutdown.or(sleep(every)).await.is_none() {
            return;
        }
    }
}

/// Returns once the thread that flushes the store has answered and the engine has shown that it makes
/// progress ([`crate::engine::Engine::prove_progress`]).
async fn prove_progress(store: &Store, engine: &StartedEngine) -> Result<(), String> {
    store.flush().await.map_err(|error| error.to_string())?;
    if let Some(engine) = engine.get() {
        let progress = engine.prove_progress().await;
        progress.map_err(|stall| stall.to_string())?;
    }
    Ok(())
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager could not be told");
    }
}
