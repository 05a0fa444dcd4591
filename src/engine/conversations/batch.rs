//! Handles messages of one room in batches: while one message is on its way others arrive, and a
//! batch costs hardly more than a single message.

use ruma::OwnedRoomId;

use crate::{
    clock::Timestamp,
    conversation::{Conversation, EventKind, Input},
    engine::{
        EngineError,
        conversations::{inputs::event_kind, repository::Staged},
        event::RoomEvent,
        records::{Conversations, Inbox, InboxItem, RetainedEvents},
        room::{ReplayableEffects, Room},
    },
    ids::ConversationId,
    introduction::Introduction,
    store::Batch,
};

impl Room {
    /// Returns whether messages in this room concern a conversation and nothing else.
    pub(in crate::engine) fn handles_batches(&self) -> bool {
        let here = self.record.conversation.as_ref();
        here.is_some_and(|here| !here.upgrade_pending)
            && !self.bot_is_here()
            && !self.record.introductions.iter().any(Introduction::is_open)
    }

    /// Handles the messages and reactions at the front of the inbox in one batch, up to the first
    /// item that is something else. Returns `false` if there are none.
    pub(in crate::engine) async fn handle_messages(
        &mut self,
        arrived: &[((OwnedRoomId, u64), InboxItem)],
    ) -> Result<bool, EngineError> {
        let Some(here) = self.record.conversation.clone() else {
            return Ok(false);
        };
        let conversations = self.engine.store();
        let conversation = conversations.get_cached::<Conversations>(&here.conversation)?;
        let Some(messages) = conversation
            .map(|conversation| self.collect_messages(&conversation, arrived))
            .transpose()?
            .flatten()
        else {
            return Ok(false);
        };
        self.decide_on_messages(&here.conversation, messages).await
    }

    /// Collects the messages and reactions at the front of the inbox. Returns `None` if there are
    /// none, or if the conversation is no longer in this room.
    fn collect_messages(
        &self,
        conversation: &Conversation,
        arrived: &[((OwnedRoomId, u64), InboxItem)],
    ) -> Result<Option<Messages>, EngineError> {
        let engine = &self.engine;
        let Some(role) = conversation.role_of(&self.id) else {
            return Ok(None);
        };
        let mut messages = Messages {
            inputs: Vec::new(),
            since: engine.now(),
            from_before: false,
            batch: Batch::new(),
        };
        let Messages {
            inputs,
            since,
            from_before,
            batch,
        } = &mut messages;
        let mut handled = 0;
        for (key, arrived) in arrived {
            let InboxItem::Event(json) = arrived else {
                break;
            };
            let Some(event) = RoomEvent::parse(json, Some(&self.id)) else {
                break;
            };
            if event.state_key.is_some() || event_kind(&event) != Some(EventKind::Forwardable) {
                break;
            }
            handled += 1;
            batch.delete::<Inbox>(key);
            let seen = engine.seen(&event.id)?;
            if seen.as_ref().is_some_and(|seen| seen.handled) {
                continue;
            }
            // After a crash a message may be decided again, and have been sent as early as its
            // arrival.
            *since = seen.as_ref().map_or(*since, |seen| seen.at.min(*since));
            *from_before |= engine.is_from_before(key.1);
            engine.mark_seen_as(&event.id, seen, true, batch)?;
            if engine.is_ours(&event.sender) {
                continue;
            }
            // A message without recipients is not kept.
            if conversation.speaker_at(role, &event.sender).is_some()
                && !conversation.targets_of(role).is_empty()
            {
                batch.put::<RetainedEvents>(&(self.id.clone(), event.id.clone()), json)?;
            }
            inputs.push(Input::Event {
                role,
                sender: event.sender,
                event: event.id,
                kind: EventKind::Forwardable,
            });
        }
        Ok((handled > 0).then_some(messages))
    }

    /// Lets the conversation decide on these messages. Returns `false` if it is gone.
    async fn decide_on_messages(
        &mut self,
        id: &ConversationId,
        messages: Messages,
    ) -> Result<bool, EngineError> {
        let engine = self.engine.clone();
        let Messages {
            inputs,
            since,
            from_before,
            mut batch,
        } = messages;
        let decided = engine.lock_and_decide(id, &inputs, since, &mut batch);
        let (mut lock, Staged { rooms, numbers }) = decided.await?;
        let Some(before) = engine.store().get_cached::<Conversations>(id)? else {
            return Ok(false);
        };
        // If a crash lost the decision before this one, this one would come out differently.
        let settled = lock.may_be_seen_early(id, engine.store().durable());
        self.commit(batch, [])?;
        if from_before {
            self.maybe_sent_until = self.maybe_sent_until.max(numbers.end);
        }
        let after = engine.store().get_cached::<Conversations>(id)?;
        // After a crash these items are taken from the inbox again, with the same result unless
        // another decision on this conversation comes in between.
        let repeatable = settled && after.as_ref() == Some(&before);
        if repeatable {
            lock.note_seen_early(id, engine.store().applied());
        }
        drop(lock);
        self.replayable = if repeatable {
            ReplayableEffects {
                numbers,
                based_on: after,
            }
        } else {
            ReplayableEffects::default()
        };
        self.wake_others(rooms);
        Ok(true)
    }
}

/// The messages and reactions at the front of an inbox.
struct Messages {
    inputs: Vec<Input>,
    /// The earliest time at which one of them may already have been sent.
    since: Timestamp,
    /// Whether one of them waited when this process began. It may have been sent by the one before,
    /// which lost the decision in a crash.
    from_before: bool,
    /// Deletes the items from the inbox and retains the events that are to be forwarded.
    batch: Batch,
}
