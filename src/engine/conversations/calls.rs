//! Calls in conversations where only relays are shown: a person without one is told that theirs will
//! not connect. What is decided on them is in [`crate::conversation::CallWatch`].

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
    /// Takes note of an event that was carried out of this room; what follows if it is one of a
    /// call.
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

    /// Tells the sides of this room that have had their time and have shown no relay.
    pub(in crate::engine) async fn tick_calls(&mut self) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let overdue = engine.calls().overdue(&self.id, engine.now());
        for missing in overdue {
            let batch = Batch::new();
            let inputs = told(&missing);
            let id = &missing.side.conversation;
            self.apply(id, &inputs, batch)?;
        }
        Ok(())
    }
}

/// Returns the notices about a side of a call without a relay.
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
