//! Carries out what a command to the bot has started.

use ruma::OwnedUserId;

use crate::{
    bot, directory,
    engine::{
        Engine, EngineError,
        ghosts::is_foreign,
        records::{InboxItem, OwedGhost, OwedGhosts},
    },
    ids::Ghost,
    store::{Batch, Store, StoreError},
};

/// Returns the ghosts that are still to be made or removed, at most `limit`. Those of frozen handles
/// are left out: nothing more is done to them.
pub fn owed_ghosts(store: &Store, limit: usize) -> Result<Vec<OwnedUserId>, StoreError> {
    let mut ghosts: Vec<OwnedUserId> = Vec::new();
    for page in store.pages::<OwedGhosts>(&[]) {
        for (ghost, owed) in page? {
            if ghosts.len() >= limit {
                return Ok(ghosts);
            }
            let removes = matches!(owed.effect, bot::Effect::RetireGhost { .. });
            if removes || !directory::is_frozen(store, &ghost)? {
                ghosts.push(ghost.into());
            }
        }
    }
    Ok(ghosts)
}

impl Engine {
    pub(in crate::engine) async fn carry_out_bot_effect(
        &self,
        effect: &bot::Effect,
    ) -> Result<(), EngineError> {
        match effect {
            bot::Effect::MakeGhost {
                ghost,
                name,
                strict,
            } => {
                self.make_ghost(ghost, name, *strict || self.settings().strict)
                    .await
            }
            bot::Effect::ReplaceIdentity {
                ghost,
                name,
                strict,
            } => {
                self.end_all_conversations(ghost).await?;
                self.leave_everywhere(ghost).await?;
                self.machines().retire(ghost).await?;
                self.make_ghost(ghost, name, *strict || self.settings().strict)
                    .await
            }
            bot::Effect::RetireGhost { ghost, generation } => {
                self.retire_ghost(ghost, *generation).await
            }
            bot::Effect::EndConversations {
                ghost,
                blocked_only: false,
            } => self.end_all_conversations(ghost).await,
            bot::Effect::EndConversations { ghost, .. } => {
                self.end_blocked_conversations(ghost).await
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
                let source = format!("{}{}", person, notice.plain);
                self.notify(person, notice.clone(), source).await
            }
        }
    }

    /// Removes what the owner of this generation has left of a handle's ghost.
    async fn retire_ghost(&self, ghost: &Ghost, generation: u32) -> Result<(), EngineError> {
        let held = self.directory().by_ghost(ghost)?;
        // A newer owner holds the handle; what the former owner left was cleared when they
        // claimed it.
        if held.is_some_and(|it| it.is_active() && it.generation > generation) && generation > 0 {
            return Ok(());
        }
        self.end_all_conversations(ghost).await?;
        self.leave_everywhere(ghost).await?;
        self.machines().retire(ghost).await?;
        // Somebody else may have claimed the handle in the meantime.
        match self.directory().by_ghost(ghost)? {
            Some(record) if record.is_active() => {
                let strict = record.strict || self.settings().strict;
                let name = record.handle.to_string();
                self.make_ghost(ghost, &name, strict).await
            }
            _ => Ok(()),
        }
    }

    /// Stages that an effect on a ghost is still to be done. It takes the place of an earlier one:
    /// whatever that was, this one leads to what the ghost has to be.
    pub(in crate::engine) fn stage_owed_ghost(
        &self,
        effect: &bot::Effect,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let Some(ghost) = effect.changed_ghost() else {
            return Ok(());
        };
        let owed = OwedGhost {
            effect: effect.clone(),
            generation: self.generation_of(ghost)?,
        };
        Ok(batch.put::<OwedGhosts>(ghost, &owed)?)
    }

    /// Returns which of the owners of its name holds a ghost's handle.
    fn generation_of(&self, ghost: &Ghost) -> Result<Option<u32>, EngineError> {
        let record = self.directory().by_ghost(ghost)?;
        let held = record.filter(|record| record.holder().is_some());
        Ok(held.map(|record| record.generation))
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
        if !removes && directory::is_frozen(self.store(), ghost)? {
            return Ok(());
        }
        // Another owner's claim has its own effects. A ghost that is to be removed is looked after
        // by the effect itself.
        let stands = removes || self.generation_of(ghost)? == owed.generation;
        let mut notice = None;
        if stands {
            notice = match self.carry_out_bot_effect(&owed.effect).await {
                Ok(()) => bot::texts::ghost_made(&owed.effect),
                Err(error) if is_foreign(&error) => bot::texts::ghost_failed(&owed.effect),
                Err(EngineError::Stopping) => return Err(EngineError::Stopping),
                Err(error) => {
                    tracing::warn!(%ghost, %error, "a ghost could not be set up; it is tried again");
                    return Ok(());
                }
            };
        }
        let record = self.directory().by_ghost(ghost)?;
        if let Some(owner) = record.as_ref().and_then(|record| record.holder())
            && let Some(notice) = notice
        {
            let source = format!("owed {ghost} {}", owed.generation.unwrap_or_default());
            self.notify(owner, notice, source).await?;
        }
        let mut batch = Batch::new();
        // A command may have put something else there in the meantime.
        if self.store().get::<OwedGhosts>(ghost)?.as_ref() == Some(owed) {
            batch.delete::<OwedGhosts>(ghost);
        }
        Ok(self.store().commit(batch).await?)
    }
}
