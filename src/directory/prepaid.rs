//! Queries of the homeserver's module, which come before there is a room.
//!
//! The module asks while a room is being created. If the owner is put in the ghost's place, no
//! other query follows. If the ghost stays, its invite leads to a second query about the same
//! handle. The first one is remembered for a while as prepaid, so that the second is not counted
//! again.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{Directory, DirectoryError, DirectoryTransaction, ReachQuery, Verdict};
use crate::{clock::Timestamp, handle::Handle, ids::Person};

/// How long the ghost's invite may take to arrive.
const PREPAID_FOR: Duration = Duration::from_secs(120);
/// Maximum number of prepaid queries. One that is dropped too early is counted twice.
const PREPAID_QUERIES_MAX: usize = 1000;

/// Queries that were counted already, the oldest first. Each is good for one invite.
#[derive(Debug, Default)]
pub(super) struct PrepaidQueries(Mutex<VecDeque<PrepaidQuery>>);

#[derive(Debug)]
struct PrepaidQuery {
    asker: Person,
    handle: String,
    within_limits: bool,
    at: Timestamp,
}

impl PrepaidQueries {
    fn add(&self, query: &ReachQuery<'_>, within_limits: bool) {
        let mut queries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queries.len() >= PREPAID_QUERIES_MAX {
            queries.pop_front();
        }
        queries.push_back(PrepaidQuery {
            asker: query.asker.to_owned(),
            handle: query.handle.key().to_owned(),
            within_limits,
            at: query.now,
        });
    }

    /// Takes this query out if it is prepaid. Returns whether it was within the limits when it was
    /// counted.
    pub(super) fn take(&self, query: &ReachQuery<'_>) -> Option<bool> {
        let mut queries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queries.retain(|paid| query.now.since(paid.at) < PREPAID_FOR);
        let same =
            |paid: &PrepaidQuery| paid.asker == *query.asker && paid.handle == query.handle.key();
        let at = queries.iter().position(same)?;
        queries.remove(at).map(|paid| paid.within_limits)
    }
}

impl Directory {
    /// Returns for each handle the owner who may be invited in its ghost's place now. `None` leaves
    /// the ghost, and gives no reason.
    ///
    /// Counts what the ghosts' invites would count. The counts are written by
    /// [`Directory::flush_deferred`] or the next transaction, for all queries until then: the asker
    /// waits, and writing takes longest here.
    pub async fn introduce(
        &self,
        asker: &Person,
        handles: &[Handle],
        now: Timestamp,
    ) -> Result<Vec<Option<Person>>, DirectoryError> {
        let lock = self.inner.writing.lock().await;
        let mut tx = DirectoryTransaction::new(self, lock);
        let answered = tx.answer(asker, handles, now);
        // The counts stay even if this fails.
        tx.defer()?;
        let (owners, left) = answered?;
        for (query, within_limits) in left {
            self.inner.prepaid.add(&query, within_limits);
        }
        Ok(owners)
    }
}

/// The owners, and for each ghost that stays its query and whether that was within the limits.
type Answers<'a> = (Vec<Option<Person>>, Vec<(ReachQuery<'a>, bool)>);

impl DirectoryTransaction<'_> {
    fn answer<'a>(
        &mut self,
        asker: &'a Person,
        handles: &'a [Handle],
        now: Timestamp,
    ) -> Result<Answers<'a>, DirectoryError> {
        let mut owners = Vec::with_capacity(handles.len());
        let mut left = Vec::new();
        for handle in handles {
            let query = ReachQuery { asker, handle, now };
            let (verdict, within_limits) = self.count_and_decide(&query)?;
            owners.push(match verdict {
                // Another server may refuse the invite, and then the room could not be created.
                Verdict::Introduce { owner, .. }
                    if owner.server_name() == self.settings().server_name =>
                {
                    Some(owner)
                }
                // The ghost tells them that the handle is their own. That counts nothing.
                Verdict::OwnHandle { .. } => None,
                _ => {
                    left.push((query, within_limits));
                    None
                }
            });
        }
        Ok((owners, left))
    }
}

#[cfg(test)]
#[path = "prepaid_tests.rs"]
mod tests;
