//! Pairs: the rooms of two people who were introduced.

use ruma::{OwnedRoomId, RoomId};

use super::{
    Directory, DirectoryError, DirectoryTransaction, PAIR_MEMORY, PAIR_RETRY,
    tables::{Expiring, Pair, Pairs},
    transaction::Read,
};
use crate::{clock::Timestamp, handle::Handle, ids::Person, store::StoreError};

/// The advice for somebody who starts a chat with a handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairAdvice {
    /// Introduce them: they have no room with the owner, or that room is of no use to them.
    Introduce,
    /// Lead them back to their room.
    LeadBack {
        /// That room.
        room: OwnedRoomId,
    },
}

fn advise(pair: Option<&Pair>, now: Timestamp) -> PairAdvice {
    match pair {
        Some(pair) if now.since(pair.introduced_at) < PAIR_MEMORY => match pair.led_back_at {
            Some(last) if now.since(last) < PAIR_RETRY => PairAdvice::Introduce,
            _ => PairAdvice::LeadBack {
                room: pair.room.clone(),
            },
        },
        _ => PairAdvice::Introduce,
    }
}

/// Returns the room of two people who were introduced, while it is remembered.
fn room_of(
    from: &impl Read,
    asker: &Person,
    handle: &Handle,
    generation: u32,
    now: Timestamp,
) -> Result<Option<OwnedRoomId>, StoreError> {
    let pair = from.get::<Pairs>(&(asker.to_owned(), handle.key().to_owned(), generation))?;
    Ok(pair
        .filter(|pair| now.since(pair.introduced_at) < PAIR_MEMORY)
        .map(|pair| pair.room))
}

impl Directory {
    /// Returns the room of two people who were introduced, while it is remembered.
    pub fn room_of(
        &self,
        asker: &Person,
        handle: &Handle,
        generation: u32,
        now: Timestamp,
    ) -> Result<Option<OwnedRoomId>, DirectoryError> {
        Ok(room_of(self.store(), asker, handle, generation, now)?)
    }
}

impl DirectoryTransaction<'_> {
    /// Returns the room of two people who were introduced, while it is remembered.
    pub fn room_of(
        &self,
        asker: &Person,
        handle: &Handle,
        generation: u32,
        now: Timestamp,
    ) -> Result<Option<OwnedRoomId>, DirectoryError> {
        Ok(room_of(self, asker, handle, generation, now)?)
    }

    /// Advises what to do when `asker` starts a chat with this handle, and records it if they are
    /// led back.
    pub fn pair_advice(
        &mut self,
        asker: &Person,
        handle: &Handle,
        generation: u32,
        now: Timestamp,
    ) -> Result<PairAdvice, DirectoryError> {
        let key = (asker.to_owned(), handle.key().to_owned(), generation);
        let pair = self.get::<Pairs>(&key)?;
        let advice = advise(pair.as_ref(), now);
        if let (PairAdvice::LeadBack { .. }, Some(mut pair)) = (&advice, pair) {
            pair.led_back_at = Some(now);
            self.put::<Pairs>(&key, &pair)?;
        }
        Ok(advice)
    }

    /// Records the room of two people who were introduced, in place of an older one.
    pub fn remember_pair(
        &mut self,
        asker: &Person,
        handle: &Handle,
        generation: u32,
        room: &RoomId,
        now: Timestamp,
    ) -> Result<(), DirectoryError> {
        let key = (asker.to_owned(), handle.key().to_owned(), generation);
        let pair = Pair {
            room: room.to_owned(),
            introduced_at: now,
            led_back_at: None,
        };
        self.put::<Pairs>(&key, &pair)?;
        let (asker, handle, generation) = key;
        self.expire(
            now + PAIR_MEMORY,
            Expiring::Pair {
                asker,
                handle,
                generation,
            },
        )
    }

    /// Forgets the room of two people.
    pub fn forget_pair(&mut self, asker: &Person, handle: &Handle, generation: u32) {
        self.delete::<Pairs>(&(asker.to_owned(), handle.key().to_owned(), generation));
    }
}
