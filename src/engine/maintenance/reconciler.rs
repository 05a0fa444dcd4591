//! Syncs every ghost from time to time, and ghosts with open work whenever events may have been
//! lost.

use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};

use ruma::OwnedUserId;
use tokio::time::Instant;

use crate::{
    clock::{self, Timestamp},
    engine::{Engine, EngineError, records::ActiveRoomsByGhost},
    ids::Ghost,
    metrics::catalogue::{RECONCILED, RECONCILIATION_FAILURES, RECONCILIATION_TIME},
};

/// Maximum number of rounds in which ghosts are tried again that could not be synced.
pub(in crate::engine) const ROUNDS: u32 = 6;

/// How long to wait between two tries to set up ghosts that could not be set up.
const OWED_EVERY: Duration = Duration::from_secs(5 * 60);

/// How long to wait for further gaps before the ghosts are synced.
const SETTLE: Duration = Duration::from_secs(1);

impl Engine {
    /// Syncs the ghosts with open work whenever events may have been lost, until the service stops.
    pub(in crate::engine) async fn keep_closing_gaps(&self) {
        let mut stop = self.0.stop.subscribe();
        loop {
            tokio::select! {
                () = self.0.gap_noted.notified() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            tokio::select! {
                () = clock::sleep(SETTLE) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            // A gap that is noted meanwhile begins another round after this one, for the ghosts that
            // were synced before it.
            if let Err(error) = self.reconcile_those_at_work().await {
                tracing::warn!(%error, "ghosts could not be synced after a gap; they are synced later");
            }
        }
    }

    /// Does what acts of an admin have left to be done, and sets up ghosts that could not be set up
    /// when their handles were claimed, until the service stops.
    pub(in crate::engine) async fn keep_making_ghosts(&self) {
        let mut stop = self.0.stop.subscribe();
        loop {
            // First: they are told of a handle before they are told what became of its ghost.
            if let Err(error) = self.tell_owed().await {
                tracing::error!(%error, "what people are to be told cannot be read");
            }
            if let Err(error) = self.carry_out_owed().await {
                tracing::warn!(%error, "ghosts could not be set up; they are tried again");
            }
            if let Err(error) = self.tell_owed().await {
                tracing::error!(%error, "what people are to be told cannot be read");
            }
            tokio::select! {
                () = clock::sleep(OWED_EVERY) => {}
                () = self.0.owed_noted.notified() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Syncs every ghost from time to time, at a set rate, until the service stops.
    pub(in crate::engine) async fn keep_reconciling(&self) {
        let mut stop = self.0.stop.subscribe();
        let rate = self.0.settings.reconcile_per_second.max(1);
        let pause = Duration::from_secs(1) / rate;
        loop {
            // First, since the round after it takes long where there are many ghosts.
            if let Err(error) = self.publish_lost_keys().await {
                tracing::error!(%error, "lost keys cannot be looked for");
            }
            let began = (self.now(), Instant::now());
            match self.reconcile_all(pause).await {
                Ok(_) if self.stopping() => return,
                Ok(round) => round.measure(began.0, began.1.elapsed()),
                Err(error) => tracing::warn!(%error, "reconciling failed; it goes on later"),
            }
            if let Err(error) = self.forget_old_arrivals().await {
                tracing::error!(%error, "old arrivals cannot be forgotten");
            }
            if let Err(error) = self.forget_old_copies() {
                tracing::error!(%error, "old copies cannot be forgotten");
            }
            if let Err(error) = self.sweep_control_rooms().await {
                tracing::error!(%error, "control rooms cannot be looked through");
            }
            if let Err(error) = self.sweep().await {
                tracing::error!(%error, "expired records cannot be deleted");
            }
            tokio::select! {
                () = clock::sleep(self.0.settings.reconcile_every) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.renew_stamp_in_operation().await;
        }
    }

    /// Syncs ghosts with open work first, then the bot, then the others.
    pub(in crate::engine) async fn reconcile_all(
        &self,
        pause: Duration,
    ) -> Result<ReconciliationRound, EngineError> {
        let began = self.next();
        let bot = &self.0.settings.bot;
        let order = order_of_round(self.ghosts_at_work()?, bot, self.machines().ghosts()?);
        let mut round = ReconciliationRound::default();
        for ghost in order {
            if self.stopping() {
                return Ok(round);
            }
            let reconciled = match self.sync_unless_since(&ghost, began).await {
                Ok(_) => self.compare_rooms(&ghost).await,
                Err(error) => Err(error),
            };
            round.asked += 1;
            if let Err(error) = reconciled {
                round.failed += 1;
                tracing::warn!(%ghost, %error, "a ghost could not be reconciled");
            }
            self.process_to_device_of(&ghost).await;
            clock::sleep(pause).await;
        }
        Ok(round)
    }

    /// Compares the rooms that one of our users is in with those in which it has something to do: tells
    /// those that the homeserver lost, and lets a ghost leave those in which it has nothing to do,
    /// whatever the reason.
    pub(in crate::engine) async fn compare_rooms(
        &self,
        ghost: &OwnedUserId,
    ) -> Result<(), EngineError> {
        let acting = self.as_user(ghost)?;
        let expected = self.rooms_expected_of(ghost)?;
        let rooms = {
            // A portal that the ghost is making is not recorded yet.
            let _nothing_is_made = self.0.creating.lock(Ghost::new(ghost.clone())).await;
            self.homeserver().joined_rooms(acting.actor()).await?
        };
        self.note_lost_rooms(ghost, expected, &rooms).await?;
        if *ghost == self.0.settings.bot {
            return Ok(());
        }
        for room in rooms {
            if self
                .store()
                .contains::<ActiveRoomsByGhost>(&(ghost.clone(), room.clone()))?
            {
                continue;
            }
            tracing::warn!(%ghost, %room, "a ghost leaves a room in which it has nothing to do");
            match self.leave(ghost, &room, None, None).await {
                Ok(()) => self.forget_room(ghost, &room).await?,
                // One room that is broken keeps the ghost in no other.
                Err(error) if !error.is_transient() => {
                    tracing::warn!(%ghost, %room, %error, "a ghost cannot leave a room");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Syncs the ghosts with open work that were not synced since events may last have been lost.
    pub(in crate::engine) async fn reconcile_those_at_work(&self) -> Result<(), EngineError> {
        let pause = Duration::from_secs(1) / self.0.settings.reconcile_per_second.max(1);
        for round in 0..ROUNDS {
            let mut has_failed = false;
            for ghost in self.ghosts_at_work()? {
                if self.stopping() {
                    return Ok(());
                }
                let gap = self.0.last_gap_at.load(Ordering::Acquire);
                match self.sync_unless_since(&ghost, gap).await {
                    Ok(false) => continue,
                    Ok(true) => {}
                    Err(error) => {
                        tracing::warn!(%ghost, %error, "a ghost could not be reconciled");
                        has_failed = true;
                    }
                }
                self.process_to_device_of(&ghost).await;
                clock::sleep(pause).await;
            }
            if !has_failed {
                break;
            }
            clock::sleep(SETTLE * 2_u32.pow(round)).await;
        }
        Ok(())
    }

    /// Syncs a ghost unless another task has synced it since a moment. Returns whether it did.
    async fn sync_unless_since(
        &self,
        ghost: &OwnedUserId,
        moment: u64,
    ) -> Result<bool, EngineError> {
        if self.0.last_syncs.are_after(ghost, moment) {
            return Ok(false);
        }
        self.sync_all_pending(ghost).await?;
        Ok(true)
    }

    /// Returns the ghosts, and perhaps the bot, that have something to do in a room.
    fn ghosts_at_work(&self) -> Result<Vec<OwnedUserId>, EngineError> {
        let mut ghosts = Vec::new();
        for page in self.store().pages::<ActiveRoomsByGhost>(&[]) {
            for ((ghost, _), ()) in page? {
                if ghosts.last() != Some(&ghost) {
                    ghosts.push(ghost);
                }
            }
        }
        Ok(ghosts)
    }
}

/// What came of a round in which every ghost was to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct ReconciliationRound {
    /// The number of users that asked, or tried to.
    asked: u64,
    /// The number of those that could not.
    failed: u64,
}

impl ReconciliationRound {
    /// Sets the metrics of a round that began at this time. One in which nobody could ask counts for
    /// none: nothing that was missed has come with it.
    fn measure(self, began: Timestamp, took: Duration) {
        RECONCILIATION_FAILURES.set([], self.failed);
        if self.failed < self.asked {
            RECONCILED.set([], began.0 / 1000);
            RECONCILIATION_TIME.set([], took.as_secs());
        }
    }
}

/// Returns the users in the order in which a round syncs them: those with open work, the bot, the
/// others.
fn order_of_round(
    mut at_work: Vec<OwnedUserId>,
    bot: &OwnedUserId,
    mut all: Vec<OwnedUserId>,
) -> Vec<OwnedUserId> {
    if !at_work.contains(bot) {
        at_work.push(bot.clone());
    }
    let first: HashSet<&OwnedUserId> = at_work.iter().collect();
    all.retain(|user| !first.contains(user));
    at_work.extend(all);
    at_work
}

#[cfg(test)]
mod tests {
    use ruma::{OwnedRoomId, owned_user_id};

    use super::*;
    use crate::{store::Batch, testing};

    #[test]
    fn a_round_of_many_ghosts_is_put_in_order_at_once() {
        let bot = owned_user_id!("@_dm_.bot:hs.test");
        let ghost = |n: u32| OwnedUserId::try_from(format!("@_dm_g{n}:hs.test")).unwrap();
        let at_work: Vec<_> = (0..50_000).rev().map(ghost).collect();
        let all: Vec<_> = (0..50_001).map(ghost).chain([bot.clone()]).collect();
        // Compared with each other one by one they would take minutes.
        let order = order_of_round(at_work.clone(), &bot, all);
        assert_eq!(order.len(), 50_002);
        assert_eq!(order[..50_000], at_work);
        assert_eq!(order[50_000..], [bot, ghost(50_000)]);
    }

    #[tokio::test]
    async fn no_number_of_rooms_hides_the_ghosts_behind_them() {
        let built = testing::engine().build().await;
        let (busy, last) = (
            owned_user_id!("@_dm_busy:hs.test"),
            owned_user_id!("@_dm_last:hs.test"),
        );
        let mut batch = Batch::new();
        for n in 0..10_001 {
            let room = OwnedRoomId::try_from(format!("!r{n}:hs.test")).unwrap();
            let key = (busy.clone(), room);
            batch.put::<ActiveRoomsByGhost>(&key, &()).unwrap();
        }
        let room = OwnedRoomId::try_from("!last:hs.test").unwrap();
        let key = (last.clone(), room);
        batch.put::<ActiveRoomsByGhost>(&key, &()).unwrap();
        built.store.apply(batch).unwrap();
        assert_eq!(built.engine.ghosts_at_work().unwrap(), [busy, last]);
    }
}
