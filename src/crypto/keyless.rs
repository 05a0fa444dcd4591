//! Published keys whose private halves nobody has.
//!
//! A client makes a direct chat unencrypted when the other side has no device with keys. A strict
//! handle's ghost reads nothing, so it needs keys that look right and that nobody can use: device,
//! fallback key and identity are made in memory, sign each other, and only what is public leaves
//! [`NobodysKeys::make`]. The private halves are zeroized as they go out of scope there, and so is
//! the stack on which they were moved about. They are made from the system's randomness directly:
//! a generator of our own would keep them in its buffer, and its state could be run backwards.

use std::collections::BTreeMap;

use matrix_sdk_crypto::vodozemac::{Curve25519PublicKey, Curve25519SecretKey, Ed25519SecretKey};
use rand::{TryRngCore as _, rngs::OsRng};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, DeviceId, UserId,
    api::client::keys::{upload_keys, upload_signing_keys},
    serde::Raw,
};
use serde_json::{Value, json};
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    CryptoError, Machines,
    machines::lock_provisioning,
    provision::{Registered, check_nothing_foreign, check_published},
    record::{GhostKind, GhostRecord, Step},
};
use crate::matrix::Actor;

impl Machines {
    /// Creates a ghost whose private keys nobody has. Does nothing if the ghost is ready.
    ///
    /// Since nothing private is kept, an interrupted attempt cannot be resumed: the next one starts
    /// again with another device and removes the first.
    pub async fn provision_keyless(&self, user: &UserId, name: &str) -> Result<(), CryptoError> {
        let slot = self.slot(user);
        let _one_at_a_time = lock_provisioning(&slot).await;
        let known = self.record(user)?;
        match known.as_ref().map(|record| (record.kind, record.step)) {
            Some((GhostKind::Keyless, Step::Ready)) => return Ok(()),
            Some((GhostKind::Machine, Step::Keyed | Step::Ready)) => {
                return Err(CryptoError::OtherKind {
                    user: user.to_owned(),
                });
            }
            _ => {}
        }
        let Registered { mut record, fresh } =
            self.register(user, known, GhostKind::Keyless).await?;
        record.archive_device();
        record.generation += 1;
        let device = self.new_device_id(record.generation);
        let keys = NobodysKeys::make(user, &device)?;
        record.device = Some(device.clone());
        record.ed25519 = Some(keys.ed25519);
        record.master = Some(keys.master);
        record.step = Step::Keyed;
        self.commit_record(user, &record).await?;

        self.make_device(user, &mut record).await?;
        let who = Actor::device(user, &device);
        if !fresh {
            let shown = self.0.hs.query_keys(who, [user.to_owned()]).await?;
            check_nothing_foreign(user, &record, &shown)?;
        }
        self.0.hs.send(who, keys.identity).await?;
        self.0.hs.send(who, keys.device).await?;
        let shown = self.0.hs.query_keys(who, [user.to_owned()]).await?;
        check_published(user, &record, &shown)?;
        self.finish(user, record, name, fresh).await
    }

    /// Gives a keyless ghost that is ready other keys, on another device. Until these are published
    /// the record names the new device among the former ones, so that it is recognised and deleted
    /// after a crash.
    pub(super) async fn replace_nobodys_keys(
        &self,
        user: &UserId,
        mut record: GhostRecord,
        name: Option<&str>,
    ) -> Result<(), CryptoError> {
        record.generation += 1;
        let device = self.new_device_id(record.generation);
        let keys = NobodysKeys::make(user, &device)?;
        let mut next = record.clone();
        record.push_former(device.clone(), Some(keys.master.clone()));
        self.commit_record(user, &record).await?;

        next.archive_device();
        next.device = Some(device.clone());
        next.ed25519 = Some(keys.ed25519);
        next.master = Some(keys.master);
        self.make_device(user, &mut next).await?;
        let who = Actor::device(user, &device);
        let shown = self.0.hs.query_keys(who, [user.to_owned()]).await?;
        check_nothing_foreign(user, &next, &shown)?;
        self.0.hs.send(who, keys.identity).await?;
        self.0.hs.send(who, keys.device).await?;
        let shown = self.0.hs.query_keys(who, [user.to_owned()]).await?;
        check_published(user, &next, &shown)?;
        if let Some(name) = name {
            self.0.hs.set_display_name(who, name).await?;
        }
        self.commit_record(user, &next).await
    }
}

/// The public halves of a ghost's keys.
struct NobodysKeys {
    identity: upload_signing_keys::v3::Request,
    device: upload_keys::v3::Request,
    ed25519: String,
    master: String,
}

impl NobodysKeys {
    /// Makes the keys, lets them sign each other, and drops the private halves.
    ///
    /// Not async, so that no private key is ever part of a task that waits for something.
    fn make(user: &UserId, device: &DeviceId) -> Result<Self, CryptoError> {
        let made = Self::make_on_this_stack(user, device);
        burn_stack();
        made
    }

    #[inline(never)]
    fn make_on_this_stack(user: &UserId, device: &DeviceId) -> Result<Self, CryptoError> {
        let signing = || Ok::<_, CryptoError>(Ed25519SecretKey::from_slice(&*random()?));
        let agreeing = || Ok::<_, CryptoError>(Curve25519SecretKey::from_slice(&*random()?));
        let of_device = signing()?;
        let curve25519 = Curve25519PublicKey::from(&agreeing()?).to_base64();
        let fallback = Curve25519PublicKey::from(&agreeing()?).to_base64();
        let master = signing()?;
        let self_signing = signing()?;
        let user_signing = signing()?;

        let device_key = format!("ed25519:{device}");
        let master_public = master.public_key().to_base64();
        let self_signing_public = self_signing.public_key().to_base64();
        let ed25519 = of_device.public_key().to_base64();

        let sign = |value: &mut Value, by: &str, signature: &dyn Fn(&str) -> String| {
            let signature = signature(&canonical(value));
            value["signatures"][user.as_str()][by] = signature.into();
        };
        let by_device = |text: &str| of_device.sign(text.as_bytes()).to_base64();
        let by_master = |text: &str| master.sign(text.as_bytes()).to_base64();
        let by_self_signing = |text: &str| self_signing.sign(text.as_bytes()).to_base64();
        let identity_key = |usage: &str, public: &str| {
            json!({
                "user_id": user, "usage": [usage],
                "keys": {format!("ed25519:{public}"): public}
            })
        };

        let mut master_key = identity_key("master", &master_public);
        sign(&mut master_key, &device_key, &by_device);
        let master_id = format!("ed25519:{master_public}");
        let mut self_signing_key = identity_key("self_signing", &self_signing_public);
        sign(&mut self_signing_key, &master_id, &by_master);
        let mut user_signing_key =
            identity_key("user_signing", &user_signing.public_key().to_base64());
        sign(&mut user_signing_key, &master_id, &by_master);

        let mut device_keys = json!({
            "user_id": user, "device_id": device,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("curve25519:{device}"): curve25519,
                &device_key: &ed25519,
            }
        });
        sign(&mut device_keys, &device_key, &by_device);
        sign(
            &mut device_keys,
            &format!("ed25519:{self_signing_public}"),
            &by_self_signing,
        );

        let mut fallback_key = json!({"key": fallback, "fallback": true});
        sign(&mut fallback_key, &device_key, &by_device);
        let mut identity = upload_signing_keys::v3::Request::new();
        identity.master_key = raw(&master_key);
        identity.self_signing_key = raw(&self_signing_key);
        identity.user_signing_key = raw(&user_signing_key);
        Ok(Self {
            identity,
            device: device_upload(&device_keys, &fallback_key),
            ed25519,
            master: master_public,
        })
    }
}

/// Returns the request that publishes a device and its fallback key.
fn device_upload(device_keys: &Value, fallback_key: &Value) -> upload_keys::v3::Request {
    let mut upload = upload_keys::v3::Request::new();
    upload.device_keys = raw(device_keys);
    let id = "signed_curve25519:AAAAAAAAAAA".try_into();
    if let (Ok(id), Some(key)) = (id, raw(fallback_key)) {
        upload.fallback_keys = BTreeMap::from([(id, key)]);
    }
    upload
}

/// Returns 32 random bytes from the system.
fn random() -> Result<Zeroizing<[u8; 32]>, CryptoError> {
    let mut bytes = Zeroizing::new([0; 32]);
    OsRng
        .try_fill_bytes(bytes.as_mut_slice())
        .map_err(|error| CryptoError::Olm(format!("no randomness: {error}")))?;
    Ok(bytes)
}

/// Overwrites the stack below the caller: moving a value leaves a copy behind there, which nothing
/// zeroizes.
#[inline(never)]
fn burn_stack() {
    let mut stack = [0xAA_u8; 128 * 1024];
    stack.zeroize();
    std::hint::black_box(&stack);
}

/// Returns the text to be signed: canonical JSON without the signatures.
fn canonical(value: &Value) -> String {
    let mut object = CanonicalJsonObject::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        // Strings, lists and objects of strings, and `true`: each has a canonical form.
        if name != "signatures"
            && name != "unsigned"
            && let Ok(value) = CanonicalJsonValue::try_from(value.clone())
        {
            object.insert(name.clone(), value);
        }
    }
    CanonicalJsonValue::Object(object).to_string()
}

fn raw<T>(value: &Value) -> Option<Raw<T>> {
    serde_json::value::to_raw_value(value)
        .ok()
        .map(Raw::from_json)
}
