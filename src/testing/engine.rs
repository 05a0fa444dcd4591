//! The engine of a test: a store in memory, a homeserver of its own, a clock that stands, and a
//! generator with a seed.

use std::sync::{Arc, Mutex};

use rand::{SeedableRng as _, rngs::StdRng};
use ruma::{OwnedUserId, owned_user_id, server_name};

use super::{FakeHomeserver, TestClock};
use crate::{
    clock::{Clock, SystemClock, Timestamp},
    crypto::{MachineSettings, Machines},
    directory::{Directory, DirectorySettings},
    engine::{Engine, EngineSettings, Services},
    introduction::Rules,
    matrix::Homeserver,
    store::Store,
};

/// The time at which the clock of a test stands, unless the test moves it.
pub(crate) const NOW: Timestamp = Timestamp(1_795_376_395_450);

/// The bot of every engine made here.
pub(crate) fn bot() -> OwnedUserId {
    owned_user_id!("@_dm_.bot:hs.test")
}

/// Begins an engine that takes in what arrives and is not started.
pub(crate) fn engine() -> EngineBuilder {
    EngineBuilder {
        store: None,
        fake: None,
        real_time: false,
        seed: 7,
        settings: EngineSettings {
            server_name: server_name!("hs.test").to_owned(),
            bot: bot(),
            bot_name: "Stonechat".to_owned(),
            rules: Rules::default(),
            conversations: Default::default(),
            joins_at_once: 1,
            strict: false,
            handles_per_room: 10,
            reconcile_every: std::time::Duration::from_secs(3600),
            reconcile_per_second: 1,
        },
    }
}

/// An engine, and what it stands on.
pub(crate) struct TestEngine {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) fake: FakeHomeserver,
    /// What the engine reads the time from, unless it has been built with
    /// [`EngineBuilder::real_time`].
    pub(crate) clock: Arc<TestClock>,
}

/// What differs from the engine of most tests.
pub(crate) struct EngineBuilder {
    store: Option<Store>,
    fake: Option<FakeHomeserver>,
    real_time: bool,
    seed: u64,
    settings: EngineSettings,
}

impl EngineBuilder {
    /// Stands on a store that is there already.
    pub(crate) fn store(mut self, store: &Store) -> Self {
        self.store = Some(store.clone());
        self
    }

    /// Talks to a homeserver that is there already.
    pub(crate) fn homeserver(mut self, fake: &FakeHomeserver) -> Self {
        self.fake = Some(fake.clone());
        self
    }

    /// Reads the system's clock.
    pub(crate) fn real_time(mut self) -> Self {
        self.real_time = true;
        self
    }

    /// Draws ids and secrets from another seed.
    pub(crate) fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    pub(crate) fn settings(mut self, adjust: impl FnOnce(&mut EngineSettings)) -> Self {
        adjust(&mut self.settings);
        self
    }

    pub(crate) async fn build(self) -> TestEngine {
        let store = self.store.unwrap_or_else(Store::in_memory);
        let fake = match self.fake {
            Some(fake) => fake,
            None => FakeHomeserver::start().await,
        };
        let clock = Arc::new(TestClock::at(NOW.0));
        let read_clock: Arc<dyn Clock> = if self.real_time {
            Arc::new(SystemClock)
        } else {
            clock.clone()
        };
        let homeserver = fake.connect().await;
        let mut directory = DirectorySettings::new(self.settings.server_name.clone());
        directory.capabilities.masked = true;
        let parts = Services {
            machines: machines(&store, &homeserver, &read_clock).await,
            directory: Directory::new(store.clone(), directory),
            clock: read_clock,
            store: store.clone(),
            homeserver,
            rng: Mutex::new(StdRng::seed_from_u64(self.seed)),
        };
        TestEngine {
            engine: Engine::new(parts, self.settings).unwrap(),
            store,
            fake,
            clock,
        }
    }
}

/// Returns the machines of a start. What an earlier start on the same store left running ends
/// first.
async fn machines(store: &Store, homeserver: &Homeserver, clock: &Arc<dyn Clock>) -> Machines {
    loop {
        let settings = MachineSettings {
            clock: clock.clone(),
            ..MachineSettings::default()
        };
        match Machines::new(store.clone(), homeserver.clone(), settings) {
            Err(error) if error.to_string().contains("in use") => {
                tokio::task::yield_now().await;
            }
            machines => return machines.unwrap(),
        }
    }
}
