//! The audit log: what admins did, when, to what and why.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    DAY, DirectoryError, DirectoryTransaction, record::AuditRecord, tables::AuditLog,
    transaction::Read as _,
};
use crate::{
    clock::Timestamp,
    store::{Store, StoreError},
};

/// How long an act stays in the log.
const AUDIT_MEMORY: Duration = DAY.saturating_mul(365);
/// Maximum number of acts on one page of the log.
const ACTS_PER_PAGE_MAX: usize = 500;

/// An act of an admin, and when it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When it was, in milliseconds since 1970.
    pub at: Timestamp,
    /// The act.
    #[serde(flatten)]
    pub record: AuditRecord,
}

/// A page of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// The acts, the oldest first.
    pub acts: Vec<AuditEntry>,
    /// Where the next page begins, if there may be one.
    pub next: Option<(Timestamp, u64)>,
}

/// Returns a page of the acts after this place in the log.
pub fn audit_log(store: &Store, after: Option<(Timestamp, u64)>) -> Result<AuditPage, StoreError> {
    let found = store.scan::<AuditLog>(&[], after.as_ref(), ACTS_PER_PAGE_MAX)?;
    let is_full = found.len() == ACTS_PER_PAGE_MAX;
    let next = found.last().map(|(key, _)| *key).filter(|_| is_full);
    let entry = |((at, _), record)| AuditEntry { at, record };
    let acts = found.into_iter().map(entry).collect();
    Ok(AuditPage { acts, next })
}

impl DirectoryTransaction<'_> {
    /// Writes an act into the audit log.
    pub(super) fn note_act(
        &mut self,
        record: &AuditRecord,
        now: Timestamp,
    ) -> Result<(), DirectoryError> {
        let mut number = 0;
        while self.get::<AuditLog>(&(now, number))?.is_some() {
            number += 1;
        }
        self.put::<AuditLog>(&(now, number), record)?;
        Ok(())
    }

    /// Deletes acts that are no longer kept, at most `limit`. Returns how many: if that is `limit`,
    /// there may be more.
    pub(super) fn sweep_audit_log(
        &mut self,
        now: Timestamp,
        limit: usize,
    ) -> Result<usize, DirectoryError> {
        let oldest = self.scan::<AuditLog>(&[], limit)?.into_iter();
        let due: Vec<_> = oldest
            .map(|(key, _)| key)
            .take_while(|(at, _)| now.since(*at) >= AUDIT_MEMORY)
            .collect();
        for key in &due {
            self.delete::<AuditLog>(key);
        }
        Ok(due.len())
    }
}
