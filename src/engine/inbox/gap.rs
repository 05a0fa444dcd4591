//! The order of what is said, where something may have been lost on the way.
//!
//! What the homeserver lost, a ghost's `/sync` brings later, and for an introduction that is early
//! enough. A conversation promises an order: so where a gap is possible, its room's history is read
//! up to the next event before anything more is forwarded from there.
//!
//! This file says where a gap is possible; `actors::backfill` reads the history there, and
//! `inbox::sync` that of a sync which left something out.

use std::sync::{PoisonError, atomic::Ordering};

use ruma::{OwnedRoomId, UserId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    engine::{Engine, records::Rooms},
    store::StoreError,
};

/// Maximum number of rooms of which it is known whether anything was lost. Beyond it all are looked at
/// again.
const ROOMS: usize = 10_000;
/// Maximum number of pages that are read back for one gap: all that a homeserver may have queued for
/// us before it went down, and an end to what is held in memory.
pub(in crate::engine) const PAGES: usize = 300;

impl Engine {
    /// Notes that something may have been lost. Rooms backfill before they go on, and ghosts with
    /// open work sync soon, since what was lost may have been the last event.
    pub(in crate::engine) fn note_possible_gap(&self) {
        self.0.gap_epoch.fetch_add(1, Ordering::AcqRel);
        if self.0.started.load(Ordering::Acquire) {
            self.0.gap_noted.notify_one();
        }
    }
}

impl Engine {
    /// Returns whether an event is the first of a conversation's room since something may have been
    /// lost.
    pub(in crate::engine) fn is_after_gap(&self, room: &OwnedRoomId) -> Result<bool, StoreError> {
        let doubts = self.0.gap_epoch.load(Ordering::Acquire);
        {
            let taken = self.0.gap_checked_at.lock();
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
        Ok(record.is_some_and(|record| record.conversation.is_some()))
    }
}

/// Returns whether a ghost was invited into a room by this event, or came in without that.
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
