//! Deletes expired records of the directory, the bot, the machines and the conversations.

use crate::{
    bot,
    engine::{Engine, EngineError},
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
}
