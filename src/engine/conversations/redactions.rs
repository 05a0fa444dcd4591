//! Deletions of events that still wait to be forwarded: what was deleted before it was sent is not
//! sent.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::Value;

use crate::{
    conversation::{Conversation, Effect, RoomRole},
    engine::{
        EngineError,
        conversations::forward::Route,
        event::RoomEvent,
        records::{Inbox, InboxItem, Outbox, QueuedEffect, Seen},
        room::Room,
    },
    store::{StoreError, Table, prefix},
};

/// How long an event is on its way at most, if nothing holds it up.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// Maximum number of deleted events that are remembered in a room. If there are more, an event may
/// be sent and deleted after that.
const REDACTED_MAX: usize = 10_000;
/// Maximum number of records that are read at once.
const PAGE_RECORDS: usize = 256;

/// The deletions among what waits in a room. Each record is looked at once.
#[derive(Default)]
pub(in crate::engine) struct WaitingRedactions(Mutex<Found>);

#[derive(Default)]
struct Found {
    /// The numbers of the records that were looked at last.
    outbox: u64,
    inbox: u64,
    /// Who deletes an event.
    by: HashMap<OwnedEventId, Vec<By>>,
}

#[derive(Debug)]
enum By {
    /// A participant of the conversation.
    Person(usize),
    /// A user whose deletion is not handled yet.
    User(OwnedUserId),
}

impl Found {
    fn add(&mut self, of: OwnedEventId, by: By) {
        if self.by.len() >= REDACTED_MAX {
            self.by.clear();
        }
        self.by.entry(of).or_default().push(by);
    }

    /// Looks at what has come since the last time.
    fn update(&mut self, room: &Room) -> Result<(), StoreError> {
        each_after::<Outbox>(room, self.outbox, |number, due| {
            self.outbox = number;
            if let QueuedEffect::Conversation {
                effect: Effect::RedactCopy { of, sender, .. },
                ..
            } = due.what
            {
                self.add(of, By::Person(sender));
            }
        })?;
        each_after::<Inbox>(room, self.inbox, |number, item| {
            self.inbox = number;
            if let Some((of, by)) = redaction(&item) {
                self.add(of, By::User(by));
            }
        })
    }
}

/// Passes the records of a room after this number to `visit`.
fn each_after<T: Table<Key = (OwnedRoomId, u64)>>(
    room: &Room,
    mut after: u64,
    mut visit: impl FnMut(u64, T::Value),
) -> Result<(), StoreError> {
    let prefix = prefix(&room.id);
    loop {
        let from = (room.id.clone(), after);
        let store = room.engine.store();
        let page = store.scan::<T>(&prefix, Some(&from), PAGE_RECORDS)?;
        let is_last = page.len() < PAGE_RECORDS;
        for ((_, number), record) in page {
            after = number;
            visit(number, record);
        }
        if is_last {
            return Ok(());
        }
    }
}

impl Room {
    /// Returns whether an event, or the one that it edits, has been deleted since it arrived, and was
    /// certainly not sent. Looks only for events that were held up: their deletion waits behind
    /// them. What may have been sent is sent again, which changes nothing there, so that its copy is
    /// known and can be deleted.
    pub(in crate::engine) fn was_redacted(
        &self,
        conversation: &Conversation,
        event: &OwnedEventId,
        content: Option<&Value>,
        route: &Route,
    ) -> Result<bool, EngineError> {
        if self.current_effect <= self.maybe_sent_until {
            return Ok(false);
        }
        let seen = self.engine.store().get::<Seen>(event)?;
        let arrived = seen.map_or(self.due_since, |seen| seen.at);
        if self.engine.now().since(arrived) < ON_ITS_WAY && self.failing.is_none() {
            return Ok(false);
        }
        let edited = content.and_then(edited_event);
        // The rule by which copies are redacted.
        let moderates = route.source == RoomRole::Origin && !conversation.direct;
        let author = &conversation.people[route.sender].user;
        let may_redact = |by: &By| match by {
            By::Person(person) => moderates || *person == route.sender,
            By::User(user) => {
                *user == *author
                    || moderates && conversation.person_at(route.source, user).is_some()
            }
        };
        let found = &self.waiting_redactions.0;
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.update(self)?;
        let mut deleted = std::iter::once(event).chain(&edited);
        Ok(deleted.any(|of| found.by.get(of).is_some_and(|by| by.iter().any(may_redact))))
    }
}

/// Returns the event that an edit changes.
fn edited_event(content: &Value) -> Option<OwnedEventId> {
    let relation = &content["m.relates_to"];
    let is_edit = relation["rel_type"] == "m.replace";
    let edited = relation["event_id"].as_str().filter(|_| is_edit)?;
    edited.try_into().ok()
}

/// Returns the event that an arrival redacts, and who redacts it.
fn redaction(arrived: &InboxItem) -> Option<(OwnedEventId, OwnedUserId)> {
    let (InboxItem::Event(json) | InboxItem::AfterGap(json)) = arrived else {
        return None;
    };
    // Most are encrypted, and need not be parsed.
    if !json.contains("m.room.redaction") {
        return None;
    }
    let event = RoomEvent::parse(json, None)?;
    let redacts = event.redacts.filter(|_| event.kind == "m.room.redaction")?;
    Some((redacts, event.sender))
}
