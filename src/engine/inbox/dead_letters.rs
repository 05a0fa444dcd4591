//! Dead letters: items that were set aside, counted, and requested once more.
//!
//! An item that is too large or cannot be read never blocks the items behind it. It becomes a
//! [`DeadLetter`], which says what it was but not what it contained. Its room or user is marked for
//! backfill: the room compares with its history before its next event, and the ghost syncs, because
//! the homeserver may show the same item in a form that can be read.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{MutexGuard, PoisonError, atomic::Ordering},
};

use ruma::OwnedUserId;

use crate::{
    clock,
    engine::{
        Engine,
        inbox::sync::CATCH_UP_PAUSE,
        records::{DeadLetterCounts, DeadLetterRecord, DeadLetters},
    },
    matrix::bounds::{DeadLetter, DeadLetterReason},
    store::{Batch, Store, StoreError},
};

/// Maximum number of dead letters that are kept. The newest replace the oldest.
const KEPT_MAX: u64 = 1000;
/// Maximum number of users that wait to be synced because of dead letters. Others wait for their
/// regular reconciliation.
const BACKFILLS_MAX: usize = 1000;
/// Maximum number of sync attempts per backfill.
const BACKFILL_TRIES: u32 = 3;

/// Returns the number of dead letters since the database was made, by the name of their reason.
pub fn count_dead_letters(store: &Store) -> Result<BTreeMap<String, u64>, StoreError> {
    let rows = store.scan::<DeadLetterCounts>(&[], None, usize::MAX)?;
    Ok(rows.into_iter().collect())
}

impl Engine {
    /// Adds dead letters to `batch`. The caller holds the inbox lock until the batch is applied,
    /// so that none is left out of the counts.
    pub(in crate::engine) fn stage_dead_letters(
        &self,
        letters: &[DeadLetter],
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let mut more: BTreeMap<DeadLetterReason, u64> = BTreeMap::new();
        for letter in letters {
            // It may have been a change of the room's state: who left must not get the next key.
            if let Some(room) = &letter.room {
                self.0.room_states.mark_outdated(room);
            }
            *more.entry(letter.reason).or_default() += 1;
        }
        for (reason, more) in &more {
            let name = reason.name().to_owned();
            let count = match self.store().get::<DeadLetterCounts>(&name) {
                // A count must not keep out what arrives.
                Err(error) if !error.is_down() => None,
                count => count?,
            }
            .unwrap_or(0);
            batch.put::<DeadLetterCounts>(&name, &count.saturating_add(*more))?;
            tracing::warn!(%reason, count = more, "items from the homeserver were set aside");
        }
        // Of many that came together, the first show as much as the last.
        for letter in letters.iter().take(KEPT_MAX as usize) {
            let record = DeadLetterRecord {
                at: self.now(),
                letter: letter.clone(),
            };
            batch.put::<DeadLetters>(&(self.next() % KEPT_MAX), &record)?;
        }
        Ok(())
    }

    /// Writes dead letters that did not come in a transaction or a sync, together with `batch`.
    pub(in crate::engine) async fn note_dead_letters(
        &self,
        letters: &[DeadLetter],
        mut batch: Batch,
    ) -> Result<(), StoreError> {
        let _one_at_a_time = self.0.inbox_lock.lock().await;
        self.stage_dead_letters(letters, &mut batch)?;
        self.store().apply(batch)
    }

    /// Marks the rooms and users of dead letters for backfill.
    pub(in crate::engine) fn backfill_after(&self, letters: &[DeadLetter]) {
        for letter in letters {
            if let Some(room) = &letter.room {
                let checked = self.0.gap_checked_at.lock();
                checked.unwrap_or_else(PoisonError::into_inner).remove(room);
            }
            if let Some(user) = &letter.user
                && letter.reason != DeadLetterReason::InviteWithoutAsker
            {
                self.backfill(user);
            }
        }
    }

    /// Syncs one of our users soon. Several reasons at the same time lead to one sync.
    pub(in crate::engine) fn backfill(&self, user: &OwnedUserId) {
        if !self.0.started.load(Ordering::Acquire)
            || !matches!(self.machines().device_of(user), Ok(Some(_)))
        {
            return;
        }
        {
            let mut waiting = self.backfills();
            if waiting.len() >= BACKFILLS_MAX {
                // Syncs the users with something to do, a few at a time.
                self.note_possible_gap();
                return;
            }
            if !waiting.insert(user.clone()) {
                return;
            }
        }
        let (engine, user) = (self.clone(), user.clone());
        self.spawn(async move {
            let mut stop = engine.0.stop.subscribe();
            for _ in 0..BACKFILL_TRIES {
                // Items that arrived just after the last sync come with the next one.
                let pause = clock::sleep(CATCH_UP_PAUSE);
                tokio::select! {
                    () = pause => {}
                    _ = stop.wait_for(|stop| *stop) => break,
                }
                // An item that is set aside after this may not be in this sync.
                engine.backfills().remove(&user);
                match engine.fetch_missing_keys(&user).await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%user, %error, "a ghost could not be synced"),
                }
                if !engine.backfills().insert(user.clone()) {
                    return;
                }
            }
            engine.backfills().remove(&user);
        });
    }

    fn backfills(&self) -> MutexGuard<'_, HashSet<OwnedUserId>> {
        let waiting = self.0.backfills.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }
}
