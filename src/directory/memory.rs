//! What the directory remembers of people for a time: limits, pairs, contacts.

use ruma::{OwnedRoomId, RoomId, UserId};

use super::{
    Counted, DirectoryError, DirectoryTransaction, Limit, PAIR_MEMORY, PAIR_RETRY,
    tables::{Contacts, Expiries, Expiring, Pair, Pairs, StoredUsage, Usages},
    transaction::Read,
};
use crate::{
    clock::Timestamp,
    handle::Handle,
    store::{self, StoreError},
};

/// What to do when somebody starts a chat with a handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairAdvice {
    /// Introduce: they have no room, or the one they have is of no use to them.
    Introduce,
    /// Lead them back to the room they have.
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

pub(super) fn room_of(
    from: &impl Read,
    asker: &UserId,
    handle: &Handle,
    generation: u32,
    now: Timestamp,
) -> Result<Option<OwnedRoomId>, StoreError> {
    let pair = from.get::<Pairs>(&(asker.to_owned(), handle.key().to_owned(), generation))?;
    Ok(pair
        .filter(|pair| now.since(pair.introduced_at) < PAIR_MEMORY)
        .map(|pair| pair.room))
}

impl DirectoryTransaction<'_> {
    /// Counts one attempt of `subject` if it is within the limit, and says whether it is.
    pub fn count(
        &mut self,
        counted: Counted,
        subject: &str,
        limit: Limit,
        now: Timestamp,
    ) -> Result<bool, DirectoryError> {
        let key = (counted.name().to_owned(), subject.to_owned());
        let stored = self.get::<Usages>(&key)?;
        let before = stored.map(|stored| stored.usage).unwrap_or_default();
        let (usage, allowed) = before.attempt(limit, now);
        if stored.is_none() || usage != before {
            let expires = usage.expires(limit.window);
            self.put::<Usages>(&key, &StoredUsage { usage, expires })?;
            if stored.is_none() {
                let (counted, subject) = key;
                self.expire(expires, Expiring::Usage { counted, subject })?;
            }
        }
        Ok(allowed)
    }

    /// Whether an attempt would be within the limit, without counting it.
    pub fn may(
        &self,
        counted: Counted,
        subject: &str,
        limit: Limit,
        now: Timestamp,
    ) -> Result<bool, DirectoryError> {
        let key = (counted.name().to_owned(), subject.to_owned());
        let stored = self.get::<Usages>(&key)?;
        let usage = stored.map(|stored| stored.usage).unwrap_or_default();
        Ok(usage.allows(limit, now))
    }

    /// What to do when `asker` starts a chat with this handle again. Being led back is noted.
    pub fn pair_advice(
        &mut self,
        asker: &UserId,
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

    /// Remembers the room of two people who were introduced; it takes the place of an older one.
    pub fn remember_pair(
        &mut self,
        asker: &UserId,
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
    pub fn forget_pair(&mut self, asker: &UserId, handle: &Handle, generation: u32) {
        self.delete::<Pairs>(&(asker.to_owned(), handle.key().to_owned(), generation));
    }

    /// Makes somebody a contact of a handle. Beyond the number that is kept nothing happens.
    pub fn add_contact(
        &mut self,
        handle: &Handle,
        generation: u32,
        person: &UserId,
        now: Timestamp,
    ) -> Result<(), DirectoryError> {
        let key = (handle.key().to_owned(), generation, person.to_owned());
        let most = self.settings().contacts_per_handle;
        if self.get::<Contacts>(&key)?.is_none()
            && self.scan::<Contacts>(&store::prefix(&key.0), most)?.len() < most
        {
            self.put::<Contacts>(&key, &now)?;
        }
        Ok(())
    }

    /// Ends that somebody is a contact of a handle.
    pub fn remove_contact(&mut self, handle: &Handle, generation: u32, person: &UserId) {
        self.delete::<Contacts>(&(handle.key().to_owned(), generation, person.to_owned()));
    }

    /// Deletes what has run out, at most `limit` records, and says how many it looked at: as many
    /// as `limit` means that there may be more.
    pub fn sweep(&mut self, now: Timestamp, limit: usize) -> Result<usize, DirectoryError> {
        let due: Vec<_> = self
            .scan::<Expiries>(&[], limit)?
            .into_iter()
            .take_while(|((when, _), _)| *when <= now)
            .collect();
        let seen = due.len();
        for (key, expiring) in due {
            self.delete::<Expiries>(&key);
            match expiring {
                Expiring::Pair {
                    asker,
                    handle,
                    generation,
                } => {
                    let key = (asker, handle, generation);
                    // A newer introduction has an entry of its own.
                    if let Some(pair) = self.get::<Pairs>(&key)?
                        && now.since(pair.introduced_at) >= PAIR_MEMORY
                    {
                        self.delete::<Pairs>(&key);
                    }
                }
                Expiring::Usage { counted, subject } => {
                    let key = (counted, subject);
                    match self.get::<Usages>(&key)? {
                        Some(stored) if stored.expires > now => {
                            let (counted, subject) = key;
                            self.expire(stored.expires, Expiring::Usage { counted, subject })?;
                        }
                        Some(_) => self.delete::<Usages>(&key),
                        None => {}
                    }
                }
            }
        }
        Ok(seen)
    }

    fn expire(&mut self, when: Timestamp, what: Expiring) -> Result<(), DirectoryError> {
        let tag = match &what {
            Expiring::Pair {
                asker,
                handle,
                generation,
            } => {
                format!("pair {asker} {handle} {generation}")
            }
            Expiring::Usage { counted, subject } => format!("usage {counted} {subject}"),
        };
        self.put::<Expiries>(&(when, tag), &what)?;
        Ok(())
    }
}
