//! The machines of all ghosts, their settings and the records of the ghosts.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{
    SeedableRng as _, TryRngCore as _,
    rngs::{OsRng, StdRng},
};
use ruma::{OwnedDeviceId, OwnedUserId, RoomId, UserId};

use super::{
    CryptoError,
    device_list_cache::DeviceListChangeLog,
    locks::lock,
    record::{ExpectedRooms, ForgottenRooms, GhostKind, GhostRecord, GhostRecords, Step},
    silent_servers::SilentServers,
    slot::{Slot, Slots, Unloaded},
    store::GhostStores,
};
use crate::{
    clock::{Clock, SystemClock, Timestamp},
    matrix::Homeserver,
    store::{Batch, Store, prefix},
};

/// The settings of the machines.
#[derive(Clone, Debug)]
pub struct MachineSettings {
    /// Maximum number of machines in memory, not counting those in use (some 40 KB each).
    pub max_live: usize,
    /// How long a device list counts as current when no change is reported.
    pub devices_fresh_for: Duration,
    /// Minimum interval between two batches of one-time keys of a ghost, made because the old ones
    /// were claimed. Until then the fallback key serves, so claiming keys endlessly gains nothing.
    pub top_up_every: Duration,
    /// The name that people see on a ghost's device.
    pub device_name: String,
    /// The source of the time.
    pub clock: Arc<dyn Clock>,
    /// The generator of device ids.
    pub rng: Arc<Mutex<StdRng>>,
}

impl Default for MachineSettings {
    fn default() -> Self {
        Self {
            max_live: 1000,
            devices_fresh_for: Duration::from_secs(15 * 60),
            top_up_every: Duration::from_secs(10 * 60),
            device_name: "Stonechat".to_owned(),
            clock: Arc::new(SystemClock),
            rng: Arc::new(Mutex::new(StdRng::from_rng(&mut OsRng.unwrap_err()))),
        }
    }
}

/// The Olm machines of all ghosts. Clones share them.
#[derive(Clone)]
pub struct Machines(pub(super) Arc<Inner>);

/// Maximum number of ghosts that upload keys of their own at the same time.
const UPLOADS_MAX: usize = 16;
/// Maximum number of ghosts that begin new sessions with devices whose session broke at the same
/// time. Each may wait for a slow server, so their limit is separate from that of uploads.
const REPAIRS_MAX: usize = 16;

pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) stores: GhostStores,
    pub(super) hs: Homeserver,
    pub(super) settings: MachineSettings,
    pub(super) device_list_changes: DeviceListChangeLog,
    pub(super) silent_servers: SilentServers,
    /// Held while a message is recorded in the replay guard.
    pub(super) guarding_replays: Mutex<()>,
    /// When the records of people with whom a ghost shares no room were last deleted.
    pub(super) strangers_deleted_at: Mutex<Option<Timestamp>>,
    /// Held while a record is read, changed and written, so that no change is lost.
    recording: Mutex<()>,
    /// The permits of [`UPLOADS_MAX`].
    pub(super) uploads: tokio::sync::Semaphore,
    /// The permits of [`REPAIRS_MAX`].
    pub(super) repairs: tokio::sync::Semaphore,
    pub(super) slots: Slots,
    pub(super) uses: AtomicU64,
    pub(super) live: AtomicUsize,
}

impl std::fmt::Debug for Machines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machines")
            .field("live", &self.live_count())
            .finish_non_exhaustive()
    }
}

/// Waits until no other task makes or removes the ghost's keys.
pub(super) async fn lock_provisioning(slot: &Slot) -> tokio::sync::MutexGuard<'_, ()> {
    slot.provisioning.lock().await
}

impl Machines {
    /// Creates machines that keep their keys in `store` and talk to `hs`.
    pub fn new(
        store: Store,
        hs: Homeserver,
        settings: MachineSettings,
    ) -> Result<Self, CryptoError> {
        let stores = GhostStores::open(&store)?;
        Ok(Self::with_stores(store, stores, hs, settings))
    }

    /// Like [`Machines::new`], over crypto stores that are open already: only one [`GhostStores`]
    /// of a store can be open at a time.
    pub fn with_stores(
        store: Store,
        stores: GhostStores,
        hs: Homeserver,
        settings: MachineSettings,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            stores,
            hs,
            settings,
            device_list_changes: DeviceListChangeLog::default(),
            silent_servers: SilentServers::default(),
            guarding_replays: Mutex::default(),
            strangers_deleted_at: Mutex::default(),
            recording: Mutex::default(),
            uploads: tokio::sync::Semaphore::new(UPLOADS_MAX),
            repairs: tokio::sync::Semaphore::new(REPAIRS_MAX),
            slots: Slots::default(),
            uses: AtomicU64::new(0),
            live: AtomicUsize::new(0),
        }))
    }

    /// Returns whether the keys of a room are kept.
    #[cfg(test)]
    pub(crate) fn expects_room(&self, user: &UserId, room: &RoomId) -> Result<bool, CryptoError> {
        self.expects(&self.slot(user), user, room)
    }

    /// Returns the number of expected rooms, over all ghosts.
    #[cfg(test)]
    pub(crate) fn expected_count(&self) -> Result<usize, CryptoError> {
        Ok(self
            .0
            .store
            .scan::<ExpectedRooms>(&[], None, usize::MAX)?
            .len())
    }

    /// Returns the device of a ghost, once it is ready.
    pub fn device_of(&self, user: &UserId) -> Result<Option<OwnedDeviceId>, CryptoError> {
        let record = self.known_record(user)?;
        Ok(record
            .filter(|record| record.step == Step::Ready)
            .and_then(|record| record.device.clone()))
    }

    /// Returns whether a user is or was ours, with keys or without.
    pub fn is_known(&self, user: &UserId) -> Result<bool, CryptoError> {
        Ok(self.known_record(user)?.is_some())
    }

    /// Returns the kind of keys of a ghost, once it is ready; `None` for a user that is not ours.
    pub fn kind_of(&self, user: &UserId) -> Result<Option<GhostKind>, CryptoError> {
        let record = self.known_record(user)?;
        Ok(record
            .filter(|record| record.step == Step::Ready)
            .map(|record| record.kind))
    }

    /// Returns the number of machines in memory.
    pub fn live_count(&self) -> usize {
        self.0.live.load(Ordering::Relaxed)
    }

    /// Returns every user that is ready.
    pub fn ghosts(&self) -> Result<Vec<OwnedUserId>, CryptoError> {
        let mut users = Vec::new();
        for page in self.0.store.pages::<GhostRecords>(&[]) {
            let ready = page?
                .into_iter()
                .filter(|(_, record)| record.step == Step::Ready);
            users.extend(ready.map(|(user, _)| user));
        }
        Ok(users)
    }

    /// Lets the ghost keep the keys of this room from now on: it is about to join, or has joined.
    /// Keys that came in the last minutes are kept as well; the caller should do this before it
    /// passes on a to-device message that may hold such a key.
    ///
    /// Does nothing for a user without a machine, such as a name without an owner: nothing could be
    /// decrypted, and outsiders can make up any number of names.
    pub async fn expect_room(&self, user: &UserId, room: &RoomId) -> Result<(), CryptoError> {
        let record = self.known_record(user)?;
        if record.is_none_or(|record| record.kind != GhostKind::Machine) {
            return Ok(());
        }
        let slot = self.slot(user);
        if !self.expects(&slot, user, room)? {
            let place = (user.to_owned(), room.to_owned());
            let mut batch = Batch::new();
            batch.put::<ExpectedRooms>(&place, &())?;
            batch.delete::<ForgottenRooms>(&place);
            self.0.store.apply(batch)?;
            if let Some(expected) = &mut *lock(&slot.expected) {
                expected.insert(room.to_owned());
            }
        }
        // Also if the room is expected already: a crash may have come before this.
        match self.0.stores.existing(user)? {
            Some(store) => {
                let now = self.0.settings.clock.now();
                Ok(store.admit_parked_keys(room, now).await?)
            }
            None => Ok(()),
        }
    }

    /// Returns whether the ghost keeps the keys of this room.
    pub(super) fn expects(
        &self,
        slot: &Slot,
        user: &UserId,
        room: &RoomId,
    ) -> Result<bool, CryptoError> {
        let mut expected = lock(&slot.expected);
        if expected.is_none() {
            let first = prefix(&user.to_owned());
            let rows = self
                .0
                .store
                .scan::<ExpectedRooms>(&first, None, usize::MAX)?;
            *expected = Some(rows.into_iter().map(|((_, room), ())| room).collect());
        }
        Ok(expected.as_ref().is_some_and(|rooms| rooms.contains(room)))
    }

    /// Lets the expected rooms be read from the store again. The machine must be unloaded: one in
    /// memory uses the rooms read when it was loaded.
    pub(super) fn reload_expected_rooms(&self, slot: &Slot, _unloaded: &Unloaded) {
        *lock(&slot.expected) = None;
    }

    pub(super) fn record(&self, user: &UserId) -> Result<Option<GhostRecord>, CryptoError> {
        Ok(self.0.store.get::<GhostRecords>(&user.to_owned())?)
    }

    /// Returns a shared, decoded record from the cache of the store.
    pub(super) fn known_record(
        &self,
        user: &UserId,
    ) -> Result<Option<Arc<GhostRecord>>, CryptoError> {
        Ok(self.0.store.get_cached::<GhostRecords>(&user.to_owned())?)
    }

    pub(super) fn apply_record(
        &self,
        user: &UserId,
        record: &GhostRecord,
    ) -> Result<(), CryptoError> {
        let _one_at_a_time = lock(&self.0.recording);
        self.put_record(user, record)
    }

    fn put_record(&self, user: &UserId, record: &GhostRecord) -> Result<(), CryptoError> {
        let mut batch = Batch::new();
        batch.put::<GhostRecords>(&user.to_owned(), record)?;
        Ok(self.0.store.apply(batch)?)
    }

    pub(super) async fn commit_record(
        &self,
        user: &UserId,
        record: &GhostRecord,
    ) -> Result<(), CryptoError> {
        self.apply_record(user, record)?;
        Ok(self.0.store.flush().await?)
    }

    /// Changes a record, and writes it if `change` returns `true`.
    pub(super) fn update_record(
        &self,
        user: &UserId,
        change: impl FnOnce(&mut GhostRecord) -> bool,
    ) -> Result<(), CryptoError> {
        let _one_at_a_time = lock(&self.0.recording);
        if let Some(mut record) = self.record(user)?
            && change(&mut record)
        {
            self.put_record(user, &record)?;
        }
        Ok(())
    }

    pub(super) fn slot(&self, user: &UserId) -> Arc<Slot> {
        self.0.slots.of(user)
    }

    pub(super) fn existing_slot(&self, user: &UserId) -> Option<Arc<Slot>> {
        self.0.slots.existing(user)
    }

    /// Returns the number of ghosts that have a slot.
    #[cfg(test)]
    pub(crate) fn slot_count(&self) -> usize {
        self.0.slots.count()
    }
}
