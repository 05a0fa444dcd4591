//! Carries out what a command to the bot has started.

use ruma::OwnedUserId;

use crate::{
    bot,
    clock::Timestamp,
    directory::{self, HandleRecord},
    engine::{
        Engine, EngineError,
        ghosts::is_foreign,
        records::{InboxItem, OwedGhost, OwedGhosts, RestoreProgress},
    },
    ids::{Ghost, Person},
    introduction::Refusal,
    store::{Batch, Store, StoreError},
};

/// Returns the ghosts that are still to be made or removed, at most `limit`. Those of handles
/// that froze by themselves are left out: nothing is done to them until an admin has decided.
pub fn owed_ghosts(store: &Store, limit: usize) -> Result<Vec<OwnedUserId>, StoreError> {
    let mut ghosts: Vec<OwnedUserId> = Vec::new();
    for page in store.pages::<OwedGhosts>(&[]) {
        for (ghost, owed) in page? {
            if ghosts.len() >= limit {
                return Ok(ghosts);
            }
            let removes = matches!(owed.effect, bot::Effect::RetireGhost { .. });
            if removes || !directory::is_in_doubt(store, &ghost)? {
                ghosts.push(ghost.into());
            }
        }
    }
    Ok(ghosts)
}

impl Engine {
    /// Carries out what a command has led to. `number` tells it from every other effect, also after
    /// a restart.
    pub(in crate::engine) async fn carry_out_bot_effect(
        &self,
        effect: &bot::Effect,
        number: u64,
    ) -> Result<(), EngineError> {
        match effect {
            bot::Effect::MakeGhost {
                ghost, generation, ..
            } => {
                let _one_at_a_time = self.0.ghost_effects.lock(ghost.clone()).await;
                match self.record_for(ghost, *generation)? {
                    Some(record) => self.make_ghost_of(ghost, &record).await,
                    None => Ok(()),
                }
            }
            bot::Effect::ReplaceIdentity {
                ghost, generation, ..
            } => {
                let _one_at_a_time = self.0.ghost_effects.lock(ghost.clone()).await;
                if self.record_for(ghost, *generation)?.is_none() {
                    return Ok(());
                }
                self.remove_ghost(ghost).await?;
                match self.record_for(ghost, *generation)? {
                    Some(record) => self.make_ghost_of(ghost, &record).await,
                    None => Ok(()),
                }
            }
            bot::Effect::RetireGhost {
                ghost,
                generation,
                released_at,
            } => self.retire_ghost(ghost, *generation, *released_at).await,
            bot::Effect::EndConversations {
                ghost,
                blocked_only,
                generation,
            } => {
                self.end_conversations_of(ghost, *generation, *blocked_only)
                    .await
            }
            // Only the person's own room does these.
            bot::Effect::ErasePerson { .. } | bot::Effect::SendExport { .. } => {
                Err(EngineError::Refused(Refusal::Impossible))
            }
            bot::Effect::SetName {
                person,
                ghost,
                name,
            } => self.rename_in_direct(person, ghost, name).await,
            bot::Effect::AnswerRequest {
                room,
                ghost,
                accepted,
                masked,
            } => {
                let arrived = InboxItem::Answered {
                    ghost: ghost.clone(),
                    accepted: *accepted,
                    masked: *masked,
                };
                self.post(room, &arrived, Batch::new()).await?;
                Ok(())
            }
            bot::Effect::Tell { person, notice } => {
                let source = format!("{number}{person}{}", notice.plain);
                self.notify(person, notice.clone(), source).await
            }
        }
    }

    /// Ends the conversations of a handle, unless it has another owner by now.
    async fn end_conversations_of(
        &self,
        ghost: &Ghost,
        generation: u32,
        blocked_only: bool,
    ) -> Result<(), EngineError> {
        let record = self.directory().by_ghost(ghost)?;
        if record.is_some_and(|it| generation > 0 && it.generation != generation) {
            return Ok(());
        }
        match blocked_only {
            true => self.end_blocked_conversations(ghost).await,
            false => self.end_all_conversations(ghost).await,
        }
    }

    /// Returns the record of a ghost's handle, if somebody holds it and is the owner of this
    /// generation (0 for any), and if the ghost is not known to be somebody else's.
    fn record_for(
        &self,
        ghost: &Ghost,
        generation: u32,
    ) -> Result<Option<HandleRecord>, EngineError> {
        let record = self.directory().by_ghost(ghost)?;
        let held = record.filter(|record| record.holder().is_some() && !record.is_in_doubt());
        Ok(held.filter(|record| generation == 0 || record.generation == generation))
    }

    async fn make_ghost_of(&self, ghost: &Ghost, record: &HandleRecord) -> Result<(), EngineError> {
        let strict = record.is_strict(self.settings().strict);
        self.make_ghost(ghost, &record.handle.to_string(), strict)
            .await
    }

    /// Ends what a ghost takes part in, and destroys its keys.
    async fn remove_ghost(&self, ghost: &Ghost) -> Result<(), EngineError> {
        self.end_all_conversations(ghost).await?;
        self.leave_everywhere(ghost).await?;
        self.machines().retire(ghost).await?;
        self.take_over_changed(ghost).await
    }

    /// Removes what the owner of this generation has left of a handle's ghost.
    async fn retire_ghost(
        &self,
        ghost: &Ghost,
        generation: u32,
        released_at: Timestamp,
    ) -> Result<(), EngineError> {
        let _one_at_a_time = self.0.ghost_effects.lock(ghost.clone()).await;
        let held = self.directory().by_ghost(ghost)?;
        let held = held.filter(|record| record.holder().is_some());
        // It was claimed since; what was left then is cleared by that claim.
        let is_claimed_since = |it: &HandleRecord| {
            it.generation > generation
                || (released_at > Timestamp::default() && it.claimed_at > released_at)
        };
        if generation > 0 && held.is_some_and(|held| is_claimed_since(&held)) {
            return Ok(());
        }
        self.remove_ghost(ghost).await?;
        // Somebody else may have claimed the handle in the meantime.
        match self.record_for(ghost, 0)? {
            Some(record) => self.make_ghost_of(ghost, &record).await,
            None => Ok(()),
        }
    }

    /// Takes a ghost over that changed after the backup from which the service was restored, once an
    /// admin has decided about its handle: until then that is frozen.
    async fn take_over_changed(&self, ghost: &Ghost) -> Result<(), EngineError> {
        let is_it = |(changed, _): &(Ghost, String)| changed == ghost;
        let record = self.directory().by_ghost(ghost)?;
        if record.is_some_and(|record| record.is_in_doubt())
            || !self.restoration()?.changed.iter().any(is_it)
        {
            return Ok(());
        }
        self.machines().take_over(ghost).await?;
        // One at a time: the record of the restore is read and written.
        let tx = self.directory().begin().await;
        let mut record = self.restoration()?;
        record.changed.retain(|changed| !is_it(changed));
        let mut batch = Batch::new();
        batch.put::<RestoreProgress>(&0, &record)?;
        self.store().commit(batch).await?;
        drop(tx);
        Ok(())
    }

    /// Stages that an effect on a ghost is still to be done, in place of an earlier one. What a later
    /// owner of the handle needs stays, and so does what includes this effect.
    pub(in crate::engine) fn stage_owed_ghost(
        &self,
        effect: &bot::Effect,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let Some(ghost) = effect.changed_ghost() else {
            return Ok(());
        };
        let owed = self.store().get::<OwedGhosts>(ghost)?;
        let stays = owed.is_some_and(|owed| {
            let only_makes = matches!(effect, bot::Effect::MakeGhost { .. });
            let removes = !matches!(owed.effect, bot::Effect::MakeGhost { .. });
            let (known, new) = (owed.effect.generation(), effect.generation());
            known > new || (known == new && only_makes && removes)
        });
        if stays {
            return Ok(());
        }
        let owed = OwedGhost {
            effect: effect.clone(),
            number: self.next(),
        };
        batch.put::<OwedGhosts>(ghost, &owed)
    }

    /// Stages that an effect on a ghost, which has been carried out, is no longer to be done.
    pub(in crate::engine) fn settle_owed_ghost(
        &self,
        effect: &bot::Effect,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let Some(ghost) = effect.changed_ghost() else {
            return Ok(());
        };
        let owed = self.store().get::<OwedGhosts>(ghost)?;
        // What makes it anew also makes it.
        let includes = |owed: &bot::Effect| {
            matches!(effect, bot::Effect::ReplaceIdentity { .. })
                && matches!(owed, bot::Effect::MakeGhost { .. })
                && owed.generation() <= effect.generation()
        };
        if owed.is_some_and(|owed| owed.effect == *effect || includes(&owed.effect)) {
            batch.delete::<OwedGhosts>(ghost);
        }
        Ok(())
    }

    /// Returns the person for whom an effect makes a ghost, if they still hold its handle.
    pub(in crate::engine) fn holder_of(
        &self,
        effect: &bot::Effect,
    ) -> Result<Option<Person>, EngineError> {
        let Some(ghost) = effect.changed_ghost() else {
            return Ok(None);
        };
        let record = self.directory().by_ghost(ghost)?;
        let is_theirs = |record: &HandleRecord| {
            effect.generation() == 0 || record.generation == effect.generation()
        };
        let record = record.filter(is_theirs);
        Ok(record.and_then(|record| record.holder().cloned()))
    }

    /// Tries again what is still to be done to ghosts.
    pub(in crate::engine) async fn carry_out_owed(&self) -> Result<(), EngineError> {
        for page in self.store().pages::<OwedGhosts>(&[]) {
            for (ghost, owed) in page? {
                if self.stopping() {
                    return Ok(());
                }
                self.carry_out_owed_ghost(&ghost, &owed).await?;
            }
        }
        Ok(())
    }

    async fn carry_out_owed_ghost(
        &self,
        ghost: &Ghost,
        owed: &OwedGhost,
    ) -> Result<(), EngineError> {
        let removes = matches!(owed.effect, bot::Effect::RetireGhost { .. });
        if !removes && directory::is_in_doubt(self.store(), ghost)? {
            return Ok(());
        }
        let notice = match self.carry_out_bot_effect(&owed.effect, owed.number).await {
            Ok(()) => bot::texts::ghost_made(&owed.effect),
            Err(error) if is_foreign(&error) => bot::texts::ghost_failed(&owed.effect),
            Err(EngineError::Stopping) => return Err(EngineError::Stopping),
            Err(error) => {
                tracing::warn!(%ghost, %error, "a ghost could not be set up; it is tried again");
                return Ok(());
            }
        };
        let mut batch = Batch::new();
        // Nobody is told of what another owner's claim has overtaken.
        if let (Some(owner), Some(notice)) = (self.holder_of(&owed.effect)?, notice) {
            self.stage_owed_notice(owner, notice, &mut batch)?;
        }
        // A command may have put something else there in the meantime.
        if self.store().get::<OwedGhosts>(ghost)?.as_ref() == Some(owed) {
            batch.delete::<OwedGhosts>(ghost);
        }
        Ok(self.store().commit(batch).await?)
    }
}
