//! Deletes expired records of the directory and the bot.

use crate::{
    bot,
    engine::{Engine, EngineError},
};

/// Maximum number of records that are deleted in one write.
pub(in crate::engine) const SWEPT_AT_ONCE: usize = 500;

impl Engine {
    /// Deletes the directory's expired records.
    pub(in crate::engine) async fn sweep(&self) -> Result<(), EngineError> {
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
