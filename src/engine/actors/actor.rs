//! A room's actor: takes what arrives in order, has it decided, and carries out the effects.

use std::{sync::Arc, time::Duration};

use ruma::OwnedRoomId;
use tokio::sync::Notify;

use crate::{
    clock::{self, Timestamp},
    engine::{
        Engine, EngineError,
        records::{Inbox, InboxItem, Outbox, QueuedEffect},
        room::Room,
    },
    metrics::catalogue::GIVEN_UP,
    store::{Batch, prefix},
};

/// How long an idle actor stays, so that a busy room does not load its record again each time.
pub(in crate::engine) const IDLE: Duration = Duration::from_secs(30);

/// Maximum number of inbox or outbox items that are processed between two flushes.
pub(in crate::engine) const OUTBOX_BATCH_MAX: usize = 32;

/// Maximum number of effects among which those are looked for that overtake others: more than what
/// waits for all people of a conversation together.
const OVERTAKEN_MAX: usize = 12_000;

/// The actor of one room.
pub(in crate::engine) struct RoomActor {
    pub(in crate::engine) room: Room,
    notify: Arc<Notify>,
    /// How many arrivals were taken since deadlines were looked at.
    since_tick: usize,
}

impl RoomActor {
    pub(in crate::engine) fn load(
        engine: Engine,
        room: OwnedRoomId,
        notify: Arc<Notify>,
    ) -> Result<Self, EngineError> {
        let room = Room::load(engine, room)?;
        let mut actor = Self {
            room,
            notify,
            since_tick: 0,
        };
        actor.resume_outbox()?;
        Ok(actor)
    }

    /// Queues the next effect of an introduction that is under way and has none in the outbox. That
    /// should never happen; if it does, nobody waits forever.
    pub(in crate::engine) fn resume_outbox(&mut self) -> Result<(), EngineError> {
        let store = self.room.engine.store();
        if !store
            .scan::<Outbox>(&prefix(&self.room.id), None, 1)?
            .is_empty()
        {
            return Ok(());
        }
        let mut effects = Vec::new();
        for introduction in &self.room.record.introductions {
            let ghost = &introduction.ghost;
            effects.extend(introduction.under_way().into_iter().map(|effect| {
                QueuedEffect::Introduction {
                    ghost: ghost.clone(),
                    effect,
                }
            }));
        }
        if effects.is_empty() {
            return Ok(());
        }
        self.room.commit(Batch::new(), effects)
    }

    pub(in crate::engine) async fn run(mut self) -> Result<(), EngineError> {
        let mut stop = self.room.engine.0.stop.subscribe();
        loop {
            if *stop.borrow() {
                return Err(EngineError::Stopping);
            }
            let progress = self.room.engine.clone();
            let at_work = progress.0.progress.works();
            let stepped = self.step().await;
            drop(at_work);
            match stepped {
                Ok(true) => {
                    self.room.failures = 0;
                    self.room.failing = None;
                }
                Ok(false) => {
                    let pause = self.until_wake();
                    let idle = pause.is_none();
                    tokio::select! {
                        () = self.notify.notified() => {}
                        () = clock::sleep(pause.unwrap_or(IDLE)) => {
                            if idle && self.room.engine.retire_actor(&self.room.id)? {
                                return Ok(());
                            }
                        }
                        _ = stop.changed() => {}
                    }
                }
                Err(error) => {
                    let pause = self.room.pause_after(&error);
                    // Changes that were decided but not written have not happened. An actor that
                    // waits for a slow server gives up its place, so that other introductions can
                    // go on.
                    self.room.reload()?;
                    self.room.place = None;
                    tracing::warn!(room = %self.room.id, %error, ?pause, "a room pauses and will try again");
                    // A room key or another room of the conversation may come at any moment; only
                    // these two cut the pause short.
                    let key = matches!(
                        error,
                        EngineError::KeyOnItsWay
                            | EngineError::KeyUnlikely
                            | EngineError::NotThereYet
                    );
                    tokio::select! {
                        () = clock::sleep(pause) => {}
                        () = self.notify.notified(), if key => {}
                        _ = stop.changed() => {}
                    }
                }
            }
        }
    }

    /// Carries out queued effects, or else takes the next arrivals, or else acts on the deadlines.
    /// What has arrived comes first, so that a message that came in time is read in time; but a
    /// flood of arrivals does not keep the deadlines. Returns `false` if there is nothing to do.
    pub(in crate::engine) async fn step(&mut self) -> Result<bool, EngineError> {
        let engine = self.room.engine.clone();
        let store = engine.store();
        let looked_at = if self.room.lanes.is_empty() {
            OUTBOX_BATCH_MAX
        } else {
            OVERTAKEN_MAX
        };
        let queued = store.scan::<Outbox>(&prefix(&self.room.id), None, looked_at)?;
        let lanes = &mut self.room.lanes;
        let due = lanes.due(queued, engine.now(), OUTBOX_BATCH_MAX);
        if !due.is_empty() {
            self.room.carry_out_all(due).await?;
            return Ok(true);
        }
        if self.since_tick >= OUTBOX_BATCH_MAX && self.tick().await? {
            return Ok(true);
        }
        let together = if self.room.handles_batches() {
            OUTBOX_BATCH_MAX
        } else {
            1
        };
        let mut arrived = store.scan::<Inbox>(&prefix(&self.room.id), None, together)?;
        let is_sure = |((_, number), arrived): &((OwnedRoomId, u64), InboxItem)| {
            let event = matches!(arrived, InboxItem::Event(_) | InboxItem::AfterGap(_));
            !event || engine.is_durable(*number)
        };
        arrived.truncate(arrived.iter().take_while(|it| is_sure(it)).count());
        self.since_tick += arrived.len();
        if together > 1 && self.room.handle_messages(&arrived).await? {
            return Ok(true);
        }
        if let Some(((_, number), arrived)) = arrived.into_iter().next() {
            let given = arrived.clone();
            let dispatched = self.room.dispatch(number, arrived).await;
            let Err(error) = dispatched else {
                return Ok(true);
            };
            engine.restore_missing_user(&error).await;
            let error = engine.unless_outage(error).await;
            let retry = self.room.retry_of_arrival(&given, &error);
            if self.room.retries(number, retry, &error) {
                return Err(error);
            }
            tracing::error!(room = %self.room.id, %error, "an inbox item is given up");
            self.room.give_up(number, given).await?;
            GIVEN_UP.count([]);
            return Ok(true);
        }
        self.tick().await
    }

    pub(in crate::engine) async fn tick(&mut self) -> Result<bool, EngineError> {
        self.since_tick = 0;
        let due = self.wake().is_some_and(|at| at <= self.room.engine.now());
        if due {
            self.room.tick_introductions()?;
            self.room.wait_during_outage().await;
            self.room.tick_control()?;
            self.room.tick_calls().await?;
        }
        Ok(due)
    }

    pub(in crate::engine) fn wake(&self) -> Option<Timestamp> {
        let introductions = self.room.record.introductions.iter();
        let deadlines = introductions
            .filter_map(|introduction| introduction.deadline(&self.room.engine.0.settings.rules));
        deadlines
            .chain(
                self.room
                    .record
                    .control
                    .as_ref()
                    .and_then(|control| control.wake()),
            )
            .chain(self.room.engine.calls().next(&self.room.id))
            .min()
    }

    pub(in crate::engine) fn until_wake(&self) -> Option<Duration> {
        let now = self.room.engine.now();
        let lanes = self.room.lanes.next(now);
        let wake = self.wake().into_iter().chain(lanes).min();
        wake.map(|at| at.since(now).min(Duration::from_secs(3600)))
    }
}
