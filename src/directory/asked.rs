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

use super::{Ask, Directory, DirectoryError, Verdict};
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
    fn add(&self, ask: &Ask<'_>, within_limits: bool) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= MOST {
            asked.pop_front();
        }
        asked.push_back(Paid {
            asker: ask.asker.to_owned(),
            handle: ask.handle.key().to_owned(),
            within_limits,
            at: ask.now,
        });
    }

    /// Whether this was asked, and counted, a moment ago, and if so, whether it was within the
    /// limits then.
    pub(super) fn take(&self, ask: &Ask<'_>) -> Option<bool> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|paid| ask.now.since(paid.at) < KEPT_FOR);
        let same = |paid: &Paid| paid.asker == ask.asker && paid.handle == ask.handle.key();
        let at = asked.iter().position(same)?;
        asked.remove(at).map(|paid| paid.within_limits)
    }
}

impl Directory {
    /// For each handle, the owner who may be invited in its ghost's place, now. `None` leaves the
    /// ghost, and does not say why.
    ///
    /// It counts as the ghosts' invites would, but returns before that is durable: people wait.
    pub async fn introduce(
        &self,
        asker: &UserId,
        handles: &[Handle],
        now: Timestamp,
    ) -> Result<Vec<Option<OwnedUserId>>, DirectoryError> {
        let mut change = self.begin().await;
        let mut owners = Vec::with_capacity(handles.len());
        let mut left = Vec::new();
        for handle in handles {
            let ask = Ask { asker, handle, now };
            let (verdict, within_limits) = change.count_and_decide(&ask)?;
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
                    left.push((ask, within_limits));
                    None
                }
            });
        }
        let (batch, lock) = change.into_parts();
        self.store().apply(batch)?;
        for (ask, within_limits) in left {
            self.inner.asked.add(&ask, within_limits);
        }
        drop(lock);
        Ok(owners)
    }
}

#[cfg(test)]
#[path = "asked_tests.rs"]
mod tests;
