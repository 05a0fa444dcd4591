//! A room's history, read page by page.

use std::time::Duration;

use ruma::{OwnedRoomId, OwnedUserId, RoomId, api::Direction};
use serde_json::value::RawValue;

use crate::{
    clock,
    engine::{Engine, EngineError, event::RoomEvent},
    matrix::{Actor, MatrixError, Page},
};

/// Maximum number of events that are read in one page.
pub(in crate::engine) const PAGE: u32 = 100;

/// How often a page is asked for: of so many that have to come one after the other some fail.
pub(in crate::engine) const TRIES: u32 = 5;

/// The longest pause between them.
pub(in crate::engine) const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The first pause between them; it doubles.
pub(in crate::engine) const PAUSE: Duration = Duration::from_millis(100);

/// Maximum number of events that are read back when a ghost comes into a room.
pub(in crate::engine) const READ_BACK: u32 = 50;

/// How often.
pub(in crate::engine) const READ_BACK_PAGES: usize = 4;

impl Engine {
    /// Returns a page of a room's history.
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
                    clock::sleep(pause.min(PAUSE_MAX)).await;
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    /// Returns the newest events of a room, down to the invite of the ghost that reads them, in
    /// order.
    pub(in crate::engine) async fn read_back(
        &self,
        ghost: &OwnedUserId,
        room: &OwnedRoomId,
    ) -> Result<Vec<(RoomEvent, Box<RawValue>)>, EngineError> {
        let acting = self.as_user(ghost)?;
        let mut from: Option<String> = None;
        let mut newest_first = Vec::new();
        for _ in 0..READ_BACK_PAGES {
            let back = Direction::Backward;
            let page = self
                .homeserver()
                .messages(acting.actor(), room, from.as_deref(), back, READ_BACK)
                .await?;
            let mut reached = page.events.is_empty();
            for json in page.events {
                let Some(event) = RoomEvent::parse(json.get(), Some(room)) else {
                    continue;
                };
                let own = event.membership();
                reached |= own.is_some_and(|(user, kind)| user == *ghost && kind == "invite");
                newest_first.push((event, json));
                if reached {
                    break;
                }
            }
            from = page.end;
            if reached || from.is_none() {
                break;
            }
        }
        newest_first.reverse();
        Ok(newest_first)
    }
}
