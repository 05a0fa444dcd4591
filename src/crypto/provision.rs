//! Creation of a ghost: user, device, keys and identity, in six requests.
//!
//! Every step is recorded durably before it is carried out, and every request can be repeated, so
//! after a crash the same call continues where the last one stopped. Private keys are in the store
//! before their public halves are sent, and no device with an identity gets a second one.

use matrix_sdk_crypto::{
    CrossSigningBootstrapRequests, DecryptionSettings, EncryptionSyncChanges, TrustRequirement,
    types::{
        CrossSigningKey,
        requests::{
            AnyIncomingResponse, AnyOutgoingRequest, OutgoingRequest, UploadSigningKeysRequest,
        },
    },
};
use rand::Rng;
use ruma::{
    OwnedDeviceId, TransactionId, UserId,
    api::client::{
        keys::{get_keys, upload_signatures, upload_signing_keys},
        sync::sync_events::DeviceLists,
    },
    encryption::DeviceKeys,
    serde::Raw,
};

use super::{
    CryptoError, Machines,
    locks::lock,
    machines::lock_provisioning,
    record::{GhostKind, GhostRecord, Step},
    slot::InUse,
};
use crate::{matrix::Actor, metrics::catalogue::ONE_TIME_KEYS};

/// The result of [`Machines::register`].
pub(super) struct Registered {
    pub(super) record: GhostRecord,
    /// Whether this call created the user, so that it has no devices or keys yet.
    pub(super) fresh: bool,
}

impl Machines {
    /// Creates a ghost that can read and write: registered under `name`, with a device signed by
    /// its own identity. Does nothing if the ghost is ready.
    ///
    /// # Errors
    ///
    /// After a transient error, call this again. [`CryptoError::Foreign`] is for the admin.
    pub async fn provision(&self, user: &UserId, name: &str) -> Result<(), CryptoError> {
        let slot = self.slot(user);
        let _one_at_a_time = lock_provisioning(&slot).await;
        let known = self.record(user)?;
        match known.as_ref().map(|record| (record.kind, record.step)) {
            Some((GhostKind::Machine, Step::Ready)) => return Ok(()),
            Some((GhostKind::Keyless, Step::Keyed | Step::Ready)) => {
                return Err(CryptoError::OtherKind {
                    user: user.to_owned(),
                });
            }
            _ => {}
        }
        let Registered { mut record, fresh } =
            self.register(user, known, GhostKind::Machine).await?;
        if record.device.is_none() {
            record.generation += 1;
            record.device = Some(self.new_device_id(record.generation));
            self.apply_record(user, &record)?;
        }
        let ghost = self.signing_machine(user).await?;
        let requests = prepare(&ghost).await?;
        record.step = Step::Keyed;
        record.ed25519 = Some(ghost.machine.identity_keys().ed25519.to_base64());
        record.master = requests
            .upload_signing_keys_req
            .master_key
            .as_ref()
            .and_then(public_key);
        // The private keys are durable before anybody can see their public halves.
        self.commit_record(user, &record).await?;

        self.make_device(user, &mut record).await?;
        if !fresh {
            let shown = self
                .0
                .hs
                .query_keys(ghost.actor(), [user.to_owned()])
                .await?;
            check_nothing_foreign(user, &record, &shown)?;
        }
        self.upload(&ghost, requests).await?;
        self.check_published(&ghost, &record).await?;
        self.finish(user, record, name, fresh).await?;
        // Unloaded, so that the next task gets a machine that cannot sign.
        drop(ghost);
        drop(self.unload(&slot).await);
        Ok(())
    }

    /// Registers a user without keys, which can decline invites and nothing more. Does nothing
    /// when the user is ours already, with keys or without.
    pub async fn provision_bare(&self, user: &UserId) -> Result<(), CryptoError> {
        let slot = self.slot(user);
        let _one_at_a_time = lock_provisioning(&slot).await;
        let known = self.record(user)?;
        if known
            .as_ref()
            .is_some_and(|record| record.step > Step::Planned)
        {
            return Ok(());
        }
        let Registered { mut record, .. } = self.register(user, known, GhostKind::Bare).await?;
        record.step = Step::Ready;
        self.commit_record(user, &record).await
    }

    /// Registers the user if necessary, and completes a removal of keys that was interrupted.
    pub(super) async fn register(
        &self,
        user: &UserId,
        known: Option<GhostRecord>,
        kind: GhostKind,
    ) -> Result<Registered, CryptoError> {
        let first_time = known.is_none();
        let mut record = known.unwrap_or_else(|| GhostRecord::planned(kind));
        if record.step == Step::Retiring {
            self.finish_retiring(user, &mut record).await?;
        }
        let mut fresh = false;
        if record.step == Step::Planned {
            if first_time {
                self.commit_record(user, &record).await?;
            }
            fresh = self.0.hs.register(user.localpart()).await?;
            if !fresh {
                self.check_registered_by_us(user, first_time).await?;
            }
            record.step = Step::Registered;
        }
        // A ghost that was ready without keys is not ready with them.
        if record.kind != kind && record.step == Step::Ready {
            record.step = Step::Registered;
        }
        record.kind = kind;
        self.apply_record(user, &record)?;
        Ok(Registered { record, fresh })
    }

    /// Checks who registered a name that is taken. If we did and crashed before recording it, it
    /// has no devices or keys; otherwise it belongs to someone else.
    async fn check_registered_by_us(
        &self,
        user: &UserId,
        first_time: bool,
    ) -> Result<(), CryptoError> {
        let foreign = |what| CryptoError::Foreign {
            user: user.to_owned(),
            what,
        };
        let shown = self
            .0
            .hs
            .query_keys(Actor::user(user), [user.to_owned()])
            .await?;
        let has_keys = shown.master_keys.contains_key(user)
            || shown
                .device_keys
                .get(user)
                .is_some_and(|devices| !devices.is_empty());
        if !first_time && !has_keys && !self.0.hs.has_devices(user).await? {
            return Ok(());
        }
        // The next attempt starts from the beginning.
        let mut batch = crate::store::Batch::new();
        batch.delete::<super::record::GhostRecords>(&user.to_owned());
        self.0.store.commit(batch).await?;
        Err(foreign("the name is registered, and not by us"))
    }

    /// Creates the current device on the homeserver, and deletes former ones.
    pub(super) async fn make_device(
        &self,
        user: &UserId,
        record: &mut GhostRecord,
    ) -> Result<(), CryptoError> {
        self.delete_former_devices(user, record).await?;
        let Some(device) = &record.device else {
            return Err(CryptoError::NotProvisioned {
                user: user.to_owned(),
            });
        };
        Ok(self
            .0
            .hs
            .put_device(user, device, &self.0.settings.device_name)
            .await?)
    }

    pub(super) async fn upload(
        &self,
        ghost: &InUse,
        requests: CrossSigningBootstrapRequests,
    ) -> Result<(), CryptoError> {
        let upload = identity_upload(requests.upload_signing_keys_req);
        // Identity first: the device keys carry its signature, so nobody ever sees the device
        // unsigned.
        let answer = self.0.hs.send(ghost.actor(), upload).await?;
        ghost
            .machine
            .mark_request_as_sent(
                &TransactionId::new(),
                AnyIncomingResponse::SigningKeysUpload(&answer),
            )
            .await?;
        self.upload_device_keys(ghost, requests.upload_keys_req.as_ref())
            .await
    }

    pub(super) async fn upload_device_keys(
        &self,
        ghost: &InUse,
        request: Option<&OutgoingRequest>,
    ) -> Result<(), CryptoError> {
        if let Some(request) = request
            && let AnyOutgoingRequest::KeysUpload(keys) = request.request()
        {
            let answer = self.0.hs.send(ghost.actor(), keys.clone()).await?;
            ONE_TIME_KEYS.add([], keys.one_time_keys.len() as u64);
            ghost
                .machine
                .mark_request_as_sent(request.request_id(), &answer)
                .await?;
        }
        Ok(())
    }

    /// Checks the ghost as everyone else sees it: one device, signed by its identity.
    pub(super) async fn check_published(
        &self,
        ghost: &InUse,
        record: &GhostRecord,
    ) -> Result<(), CryptoError> {
        let user = ghost.machine.user_id();
        for last_try in [false, true] {
            let shown = self
                .0
                .hs
                .query_keys(ghost.actor(), [user.to_owned()])
                .await?;
            // Before the machine sees it: a machine that is shown another identity drops its own.
            check_published(user, record, &shown)?;
            let (id, _) = ghost.machine.query_keys_for_users([user]);
            ghost.machine.mark_request_as_sent(&id, &shown).await?;
            let device = ghost.machine.get_device(user, &ghost.device, None).await?;
            if device.is_some_and(|device| device.is_cross_signed_by_owner()) {
                return Ok(());
            }
            if last_try {
                break;
            }
            // A server that ignores signatures inside uploaded device keys takes them separately.
            let signatures = ghost
                .machine
                .bootstrap_cross_signing(false)
                .await?
                .upload_signatures_req;
            self.upload_signatures(ghost.actor(), user, signatures)
                .await?;
        }
        Err(CryptoError::NotAsUploaded {
            user: user.to_owned(),
            what: "its device is not shown as signed",
        })
    }

    /// Returns an id for the next device of a ghost.
    pub(super) fn new_device_id(&self, generation: u32) -> OwnedDeviceId {
        new_device_id(generation, &mut *lock(&self.0.settings.rng))
    }

    async fn upload_signatures(
        &self,
        who: Actor<'_>,
        user: &UserId,
        signatures: upload_signatures::v3::Request,
    ) -> Result<(), CryptoError> {
        let answer = self.0.hs.send(who, signatures).await?;
        // The homeserver reports refused signatures in a successful answer.
        if answer
            .failures
            .values()
            .any(|failures| !failures.is_empty())
        {
            return Err(CryptoError::NotAsUploaded {
                user: user.to_owned(),
                what: "its signatures were refused",
            });
        }
        Ok(())
    }

    /// Gives the ghost its name and records that it is ready.
    pub(super) async fn finish(
        &self,
        user: &UserId,
        mut record: GhostRecord,
        name: &str,
        fresh: bool,
    ) -> Result<(), CryptoError> {
        let who = Actor {
            user,
            device: record.device.as_deref(),
        };
        if fresh {
            self.0.hs.write_display_name(who, name).await?;
        } else {
            self.0.hs.set_display_name(who, name).await?;
        }
        record.step = Step::Ready;
        self.commit_record(user, &record).await
    }
}

/// Lets the machine make all keys to be published: identity, device keys, one-time keys and a
/// fallback key. Until they are uploaded, further calls return the same keys.
pub(super) async fn prepare(ghost: &InUse) -> Result<CrossSigningBootstrapRequests, CryptoError> {
    // A machine makes a fallback key once it hears that the homeserver supports them.
    let changes = EncryptionSyncChanges {
        to_device_events: Vec::new(),
        changed_devices: &DeviceLists::new(),
        one_time_keys_counts: &Default::default(),
        unused_fallback_keys: Some(&[]),
        next_batch_token: None,
    };
    let settings = DecryptionSettings {
        sender_device_trust_requirement: TrustRequirement::Untrusted,
    };
    ghost
        .machine
        .receive_sync_changes(changes, &settings)
        .await?;
    Ok(ghost.machine.bootstrap_cross_signing(false).await?)
}

/// Returns the request that publishes an identity.
pub(super) fn identity_upload(keys: UploadSigningKeysRequest) -> upload_signing_keys::v3::Request {
    let mut upload = upload_signing_keys::v3::Request::new();
    upload.master_key = keys.master_key.map(|key| key.to_raw());
    upload.self_signing_key = keys.self_signing_key.map(|key| key.to_raw());
    upload.user_signing_key = keys.user_signing_key.map(|key| key.to_raw());
    upload
}

/// Returns a device id that nobody could have guessed, so that an existing device with this id is
/// noticed.
fn new_device_id(generation: u32, rng: &mut impl Rng) -> OwnedDeviceId {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let suffix: String = (0..10)
        .map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]))
        .collect();
    format!("STONE{generation}{suffix}").into()
}

/// Returns the public key of a cross-signing key, in base64.
pub(super) fn public_key(key: &CrossSigningKey) -> Option<String> {
    key.keys
        .iter()
        .next()
        .and_then(|(_, key)| key.ed25519())
        .map(|key| key.to_base64())
}

/// An object's keys as the homeserver shows them.
#[derive(serde::Deserialize)]
struct Shown {
    #[serde(default)]
    keys: std::collections::BTreeMap<String, String>,
}

pub(super) fn shown_master(user: &UserId, answer: &get_keys::v3::Response) -> Option<String> {
    let key: Shown = answer
        .master_keys
        .get(user)?
        .deserialize_as_unchecked()
        .ok()?;
    key.keys.into_values().next()
}

pub(super) fn shown_ed25519(device: &OwnedDeviceId, keys: &Raw<DeviceKeys>) -> Option<String> {
    let keys: Shown = keys.deserialize_as_unchecked().ok()?;
    keys.keys.get(&format!("ed25519:{device}")).cloned()
}

/// Refuses devices and identities that the ghost never had.
pub(super) fn check_nothing_foreign(
    user: &UserId,
    record: &GhostRecord,
    answer: &get_keys::v3::Response,
) -> Result<(), CryptoError> {
    let foreign = |what| {
        Err(CryptoError::Foreign {
            user: user.to_owned(),
            what,
        })
    };
    if let Some(master) = shown_master(user, answer) {
        let ours = record
            .master
            .iter()
            .chain(record.former.iter().filter_map(|f| f.master.as_ref()));
        if !ours.into_iter().any(|known| *known == master) {
            return foreign("it has an identity that is not ours");
        }
    }
    for (device, keys) in answer.device_keys.get(user).into_iter().flatten() {
        if record.device.as_ref() == Some(device) {
            if shown_ed25519(device, keys) != record.ed25519 {
                return foreign("its device has keys that are not ours");
            }
        } else if !record.former.iter().any(|former| former.device == *device) {
            return foreign("it has a device that is not ours");
        }
    }
    Ok(())
}

/// Checks that our device and our identity are published, and no others.
pub(super) fn check_published(
    user: &UserId,
    record: &GhostRecord,
    answer: &get_keys::v3::Response,
) -> Result<(), CryptoError> {
    check_nothing_foreign(user, record, answer)?;
    let missing = |what| {
        Err(CryptoError::NotAsUploaded {
            user: user.to_owned(),
            what,
        })
    };
    if shown_master(user, answer) != record.master {
        return missing("its identity is not there");
    }
    let shown = answer.device_keys.get(user);
    if !record
        .device
        .as_ref()
        .is_some_and(|device| shown.is_some_and(|d| d.contains_key(device)))
    {
        return missing("its device has no keys");
    }
    Ok(())
}
