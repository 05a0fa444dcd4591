//! The replay guard: refuses a ciphertext that was decrypted before, in another event.

use std::collections::BTreeMap;

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use super::{DecryptError, Decrypted, Machines};
use crate::store::{Batch, Table, prefix};

/// The decrypted messages of a part of a session, by ghost, room, session and part; a part has
/// [`PART_PLACES`] message indexes. So a message changes one short record, however long the session
/// is. Deleted with the room, and by a sweep once the session is.
pub(super) struct ReplayGuard;

impl Table for ReplayGuard {
    const ID: u8 = 70;
    const NAME: &'static str = "replay guard";
    const SECRET: bool = false;
    type Key = (OwnedUserId, OwnedRoomId, String, u32);
    type Value = ReplayPart;
}

/// Number of message indexes in a part.
const PART_PLACES: u32 = 16;

/// Returns the part of a session that holds a message index.
pub(super) fn part_of(index: u32) -> u32 {
    index / PART_PLACES
}

/// The messages of a part of a session that were decrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReplayPart {
    /// By message index.
    pub(super) events: BTreeMap<u32, OwnedEventId>,
    /// The index below which every message counted as decrypted when this part was begun.
    pub(super) below: u32,
}

/// A part that is about to be written, and the part it replaces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NewReplayPart {
    pub(super) part: ReplayPart,
    /// The oldest part, which is deleted for it.
    pub(super) forget: Option<u32>,
}

impl ReplayPart {
    /// Maximum number of parts kept of a session: more than a session has in any client we know,
    /// before it rotates.
    pub(super) const PARTS_MAX: usize = 24;

    /// Records a message. Returns `Ok(false)` if it is recorded already. `Err` names the event that
    /// had this index before, unless that is too long ago.
    pub(super) fn note(
        &mut self,
        index: u32,
        event: &EventId,
    ) -> Result<bool, Option<OwnedEventId>> {
        match self.events.get(&index) {
            Some(first) if first == event => return Ok(false),
            Some(first) => return Err(Some(first.clone())),
            None if index < self.below => return Err(None),
            None => {}
        }
        self.events.insert(index, event.to_owned());
        Ok(true)
    }

    /// Begins the part that holds an index. `others` are the kept parts of the session, in order.
    pub(super) fn begin(
        index: u32,
        others: &[(u32, Self)],
    ) -> Result<NewReplayPart, Option<OwnedEventId>> {
        let own = part_of(index);
        let below = others.iter().map(|(_, part)| part.below);
        let mut part = Self {
            below: below.max().unwrap_or_default(),
            events: BTreeMap::new(),
        };
        let mut forget = None;
        if others.len() >= Self::PARTS_MAX
            && let Some((oldest, _)) = others.first()
        {
            if own < *oldest {
                return Err(None);
            }
            forget = Some(*oldest);
            part.below = oldest
                .saturating_add(1)
                .saturating_mul(PART_PLACES)
                .max(part.below);
        }
        Ok(NewReplayPart { part, forget })
    }
}

impl Machines {
    pub(super) fn guard_against_replay(
        &self,
        user: &UserId,
        room: &RoomId,
        decrypted: &Decrypted,
        event: &EventId,
        batch: &mut Batch,
    ) -> Result<(), DecryptError> {
        let replayed = |first| DecryptError::Replayed { first };
        let (session, index) = (decrypted.session_id.clone(), decrypted.message_index);
        let key = (user.to_owned(), room.to_owned(), session, part_of(index));
        let mut part = match self.0.store.get::<ReplayGuard>(&key)? {
            Some(part) => part,
            None => self.begin_replay_part(&key, index, batch)?,
        };
        if part.note(index, event).map_err(replayed)? {
            batch.put::<ReplayGuard>(&key, &part)?;
        }
        Ok(())
    }

    /// Begins the part of a session's message, given the other parts.
    fn begin_replay_part(
        &self,
        key: &<ReplayGuard as Table>::Key,
        index: u32,
        batch: &mut Batch,
    ) -> Result<ReplayPart, DecryptError> {
        let (user, room, session, _) = key;
        let of_session = [prefix(user), prefix(room), prefix(session)].concat();
        let store = &self.0.store;
        let others = store.scan::<ReplayGuard>(&of_session, None, ReplayPart::PARTS_MAX)?;
        let others: Vec<_> = others
            .into_iter()
            .map(|((.., number), part)| (number, part))
            .collect();
        let begun =
            ReplayPart::begin(index, &others).map_err(|first| DecryptError::Replayed { first })?;
        if let Some(number) = begun.forget {
            let oldest = (user.clone(), room.clone(), session.clone(), number);
            batch.delete::<ReplayGuard>(&oldest);
        }
        Ok(begun.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::owned_event_id;

    /// The records of a session.
    #[derive(Default)]
    struct Session {
        parts: BTreeMap<u32, ReplayPart>,
    }

    impl Session {
        fn note(&mut self, index: u32, event: &str) -> Result<bool, Option<OwnedEventId>> {
            let event = OwnedEventId::try_from(event).unwrap();
            let own = part_of(index);
            if let Some(part) = self.parts.get_mut(&own) {
                return part.note(index, &event);
            }
            let others: Vec<_> = self.parts.clone().into_iter().collect();
            let mut begun = ReplayPart::begin(index, &others)?;
            let news = begun.part.note(index, &event)?;
            if let Some(forget) = begun.forget {
                self.parts.remove(&forget).unwrap();
            }
            self.parts.insert(own, begun.part);
            Ok(news)
        }
    }

    #[test]
    fn the_same_index_under_another_event_is_a_replay() {
        let mut session = Session::default();
        for (index, event) in [(3, "$a"), (100, "$far"), (1, "$c")] {
            assert_eq!(session.note(index, event), Ok(true), "in any order");
            assert_eq!(session.note(index, event), Ok(false));
        }
        let first = owned_event_id!("$a");
        assert_eq!(session.note(3, "$b"), Err(Some(first)));
    }

    #[test]
    fn the_memory_of_a_session_is_bounded_and_never_forgets_to_refuse() {
        let mut session = Session::default();
        for index in 0..10_000u32 {
            assert_eq!(session.note(index, &format!("$e{index}")), Ok(true));
            assert!(session.parts.len() <= ReplayPart::PARTS_MAX);
        }
        for index in 0..10_000u32 {
            session.note(index, "$again").unwrap_err();
        }
        let parts = session.parts.values();
        assert!(
            parts
                .clone()
                .all(|part| part.events.len() <= PART_PLACES as usize)
        );
        assert_eq!(parts.map(|part| part.events.len()).sum::<usize>(), 24 * 16);
        // Indexes far apart, in descending order.
        let mut session = Session::default();
        for step in 0..100u32 {
            let index = u32::MAX - step * 1000;
            let kept = (step as usize) < ReplayPart::PARTS_MAX;
            assert_eq!(session.note(index, "$e").is_ok(), kept);
        }
        session.note(u32::MAX, "$again").unwrap_err();
    }

    #[test]
    fn a_part_keeps_its_shape_on_disk() {
        let part = ReplayPart {
            events: [(17, owned_event_id!("$a"))].into(),
            below: 3,
        };
        let bytes = rmp_serde::to_vec_named(&part).unwrap();
        assert_eq!(bytes, b"\x82\xA6events\x81\x11\xA2$a\xA5below\x03");
    }
}
