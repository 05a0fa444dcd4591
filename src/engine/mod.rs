//! Inbox, decide, outbox: the only room that runs things.
//!
//! * `intake` writes what the homeserver pushes to the inbox, once, and durably, before the
//!   transaction is acknowledged; `reconcile` fetches what was lost on the way, by `/sync`.
//! * `to_device` hands to-device messages to the machines.
//! * `restore` and `stock` are what a service does first that came out of a backup.
//! * Every room has an actor (`rooms`, `room`) that takes what arrived there in order, lets a pure
//!   decider decide (`crate::introduction`, `control`), writes state, effects and "done" in one
//!   batch, and carries the effects out one by one (`effects`, `control_effects`).
//! * Conversations of masked handles: `converse` decides on them under one lock, `seat` hears what
//!   happens in their rooms, `carry`, `portal`, `naming`, `follow`, `mend` and `depart` carry out
//!   what follows, `event_map` knows which event is which, `calls` who has no relay, `continuity`
//!   keeps the order where something may have been lost, `gather` takes many messages in at once,
//!   `delivery` shows that they have arrived.
//!
//! # What a crash does
//!
//! An event is either still in the inbox, or its state and effects are written. An effect stays in
//! the outbox until it is done; carrying it out twice is harmless, because its transaction id
//! follows from the ghost, the room and the event that caused it, and everything else is looked up
//! before it is changed.

mod actors;
mod control_rooms;
mod conversations;
mod error;
mod event;
mod inbox;
mod introductions;
mod keyed;
mod maintenance;
mod messaging;
mod module_api;
mod places;
mod records;
mod retry;
mod room;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use tokio::sync::{Mutex, Notify, Semaphore, watch};

pub use control_rooms::state::{Answer, Invited, Judgement, Message, Spokesperson, Task, Words};
pub use error::EngineError;
pub use inbox::dead_letters::count_dead_letters;
pub use introductions::request::Shown;
pub use maintenance::restore::NOT_IN_BACKUPS;

/// The table of control rooms in a backup, to count them by.
pub const CONTROL_ROOMS_TABLE: u8 = <records::ControlRooms as crate::store::Table>::ID;

use self::{keyed::KeyedLocks, places::Places};
use crate::{
    clock::{Clock, Timestamp},
    crypto::Machines,
    directory::Directory,
    introduction::Rules,
    matrix::Homeserver,
    relay::CallWatch,
    store::{Store, StoreError},
};

/// What the configuration says to the engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our homeserver's name.
    pub server_name: OwnedServerName,
    /// The bot.
    pub bot: OwnedUserId,
    /// The bot's display name.
    pub bot_name: String,
    /// The rules of introductions.
    pub rules: Rules,
    /// How conversations with masked handles are carried.
    pub relay: RelaySettings,
    /// How many introductions of our own server's people go on at the same time, and how many of
    /// all others'; the rest waits at the door.
    pub joins_at_once: usize,
    /// Nothing passes through us, for every handle of this server.
    pub strict: bool,
    /// How many ghosts may be invited into one room.
    pub handles_per_room: usize,
    /// How often every ghost is reconciled.
    pub reconcile_every: Duration,
    /// How many ghosts a second.
    pub reconcile_per_second: u32,
}

/// How conversations with masked handles are carried.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// Whether a read receipt of the ghost shows that a message has reached the other room.
    pub delivery_receipts: bool,
    /// For how long it is remembered which event here is which there.
    pub remember: Duration,
    /// How long what follows waits for a message whose key has not come.
    pub wait_for_key: Duration,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            delivery_receipts: true,
            remember: Duration::from_secs(365 * 24 * 60 * 60),
            wait_for_key: Duration::from_secs(60),
        }
    }
}

/// Maximum number of ghosts that sync at the same time.
const SYNCS: usize = 4;

/// What the engine stands on.
#[derive(Debug)]
pub struct Parts {
    /// The store.
    pub store: Store,
    /// The homeserver.
    pub homeserver: Homeserver,
    /// The machines.
    pub machines: Machines,
    /// The directory.
    pub directory: Directory,
    /// The bot's words.
    pub spokesperson: Arc<dyn Spokesperson>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// The running engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    parts: Parts,
    settings: Settings,
    /// Numbers everything that is queued; never goes back, also not over restarts.
    sequence: AtomicU64,
    intake: Mutex<()>,
    /// All that has arrived with lower numbers is durable.
    arrived: AtomicU64,
    echoes: inbox::accept::Echoes,
    to_device: inbox::to_device::Queues,
    counts: Mutex<HashMap<OwnedUserId, inbox::accept::KeyCounts>>,
    rooms: std::sync::Mutex<HashMap<OwnedRoomId, Arc<Notify>>>,
    /// Set once the bot is made: from then on rooms have actors.
    started: AtomicBool,
    /// Whether what the module has asked will be written in a moment.
    settling: AtomicBool,
    /// Held, by person, while their control room is made or replaced.
    control_rooms: KeyedLocks<OwnedUserId>,
    tasks: std::sync::Mutex<tokio::task::JoinSet<()>>,
    places: Places,
    synced: Mutex<HashMap<OwnedUserId, Timestamp>>,
    /// Syncs at the same time: each holds up to some 15 MiB, and keeps the homeserver busy.
    syncs: Semaphore,
    /// Users who are about to be synced, because something for them was set aside.
    backfills: std::sync::Mutex<HashSet<OwnedUserId>>,
    /// Rooms of a transaction whose last part has not come. They are woken with it.
    held_rooms: Mutex<Vec<OwnedRoomId>>,
    /// One conversation at a time is decided on.
    conversing: std::sync::Mutex<()>,
    /// When one was changed by that.
    changes: conversations::repository::Changes,
    /// Held, by ghost, while it makes a portal: what is not written down yet is not to be left
    /// again.
    creating: KeyedLocks<OwnedUserId>,
    /// Held, by conversation and person, while their portal is furnished. The actors of several
    /// rooms may want to at once; both would invite the same people, one of them would be refused,
    /// and that would end the conversation.
    furnishings: KeyedLocks<(String, usize)>,
    /// Told when a room of a conversation was left.
    departed: Notify,
    views: messaging::room_cache::Views,
    /// Whether calls that are being made have relays.
    calls: std::sync::Mutex<CallWatch>,
    /// How often something may have been lost on the way here.
    doubts: AtomicU64,
    /// How often that was so when the last event of a room was taken in.
    taken_at: std::sync::Mutex<HashMap<OwnedRoomId, u64>>,
    /// What was lost is about to be asked for.
    asking_soon: AtomicBool,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that takes in what arrives, but does nothing about it until [`Engine::start`].
    pub fn new(parts: Parts, settings: Settings) -> Result<Self, StoreError> {
        // Before anything is taken in: what is there now was there before the restore.
        maintenance::restore::prepare(&parts.store, parts.clock.now())?;
        let sequence = records::first_sequence(&parts.store)?;
        let places = Places::new(settings.server_name.clone(), settings.joins_at_once);
        Ok(Self(Arc::new(Inner {
            parts,
            settings,
            sequence: AtomicU64::new(sequence),
            intake: Mutex::default(),
            arrived: AtomicU64::new(sequence),
            echoes: inbox::accept::Echoes::default(),
            to_device: inbox::to_device::Queues::default(),
            counts: Mutex::default(),
            rooms: std::sync::Mutex::default(),
            started: AtomicBool::new(false),
            settling: AtomicBool::new(false),
            control_rooms: KeyedLocks::default(),
            tasks: std::sync::Mutex::default(),
            places,
            synced: Mutex::default(),
            syncs: Semaphore::new(SYNCS),
            backfills: std::sync::Mutex::default(),
            held_rooms: Mutex::default(),
            conversing: std::sync::Mutex::default(),
            changes: conversations::repository::Changes::default(),
            creating: KeyedLocks::default(),
            furnishings: KeyedLocks::default(),
            departed: Notify::new(),
            views: messaging::room_cache::Views::default(),
            calls: std::sync::Mutex::default(),
            doubts: AtomicU64::new(0),
            taken_at: std::sync::Mutex::default(),
            asking_soon: AtomicBool::new(false),
            stop: watch::Sender::new(false),
        })))
    }

    /// Does what follows from a restore, makes the bot, takes up what was left undone, and keeps reconciling until
    /// [`Engine::stop`].
    pub async fn start(&self) -> Result<(), EngineError> {
        self.restore().await?;
        let settings = &self.0.settings;
        self.machines()
            .provision(&settings.bot, &settings.bot_name)
            .await?;
        self.0.started.store(true, Ordering::Release);
        self.drain_to_device().await;
        self.wake_all().await?;
        let engine = self.clone();
        self.spawn(async move { engine.keep_reconciling().await });
        let engine = self.clone();
        self.spawn(async move { engine.revisit().await });
        Ok(())
    }

    /// Lets every actor finish the step that it is in, and makes everything durable.
    pub async fn stop(&self) -> Result<(), EngineError> {
        self.0.stop.send_replace(true);
        loop {
            // A task that ends may have started another one.
            let mut tasks = std::mem::take(&mut *self.tasks());
            if tasks.is_empty() {
                break;
            }
            while tasks.join_next().await.is_some() {}
        }
        self.store().flush().await?;
        Ok(())
    }

    /// The directory.
    pub fn directory(&self) -> &Directory {
        &self.0.parts.directory
    }

    /// Whether a user of ours exists: the bot, or the ghost of a handle that somebody holds.
    pub fn knows(&self, user: &UserId) -> bool {
        self.is_ours(user) && matches!(self.machines().device_of(user), Ok(Some(_)))
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    fn store(&self) -> &Store {
        &self.0.parts.store
    }

    fn homeserver(&self) -> &Homeserver {
        &self.0.parts.homeserver
    }

    fn machines(&self) -> &Machines {
        &self.0.parts.machines
    }

    fn spokesperson(&self) -> &dyn Spokesperson {
        &*self.0.parts.spokesperson
    }

    fn now(&self) -> Timestamp {
        self.0.parts.clock.now()
    }

    fn next(&self) -> u64 {
        self.0.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts a task that [`Engine::stop`] waits for. Not an async function, so that the type of
    /// a task does not contain the types of those that it starts.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, tokio::task::JoinSet<()>> {
        self.0
            .tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        *self.0.stop.borrow()
    }

    /// Whether this user is one of ours: a ghost, the bot, or the unused sender.
    pub fn is_ours(&self, user: &UserId) -> bool {
        user.server_name() == self.0.settings.server_name && user.localpart().starts_with("_dm_")
    }
}
