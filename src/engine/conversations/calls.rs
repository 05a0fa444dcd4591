//! Calls in conversations that show only relays: a person without a relay is told that their call
//! will not connect. [`crate::conversation::CallWatch`] decides.

use std::sync::{MutexGuard, PoisonError};

use ruma::OwnedEventId;
use serde_json::Value;

use crate::{
    conversation::{CallWatch, Conversation, Input, Missing, NoRelay, Side, signs},
    engine::{Engine, EngineError, conversations::forward::Route, room::Room},
    store::Batch,
};

impl Engine {
    pub(in crate::engine) fn calls(&self) -> MutexGuard<'_, CallWatch> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Notes an event that was forwarded out of this room. Returns the inputs that follow if it
    /// belongs to a call.
    pub(in crate::engine) fn watch_call(
        &self,
        conversation: &Conversation,
        event: &OwnedEventId,
        route: &Route,
        kind: &str,
        content: &Value,
    ) -> Vec<Input> {
        let Some(signs) = signs(kind, content) else {
            return Vec::new();
        };
        let side = Side {
            conversation: conversation.id.clone(),
            role: route.source,
            room: self.id.clone(),
            person: route.sender,
            event: event.clone(),
        };
        let missing = self.engine.calls().note(&signs, &side, self.engine.now());
        missing.iter().flat_map(told).collect()
    }

    /// Tells the sides in this room whose time is up that they have shown no relay.
    pub(in crate::engine) async fn tick_calls(&mut self) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let overdue = engine.calls().overdue(&self.id, engine.now());
        for missing in overdue {
            let batch = Batch::new();
            let inputs = told(&missing);
            let id = &missing.side.conversation;
            self.apply(id, &inputs, batch).await?;
        }
        Ok(())
    }
}

/// Returns the notices about a side of a call that has no relay.
fn told(missing: &Missing) -> Vec<Input> {
    let tell = |role, why: NoRelay| Input::NotForwarded {
        role,
        event: missing.side.event.clone(),
        text: why.notice_text().to_owned(),
    };
    let here = tell(missing.side.role, NoRelay::Here);
    let there = missing.caller.map(|role| tell(role, NoRelay::There));
    std::iter::once(here).chain(there).collect()
}
