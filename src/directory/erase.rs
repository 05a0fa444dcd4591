//! Erases a person from the directory.
//!
//! What stays is listed in `docs/data-protection.md`: what protects other people (their blocks of this
//! person, and for a day or two what is used of the limits), what the admin decided (bans, freezes, the
//! audit log), and the names of handles, without their owner, so that nobody takes them for the person
//! who had them.

use super::{
    ActError, DirectoryTransaction, REASON_CHARS_MAX,
    record::{ActingAdmin, AuditRecord, HandleRecord, HandleState, Request},
    tables::{
        Appearances, Blocks, Contacts, Expiries, Expiring, Handles, Owned, Pairs, RequestNumbers,
        Requests,
    },
    transaction::Read as _,
};
use crate::{clock::Timestamp, ids::Person, store::prefix};

/// The word for it in the audit log.
const ERASE: &str = "erase";

/// What follows from erasing a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasedPerson {
    /// The handles that they held, as they were. Those that were frozen stay so.
    pub released: Vec<HandleRecord>,
    /// The requests that waited for their answer, and their own that waited for one.
    pub closed: Vec<Request>,
}

impl DirectoryTransaction<'_> {
    /// Erases a person, and notes in the audit log who did it. Their handles go into quarantine, from
    /// which nobody may claim them before its end; frozen ones stay frozen. After an error the
    /// transaction holds no writes of it.
    pub fn erase_person(
        &mut self,
        person: &Person,
        by: &ActingAdmin,
        reason: &str,
        now: Timestamp,
    ) -> Result<ErasedPerson, ActError> {
        if reason.chars().count() > REASON_CHARS_MAX {
            return Err(ActError::LongReason);
        }
        let mut erased = ErasedPerson {
            closed: self.close_all_requests(person)?,
            ..ErasedPerson::default()
        };
        for (key, record) in self.scan::<Handles>(&[], usize::MAX)? {
            if record.owner == *person {
                self.disown(&key, record, now, &mut erased)?;
            }
        }
        for (key, _) in self.scan::<Blocks>(&prefix(person), usize::MAX)? {
            self.delete::<Blocks>(&key);
        }
        for (key, _) in self.scan::<Contacts>(&[], usize::MAX)? {
            if key.2 == *person {
                self.delete::<Contacts>(&key);
            }
        }
        for (key, _) in self.scan::<Pairs>(&prefix(person), usize::MAX)? {
            self.delete::<Pairs>(&key);
        }
        // What is used of their limits stays: otherwise an erasure would be the way around them.
        for (key, expiring) in self.scan::<Expiries>(&[], usize::MAX)? {
            if matches!(&expiring, Expiring::Pair { asker, .. } if asker == person) {
                self.delete::<Expiries>(&key);
            }
        }
        self.delete::<Appearances>(person);
        self.delete::<RequestNumbers>(person);
        let record = AuditRecord {
            by: by.clone(),
            act: ERASE.to_owned(),
            subject: person.to_string(),
            to: None,
            reason: reason.to_owned(),
        };
        self.note_act(&record, now)?;
        Ok(erased)
    }

    /// Closes the requests that wait for a person's answer, and those that they have made.
    fn close_all_requests(&mut self, person: &Person) -> Result<Vec<Request>, ActError> {
        let mut closed = Vec::new();
        for (key, request) in self.scan::<Requests>(&[], usize::MAX)? {
            if key.0 == *person || request.asker == *person {
                self.delete::<Requests>(&key);
                closed.push(request);
            }
        }
        Ok(closed)
    }

    /// Takes the owner, or the last owner, out of the record of a handle. Its ghost stands in their
    /// place, as for a handle whose owner a restore cannot find out.
    fn disown(
        &mut self,
        key: &str,
        mut record: HandleRecord,
        now: Timestamp,
        erased: &mut ErasedPerson,
    ) -> Result<(), ActError> {
        let key = key.to_owned();
        if record.holder().is_some() {
            erased.released.push(record.clone());
        }
        let in_quarantine = |until| HandleState::Quarantined {
            until,
            revoked: true,
        };
        record.state = match record.state {
            HandleState::Quarantined { until, .. } => in_quarantine(until),
            HandleState::Active => in_quarantine(now + self.settings().quarantine),
            // What becomes of it is for an admin to decide.
            frozen @ HandleState::Frozen { .. } => frozen,
        };
        self.delete::<Owned>(&(record.owner.clone(), key.clone()));
        self.forget_contacts(&key)?;
        for (pair, _) in self.scan::<Pairs>(&[], usize::MAX)? {
            if pair.1 == key {
                self.delete::<Pairs>(&pair);
            }
        }
        let ghost = record.handle.ghost_id(&self.settings().server_name);
        match ghost {
            Some(ghost) => {
                record.owner = Person::new(ghost.into());
                record.verified_at = None;
                self.put::<Handles>(&key, &record)?;
            }
            // No ghost has such a name, so nobody can take it for somebody.
            None => self.delete::<Handles>(&key),
        }
        Ok(())
    }
}
