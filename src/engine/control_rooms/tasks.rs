//! Carries out what a command to the bot has started.

use crate::{
    bot,
    engine::{Engine, EngineError, records::InboxItem},
    ids::Ghost,
    store::Batch,
};

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
}
