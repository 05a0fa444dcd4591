//! The part of the crypto records that goes into a backup.
//!
//! Sessions do not: a backup that could decrypt what a ghost has forgotten since would undo the
//! forgetting, and a session that continues from an older state would reuse keys. Nor does the
//! account, whose one-time keys have been used since. Only the ghost's cross-signing identity does,
//! so that after a restore it can sign a new device and no client warns of a changed identity. It
//! is sealed under the key of the store alone.

use std::io::Write;

use matrix_sdk_crypto::olm::{
    PickledAccount, PickledCrossSigningIdentity, PrivateCrossSigningIdentity,
};
use ruma::{OwnedDeviceId, UserId};
use serde::{Deserialize, Serialize};

use super::{
    GhostStoreError, GhostStores,
    record::{ACCOUNT, PRIVATE_IDENTITY, TABLE, broken},
    registry::{GhostIds, NextGhostId},
};
use crate::store::{BackupInfo, BackupStats, Batch, Store, Table};

/// The identity of a ghost from a backup. Deleted when its new device is ready.
#[derive(Serialize, Deserialize)]
pub struct SavedIdentity {
    /// The ghost's former device, which has to be deleted on the homeserver.
    pub device_id: Option<OwnedDeviceId>,
    identity: PickledCrossSigningIdentity,
}

impl std::fmt::Debug for SavedIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedIdentity")
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

impl SavedIdentity {
    /// Returns the identity, to sign a new device with.
    pub fn into_identity(self) -> Result<PrivateCrossSigningIdentity, GhostStoreError> {
        PrivateCrossSigningIdentity::from_pickle(self.identity)
            .map_err(|e| broken(PRIVATE_IDENTITY, &e))
    }
}

/// The table of identities in a backup, to count them by.
pub const SAVED_IDENTITIES: u8 = SavedIdentities::ID;

/// The identities from a backup, by the ghost's user id.
struct SavedIdentities;

impl Table for SavedIdentities {
    const ID: u8 = 5;
    const NAME: &'static str = "saved identities";
    const SECRET: bool = true;
    type Key = String;
    type Value = SavedIdentity;
}

impl GhostStores {
    /// Copies the whole store to `to` while it runs: of the crypto records only the identities, of
    /// the other tables all but those in `further`. Blocks.
    pub fn export(
        &self,
        to: &mut dyn Write,
        further: &[u8],
        made: &BackupInfo,
    ) -> Result<BackupStats, GhostStoreError> {
        let mut identities = Batch::new();
        Store::put_backup_info(&mut identities, made)?;
        let mut after = None;
        loop {
            let users = self.users(after.as_deref(), 256)?;
            let Some(last) = users.last() else { break };
            after = Some(last.clone());
            for user in users {
                let Some(ghost) = self.existing(&user)? else {
                    continue;
                };
                let Some(identity) = ghost.ghost.records.value(PRIVATE_IDENTITY, &[])? else {
                    continue;
                };
                let account: Option<PickledAccount> = ghost.ghost.records.value(ACCOUNT, &[])?;
                let device_id = account.map(|account| account.device_id);
                let saved = SavedIdentity {
                    device_id,
                    identity,
                };
                identities.put::<SavedIdentities>(&user.to_string(), &saved)?;
            }
        }
        let own = [GhostIds::ID, NextGhostId::ID, TABLE, SavedIdentities::ID];
        let leave_out = [&own, further].concat();
        // An identity from an earlier backup without a new device is still needed.
        let mut waiting = Batch::new();
        for page in self.store().pages::<SavedIdentities>(&[]) {
            for (user, saved) in page? {
                waiting.put::<SavedIdentities>(&user, &saved)?;
            }
        }
        waiting.merge(identities);
        Ok(self.store().export(to, &leave_out, waiting)?)
    }

    /// Returns the identity from a backup of a ghost that has no new device yet.
    pub fn saved_identity(&self, user: &UserId) -> Result<Option<SavedIdentity>, GhostStoreError> {
        Ok(self.store().get::<SavedIdentities>(&user.to_string())?)
    }

    /// Adds the deletion of a ghost's saved identity to a batch.
    pub fn forget_saved_identity(batch: &mut Batch, user: &UserId) {
        batch.delete::<SavedIdentities>(&user.to_string());
    }
}
