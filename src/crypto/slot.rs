//! The slot of each ghost's machine, and the locks around it.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use matrix_sdk_crypto::OlmMachine;
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::{
    device_list_cache::{DeviceListCache, DeviceListSnapshot},
    locks::lock,
    store::GhostStore,
};
use crate::{clock::Timestamp, matrix::Actor};

/// Where a ghost's machine is while it is in memory.
///
/// # What is exclusive
///
/// Two machines of one ghost would fork its ratchets, so there is one slot for a ghost, and in it
/// at most one machine. A step that uses the machine holds `machine` for reading ([`InUse`]); a
/// step that loads or unloads it, or changes the account behind it, holds it for writing
/// ([`Unloaded`]). The lock is fair, so a writer that waits holds up every later reader: therefore
/// **a step never waits for an answer from the homeserver**. Work that makes requests pins the slot
/// (`Pinned`), takes the machine to find out what to request, gives the machine back, makes the
/// request, and takes the machine again to hand it the answer. By then the machine may be another
/// object, loaded from the same store, and that is fine:
///
/// * Any machine of the ghost accepts the answers to key queries and key claims.
/// * Messages that carry a room key stand in the outbound session, under their transaction ids. A
///   machine that did not send them hands them out again; the homeserver swallows the second one.
/// * Uploaded keys stay marked as not uploaded, and uploading them again changes nothing.
///
/// # Locks
///
/// In this order: the room's, `sending` or `repairing`, `machine`, `olm`. The room's lock, `sending`
/// and `repairing` may be held across a request, and delay only this room, this ghost's
/// uploads or this ghost's repairs.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) machine: Arc<RwLock<Option<Live>>>,
    pub(super) used: AtomicU64,
    /// Number of tasks that will use the machine again in a moment.
    pub(super) pins: AtomicUsize,
    /// Held while the ghost's keys are made or removed.
    pub(super) provisioning: tokio::sync::Mutex<()>,
    /// Held while the ghost's own keys are uploaded.
    pub(super) sending: tokio::sync::Mutex<()>,
    /// Held while new sessions begin with devices whose session broke.
    pub(super) repairing: tokio::sync::Mutex<()>,
    /// Whether a requested round of repairs has not begun yet.
    pub(super) repairs_asked: AtomicBool,
    /// Held while messages are received, and while something is encrypted for devices. A session
    /// that a message begins is saved together with everything the message brought
    /// (`store::while_receiving`); a task that used the session earlier would save it alone.
    pub(super) olm: tokio::sync::Mutex<()>,
    /// Whether a requested round of outgoing requests has not begun yet.
    pub(super) requests_asked: AtomicBool,
    pub(super) requests_due: OutgoingRequestsDue,
    rooms: Mutex<HashMap<OwnedRoomId, RoomLock>>,
    pub(super) device_lists: DeviceListCache,
    /// Counts the batches received for the ghost's device: each may have begun sessions, or broken
    /// some.
    pub(super) received_count: AtomicU64,
    /// The rooms whose keys are kept. `None` until they are read from the store.
    pub(super) expected: Arc<Mutex<Option<HashSet<OwnedRoomId>>>>,
}

/// Whether a round of outgoing requests failed since the last one that succeeded. Rounds overlap.
#[derive(Default)]
pub(super) struct OutgoingRequestsDue {
    begun: AtomicU64,
    /// The last round that is running or has failed; 0 when nothing is due.
    due: AtomicU64,
}

impl OutgoingRequestsDue {
    /// Begins a round, and returns its number.
    pub(super) fn begin(&self) -> u64 {
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        self.due.fetch_max(number, Ordering::AcqRel);
        number
    }

    /// Ends a round that sent everything. A round that began later reports its own end.
    pub(super) fn done(&self, number: u64) {
        let _later = self
            .due
            .compare_exchange(number, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Ends a round that failed, even if a later one has succeeded since.
    pub(super) fn failed(&self, number: u64) {
        self.due.fetch_max(number, Ordering::AcqRel);
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.load(Ordering::Acquire) > 0
    }
}

/// The recipients of a room's key when a message was last encrypted there, and what we knew of
/// their devices. While none of this has changed, the next message needs no look at any device.
/// (The room's settings are not included: a session keeps those it was made with.)
pub(super) struct KeyShare {
    pub(super) session: String,
    pub(super) recipients: Vec<OwnedUserId>,
    pub(super) devices: Vec<DeviceListSnapshot>,
    pub(super) received_count: u64,
}

/// Recipients of a message, and what we knew of their devices.
#[derive(PartialEq, Eq)]
pub(super) struct KnownRecipients {
    pub(super) recipients: Vec<OwnedUserId>,
    /// Those whose server did not say which devices they have.
    pub(super) unanswered: HashSet<OwnedUserId>,
    /// The devices of the others.
    pub(super) devices: Vec<DeviceListSnapshot>,
    pub(super) received_count: u64,
}

/// Why a message could not be encrypted for all of its recipients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ShareRefusal {
    NoSignedDevice,
    KeysUnknown,
    NoSession,
}

/// Recipients of whom some could not get a key. While nothing has changed, no message can be
/// encrypted for all of them.
pub(super) struct RefusedShare {
    pub(super) refusal: ShareRefusal,
    pub(super) users: Vec<OwnedUserId>,
    pub(super) known: KnownRecipients,
    /// Until when this holds, if something may change of which we do not hear.
    pub(super) until: Option<Timestamp>,
}

/// What is known of the last messages that were encrypted in a room. Both are kept side by side: in a
/// group with somebody who can get no key each message is tried for everybody first.
#[derive(Default)]
pub(super) struct RoomShares {
    pub(super) last: Option<KeyShare>,
    pub(super) refused: Option<RefusedShare>,
}

/// The lock of a room, around the sharing of its key.
pub(super) type RoomLock = Arc<tokio::sync::Mutex<RoomShares>>;

impl Slot {
    /// Maximum number of rooms whose locks are kept while no task holds them.
    const ROOM_LOCKS_MAX: usize = 1024;

    /// Returns the lock of a room of the ghost: sharing a key and encrypting with it is one act.
    pub(super) fn room_lock(&self, room: &RoomId) -> RoomLock {
        let mut rooms = lock(&self.rooms);
        if rooms.len() > Self::ROOM_LOCKS_MAX {
            rooms.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        rooms.entry(room.to_owned()).or_default().clone()
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Relaxed) > 0
    }

    /// Returns whether the slot holds nothing that a new one would not. The caller must hold the
    /// table's lock, and the table the only reference, so that no task can start to use the slot.
    fn is_blank(&self) -> bool {
        let empty = |live: &RwLock<Option<Live>>| live.try_read().is_ok_and(|live| live.is_none());
        Arc::strong_count(&self.machine) == 1 && empty(&self.machine) && !self.requests_due.is_due()
    }
}

/// The slots of all ghosts. When there are many, unused slots without a machine are removed: what
/// else they hold is in the store or can be requested again.
#[derive(Default)]
pub(super) struct Slots(Mutex<SlotTable>);

#[derive(Default)]
struct SlotTable {
    slots: HashMap<OwnedUserId, Arc<Slot>>,
    /// The number of slots at which unused ones are removed.
    sweep_at: usize,
}

impl Slots {
    /// Minimum number of slots before any is removed.
    const SLOTS_MIN: usize = 1024;

    /// Returns the slot of a user, and creates it if there is none.
    pub(super) fn of(&self, user: &UserId) -> Arc<Slot> {
        let mut table = lock(&self.0);
        if let Some(slot) = table.slots.get(user) {
            return slot.clone();
        }
        if table.slots.len() >= table.sweep_at.max(Self::SLOTS_MIN) {
            table
                .slots
                .retain(|_, slot| Arc::strong_count(slot) > 1 || !slot.is_blank());
            // Twice the number in use, so that the cost of a sweep is spread over many new slots.
            table.sweep_at = table.slots.len() * 2;
        }
        table.slots.entry(user.to_owned()).or_default().clone()
    }

    /// Returns the slot of a user that has one.
    pub(super) fn existing(&self, user: &UserId) -> Option<Arc<Slot>> {
        lock(&self.0).slots.get(user).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Slot>> {
        lock(&self.0).slots.values().cloned().collect()
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        lock(&self.0).slots.len()
    }
}

/// A machine in memory.
pub(super) struct Live {
    pub(super) machine: OlmMachine,
    pub(super) store: GhostStore,
    pub(super) device: OwnedDeviceId,
    /// Whether it has the private half of its identity.
    pub(super) signs: bool,
}

impl Live {
    pub(super) fn actor(&self) -> Actor<'_> {
        Actor::device(self.machine.user_id(), &self.device)
    }
}

/// A machine in use. It stays in memory as long as this lives. A task that wants to unload it
/// waits, and every later task waits behind that one, so no request may be made while this lives.
/// (Ghosts that are being created are an exception: no other task uses them.)
pub(super) struct InUse {
    pub(super) slot: Arc<Slot>,
    live: OwnedRwLockReadGuard<Option<Live>, Live>,
}

impl InUse {
    pub(super) fn new(slot: Arc<Slot>, live: OwnedRwLockReadGuard<Option<Live>, Live>) -> Self {
        Self { slot, live }
    }
}

impl std::ops::Deref for InUse {
    type Target = Live;
    fn deref(&self) -> &Live {
        &self.live
    }
}

/// A ghost whose machine is not in memory, and is not loaded as long as this lives.
#[must_use]
pub(super) struct Unloaded {
    _guard: OwnedRwLockWriteGuard<Option<Live>>,
    /// Keeps the slot in the table, so that no second one is created.
    _slot: Arc<Slot>,
}

impl Unloaded {
    pub(super) fn new(slot: Arc<Slot>, guard: OwnedRwLockWriteGuard<Option<Live>>) -> Self {
        Self {
            _guard: guard,
            _slot: slot,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: usize) -> OwnedUserId {
        OwnedUserId::try_from(format!("@_dm_made{n}:hs.test")).unwrap()
    }

    #[test]
    fn slots_that_nobody_uses_do_not_accumulate() {
        let slots = Slots::default();
        let held = slots.of(&user(0));
        let due = slots.of(&user(1));
        due.requests_due.begin();
        drop(due);
        for n in 2..10_000 {
            slots.of(&user(n));
        }
        assert!(slots.count() <= Slots::SLOTS_MIN, "{}", slots.count());
        assert!(Arc::ptr_eq(&held, &slots.of(&user(0))), "one is in use");
        let due = slots.of(&user(1));
        assert!(due.requests_due.is_due(), "work is left");
    }

    #[test]
    fn an_unloaded_machine_keeps_its_slot() {
        let slots = Slots::default();
        let slot = slots.of(&user(0));
        let guard = slot.machine.clone().try_write_owned().unwrap();
        let address = Arc::as_ptr(&slot);
        let unloaded = Unloaded::new(slot, guard);
        for n in 1..10_000 {
            slots.of(&user(n));
        }
        assert_eq!(Arc::as_ptr(&slots.of(&user(0))), address);
        drop(unloaded);
    }

    #[test]
    fn a_round_that_failed_is_due_however_another_one_ended() {
        let due = OutgoingRequestsDue::default();
        let (first, second) = (due.begin(), due.begin());
        due.done(second);
        assert!(!due.is_due());
        due.failed(first);
        assert!(due.is_due(), "the other one was done before");
        let (third, fourth) = (due.begin(), due.begin());
        due.failed(fourth);
        due.done(third);
        assert!(
            due.is_due(),
            "the one that began before it does not speak for it"
        );
        due.done(due.begin());
        assert!(!due.is_due());
    }
}
