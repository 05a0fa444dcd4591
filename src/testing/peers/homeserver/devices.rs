//! Devices: their keys, and the messages that wait for them.

use std::collections::BTreeMap;

use fake_homeserver::model::keys::{self, ALGORITHM, DeviceKeys};
use matrix_sdk_crypto::vodozemac::{base64_decode, olm};
use ruma::{DeviceId, UserId};
use serde_json::{Value, json};

use super::{
    FakeHomeserver, Server,
    http::{Answer, Ask, refused},
};
use crate::crypto::IncomingCrypto;

#[derive(Default)]
pub(super) struct Device {
    keys: DeviceKeys,
    inbox: Vec<Value>,
}

impl FakeHomeserver {
    fn device<T>(&self, user: &UserId, device: &DeviceId, act: impl FnOnce(&mut Device) -> T) -> T {
        self.with(|server| {
            let user = server
                .users
                .get_mut(user.as_str())
                .expect("the user exists");
            act(user
                .devices
                .get_mut(device.as_str())
                .expect("the device exists"))
        })
    }

    /// Makes a user and a device without asking anybody.
    pub(crate) fn add_device(&self, user: &UserId, device: &DeviceId) {
        self.with(|server| {
            let user = server.users.entry(user.to_string()).or_default();
            user.devices.entry(device.to_string()).or_default();
        });
    }

    pub(crate) fn devices(&self, user: &UserId) -> Vec<String> {
        self.with(|server| {
            server
                .users
                .get(user.as_str())
                .map_or(Vec::new(), |u| u.devices.keys().cloned().collect())
        })
    }

    /// Gives a device of a user these keys, without one-time keys.
    pub(crate) fn put_device_keys(&self, user: &UserId, device: &str, keys: Value) {
        self.with(|server| {
            let user = server.users.entry(user.to_string()).or_default();
            let device = user.devices.entry(device.to_owned()).or_default();
            device.keys.published = Some(keys);
        });
    }

    /// Shows these devices of a user, whatever they have.
    pub(crate) fn show_devices(&self, user: &UserId, devices: Value) {
        self.with(|server| {
            server.users.entry(user.to_string()).or_default();
            server.odd_devices.insert(user.to_string(), devices);
        });
    }

    /// How many identities the user has ever published, and the most keys any of its devices had.
    pub(crate) fn ever_published(&self, user: &UserId) -> (usize, usize) {
        self.with(|server| {
            let user = &server.users[user.as_str()];
            let keys = user
                .devices
                .values()
                .map(|device| device.keys.published_count())
                .max();
            (user.identity.master_count(), keys.unwrap_or_default())
        })
    }

    /// Messages that the next sync brings for the device that asks.
    pub(crate) fn put_to_device(&self, messages: &[Value]) {
        self.with(|server| server.to_device.extend_from_slice(messages));
    }

    /// The next sync says that the devices of this user changed.
    pub(crate) fn put_changed_devices(&self, user: &UserId) {
        self.with(|server| server.devices_changed.push(user.to_string()));
    }

    /// What a transaction would bring for a device now: its messages, and how many keys it has.
    pub(crate) fn take_incoming(&self, user: &UserId, device: &DeviceId) -> IncomingCrypto {
        self.device(user, device, |device| {
            let count = u32::try_from(device.keys.one_time_count()).unwrap();
            let unused = device.keys.unused_fallback().iter();
            IncomingCrypto {
                to_device: std::mem::take(&mut device.inbox)
                    .into_iter()
                    .map(|message| serde_json::value::to_raw_value(&message).unwrap())
                    .collect(),
                otk_counts: Some(BTreeMap::from([(ALGORITHM.into(), count.into())])),
                fallback_types: Some(unused.map(|algorithm| (*algorithm).into()).collect()),
                device_lists_changed: Vec::new(),
            }
        })
    }

    /// How many messages wait for a device.
    pub(crate) fn waiting(&self, user: &UserId, device: &DeviceId) -> usize {
        self.device(user, device, |device| device.inbox.len())
    }

    /// Answers to claims of this user's keys hold this many bytes more.
    pub(crate) fn stuff_claims(&self, user: &UserId, bytes: usize) {
        self.with(|server| server.stuffed_claims.insert(user.to_string(), bytes));
    }

    /// For how many devices of a user keys were claimed at once, at most.
    pub(crate) fn claimed(&self, user: &UserId) -> usize {
        self.with(|server| {
            server
                .claimed
                .get(user.as_str())
                .copied()
                .unwrap_or_default()
        })
    }

    /// Claims every one-time key of a device without using any.
    pub(crate) fn claim_all(&self, user: &UserId, device: &DeviceId) -> usize {
        self.claim(user, device, usize::MAX)
    }

    /// Claims so many one-time keys of a device, or as many as there are, without using any.
    pub(crate) fn claim(&self, user: &UserId, device: &DeviceId, count: usize) -> usize {
        self.device(user, device, |device| device.keys.waste(count))
    }

    /// Every one-time key ever uploaded for a device.
    pub(crate) fn uploaded(&self, user: &UserId, device: &DeviceId) -> usize {
        self.device(user, device, |device| device.keys.uploaded_count())
    }

    /// The id of the present fallback key.
    pub(crate) fn fallback(&self, user: &UserId, device: &DeviceId) -> Option<String> {
        self.device(user, device, |device| {
            device.keys.fallback_id().map(str::to_owned)
        })
    }
}

impl Server {
    pub(super) fn about_devices(&mut self, ask: &Ask, path: &[&str]) -> Answer {
        let user = self.users.get_mut(&ask.user).unwrap();
        match (ask.method.as_str(), path) {
            ("GET", ["devices"]) => {
                let devices: Vec<_> = user
                    .devices
                    .keys()
                    .map(|id| json!({"device_id": id}))
                    .collect();
                (200, json!({"devices": devices}))
            }
            ("PUT", ["devices", id]) => {
                user.devices.entry((*id).to_owned()).or_default();
                (200, json!({}))
            }
            ("DELETE", ["devices", id]) => {
                user.devices.remove(*id);
                (200, json!({}))
            }
            _ => refused(404, "M_UNRECOGNIZED"),
        }
    }

    pub(super) fn about_keys(&mut self, ask: &Ask, what: &[&str]) -> Answer {
        match what {
            ["upload"] => self.upload_keys(ask),
            ["device_signing", "upload"] => self.upload_identity(ask),
            ["signatures", "upload"] => self.upload_signatures(ask),
            ["query"] => (200, self.query(&ask.body)),
            ["claim"] => (200, self.claim(&ask.body)),
            _ => refused(404, "M_UNRECOGNIZED"),
        }
    }

    fn upload_keys(&mut self, ask: &Ask) -> Answer {
        let Some(id) = &ask.device else {
            return refused(400, "M_UNKNOWN");
        };
        let user = self.users.get_mut(&ask.user).unwrap();
        let device = user.devices.get_mut(id).unwrap();
        let upload = device.keys.upload(id, &ask.body);
        let reuses = upload.reuses.iter();
        self.reuses
            .extend(reuses.map(|what| format!("{id}: {what}")));
        if upload.is_refused {
            return refused(400, "M_UNKNOWN");
        }
        let count = device.keys.one_time_count();
        (200, json!({"one_time_key_counts": {ALGORITHM: count}}))
    }

    fn upload_identity(&mut self, ask: &Ask) -> Answer {
        let user = self.users.get_mut(&ask.user).unwrap();
        user.identity.upload(&ask.body);
        (200, json!({}))
    }

    fn upload_signatures(&mut self, ask: &Ask) -> Answer {
        let user = self.users.get_mut(&ask.user).unwrap();
        for (id, signed) in ask.body[&ask.user].as_object().unwrap() {
            let device = user.devices.get_mut(id);
            if let Some(keys) = device.and_then(|device| device.keys.published.as_mut()) {
                keys::add_signatures(keys, signed);
            }
        }
        (200, json!({"failures": {}}))
    }

    fn query(&self, body: &Value) -> Value {
        let mut answer = keys::empty_query_answer();
        for id in body["device_keys"].as_object().unwrap().keys() {
            let server_name = id.split_once(':').unwrap().1;
            if self.unreachable.contains(server_name) {
                answer["failures"][server_name] = json!({"status": 503});
                continue;
            }
            let Some(user) = self.users.get(id) else {
                continue;
            };
            if let Some(devices) = self.odd_devices.get(id) {
                answer["device_keys"][id] = devices.clone();
                continue;
            }
            answer["device_keys"][id] = user
                .devices
                .iter()
                .filter_map(|(id, device)| Some((id.clone(), device.keys.published.clone()?)))
                .collect::<serde_json::Map<_, _>>()
                .into();
            for (kind, key) in &user.identity.keys {
                answer[format!("{kind}s")][id] = key.clone();
            }
        }
        answer
    }

    fn claim(&mut self, body: &Value) -> Value {
        let mut keys = json!({});
        for (id, devices) in body["one_time_keys"].as_object().unwrap() {
            let count = devices.as_object().unwrap().len();
            let claimed = self.claimed.entry(id.clone()).or_default();
            *claimed = count.max(*claimed);
            if let Some(bytes) = self.stuffed_claims.get(id) {
                keys[id]["STUFFED"] = json!({"signed_curve25519:A": {"key": "x".repeat(*bytes)}});
            }
            for device_id in devices.as_object().unwrap().keys() {
                let device = self
                    .users
                    .get_mut(id)
                    .and_then(|user| user.devices.get_mut(device_id));
                let Some(device) = device else { continue };
                if let Some((key_id, key)) = device.keys.claim() {
                    keys[id][device_id][key_id] = key;
                }
            }
        }
        json!({"one_time_keys": keys, "failures": {}})
    }

    pub(super) fn send_to_device(&mut self, ask: &Ask, kind: &str) -> Answer {
        match self.transactions.get(&ask.target) {
            Some(first) if *first == ask.body => {}
            Some(_) => self
                .reuses
                .push(format!("{}: transaction {}", ask.user, ask.target)),
            None => {
                self.put_into_inboxes(&ask.user, kind, &ask.body);
                let (target, body) = (ask.target.clone(), ask.body.clone());
                self.transactions.insert(target, body);
            }
        }
        (200, json!({}))
    }

    fn put_into_inboxes(&mut self, sender: &str, kind: &str, body: &Value) {
        for (id, devices) in body["messages"].as_object().unwrap() {
            for (device_id, content) in devices.as_object().unwrap() {
                for (place, text) in olm_messages(content) {
                    let first = self.olm.entry(place).or_insert_with(|| text.clone());
                    if *first != text {
                        self.reuses
                            .push(format!("{sender}: a place in its Olm session with {id}"));
                    }
                }
                let device = self
                    .users
                    .get_mut(id)
                    .and_then(|user| user.devices.get_mut(device_id));
                if let Some(device) = device {
                    device.inbox.push(json!({
                        "type": kind, "sender": sender, "content": content,
                        "to_user_id": id, "to_device_id": device_id
                    }));
                }
            }
        }
    }
}

/// Which message of an Olm session: who sends it, its ratchet key and its index in the chain. The
/// same place has the same message key.
pub(super) type OlmPlace = (String, String, u64);

/// The Olm messages in the content of a to-device message, each with its place.
fn olm_messages(content: &Value) -> Vec<(OlmPlace, Vec<u8>)> {
    let Some(sender) = content["sender_key"].as_str() else {
        return Vec::new();
    };
    let messages = content["ciphertext"].as_object().into_iter().flatten();
    messages
        .map(|(_, message)| {
            let kind = message["type"].as_u64().unwrap().try_into().unwrap();
            let text = message["body"].as_str().unwrap();
            let message =
                match olm::OlmMessage::from_parts(kind, &base64_decode(text).unwrap()).unwrap() {
                    olm::OlmMessage::Normal(message) => message,
                    // What begins the session stands around the same message.
                    olm::OlmMessage::PreKey(first) => first.message().clone(),
                };
            let key = message.ratchet_key().to_base64();
            let place = (sender.to_owned(), key, message.chain_index());
            (place, message.to_bytes())
        })
        .collect()
}
