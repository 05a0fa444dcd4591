//! Reads a room's history: the events between the last one that was handled and the next one, and
//! those from before a ghost or the bot joined.

use std::time::Duration;

use ruma::OwnedUserId;
use tokio::time::{Instant, timeout};

use crate::{
    engine::{
        EngineError,
        control_room::ControlEffect,
        event::RoomEvent,
        history::{HistoryEvent, PAGE_EVENTS},
        inbox::{
            gap::{BACKFILL_PAGES_MAX, begins_for},
            sync::GAP_BYTES,
        },
        records::QueuedEffect,
        room::Room,
    },
    ids::Ghost,
    introduction::{Effect, Phase},
    matrix::{Fate, bounds::DeadLetterReason},
    store::{Batch, StoreError},
};

/// Maximum number of events that are read back when the bot joins a room.
const READ_BACK: u32 = 30;

/// What was missed before an event.
pub(in crate::engine) struct MissedEvents {
    /// Our user who sees the history.
    user: OwnedUserId,
    /// In the room's order.
    missed: Vec<HistoryEvent>,
    /// Where the events after it begin.
    behind: Option<String>,
    /// Whether the oldest of them could not be read.
    pub(in crate::engine) is_partial: bool,
}

impl Room {
    /// Reads the history between the last event that was handled here and `this`. Everything before
    /// it in the inbox has been handled by now. Returns `None` if nobody of ours can see it.
    pub(in crate::engine) async fn read_gap_before(
        &self,
        this: &RoomEvent,
    ) -> Result<Option<MissedEvents>, EngineError> {
        let Some(user) = self.record.history_reader(&self.engine.settings().bot) else {
            return Ok(None);
        };
        let acting = self.engine.as_user(&user)?;
        let homeserver = self.engine.homeserver();
        let around = homeserver.context(acting.actor(), &self.id, &this.id, 0);
        let (limit, began) = (self.engine.gap_time(&self.id), Instant::now());
        let around = timeout(limit, around).await;
        let around = around.map_err(|_elapsed| {
            self.engine.note_gap_time(&self.id, limit);
            EngineError::HistoryTooSlow
        });
        let (before, behind) = match around? {
            Ok(around) => (around.start, around.end),
            // Our user may see neither this event nor those before it. Only the homeserver can say
            // so: what a proxy answers is tried again.
            Err(error) if error.fate() == Fate::Final => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let limit = limit.saturating_sub(began.elapsed());
        let missed = self.missed_before(&user, this, before, limit).await;
        self.engine.note_gap_time(&self.id, began.elapsed());
        let (newest_first, is_partial) = missed?;
        Ok(Some(MissedEvents {
            missed: newest_first.into_iter().rev().collect(),
            user,
            behind,
            is_partial,
        }))
    }

    /// Handles, in the room's order, what was missed before `this`, then `this`, then what comes after
    /// it. If an earlier event of its sender has to be left to the inbox, `this` is left there too,
    /// behind it.
    pub(in crate::engine) async fn handle_gap(
        &mut self,
        gap: MissedEvents,
        this: RoomEvent,
        json: &str,
    ) -> Result<(), EngineError> {
        let mut left = Vec::new();
        let handled = self.handle_events(gap, this, json, &mut left).await;
        // Until this is written, a crash leads to the same reading again.
        self.engine.leave_to_inbox(&self.id, &left).await?;
        if !left.is_empty() {
            self.left_until = self.engine.next();
        }
        handled
    }

    async fn handle_events(
        &mut self,
        gap: MissedEvents,
        this: RoomEvent,
        json: &str,
        left: &mut Vec<HistoryEvent>,
    ) -> Result<(), EngineError> {
        self.handle_all(gap.missed, None, left).await?;
        if left.iter().any(|earlier| earlier.sender == this.sender) {
            return Ok(());
        }
        self.handle_event(this, json, Batch::new()).await?;
        let until = self.engine.next();
        match self.handle_behind(&gap.user, gap.behind, left).await {
            Ok(()) => self.read_until = until,
            Err(error) if error.fate() == Fate::Away => return Err(error),
            // The homeserver pushes them.
            Err(error) => {
                tracing::warn!(room = %self.id, %error, "the events behind a gap could not be read");
            }
        }
        Ok(())
    }

    /// Returns whether an event in the inbox was handled when the history was last read: of the
    /// events that come late after a cut, only the first needs a reading.
    pub(in crate::engine) fn was_read(
        &self,
        number: u64,
        event: &RoomEvent,
    ) -> Result<bool, StoreError> {
        if number >= self.read_until {
            return Ok(false);
        }
        let seen = self.engine.seen(&event.id)?;
        Ok(seen.is_some_and(|seen| seen.handled))
    }

    /// Returns the events before `this` that were not handled, the newest first, and whether the
    /// oldest could not be read within this time.
    async fn missed_before(
        &self,
        user: &OwnedUserId,
        this: &RoomEvent,
        from: Option<String>,
        limit: Duration,
    ) -> Result<(Vec<HistoryEvent>, bool), EngineError> {
        if from.is_none() {
            return Ok((Vec::new(), false));
        }
        let engine = &self.engine;
        let acting = engine.as_user(user)?;
        let history = engine.history(acting.actor(), &self.id).at(from);
        let history = history.limit(BACKFILL_PAGES_MAX, PAGE_EVENTS);
        let mut history = history.with_retries().within(limit);
        let (mut newest_first, mut bytes) = (Vec::new(), 0);
        loop {
            let page = match history.next_page().await {
                // What was read is the newest of it.
                Err(error) if bytes > 0 && error.fate() == Fate::Failing => {
                    if engine.homeserver_is_down().await {
                        return Err(error);
                    }
                    return Ok((newest_first, true));
                }
                page => page?,
            };
            let Some(page) = page else { break };
            bytes += page.iter().map(|it| it.get().len()).sum::<usize>();
            if bytes > GAP_BYTES {
                let (reason, room) = (DeadLetterReason::GapTooLarge, &self.id);
                engine.note_gap(reason, user, room, bytes).await?;
                break;
            }
            let (mut handled, missed) = (false, newest_first.len());
            for json in page {
                // Events from before our user was invited are not meant for it.
                if begins_for(user, &json) {
                    return Ok((newest_first, false));
                }
                // Messages of our own users are known, and their memberships are never lost.
                let event = RoomEvent::parse(json.get(), Some(&self.id));
                let Some(event) =
                    event.filter(|it| !engine.is_ours(&it.sender) && it.id != this.id)
                else {
                    continue;
                };
                // Its sender may have given it a false time, which must not hide what is behind it.
                let is_old = engine.may_be_forgotten(&event);
                if is_old || self.is_handled(&event)? {
                    // After a cut between servers, what people of others have said meanwhile stands
                    // among what was missed. So does what a reading has left: it is handled first.
                    let is_of_server = event.sender.server_name() == this.sender.server_name();
                    if is_of_server && !is_old && self.left_until == 0 {
                        return Ok((newest_first, false));
                    }
                    handled = true;
                    continue;
                }
                newest_first.push(HistoryEvent::of(event, json));
            }
            if handled && missed == newest_first.len() {
                break;
            }
        }
        Ok((newest_first, false))
    }

    fn is_handled(&self, event: &RoomEvent) -> Result<bool, StoreError> {
        let seen = self.engine.seen(&event.id)?;
        Ok(seen.is_some_and(|seen| seen.handled) || self.engine.has_copies(&self.id, &event.id)?)
    }

    /// Handles the events after a gap: the homeserver repeats a transaction that failed, and the
    /// events that were lost come after it.
    async fn handle_behind(
        &mut self,
        user: &OwnedUserId,
        from: Option<String>,
        left: &mut Vec<HistoryEvent>,
    ) -> Result<(), EngineError> {
        let Some(from) = from else { return Ok(()) };
        let (engine, room) = (self.engine.clone(), self.id.clone());
        let acting = engine.as_user(user)?;
        let history = engine.history(acting.actor(), &room).forward_from(from);
        let mut history = history
            .limit(BACKFILL_PAGES_MAX, PAGE_EVENTS)
            .with_retries()
            .within(engine.gap_time(&self.id));
        while let Some(page) = history.next_page().await? {
            let mut unknown = Vec::new();
            for json in page {
                let event = RoomEvent::parse(json.get(), Some(&self.id));
                if let Some(event) = event.filter(|event| !engine.is_ours(&event.sender))
                    && !self.may_be_known(&event)?
                {
                    unknown.push(HistoryEvent::of(event, json));
                }
            }
            self.handle_all(unknown, None, left).await?;
        }
        Ok(())
    }

    /// Returns whether the event may have been handled: its arrival may be forgotten, or it has
    /// copies.
    pub(in crate::engine) fn may_be_known(&self, event: &RoomEvent) -> Result<bool, StoreError> {
        Ok(self.engine.may_be_forgotten(event) || self.engine.has_copies(&self.id, &event.id)?)
    }

    /// Reads back the events that an effect needs and that were sent before our user joined: the
    /// homeserver pushes only those after.
    pub(in crate::engine) async fn backfill_for(
        &mut self,
        what: &QueuedEffect,
    ) -> Result<(), EngineError> {
        match what {
            QueuedEffect::Introduction {
                ghost,
                effect: Effect::Look,
            } => self.hear_since_invite(ghost).await,
            QueuedEffect::Control(ControlEffect::Look) => self.look_around().await,
            _ => Ok(()),
        }
    }

    async fn hear_since_invite(&mut self, ghost: &Ghost) -> Result<(), EngineError> {
        let mut introductions = self.record.introductions.iter();
        let Some(introduction) = introductions.find(|it| it.ghost == *ghost) else {
            return Ok(());
        };
        // What our own homeserver does not hand out now is waited for by the last look: after it the
        // ghost is gone.
        let closing = introduction.phase == Phase::Closing;
        let asker = closing.then(|| introduction.invite.asker.clone());
        let read_back = self.engine.read_back(ghost, &self.id).await?;
        let mut left = Vec::new();
        let read = self.handle_all(read_back, asker.as_ref(), &mut left).await;
        self.engine.leave_to_inbox(&self.id, &left).await?;
        read
    }

    /// Handles events of a history in order. One that fails is added to `left` with those of the same
    /// sender behind it, for the inbox: it must not cost what others say. Fails if an event of
    /// `needed` is left because our own homeserver failed.
    async fn handle_all(
        &mut self,
        events: Vec<HistoryEvent>,
        needed: Option<&OwnedUserId>,
        left: &mut Vec<HistoryEvent>,
    ) -> Result<(), EngineError> {
        let mut read = Ok(());
        for missed in events {
            // A person's later events must not overtake an earlier one that is left to the inbox.
            if left.iter().any(|earlier| earlier.sender == missed.sender) {
                left.push(missed);
                continue;
            }
            let Some(event) = missed.parse(&self.id) else {
                continue;
            };
            let handled = self.handle_event(event, missed.json.get(), Batch::new());
            match handled.await {
                Ok(()) => {}
                // It is tried again from the inbox: what other people say must not wait for it.
                Err(error) if error.fate() == Fate::Failing && !error.is_outage() => {
                    tracing::info!(room = %self.id, %error, "an event is left to the inbox");
                    self.reload()?;
                    if error.is_of_own_homeserver() && needed == Some(&missed.sender) {
                        read = Err(error);
                    }
                    left.push(missed);
                }
                // It never succeeds, and must not cost what comes after it.
                Err(error) if error.fate() == Fate::Final => {
                    tracing::error!(room = %self.id, %error, "an event of the history is given up");
                    self.reload()?;
                    let Some(event) = missed.parse(&self.id) else {
                        continue;
                    };
                    let giving_up = self.give_up_event(&event, Batch::new(), Vec::new());
                    if let Err(error) = giving_up.await
                        && error.is_transient()
                    {
                        read = Err(error);
                        break;
                    }
                }
                Err(error) => {
                    read = Err(error);
                    break;
                }
            }
        }
        read
    }

    /// Checks who is in the room and reads back: the person may have written before the bot joined.
    async fn look_around(&mut self) -> Result<(), EngineError> {
        let bot = self.engine.settings().bot.clone();
        let view = self.room_state(&bot).await?;
        self.apply_room_check(&view, Batch::new()).await?;
        if !self.is_ready() {
            return Ok(());
        }
        let acting = self.engine.as_user(&bot)?;
        let history = self.engine.history(acting.actor(), &self.id);
        let newest_first = history.limit(1, READ_BACK).next_page().await?;
        for json in newest_first.unwrap_or_default().iter().rev() {
            let Some(event) = RoomEvent::parse(json.get(), Some(&self.id)) else {
                continue;
            };
            // Whether an older one was handled is no longer known.
            let known = self.engine.may_be_forgotten(&event);
            if !known && event.membership().is_none() && !self.engine.is_ours(&event.sender) {
                self.handle_event(event, json.get(), Batch::new()).await?;
            }
        }
        Ok(())
    }
}
