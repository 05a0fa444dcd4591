//! How long the copies of events are remembered, how many, and what they take.

use ruma::EventId;

use super::*;
use crate::engine::{
    conversations::event_map::{COPIED_EVENTS_MAX, EventMap, PACK_EVENTS},
    records::{CopyOrigins, CopyPacks, EventCopies},
};

fn event(n: u64) -> OwnedEventId {
    format!("${n:043}").try_into().unwrap()
}

/// An id as rooms of version 4 and newer have.
fn random_event() -> OwnedEventId {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let hash = rand::random::<[u8; 32]>();
    format!("${}", URL_SAFE_NO_PAD.encode(hash))
        .try_into()
        .unwrap()
}

fn copy_in(room: &OwnedRoomId, n: u64) -> OwnedEventId {
    let room = room.as_str().trim_matches(['!', '.']).split(':').next();
    format!("${n:036}{:_>7}", room.unwrap()).try_into().unwrap()
}

fn third() -> OwnedRoomId {
    room_id!("!third:hs.test").to_owned()
}

impl Talk {
    /// An event of the origin is forwarded to these rooms.
    fn forward(&self, n: u64, to: &[OwnedRoomId]) {
        for target in to {
            let copy = NewCopy {
                source: &origin(),
                event: &event(n),
                target,
                copy: &copy_in(target, n),
                by: 1,
            };
            let mut batch = Batch::new();
            self.engine.note_copy(&copy, &mut batch).unwrap();
            self.store.apply(batch).unwrap();
        }
    }

    fn counterpart(&self, source: &OwnedRoomId, event: &EventId, target: &OwnedRoomId) -> String {
        let map = EventMap {
            engine: &self.engine,
            source,
            target,
        };
        let found = map.find(event).unwrap();
        found.map_or_else(String::new, String::from)
    }

    /// Returns how many copies are known, and in how many pairs of rooms.
    fn copies(&self) -> (usize, usize) {
        let loose = self.store.scan::<EventCopies>(&[], None, 99_999).unwrap();
        let packs = self.store.scan::<CopyPacks>(&[], None, 99_999).unwrap();
        let packed: usize = packs.iter().map(|(_, pack)| pack.copies.len()).sum();
        let origins = self.store.scan::<CopyOrigins>(&[], None, 99).unwrap();
        (loose.len() + packed, origins.len())
    }
}

#[tokio::test]
async fn an_event_is_found_from_each_room_in_each_other() {
    let it = Talk::begun().await;
    it.forward(7, &[portal(), third()]);
    let (here, there, third) = (origin(), portal(), third());
    let original = event(7);
    let (copy, other) = (copy_in(&there, 7), copy_in(&third, 7));
    assert_eq!(it.counterpart(&here, &original, &there), copy);
    assert_eq!(it.counterpart(&here, &original, &third), other);
    assert_eq!(it.counterpart(&there, &copy, &here), original);
    assert_eq!(it.counterpart(&there, &copy, &third), other);
    assert_eq!(it.counterpart(&third, &other, &there), copy);
    assert_eq!(it.counterpart(&here, &copy, &there), "", "of another room");
    assert_eq!(it.counterpart(&here, &event(8), &there), "");
}

#[tokio::test]
async fn copies_are_forgotten_after_the_retention() {
    let it = Talk::begun().await;
    let rooms = [portal(), third()];
    for n in 0..250 {
        it.forward(n, &rooms);
    }
    // Another room, whose events are young.
    it.clock.advance(30 * DAY);
    for n in 250..260 {
        it.forward(n, &rooms);
    }
    it.clock.advance(336 * DAY);
    it.engine.forget_old_copies().unwrap();
    // With those that share a pack with a young one.
    assert_eq!(it.copies(), (2 * (260 - 224), 2));
    assert_eq!(it.counterpart(&origin(), &event(223), &portal()), "");
    assert_ne!(it.counterpart(&origin(), &event(224), &portal()), "");
    it.clock.advance(30 * DAY);
    it.engine.forget_old_copies().unwrap();
    assert_eq!(it.copies(), (0, 0));
}

#[tokio::test]
async fn of_each_room_the_newest_copied_events_are_remembered() {
    let it = Talk::begun().await;
    for n in 0..COPIED_EVENTS_MAX + 100 {
        it.forward(n, &[portal()]);
    }
    // The oldest ones go a pack at a time, when a new pack is made.
    let packed = (COPIED_EVENTS_MAX + 99) / PACK_EVENTS * PACK_EVENTS;
    let oldest = (packed - COPIED_EVENTS_MAX) / PACK_EVENTS * PACK_EVENTS;
    let all = (COPIED_EVENTS_MAX + 100 - oldest) as usize;
    assert_eq!(it.copies(), (all, 1));
    assert_eq!(it.counterpart(&origin(), &event(oldest - 1), &portal()), "");
    assert_ne!(it.counterpart(&origin(), &event(oldest), &portal()), "");
    let since = it.engine.copies_remembered_since(&origin()).unwrap();
    assert_eq!(since, it.engine.now());
    // Another room has its own.
    let copy = NewCopy {
        source: &third(),
        event: &event(1),
        target: &portal(),
        copy: &event(2),
        by: 0,
    };
    for _ in 0..2 {
        let mut batch = Batch::new();
        it.engine.note_copy(&copy, &mut batch).unwrap();
        it.store.apply(batch).unwrap();
        assert_eq!(it.copies(), (all + 1, 2));
    }
}

/// It is copied again, into a room whose server did not answer.
#[tokio::test]
async fn a_copy_that_comes_late_is_found_like_the_others() {
    let it = Talk::begun().await;
    it.forward(7, &[portal()]);
    for n in 8..8 + 3 * PACK_EVENTS {
        it.forward(n, &[portal()]);
    }
    it.forward(7, &[third()]);
    let (here, there, third) = (origin(), portal(), third());
    let copies = [copy_in(&there, 7), copy_in(&third, 7)];
    assert_eq!(it.counterpart(&here, &event(7), &there), copies[0]);
    assert_eq!(it.counterpart(&here, &event(7), &third), copies[1]);
    assert_eq!(it.counterpart(&there, &copies[0], &third), copies[1]);
    assert_eq!(it.counterpart(&third, &copies[1], &there), copies[0]);
    assert_eq!(it.counterpart(&third, &copies[1], &here), event(7));
    let known = |event: &EventId| it.engine.has_copies(&here, event).unwrap();
    assert!(known(&event(7)) && known(&event(9)) && !known(&event(6)));
}

/// What is kept of a conversation after a year, and of the messages of a week.
#[tokio::test]
async fn a_message_leaves_few_bytes_and_old_ones_leave_nothing() {
    const MESSAGES: u64 = 3 * COPIED_EVENTS_MAX;
    let it = Talk::begun().await;
    for n in 0..MESSAGES {
        // They write by turns.
        let (source, target) = match n % 2 {
            0 => (origin(), portal()),
            _ => (portal(), origin()),
        };
        let event = random_event();
        let mut batch = Batch::new();
        it.engine.mark_seen(&event, true, &mut batch).unwrap();
        let copy = NewCopy {
            source: &source,
            event: &event,
            target: &target,
            copy: &random_event(),
            by: 1,
        };
        it.engine.note_copy(&copy, &mut batch).unwrap();
        it.store.apply(batch).unwrap();
        it.engine.pack_arrivals().unwrap();
    }
    let parts = crate::engine::store_parts(&it.store).unwrap();
    let size = |what: &str| {
        let part = parts.iter().find(|part| part.what == what);
        part.map(|part| (part.records, part.bytes)).unwrap()
    };
    let (_, bytes) = size("copies of messages in masked conversations");
    assert!(bytes / (2 * COPIED_EVENTS_MAX) < 130, "{bytes}");
    let (_, bytes) = size("what has arrived within two weeks");
    assert!(bytes / MESSAGES < 30, "{bytes}");
}
