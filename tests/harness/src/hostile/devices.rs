//! Device lists of any length, each device signed by its owner.

use anyhow::{Context, Result};
use ruma::UserId;
use ruma_signatures::{Ed25519KeyPair, sign_json};
use serde_json::{Map, Value, json};

use super::{base64, event::canonical, key_pair};

/// The devices and the cross-signing keys that a user is said to have.
pub struct DeviceList {
    user: String,
    devices: Map<String, Value>,
    master: Value,
    self_signing: Value,
}

impl DeviceList {
    /// Makes `count` devices for a user.
    pub fn new(user: &UserId, count: usize) -> Result<Self> {
        let master = named_by_itself()?;
        let self_signing = named_by_itself()?;
        let key = |pair: &Ed25519KeyPair, usage: &str| {
            json!({
                "user_id": user,
                "usage": [usage],
                "keys": { format!("ed25519:{}", pair.version()): base64(pair.public_key()) },
            })
        };
        let mut devices = Map::new();
        for number in 0..count {
            let id = format!("HOSTILE{number}");
            let own = key_pair(&id)?;
            let keys = json!({
                "user_id": user,
                "device_id": id,
                "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
                "keys": {
                    format!("curve25519:{id}"): base64(rand::random::<[u8; 32]>()),
                    format!("ed25519:{id}"): base64(own.public_key()),
                },
            });
            devices.insert(id, signed(user, &[&own, &self_signing], keys)?);
        }
        Ok(Self {
            user: user.to_string(),
            devices,
            master: key(&master, "master"),
            self_signing: signed(user, &[&master], key(&self_signing, "self_signing"))?,
        })
    }

    /// The answer to `/user/devices`.
    pub(super) fn all(&self) -> Value {
        let devices = self.devices.iter();
        let devices = devices.map(|(id, keys)| json!({ "device_id": id, "keys": keys }));
        json!({
            "user_id": self.user,
            "stream_id": 1,
            "devices": devices.collect::<Vec<_>>(),
            "master_key": self.master,
            "self_signing_key": self.self_signing,
        })
    }

    /// The answer to `/user/keys/query`.
    pub(super) fn queried(&self) -> Value {
        json!({
            "device_keys": { self.user.as_str(): self.devices },
            "master_keys": { self.user.as_str(): self.master },
            "self_signing_keys": { self.user.as_str(): self.self_signing },
        })
    }
}

/// A cross-signing key, whose id is the public key.
fn named_by_itself() -> Result<Ed25519KeyPair> {
    let document = Ed25519KeyPair::generate();
    let with_version = |version: String| {
        Ed25519KeyPair::from_der(&document, version).context("cannot make a cross-signing key")
    };
    let public = base64(with_version(String::new())?.public_key());
    with_version(public)
}

fn signed(user: &UserId, by: &[&Ed25519KeyPair], keys: Value) -> Result<Value> {
    let mut keys = canonical(keys)?;
    for pair in by {
        sign_json(user.as_str(), *pair, &mut keys)?;
    }
    Ok(serde_json::to_value(keys)?)
}
