//! Searches the copies of events that are known, the newest first: that is what people answer. A room
//! that knows all it may know has some 150 packs of them.

use ruma::{EventId, RoomId};

use crate::{
    engine::{
        packs::Copy,
        records::{CopyOrigins, CopyPacks, EventCopies},
    },
    store::{Digest, Store, StoreError, prefix},
};

/// How many copies that are not packed are read at once.
const PAGE_COPIES: usize = 64;
/// How many packs are read at once.
const PAGE_PACKS: usize = 4;

/// Reads the copies of a room's events, the newest first.
struct NewestCopies<'a> {
    store: &'a Store,
    room: Digest,
    before: Option<(Digest, u64, Digest)>,
    /// The pack before which to go on; `None` while there are copies that are not packed.
    before_pack: Option<(Digest, u64)>,
}

impl<'a> NewestCopies<'a> {
    fn of(store: &'a Store, room: Digest) -> Self {
        Self {
            store,
            room,
            before: None,
            before_pack: None,
        }
    }

    /// Returns the next copies; `None` after the oldest.
    fn next_page(&mut self) -> Result<Option<Vec<Copy>>, StoreError> {
        let here = prefix(&self.room);
        if self.before_pack.is_none() {
            let before = self.before.as_ref();
            let page = self
                .store
                .scan_back::<EventCopies>(&here, before, PAGE_COPIES)?;
            if let Some((last, _)) = page.last() {
                self.before = Some(*last);
                return Ok(Some(page.into_iter().map(|(_, copy)| copy).collect()));
            }
        }
        // What was packed meanwhile is in the newest pack.
        let before = self.before_pack.unwrap_or((self.room, u64::MAX));
        let page = self
            .store
            .scan_back::<CopyPacks>(&here, Some(&before), PAGE_PACKS)?;
        let Some((last, _)) = page.last() else {
            return Ok(None);
        };
        self.before_pack = Some(*last);
        let packs = page.into_iter();
        let copies = packs.flat_map(|(_, pack)| pack.copies.into_iter().rev());
        Ok(Some(copies.collect()))
    }
}

/// Returns the newest copy of a room's events that is wanted.
pub(in crate::engine) fn newest(
    store: &Store,
    room: &Digest,
    is_wanted: impl Fn(&Copy) -> bool,
) -> Result<Option<Copy>, StoreError> {
    let mut copies = NewestCopies::of(store, *room);
    while let Some(page) = copies.next_page()? {
        let wanted = page.into_iter().find(&is_wanted);
        if wanted.is_some() {
            return Ok(wanted);
        }
    }
    Ok(None)
}

/// Finds an event of a room: as an original with a wanted copy, or as the copy of another room's
/// event. Returns the room of the original as well. All rooms are searched at the same time, since
/// it is in the newest copies of one of them, as a rule.
pub(in crate::engine) fn find(
    store: &Store,
    room: &Digest,
    event: &EventId,
    is_wanted: impl Fn(&Copy) -> bool,
) -> Result<Option<(Digest, Copy)>, StoreError> {
    let mut rooms = vec![NewestCopies::of(store, *room)];
    for page in store.pages::<CopyOrigins>(&prefix(room)) {
        let origins = page?.into_iter().map(|((_, origin), _)| origin);
        rooms.extend(origins.map(|origin| NewestCopies::of(store, origin)));
    }
    while !rooms.is_empty() {
        let mut unread = Vec::new();
        for mut copies in rooms {
            let Some(page) = copies.next_page()? else {
                continue;
            };
            let is_original = copies.room == *room;
            let found = page.into_iter().find(|copy| {
                let is_copy = copy.there == *room && copy.copy == *event;
                is_copy || is_original && copy.event == *event && is_wanted(copy)
            });
            if let Some(copy) = found {
                return Ok(Some((copies.room, copy)));
            }
            unread.push(copies);
        }
        rooms = unread;
    }
    Ok(None)
}

/// Returns whether an event of this room was forwarded.
pub(in crate::engine) fn has_copies(
    store: &Store,
    room: &RoomId,
    event: &EventId,
) -> Result<bool, StoreError> {
    let copy = newest(store, &Digest::of(room), |copy| copy.event == *event)?;
    Ok(copy.is_some())
}
