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
            let mut change = self.directory().begin().await;
            let looked_at = change.sweep(self.now(), SWEPT_AT_ONCE)?
                + bot::sweep_confirmations(&mut change, self.now(), SWEPT_AT_ONCE)?;
            change.commit().await?;
            if looked_at < SWEPT_AT_ONCE {
                return Ok(());
            }
        }
    }
}
