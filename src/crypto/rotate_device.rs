//! New devices after a restore.
//!
//! A backup holds a ghost's cross-signing identity, and none of its sessions. So each ghost gets a
//! new device, signed by the same identity: other people's clients show no warning, no session
//! continues from an older state, and no one-time key is published twice.
//!
//! The identity from the backup stays in its table until the new device is verified on the
//! homeserver and the old one is deleted; until then, the same call continues where the last one
//! stopped. An attempt that is interrupted before it publishes anything leaves behind only a device
//! id that is never used.

use matrix_sdk_crypto::{
    CrossSigningBootstrapRequests,
    store::{CryptoStore, types::Changes},
    types::requests::AnyIncomingResponse,
};
use ruma::{
    OwnedDeviceId, OwnedUserId, TransactionId, UserId,
    api::client::keys::{get_keys, upload_signing_keys},
};

use super::{
    CryptoError, Machines,
    machines::lock_provisioning,
    provision::{identity_upload, prepare, public_key, shown_ed25519, shown_master},
    record::{Former, GhostKind, GhostRecord, GhostRecords, Step},
    slot::InUse,
    store::{GhostStores, SavedIdentity},
};
use crate::{matrix::Actor, store::Batch};

/// The outcome of a device rotation after a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceRotation {
    /// The ghost has a new device, signed by its former identity.
    Rotated,
    /// Nothing to do: the ghost has no machine, or was rotated already.
    Unchanged,
    /// The homeserver shows something that the backup does not know. The ghost is left as it is,
    /// and no longer has a device of ours.
    Changed(&'static str),
}

impl Machines {
    /// Returns every user that was ever ours, with keys or without.
    pub fn known_users(&self) -> Result<Vec<OwnedUserId>, CryptoError> {
        let mut users = Vec::new();
        for page in self.0.store.pages::<GhostRecords>(&[]) {
            users.extend(page?.into_iter().map(|(user, _)| user));
        }
        Ok(users)
    }

    /// Returns whether this is the current device of a ghost.
    pub fn is_device(&self, user: &UserId, device: &str) -> Result<bool, CryptoError> {
        let record = self.record(user)?;
        Ok(record.is_some_and(|record| record.device.is_some_and(|known| known == device)))
    }

    /// Gives a ghost from a backup a new device, or checks that a ghost without a machine is as the
    /// backup says.
    ///
    /// # Errors
    ///
    /// After a transient error, call this again.
    pub async fn rotate_device(&self, user: &UserId) -> Result<DeviceRotation, CryptoError> {
        let slot = self.slot(user);
        let _one_at_a_time = lock_provisioning(&slot).await;
        let Some(mut record) = self.record(user)? else {
            return Ok(DeviceRotation::Unchanged);
        };
        if record.step == Step::Retiring {
            self.finish_retiring(user, &mut record).await?;
            self.commit_without_saved_identity(user, &record).await?;
            return Ok(DeviceRotation::Unchanged);
        }
        let Some(saved) = self.0.stores.saved_identity(user)? else {
            return self.check_without_identity(user, record).await;
        };
        // The device was removed while the backup was written, after the identities were listed.
        // (A rotation that was interrupted has a device.)
        if record.device.is_none() {
            self.commit_without_saved_identity(user, &record).await?;
            return self.check_without_identity(user, record).await;
        }
        self.begin_rotation(user, &mut record, saved).await?;
        let ghost = self.signing_machine(user).await?;
        let requests = prepare(&ghost).await?;
        record.step = Step::Keyed;
        record.ed25519 = Some(ghost.machine.identity_keys().ed25519.to_base64());
        record.master = requests
            .upload_signing_keys_req
            .master_key
            .as_ref()
            .and_then(public_key);
        // A device that the same identity has signed since, such as that of an earlier restore, is
        // ours.
        for former in &mut record.former {
            former.master = former.master.take().or_else(|| record.master.clone());
        }
        self.commit_record(user, &record).await?;

        let shown = self.query_own_keys(Actor::user(user), user).await?;
        if let Some(conflict) = find_conflict(user, &record, &shown) {
            drop(ghost);
            return self.give_up(user, record, conflict).await;
        }
        let device = record.device.clone().ok_or_else(|| not_provisioned(user))?;
        let name = &self.0.settings.device_name;
        self.0.hs.put_device(user, &device, name).await?;
        let has_identity = shown_master(user, &shown).is_some();
        self.publish_rotated(&ghost, requests, has_identity).await?;
        if let Some(conflict) = self.check_rotated(&ghost, &mut record).await? {
            drop(ghost);
            self.0.hs.delete_device(user, &device).await?;
            return self.give_up(user, record, conflict).await;
        }
        drop(ghost);
        self.commit_record(user, &record).await?;
        self.delete_former_devices(user, &mut record).await?;
        record.step = Step::Ready;
        self.commit_without_saved_identity(user, &record).await?;
        drop(self.unload(&slot).await);
        Ok(DeviceRotation::Rotated)
    }

    /// Gives the record a new device and the empty crypto store the saved identity, unless an
    /// earlier attempt did.
    async fn begin_rotation(
        &self,
        user: &UserId,
        record: &mut GhostRecord,
        saved: SavedIdentity,
    ) -> Result<(), CryptoError> {
        let has_begun = record.step == Step::Registered || record.step == Step::Keyed;
        if !(has_begun && saved.device_id.is_some() && record.device != saved.device_id) {
            record.archive_device();
            record.generation += 1;
            record.device = Some(self.new_device_id(record.generation));
            record.kind = GhostKind::Machine;
            record.step = Step::Registered;
            record.master = None;
            let mut batch = Batch::new();
            batch.put::<GhostRecords>(&user.to_owned(), record)?;
            self.forget_all_rooms(user, batch).await?;
            self.0.store.flush().await?;
        }
        let store = self.0.stores.ghost(user)?;
        if store.load_account().await?.is_none() {
            let changes = Changes {
                private_identity: Some(saved.into_identity()?),
                ..Changes::default()
            };
            store.save_changes(changes).await?;
        }
        Ok(())
    }

    /// Uploads the identity, if the homeserver does not have it, and the keys of the new device.
    async fn publish_rotated(
        &self,
        ghost: &InUse,
        requests: CrossSigningBootstrapRequests,
        has_identity: bool,
    ) -> Result<(), CryptoError> {
        let answer = if has_identity {
            upload_signing_keys::v3::Response::new()
        } else {
            let upload = identity_upload(requests.upload_signing_keys_req);
            self.0.hs.send(ghost.actor(), upload).await?
        };
        let answer = AnyIncomingResponse::SigningKeysUpload(&answer);
        let id = TransactionId::new();
        ghost.machine.mark_request_as_sent(&id, answer).await?;
        self.upload_device_keys(ghost, requests.upload_keys_req.as_ref())
            .await
    }

    /// Checks what is published. Devices that the same identity has signed are recorded as former
    /// ones, to be deleted; any other device is a conflict.
    async fn check_rotated(
        &self,
        ghost: &InUse,
        record: &mut GhostRecord,
    ) -> Result<Option<&'static str>, CryptoError> {
        let user = ghost.machine.user_id();
        let shown = self.query_own_keys(ghost.actor(), user).await?;
        if let Some(changed) = find_conflict(user, record, &shown) {
            return Ok(Some(changed));
        }
        let not_as_uploaded = |what| CryptoError::NotAsUploaded {
            user: user.to_owned(),
            what,
        };
        if shown_master(user, &shown).is_none() {
            return Err(not_as_uploaded("its identity is not there"));
        }
        let (id, _) = ghost.machine.query_keys_for_users([user]);
        ghost.machine.mark_request_as_sent(&id, &shown).await?;
        let signed = |device: Option<matrix_sdk_crypto::Device>| {
            device.is_some_and(|device| device.is_cross_signed_by_owner())
        };
        let own = ghost.machine.get_device(user, &ghost.device, None).await?;
        if !signed(own) {
            return Err(not_as_uploaded("its device is not shown as signed"));
        }
        let others: Vec<OwnedDeviceId> = shown
            .device_keys
            .get(user)
            .into_iter()
            .flat_map(|devices| devices.keys())
            .filter(|device| **device != ghost.device)
            .cloned()
            .collect();
        for device in others {
            if let Some(known) = record
                .former
                .iter_mut()
                .find(|former| former.device == device)
            {
                known.deleted = false;
                continue;
            }
            if !signed(ghost.machine.get_device(user, &device, None).await?) {
                return Ok(Some("it has a device that its identity has not signed"));
            }
            record.former.push(Former {
                device,
                master: record.master.clone(),
                deleted: false,
            });
        }
        Ok(None)
    }

    /// Checks a ghost whose identity is not in the backup.
    async fn check_without_identity(
        &self,
        user: &UserId,
        record: GhostRecord,
    ) -> Result<DeviceRotation, CryptoError> {
        if record.step == Step::Planned {
            return Ok(DeviceRotation::Unchanged);
        }
        // The keys were made after the backup listed the identities, or the device is rotated
        // already.
        if record.kind == GhostKind::Machine && record.step >= Step::Keyed {
            if self.0.stores.existing(user)?.is_some() {
                return Ok(DeviceRotation::Unchanged);
            }
            let changed = "its keys were made while the backup was written";
            return self.give_up(user, record, changed).await;
        }
        let shown = self.query_own_keys(Actor::user(user), user).await?;
        match find_conflict(user, &record, &shown) {
            Some(changed) => self.give_up(user, record, changed).await,
            None => Ok(DeviceRotation::Unchanged),
        }
    }

    /// Removes our keys of a ghost with a conflict. It can only decline invites from now on.
    async fn give_up(
        &self,
        user: &UserId,
        mut record: GhostRecord,
        changed: &'static str,
    ) -> Result<DeviceRotation, CryptoError> {
        let slot = self.slot(user);
        let unloaded = self.unload(&slot).await;
        if let Some(store) = self.0.stores.existing(user)? {
            store.wipe().await?;
        }
        drop(unloaded);
        record.archive_device();
        record.kind = GhostKind::Bare;
        record.step = Step::Ready;
        self.commit_without_saved_identity(user, &record).await?;
        Ok(DeviceRotation::Changed(changed))
    }

    /// Writes the record, and deletes the identity from the backup.
    async fn commit_without_saved_identity(
        &self,
        user: &UserId,
        record: &GhostRecord,
    ) -> Result<(), CryptoError> {
        let mut batch = Batch::new();
        batch.put::<GhostRecords>(&user.to_owned(), record)?;
        GhostStores::forget_saved_identity(&mut batch, user);
        Ok(self.0.store.commit(batch).await?)
    }

    async fn query_own_keys(
        &self,
        who: Actor<'_>,
        user: &UserId,
    ) -> Result<get_keys::v3::Response, CryptoError> {
        Ok(self.0.hs.query_keys(who, [user.to_owned()]).await?)
    }
}

fn not_provisioned(user: &UserId) -> CryptoError {
    CryptoError::NotProvisioned {
        user: user.to_owned(),
    }
}

/// Returns what the homeserver shows in conflict with the record.
fn find_conflict(
    user: &UserId,
    record: &GhostRecord,
    shown: &get_keys::v3::Response,
) -> Option<&'static str> {
    let master = shown_master(user, shown);
    let former = record
        .former
        .iter()
        .filter_map(|device| device.master.as_ref());
    match (&record.master, &master) {
        (_, None) => {}
        (Some(ours), Some(theirs)) if ours == theirs => {}
        (Some(_), Some(_)) => return Some("its identity was replaced"),
        // The ghost has no keys now; those of an earlier owner may still be shown.
        (None, Some(theirs)) if former.into_iter().any(|known| known == theirs) => {}
        (None, Some(_)) => return Some("it got keys"),
    }
    let devices = shown.device_keys.get(user).into_iter().flatten();
    if record.kind != GhostKind::Machine {
        for (device, keys) in devices {
            let known = record.former.iter().any(|former| former.device == *device);
            if record.device.as_ref() == Some(device) {
                if shown_ed25519(device, keys) != record.ed25519 {
                    return Some("the keys of its device were replaced");
                }
            } else if !known {
                return Some("it got another device");
            }
        }
    }
    None
}
