//! Erases a person: what is kept about them, and what they take part in.

use ruma::{OwnedRoomId, UserId};

use crate::{
    bot::{self, Effect, NoticeText},
    directory::{ActError, ActingAdmin, ErasedPerson, Mode},
    engine::{
        Engine, EngineError,
        records::{
            ControlRooms, Conversations, InboxItem, LostSessions, OwedNotices, PendingNotices,
            RoomsToNotify,
        },
    },
    ids::{Ghost, Person},
    introduction::Refusal,
    store::{Batch, StoreError, prefix},
};

impl Engine {
    /// Erases a person on an admin's order, or on their own. The change, and what follows from it for
    /// ghosts and rooms, are durable when this returns; they are carried out afterwards.
    pub async fn erase_person(
        &self,
        person: &Person,
        by: &ActingAdmin,
        reason: &str,
    ) -> Result<NoticeText, ActError> {
        if self.is_ours(person) {
            return Err(ActError::NoPerson(person.to_owned().into()));
        }
        let erased = self.erase(person, by, reason).await?;
        Ok(bot::texts::erased(person, &erased.released))
    }

    /// Erases a person who wants it. Safe to repeat.
    pub(in crate::engine) async fn erase_themselves(
        &self,
        person: &Person,
    ) -> Result<(), EngineError> {
        let by = ActingAdmin::Person(person.clone());
        match self.erase(person, &by, "").await {
            Ok(_) => Ok(()),
            Err(ActError::Directory(error)) => Err(error.into()),
            Err(_) => Err(EngineError::Refused(Refusal::Impossible)),
        }
    }

    /// Erases a person whose account was deactivated, if anything is kept about them.
    pub async fn erase_deactivated(&self, user: &UserId) -> Result<(), ActError> {
        let person = Person::new(user.to_owned());
        if self.is_ours(user) || !self.keeps_something_of(&person)? {
            return Ok(());
        }
        let reason = "the account was deactivated";
        self.erase(&person, &ActingAdmin::Homeserver, reason)
            .await?;
        Ok(())
    }

    /// Returns whether the directory, the bot or a conversation keeps something of a person. What
    /// expires by itself within days does not count: most accounts have never used the service.
    fn keeps_something_of(&self, person: &Person) -> Result<bool, ActError> {
        let exported = self.directory().export_person(person, self.now())?;
        if exported.has_something_to_erase() || self.store().contains::<ControlRooms>(person)? {
            return Ok(true);
        }
        for page in self.store().pages::<PendingNotices>(&prefix(person)) {
            if !page?.is_empty() {
                return Ok(true);
            }
        }
        for page in self.store().pages::<Conversations>(&[]) {
            for (_, conversation) in page? {
                if conversation.people.iter().any(|it| it.user == *person) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn erase(
        &self,
        person: &Person,
        by: &ActingAdmin,
        reason: &str,
    ) -> Result<ErasedPerson, ActError> {
        let mut tx = self.directory().begin().await;
        let erased = tx.erase_person(person, by, reason, self.now())?;
        bot::forget_confirmation(&mut tx, person)?;
        let mut batch = Batch::new();
        let mut rooms = self.stage_what_follows(&erased, &mut batch)?;
        self.stage_end_of_conversations(person, &mut batch)?;
        rooms.extend(self.stage_goodbye(person, &mut batch)?);
        let lock = tx.stage(&mut batch);
        let written = self.store().commit(batch).await;
        drop(lock);
        written?;
        for room in rooms {
            self.wake(&room);
        }
        self.0.owed_noted.notify_one();
        Ok(erased)
    }

    /// Stages that the ghosts of their handles are removed, and that everybody who waits for an answer
    /// is turned down. Returns the rooms to be woken.
    fn stage_what_follows(
        &self,
        erased: &ErasedPerson,
        batch: &mut Batch,
    ) -> Result<Vec<OwnedRoomId>, StoreError> {
        // The ghost of a handle in doubt may be somebody else's, until an admin has decided.
        for record in erased.released.iter().filter(|it| !it.is_in_doubt()) {
            if let Some(ghost) = record.handle.ghost_id(&self.settings().server_name) {
                self.stage_removal(ghost, record.generation, batch)?;
            }
        }
        let mut rooms = Vec::new();
        for request in &erased.closed {
            let item = InboxItem::Answered {
                ghost: request.ghost.clone(),
                accepted: false,
                masked: request.mode == Mode::Masked,
            };
            self.stage(&request.room, &item, batch)?;
            rooms.push(request.room.clone());
        }
        Ok(rooms)
    }

    fn stage_removal(
        &self,
        ghost: Ghost,
        generation: u32,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let removal = Effect::RetireGhost {
            ghost,
            generation,
            released_at: self.now(),
        };
        self.stage_owed_ghost(&removal, batch)
    }

    /// Stages the end of the conversations of two in which a ghost shows a person. Groups go on
    /// without them, or with them as long as they are there: they are the conversations of others.
    fn stage_end_of_conversations(
        &self,
        person: &Person,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        for page in self.store().pages::<Conversations>(&[]) {
            for (_, conversation) in page? {
                if !conversation.direct {
                    continue;
                }
                let theirs = conversation.people.iter();
                let theirs = theirs.filter(|it| it.user == *person && it.is_alias);
                for participant in theirs {
                    self.stage_removal(participant.ghost.clone(), 0, batch)?;
                }
            }
        }
        for page in self.store().pages::<LostSessions>(&[]) {
            for (key, lost) in page? {
                if lost.sender == **person {
                    batch.delete::<LostSessions>(&key);
                }
            }
        }
        Ok(())
    }

    /// Stages that the bot leaves their control room, with what it had still to tell them. Returns the
    /// room.
    fn stage_goodbye(
        &self,
        person: &Person,
        batch: &mut Batch,
    ) -> Result<Option<OwnedRoomId>, StoreError> {
        let store = self.store();
        for page in store.pages::<PendingNotices>(&prefix(person)) {
            for (key, _) in page? {
                batch.delete::<PendingNotices>(&key);
            }
        }
        for page in store.pages::<OwedNotices>(&[]) {
            for (number, owed) in page? {
                if owed.person == *person {
                    batch.delete::<OwedNotices>(&number);
                }
            }
        }
        for page in store.pages::<RoomsToNotify>(&[]) {
            for (room, to_notify) in page? {
                if to_notify == *person {
                    batch.delete::<RoomsToNotify>(&room);
                }
            }
        }
        let room = store.get::<ControlRooms>(person)?;
        if let Some(room) = &room {
            let item = InboxItem::PersonErased {
                person: person.clone(),
            };
            self.stage(room, &item, batch)?;
        }
        Ok(room)
    }
}
