//! Publishes the keys of our users again when the homeserver has lost them.

use crate::{
    engine::{Engine, EngineError},
    matrix::KEYS_ASKED_MAX,
};

impl Engine {
    /// Looks for users of ours whose keys the homeserver has lost, and publishes them again. For a
    /// user that cannot be made again now, it is tried again until it succeeds.
    pub(in crate::engine) async fn publish_lost_keys(&self) -> Result<(), EngineError> {
        let Some(bot) = self.find_user(&self.settings().bot)? else {
            return Ok(());
        };
        let users = self.machines().known_users()?;
        for some in users.chunks(KEYS_ASKED_MAX) {
            if self.stopping() {
                return Ok(());
            }
            let lost = self.machines().users_with_lost_keys(bot.actor(), some);
            match lost.await {
                Ok(lost) => {
                    for user in lost {
                        self.make_again(&user, "it is shown without its keys").await;
                    }
                }
                // The others are looked at all the same.
                Err(error) => {
                    tracing::warn!(%error, "lost keys could not be looked for; trying again later");
                }
            }
        }
        Ok(())
    }
}
