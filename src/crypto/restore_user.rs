//! Ghosts that the homeserver does not have as we do.
//!
//! The homeserver's database may have been set back, or somebody may have deleted the ghost's device.
//! The keys are still here, so the same device is made again, with the same keys, signed by the same
//! identity: nobody's client warns of a change.

use matrix_sdk_crypto::{DecryptionSettings, EncryptionSyncChanges, TrustRequirement};
use ruma::{
    OneTimeKeyAlgorithm, OwnedUserId, UInt, UserId, api::client::sync::sync_events::DeviceLists,
};

use super::{
    CryptoError, Machines, account,
    machines::lock_provisioning,
    provision::check_nothing_foreign,
    record::{GhostKind, GhostRecord, GhostRecords, Step},
    slot::InUse,
};
use crate::matrix::Actor;

impl Machines {
    /// Makes a ghost that is ready, and that the homeserver does not have, once more: the user, its
    /// device, and its keys. `name` is its display name, if it has one of its own.
    ///
    /// The ghost stays ready while this runs: what others send to it meanwhile is received. After an
    /// error, or a crash, call this again ([`Machines::unfinished_restores`]).
    pub async fn restore_on_homeserver(
        &self,
        user: &UserId,
        name: Option<&str>,
    ) -> Result<(), CryptoError> {
        let slot = self.slot(user);
        let _one_at_a_time = lock_provisioning(&slot).await;
        let record = self.record(user)?;
        let Some(mut record) = record.filter(|record| record.step == Step::Ready) else {
            return Ok(());
        };
        // Once the homeserver has the user and the device again, none of its answers shows that
        // keys are missing. Written in the record that is held as well, since a keyless ghost
        // commits that one again before all of its keys are published.
        self.set_being_restored(user, true)?;
        record.being_restored = true;
        self.0.store.flush().await?;
        // Does nothing if the user is there.
        if self.0.hs.register(user.localpart()).await? {
            self.0.hs.note_missing(user);
        }
        match record.kind {
            GhostKind::Bare => {}
            GhostKind::Machine => self.restore_machine(user, record, name).await?,
            // Nobody has the private keys that were lost, so nobody misses them.
            GhostKind::Keyless => self.replace_nobodys_keys(user, record, name).await?,
        }
        self.set_being_restored(user, false)
    }

    fn set_being_restored(&self, user: &UserId, being_restored: bool) -> Result<(), CryptoError> {
        self.update_record(user, |record| {
            record.being_restored = being_restored;
            true
        })
    }

    /// Returns the ghosts whose restoring began and has not ended.
    pub fn unfinished_restores(&self) -> Result<Vec<OwnedUserId>, CryptoError> {
        let mut users = Vec::new();
        for page in self.0.store.pages::<GhostRecords>(&[]) {
            let unfinished = page?
                .into_iter()
                .filter(|(_, record)| record.being_restored && record.step == Step::Ready);
            users.extend(unfinished.map(|(user, _)| user));
        }
        Ok(users)
    }

    async fn restore_machine(
        &self,
        user: &UserId,
        mut record: GhostRecord,
        name: Option<&str>,
    ) -> Result<(), CryptoError> {
        self.make_device(user, &mut record).await?;
        let shown = self
            .0
            .hs
            .query_keys(Actor::user(user), [user.to_owned()])
            .await?;
        check_nothing_foreign(user, &record, &shown)?;
        let slot = self.slot(user);
        // Nobody else uploads keys: without the private half of the identity they would be unsigned.
        let _nothing_else_is_uploaded = slot.sending.lock().await;
        let store = self.0.stores.ghost(user)?;
        {
            let _unloaded = self.unload(&slot).await;
            account::mark_as_not_uploaded(&store).await?;
        }
        let ghost = self.signing_machine(user).await?;
        make_one_time_keys(&ghost).await?;
        let requests = ghost.machine.bootstrap_cross_signing(false).await?;
        self.0.store.flush().await?;
        self.upload(&ghost, requests).await?;
        self.check_published(&ghost, &record).await?;
        if let Some(name) = name {
            self.0.hs.set_display_name(ghost.actor(), name).await?;
        }
        // Unloaded, so that the next task gets a machine that cannot sign.
        drop(ghost);
        drop(self.unload(&slot).await);
        Ok(())
    }
}

/// Lets the machine make one-time keys for a homeserver that has none.
async fn make_one_time_keys(ghost: &InUse) -> Result<(), CryptoError> {
    let none = (OneTimeKeyAlgorithm::SignedCurve25519, UInt::from(0_u32));
    let changes = EncryptionSyncChanges {
        to_device_events: Vec::new(),
        changed_devices: &DeviceLists::new(),
        one_time_keys_counts: &[none].into(),
        unused_fallback_keys: None,
        next_batch_token: None,
    };
    let settings = DecryptionSettings {
        sender_device_trust_requirement: TrustRequirement::Untrusted,
    };
    let _one_at_a_time = ghost.slot.olm.lock().await;
    let receiving = ghost.machine.receive_sync_changes(changes, &settings);
    receiving.await?;
    Ok(())
}
