//! Gaps that a sync leaves in rooms: the events before a limited timeline.
//!
//! Their history may come from another server, which decides how long that takes. So it is read once
//! the sync has given its place back, within a time limit, and by one task for each ghost. Until then
//! the sync's token is not stored.

use std::time::Duration;

use futures_util::FutureExt as _;
use ruma::{OwnedRoomId, OwnedUserId};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::{Instant, timeout_at},
};

use crate::{
    engine::{Engine, EngineError, inbox::gap::GAP_TIME, records::SyncTokens},
    matrix::{Actor, JoinedRoom, bounds::DeadLetterReason},
    store::Batch,
};

/// Maximum number of pages that one reconciliation reads. The rest waits for the next one.
pub(super) const SYNC_PAGES_MAX: usize = 50;
/// How long all gaps of one sync are read at most.
const GAPS_TIME: Duration = Duration::from_secs(5 * 60);
/// Maximum size of the timelines that wait for the gaps before them, in bytes of JSON. Beyond it the
/// history is read from the room's newest event.
const WAITING_BYTES: usize = 4 << 20;

/// What is left to do of a sync.
#[derive(Default)]
pub(super) struct Synced {
    /// The number that was next when the sync began.
    pub(super) began: u64,
    /// Whether there were no to-device messages, so that nothing is left to acknowledge.
    pub(super) is_empty: bool,
    pub(super) gaps: Vec<Gap>,
    /// The size of the timelines of `gaps`, in bytes of JSON.
    pub(super) waiting_bytes: usize,
    /// The token to be stored when the gaps are read; `None` if there are none.
    pub(super) token: Option<String>,
}

/// A room's part of a sync, before which events are missing.
pub(super) struct Gap {
    room: OwnedRoomId,
    joined: JoinedRoom,
}

impl Synced {
    /// Puts a room's part aside until the gap before it is read.
    pub(super) fn wait_for_gap(&mut self, room: &OwnedRoomId, mut joined: JoinedRoom) {
        let timeline = joined.timeline.iter();
        self.waiting_bytes += timeline.map(|json| json.get().len()).sum::<usize>();
        if self.waiting_bytes > WAITING_BYTES {
            // If the history cannot be read now, the room reads it before this event.
            let newest = joined.timeline.pop();
            (joined.timeline, joined.prev_batch) = (Vec::from_iter(newest), None);
        }
        let room = room.clone();
        self.gaps.push(Gap { room, joined });
    }
}

impl Engine {
    /// Does the rest of a sync in a task of its own, unless another one is reading the ghost's gaps.
    pub(super) fn close_gaps_later(&self, ghost: &OwnedUserId, synced: Synced) {
        let turns = self.0.gap_turns.get(ghost.clone(), Mutex::default);
        let Ok(turn) = turns.try_lock_owned() else {
            return;
        };
        let (engine, ghost) = (self.clone(), ghost.clone());
        self.spawn(async move {
            let closing = engine.close_gaps_and_sync(&ghost, synced, turn);
            if let Err(error) = closing.await {
                tracing::warn!(%ghost, %error, "gaps in a ghost's rooms could not be closed");
            }
        });
    }

    /// Does the rest of a sync: reads the gaps in rooms and acknowledges it all. Then accepts what
    /// else the homeserver holds for the ghost. The caller has the ghost's turn to read gaps.
    pub(super) async fn close_gaps_and_sync(
        &self,
        ghost: &OwnedUserId,
        mut synced: Synced,
        _turn: OwnedMutexGuard<()>,
    ) -> Result<(), EngineError> {
        let Some(acting) = self.find_user(ghost)? else {
            return Ok(());
        };
        for _ in 0..SYNC_PAGES_MAX {
            let gaps = std::mem::take(&mut synced.gaps);
            self.close_gaps(ghost, acting.actor(), gaps).await?;
            if let Some(token) = &synced.token {
                let mut batch = Batch::new();
                batch.put::<SyncTokens>(ghost, token)?;
                self.store().apply(batch)?;
                self.store().flush().await?;
            }
            if synced.is_empty {
                self.0.last_syncs.note(ghost, synced.began);
                break;
            }
            let next = self.sync_once(ghost, acting.actor()).await;
            synced = self.or_restore_user(next).await?;
        }
        Ok(())
    }

    /// Accepts the events in gaps, and those behind them.
    async fn close_gaps(
        &self,
        ghost: &OwnedUserId,
        actor: Actor<'_>,
        gaps: Vec<Gap>,
    ) -> Result<(), EngineError> {
        let until = Instant::now() + GAPS_TIME;
        // One after the other, so that only one gap at a time is in memory.
        for Gap { room, joined } in gaps {
            let until = until.min(Instant::now() + GAP_TIME);
            let reading = self.read_gap(ghost, actor, &room, joined.prev_batch);
            let read = timeout_at(until, reading);
            match self.unless_stopping(read.map(Some)).await? {
                Ok(Ok(gap)) => self.accept_read_back(&room, &gap).await?,
                // A room whose history is not shown must not keep the ghost from its other items, nor
                // its token from being stored.
                Ok(Err(EngineError::Matrix(error))) => {
                    tracing::warn!(%room, %error, "a gap in a room's history could not be read");
                    self.note_gap(DeadLetterReason::GapUnreadable, ghost, &room, 0)
                        .await?;
                }
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => {
                    tracing::warn!(%room, "a gap in a room's history takes too long to be read");
                    self.note_gap(DeadLetterReason::GapUnreadable, ghost, &room, 0)
                        .await?;
                }
            }
            let mut timeline = joined.timeline;
            let mut known = Vec::with_capacity(timeline.len());
            for json in &timeline {
                known.push(self.was_forwarded_long_ago(&room, json)?);
            }
            let mut known = known.into_iter();
            timeline.retain(|_| known.next() == Some(false));
            self.accept_read_back(&room, &timeline).await?;
        }
        Ok(())
    }
}
