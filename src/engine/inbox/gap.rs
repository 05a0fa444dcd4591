//! Keeps the order of a conversation's events where some may have been lost.
//!
//! If the homeserver loses an event, a ghost's `/sync` brings it later, which is early enough while
//! a ghost introduces. A conversation promises an order, so after a possible gap its room's history
//! is read up to the next event before anything more is forwarded from there. The same happens where
//! people talk with the bot, and where a ghost waits for days.
//!
//! The other gap is between two homeservers. After a cut the other one sends its newest event, ours
//! fetches a few before it and pushes those. The older ones it fetches only when somebody reads the
//! history, and no sync mentions them. What was sent during the cut arrives late.
//!
//! This file detects possible gaps. `actors::backfill` reads the history there, and `inbox::sync`
//! reads the history that a limited sync left out.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use ruma::{OwnedRoomId, RoomId, UserId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    clock::Timestamp,
    engine::{Engine, EngineError, event::RoomEvent, records::Rooms},
    matrix::bounds::{DeadLetter, DeadLetterReason},
    store::{Batch, StoreError},
};

/// Maximum number of rooms whose last check is remembered. Beyond it, all rooms are checked again.
const ROOMS: usize = 10_000;
/// How long the homeserver may take for gaps in a room within [`LATELY`]. A server that holds its
/// history back holds up the room no longer.
pub(in crate::engine) const GAP_TIME: Duration = Duration::from_secs(60);
/// How long it may take for a gap when that time is used up.
const SHORT_GAP_TIME: Duration = Duration::from_secs(3);
/// How long no gap before an event of a server is read in a room after one could not be read there,
/// and how long a reading counts.
const LATELY: Duration = Duration::from_secs(10 * 60);
/// Maximum number of pages that are read back for one gap: enough for all that a homeserver may
/// have queued before it went down, while memory stays bounded.
pub(in crate::engine) const BACKFILL_PAGES_MAX: usize = 300;

/// How long gaps in a room were read.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct GapReadings {
    since: Timestamp,
    spent: Duration,
}

impl GapReadings {
    fn is_recent(self, now: Timestamp) -> bool {
        self.since <= now && now.since(self.since) < LATELY
    }
}

impl Engine {
    /// Notes that events may have been lost. Rooms backfill before they go on, and ghosts with open
    /// work sync soon, because the lost event may have been the last one.
    pub(in crate::engine) fn note_possible_gap(&self) {
        // Who left in a lost event must not get the next key.
        self.0.room_states.mark_all_outdated();
        self.0.gap_epoch.fetch_add(1, Ordering::AcqRel);
        let now = self.next();
        self.0.last_gap_at.fetch_max(now, Ordering::AcqRel);
        if self.0.started.load(Ordering::Acquire) {
            self.0.gap_noted.notify_one();
        }
    }
}

impl Engine {
    /// Returns whether the history before an event has to be read: somebody reads here whatever is
    /// written, and the event is the first in the room since events may have been lost, or others
    /// of its server may be missing before it.
    pub(in crate::engine) fn is_after_gap(&self, event: &RoomEvent) -> Result<bool, StoreError> {
        // Both learn from each event.
        let is_first = self.is_first_since_gap(&event.room);
        if !self.may_hide_others(event) && !is_first {
            return Ok(false);
        }
        let record = self.store().get::<Rooms>(&event.room)?.unwrap_or_default();
        Ok(record.history_reader(&self.settings().bot).is_some())
    }

    /// Returns whether an event of another server comes late, or after a silence of its server. The
    /// server chooses its time; a wrong one costs a look at the history.
    fn may_hide_others(&self, event: &RoomEvent) -> bool {
        let server = event.sender.server_name();
        if server == self.settings().server_name {
            return false;
        }
        let now = self.now();
        let sent_at = event.sent_at.unwrap_or(now - event.age);
        let clocks = self.0.server_clocks.lock();
        let mut clocks = clocks.unwrap_or_else(PoisonError::into_inner);
        clocks.hear(server, &event.room, sent_at, now)
    }

    /// Returns whether a room was not checked since events may have been lost, and notes that it is
    /// checked now.
    fn is_first_since_gap(&self, room: &OwnedRoomId) -> bool {
        let epoch = self.0.gap_epoch.load(Ordering::Acquire);
        let checked = self.0.gap_checked_at.lock();
        let mut checked = checked.unwrap_or_else(PoisonError::into_inner);
        if checked.get(room) == Some(&epoch) {
            return false;
        }
        if checked.len() >= ROOMS {
            checked.clear();
        }
        checked.insert(room.clone(), epoch);
        true
    }
}

impl Engine {
    /// Returns whether the gap before another event of its sender's server could not be read in this
    /// room a short while ago: the event is then handled without what may be missing before it.
    pub(in crate::engine) fn gap_failed_lately(&self, room: &OwnedRoomId, sender: &UserId) -> bool {
        let failed = self.0.gap_failed_at.lock();
        let failed = failed.unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        let last = failed.get(&(room.clone(), sender.server_name().to_owned()));
        last.is_some_and(|at| *at <= now && now.since(*at) < LATELY)
    }

    /// Lets the next event in a room count as the first since events may have been lost.
    pub(in crate::engine) fn check_gap_again(&self, room: &RoomId) {
        let checked = self.0.gap_checked_at.lock();
        checked.unwrap_or_else(PoisonError::into_inner).remove(room);
    }

    /// Returns how long the homeserver may take for a gap in a room now.
    pub(in crate::engine) fn gap_time(&self, room: &RoomId) -> Duration {
        let readings = self.0.gap_readings.lock();
        let readings = readings.unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        let spent = readings.get(room).filter(|it| it.is_recent(now));
        let left = GAP_TIME.saturating_sub(spent.map_or(Duration::ZERO, |it| it.spent));
        left.max(SHORT_GAP_TIME)
    }

    /// Notes how long the homeserver took for a gap in a room.
    pub(in crate::engine) fn note_gap_time(&self, room: &OwnedRoomId, took: Duration) {
        let readings = self.0.gap_readings.lock();
        let mut readings = readings.unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        readings.retain(|_, it| it.is_recent(now));
        if readings.len() >= ROOMS {
            readings.clear();
        }
        let first = GapReadings {
            since: now,
            spent: Duration::ZERO,
        };
        readings.entry(room.clone()).or_insert(first).spent += took;
    }

    /// Notes that the gap before an event could not be read, and counts it.
    pub(in crate::engine) async fn note_failed_gap(
        &self,
        room: &OwnedRoomId,
        sender: &UserId,
    ) -> Result<(), EngineError> {
        let now = self.now();
        {
            let failed = self.0.gap_failed_at.lock();
            let mut failed = failed.unwrap_or_else(PoisonError::into_inner);
            if failed.len() >= ROOMS {
                failed.retain(|_, at| now.since(*at) < LATELY);
            }
            if failed.len() >= ROOMS {
                failed.clear();
            }
            failed.insert((room.clone(), sender.server_name().to_owned()), now);
        }
        self.check_gap_again(room);
        let letter = DeadLetter {
            reason: DeadLetterReason::GapUnreadable,
            room: Some(room.clone()),
            user: Some(sender.to_owned()),
            event_type: None,
            size: 0,
        };
        Ok(self.note_dead_letters(&[letter], Batch::new()).await?)
    }
}

/// Returns whether this event invites a ghost into a room, or joins it without an invite.
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
        // An accepted invite, or a change of the display name.
        Some("join") => !was("invite") && !was("join"),
        _ => false,
    }
}
