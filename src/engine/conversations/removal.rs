//! Redacts what a person has said when a moderator has removed them and wants that (MSC4293).

use std::collections::HashSet;

use ruma::{OwnedEventId, OwnedRoomId};

use crate::{
    conversation::{Conversation, RoomRole},
    engine::{
        EngineError,
        event::RoomEvent,
        packs::Copy,
        records::{CopyPacks, EventCopies},
        room::{Room, transaction_id},
    },
    store::{Batch, Digest, prefix},
};

/// What became of copies that were to be redacted.
#[derive(Default)]
struct Redactions {
    redacted: HashSet<OwnedEventId>,
    /// Why one of them may not be redacted.
    refused: Option<EngineError>,
    /// Why one of them could not be redacted now.
    failed: Option<EngineError>,
}

impl Redactions {
    /// Adds what became of further copies. Fails if one of them could not be redacted now.
    fn add(&mut self, more: Self) -> Result<(), EngineError> {
        self.refused = more.refused.or(self.refused.take());
        more.failed.map_or(Ok(()), Err)
    }
}

/// Returns whether an event that removes a person asks for the deletion of what they have said.
fn asks_to_redact(event: &RoomEvent) -> bool {
    let mut names = ["redact_events", "org.matrix.msc4293.redact_events"].into_iter();
    names.any(|name| event.content[name] == true)
}

impl Room {
    /// Returns whether the event, by which somebody else was removed from this room, also deletes
    /// what they have said: its sender needs the power to redact. The homeserver does not check that
    /// for us.
    pub(in crate::engine) async fn redacts_with(
        &self,
        event: &RoomEvent,
        conversation: &Conversation,
        role: RoomRole,
    ) -> Result<bool, EngineError> {
        let by_others = event.state_key.as_deref() != Some(event.sender.as_str());
        if !by_others || !asks_to_redact(event) {
            return Ok(false);
        }
        let Some(ghost) = conversation.ghosts_at(role).next() else {
            return Ok(false);
        };
        match self.engine.fetch_room_state(&ghost.ghost, &self.id).await {
            Ok(state) => Ok(state.may_redact(&event.sender)),
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Redacts, in another room, the copies of all events of this room that a person has sent: of all
    /// that are remembered. What is done is recorded, so that it is not done again after a failure.
    /// Fails in the end if one of them may not be redacted.
    pub(in crate::engine) async fn redact_copies_of(
        &self,
        conversation: &Conversation,
        person: usize,
        target: RoomRole,
    ) -> Result<(), EngineError> {
        let there = self.other_room(conversation, target)?;
        let to = Digest::of(&there);
        let from = prefix(&Digest::of(&self.id));
        let is_meant = |copy: &Copy| copy.there == to && usize::try_from(copy.by) == Ok(person);
        let store = self.engine.store();
        let mut redactions = Redactions::default();
        // A pack at a time, since it is written anew as a whole.
        let mut after = None;
        while let Some((key, mut pack)) = store.scan::<CopyPacks>(&from, after.as_ref(), 1)?.pop() {
            after = Some(key);
            let meant = pack.copies.iter().filter(|copy| is_meant(copy));
            let meant: Vec<OwnedEventId> = meant.map(|copy| copy.copy.clone()).collect();
            let redacting = self.redact_all(conversation, person, target, &there, meant);
            let done = redacting.await;
            if !done.redacted.is_empty() {
                pack.copies
                    .retain(|copy| !done.redacted.contains(&copy.copy));
                let mut batch = Batch::new();
                batch.put::<CopyPacks>(&key, &pack)?;
                store.apply(batch)?;
            }
            redactions.add(done)?;
        }
        for page in store.pages::<EventCopies>(&from) {
            let page: Vec<_> = page?
                .into_iter()
                .filter(|(_, copy)| is_meant(copy))
                .collect();
            let meant = page.iter().map(|(_, copy)| copy.copy.clone()).collect();
            let redacting = self.redact_all(conversation, person, target, &there, meant);
            let done = redacting.await;
            let mut batch = Batch::new();
            for (key, copy) in page {
                if done.redacted.contains(&copy.copy) {
                    batch.delete::<EventCopies>(&key);
                }
            }
            store.apply(batch)?;
            redactions.add(done)?;
        }
        redactions.refused.map_or(Ok(()), Err)
    }

    /// Redacts copies until a request fails that may succeed later.
    async fn redact_all(
        &self,
        conversation: &Conversation,
        person: usize,
        target: RoomRole,
        there: &OwnedRoomId,
        copies: Vec<OwnedEventId>,
    ) -> Redactions {
        let mut done = Redactions::default();
        for copy in copies {
            let redacting = self.redact_as_anybody(conversation, person, target, there, &copy);
            match redacting.await {
                Ok(()) => drop(done.redacted.insert(copy)),
                Err(error) if error.is_transient() => {
                    done.failed = Some(error);
                    break;
                }
                Err(error) => done.refused = Some(error),
            }
        }
        done
    }

    /// Redacts a copy as the ghost that has sent it, or as the one that administers the room if that
    /// ghost has left.
    pub(in crate::engine) async fn redact_as_anybody(
        &self,
        conversation: &Conversation,
        person: usize,
        target: RoomRole,
        there: &OwnedRoomId,
        copy: &OwnedEventId,
    ) -> Result<(), EngineError> {
        let author = conversation.people.get(person).into_iter();
        let others = conversation.ghosts_at(target);
        let mut refused = None;
        for ghost in author.chain(others).map(|person| &person.ghost) {
            let Some(acting) = self.engine.find_user(ghost)? else {
                continue;
            };
            let transaction = transaction_id(ghost, there, "carry-take-back-all", copy.as_str());
            let homeserver = self.engine.homeserver();
            let redacting = homeserver.redact(acting.actor(), there, copy, None, transaction);
            match redacting.await {
                Ok(_) => return Ok(()),
                Err(error) if error.has_errcode("M_FORBIDDEN") => refused = Some(error),
                // It is gone already.
                Err(error) if error.is_missing() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        match refused {
            Some(error) => Err(EngineError::Matrix(error)),
            None => Ok(()),
        }
    }
}
