//! Deletions of events that still wait to be forwarded: what was deleted before it was sent is not
//! sent.

use std::time::Duration;

use ruma::OwnedEventId;
use serde_json::Value;

use crate::{
    conversation::{Conversation, RoomRole},
    engine::{
        EngineError, conversations::forward::Route, records::Seen, room::Room,
        waiting_redactions::By,
    },
};

/// How long an event is on its way at most, if nothing holds it up.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

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
        let mut deleted = std::iter::once(event).chain(&edited);
        let waiting = &self.waiting_redactions;
        let arrived = self.engine.durable_until();
        waiting.update(self.engine.store(), &self.id, arrived)?;
        Ok(
            waiting.removes(route.sender, route.target, self.current_effect)
                || deleted.any(|of| waiting.has(of, may_redact)),
        )
    }
}

/// Returns the event that an edit changes.
fn edited_event(content: &Value) -> Option<OwnedEventId> {
    let relation = &content["m.relates_to"];
    let is_edit = relation["rel_type"] == "m.replace";
    let edited = relation["event_id"].as_str().filter(|_| is_edit)?;
    edited.try_into().ok()
}
