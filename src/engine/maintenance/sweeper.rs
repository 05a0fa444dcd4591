//! Deletes what the directory and the bot need not remember.

use crate::{
    bot,
    engine::{Engine, EngineError},
};

/// Maximum number of records that are deleted in one write.
pub(in crate::engine) const SWEPT_AT_ONCE: usize = 500;

impl Engine {
    /// Deletes what has expired in the directory.
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
