//! Deletions of events that still wait to be forwarded: what was deleted before it was sent is not
//! sent.

use std::time::Duration;

use ruma::OwnedEventId;
use serde_json::Value;

use crate::{
    conversation::{Conversation, RoomRole},
    engine::{
        EngineError,
        conversations::forward::Route,
        room::{Room, transaction_id},
        waiting_redactions::By,
    },
    store::Batch,
};

/// How long an event is on its way at most, if nothing holds it up.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

impl Room {
    /// Returns whether a forward ends here, because the event, or the one that it edits, has been
    /// deleted since it arrived. What an earlier attempt has sent all the same is noted, so that its
    /// copy can be deleted.
    ///
    /// The earlier attempt is looked for in the history. Only where it may still be on its way to
    /// the homeserver, the event is sent again, which changes nothing there.
    pub(in crate::engine) async fn ends_by_deletion(
        &self,
        conversation: &Conversation,
        event: &OwnedEventId,
        content: Option<&Value>,
        route: &Route,
        batch: &mut Batch,
    ) -> Result<bool, EngineError> {
        if self.unanswered == Some(self.current_effect)
            || !self.was_redacted(conversation, event, content, route)?
        {
            return Ok(false);
        }
        let there = conversation.room(route.target);
        if self.current_effect <= self.maybe_sent_until
            && let Some(there) = there
        {
            let ghost = &conversation.people[route.sender].ghost;
            let transaction = transaction_id(ghost, there, "carry", event.as_str());
            match self.find_sent(ghost, there, &transaction).await {
                Ok(Some(sent)) => self.note_forwarded(event, there, &sent, route, batch)?,
                Ok(None) => {}
                Err(error) if error.is_transient() => return Err(error),
                // The ghost is not there.
                Err(error) => {
                    tracing::debug!(room = %self.id, %error, "a deleted message is not looked for")
                }
            }
        }
        Ok(true)
    }

    /// Returns whether an event, or the one that it edits, has been deleted since it arrived. Looks
    /// only for events that were held up: their deletion waits behind them.
    fn was_redacted(
        &self,
        conversation: &Conversation,
        event: &OwnedEventId,
        content: Option<&Value>,
        route: &Route,
    ) -> Result<bool, EngineError> {
        let seen = self.engine.seen(event)?;
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
