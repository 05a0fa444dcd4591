//! Makes one of our users again when the homeserver does not have it, its device or its keys: its
//! database was set back, or somebody deleted them.

use std::{sync::PoisonError, time::Duration};

use ruma::{OwnedUserId, UserId};

use crate::{
    clock,
    crypto::CryptoError,
    directory::FreezeReason,
    engine::{Engine, EngineError, records::RestoreProgress},
    handle::Handle,
    ids::Ghost,
    store::{Batch, StoreError},
};

/// Minimum time between two attempts to make the same user again, unless the first one failed.
const PAUSE: Duration = Duration::from_secs(60);
/// How long to wait after an attempt that failed; it doubles with each further one, up to
/// [`PAUSE`].
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    /// Makes the user again that an error names as missing. The caller tries again what has failed.
    pub(in crate::engine) async fn restore_missing_user(&self, error: &EngineError) {
        let Some(user) = error.missing_user().map(UserId::to_owned) else {
            return;
        };
        if self.is_ours(&user) {
            self.make_again(&user, &error.to_string()).await;
        }
    }

    /// Makes a user again that the homeserver does not have as we do, unless that was tried a moment
    /// ago. `what` says what the homeserver lacks. What fails is tried again
    /// ([`Engine::keep_restoring_users`]).
    pub(in crate::engine) async fn make_again(&self, user: &OwnedUserId, what: &str) {
        if !self.may_restore(user) {
            return;
        }
        tracing::error!(%user, %what, "the homeserver does not have one of our users as we do; it is made again");
        match self.restore_user(user).await {
            Ok(()) => tracing::warn!(%user, "the user is made again"),
            Err(error) => {
                tracing::error!(%user, %error, "the user could not be made again; it is tried again");
                self.0.restore_failed.notify_one();
            }
        }
    }

    /// Finishes what [`Engine::make_again`] began, and a failure or a crash interrupted,
    /// until the service stops. Once the user and its device are there, no request of theirs shows
    /// that keys are missing.
    pub(in crate::engine) async fn keep_restoring_users(&self) {
        let mut stop = self.0.stop.subscribe();
        let mut pause = RETRY_PAUSE;
        loop {
            let tries_again = self.finish_restores().await.is_err();
            tokio::select! {
                () = self.0.restore_failed.notified(), if !tries_again => pause = RETRY_PAUSE,
                () = clock::sleep(pause), if tries_again => pause = (pause * 2).min(PAUSE),
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Makes the users again whose making is not finished. Returns the last error after which it is
    /// worth trying again.
    pub(in crate::engine) async fn finish_restores(&self) -> Result<(), EngineError> {
        let mut result = Ok(());
        for user in self.machines().unfinished_restores()? {
            match self.restore_user(&user).await {
                Ok(()) => tracing::warn!(%user, "the user is made again"),
                Err(error) => {
                    tracing::error!(%user, %error, "the user could not be made again");
                    if error.is_transient() {
                        result = Err(error);
                    }
                }
            }
        }
        result
    }

    /// Returns the reason for which a handle is frozen whose ghost turns out to be somebody else's.
    pub(in crate::engine) fn reason_of_freezing(&self) -> Result<FreezeReason, StoreError> {
        Ok(if self.store().contains::<RestoreProgress>(&0)? {
            FreezeReason::ChangedSinceBackup
        } else {
            FreezeReason::GhostNotOurs
        })
    }

    fn may_restore(&self, user: &OwnedUserId) -> bool {
        let now = self.now();
        let tried = self.0.restored_users.lock();
        let mut tried = tried.unwrap_or_else(PoisonError::into_inner);
        tried.retain(|_, at| now.since(*at) < PAUSE);
        tried.insert(user.clone(), now).is_none()
    }

    async fn restore_user(&self, user: &OwnedUserId) -> Result<(), EngineError> {
        let ghost = Ghost::new(user.clone());
        let record = self.directory().by_ghost(&ghost)?;
        let name = if *user == self.settings().bot {
            Some(self.settings().bot_name.clone())
        } else {
            record.as_ref().map(|record| record.handle.to_string())
        };
        let restored = self
            .machines()
            .restore_on_homeserver(user, name.as_deref())
            .await;
        if let (Err(CryptoError::Foreign { .. }), Some(_)) = (&restored, record) {
            tracing::error!(%user, "a handle is frozen: its ghost is not ours alone");
            self.freeze_foreign(&ghost).await?;
        }
        Ok(restored?)
    }

    /// Freezes the handle of a ghost that turns out to be somebody else's, if somebody holds it. After
    /// a restore it may be ours nevertheless, and an admin can have it taken over.
    pub(in crate::engine) async fn freeze_foreign(&self, ghost: &Ghost) -> Result<(), EngineError> {
        let Some(handle) = Handle::of_ghost(ghost.localpart()) else {
            return Ok(());
        };
        let reason = self.reason_of_freezing()?;
        let mut tx = self.directory().begin().await;
        if !tx.freeze(&handle, reason.clone(), self.now())? {
            return Ok(());
        }
        let mut batch = Batch::new();
        if reason == FreezeReason::ChangedSinceBackup {
            let record = self.store().get::<RestoreProgress>(&0)?;
            let mut record = record.unwrap_or_default();
            record.note_changed(ghost, "its ghost has keys that are not in the backup");
            batch.put::<RestoreProgress>(&0, &record)?;
        }
        let lock = tx.stage(&mut batch);
        let written = self.store().commit(batch).await;
        drop(lock);
        Ok(written?)
    }
}
