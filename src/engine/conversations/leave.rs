//! Leaves rooms of conversations, and removes ghosts that were made for them.

use ruma::{OwnedEventId, OwnedRoomId};

use crate::{
    conversation::{Conversation, Input},
    engine::{
        EngineError,
        event::RoomEvent,
        records::{ActiveRoomsByGhost, Conversations, Inbox, InboxItem, RetainedEvents},
        room::Room,
    },
    ids::{ConversationId, Ghost},
    store::{Batch, prefix},
};

/// Maximum number of inbox items that are read at a time.
const PAGE: usize = 100;

/// A membership of a ghost in the inbox: its key, the event if it came as one, and whether it is an
/// invite.
type WaitingMembership = ((OwnedRoomId, u64), Option<OwnedEventId>, bool);

impl Room {
    /// Lets all ghosts of the conversation leave this room and destroys their keys of it. A ghost
    /// that may not leave is an error, or stays without keys if leaving is `given_up`.
    pub(in crate::engine) async fn leave_conversation_room(
        &mut self,
        id: &ConversationId,
        conversation: Option<&Conversation>,
        given_up: bool,
        batch: &mut Batch,
    ) -> Result<Vec<Input>, EngineError> {
        let engine = self.engine.clone();
        let here = self.record.conversation.as_ref();
        let room_left = Input::RoomLeft {
            room: self.id.clone(),
        };
        let Some(here) = here.filter(|here| here.conversation == *id).cloned() else {
            // The portal is not complete yet: a ghost that joins later leaves at once.
            let is_here = conversation.is_some_and(|known| known.role_of(&self.id).is_some());
            return Ok(is_here.then_some(room_left).into_iter().collect());
        };
        self.deliveries.forget();
        for ghost in &here.ghosts {
            match self.leave_unless_invited(ghost).await {
                Err(error) if given_up && !error.is_transient() => {
                    tracing::warn!(room = %self.id, %ghost, %error, "a ghost could not leave");
                    engine.forget_room(ghost, &self.id).await?;
                }
                left => left?,
            }
            batch.delete::<ActiveRoomsByGhost>(&(ghost.clone().into(), self.id.clone()));
        }
        let introducing = self.record.introductions.iter();
        if !introducing
            .into_iter()
            .any(|introduction| introduction.is_open())
        {
            for (key, _) in
                engine
                    .store()
                    .scan::<RetainedEvents>(&prefix(&self.id), None, usize::MAX)?
            {
                batch.delete::<RetainedEvents>(&key);
            }
        }
        self.record.conversation = None;
        // It may have moved on while the ghosts were leaving.
        let conversation = engine.store().get_cached::<Conversations>(id)?;
        let mut inputs = match conversation {
            Some(now) if !now.ended && now.role_of(&self.id).is_none() => {
                self.refuse_waiting_messages(&now)?
            }
            _ => Vec::new(),
        };
        inputs.push(room_left);
        Ok(inputs)
    }

    /// Lets a ghost leave this room for good, unless it was sent away and is invited again: then it
    /// keeps what was sent to it for that.
    async fn leave_unless_invited(&self, ghost: &Ghost) -> Result<(), EngineError> {
        if self.is_about_to_be_invited(ghost)? && !self.is_joined(ghost).await? {
            return Ok(());
        }
        self.leave_for_good(ghost).await
    }

    /// Lets the ghost of a person who is gone leave this room. The other ghosts stay.
    pub(in crate::engine) async fn remove_ghost(
        &mut self,
        conversation: &Conversation,
        person: usize,
    ) -> Result<Vec<Input>, EngineError> {
        let gone = conversation.people.get(person).map(|gone| &gone.ghost);
        let gone = gone.filter(|ghost| !conversation.needs(ghost));
        // The person that the ghost stands for may be back already.
        let Some(ghost) = gone else {
            return Ok(Vec::new());
        };
        let left = match self.is_joined(ghost).await {
            Ok(true) => {
                self.ignore_invites(ghost).await?;
                self.leave_for_good(ghost).await
            }
            // The ghost was invited again and should join, so it keeps the keys that were sent to
            // it for that. It may have left before a crash and been invited only after that.
            Ok(false) if self.is_about_to_be_invited(ghost)? => Ok(()),
            Ok(false) => self.engine.forget_room(ghost, &self.id).await,
            Err(error) => Err(error),
        };
        match left {
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::warn!(room = %self.id, %ghost, %error, "a ghost could not leave");
                self.engine.forget_room(ghost, &self.id).await?;
            }
            Ok(()) => {}
        }
        self.note_removed(ghost)?;
        Ok(Vec::new())
    }

    /// Destroys the keys of the ghost of a person who has left, although it could not leave this room.
    pub(in crate::engine) async fn give_up_removing(
        &mut self,
        conversation: &Conversation,
        person: usize,
    ) -> Result<(), EngineError> {
        let gone = conversation.people.get(person).map(|gone| &gone.ghost);
        if let Some(ghost) = gone.filter(|ghost| !conversation.needs(ghost)) {
            // It keeps what was sent to it for an invite that waits here.
            if !self.is_about_to_be_invited(ghost)? {
                self.engine.forget_room(ghost, &self.id).await?;
            }
            self.note_removed(ghost)?;
        }
        Ok(())
    }

    /// Records that a ghost no longer takes part here.
    fn note_removed(&mut self, ghost: &Ghost) -> Result<(), EngineError> {
        if let Some(here) = &mut self.record.conversation {
            here.ghosts.retain(|it| it != ghost);
        }
        let mut batch = Batch::new();
        batch.delete::<ActiveRoomsByGhost>(&(ghost.clone().into(), self.id.clone()));
        self.commit(batch, [])
    }

    /// Marks the ghost's invites that wait here as handled. The ghost is joined, so it came by one
    /// of them; once it has left, they would call it back.
    async fn ignore_invites(&self, ghost: &Ghost) -> Result<(), EngineError> {
        let engine = &self.engine;
        let mut batch = Batch::new();
        let waiting = self.waiting_memberships(ghost)?.into_iter();
        for (key, event, _) in waiting.filter(|(_, _, is_invite)| *is_invite) {
            match event {
                Some(event) => engine.mark_seen(&event, true, &mut batch)?,
                None => batch.delete::<Inbox>(&key),
            }
        }
        // Durable before the ghost leaves: after a crash the old invite would look like a new one.
        Ok(engine.store().commit(batch).await?)
    }

    /// Returns whether the latest unhandled membership of a ghost in the inbox is an invite.
    pub(in crate::engine) fn is_about_to_be_invited(
        &self,
        ghost: &Ghost,
    ) -> Result<bool, EngineError> {
        let waiting = self.waiting_memberships(ghost)?;
        Ok(waiting.last().is_some_and(|(_, _, is_invite)| *is_invite))
    }

    /// Returns the memberships of a ghost that wait in the inbox, in order: the key, the event if it
    /// came as one, and whether it is an invite.
    fn waiting_memberships(&self, ghost: &Ghost) -> Result<Vec<WaitingMembership>, EngineError> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let room = prefix(&self.id);
            let store = self.engine.store();
            let page = store.scan::<Inbox>(&room, after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(found);
            };
            after = Some(last.clone());
            for (key, arrived) in page {
                match arrived {
                    InboxItem::Event(json) | InboxItem::AfterGap(json) => {
                        let Some(event) = RoomEvent::parse(&json, Some(&self.id)) else {
                            continue;
                        };
                        if let Some((user, membership)) = event.membership()
                            && user == *ghost
                        {
                            let is_invite = membership == "invite";
                            found.push((key, Some(event.id), is_invite));
                        }
                    }
                    InboxItem::Invite { user, .. } if user == *ghost => {
                        found.push((key, None, true));
                    }
                    _ => {}
                }
            }
        }
    }

    pub(in crate::engine) async fn delete_ghosts(
        &self,
        ghosts: &[Ghost],
    ) -> Result<Vec<Input>, EngineError> {
        for ghost in ghosts {
            self.engine.machines().retire(ghost).await?;
        }
        Ok(Vec::new())
    }
}
