//! What a homeserver knows of its users' keys: those of a device, those of an identity, and the
//! signatures on both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

/// The algorithm of every one-time key.
pub const ALGORITHM: &str = "signed_curve25519";

/// The keys of a device.
#[derive(Debug, Default)]
pub struct DeviceKeys {
    /// What it published, with the signatures that came since.
    pub published: Option<Value>,
    /// Every Ed25519 key that it ever published.
    ever: BTreeSet<String>,
    /// One-time keys that nobody has claimed, in the order in which they came: so Synapse gives
    /// them out.
    one_time: VecDeque<(String, Value)>,
    /// Every one-time key that was ever uploaded.
    uploaded: BTreeMap<String, Value>,
    /// The present fallback key.
    fallback: Option<(String, Value)>,
    fallback_used: bool,
    /// Every fallback key that was ever uploaded.
    fallbacks: BTreeMap<String, Value>,
}

/// What came of an upload of a device's keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Upload {
    /// The keys that others see are not those of before.
    pub is_change: bool,
    /// A one-time key came again under its id with another content: Synapse answers with 400.
    pub is_refused: bool,
    /// Key ids that were used twice with different content, in words: the sign of a crypto store
    /// that went back.
    pub reuses: Vec<String>,
}

impl DeviceKeys {
    /// Takes the body of `POST /keys/upload` in.
    pub fn upload(&mut self, device: &str, body: &Value) -> Upload {
        let mut upload = Upload::default();
        for (id, key) in members(&body["one_time_keys"]) {
            match self.uploaded.get(id) {
                Some(known) if known != key => {
                    upload.reuses.push(format!("one-time key {id}"));
                    upload.is_refused = true;
                    return upload;
                }
                Some(_) => {}
                None => {
                    self.uploaded.insert(id.clone(), key.clone());
                    self.one_time.push_back((id.clone(), key.clone()));
                }
            }
        }
        for (id, key) in members(&body["fallback_keys"]) {
            if self.fallback_id() != Some(id) {
                self.fallback_used = false;
            }
            let first = self.fallbacks.entry(id.clone());
            if first.or_insert_with(|| key.clone()) != key {
                upload.reuses.push(format!("fallback key {id}"));
            }
            self.fallback = Some((id.clone(), key.clone()));
        }
        let keys = &body["device_keys"];
        if !keys.is_null() && self.published.as_ref() != Some(keys) {
            let key = keys["keys"][format!("ed25519:{device}")].as_str();
            self.ever.extend(key.map(str::to_owned));
            self.published = Some(keys.clone());
            upload.is_change = true;
        }
        upload
    }

    /// Returns how many one-time keys are left.
    pub fn one_time_count(&self) -> usize {
        self.one_time.len()
    }

    /// Returns how many one-time keys were ever uploaded.
    pub fn uploaded_count(&self) -> usize {
        self.uploaded.len()
    }

    /// Returns how many Ed25519 keys the device has ever published.
    pub fn published_count(&self) -> usize {
        self.ever.len()
    }

    /// Returns the id of the present fallback key.
    pub fn fallback_id(&self) -> Option<&str> {
        self.fallback.as_ref().map(|(id, _)| id.as_str())
    }

    /// Returns for which algorithms there is a fallback key that nobody has used.
    pub fn unused_fallback(&self) -> &'static [&'static str] {
        if self.fallback.is_some() && !self.fallback_used {
            &[ALGORITHM]
        } else {
            &[]
        }
    }

    /// Gives a key away: each one-time key once, then the fallback key.
    pub fn claim(&mut self) -> Option<(String, Value)> {
        let key = self.one_time.pop_front();
        key.or_else(|| {
            self.fallback_used = true;
            self.fallback.clone()
        })
    }

    /// Throws one-time keys away, at most this many; returns how many there were.
    pub fn waste(&mut self, count: usize) -> usize {
        let count = count.min(self.one_time.len());
        self.one_time.drain(..count).count()
    }
}

/// The keys of a user's identity.
#[derive(Debug, Default)]
pub struct Identity {
    /// `master_key`, `self_signing_key`, `user_signing_key`.
    pub keys: BTreeMap<String, Value>,
    /// Every master key that was ever published.
    masters: BTreeSet<String>,
}

impl Identity {
    /// Takes the body of `POST /keys/device_signing/upload` in; returns whether it changed a key.
    pub fn upload(&mut self, body: &Value) -> bool {
        let mut is_change = false;
        for kind in ["master_key", "self_signing_key", "user_signing_key"] {
            let key = &body[kind];
            if !key.is_null() && self.keys.get(kind) != Some(key) {
                self.keys.insert(kind.to_owned(), key.clone());
                is_change = true;
            }
        }
        let masters = members(&body["master_key"]["keys"]);
        self.masters
            .extend(masters.filter_map(|(_, key)| Some(key.as_str()?.to_owned())));
        is_change
    }

    /// Returns how many master keys were ever published.
    pub fn master_count(&self) -> usize {
        self.masters.len()
    }
}

/// Adds the signatures of `signed` to those of `keys`.
pub fn add_signatures(keys: &mut Value, signed: &Value) {
    for (user, signatures) in members(&signed["signatures"]) {
        for (key, signature) in members(signatures) {
            keys["signatures"][user][key] = signature.clone();
        }
    }
}

/// Returns the answer to `POST /keys/query` before anybody's keys are in it.
pub fn empty_query_answer() -> Value {
    json!({
        "device_keys": {}, "master_keys": {}, "self_signing_keys": {}, "user_signing_keys": {},
        "failures": {},
    })
}

fn members(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten()
}
