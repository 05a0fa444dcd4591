//! One live machine per ghost, loaded on demand and unloaded when there are too many.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use matrix_sdk_crypto::{OlmMachine, store::CryptoStore};
use rand::{
    SeedableRng as _, TryRngCore as _,
    rngs::{OsRng, StdRng},
};
use ruma::{OwnedDeviceId, OwnedUserId, RoomId, UserId, room_id};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use super::{
    CryptoError,
    device_list_cache::DeviceListChangeLog,
    locks::lock,
    record::{ExpectedRooms, GhostKind, GhostRecord, GhostRecords, Step},
    slot::{InUse, Live, Slot, Slots, Unloaded},
    store::{GhostStore, GhostStores, RoomKeyFilter},
};
use crate::{
    clock::{Clock, SystemClock},
    matrix::{Actor, Homeserver},
    store::{Batch, Store, prefix},
};

/// How machines are kept.
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
    /// Held while a message is recorded in the replay guard.
    pub(super) guarding_replays: Mutex<()>,
    /// Held while a record is read, changed and written, so that no change is lost.
    recording: Mutex<()>,
    /// The permits of [`UPLOADS_MAX`].
    pub(super) uploads: tokio::sync::Semaphore,
    /// The permits of [`REPAIRS_MAX`].
    pub(super) repairs: tokio::sync::Semaphore,
    slots: Slots,
    uses: AtomicU64,
    live: AtomicUsize,
}

impl std::fmt::Debug for Machines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machines")
            .field("live", &self.live_count())
            .finish_non_exhaustive()
    }
}

/// A ghost for which work is in progress that makes requests. Between its steps the machine is free
/// for others, but is not unloaded as idle.
pub(super) struct Pinned {
    machines: Machines,
    user: OwnedUserId,
    device: OwnedDeviceId,
    pub(super) slot: Arc<Slot>,
}

impl Pinned {
    pub(super) fn new(
        machines: Machines,
        user: &UserId,
        device: OwnedDeviceId,
        slot: Arc<Slot>,
    ) -> Self {
        slot.pins.fetch_add(1, Ordering::Relaxed);
        Self {
            machines,
            user: user.to_owned(),
            device,
            slot,
        }
    }

    pub(super) fn user(&self) -> &UserId {
        &self.user
    }

    pub(super) fn actor(&self) -> Actor<'_> {
        Actor::device(&self.user, &self.device)
    }

    /// Returns the ghost's machine, for the next step.
    ///
    /// # Errors
    ///
    /// Fails when the ghost has another device by now: work begun for the former owner of a handle
    /// is not finished for the next.
    pub(super) async fn machine(&self) -> Result<InUse, CryptoError> {
        let machine = self.machines.live(self.slot.clone(), &self.user, false);
        let machine = machine.await?;
        if machine.device != self.device {
            return Err(CryptoError::NotProvisioned {
                user: self.user.clone(),
            });
        }
        Ok(machine)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.slot.pins.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Creates an [`OlmMachine`]. No other place does.
pub(super) async fn open_machine(
    user: &UserId,
    device: &OwnedDeviceId,
    store: GhostStore,
) -> Result<Live, CryptoError> {
    let signs = store.signs();
    let machine = OlmMachine::with_store(user, device, store.clone(), None).await?;
    Ok(Live {
        machine,
        store,
        device: device.clone(),
        signs,
    })
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
            guarding_replays: Mutex::default(),
            recording: Mutex::default(),
            uploads: tokio::sync::Semaphore::new(UPLOADS_MAX),
            repairs: tokio::sync::Semaphore::new(REPAIRS_MAX),
            slots: Slots::default(),
            uses: AtomicU64::new(0),
            live: AtomicUsize::new(0),
        }))
    }

    /// Whether the keys of a room are kept.
    #[cfg(test)]
    pub(crate) fn expects_room(&self, user: &UserId, room: &RoomId) -> Result<bool, CryptoError> {
        self.expects(&self.slot(user), user, room)
    }

    /// How many rooms are expected, over all ghosts.
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
        const PAGE: usize = 1000;
        let mut users = Vec::new();
        let mut after = None;
        loop {
            let rows = self
                .0
                .store
                .scan::<GhostRecords>(&[], after.as_ref(), PAGE)?;
            let full = rows.len() == PAGE;
            after = rows.last().map(|(user, _)| user.clone());
            let ready = rows
                .into_iter()
                .filter(|(_, record)| record.step == Step::Ready);
            users.extend(ready.map(|(user, _)| user));
            if !full {
                return Ok(users);
            }
        }
    }

    /// Lets the ghost keep the keys of this room from now on: it is about to join, or has joined.
    /// The caller must do this before it passes on a to-device message that may hold such a key.
    ///
    /// Does nothing for a user without a machine, such as a name without an owner: nothing could be
    /// decrypted, and outsiders can make up any number of names.
    pub async fn expect_room(&self, user: &UserId, room: &RoomId) -> Result<(), CryptoError> {
        let record = self.known_record(user)?;
        if record.is_none_or(|record| record.kind != GhostKind::Machine) {
            return Ok(());
        }
        let slot = self.slot(user);
        if self.expects(&slot, user, room)? {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put::<ExpectedRooms>(&(user.to_owned(), room.to_owned()), &())?;
        self.0.store.apply(batch)?;
        if let Some(expected) = &mut *lock(&slot.expected) {
            expected.insert(room.to_owned());
        }
        Ok(())
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

    /// How many ghosts have a slot.
    #[cfg(test)]
    pub(crate) fn slot_count(&self) -> usize {
        self.0.slots.count()
    }

    /// Returns the machine of a ghost that is ready, for work that makes no request. Other work
    /// uses [`Machines::pin`].
    pub(super) async fn ready(&self, user: &UserId) -> Result<InUse, CryptoError> {
        self.pin(user)?.machine().await
    }

    /// Pins a ghost that is ready, for work in several steps.
    pub(super) fn pin(&self, user: &UserId) -> Result<Pinned, CryptoError> {
        let record = self.known_record(user)?;
        let record = record.filter(|record| record.is_ready(GhostKind::Machine));
        let device = record.and_then(|record| record.device.clone());
        let device = device.ok_or_else(|| CryptoError::NotProvisioned {
            user: user.to_owned(),
        })?;
        Ok(Pinned::new(self.clone(), user, device, self.slot(user)))
    }

    /// Returns the machine of a ghost that is being created: it can sign with the ghost's identity.
    pub(super) async fn signing_machine(&self, user: &UserId) -> Result<InUse, CryptoError> {
        self.live(self.slot(user), user, true).await
    }

    /// Returns the machine in this slot, and loads it if it is not in memory.
    pub(super) async fn live(
        &self,
        slot: Arc<Slot>,
        user: &UserId,
        signs: bool,
    ) -> Result<InUse, CryptoError> {
        let used = self.0.uses.fetch_add(1, Ordering::Relaxed);
        slot.used.store(used, Ordering::Relaxed);
        let guard = slot.machine.clone().read_owned().await;
        let will_do = |live: &Option<Live>| live.as_ref().is_some_and(|live| live.signs || !signs);
        let guard = if will_do(&guard) {
            guard
        } else {
            drop(guard);
            let mut guard = slot.machine.clone().write_owned().await;
            if !will_do(&guard) {
                self.drop_machine(&mut guard);
                *guard = Some(self.load(&slot, user, signs).await?);
                self.0.live.fetch_add(1, Ordering::Relaxed);
            }
            guard.downgrade()
        };
        let live = OwnedRwLockReadGuard::try_map(guard, Option::as_ref).map_err(|_| {
            CryptoError::NotProvisioned {
                user: user.to_owned(),
            }
        })?;
        self.unload_idle();
        Ok(InUse::new(slot, live))
    }

    async fn load(&self, slot: &Slot, user: &UserId, signs: bool) -> Result<Live, CryptoError> {
        let record = self.record(user)?;
        let (record, device) = record
            .filter(|record| record.kind == GhostKind::Machine && record.step != Step::Retiring)
            .and_then(|record| record.device.clone().map(|device| (record, device)))
            .ok_or_else(|| CryptoError::NotProvisioned {
                user: user.to_owned(),
            })?;
        // A machine whose store is empty makes itself new keys, which must not happen to a ghost
        // that has published some.
        let lost = || CryptoError::KeysLost {
            user: user.to_owned(),
        };
        let store = match self.0.stores.existing(user)? {
            Some(store) => store,
            None if record.ed25519.is_none() => self.0.stores.ghost(user)?,
            None => return Err(lost()),
        };
        if record.ed25519.is_some() && store.load_account().await?.is_none() {
            return Err(lost());
        }
        // Read now, so that the filter need not read the store during a write.
        self.expects(slot, user, room_id!("!none"))?;
        let expected = slot.expected.clone();
        store.set_room_key_filter(RoomKeyFilter(Arc::new(move |room| {
            lock(&expected)
                .as_ref()
                .is_some_and(|rooms| rooms.contains(room))
        })));
        let store = if signs {
            store
        } else {
            store.without_identity()
        };
        let live = open_machine(user, &device, store).await?;
        match &record.ed25519 {
            Some(known) if *known != live.machine.identity_keys().ed25519.to_base64() => {
                Err(lost())
            }
            _ => Ok(live),
        }
    }

    /// Unloads machines that are not in use, the least recently used first, while there are too
    /// many.
    fn unload_idle(&self) {
        let max = self.0.settings.max_live;
        if self.live_count() <= max {
            return;
        }
        let mut slots = self.0.slots.all();
        slots.retain(|slot| !slot.is_pinned());
        slots.sort_by_key(|slot| slot.used.load(Ordering::Relaxed));
        for slot in slots {
            if self.live_count() <= max {
                return;
            }
            // A machine in use is locked for reading.
            if let Ok(mut guard) = slot.machine.clone().try_write_owned() {
                self.drop_machine(&mut guard);
            }
        }
    }

    fn drop_machine(&self, guard: &mut OwnedRwLockWriteGuard<Option<Live>>) {
        if guard.take().is_some() {
            self.0.live.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits until no task uses the ghost's machine, and unloads it. The wait is no longer than a
    /// step of local work: no machine is in use during a request.
    pub(super) async fn unload(&self, slot: &Arc<Slot>) -> Unloaded {
        let mut guard = slot.machine.clone().write_owned().await;
        self.drop_machine(&mut guard);
        Unloaded::new(slot.clone(), guard)
    }
}
