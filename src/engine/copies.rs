//! Finds the copies of events that are known.
//!
//! The database has them in the order in which they were made. Where the copies of an event are, only
//! the memory knows: it is read from the database when somebody asks about a room, and kept for the
//! rooms that were asked about last. Everybody may name events that have no copies, any number of them
//! in one message, so that to find none must cost as little as to find one.

use std::{
    collections::{BTreeSet, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use lru::LruCache;
use ruma::EventId;

use crate::{
    engine::{
        packs::Copy,
        records::{CopyOrigins, CopyPacks, EventCopies},
    },
    store::{Digest, Store, StoreError, prefix},
};

/// Maximum number of places that are kept in memory, of all rooms together: some 50 MB. Each copy has
/// two.
const PLACES_MAX: usize = 2_000_000;
/// How many copies of a room are noted before its places are read anew: those of copies that were
/// forgotten meanwhile go.
const NOTED_MAX: usize = 10_000;
/// How many copies that were noted last may not be in the database yet.
const RECENT: usize = 4_096;

/// A hash of the id of an event, or of a copy and its room, and the number of the event in its room.
type Placed = (u64, u64);

/// Where the copies of a room's events are.
#[derive(Default)]
struct RoomPlaces {
    places: BTreeSet<Placed>,
    /// How many copies were noted since the places were read.
    noted: usize,
}

/// Where copies are, of the rooms that were asked about last.
pub(in crate::engine) struct CopyPlaces(Mutex<State>);

struct State {
    rooms: LruCache<Digest, RoomPlaces>,
    /// The number of places in `rooms`.
    places: usize,
    /// The copies that were noted last, by room.
    recent: VecDeque<(Digest, [Placed; 2])>,
    hasher: RandomState,
}

impl Default for CopyPlaces {
    fn default() -> Self {
        Self(Mutex::new(State {
            rooms: LruCache::unbounded(),
            places: 0,
            recent: VecDeque::new(),
            hasher: RandomState::new(),
        }))
    }
}

impl State {
    fn of_event(&self, event: &EventId) -> u64 {
        self.hasher.hash_one(event.as_str())
    }

    fn of_copy(&self, there: &Digest, copy: &EventId) -> u64 {
        self.hasher.hash_one((there, copy.as_str()))
    }

    fn places_of(&self, number: u64, copy: &Copy) -> [Placed; 2] {
        [
            (self.of_event(&copy.event), number),
            (self.of_copy(&copy.there, &copy.copy), number),
        ]
    }

    /// Returns the numbers of a room's events with this hash, the newest first.
    fn numbers(&mut self, store: &Store, room: &Digest, hash: u64) -> Result<Vec<u64>, StoreError> {
        if !self.rooms.contains(room) {
            self.load(store, room)?;
        }
        let known = self.rooms.get(room);
        let known = known.into_iter().flat_map(|known| {
            let same = known.places.range((hash, 0)..=(hash, u64::MAX));
            same.rev().map(|(_, number)| *number)
        });
        Ok(known.collect())
    }

    /// Reads the places of a room.
    fn load(&mut self, store: &Store, room: &Digest) -> Result<(), StoreError> {
        let mut places = BTreeSet::new();
        // In this order: what is packed meanwhile is read twice, and not missed.
        for page in store.pages::<EventCopies>(&prefix(room)) {
            for ((_, number, _), copy) in page? {
                places.extend(self.places_of(number, &copy));
            }
        }
        for page in store.pages::<CopyPacks>(&prefix(room)) {
            for ((_, first), pack) in page? {
                // Which number of the pack it is does not matter.
                for copy in &pack.copies {
                    places.extend(self.places_of(first, copy));
                }
            }
        }
        let recent = self.recent.iter().filter(|(of, _)| of == room);
        places.extend(recent.flat_map(|(_, noted)| *noted));
        self.places += places.len();
        let read = RoomPlaces { places, noted: 0 };
        self.rooms.put(*room, read);
        while self.places > PLACES_MAX
            && self.rooms.len() > 1
            && let Some((_, oldest)) = self.rooms.pop_lru()
        {
            self.places -= oldest.places.len();
        }
        Ok(())
    }
}

impl CopyPlaces {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a copy of a room's event, before it is written.
    pub(in crate::engine) fn note(&self, room: &Digest, number: u64, copy: &Copy) {
        let mut state = self.state();
        let placed = state.places_of(number, copy);
        if state.recent.len() >= RECENT {
            state.recent.pop_front();
        }
        state.recent.push_back((*room, placed));
        let Some(known) = state.rooms.peek_mut(room) else {
            return;
        };
        known.noted += 1;
        let is_full = known.noted > NOTED_MAX;
        let before = known.places.len();
        known.places.extend(placed);
        let more = known.places.len() - before;
        state.places += more;
        if is_full && let Some(known) = state.rooms.pop(room) {
            state.places -= known.places.len();
        }
    }

    /// Returns the newest copy of an event of a room that is wanted.
    pub(in crate::engine) fn newest(
        &self,
        store: &Store,
        room: &Digest,
        event: &EventId,
        is_wanted: impl Fn(&Copy) -> bool,
    ) -> Result<Option<Copy>, StoreError> {
        let numbers = {
            let mut state = self.state();
            let hash = state.of_event(event);
            state.numbers(store, room, hash)?
        };
        first_of(store, room, &numbers, |copy| {
            copy.event == *event && is_wanted(copy)
        })
    }

    /// Returns the copy that an event of a room is.
    fn original(
        &self,
        store: &Store,
        origin: &Digest,
        room: &Digest,
        event: &EventId,
    ) -> Result<Option<Copy>, StoreError> {
        let numbers = {
            let mut state = self.state();
            let hash = state.of_copy(room, event);
            state.numbers(store, origin, hash)?
        };
        first_of(store, origin, &numbers, |copy| {
            copy.there == *room && copy.copy == *event
        })
    }

    /// Finds an event of a room: as an original with a wanted copy, or as the copy of another room's
    /// event. Returns the room of the original as well.
    pub(in crate::engine) fn find(
        &self,
        store: &Store,
        room: &Digest,
        event: &EventId,
        is_wanted: impl Fn(&Copy) -> bool,
    ) -> Result<Option<(Digest, Copy)>, StoreError> {
        if let Some(copy) = self.newest(store, room, event, is_wanted)? {
            return Ok(Some((*room, copy)));
        }
        for page in store.pages::<CopyOrigins>(&prefix(room)) {
            for ((_, origin), _) in page? {
                if let Some(copy) = self.original(store, &origin, room, event)? {
                    return Ok(Some((origin, copy)));
                }
            }
        }
        Ok(None)
    }
}

/// Returns the first copy that is wanted of those with these numbers.
fn first_of(
    store: &Store,
    room: &Digest,
    numbers: &[u64],
    is_wanted: impl Fn(&Copy) -> bool,
) -> Result<Option<Copy>, StoreError> {
    for number in numbers {
        // In this order: what is no longer here is in a pack.
        let here = [prefix(room), prefix(number)].concat();
        for page in store.pages::<EventCopies>(&here) {
            let mut copies = page?.into_iter().map(|(_, copy)| copy);
            if let Some(copy) = copies.find(&is_wanted) {
                return Ok(Some(copy));
            }
        }
        let behind = (*room, number.saturating_add(1));
        let packs = store.scan_back::<CopyPacks>(&prefix(room), Some(&behind), 1)?;
        let mut copies = packs.into_iter().flat_map(|(_, pack)| pack.copies);
        if let Some(copy) = copies.find(&is_wanted) {
            return Ok(Some(copy));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use ruma::owned_event_id;

    use super::*;
    use crate::{clock::Timestamp, store::Batch};

    fn copy(n: u64) -> Copy {
        Copy {
            event: format!("$event{n}").try_into().unwrap(),
            there: Digest::of("!there"),
            copy: format!("$copy{n}").try_into().unwrap(),
            by: 0,
            at: Timestamp(n),
        }
    }

    #[test]
    fn a_copy_that_is_written_while_its_room_is_read_is_found() {
        let (store, places) = (Store::in_memory(), CopyPlaces::default());
        let room = Digest::of("!here");
        let event = owned_event_id!("$event1");
        let find = || places.newest(&store, &room, &event, |_| true).unwrap();
        places.note(&room, 1, &copy(1));
        assert_eq!(find(), None, "it is not written yet");
        let mut batch = Batch::new();
        let key = (room, 1, Digest::of("!there"));
        batch.put::<EventCopies>(&key, &copy(1)).unwrap();
        store.apply(batch).unwrap();
        assert_eq!(find(), Some(copy(1)));
    }

    #[test]
    fn what_is_kept_of_a_room_is_bounded() {
        let (store, places) = (Store::in_memory(), CopyPlaces::default());
        let room = Digest::of("!here");
        let unknown = owned_event_id!("$unknown");
        for n in 0..3 * NOTED_MAX as u64 {
            assert_eq!(
                places.newest(&store, &room, &unknown, |_| true).unwrap(),
                None
            );
            places.note(&room, n, &copy(n));
        }
        let state = places.state();
        assert!(state.places <= 2 * (NOTED_MAX + RECENT), "{}", state.places);
        assert!(state.recent.len() <= RECENT);
        let kept: usize = state.rooms.iter().map(|(_, it)| it.places.len()).sum();
        assert_eq!(kept, state.places);
    }
}
