//! Syncs every ghost from time to time, and ghosts with open work whenever events may have been
//! lost.

use std::{collections::HashSet, time::Duration};

use ruma::OwnedUserId;

use crate::{
    clock,
    engine::{Engine, EngineError, records::ActiveRoomsByGhost},
    ids::Ghost,
};

/// Maximum number of rounds in which ghosts are tried again that could not be synced.
pub(in crate::engine) const ROUNDS: u32 = 6;

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
            // In a task: the next gap does not wait until all these ghosts are synced.
            let engine = self.clone();
            self.spawn(async move {
                if let Err(error) = engine.reconcile_those_at_work().await {
                    tracing::warn!(%error, "ghosts could not be synced after a gap; they are synced later");
                }
            });
        }
    }

    /// Syncs every ghost from time to time, at a set rate, until the service stops.
    pub(in crate::engine) async fn keep_reconciling(&self) {
        let mut stop = self.0.stop.subscribe();
        let rate = self.0.settings.reconcile_per_second.max(1);
        let pause = Duration::from_secs(1) / rate;
        loop {
            if let Err(error) = self.reconcile_all(pause).await {
                tracing::warn!(%error, "reconciling failed; it goes on later");
            }
            if let Err(error) = self.forget_old_arrivals().await {
                tracing::error!(%error, "old arrivals cannot be forgotten");
            }
            if let Err(error) = self.forget_old_copies().await {
                tracing::error!(%error, "old copies cannot be forgotten");
            }
            if let Err(error) = self.sweep().await {
                tracing::error!(%error, "expired records cannot be deleted");
            }
            tokio::select! {
                () = clock::sleep(self.0.settings.reconcile_every) => {}
                _ = stop.changed() => return,
            }
        }
    }

    /// Syncs ghosts with open work first, then the bot, then the others.
    pub(in crate::engine) async fn reconcile_all(
        &self,
        pause: Duration,
    ) -> Result<(), EngineError> {
        let mut first = Vec::new();
        for ((ghost, _), ()) in self.store().scan::<ActiveRoomsByGhost>(&[], None, 10_000)? {
            first.push(ghost);
        }
        first.push(self.0.settings.bot.clone());
        first.dedup();
        let mut others: Vec<OwnedUserId> = self.machines().ghosts()?;
        let known: HashSet<OwnedUserId> = first.iter().cloned().collect();
        others.retain(|ghost| !known.contains(ghost));
        for ghost in first.into_iter().chain(others) {
            if self.stopping() {
                return Ok(());
            }
            let reconciled = match self.sync_all_pending(&ghost).await {
                Ok(()) => self.leave_forgotten_rooms(&ghost).await,
                error => error,
            };
            if let Err(error) = reconciled {
                tracing::warn!(%ghost, %error, "a ghost could not be reconciled");
            }
            self.process_to_device_of(&ghost).await;
            clock::sleep(pause).await;
        }
        Ok(())
    }

    /// Lets a ghost leave the rooms in which it has nothing to do, whatever the reason.
    pub(in crate::engine) async fn leave_forgotten_rooms(
        &self,
        ghost: &OwnedUserId,
    ) -> Result<(), EngineError> {
        if *ghost == self.0.settings.bot {
            return Ok(());
        }
        let acting = self.as_user(ghost)?;
        let rooms = {
            // A portal that the ghost is making is not recorded yet.
            let _nothing_is_made = self.0.creating.lock(Ghost::new(ghost.clone())).await;
            self.homeserver().joined_rooms(acting.actor()).await?
        };
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

    pub(in crate::engine) async fn reconcile_those_at_work(&self) -> Result<(), EngineError> {
        let mut ghosts = Vec::new();
        for ((ghost, _), ()) in self.store().scan::<ActiveRoomsByGhost>(&[], None, 10_000)? {
            if ghosts.last() != Some(&ghost) {
                ghosts.push(ghost);
            }
        }
        let pause = Duration::from_secs(1) / self.0.settings.reconcile_per_second.max(1);
        for round in 0..ROUNDS {
            let mut failed = Vec::new();
            for ghost in ghosts {
                if self.stopping() {
                    return Ok(());
                }
                let synced = self.sync_all_pending(&ghost).await;
                self.process_to_device_of(&ghost).await;
                if let Err(error) = synced {
                    tracing::warn!(%ghost, %error, "a ghost could not be reconciled");
                    failed.push(ghost);
                }
                clock::sleep(pause).await;
            }
            if failed.is_empty() {
                break;
            }
            ghosts = failed;
            clock::sleep(SETTLE * 2_u32.pow(round)).await;
        }
        Ok(())
    }
}
