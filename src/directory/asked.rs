//! Asking before there is a room: the homeserver's module.
//!
//! The module asks while a room is being created. Where the owner may be put in the ghost's place,
//! that is all. Where the ghost is left, its invite follows, and asks again: what was counted for
//! the first question is remembered for a moment, so that the second costs nothing.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ruma::{OwnedUserId, UserId};

use super::{Directory, DirectoryError, DirectoryTransaction, ReachQuery, Verdict};
use crate::{clock::Timestamp, handle::Handle};

/// How long the ghost's invite may take to come.
const KEPT_FOR: Duration = Duration::from_secs(120);
/// How many questions are remembered. Whose is forgotten too early is counted twice.
const MOST: usize = 1000;

/// Questions that were counted already, the oldest first. Each is good for one invite: whoever asks
/// many times has paid as often.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<VecDeque<Paid>>);

#[derive(Debug)]
struct Paid {
    asker: OwnedUserId,
    handle: String,
    within_limits: bool,
    at: Timestamp,
}

impl Asked {
    fn add(&self, query: &ReachQuery<'_>, within_limits: bool) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= MOST {
            asked.pop_front();
        }
        asked.push_back(Paid {
            asker: query.asker.to_owned(),
            handle: query.handle.key().to_owned(),
            within_limits,
            at: query.now,
        });
    }

    /// Whether this was asked, and counted, a moment ago, and if so, whether it was within the
    /// limits then.
    pub(super) fn take(&self, query: &ReachQuery<'_>) -> Option<bool> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|paid| query.now.since(paid.at) < KEPT_FOR);
        let same = |paid: &Paid| paid.asker == query.asker && paid.handle == query.handle.key();
        let at = asked.iter().position(same)?;
        asked.remove(at).map(|paid| paid.within_limits)
    }
}

impl Directory {
    /// For each handle, the owner who may be invited in its ghost's place, now. `None` leaves the
    /// ghost, and does not say why.
    ///
    /// It counts as the ghosts' invites would, but that is put off until [`Directory::settle`] or
    /// the next change, for all who have asked by then: people wait, and writing is what takes
    /// longest here.
    pub async fn introduce(
        &self,
        asker: &UserId,
        handles: &[Handle],
        now: Timestamp,
    ) -> Result<Vec<Option<OwnedUserId>>, DirectoryError> {
        let lock = self.inner.writing.lock().await;
        let mut tx = DirectoryTransaction::new(self, lock);
        let answered = tx.answer(asker, handles, now);
        // What was counted counts, however this ends.
        tx.put_off()?;
        let (owners, left) = answered?;
        for (query, within_limits) in left {
            self.inner.asked.add(&query, within_limits);
        }
        Ok(owners)
    }
}

/// The owners, and for each ghost that is left what was asked and whether it was within the limits.
type Answers<'a> = (Vec<Option<OwnedUserId>>, Vec<(ReachQuery<'a>, bool)>);

impl DirectoryTransaction<'_> {
    fn answer<'a>(
        &mut self,
        asker: &'a UserId,
        handles: &'a [Handle],
        now: Timestamp,
    ) -> Result<Answers<'a>, DirectoryError> {
        let mut owners = Vec::with_capacity(handles.len());
        let mut left = Vec::new();
        for handle in handles {
            let query = ReachQuery { asker, handle, now };
            let (verdict, within_limits) = self.count_and_decide(&query)?;
            owners.push(match verdict {
                // Whether a server elsewhere takes the invite cannot be known, and the room could
                // not be made if it did not.
                Verdict::Introduce { owner, .. }
                    if owner.server_name() == self.settings().server_name =>
                {
                    Some(owner)
                }
                // The ghost says that it is their own, and that costs nothing either way.
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
#[path = "asked_tests.rs"]
mod tests;
