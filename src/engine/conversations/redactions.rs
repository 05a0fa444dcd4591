//! Deletions of events that still wait to be forwarded: what was deleted before it was sent is not
//! sent.

use std::time::Duration;

use ruma::{OwnedEventId, OwnedUserId};
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
    store::prefix,
};

/// How long an event is on its way at most, if nothing holds it up.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

impl Room {
    /// Returns whether an event, or the one that it edits, has been deleted since it arrived. Looks
    /// only for events that were held up: their deletion waits behind them.
    pub(in crate::engine) fn was_redacted(
        &self,
        conversation: &Conversation,
        event: &OwnedEventId,
        content: Option<&Value>,
        route: &Route,
    ) -> Result<bool, EngineError> {
        let store = self.engine.store();
        let seen = store.get::<Seen>(event)?;
        let arrived = seen.map_or(self.due_since, |seen| seen.at);
        if self.engine.now().since(arrived) < ON_ITS_WAY && self.failing.is_none() {
            return Ok(false);
        }
        let edited = content.and_then(edited_event);
        let waits = |of: &OwnedEventId| of == event || edited.as_ref() == Some(of);
        // The rule by which copies are redacted.
        let moderates = route.source == RoomRole::Origin && !conversation.direct;
        for page in store.pages::<Outbox>(&prefix(&self.id)) {
            let mut decided = page?.into_iter();
            if decided.any(|(_, due)| match due.what {
                QueuedEffect::Conversation {
                    effect: Effect::RedactCopy { of, sender, .. },
                    ..
                } => waits(&of) && (moderates || sender == route.sender),
                _ => false,
            }) {
                return Ok(true);
            }
        }
        let author = &conversation.people[route.sender].user;
        for page in store.pages::<Inbox>(&prefix(&self.id)) {
            let mut arrived = page?.into_iter();
            if arrived.any(|(_, item)| {
                redaction(&item).is_some_and(|(of, by)| {
                    waits(&of)
                        && (by == *author
                            || moderates && conversation.person_at(route.source, &by).is_some())
                })
            }) {
                return Ok(true);
            }
        }
        Ok(false)
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
