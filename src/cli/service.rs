//! The service: a store, and an engine once the homeserver is found.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use ruma::{OwnedUserId, UserId};
use tokio::sync::watch;

use super::{CliError, checks::retry_pause, engine_setup, reload::ConfigReload};
use crate::{
    clock::SystemClock,
    config::Setup,
    crypto::store::GhostStores,
    engine::{Engine, StampHistory},
    matrix::{Homeserver, transaction::Transaction},
    permissions::CurrentPermissions,
    server::{Admin, Appservice, AppserviceError, Health, SelfTest, StartedEngine, ThirdPartyUser},
    shutdown::Shutdown,
    store::{Store, StoreFailure},
};

/// How long a transaction waits for the engine. The homeserver gives up after a minute and sends it
/// again.
const ENGINE_WAIT: Duration = Duration::from_secs(45);

/// The service without its servers.
pub struct Service {
    setup: Setup,
    permissions: CurrentPermissions,
    store: Store,
    stores: GhostStores,
    engine: watch::Sender<Option<Engine>>,
    started: watch::Sender<bool>,
}

impl Service {
    /// Opens a service on a store, without a homeserver yet.
    pub fn open(setup: Setup, store: Store) -> Result<Self, CliError> {
        let stores = GhostStores::open(&store).map_err(|error| engine_error(&error))?;
        Ok(Self {
            permissions: CurrentPermissions::new(setup.permissions()),
            setup,
            store,
            stores,
            engine: watch::Sender::new(None),
            started: watch::Sender::new(false),
        })
    }

    /// Returns the failure of the store, for those who have to act on it.
    pub fn failure(&self) -> StoreFailure {
        self.store.failure()
    }

    /// Returns the parts that the admin's commands work on.
    pub fn admin(&self, health: Health, self_test: SelfTest) -> Admin {
        Admin {
            store: self.store.clone(),
            stores: self.stores.clone(),
            health,
            self_test,
            clock: Arc::new(SystemClock),
            reload: Arc::new(self.reload()),
            engine: self.started_engine(),
        }
    }

    /// Returns what reads the configuration again.
    pub fn reload(&self) -> ConfigReload {
        ConfigReload::new(&self.setup, self.permissions.clone())
    }

    /// Returns the engine, for those who need it once it has started.
    pub fn started_engine(&self) -> StartedEngine {
        StartedEngine {
            engine: self.engine.subscribe(),
            started: self.started.subscribe(),
        }
    }

    /// Returns the store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns what the store knows about its stamps.
    pub fn stamp_history(&self) -> Result<StampHistory, CliError> {
        Ok(StampHistory::load(&self.store)?)
    }

    /// Becomes `true` once the engine has started: the work after a restore is done, and the bot is
    /// ready.
    pub fn started(&self) -> watch::Receiver<bool> {
        self.started.subscribe()
    }

    /// Returns the application service behind the server, which waits for the engine.
    pub fn appservice(&self) -> Arc<dyn Appservice> {
        Arc::new(DeferredAppservice(self.engine.subscribe()))
    }

    fn build_engine(&self, homeserver: Homeserver) -> Result<Engine, CliError> {
        let (store, stores) = (self.store.clone(), self.stores.clone());
        let permissions = self.permissions.clone();
        engine_setup::build_engine(&self.setup, permissions, store, stores, homeserver)
    }

    /// Accepts transactions without processing them, for `doctor`: they wait in the store for the
    /// next `run`.
    pub async fn accept_only(&self, homeserver: Homeserver) -> Result<(), CliError> {
        let engine = self.build_engine(homeserver)?;
        // Stopped before it has started, so that no transaction makes it work.
        engine.stop().await.map_err(|error| engine_error(&error))?;
        self.engine.send_replace(Some(engine));
        Ok(())
    }

    /// Stops after [`Service::accept_only`].
    pub async fn close(self) -> Result<(), CliError> {
        let engine = self.engine.borrow().clone();
        if let Some(engine) = engine {
            engine.stop().await.map_err(|error| engine_error(&error))?;
        }
        Ok(self.store.shut_down().await?)
    }

    /// Processes transactions until asked to stop. Returns once all work under way can be resumed
    /// from the store, and the store is durable.
    pub async fn run(self, homeserver: Homeserver, shutdown: Shutdown) -> Result<(), CliError> {
        let engine = self.build_engine(homeserver)?;
        self.engine.send_replace(Some(engine.clone()));
        let mut tries = 0;
        loop {
            match shutdown.or(engine.start()).await {
                None => break,
                Some(Ok(())) => {
                    self.started.send_replace(true);
                    shutdown.asked().await;
                    break;
                }
                Some(Err(error)) if error.is_transient() => {
                    tracing::warn!(%error, "the engine cannot start yet");
                    if shutdown
                        .or(crate::clock::sleep(retry_pause(tries)))
                        .await
                        .is_none()
                    {
                        break;
                    }
                    tries += 1;
                }
                Some(Err(error)) => return Err(engine_error(&error)),
            }
        }
        engine.stop().await.map_err(|error| engine_error(&error))?;
        Ok(self.store.shut_down().await?)
    }
}

fn engine_error(error: &impl ToString) -> CliError {
    CliError::Engine(error.to_string())
}

/// The engine, once there is one. A transaction that comes earlier waits for it. It is not lost: it
/// is not acknowledged until it is answered.
struct DeferredAppservice(watch::Receiver<Option<Engine>>);

impl DeferredAppservice {
    async fn wait_for_engine(&self) -> Option<Engine> {
        let mut engine = self.0.clone();
        let there = engine.wait_for(Option::is_some);
        let there = tokio::time::timeout(ENGINE_WAIT, there).await.ok()?.ok()?;
        (*there).clone()
    }

    fn engine_if_ready(&self) -> Option<Engine> {
        self.0.borrow().clone()
    }
}

#[async_trait]
impl Appservice for DeferredAppservice {
    async fn accept_transaction(
        &self,
        txn_id: &str,
        body: Transaction,
    ) -> Result<(), AppserviceError> {
        // Without an event or a to-device message there is nothing to lose.
        if body.events.is_empty() && body.to_device.is_empty() && self.engine_if_ready().is_none() {
            return Ok(());
        }
        match self.wait_for_engine().await {
            Some(engine) => Appservice::accept_transaction(&engine, txn_id, body).await,
            None => Err(AppserviceError::ShuttingDown),
        }
    }

    async fn note_ping(&self, _: Option<&str>) {}

    async fn user_exists(&self, user: &UserId) -> bool {
        match self.engine_if_ready() {
            Some(engine) => engine.user_exists(user).await,
            None => false,
        }
    }

    async fn lookup_handle(&self, handle: &str) -> Vec<ThirdPartyUser> {
        match self.engine_if_ready() {
            Some(engine) => engine.lookup_handle(handle).await,
            None => Vec::new(),
        }
    }

    async fn lookup_user(&self, user: &UserId) -> Vec<ThirdPartyUser> {
        match self.engine_if_ready() {
            Some(engine) => engine.lookup_user(user).await,
            None => Vec::new(),
        }
    }

    async fn find_owners(
        &self,
        asker: &UserId,
        ghosts: &[OwnedUserId],
    ) -> Result<Vec<Option<OwnedUserId>>, AppserviceError> {
        match self.engine_if_ready() {
            Some(engine) => engine.find_owners(asker, ghosts).await,
            None => Err(AppserviceError::ShuttingDown),
        }
    }

    async fn check_blocks(
        &self,
        inviter: &UserId,
        people: &[OwnedUserId],
    ) -> Result<Vec<bool>, AppserviceError> {
        match self.engine_if_ready() {
            Some(engine) => engine.check_blocks(inviter, people).await,
            None => Err(AppserviceError::ShuttingDown),
        }
    }

    // The module says it again.
    async fn user_deactivated(&self, user: &UserId) -> Result<(), AppserviceError> {
        match self.engine_if_ready() {
            Some(engine) => engine.user_deactivated(user).await,
            None => Err(AppserviceError::ShuttingDown),
        }
    }

    // The module reports every minute, so a report before the engine has started may be lost.
    fn module_reported(&self) {
        if let Some(engine) = self.engine_if_ready() {
            engine.module_reported();
        }
    }
}
