//! The order of what is said, where something may have been lost on the way.
//!
//! What the homeserver lost, a ghost's `/sync` brings later, and for an introduction that is early
//! enough. A conversation promises an order: so where a gap is possible, its room's history is read
//! up to now before anything more is carried from there.

use std::{sync::atomic::Ordering, time::Duration};

use ruma::api::Direction;

use super::{
    Engine, EngineError,
    event::RoomEvent,
    room::RoomActor,
    tables::{OpenWork, Seen},
};
use crate::{matrix::Actor, store::Batch};

/// How many events are read in one page.
const PAGE: u32 = 50;
/// How many pages at the most: more than anybody writes while a homeserver restarts.
const PAGES: usize = 40;
/// How long further gaps are waited for before what was lost is asked for.
const SETTLE: Duration = Duration::from_secs(1);

impl Engine {
    /// Something may have been lost. Rooms look before they go on, and ghosts with something to do
    /// ask soon, for what was lost may have been the last thing said.
    pub(super) fn doubt(&self) {
        self.0.doubts.fetch_add(1, Ordering::AcqRel);
        if !self.0.started.load(Ordering::Acquire)
            || self.0.asking_soon.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let engine = self.clone();
        self.spawn(async move {
            let mut stop = engine.0.stop.subscribe();
            tokio::select! {
                () = tokio::time::sleep(SETTLE) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            engine.0.asking_soon.store(false, Ordering::Release);
            if let Err(error) = engine.reconcile_those_at_work().await {
                tracing::warn!(%error, "what was lost is asked for later");
            }
        });
    }

    async fn reconcile_those_at_work(&self) -> Result<(), EngineError> {
        let mut ghosts = Vec::new();
        for ((ghost, _), ()) in self.store().scan::<OpenWork>(&[], None, 10_000)? {
            if ghosts.last() != Some(&ghost) {
                ghosts.push(ghost);
            }
        }
        let pause = Duration::from_secs(1) / self.0.settings.reconcile_per_second.max(1);
        for ghost in ghosts {
            if self.stopping() {
                break;
            }
            if let Err(error) = self.sync_until_empty(&ghost).await {
                tracing::warn!(%ghost, %error, "a ghost could not be reconciled");
            }
            self.drain_to_device().await;
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }
}

impl RoomActor {
    /// Takes in, in the room's order, what lies between the last thing that was handled here and
    /// now, if anything can have been lost since this was done last.
    pub(super) async fn make_sure(&mut self) -> Result<(), EngineError> {
        let doubts = self.engine.0.doubts.load(Ordering::Acquire);
        let Some(ghost) = self
            .record
            .seat
            .as_ref()
            .and_then(|seat| seat.ghosts.first())
        else {
            return Ok(());
        };
        if self.sure_of == Some(doubts) {
            return Ok(());
        }
        let ghost = ghost.clone();
        let device = self.engine.device_of(&ghost)?;
        let actor = Actor::device(&ghost, &device);
        let mut from: Option<String> = None;
        let mut newest_first = Vec::new();
        'back: for _ in 0..PAGES {
            let back = Direction::Backward;
            let homeserver = self.engine.homeserver();
            let page = homeserver
                .messages(actor, &self.room, from.as_deref(), back, PAGE)
                .await?;
            for json in page.events {
                let Some(event) = RoomEvent::parse(json.get(), Some(&self.room)) else {
                    continue;
                };
                // What our own users say is known, and their coming and going is not lost.
                if self.engine.is_ours(&event.sender) {
                    continue;
                }
                let seen = self.engine.store().get::<Seen>(&event.id)?;
                if seen.is_some_and(|seen| seen.handled) {
                    break 'back;
                }
                newest_first.push((event, json));
            }
            from = page.end;
            if from.is_none() {
                break;
            }
        }
        for (event, json) in newest_first.into_iter().rev() {
            self.handle(event, json.get(), Batch::new()).await?;
        }
        self.sure_of = Some(doubts);
        Ok(())
    }
}
