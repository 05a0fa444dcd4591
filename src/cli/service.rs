//! Where the engine is put between the server and the homeserver.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use ruma::{OwnedUserId, UserId};
use tokio::sync::watch;

use super::{CliError, assemble, checks::pause};
use crate::{
    clock::SystemClock,
    config::Setup,
    crypto::store::GhostStores,
    engine::Engine,
    matrix::{Homeserver, transaction::Transaction},
    server::{Admin, Health, Intake, IntakeError, SelfTest, ThirdPartyUser},
    shutdown::Shutdown,
    store::{Store, StoreFailure},
};

/// How long a transaction waits for the engine. The homeserver gives up after a minute, and sends
/// it again.
const PATIENCE: Duration = Duration::from_secs(45);

/// Stonechat itself, without the server in front of it.
pub struct Service {
    setup: Setup,
    store: Store,
    stores: GhostStores,
    engine: watch::Sender<Option<Engine>>,
    begun: watch::Sender<bool>,
}

impl Service {
    /// A service on this store, without a homeserver yet.
    pub fn open(setup: Setup, store: Store) -> Result<Self, CliError> {
        let stores = GhostStores::open(&store).map_err(|error| failed(&error))?;
        Ok(Self {
            setup,
            store,
            stores,
            engine: watch::Sender::new(None),
            begun: watch::Sender::new(false),
        })
    }

    /// The failure of the store, for those who have to act on it.
    pub fn failure(&self) -> StoreFailure {
        self.store.failure()
    }

    /// What the admin's commands work on.
    pub fn admin(&self, health: Health, self_test: SelfTest) -> Admin {
        Admin {
            store: self.store.clone(),
            stores: self.stores.clone(),
            health,
            self_test,
            clock: Arc::new(SystemClock),
        }
    }

    /// Becomes true when everything is done that has to be before the service works: what follows
    /// from a restore, and the bot.
    pub fn begun(&self) -> watch::Receiver<bool> {
        self.begun.subscribe()
    }

    /// What the server hands things to.
    pub fn intake(&self) -> Arc<dyn Intake> {
        Arc::new(Waiting(self.engine.subscribe()))
    }

    /// Takes in what comes and does nothing about it, for a Stonechat that only looks around: it
    /// is written down for the next `run`.
    pub async fn only_take_in(&self, homeserver: Homeserver) -> Result<(), CliError> {
        let stores = self.stores.clone();
        let engine = assemble::engine(&self.setup, self.store.clone(), stores, homeserver)?;
        // Stopped before it has begun, so that nothing begins when something comes.
        engine.stop().await.map_err(|error| failed(&error))?;
        self.engine.send_replace(Some(engine));
        Ok(())
    }

    /// Ends what [`Service::only_take_in`] began.
    pub async fn close(self) -> Result<(), CliError> {
        let engine = self.engine.borrow().clone();
        if let Some(engine) = engine {
            engine.stop().await.map_err(|error| failed(&error))?;
        }
        Ok(self.store.shut_down().await?)
    }

    /// Deals with what comes in, until asked to end. Returns when nothing is under way that a
    /// crash would not bring back, and all of the store is durable.
    pub async fn work(self, homeserver: Homeserver, shutdown: Shutdown) -> Result<(), CliError> {
        let stores = self.stores.clone();
        let engine = assemble::engine(&self.setup, self.store.clone(), stores, homeserver)?;
        self.engine.send_replace(Some(engine.clone()));
        let mut tries = 0;
        loop {
            match shutdown.or(engine.start()).await {
                None => break,
                Some(Ok(())) => {
                    self.begun.send_replace(true);
                    shutdown.asked().await;
                    break;
                }
                Some(Err(error)) if error.is_transient() => {
                    tracing::warn!(%error, "it cannot begin yet");
                    if shutdown
                        .or(crate::clock::sleep(pause(tries)))
                        .await
                        .is_none()
                    {
                        break;
                    }
                    tries += 1;
                }
                Some(Err(error)) => return Err(failed(&error)),
            }
        }
        engine.stop().await.map_err(|error| failed(&error))?;
        Ok(self.store.shut_down().await?)
    }
}

fn failed(error: &impl ToString) -> CliError {
    CliError::Engine(error.to_string())
}

/// The engine as soon as there is one. What the homeserver pushes in the moment before that waits
/// with its answer, and is not lost: unanswered is not acknowledged.
struct Waiting(watch::Receiver<Option<Engine>>);

impl Waiting {
    async fn engine(&self) -> Option<Engine> {
        let mut engine = self.0.clone();
        let there = engine.wait_for(Option::is_some);
        let there = tokio::time::timeout(PATIENCE, there).await.ok()?.ok()?;
        (*there).clone()
    }

    fn now(&self) -> Option<Engine> {
        self.0.borrow().clone()
    }
}

#[async_trait]
impl Intake for Waiting {
    async fn transaction(&self, txn_id: &str, body: Transaction) -> Result<(), IntakeError> {
        // Nothing but what was for the checks: there is nothing to lose.
        if body.events.is_empty() && body.to_device.is_empty() && self.now().is_none() {
            return Ok(());
        }
        match self.engine().await {
            Some(engine) => Intake::transaction(&engine, txn_id, body).await,
            None => Err(IntakeError::ShuttingDown),
        }
    }

    async fn ping(&self, _: Option<&str>) {}

    async fn user_exists(&self, user: &UserId) -> bool {
        match self.now() {
            Some(engine) => engine.user_exists(user).await,
            None => false,
        }
    }

    async fn lookup_handle(&self, handle: &str) -> Vec<ThirdPartyUser> {
        match self.now() {
            Some(engine) => engine.lookup_handle(handle).await,
            None => Vec::new(),
        }
    }

    async fn lookup_user(&self, user: &UserId) -> Vec<ThirdPartyUser> {
        match self.now() {
            Some(engine) => engine.lookup_user(user).await,
            None => Vec::new(),
        }
    }

    async fn introduce(
        &self,
        asker: &UserId,
        ghosts: &[OwnedUserId],
    ) -> Result<Vec<Option<OwnedUserId>>, IntakeError> {
        match self.now() {
            Some(engine) => engine.introduce(asker, ghosts).await,
            None => Err(IntakeError::ShuttingDown),
        }
    }

    async fn blocked(
        &self,
        inviter: &UserId,
        people: &[OwnedUserId],
    ) -> Result<Vec<bool>, IntakeError> {
        match self.now() {
            Some(engine) => engine.blocked(inviter, people).await,
            None => Err(IntakeError::ShuttingDown),
        }
    }
}
