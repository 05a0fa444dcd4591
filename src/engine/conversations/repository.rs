//! The conversations: found, decided on under one lock, written, ended.

use std::{
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use ruma::OwnedRoomId;

use crate::{
    clock::Timestamp,
    conversation::{Conversation, Home, Input, Participant, PortalStatus, decide},
    directory::{forget_alias, record_alias},
    engine::{
        Engine, EngineError,
        records::{
            Conversations, ConversationsByGhost, DirectConversations, Outbox, OutboxItem,
            QueuedEffect,
        },
        room::Room,
    },
    ids::{ConversationId, Ghost, Person},
    store::{Batch, prefix},
};

/// How long to wait for conversations to end.
const PARTING: Duration = Duration::from_secs(30);

/// The lock on decisions about conversations, held until the decision is written.
pub(in crate::engine) struct DecisionLock<'a>(
    #[expect(dead_code, reason = "held, not read")] MutexGuard<'a, ()>,
);

/// Whether the latest change of a conversation is durable. Guarded by the decision lock.
#[derive(Default)]
pub(in crate::engine) struct ChangeDurability {
    /// Set if the last holder of the lock changed a conversation; its batch is applied by now.
    just_now: AtomicBool,
    /// Upper bound of that batch's number.
    applied: AtomicU64,
    /// The number of the last batch that holds a decision whose effects others may see early.
    seen: AtomicU64,
}

impl ChangeDurability {
    fn note(&self) {
        self.just_now.store(true, Ordering::Release);
    }

    /// Returns whether no crash could bring back an older state of a conversation, given the
    /// numbers of the last applied and the last durable batch. Must be called before a decision is
    /// made.
    pub(in crate::engine) fn note_change(&self, applied: u64, durable: u64) -> bool {
        if self.just_now.swap(false, Ordering::AcqRel) {
            self.applied.store(applied, Ordering::Release);
        }
        durable >= self.applied.load(Ordering::Acquire)
    }

    /// Notes that others may see the decisions up to this batch before they are durable.
    pub(in crate::engine) fn note_sent_early(&self, applied: u64) {
        self.seen.store(applied, Ordering::Release);
    }

    /// Returns whether every decision that others may have seen is durable.
    fn may_follow(&self, durable: u64) -> bool {
        durable >= self.seen.load(Ordering::Acquire)
    }
}

impl Engine {
    /// Decides what follows for a conversation, and stages it in `batch`. Returns the rooms that
    /// have something to do, and the lock, which the caller holds until the batch is applied.
    pub(in crate::engine) fn lock_and_decide(
        &self,
        id: &ConversationId,
        inputs: &[Input],
        batch: &mut Batch,
    ) -> Result<(DecisionLock<'_>, Vec<OwnedRoomId>), EngineError> {
        let lock = self.lock_decisions();
        let rooms = match self.store().get_cached::<Conversations>(id)? {
            Some(conversation) => {
                self.decide_and_stage(&conversation, inputs, self.now(), batch)?
            }
            None => Vec::new(),
        };
        Ok((lock, rooms))
    }

    /// Applies inputs to a conversation, writes `batch` together with the decision, and wakes the
    /// rooms that have something to do. The write is not durable yet.
    pub(in crate::engine) fn apply(
        &self,
        id: &ConversationId,
        inputs: &[Input],
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let (lock, rooms) = self.lock_and_decide(id, inputs, &mut batch)?;
        self.store().apply(batch)?;
        drop(lock);
        for room in rooms {
            self.wake(&room);
        }
        Ok(())
    }

    pub(in crate::engine) fn lock_decisions(&self) -> DecisionLock<'_> {
        let lock = self.0.decision_lock.lock();
        DecisionLock(lock.unwrap_or_else(PoisonError::into_inner))
    }

    /// Decides like [`Engine::lock_and_decide`], with the lock held by the caller. The effects are
    /// queued as of `since`.
    pub(in crate::engine) fn decide_and_stage(
        &self,
        before: &Conversation,
        inputs: &[Input],
        since: Timestamp,
        batch: &mut Batch,
    ) -> Result<Vec<OwnedRoomId>, EngineError> {
        let mut state = Some(before.clone());
        let mut rooms = Vec::new();
        for input in inputs {
            let Some(conversation) = state.take() else {
                break;
            };
            let decision = decide(conversation, input);
            state = decision.state;
            for (room, effect) in decision.effects {
                let due = OutboxItem {
                    since,
                    what: QueuedEffect::Conversation {
                        conversation: before.id.clone(),
                        effect,
                    },
                };
                batch.put::<Outbox>(&(room.clone(), self.next()), &due)?;
                if !rooms.contains(&room) {
                    rooms.push(room);
                }
            }
        }
        if state.as_ref() != Some(before) {
            self.write_conversation(before, state.as_ref(), batch)?;
        }
        Ok(rooms)
    }

    pub(in crate::engine) fn write_conversation(
        &self,
        before: &Conversation,
        after: Option<&Conversation>,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        // After a crash, decisions that were made on the old state must not be made on the new one.
        if !self.0.changes.may_follow(self.store().durable()) {
            self.store().flush_blocking()?;
        }
        self.0.changes.note();
        let id = &before.id;
        let pairings = |conversation: &Conversation| -> Vec<(Person, Ghost)> {
            match conversation.people.as_slice() {
                [one, other] if conversation.direct => vec![
                    (one.user.clone(), other.ghost.clone()),
                    (other.user.clone(), one.ghost.clone()),
                ],
                _ => Vec::new(),
            }
        };
        for key in pairings(before) {
            // The same two people may have begun another conversation since this one ended.
            if self.store().get::<DirectConversations>(&key)?.as_ref() == Some(id) {
                batch.delete::<DirectConversations>(&key);
            }
        }
        let Some(after) = after else {
            for person in &before.people {
                batch.delete::<ConversationsByGhost>(&(person.ghost.clone(), id.clone()));
                if person.is_alias {
                    forget_alias(batch, &person.ghost);
                }
            }
            batch.delete::<Conversations>(id);
            return Ok(());
        };
        for person in &after.people {
            let key = (person.ghost.clone(), id.clone());
            let same = after.people.iter().filter(|it| it.ghost == person.ghost);
            // A person who has left their portal for good no longer takes part.
            if same.into_iter().all(is_done) {
                batch.delete::<ConversationsByGhost>(&key)
            } else {
                batch.put::<ConversationsByGhost>(&key, &())?
            }
            if person.is_alias {
                record_alias(batch, &person.ghost, &person.user)?;
            }
        }
        if !after.ended {
            for key in pairings(after) {
                batch.put::<DirectConversations>(&key, id)?;
            }
        }
        Ok(batch.put::<Conversations>(id, after)?)
    }

    /// Returns the conversation of a person with a ghost, unless it has ended.
    pub(in crate::engine) fn conversation_with(
        &self,
        person: &Person,
        ghost: &Ghost,
    ) -> Result<Option<Conversation>, EngineError> {
        let key = (person.clone(), ghost.clone());
        let Some(id) = self.store().get::<DirectConversations>(&key)? else {
            return Ok(None);
        };
        let conversation = self.store().get::<Conversations>(&id)?;
        Ok(conversation.filter(|conversation| !conversation.ended))
    }

    /// Returns the conversations that a ghost takes part in.
    pub(in crate::engine) fn conversations_of(
        &self,
        ghost: &Ghost,
    ) -> Result<Vec<Arc<Conversation>>, EngineError> {
        let mut conversations = Vec::new();
        let ids = self
            .store()
            .scan::<ConversationsByGhost>(&prefix(ghost), None, usize::MAX)?;
        for ((_, id), ()) in ids {
            conversations.extend(self.store().get_cached::<Conversations>(&id)?);
        }
        Ok(conversations)
    }

    /// Ends all conversations of a masked handle's ghost, and waits up to [`PARTING`] until it has
    /// said so in them and has left. After that it leaves without a word.
    pub(in crate::engine) async fn end_all_conversations(
        &self,
        ghost: &Ghost,
    ) -> Result<(), EngineError> {
        self.end_conversations(ghost, |_| Ok(true)).await?;
        let parted = async {
            loop {
                let left = self.0.room_left.notified();
                let mut left = std::pin::pin!(left);
                left.as_mut().enable();
                if self.conversations_of(ghost)?.is_empty() {
                    return Ok(());
                }
                left.await;
            }
        };
        tokio::time::timeout(PARTING, parted)
            .await
            .unwrap_or(Ok(()))
    }

    /// Ends the conversations of a masked handle with people whom its owner has blocked.
    pub(in crate::engine) async fn end_blocked_conversations(
        &self,
        ghost: &Ghost,
    ) -> Result<(), EngineError> {
        let Some(record) = self.directory().by_ghost(ghost)? else {
            return Ok(());
        };
        self.end_conversations(ghost, |conversation| {
            for person in conversation.people.iter().filter(|p| p.ghost != *ghost) {
                let handle = &record.handle;
                if conversation.direct && self.directory().is_blocked_on(handle, &person.user)? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }

    /// Ends the conversations of a masked handle's ghost that `which` selects.
    pub(in crate::engine) async fn end_conversations(
        &self,
        ghost: &Ghost,
        which: impl Fn(&Conversation) -> Result<bool, EngineError>,
    ) -> Result<(), EngineError> {
        for conversation in self.conversations_of(ghost)? {
            if !which(&conversation)? {
                continue;
            }
            let batch = Batch::new();
            let closed = Input::HandleClosed {
                ghost: ghost.clone(),
            };
            self.apply(&conversation.id, &[closed], batch)?;
            self.store().flush().await?;
        }
        Ok(())
    }
}

impl Room {
    /// Applies inputs to a conversation as [`Engine::apply`] does, and writes this room's record
    /// together with the decision.
    pub(in crate::engine) fn apply(
        &mut self,
        id: &ConversationId,
        inputs: &[Input],
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let (lock, rooms) = engine.lock_and_decide(id, inputs, &mut batch)?;
        self.commit(batch, [])?;
        drop(lock);
        self.wake_others(rooms);
        Ok(())
    }

    /// Wakes the rooms that have something to do, except this one, which is awake.
    pub(in crate::engine) fn wake_others(&self, rooms: Vec<OwnedRoomId>) {
        for room in rooms.into_iter().filter(|room| *room != self.id) {
            self.engine.wake(&room);
        }
    }
}

fn is_done(person: &Participant) -> bool {
    let gone = Home::Portal {
        room: None,
        status: PortalStatus::Closed,
    };
    person.home == gone
}

pub(in crate::engine) fn is_there(person: &Participant) -> bool {
    match &person.home {
        Home::Origin { is_present } => *is_present,
        Home::Portal { status, .. } => {
            matches!(status, PortalStatus::Invited | PortalStatus::Joined)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decided_on_a_change_that_a_crash_could_take_is_known_for_that() {
        let changes = ChangeDurability::default();
        assert!(changes.note_change(7, 3), "there was none");
        changes.note();
        assert!(!changes.note_change(8, 7), "it is the eighth at the latest");
        // Others change nothing that matters.
        assert!(!changes.note_change(9, 7));
        assert!(changes.note_change(9, 8));
        assert!(changes.note_change(10, 8));
        changes.note();
        assert!(!changes.note_change(11, 10));
        assert!(changes.note_change(12, 11));
    }
}
