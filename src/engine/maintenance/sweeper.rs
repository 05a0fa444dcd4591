//! Deletes expired records of the directory, the bot, the machines and the conversations, and gives
//! up rooms to which nobody comes.

use crate::{
    bot,
    engine::{
        Engine, EngineError,
        records::{ControlRooms, InboxItem, Rooms},
    },
    store::Batch,
};

/// Maximum number of records that are deleted in one write.
pub(in crate::engine) const SWEPT_AT_ONCE: usize = 500;

impl Engine {
    /// Deletes expired records.
    pub(in crate::engine) async fn sweep(&self) -> Result<(), EngineError> {
        self.machines().sweep().await?;
        self.forget_lost_sessions()?;
        loop {
            let mut tx = self.directory().begin().await;
            let looked_at = tx.sweep(self.now(), SWEPT_AT_ONCE)?
                + bot::sweep_confirmations(&mut tx, self.now(), SWEPT_AT_ONCE)?;
            tx.commit().await?;
            if looked_at < SWEPT_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Gives up the control rooms to which their people have not come.
    pub(in crate::engine) async fn expire_control_rooms(&self) -> Result<(), EngineError> {
        for page in self.store().pages::<ControlRooms>(&[]) {
            for (_, room) in page? {
                let record = self.store().get::<Rooms>(&room)?;
                let control = record.and_then(|record| record.control);
                if control.is_some_and(|control| control.has_expired(self.now())) {
                    let expired = InboxItem::ControlRoomExpired;
                    self.post(&room, &expired, Batch::new()).await?;
                }
            }
        }
        Ok(())
    }
}
