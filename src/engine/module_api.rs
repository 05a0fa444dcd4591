//! Answers to the homeserver's module while a room is being created.

use std::{sync::atomic::Ordering, time::Duration};

use ruma::{OwnedUserId, UserId};
use tracing::warn;

use crate::{
    directory::DirectoryError, engine::Engine, handle::Handle, ids::Person,
    metrics::catalogue::INTRODUCTIONS,
};

/// How long counts may wait to be written.
const SETTLE_AFTER: Duration = Duration::from_millis(250);

impl Engine {
    /// Notes that the module is loaded: the bot then explains how chats begin with it.
    pub fn note_module(&self) {
        self.0.module_loaded.store(true, Ordering::Relaxed);
    }

    /// Returns for each of these ghosts the owner to invite in its place, or `None` to keep the
    /// ghost, which then answers its invite as it does without the module.
    ///
    /// Nothing is known of the room, and nothing about it is kept.
    pub async fn owners_to_invite(
        &self,
        asker: &UserId,
        ghosts: &[OwnedUserId],
    ) -> Result<Vec<Option<OwnedUserId>>, DirectoryError> {
        let nobody = vec![None; ghosts.len()];
        // Inviting more ghosts than this looks like a search for handles: all but the first decline.
        if self.is_ours(asker) || ghosts.len() > self.settings().handles_per_room {
            return Ok(nobody);
        }
        let mut places = Vec::new();
        let mut handles = Vec::new();
        for (place, ghost) in ghosts.iter().enumerate() {
            let handle = if self.is_ours(ghost) {
                Handle::of_ghost(ghost.localpart())
            } else {
                None
            };
            if let Some(handle) = handle.filter(|handle| !handles.contains(handle)) {
                places.push(place);
                handles.push(handle);
            }
        }
        let answers = if handles.is_empty() {
            Vec::new()
        } else {
            let (directory, asker) = (self.directory(), Person::new(asker.to_owned()));
            let answers = directory.introduce(&asker, &handles, self.now()).await?;
            self.settle_soon();
            answers
        };
        let mut owners = nobody;
        for (place, answer) in places.into_iter().zip(answers) {
            if answer.is_some() {
                INTRODUCTIONS.count(["module", "introduced"]);
            }
            owners[place] = answer.map(OwnedUserId::from);
        }
        Ok(owners)
    }

    /// Writes the counts after a moment, in which others may have asked as well.
    fn settle_soon(&self) {
        if self.0.settling.swap(true, Ordering::SeqCst) {
            return;
        }
        let engine = self.clone();
        self.spawn(async move {
            let mut stop = engine.0.stop.subscribe();
            let stopped = stop.wait_for(|stop| *stop);
            let _ = tokio::time::timeout(SETTLE_AFTER, stopped).await;
            engine.0.settling.store(false, Ordering::SeqCst);
            if let Err(error) = engine.directory().flush_deferred().await {
                warn!(%error, "the deferred counts could not be written");
            }
        });
    }
}
