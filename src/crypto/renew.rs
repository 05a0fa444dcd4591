//! New devices after a restore.
//!
//! A backup holds who a ghost is (its cross-signing identity) and nothing that it knew. So each
//! gets a new device, signed by the same identity: other people's clients warn of nothing, no
//! session is taken up at an older state, and no one-time key is published a second time.
//!
//! The identity out of the backup stays in its table until the new device was seen on the
//! homeserver and the old one is gone; as long as it is there, the same call goes on where the last
//! one stopped. Until something new is published, an attempt that was cut short leaves nothing
//! behind but a device id that is never used.

use matrix_sdk_crypto::{
    store::{CryptoStore, types::Changes},
    types::requests::{AnyIncomingResponse, AnyOutgoingRequest},
};
use ruma::{
    OwnedDeviceId, OwnedUserId, TransactionId, UserId,
    api::client::keys::{get_keys, upload_signing_keys},
};

use super::{
    CryptoError, Machines,
    machines::lock_provisioning,
    provision::{new_device_id, prepare, public_key, shown_ed25519, shown_master},
    record::{ExpectedRooms, Former, GhostKind, GhostRecord, GhostRecords, Step},
    replay_guard::{ReplayGuard, ReplayLegacy},
    slot::InUse,
    store::GhostStores,
};
use crate::{
    matrix::Actor,
    store::{Batch, prefix},
};

/// What became of one ghost after a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// It has a new device, signed by the identity that it had.
    Renewed,
    /// There was nothing to do: it has no machine, or was renewed already.
    Unchanged,
    /// The homeserver shows something that the backup does not know. The ghost is left alone and
    /// has no device of ours any more.
    Changed(&'static str),
}

impl Machines {
    /// Every user that was ever ours, with keys or without.
    pub fn known(&self) -> Result<Vec<OwnedUserId>, CryptoError> {
        const PAGE: usize = 1000;
        let mut users = Vec::new();
        loop {
            let rows = self.0.store.scan::<GhostRecords>(&[], users.last(), PAGE)?;
            let full = rows.len() == PAGE;
            users.extend(rows.into_iter().map(|(user, _)| user));
            if !full {
                return Ok(users);
            }
        }
    }

    /// Whether this is the device that a ghost has now.
    pub fn is_device(&self, user: &UserId, device: &str) -> Result<bool, CryptoError> {
        let record = self.record(user)?;
        Ok(record.is_some_and(|is| is.device.is_some_and(|known| known == device)))
    }

    /// Gives a ghost out of a backup a new device, or makes sure that one without a machine is
    /// still as the backup says.
    ///
    /// # Errors
    ///
    /// After a transient error call it again.
    pub async fn renew(&self, user: &UserId) -> Result<Renewed, CryptoError> {
        let slot = self.slot(user);
        let _one_at_a_time = lock_provisioning(&slot).await;
        let Some(mut record) = self.record(user)? else {
            return Ok(Renewed::Unchanged);
        };
        if record.step == Step::Retiring {
            self.finish_retiring(user, &mut record).await?;
            self.forget_saved(user, &record).await?;
            return Ok(Renewed::Unchanged);
        }
        let Some(saved) = self.0.stores.saved_identity(user)? else {
            return self.still_the_same(user, record).await;
        };
        let begun = record.step == Step::Registered || record.step == Step::Keyed;
        if !(begun && saved.device_id.is_some() && record.device != saved.device_id) {
            record.archive_device();
            record.generation += 1;
            record.device = Some(new_device_id(record.generation));
            record.kind = GhostKind::Machine;
            record.step = Step::Registered;
            record.master = None;
            self.forget_rooms(user, &record).await?;
        }
        let store = self.0.stores.ghost(user)?;
        if store.load_account().await?.is_none() {
            let changes = Changes {
                private_identity: Some(saved.into_identity()?),
                ..Changes::default()
            };
            store.save_changes(changes).await?;
        }
        drop(store);
        let ghost = self.signing_machine(user).await?;
        let requests = prepare(&ghost).await?;
        let signing = requests.upload_signing_keys_req;
        record.step = Step::Keyed;
        record.ed25519 = Some(ghost.machine.identity_keys().ed25519.to_base64());
        record.master = signing.master_key.as_ref().and_then(public_key);
        // What the same identity signed since, an earlier restore's device for example, is ours.
        for former in &mut record.former {
            former.master = former.master.take().or_else(|| record.master.clone());
        }
        self.commit_record(user, &record).await?;

        let shown = self.shown(Actor::user(user), user).await?;
        if let Some(changed) = differs(user, &record, &shown) {
            drop(ghost);
            return self.lost(user, record, changed).await;
        }
        let device = record.device.clone().ok_or_else(|| not_provisioned(user))?;
        let name = &self.0.settings.device_name;
        self.0.hs.put_device(user, &device, name).await?;
        let answer = if shown_master(user, &shown).is_none() {
            let mut upload = upload_signing_keys::v3::Request::new();
            upload.master_key = signing.master_key.map(|key| key.to_raw());
            upload.self_signing_key = signing.self_signing_key.map(|key| key.to_raw());
            upload.user_signing_key = signing.user_signing_key.map(|key| key.to_raw());
            self.0.hs.send(ghost.actor(), upload).await?
        } else {
            upload_signing_keys::v3::Response::new()
        };
        let answer = AnyIncomingResponse::SigningKeysUpload(&answer);
        let id = TransactionId::new();
        ghost.machine.mark_request_as_sent(&id, answer).await?;
        if let Some(request) = &requests.upload_keys_req
            && let AnyOutgoingRequest::KeysUpload(keys) = request.request()
        {
            let answer = self.0.hs.send(ghost.actor(), keys.clone()).await?;
            let id = request.request_id();
            ghost.machine.mark_request_as_sent(id, &answer).await?;
        }
        if let Some(changed) = self.take_stock(&ghost, &mut record).await? {
            drop(ghost);
            self.0.hs.delete_device(user, &device).await?;
            return self.lost(user, record, changed).await;
        }
        drop(ghost);
        self.commit_record(user, &record).await?;
        for at in 0..record.former.len() {
            if !record.former[at].deleted {
                let former = record.former[at].device.clone();
                self.0.hs.delete_device(user, &former).await?;
                record.former[at].deleted = true;
            }
        }
        record.step = Step::Ready;
        self.forget_saved(user, &record).await?;
        drop(self.unload(&slot).await);
        Ok(Renewed::Renewed)
    }

    /// Looks at what was published. Devices that the same identity has signed are noted as former
    /// ones, to be deleted; any other says that the ghost is not ours alone.
    async fn take_stock(
        &self,
        ghost: &InUse,
        record: &mut GhostRecord,
    ) -> Result<Option<&'static str>, CryptoError> {
        let user = ghost.machine.user_id();
        let shown = self.shown(ghost.actor(), user).await?;
        if let Some(changed) = differs(user, record, &shown) {
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
            if let Some(known) = record.former.iter_mut().find(|is| is.device == device) {
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

    /// A ghost of which the backup holds no identity.
    async fn still_the_same(
        &self,
        user: &UserId,
        record: GhostRecord,
    ) -> Result<Renewed, CryptoError> {
        if record.step == Step::Planned {
            return Ok(Renewed::Unchanged);
        }
        // Keys that came after the list of identities was made; or renewed already.
        if record.kind == GhostKind::Machine && record.step >= Step::Keyed {
            if self.0.stores.existing(user)?.is_some() {
                return Ok(Renewed::Unchanged);
            }
            let changed = "its keys were made while the backup was written";
            return self.lost(user, record, changed).await;
        }
        let shown = self.shown(Actor::user(user), user).await?;
        match differs(user, &record, &shown) {
            Some(changed) => self.lost(user, record, changed).await,
            None => Ok(Renewed::Unchanged),
        }
    }

    /// Nothing of ours speaks for this ghost any more, except to decline.
    async fn lost(
        &self,
        user: &UserId,
        mut record: GhostRecord,
        changed: &'static str,
    ) -> Result<Renewed, CryptoError> {
        let slot = self.slot(user);
        let unloaded = self.unload(&slot).await;
        if let Some(store) = self.0.stores.existing(user)? {
            store.wipe().await?;
        }
        drop(unloaded);
        record.archive_device();
        record.kind = GhostKind::Bare;
        record.step = Step::Ready;
        self.forget_saved(user, &record).await?;
        Ok(Renewed::Changed(changed))
    }

    /// Writes the record, and that the ghost needs the identity out of the backup no more.
    async fn forget_saved(&self, user: &UserId, record: &GhostRecord) -> Result<(), CryptoError> {
        let mut batch = Batch::new();
        batch.put::<GhostRecords>(&user.to_owned(), record)?;
        GhostStores::forget_saved_identity(&mut batch, user);
        Ok(self.0.store.commit(batch).await?)
    }

    /// Writes the record, and that the ghost knows no room: its sessions are gone.
    async fn forget_rooms(&self, user: &UserId, record: &GhostRecord) -> Result<(), CryptoError> {
        let slot = self.slot(user);
        let unloaded = self.unload(&slot).await;
        slot.device_lists.clear();
        // An attempt that was cut short before it published anything.
        if let Some(store) = self.0.stores.existing(user)? {
            store.wipe().await?;
        }
        let mut batch = Batch::new();
        let first = prefix(&user.to_owned());
        self.delete_all::<ExpectedRooms>(&mut batch, &first)?;
        self.delete_all::<ReplayGuard>(&mut batch, &first)?;
        self.delete_all::<ReplayLegacy>(&mut batch, &first)?;
        batch.put::<GhostRecords>(&user.to_owned(), record)?;
        self.0.store.commit(batch).await?;
        self.reload_expected_rooms(&slot, &unloaded);
        Ok(())
    }

    async fn shown(
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

/// What the homeserver shows that is not as the record says.
fn differs(
    user: &UserId,
    record: &GhostRecord,
    shown: &get_keys::v3::Response,
) -> Option<&'static str> {
    let master = shown_master(user, shown);
    let former = record.former.iter().filter_map(|is| is.master.as_ref());
    match (&record.master, &master) {
        (_, None) => {}
        (Some(ours), Some(theirs)) if ours == theirs => {}
        (Some(_), Some(_)) => return Some("its identity was replaced"),
        // It has no keys now; those of an earlier owner may still be shown.
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
