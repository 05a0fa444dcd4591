//! A room's history, read page by page.

use std::time::Duration;

use futures_util::FutureExt as _;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, api::Direction};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use crate::{
    clock,
    engine::{Engine, EngineError, event::RoomEvent},
    ids::Ghost,
    matrix::{Actor, Page},
};

/// Maximum number of events in a page.
pub(in crate::engine) const PAGE_EVENTS: u32 = 100;

/// How often a long reading requests a page again: of many pages that follow one another, some fail.
const RETRIES: u32 = 5;

/// The first pause before a page is requested again. It doubles each time.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause before a page is requested again.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Maximum number of events in a page that is read back when a ghost joins a room.
const READ_BACK: u32 = 50;

/// Maximum number of pages that are read back when a ghost joins a room.
const READ_BACK_PAGES: usize = 4;

/// An event of a room's history. Its content stays as text until its turn comes: parsed, it can take
/// tens of times as much, and histories are long.
#[derive(Clone, Debug)]
pub(in crate::engine) struct HistoryEvent {
    pub id: OwnedEventId,
    pub sender: OwnedUserId,
    pub json: Box<RawValue>,
}

impl HistoryEvent {
    /// Returns an event without its content.
    pub(in crate::engine) fn of(event: RoomEvent, json: Box<RawValue>) -> Self {
        Self {
            id: event.id,
            sender: event.sender,
            json,
        }
    }

    /// Parses the event; `None` if it is none.
    pub(in crate::engine) fn parse(&self, room: &OwnedRoomId) -> Option<RoomEvent> {
        RoomEvent::parse(self.json.get(), Some(room))
    }
}

/// A room's history as one of our users sees it. All history is read through this type.
pub(in crate::engine) struct History<'a> {
    engine: &'a Engine,
    actor: Actor<'a>,
    room: &'a RoomId,
    direction: Direction,
    next: NextPage,
    page_events: u32,
    pages_left: usize,
    /// How often a page may be requested again.
    retries: u32,
    /// How much longer the homeserver may take for the pages, if that has a limit.
    time_left: Option<Duration>,
}

/// Where the next page begins.
enum NextPage {
    /// At the newest event.
    Newest,
    At(String),
    /// There are no more pages.
    None,
}

impl History<'_> {
    /// Sets the token at which reading begins, instead of the newest event.
    pub(in crate::engine) fn at(mut self, token: Option<String>) -> Self {
        self.next = token.map_or(NextPage::Newest, NextPage::At);
        self
    }

    /// Reads from `token` towards the newest event.
    pub(in crate::engine) fn forward_from(mut self, token: String) -> Self {
        self.direction = Direction::Forward;
        self.next = NextPage::At(token);
        self
    }

    /// Sets the maximum number of pages, and of events in each of them.
    pub(in crate::engine) fn limit(mut self, pages: usize, events: u32) -> Self {
        (self.pages_left, self.page_events) = (pages, events);
        self
    }

    /// Requests a page that fails again, a few times, so that a long reading need not begin anew.
    /// What holds a place or a turn that others wait for has a limit as well ([`Self::within`]).
    pub(in crate::engine) fn with_retries(mut self) -> Self {
        self.retries = RETRIES;
        self
    }

    /// Sets how long the homeserver may take for all pages together. Beyond it, reading fails with
    /// [`EngineError::HistoryTooSlow`]: the homeserver gets from other servers what it does not have,
    /// and they decide how long that takes.
    pub(in crate::engine) fn within(mut self, time: Duration) -> Self {
        self.time_left = Some(time);
        self
    }

    /// Returns the next page in the direction of reading, which may have no events: some of a room
    /// are not shown to everybody. Returns `None` behind the last page and after the maximum
    /// number of pages.
    pub(in crate::engine) async fn next_page(
        &mut self,
    ) -> Result<Option<Vec<Box<RawValue>>>, EngineError> {
        let token = match &self.next {
            _ if self.pages_left == 0 => return Ok(None),
            NextPage::None => return Ok(None),
            NextPage::Newest => None,
            NextPage::At(token) => Some(token.as_str()),
        };
        let page = match self.time_left {
            None => self.fetch(token).await?,
            Some(left) => {
                let began = Instant::now();
                let page = timeout(left, self.fetch(token)).await;
                self.time_left = Some(left.saturating_sub(began.elapsed()));
                page.map_err(|_elapsed| EngineError::HistoryTooSlow)??
            }
        };
        self.engine.0.progress.note_done();
        self.pages_left -= 1;
        self.next = match page.end {
            // A homeserver that leads back to the same page has no more.
            Some(next) if Some(next.as_str()) != token => NextPage::At(next),
            _ => NextPage::None,
        };
        Ok(Some(page.events))
    }

    async fn fetch(&self, from: Option<&str>) -> Result<Page, EngineError> {
        let mut retries = 0;
        loop {
            let homeserver = self.engine.homeserver();
            let (direction, events) = (self.direction, self.page_events);
            let page = homeserver.messages(self.actor, self.room, from, direction, events);
            match page.await {
                Err(error) if error.is_temporary() && retries < self.retries => {
                    let pause = error.retry_after().unwrap_or(PAUSE * 2_u32.pow(retries));
                    let pause = clock::sleep(pause.min(PAUSE_MAX)).map(Some);
                    self.engine.unless_stopping(pause).await?;
                    retries += 1;
                }
                other => return Ok(other?),
            }
        }
    }
}

impl Engine {
    /// Returns a reader of a room's history as one of our users sees it, from the newest event
    /// backwards. It reads one page unless a limit is set.
    pub(in crate::engine) fn history<'a>(
        &'a self,
        actor: Actor<'a>,
        room: &'a RoomId,
    ) -> History<'a> {
        History {
            engine: self,
            actor,
            room,
            direction: Direction::Backward,
            next: NextPage::Newest,
            page_events: PAGE_EVENTS,
            pages_left: 1,
            retries: 0,
            time_left: None,
        }
    }

    /// Returns the newest events of a room, back to the invite of the ghost that reads them, in
    /// order.
    pub(in crate::engine) async fn read_back(
        &self,
        ghost: &Ghost,
        room: &OwnedRoomId,
    ) -> Result<Vec<HistoryEvent>, EngineError> {
        let acting = self.as_user(ghost)?;
        let mut history = self
            .history(acting.actor(), room)
            .limit(READ_BACK_PAGES, READ_BACK);
        let mut newest_first = Vec::new();
        'back: while let Some(page) = history.next_page().await? {
            for json in page {
                let Some(event) = RoomEvent::parse(json.get(), Some(room)) else {
                    continue;
                };
                let own = event.membership();
                let is_invite = own.is_some_and(|(user, kind)| user == *ghost && kind == "invite");
                newest_first.push(HistoryEvent::of(event, json));
                if is_invite {
                    break 'back;
                }
            }
        }
        newest_first.reverse();
        Ok(newest_first)
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
