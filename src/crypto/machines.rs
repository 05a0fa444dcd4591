//! One live machine per ghost, loaded when it is needed, put away when memory is.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use matrix_sdk_crypto::{OlmMachine, store::CryptoStore};
use ruma::{OwnedDeviceId, OwnedUserId, RoomId, UserId, room_id};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use super::{
    CryptoError,
    devices::Changed,
    record::{ExpectedRooms, GhostKind, GhostRecord, Ghosts, Step},
    slots::{InUse, Live, Pinned, PutAway, Slot, Slots},
    store::{GhostStore, GhostStores, Keeps},
};
use crate::{
    clock::{Clock, SystemClock},
    matrix::Homeserver,
    store::{Batch, Store, prefix},
};

/// How machines are kept.
#[derive(Clone, Debug)]
pub struct MachineSettings {
    /// How many machines are in memory at most, besides those in use (some 40 KB each).
    pub max_live: usize,
    /// For how long we believe that we know somebody's devices when nobody says they changed.
    pub devices_fresh_for: Duration,
    /// How often at most a ghost makes new one-time keys because the old ones were claimed. The
    /// fallback key serves meanwhile, so that whoever claims keys to no end gains nothing.
    pub top_up_every: Duration,
    /// The name that people see on a ghost's device.
    pub device_name: String,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Default for MachineSettings {
    fn default() -> Self {
        Self {
            max_live: 1000,
            devices_fresh_for: Duration::from_secs(15 * 60),
            top_up_every: Duration::from_secs(10 * 60),
            device_name: "Stonechat".to_owned(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// The Olm machines of all ghosts. Clones are handles of the same ones.
#[derive(Clone)]
pub struct Machines(pub(super) Arc<Inner>);

/// Maximum number of ghosts that upload keys of their own at the same time.
const UPLOADS: usize = 16;
/// Maximum number of ghosts that begin new sessions with devices whose session broke at the same
/// time. Each may wait for a slow server, so they have places of their own.
const REPAIRS: usize = 16;

pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) stores: GhostStores,
    pub(super) hs: Homeserver,
    pub(super) settings: MachineSettings,
    pub(super) changed: Changed,
    /// Held while a message is noted as heard.
    pub(super) hearing: Mutex<()>,
    /// Held while a record is written: one that was read before must not undo the change.
    recording: Mutex<()>,
    /// The places of [`UPLOADS`].
    pub(super) uploads: tokio::sync::Semaphore,
    /// The places of [`REPAIRS`].
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

/// The one place where an [`OlmMachine`] is made.
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

/// Waits for one's turn to make or take away the ghost's keys.
pub(super) async fn lock_provisioning(slot: &Slot) -> tokio::sync::MutexGuard<'_, ()> {
    slot.provisioning.lock().await
}

/// A poisoned lock only says that somebody panicked; what is behind ours is always whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machines {
    /// Machines that keep their keys in `store` and speak to `hs`.
    pub fn new(
        store: Store,
        hs: Homeserver,
        settings: MachineSettings,
    ) -> Result<Self, CryptoError> {
        let stores = GhostStores::open(&store)?;
        Ok(Self::with_stores(store, stores, hs, settings))
    }

    /// The same over crypto stores that were opened before: there can be one of them at a time.
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
            changed: Changed::default(),
            hearing: Mutex::default(),
            recording: Mutex::default(),
            uploads: tokio::sync::Semaphore::new(UPLOADS),
            repairs: tokio::sync::Semaphore::new(REPAIRS),
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

    /// The device that speaks for a ghost, once it is ready.
    pub fn device_of(&self, user: &UserId) -> Result<Option<OwnedDeviceId>, CryptoError> {
        let record = self.known_record(user)?;
        Ok(record
            .filter(|record| record.step == Step::Ready)
            .and_then(|record| record.device.clone()))
    }

    /// Which keys a ghost has, once it is ready; `None` for a user that is not ours.
    pub fn kind_of(&self, user: &UserId) -> Result<Option<GhostKind>, CryptoError> {
        let record = self.known_record(user)?;
        Ok(record
            .filter(|record| record.step == Step::Ready)
            .map(|record| record.kind))
    }

    /// How many machines are in memory.
    pub fn live_count(&self) -> usize {
        self.0.live.load(Ordering::Relaxed)
    }

    /// Every user that has a device of ours.
    pub fn ghosts(&self) -> Result<Vec<OwnedUserId>, CryptoError> {
        const PAGE: usize = 1000;
        let mut users = Vec::new();
        let mut after = None;
        loop {
            let rows = self.0.store.scan::<Ghosts>(&[], after.as_ref(), PAGE)?;
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

    /// From now on the ghost keeps the keys of this room: it is about to join, or has joined. To
    /// be called before any to-device message that may come with it.
    ///
    /// Does nothing for a user without a machine, such as a name that nobody holds: nothing could
    /// be decrypted, and outsiders can make up any number of names.
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

    /// Whether the ghost keeps the keys of this room.
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

    /// Reads again from the store which rooms are expected. The machine has to be put away: one in
    /// memory goes by what was read when it was loaded.
    pub(super) fn expect_anew(&self, slot: &Slot, _away: &PutAway) {
        *lock(&slot.expected) = None;
    }

    pub(super) fn record(&self, user: &UserId) -> Result<Option<GhostRecord>, CryptoError> {
        Ok(self.0.store.get::<Ghosts>(&user.to_owned())?)
    }

    /// The same for whoever only looks at it.
    pub(super) fn known_record(
        &self,
        user: &UserId,
    ) -> Result<Option<Arc<GhostRecord>>, CryptoError> {
        Ok(self.0.store.get_cached::<Ghosts>(&user.to_owned())?)
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
        batch.put::<Ghosts>(&user.to_owned(), record)?;
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

    /// Changes a record where `change` says that there is something to change.
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

    /// The machine of a ghost that is ready, for work that asks nobody. For everything else there
    /// is [`Machines::pin`].
    pub(super) async fn ready(&self, user: &UserId) -> Result<InUse, CryptoError> {
        self.pin(user)?.machine().await
    }

    /// A ghost that is ready, whose machine is taken step by step.
    pub(super) fn pin(&self, user: &UserId) -> Result<Pinned, CryptoError> {
        let record = self.known_record(user)?;
        let record = record.filter(|record| record.is_ready(GhostKind::Machine));
        let device = record.and_then(|record| record.device.clone());
        let device = device.ok_or_else(|| CryptoError::NotProvisioned {
            user: user.to_owned(),
        })?;
        Ok(Pinned::new(self.clone(), user, device, self.slot(user)))
    }

    /// The machine of a ghost in the making: it can sign with the ghost's identity.
    pub(super) async fn in_the_making(&self, user: &UserId) -> Result<InUse, CryptoError> {
        self.live(self.slot(user), user, true).await
    }

    /// The machine in this slot, loaded if it is not in memory.
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
        self.put_idle_away();
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
        // Read now, so that the store need not ask for it in the midst of a write.
        self.expects(slot, user, room_id!("!none"))?;
        let expected = slot.expected.clone();
        store.keep_only(Keeps(Arc::new(move |room| {
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

    /// Puts machines away that nobody uses, the longest unused first, while there are too many.
    fn put_idle_away(&self) {
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

    /// Waits until nobody uses the ghost's machine, and puts it away. No longer than a step of
    /// local work: a machine is never in use while somebody else is asked.
    pub(super) async fn put_away(&self, slot: &Arc<Slot>) -> PutAway {
        let mut guard = slot.machine.clone().write_owned().await;
        self.drop_machine(&mut guard);
        PutAway::new(slot.clone(), guard)
    }
}
