//! Records that are deleted by time.

use super::{
    DirectoryError, DirectoryTransaction, PAIR_MEMORY,
    tables::{Expiries, Expiring, Pairs, Pauses, Usages},
    transaction::Read as _,
};
use crate::clock::Timestamp;

impl DirectoryTransaction<'_> {
    /// Deletes expired records. Looks at no more than `limit` and returns how many it looked at: if
    /// that is `limit`, there may be more.
    pub fn sweep(&mut self, now: Timestamp, limit: usize) -> Result<usize, DirectoryError> {
        let due: Vec<_> = self
            .scan::<Expiries>(&[], limit)?
            .into_iter()
            .take_while(|((when, _), _)| *when <= now)
            .collect();
        let seen = due.len().max(self.sweep_audit_log(now, limit)?);
        for (key, expiring) in due {
            self.delete::<Expiries>(&key);
            match expiring {
                Expiring::Pair {
                    asker,
                    handle,
                    generation,
                } => {
                    let key = (asker, handle, generation);
                    // A pair that was introduced again has a later entry.
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
                Expiring::Pause { person } => {
                    // A newer pause has an entry of its own.
                    if self
                        .get::<Pauses>(&person)?
                        .is_some_and(|until| until <= now)
                    {
                        self.delete::<Pauses>(&person);
                    }
                }
            }
        }
        Ok(seen)
    }

    /// Schedules the deletion of a record by [`DirectoryTransaction::sweep`].
    pub(super) fn expire(&mut self, when: Timestamp, what: Expiring) -> Result<(), DirectoryError> {
        let tag = match &what {
            Expiring::Pair {
                asker,
                handle,
                generation,
            } => format!("pair {asker} {handle} {generation}"),
            Expiring::Usage { counted, subject } => format!("usage {counted} {subject}"),
            Expiring::Pause { person } => format!("pause {person}"),
        };
        self.put::<Expiries>(&(when, tag), &what)?;
        Ok(())
    }
}
