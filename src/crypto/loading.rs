//! One live machine per ghost, loaded on demand and unloaded when there are too many.

use std::sync::{Arc, atomic::Ordering};

use matrix_sdk_crypto::{OlmMachine, store::CryptoStore};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, RoomId, UserId, room_id};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use super::{
    CryptoError, Machines,
    locks::lock,
    record::{ForgottenRooms, GhostKind, Step},
    slot::{InUse, Live, Slot, Unloaded},
    store::{GhostStore, RoomKeyFate, RoomKeyFilter},
};
use crate::matrix::Actor;

/// A ghost with work in progress that makes requests. Between its steps others can use the machine,
/// but it is not unloaded as idle.
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

    pub(super) fn device(&self) -> &DeviceId {
        &self.device
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

impl Machines {
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
        // A machine with an empty store makes new keys, which must not happen to a ghost that has
        // published some.
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
        store.set_room_key_filter(self.room_key_filter(slot, user));
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

    /// Keeps the keys of expected rooms, parks those of rooms that may be expected in a moment, and
    /// refuses those of rooms that the ghost has left.
    fn room_key_filter(&self, slot: &Slot, user: &UserId) -> RoomKeyFilter {
        let (expected, store) = (slot.expected.clone(), self.0.store.clone());
        let user = user.to_owned();
        let judge = move |room: &RoomId| {
            let expected = lock(&expected);
            if expected.as_ref().is_some_and(|rooms| rooms.contains(room)) {
                return RoomKeyFate::Keep;
            }
            let place = (user.clone(), room.to_owned());
            match store.contains::<ForgottenRooms>(&place) {
                Ok(false) => RoomKeyFate::Park,
                Ok(true) | Err(_) => RoomKeyFate::Refuse,
            }
        };
        RoomKeyFilter {
            judge: Arc::new(judge),
            clock: self.0.settings.clock.clone(),
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
