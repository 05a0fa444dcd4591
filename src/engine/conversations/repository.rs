//! The conversations: found, decided on under one lock, written, ended.

use std::{
    ops::Range,
    sync::{Arc, PoisonError},
    time::Duration,
};

use ruma::OwnedRoomId;

use crate::{
    clock::Timestamp,
    conversation::{Conversation, Effect, Home, Input, Participant, PortalStatus, decide},
    directory::{forget_alias, record_alias},
    engine::{
        Engine, EngineError,
        conversations::decisions::DecisionLock,
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

/// A decision that is staged.
pub(in crate::engine) struct Staged {
    /// The rooms that have something to do.
    pub(in crate::engine) rooms: Vec<OwnedRoomId>,
    /// The numbers of its effects.
    pub(in crate::engine) numbers: Range<u64>,
}

/// A decision that is not staged yet.
struct Decided {
    after: Option<Conversation>,
    effects: Vec<(OwnedRoomId, Effect)>,
}

/// Decides what follows from inputs.
fn decide_on(before: &Conversation, inputs: &[Input]) -> Decided {
    let mut decided = Decided {
        after: Some(before.clone()),
        effects: Vec::new(),
    };
    for input in inputs {
        let Some(conversation) = decided.after.take() else {
            break;
        };
        let decision = decide(conversation, input);
        decided.after = decision.state;
        decided.effects.extend(decision.effects);
    }
    decided
}

impl Engine {
    /// Decides what follows for a conversation, and stages it in `batch`, with the effects queued
    /// as of `since`. Returns the lock too, which the caller holds until the batch is applied.
    ///
    /// A decision that changes the conversation waits until it may change, without the lock: other
    /// conversations go on meanwhile.
    pub(in crate::engine) async fn lock_and_decide(
        &self,
        id: &ConversationId,
        inputs: &[Input],
        since: Timestamp,
        batch: &mut Batch,
    ) -> Result<(DecisionLock<'_>, Staged), EngineError> {
        let mut waiting = None;
        loop {
            {
                let mut lock = self.lock_decisions();
                let Some(before) = self.store().get_cached::<Conversations>(id)? else {
                    let nothing = Staged {
                        rooms: Vec::new(),
                        numbers: 0..0,
                    };
                    return Ok((lock, nothing));
                };
                let decided = decide_on(&before, inputs);
                let is_changed = decided.after.as_ref() != Some(&*before);
                if !is_changed || lock.may_change(id, self.store().durable()) {
                    let from = self.next();
                    let rooms = self.stage_decision(&mut lock, &before, decided, since, batch)?;
                    let numbers = from..self.next();
                    return Ok((lock, Staged { rooms, numbers }));
                }
                waiting.get_or_insert_with(|| lock.await_change(id));
            }
            self.store().flush().await?;
        }
    }

    /// Locks decisions once all of these conversations may change.
    pub(in crate::engine) async fn lock_to_change(
        &self,
        conversations: &[&ConversationId],
    ) -> Result<DecisionLock<'_>, EngineError> {
        let mut waiting = Vec::new();
        loop {
            {
                let mut lock = self.lock_decisions();
                let durable = self.store().durable();
                let mut all = conversations.iter();
                if all.all(|id| lock.may_change(id, durable)) {
                    return Ok(lock);
                }
                if waiting.is_empty() {
                    waiting.extend(conversations.iter().map(|id| lock.await_change(id)));
                }
            }
            self.store().flush().await?;
        }
    }

    /// Applies inputs to a conversation, writes `batch` together with the decision, and wakes the
    /// rooms that have something to do. The write is not durable yet.
    pub(in crate::engine) async fn apply(
        &self,
        id: &ConversationId,
        inputs: &[Input],
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let decided = self.lock_and_decide(id, inputs, self.now(), &mut batch);
        let (lock, Staged { rooms, .. }) = decided.await?;
        self.store().apply(batch)?;
        drop(lock);
        for room in rooms {
            self.wake(&room);
        }
        Ok(())
    }

    pub(in crate::engine) fn lock_decisions(&self) -> DecisionLock<'_> {
        let lock = self.0.decisions.lock();
        let mut lock = lock.unwrap_or_else(PoisonError::into_inner);
        lock.begin(self.store().applied(), self.store().durable());
        lock
    }

    /// Decides with the lock of [`Engine::lock_to_change`].
    pub(in crate::engine) fn decide_and_stage(
        &self,
        lock: &mut DecisionLock<'_>,
        before: &Conversation,
        inputs: &[Input],
        batch: &mut Batch,
    ) -> Result<Vec<OwnedRoomId>, EngineError> {
        let decided = decide_on(before, inputs);
        self.stage_decision(lock, before, decided, self.now(), batch)
    }

    /// Stages a decision. The effects are queued as of `since`.
    fn stage_decision(
        &self,
        lock: &mut DecisionLock<'_>,
        before: &Conversation,
        decided: Decided,
        since: Timestamp,
        batch: &mut Batch,
    ) -> Result<Vec<OwnedRoomId>, EngineError> {
        let mut rooms = Vec::new();
        for (room, effect) in decided.effects {
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
        if decided.after.as_ref() != Some(before) {
            self.write_conversation(lock, before, decided.after.as_ref(), batch)?;
        }
        Ok(rooms)
    }

    pub(in crate::engine) fn write_conversation(
        &self,
        lock: &mut DecisionLock<'_>,
        before: &Conversation,
        after: Option<&Conversation>,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        lock.note_change(&before.id);
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
                let directory = self.directory();
                if conversation.direct
                    && directory.is_blocked_as(handle, &person.user, &person.ghost)?
                {
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
            self.apply(&conversation.id, &[closed], batch).await?;
            self.store().flush().await?;
        }
        Ok(())
    }
}

impl Room {
    /// Applies inputs to a conversation as [`Engine::apply`] does, and writes this room's record
    /// together with the decision.
    pub(in crate::engine) async fn apply(
        &mut self,
        id: &ConversationId,
        inputs: &[Input],
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let decided = engine.lock_and_decide(id, inputs, engine.now(), &mut batch);
        let (lock, Staged { rooms, .. }) = decided.await?;
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
