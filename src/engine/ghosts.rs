//! Ghosts as users of the homeserver: how they are made and removed, and whether their handles can
//! be trusted.

use crate::{
    crypto::CryptoError,
    engine::{
        Engine, EngineError,
        records::{RestoreProgress, RestoreRecord, SyncTokens},
    },
    handle::Handle,
    ids::Ghost,
    introduction::Reason,
    matrix::{Actor, Fate, MatrixError},
    store::{Batch, Store, StoreError},
};

/// Returns whether an error of a machine means that a ghost is no longer ours.
pub(in crate::engine) fn is_foreign(error: &EngineError) -> bool {
    matches!(error, EngineError::Crypto(CryptoError::Foreign { .. }))
}

/// Returns how the ghost of a handle differed from the backup from which the service was restored, in
/// words for the admin.
pub fn change_since_backup(store: &Store, handle: &Handle) -> Result<Option<String>, StoreError> {
    let record = store.get::<RestoreProgress>(&0)?.unwrap_or_default();
    let localpart = handle.ghost_localpart();
    let mut changed = record.changed.into_iter();
    Ok(changed.find_map(|(ghost, how)| (ghost.localpart() == localpart).then_some(how)))
}

impl Engine {
    /// Makes a ghost with its keys. If somebody else holds the name, the handle is frozen: anybody
    /// who has that account could be taken for its owner.
    pub(in crate::engine) async fn make_ghost(
        &self,
        ghost: &Ghost,
        name: &str,
        strict: bool,
    ) -> Result<(), EngineError> {
        let made = if strict {
            self.machines().provision_keyless(ghost, name).await
        } else {
            self.machines().provision(ghost, name).await
        };
        match made.map_err(EngineError::from) {
            Err(error) if is_foreign(&error) => {
                tracing::error!(%ghost, %error, "a handle is frozen: its ghost's name is taken");
                self.freeze_foreign(ghost).await?;
                Err(error)
            }
            Err(error) => Err(error),
            // From here on a sync returns only what is new.
            Ok(()) if self.store().get::<SyncTokens>(ghost)?.is_none() => {
                self.sync_all_pending(ghost).await
            }
            Ok(()) => Ok(()),
        }
    }

    /// Lets a ghost leave all its rooms, in the words of every decline: those who wait for an
    /// answer must not learn whether the handle was released. The ghost's conversations have been
    /// ended before.
    pub(in crate::engine) async fn leave_everywhere(
        &self,
        ghost: &Ghost,
    ) -> Result<(), EngineError> {
        let actor = Actor::user(ghost);
        let rooms = match self.homeserver().joined_rooms(actor).await {
            Ok(rooms) => rooms,
            // It was never made.
            Err(MatrixError::NoSuchUser { .. }) => return Ok(()),
            Err(error) if error.fate() == Fate::Final => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let reason = Some(Reason::NotNow.words());
        for room in rooms {
            match self.leave(ghost, &room, reason, None).await {
                Ok(()) => {}
                // One room that is broken keeps nothing else from being taken away.
                Err(EngineError::Matrix(
                    error @ (MatrixError::Refused { .. } | MatrixError::Failing { .. }),
                )) if error.fate() != Fate::Unclear => {
                    tracing::warn!(%ghost, %room, %error, "a ghost cannot leave a room");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(in crate::engine) fn restoration(&self) -> Result<RestoreRecord, StoreError> {
        Ok(self.store().get::<RestoreProgress>(&0)?.unwrap_or_default())
    }

    /// Freezes the handle of a ghost that differs from the backup, until the admin has looked at
    /// it. The ghost leaves all its rooms.
    pub(in crate::engine) async fn freeze_changed(
        &self,
        ghost: &Ghost,
        what: &str,
    ) -> Result<(), EngineError> {
        tracing::warn!(%ghost, what, "a ghost changed since the backup");
        let mut tx = self.directory().begin().await;
        let mut record = self.restoration()?;
        record.note_changed(ghost, what);
        if let Some(handle) = Handle::of_ghost(ghost.localpart()) {
            tx.freeze_changed(&handle, ghost, self.now())?;
        }
        let mut batch = Batch::new();
        let lock = tx.stage(&mut batch);
        batch.put::<RestoreProgress>(&0, &record)?;
        self.store().commit(batch).await?;
        drop(lock);
        self.leave_everywhere(ghost).await
    }

    /// Freezes a name that we do not know and somebody holds, if there was a restore: most likely
    /// the name was claimed after the backup. Returns whether there was a restore.
    pub(in crate::engine) async fn freeze_if_changed_in_restore(
        &self,
        ghost: &Ghost,
    ) -> Result<bool, EngineError> {
        let Some(record) = self.store().get::<RestoreProgress>(&0)? else {
            return Ok(false);
        };
        if record.changed.iter().any(|(known, _)| known == ghost) {
            return Ok(true);
        }
        self.freeze_changed(ghost, "it is on the homeserver and not in the backup")
            .await?;
        Ok(true)
    }
}
