//! Events that a room retains as ciphertext, and for how long.

use ruma::OwnedEventId;

use crate::{
    conversation::{Conversation, Effect},
    engine::{
        EngineError,
        records::{Outbox, QueuedEffect, RetainedEvents},
        room::Room,
    },
    ids::Ghost,
    introduction::Introduction,
    store::{Batch, prefix},
};

impl Room {
    /// Deletes an event once it need not be forwarded elsewhere: other portals may still be
    /// missing, and other ghosts may be joining.
    pub(in crate::engine) fn forget_retained(
        &self,
        conversation: &Conversation,
        event: &OwnedEventId,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let alone = conversation.direct && self.record.introductions.is_empty();
        if alone || !self.is_event_needed(event, None)? {
            batch.delete::<RetainedEvents>(&(self.id.clone(), event.clone()));
        }
        Ok(())
    }

    /// Returns whether a retained event is still needed: by the introduction of another ghost than
    /// `but_for`, or by a queued forward other than the current effect.
    pub(in crate::engine) fn is_event_needed(
        &self,
        event: &OwnedEventId,
        but_for: Option<&Ghost>,
    ) -> Result<bool, EngineError> {
        let waits = |introduction: &Introduction| {
            let mut waiting = introduction.pending.iter().filter(|pending| !pending.done);
            waiting.any(|pending| pending.event == *event || pending.edits().any(|it| it == event))
        };
        let mut introductions = self.record.introductions.iter();
        if introductions
            .any(|introduction| Some(&introduction.ghost) != but_for && waits(introduction))
        {
            return Ok(true);
        }
        let forwards = |what: &QueuedEffect| matches!(what, QueuedEffect::Conversation { effect: Effect::ForwardEvent { event: of, .. }, .. } if of == event);
        let store = self.engine.store();
        let queued = store.scan::<Outbox>(&prefix(&self.id), None, usize::MAX)?;
        let mut others = queued
            .iter()
            .filter(|((_, n), _)| *n != self.current_effect);
        Ok(others.any(|(_, due)| forwards(&due.what)))
    }
}
