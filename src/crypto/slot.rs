//! Where the machines of ghosts are, and who may touch them when.

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
use crate::matrix::Actor;

/// Where a ghost's machine is while it is in memory.
///
/// # What is exclusive
///
/// Two machines of one ghost would fork its ratchets, so there is one slot for a ghost, and in it at
/// most one machine. A step that uses the machine holds `machine` for reading ([`InUse`]); whoever
/// loads it, puts it away or changes the account behind it holds it for writing ([`Unloaded`]). The
/// lock is fair, so a writer that waits holds up every later reader: therefore **a step never waits
/// for an answer from the homeserver**. What has to ask pins the slot ([`Pinned`]), takes the
/// machine to find out what to ask, gives it back, asks, and takes it again to hand it the answer.
/// It may be another object then, loaded from the same store, and that is fine:
///
/// * The answers to key queries and key claims are taken by any machine of the ghost.
/// * Messages that carry a room key stand in the outbound session, under their transaction ids. A
///   machine that did not send them hands them out again; the homeserver swallows the second one.
/// * Uploaded keys stay marked as not uploaded, and uploading them again changes nothing.
///
/// # Locks
///
/// In this order: the room's, `sending` or `repairing`, `machine`, `olm`. The room's lock, `sending`
/// and `repairing` may be held across a request, and concern nobody but this room, this ghost's
/// uploads and this ghost's repairs.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) machine: Arc<RwLock<Option<Live>>>,
    pub(super) used: AtomicU64,
    /// How many pieces of work come back to the machine in a moment.
    pub(super) pins: AtomicUsize,
    /// One at a time makes or takes away the ghost's keys.
    pub(super) provisioning: tokio::sync::Mutex<()>,
    /// One at a time uploads the ghost's own keys.
    pub(super) sending: tokio::sync::Mutex<()>,
    /// One at a time begins new sessions with devices whose session broke.
    pub(super) repairing: tokio::sync::Mutex<()>,
    /// Whether a round of repairs was asked for that has not begun.
    pub(super) repairs_asked: AtomicBool,
    /// Held while messages are taken in, and while something is encrypted for devices. A session
    /// that a message begins is kept back until all the message brought is saved with it
    /// (`store::defer_session_saves`); whoever used it before would save it alone.
    pub(super) olm: tokio::sync::Mutex<()>,
    /// Whether a round of requests was asked for that has not begun.
    pub(super) requests_asked: AtomicBool,
    pub(super) requests_due: OutgoingRequestsDue,
    rooms: Mutex<HashMap<OwnedRoomId, RoomLock>>,
    pub(super) device_lists: DeviceListCache,
    /// Rises with everything that comes for the ghost's device: it may have begun sessions, or
    /// broken some.
    pub(super) received_count: AtomicU64,
    /// The rooms whose keys are kept, once they were read from the store.
    pub(super) expected: Arc<Mutex<Option<HashSet<OwnedRoomId>>>>,
}

/// Whether a round of requests was cut short since the last one that ended well. Rounds overlap.
#[derive(Default)]
pub(super) struct OutgoingRequestsDue {
    begun: AtomicU64,
    /// The last round that is under way or was cut short; 0 when nothing is due.
    due: AtomicU64,
}

impl OutgoingRequestsDue {
    /// Begins a round, and returns its number.
    pub(super) fn begin(&self) -> u64 {
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        self.due.fetch_max(number, Ordering::AcqRel);
        number
    }

    /// Ends a round that has left nothing; one that began later speaks for itself.
    pub(super) fn done(&self, number: u64) {
        let _later = self
            .due
            .compare_exchange(number, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Ends a round that was cut short, also if a later one has ended well meanwhile.
    pub(super) fn failed(&self, number: u64) {
        self.due.fetch_max(number, Ordering::AcqRel);
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.load(Ordering::Acquire) > 0
    }
}

/// With whom the key of a room was shared when a message was last encrypted there, and what we
/// knew then. As long as all of it is so, the next message needs no look at anybody's devices. (The
/// room's settings are not in it: a session keeps those that it was made with.)
pub(super) struct KeyShare {
    pub(super) session: String,
    pub(super) recipients: Vec<OwnedUserId>,
    pub(super) devices: Vec<DeviceListSnapshot>,
    pub(super) received_count: u64,
}

/// The lock of a room, and with whom its key was shared.
pub(super) type RoomLock = Arc<tokio::sync::Mutex<Option<KeyShare>>>;

impl Slot {
    /// Maximum number of rooms whose locks are kept while nobody holds them.
    const ROOMS: usize = 1024;

    /// Returns the lock of a room of the ghost: sharing a key and encrypting with it is one act.
    pub(super) fn room_lock(&self, room: &RoomId) -> RoomLock {
        let mut rooms = lock(&self.rooms);
        if rooms.len() > Self::ROOMS {
            rooms.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        rooms.entry(room.to_owned()).or_default().clone()
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Relaxed) > 0
    }

    /// Whether the slot would be the same if it were made anew. To be called for slots that only
    /// the table has, with the table locked: then nobody can come to have it meanwhile.
    fn is_blank(&self) -> bool {
        let empty = |live: &RwLock<Option<Live>>| live.try_read().is_ok_and(|live| live.is_none());
        Arc::strong_count(&self.machine) == 1 && empty(&self.machine) && !self.requests_due.is_due()
    }
}

/// The slots of all ghosts. Those that nobody uses and that hold no machine go when there are many,
/// whichever users they were made for: what they know besides is in the store or can be asked for.
#[derive(Default)]
pub(super) struct Slots(Mutex<Table>);

#[derive(Default)]
struct Table {
    slots: HashMap<OwnedUserId, Arc<Slot>>,
    /// The number of slots at which those not needed are removed.
    sweep_at: usize,
}

impl Slots {
    /// Minimum number of slots before any is removed.
    const KEPT: usize = 1024;

    /// Returns the slot of a user, made if there is none.
    pub(super) fn of(&self, user: &UserId) -> Arc<Slot> {
        let mut table = lock(&self.0);
        if let Some(slot) = table.slots.get(user) {
            return slot.clone();
        }
        if table.slots.len() >= table.sweep_at.max(Self::KEPT) {
            table
                .slots
                .retain(|_, slot| Arc::strong_count(slot) > 1 || !slot.is_blank());
            // Twice as many as are needed, so that a sweep costs each new slot next to nothing.
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

/// A machine in use. It stays in memory as long as this lives, and whoever wants to put it away
/// waits, and with them everybody else: nobody is to be asked anything meanwhile. (GhostRecords in the
/// making are an exception: nobody else uses them.)
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

/// A ghost whose machine is not in memory and does not come back as long as this lives.
#[must_use]
pub(super) struct Unloaded {
    _guard: OwnedRwLockWriteGuard<Option<Live>>,
    /// A slot that is held is not made a second time.
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
        assert!(slots.count() <= Slots::KEPT, "{}", slots.count());
        assert!(Arc::ptr_eq(&held, &slots.of(&user(0))), "one is in use");
        let due = slots.of(&user(1));
        assert!(due.requests_due.is_due(), "work is left");
    }

    #[test]
    fn a_machine_that_is_put_away_keeps_its_slot() {
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
