//! What of the crypto records goes into a backup.
//!
//! Sessions do not: a backup that could decrypt what a ghost has forgotten since would undo the
//! forgetting, and a session that is taken up again at an older state would reuse keys. Nor does
//! the account, whose one-time keys have been used since. What goes is the ghost's cross-signing
//! identity, so that after a restore it can sign a new device and nobody is told that the
//! identity changed. It is sealed under the key of the store alone.

use std::io::Write;

use matrix_sdk_crypto::olm::{
    PickledAccount, PickledCrossSigningIdentity, PrivateCrossSigningIdentity,
};
use ruma::{OwnedDeviceId, UserId};
use serde::{Deserialize, Serialize};

use super::{
    GhostStoreError, GhostStores,
    record::{ACCOUNT, PRIVATE_IDENTITY, TABLE, broken},
    tenants::{Ghosts, Next},
};
use crate::store::{BackupInfo, BackupStats, Batch, Store, Table};

/// The identity of a ghost as it came out of a backup; deleted when its new device stands.
#[derive(Serialize, Deserialize)]
pub struct SavedIdentity {
    /// The device that the ghost had; to be deleted on the homeserver.
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
    /// The identity, to sign a new device with.
    pub fn into_identity(self) -> Result<PrivateCrossSigningIdentity, GhostStoreError> {
        PrivateCrossSigningIdentity::from_pickle(self.identity)
            .map_err(|e| broken(PRIVATE_IDENTITY, &e))
    }
}

/// The table of identities in a backup, to count them by.
pub const SAVED_IDENTITIES: u8 = SavedIdentities::ID;

/// Identities out of a backup, by the ghost's user id.
struct SavedIdentities;

impl Table for SavedIdentities {
    const ID: u8 = 5;
    const NAME: &'static str = "saved identities";
    const SECRET: bool = true;
    type Key = String;
    type Value = SavedIdentity;
}

impl GhostStores {
    /// Copy the whole store to `to` while it runs: of the crypto records the identities, of all
    /// other rooms everything but the tables in `further`. Blocks.
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
                let Some(identity) = ghost.ghost.value(PRIVATE_IDENTITY, &[])? else {
                    continue;
                };
                let account: Option<PickledAccount> = ghost.ghost.value(ACCOUNT, &[])?;
                let device_id = account.map(|account| account.device_id);
                let saved = SavedIdentity {
                    device_id,
                    identity,
                };
                identities.put::<SavedIdentities>(&user.to_string(), &saved)?;
            }
        }
        let own = [Ghosts::ID, Next::ID, TABLE, SavedIdentities::ID];
        let leave_out = [&own, further].concat();
        // An identity out of an earlier backup that no device stands for yet is still needed.
        let mut waiting = Batch::new();
        let mut after: Option<String> = None;
        loop {
            let page = self
                .store()
                .scan::<SavedIdentities>(&[], after.as_ref(), 256)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (user, saved) in page {
                waiting.put::<SavedIdentities>(&user, &saved)?;
            }
        }
        waiting.merge(identities);
        Ok(self.store().export(to, &leave_out, waiting)?)
    }

    /// The identity of a ghost that came out of a backup and has no new device yet.
    pub fn saved_identity(&self, user: &UserId) -> Result<Option<SavedIdentity>, GhostStoreError> {
        Ok(self.store().get::<SavedIdentities>(&user.to_string())?)
    }

    /// Add to a batch that the ghost's new device stands.
    pub fn forget_saved_identity(batch: &mut Batch, user: &UserId) {
        batch.delete::<SavedIdentities>(&user.to_string());
    }
}
