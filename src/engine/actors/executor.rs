//! Carries out effects, each until it is done or given up. A decision is durable before others see
//! its effects.

use ruma::OwnedRoomId;

use crate::{
    engine::{
        EngineError,
        records::{Outbox, OutboxItem, QueuedEffect},
        room::Room,
    },
    metrics::catalogue::EFFECTS,
};

impl Room {
    /// Carries out effects in order. A decision is flushed before others can see one of its
    /// effects, unless a crash would lead to the same decision and the same transaction id.
    pub(in crate::engine) async fn carry_out_all(
        &mut self,
        due: Vec<((OwnedRoomId, u64), OutboxItem)>,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let store = engine.store();
        for (at, (key, due)) in due.into_iter().enumerate() {
            // An earlier effect may have removed this one from the outbox.
            if at > 0 && (engine.stopping() || !store.contains::<Outbox>(&key)?) {
                continue;
            }
            // Nor may it come before others of its lane.
            if self.lanes.holds(&due.what, engine.now()) {
                continue;
            }
            if !self.is_replayable(key.1, &due.what)? {
                store.flush().await?;
            }
            self.carry_out(key.1, due).await?;
            self.failures = 0;
            self.failing = None;
            engine.0.progress.note_done();
        }
        Ok(())
    }

    /// Carries out one effect. Returns an error if it has to be tried again.
    pub(in crate::engine) async fn carry_out(
        &mut self,
        number: u64,
        due: OutboxItem,
    ) -> Result<(), EngineError> {
        let OutboxItem { what, since } = due;
        tracing::debug!(room = %self.id, kind = what.kind(), "carrying out an effect");
        self.due_since = since;
        self.current_effect = number;
        let done = match self.backfill_for(&what).await {
            Ok(()) => self.perform(number, &what).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &done {
            self.engine.restore_missing_user(error).await;
        }
        let Err(error) = done else {
            EFFECTS.count([what.kind(), "done"]);
            self.lanes.resume(&what);
            return Ok(());
        };
        let mut error = self.engine.unless_outage(error).await;
        let is_waited_for = match error {
            EngineError::Unanswered(_) => self.lanes.pause(&what, self.engine.now()),
            _ => None,
        };
        if is_waited_for == Some(true) {
            EFFECTS.count([what.kind(), "retried"]);
            tracing::info!(room = %self.id, kind = what.kind(), %error, "an effect lets others overtake it");
            return Ok(());
        }
        let mut is_retried = is_waited_for.is_none() && self.retries_effect(number, &what, &error);
        // What has not come may come when the homeserver is back.
        if !is_retried && error.is_on_its_way() && self.engine.homeserver_is_down().await {
            error = EngineError::HomeserverDown(Box::new(error));
            is_retried = self.retries_effect(number, &what, &error);
        }
        if is_retried {
            EFFECTS.count([what.kind(), "retried"]);
            self.tell_of_waiting(&what, &error).await?;
            return Err(error);
        }
        let kind = what.kind();
        tracing::info!(room = %self.id, kind, %error, "an effect is given up");
        self.give_up_effect(number, what, &error).await?;
        EFFECTS.count([kind, "given_up"]);
        Ok(())
    }

    async fn perform(&mut self, number: u64, what: &QueuedEffect) -> Result<(), EngineError> {
        match what {
            QueuedEffect::Introduction { ghost, effect } => {
                self.perform_introduction(number, ghost, effect).await
            }
            QueuedEffect::Control(effect) => self.perform_control(number, effect).await,
            QueuedEffect::Conversation {
                conversation,
                effect,
            } => {
                self.perform_conversation(number, conversation, effect)
                    .await
            }
        }
    }

    async fn give_up_effect(
        &mut self,
        number: u64,
        what: QueuedEffect,
        error: &EngineError,
    ) -> Result<(), EngineError> {
        match what {
            QueuedEffect::Introduction { ghost, effect } => {
                self.give_up_introduction(number, &ghost, effect, error)
                    .await
            }
            QueuedEffect::Control(effect) => self.give_up_control(number, &effect, error).await,
            QueuedEffect::Conversation {
                conversation,
                effect,
            } => {
                self.give_up_conversation(number, &conversation, &effect, error)
                    .await
            }
        }
    }
}
