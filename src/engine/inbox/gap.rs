//! The order of what is said, where something may have been lost on the way.
//!
//! What the homeserver lost, a ghost's `/sync` brings later, and for an introduction that is early
//! enough. A conversation promises an order: so where a gap is possible, its room's history is read
//! up to the next event before anything more is carried from there.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use ruma::{OwnedRoomId, RoomId, UserId, api::Direction};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    engine::{
        Engine, EngineError,
        event::RoomEvent,
        inbox::sync::GAP_BYTES,
        records::{CopiesOf, OpenWork, Rooms, Seen},
        room::RoomActor,
    },
    matrix::{Actor, MatrixError, Page, bounds::DeadLetterReason},
    store::{Batch, StoreError, prefix},
};

/// Of so many rooms it is known whether anything was lost; beyond that all are looked at again.
const ROOMS: usize = 10_000;
/// How many events are read in one page.
pub(in crate::engine) const PAGE: u32 = 100;
/// How many pages at the most: all that a homeserver may have queued for us when it went down, and
/// an end to what has to be held in memory.
pub(in crate::engine) const PAGES: usize = 300;
/// How often a page is asked for: of so many that have to come one after the other some fail.
const TRIES: u32 = 5;
/// The first pause between them; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
/// How many rounds those are asked who could not be reached.
const ROUNDS: u32 = 6;
/// How long further gaps are waited for before what was lost is asked for.
const SETTLE: Duration = Duration::from_secs(1);

impl Engine {
    /// Something may have been lost. Rooms look before they go on, and ghosts with something to do
    /// ask soon, for what was lost may have been the last thing said.
    pub(in crate::engine) fn doubt(&self) {
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
        for round in 0..ROUNDS {
            let mut failed = Vec::new();
            for ghost in ghosts {
                if self.stopping() {
                    return Ok(());
                }
                let synced = self.sync_until_empty(&ghost).await;
                self.drain_for(&ghost).await;
                if let Err(error) = synced {
                    tracing::warn!(%ghost, %error, "a ghost could not be reconciled");
                    failed.push(ghost);
                }
                tokio::time::sleep(pause).await;
            }
            if failed.is_empty() {
                break;
            }
            ghosts = failed;
            tokio::time::sleep(SETTLE * 2_u32.pow(round)).await;
        }
        Ok(())
    }

    /// A page of a room's history.
    pub(in crate::engine) async fn history(
        &self,
        actor: Actor<'_>,
        room: &RoomId,
        from: Option<&str>,
        direction: Direction,
    ) -> Result<Page, MatrixError> {
        let mut tries = 0;
        loop {
            let page = self
                .homeserver()
                .messages(actor, room, from, direction, PAGE);
            match page.await {
                Err(error) if error.is_transient() && tries < TRIES && !self.stopping() => {
                    let pause = error.retry_after().unwrap_or(PAUSE * 2_u32.pow(tries));
                    tokio::time::sleep(pause.min(SETTLE * 10)).await;
                    tries += 1;
                }
                other => return other,
            }
        }
    }
}

impl Engine {
    /// Whether an event is the first of a conversation's room since something may have been lost.
    pub(in crate::engine) fn follows_a_gap(&self, room: &OwnedRoomId) -> Result<bool, StoreError> {
        let doubts = self.0.doubts.load(Ordering::Acquire);
        {
            let taken = self.0.taken_at.lock();
            let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
            if taken.get(room) == Some(&doubts) {
                return Ok(false);
            }
            if taken.len() >= ROOMS {
                taken.clear();
            }
            taken.insert(room.clone(), doubts);
        }
        let record = self.store().get::<Rooms>(room)?;
        Ok(record.is_some_and(|record| record.seat.is_some()))
    }
}

/// Whether a ghost was invited into a room by this event, or came in without that.
pub(in crate::engine) fn begins_for(ghost: &UserId, json: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Member<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        state_key: Option<&'a str>,
        content: Value,
        unsigned: Option<Value>,
    }
    let Ok(event) = serde_json::from_str::<Member<'_>>(json.get()) else {
        return false;
    };
    if event.kind != "m.room.member" || event.state_key != Some(ghost.as_str()) {
        return false;
    }
    let before = event.unsigned.as_ref();
    let before = before.map(|it| &it["prev_content"]["membership"]);
    let was = |membership| before.is_some_and(|before| before == membership);
    match event.content["membership"].as_str() {
        Some("invite") => true,
        // The answer to an invite, or another name.
        Some("join") => !was("invite") && !was("join"),
        _ => false,
    }
}

impl RoomActor {
    /// Whether an event was handled so long ago that only its copies tell of it, or nothing does.
    fn may_be_known(&self, event: &RoomEvent) -> Result<bool, StoreError> {
        let mut copies = prefix(&self.room);
        copies.extend(prefix(&event.id));
        let store = self.engine.store();
        Ok(self.engine.may_be_forgotten(event)
            || !store.scan::<CopiesOf>(&copies, None, 1)?.is_empty())
    }

    /// Takes in, in the room's order, what lies between the last thing that was handled here and
    /// this event, the event itself, and what there is behind it. What was taken in before this one
    /// has been handled by now.
    pub(in crate::engine) async fn make_sure(
        &mut self,
        this: RoomEvent,
        json: &str,
    ) -> Result<(), EngineError> {
        let before = &this.id.clone();
        let seat = self.record.seat.as_ref();
        let Some(ghost) = seat.and_then(|seat| seat.ghosts.first()).cloned() else {
            return Ok(());
        };
        let device = self.engine.device_of(&ghost)?;
        let actor = Actor::device(&ghost, &device);
        let engine = self.engine.clone();
        let around = engine
            .homeserver()
            .context(actor, &self.room, before, 0)
            .await;
        let (mut from, mut on) = match around {
            Ok(around) => (around.start, around.end),
            // Not to be seen by the ghost: neither is what lies before it.
            Err(error) if !error.is_transient() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut newest_first = Vec::new();
        let mut bytes = 0;
        'back: for _ in 0..PAGES {
            let Some(token) = from.as_deref() else { break };
            let back = Direction::Backward;
            let page = engine.history(actor, &self.room, Some(token), back).await?;
            if page.events.is_empty() {
                break;
            }
            bytes += page.events.iter().map(|it| it.get().len()).sum::<usize>();
            if bytes > GAP_BYTES {
                let (reason, room) = (DeadLetterReason::GapTooLarge, &self.room);
                engine.note_gap(reason, &ghost, room, bytes).await?;
                break;
            }
            for json in page.events {
                // What was said before it came is not for it.
                if begins_for(&ghost, &json) {
                    break 'back;
                }
                let Some(event) = RoomEvent::parse(json.get(), Some(&self.room)) else {
                    continue;
                };
                // What our own users say is known, and their coming and going is not lost.
                if self.engine.is_ours(&event.sender) || event.id == *before {
                    continue;
                }
                let seen = self.engine.store().get::<Seen>(&event.id)?;
                if seen.is_some_and(|seen| seen.handled) || self.may_be_known(&event)? {
                    break 'back;
                }
                // As text only: parsed, an event takes several times as much.
                newest_first.push(json);
            }
            from = page.end;
        }
        for json in newest_first.into_iter().rev() {
            if let Some(event) = RoomEvent::parse(json.get(), Some(&self.room)) {
                self.handle(event, json.get(), Batch::new()).await?;
            }
        }
        self.handle(this, json, Batch::new()).await?;
        // A transaction that failed comes again, and what was lost lay behind it.
        for _ in 0..PAGES {
            let Some(token) = on.as_deref() else { break };
            let forward = Direction::Forward;
            let page = engine
                .history(actor, &self.room, Some(token), forward)
                .await?;
            if page.events.is_empty() {
                break;
            }
            for json in page.events {
                let event = RoomEvent::parse(json.get(), Some(&self.room));
                if let Some(event) = event.filter(|event| !self.engine.is_ours(&event.sender)) {
                    self.handle(event, json.get(), Batch::new()).await?;
                }
            }
            on = page.end;
        }
        Ok(())
    }
}
