//! What the admin does over the admin socket.

use ruma::OwnedRoomId;

use crate::{
    bot::{ActReport, Effect, NoticeText, report_act, report_grantee_act},
    directory::{ActError, DirectoryTransaction, GranteeOrder, HandleOrder},
    engine::{Engine, records::InboxItem},
    store::{Batch, StoreError},
};

impl Engine {
    /// Does what the admin orders. The change, and what follows from it for ghosts and people, are
    /// durable when this returns; they are carried out afterwards.
    pub async fn act_on_handle(&self, order: &HandleOrder<'_>) -> Result<NoticeText, ActError> {
        let mut tx = self.directory().begin().await;
        let change = tx.act_on_handle(order, self.now())?;
        let server = &self.settings().server_name;
        let module = self.bot_options().module_loaded;
        let report = report_act(order.act, change, order.reason, server, module);
        self.finish_act(tx, report).await
    }

    /// Does what the admin orders about a person or a server. The change, and what people are to be
    /// told, are durable when this returns.
    pub async fn act_on_grantee(&self, order: &GranteeOrder<'_>) -> Result<NoticeText, ActError> {
        let mut tx = self.directory().begin().await;
        let handles = tx.act_on_grantee(order, self.now())?;
        self.finish_act(tx, report_grantee_act(order, &handles))
            .await
    }

    async fn finish_act(
        &self,
        tx: DirectoryTransaction<'_>,
        report: ActReport,
    ) -> Result<NoticeText, ActError> {
        let mut batch = Batch::new();
        let mut rooms = Vec::new();
        for effect in report.effects {
            rooms.extend(self.stage_act_effect(effect, &mut batch)?);
        }
        let lock = tx.stage(&mut batch);
        let written = self.store().commit(batch).await;
        drop(lock);
        written?;
        for room in rooms {
            self.wake(&room);
        }
        self.0.owed_noted.notify_one();
        Ok(report.text)
    }

    /// Stages an effect of an act. Returns the room that it waits in, if that exists.
    fn stage_act_effect(
        &self,
        effect: Effect,
        batch: &mut Batch,
    ) -> Result<Option<OwnedRoomId>, StoreError> {
        match effect {
            Effect::MakeGhost { .. }
            | Effect::ReplaceIdentity { .. }
            | Effect::RetireGhost { .. } => {
                self.stage_owed_ghost(&effect, batch)?;
                Ok(None)
            }
            Effect::Tell { person, notice } => {
                self.stage_owed_notice(person, notice, batch)?;
                Ok(None)
            }
            Effect::AnswerRequest {
                room,
                ghost,
                accepted,
                masked,
            } => {
                let item = InboxItem::Answered {
                    ghost,
                    accepted,
                    masked,
                };
                self.stage(&room, &item, batch)?;
                Ok(Some(room))
            }
            other => {
                tracing::error!(
                    kind = other.kind(),
                    "an act has an effect that is not known"
                );
                Ok(None)
            }
        }
    }
}
