//! Inbox, decide, outbox: the only room that runs things.
//!
//! # The folders
//!
//! Highest first:
//!
//! | folder or file | what it does |
//! |---|---|
//! | `maintenance` | at a start, after a restore and from time to time: notices a store that was set back, publishes keys that the homeserver lost, reconciles every ghost, deletes what has expired |
//! | `actors` | one actor per room, which takes what arrives there in order, has it decided and carries out the effects |
//! | `admin_acts`, `person_export` | what the admin does over the admin socket; what is kept about a person |
//! | `introductions`, `control_rooms` | what happens in a room with an introduction or with the bot, and how its effects are carried out |
//! | `conversations` | conversations of masked handles: decides on them under one lock, forwards events, looks after portals |
//! | `notify`, `ghosts`, `retry`, `retention` | what the bot tells a person; ghosts as users; the retry policy; which events are kept |
//! | `module_api` | answers to the homeserver's module while a room is created |
//! | `messaging` | decrypts, encrypts and sends as one of our users; leaves rooms and forgets their keys |
//! | `inbox` | accepts what the homeserver pushes or a sync brings: once, bounded, durable |
//! | `room` | a room: its record, the writes of its decisions, and what its effects need |
//! | `history`, `outage`, `places`, `progress`, `bells`, `missing_users`, `users`, `waiting_redactions`, `lanes`, `sizes`, `queues`, `outcomes`, `copies`, `records`, `packs`, `control_room`, `event`, `failing`, `keyed`, `settings`, `error` | a room's history; whether the homeserver is down; places for work that other servers can hold up; whether anything gets done, for the watchdog; how an inbox is filled and its room woken; our users that the homeserver does not have; our users, as whom requests are made; the deletions among what waits in a room; whose effects are overtaken there; of what the store consists; what waits to be done; what became of introductions; which copies of events are known; what is on disk; records that hold many; where a control room stands; an event; how long an item has been failing; locks by key; settings; errors |
//!
//! A folder or file uses those below it, and in its own row those behind it.
//!
//! # The path of one message
//!
//! Alice writes to a masked handle, and the conversation exists:
//!
//! 1. [`crate::server`] reads the body as it comes and hands each part to
//!    [`Engine::accept_transaction`] (`server/transactions.rs`, `server/engine.rs`).
//!    `inbox::accept`: `write_to_inbox` writes the event to the inbox, and the transaction is
//!    acknowledged when it is durable.
//! 2. `bells`: `wake` rings the room, and `actors::registry` starts its actor if it has none;
//!    `actors::actor`: `step` takes the event.
//! 3. `conversations::batch`: `handle_messages` takes the messages and reactions that wait together.
//!    All other events go one by one through `actors::dispatch` (`dispatch`, `handle_event`), and so
//!    do messages after a gap, beside an introduction, and where the bot is.
//! 4. `conversations::repository`: `decide_and_stage` lets [`crate::conversation::decide`] decide,
//!    and stages the effects in the outbox, in the write that deletes the event from the inbox.
//! 5. `actors::executor`: `carry_out` tries each of them until it is done or given up
//!    (`retry`); `conversations::effects`: `perform_conversation` does it.
//! 6. `conversations::forward`: `forward_event` finds the room that the event goes to
//!    (`conversations::portal_repair`), reads it (`messaging::decrypt`) and translates it
//!    ([`crate::relay::translate()`]).
//! 7. `messaging::send`: `send_to_room` encrypts it for the people there ([`crate::crypto`]) and sends it.
//! 8. `conversations::event_map`: `note_copy` writes down which event is the copy of which.
//!
//! The invite of an open handle's ghost, and later each message, takes the first two steps; then:
//!
//! 1. `actors::dispatch`: `handle_event`; `introductions::invites`: `ghost_invited` asks the directory
//!    (`introductions::admission`), and [`crate::introduction::decide`] decides.
//! 2. `introductions::effects`: the ghost joins; `actors::backfill`: `backfill_for` reads what was
//!    said since the invite; `introductions::effects`: the ghost looks at the room's state.
//! 3. `introductions::inputs`: `handle_in_introduction` hears the opening line; with it, or when none
//!    has come in time, `introductions::effects` invites the owner.
//! 4. `introductions::passing_on`: `pass_on` quotes the line to the owner, and the ghost leaves
//!    (`messaging::membership`).
//!
//! A command to the bot takes the first two steps of a message, then:
//!
//! 1. `actors::dispatch`: `handle_event`; `control_rooms::inputs`: `hear` decrypts it, `answer` asks
//!    the bot ([`crate::bot::answer`]) and writes what it changed.
//! 2. `control_rooms::tasks` carries out its effects; `control_rooms::effects` then sends the answer.
//!    Other people are told last.
//!
//! # What a crash does
//!
//! An event is either still in the inbox, or its state and effects are written. An effect stays in
//! the outbox until it is done; carrying it out twice is harmless, because its transaction id
//! is derived from the ghost, the room and the event that caused it, and everything else is looked
//! up before it is changed.

mod actors;
mod admin_acts;
mod bells;
mod control_room;
mod control_rooms;
mod conversations;
mod copies;
#[cfg(test)]
mod corpus_tests;
mod error;
mod event;
mod failing;
mod ghosts;
mod history;
mod inbox;
mod introductions;
mod keyed;
mod lanes;
mod maintenance;
mod messaging;
mod missing_users;
mod module_api;
mod notify;
mod outage;
mod outcomes;
mod packs;
mod person_export;
mod places;
mod progress;
mod queues;
mod records;
mod retention;
mod retry;
mod room;
mod settings;
mod sizes;
mod users;
mod waiting_redactions;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rand::rngs::StdRng;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use tokio::sync::{Mutex, Notify, Semaphore, watch};

use self::{keyed::KeyedLocks, places::Places};
use crate::{
    bot,
    clock::{Clock, Timestamp},
    conversation::CallWatch,
    crypto::Machines,
    directory::Directory,
    handle::GHOST_PREFIX,
    ids::{ConversationId, Ghost, Person},
    matrix::{Homeserver, Transaction},
    store::{Store, StoreError},
};

pub use control_rooms::tasks::owed_ghosts;
pub use error::EngineError;
pub use ghosts::change_since_backup;
pub use inbox::dead_letters::count_dead_letters;
pub use maintenance::{
    restore::NOT_IN_BACKUPS,
    stamp::{STAMP_TYPE, Stamp, StampHistory},
};
pub use person_export::{ExportedConversation, ExportedIntroduction, PersonExport};
pub use progress::Stall;
pub use queues::{QueueContents, StuckEffect, WaitingWork, read_queues};
pub use settings::{ConversationSettings, EngineSettings};
pub use sizes::{StorePart, store_parts};

/// The table of control rooms, to count those in a backup.
pub const CONTROL_ROOMS_TABLE: u8 = <records::ControlRooms as crate::store::Table>::ID;

/// Maximum number of ghosts that sync at the same time.
const SYNCS: usize = 4;

/// The services that the engine is built on.
#[derive(Debug)]
pub struct Services {
    /// The store.
    pub store: Store,
    /// The homeserver.
    pub homeserver: Homeserver,
    /// The machines.
    pub machines: Machines,
    /// The directory.
    pub directory: Directory,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of ids and secrets.
    pub rng: std::sync::Mutex<StdRng>,
}

/// The running engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    services: Services,
    settings: EngineSettings,
    /// The number of the next queued item. It only grows, also across restarts.
    sequence: AtomicU64,
    /// The first number of this process.
    began: u64,
    inbox_lock: Mutex<()>,
    in_hand: inbox::dedup::EventsInHand,
    arrivals: inbox::arrivals::Arrivals,
    arrival_times: std::sync::Mutex<inbox::arrival_times::ArrivalTimes>,
    /// Upper bound of the numbers of arrivals that are durable.
    arrived: AtomicU64,
    echoes: inbox::accept::EchoPacing,
    to_device: inbox::to_device::Queues,
    counts: Mutex<HashMap<OwnedUserId, inbox::accept::OneTimeKeyCounts>>,
    bells: bells::Bells,
    /// Set once the bot is made: from then on rooms have actors.
    started: AtomicBool,
    /// Whether the homeserver's module has reported itself since we started.
    module_loaded: AtomicBool,
    /// Whether a task is about to write the counts of the module's questions.
    settling: AtomicBool,
    /// Held, by person, while their control room is made or replaced.
    control_rooms: KeyedLocks<Person>,
    tasks: std::sync::Mutex<tokio::task::JoinSet<()>>,
    places: Places,
    progress: progress::WorkProgress,
    outage_probe: outage::OutageProbe,
    synced: Mutex<HashMap<OwnedUserId, Timestamp>>,
    last_syncs: inbox::sync::LastSyncs,
    /// When each user was last made again that the homeserver did not have.
    restored_users: std::sync::Mutex<HashMap<OwnedUserId, Timestamp>>,
    /// Told when one of them could not be made again.
    restore_failed: Notify,
    /// Limits syncs at the same time: each holds up to about 15 MiB, and keeps the homeserver busy.
    syncs: Semaphore,
    /// Held, by user, while the gaps in their rooms are read.
    gap_turns: KeyedLocks<OwnedUserId>,
    /// Users who are about to be synced, because an item for them was set aside.
    backfills: std::sync::Mutex<HashSet<OwnedUserId>>,
    /// Rooms of a transaction whose last part has not come. They are woken with it.
    held_rooms: Mutex<Vec<OwnedRoomId>>,
    /// The decision lock of conversations.
    decisions: std::sync::Mutex<conversations::decisions::Decisions>,
    /// Held, by ghost, while it makes a portal: until that is recorded, the ghost must not leave it
    /// as a forgotten room.
    creating: KeyedLocks<Ghost>,
    /// Held, by ghost, while it is made, made anew or removed.
    ghost_effects: KeyedLocks<Ghost>,
    /// Held, by conversation and person, while their portal is set up. Actors of several rooms may
    /// try at once; both would invite the same people, one would be refused, and that would end the
    /// conversation.
    portal_locks: KeyedLocks<(ConversationId, usize)>,
    /// Notified when a room of a conversation was left.
    room_left: Notify,
    room_states: messaging::room_cache::RoomStateCache,
    failing_media: messaging::failing_media::FailingMedia,
    /// The calls that are being made, to see whether they have relays.
    calls: std::sync::Mutex<CallWatch>,
    /// Who is beginning new Olm sessions with whom.
    renewals: std::sync::Mutex<std::collections::HashSet<(OwnedUserId, OwnedUserId)>>,
    /// Who is shown as typing.
    typing: conversations::typing::TypingStates,
    /// Gap epoch: incremented whenever events may have been lost.
    gap_epoch: AtomicU64,
    /// The number that was next when events may last have been lost.
    last_gap_at: AtomicU64,
    /// The gap epoch at which each room was last checked.
    gap_checked_at: std::sync::Mutex<HashMap<OwnedRoomId, u64>>,
    /// When the gap before an event of a server could not be read in a room last.
    gap_failed_at: std::sync::Mutex<HashMap<(OwnedRoomId, OwnedServerName), Timestamp>>,
    /// How long gaps were read in a room lately.
    gap_readings: std::sync::Mutex<HashMap<OwnedRoomId, inbox::gap::GapReadings>>,
    copy_places: copies::CopyPlaces,
    server_clocks: std::sync::Mutex<inbox::server_clocks::ServerClocks>,
    /// Notified when events may have been lost, so that ghosts are synced.
    gap_noted: Notify,
    /// Notified when an act of an admin has left something to be done.
    owed_noted: Notify,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Returns an engine that accepts what arrives and does nothing about it until
    /// [`Engine::start`].
    pub fn new(services: Services, settings: EngineSettings) -> Result<Self, StoreError> {
        // Before anything is accepted: what is there now was there before the restore.
        maintenance::restore::prepare(&services.store, services.clock.now())?;
        let sequence = records::first_sequence(&services.store)?;
        let now = services.clock.now();
        let arrivals = inbox::arrivals::Arrivals::load(&services.store, now)?;
        let times = inbox::arrival_times::ArrivalTimes::new(sequence, now);
        let places = Places::new(settings.server_name.clone(), settings.joins_at_once);
        Ok(Self(Arc::new(Inner {
            services,
            settings,
            sequence: AtomicU64::new(sequence),
            began: sequence,
            inbox_lock: Mutex::default(),
            in_hand: inbox::dedup::EventsInHand::default(),
            arrivals,
            arrival_times: std::sync::Mutex::new(times),
            arrived: AtomicU64::new(sequence),
            echoes: inbox::accept::EchoPacing::default(),
            to_device: inbox::to_device::Queues::default(),
            counts: Mutex::default(),
            bells: bells::Bells::default(),
            started: AtomicBool::new(false),
            module_loaded: AtomicBool::new(false),
            settling: AtomicBool::new(false),
            control_rooms: KeyedLocks::default(),
            tasks: std::sync::Mutex::default(),
            places,
            progress: progress::WorkProgress::default(),
            outage_probe: outage::OutageProbe::default(),
            synced: Mutex::default(),
            last_syncs: inbox::sync::LastSyncs::default(),
            restored_users: std::sync::Mutex::default(),
            restore_failed: Notify::new(),
            syncs: Semaphore::new(SYNCS),
            gap_turns: KeyedLocks::default(),
            backfills: std::sync::Mutex::default(),
            held_rooms: Mutex::default(),
            decisions: std::sync::Mutex::default(),
            creating: KeyedLocks::default(),
            ghost_effects: KeyedLocks::default(),
            portal_locks: KeyedLocks::default(),
            room_left: Notify::new(),
            room_states: messaging::room_cache::RoomStateCache::default(),
            failing_media: messaging::failing_media::FailingMedia::default(),
            calls: std::sync::Mutex::default(),
            renewals: std::sync::Mutex::default(),
            typing: conversations::typing::TypingStates::default(),
            gap_epoch: AtomicU64::new(0),
            last_gap_at: AtomicU64::new(0),
            gap_checked_at: std::sync::Mutex::default(),
            gap_failed_at: std::sync::Mutex::default(),
            gap_readings: std::sync::Mutex::default(),
            copy_places: copies::CopyPlaces::default(),
            server_clocks: std::sync::Mutex::default(),
            gap_noted: Notify::new(),
            owed_noted: Notify::new(),
            stop: watch::Sender::new(false),
        })))
    }

    /// Does what follows from a restore, makes the bot, takes up what was left undone, and keeps
    /// reconciling until [`Engine::stop`].
    pub async fn start(&self) -> Result<(), EngineError> {
        self.restore().await?;
        let settings = &self.0.settings;
        self.machines()
            .provision(&settings.bot, &settings.bot_name)
            .await?;
        self.renew_stamp_at_start().await?;
        self.0.started.store(true, Ordering::Release);
        let engine = self.clone();
        self.spawn(async move { engine.answer_bells().await });
        self.process_to_device().await;
        self.announce_keys_again()?;
        self.wake_all().await?;
        let engine = self.clone();
        self.spawn(async move { engine.keep_reconciling().await });
        let engine = self.clone();
        self.spawn(async move { engine.keep_making_ghosts().await });
        let engine = self.clone();
        self.spawn(async move { engine.keep_restoring_users().await });
        let engine = self.clone();
        self.spawn(async move { engine.keep_closing_gaps().await });
        let engine = self.clone();
        self.spawn(async move { engine.revisit().await });
        Ok(())
    }

    /// Accepts a transaction: its items are durable when this returns. Receipts and typing are
    /// forwarded separately; nobody waits for them.
    pub async fn accept_transaction(&self, mut body: Transaction) -> Result<(), EngineError> {
        let ephemeral = std::mem::take(&mut body.ephemeral);
        self.accept_measured(body, ephemeral.len()).await?;
        if !ephemeral.is_empty() && self.0.started.load(Ordering::Acquire) {
            self.forward_ephemeral(ephemeral);
        }
        Ok(())
    }

    /// Lets every actor finish its current step, and makes everything durable.
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

    /// Returns the directory.
    pub fn directory(&self) -> &Directory {
        &self.0.services.directory
    }

    /// Returns whether one of our users exists: the bot, or the ghost of a handle that somebody
    /// holds.
    pub fn knows(&self, user: &UserId) -> bool {
        self.is_ours(user) && matches!(self.machines().device_of(user), Ok(Some(_)))
    }

    /// Returns the number of ghosts whose keys are in memory.
    pub fn machines_in_memory(&self) -> usize {
        self.machines().live_count()
    }

    /// Returns the settings.
    pub fn settings(&self) -> &EngineSettings {
        &self.0.settings
    }

    fn store(&self) -> &Store {
        &self.0.services.store
    }

    fn copy_places(&self) -> &copies::CopyPlaces {
        &self.0.copy_places
    }

    fn homeserver(&self) -> &Homeserver {
        &self.0.services.homeserver
    }

    fn machines(&self) -> &Machines {
        &self.0.services.machines
    }

    fn bot_options(&self) -> bot::Options {
        bot::Options {
            module_loaded: self.0.module_loaded.load(Ordering::Relaxed),
            strict: self.settings().strict,
            ..bot::Options::new(self.settings().bot.clone())
        }
    }

    fn now(&self) -> Timestamp {
        self.0.services.clock.now()
    }

    fn rng(&self) -> std::sync::MutexGuard<'_, StdRng> {
        let rng = self.0.services.rng.lock();
        rng.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn next(&self) -> u64 {
        self.0.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns whether the item with this number was queued before this process began.
    fn is_from_before(&self, number: u64) -> bool {
        number < self.0.began
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

    /// Returns whether this user is one of ours: a ghost, the bot, or the unused sender.
    pub fn is_ours(&self, user: &UserId) -> bool {
        user.server_name() == self.0.settings.server_name
            && user.localpart().starts_with(GHOST_PREFIX)
    }
}
