//! Devices: their keys, and the messages that wait for them.

use std::collections::{BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::{
    keys::{self, ALGORITHM, DeviceKeys},
    route::{Answer, Ask},
    server::Server,
};

/// Synapse holds so many one-time keys of a device.
const ONE_TIME_KEYS: usize = 500;

/// A to-device message on its way.
#[derive(Clone, Debug)]
pub struct Message {
    /// The user and the device.
    to: (String, String),
    /// As the device's sync shows it.
    json: Value,
}

/// What becomes of the to-device messages that somebody sends to the service, if they do not simply
/// arrive.
#[derive(Clone, Debug)]
pub enum Mail {
    /// They are kept until [`Server::end_mail`].
    Late(Vec<Message>),
    /// Each comes twice.
    Twice,
    /// They are lost.
    Lost,
}

/// A device.
#[derive(Debug, Default)]
pub struct Device {
    /// Its name, visible to everybody who asks for its keys.
    pub name: Option<String>,
    /// Its keys.
    pub keys: DeviceKeys,
    /// To-device messages with their positions, until a sync acknowledges them.
    pub inbox: VecDeque<(u64, Value)>,
}

impl Server {
    /// Whether somebody has a device that their self-signing key has signed.
    pub fn is_signed(&self, user: &str) -> bool {
        let Some(account) = self.accounts.get(user) else {
            return false;
        };
        let key = account.identity.keys.get("self_signing_key");
        let key = key.and_then(|key| key["keys"].as_object()?.keys().next());
        key.is_some_and(|key| {
            let devices = account.devices.values();
            let devices = devices.filter_map(|device| device.keys.published.as_ref());
            let mut signatures = devices.map(|keys| &keys["signatures"][user]);
            signatures.any(|signed| !signed[key].is_null())
        })
    }

    pub(super) fn devices(&self, ask: &Ask) -> Answer {
        let devices = self.accounts.get(&ask.user).map(|account| &account.devices);
        let devices: Vec<Value> = devices
            .into_iter()
            .flatten()
            .map(|(id, device)| json!({"device_id": id, "display_name": device.name}))
            .collect();
        Answer::ok(&json!({"devices": devices}))
    }

    pub(super) fn device(&self, ask: &Ask, id: &str) -> Answer {
        let account = self.accounts.get(&ask.user);
        match account.and_then(|account| account.devices.get(id)) {
            Some(device) => Answer::ok(&json!({"device_id": id, "display_name": device.name})),
            None => Answer::not_found("No device found"),
        }
    }

    pub(super) fn put_device(&mut self, ask: &Ask, id: &str) -> Answer {
        let Some(account) = self.accounts.get_mut(&ask.user) else {
            return Answer::forbidden("no such user");
        };
        let known = account.devices.contains_key(id);
        let device = account.devices.entry(id.to_owned()).or_default();
        if let Some(name) = ask.json()["display_name"].as_str() {
            device.name = Some(name.to_owned());
        }
        self.keys_changed(&ask.user);
        Answer {
            status: if known { 200 } else { 201 },
            ..Answer::empty()
        }
    }

    pub(super) fn delete_device(&mut self, ask: &Ask, id: &str) -> Answer {
        let account = self.accounts.get_mut(&ask.user);
        if account.is_some_and(|account| account.devices.remove(id).is_some()) {
            self.keys_changed(&ask.user);
        }
        Answer::empty()
    }

    pub(super) fn upload_keys(&mut self, ask: &Ask) -> Answer {
        let account = self.accounts.get_mut(&ask.user);
        let named = ask.device.as_ref();
        let device = account.zip(named).and_then(|(account, id)| {
            let device = account.devices.get_mut(id)?;
            Some((id, device))
        });
        let Some((id, device)) = device else {
            return Answer::refused(400, "M_UNKNOWN", "To upload keys, you must pass device_id");
        };
        let upload = device.keys.upload(id, &ask.json());
        let count = device.keys.one_time_count();
        let reuses = upload.reuses.iter();
        let reuses = reuses.map(|what| format!("{} {id}: {what}", ask.user));
        self.reuses.extend(reuses);
        if upload.is_refused {
            return Answer::refused(400, "M_UNKNOWN", "One time key already exists");
        }
        if upload.is_change {
            self.keys_changed(&ask.user);
        }
        if count > ONE_TIME_KEYS {
            return Answer::refused(400, "M_TOO_LARGE", "too many one-time keys");
        }
        Answer::ok(&json!({"one_time_key_counts": {ALGORITHM: count}}))
    }

    pub(super) fn query_keys(&self, ask: &Ask) -> Answer {
        let mut answer = keys::empty_query_answer();
        let asked = ask.json();
        for (id, wanted) in asked["device_keys"].as_object().into_iter().flatten() {
            let Some(account) = self.accounts.get(id) else {
                continue;
            };
            let wanted = wanted.as_array().filter(|wanted| !wanted.is_empty());
            let mut devices = json!({});
            for (device_id, device) in &account.devices {
                let is_wanted = |all: &Vec<Value>| all.iter().any(|one| one == device_id);
                if let Some(keys) = &device.keys.published
                    && wanted.is_none_or(is_wanted)
                {
                    let mut keys = keys.clone();
                    keys["unsigned"] = json!({"device_display_name": device.name});
                    devices[device_id] = keys;
                }
            }
            answer["device_keys"][id] = devices;
            for (kind, key) in &account.identity.keys {
                if kind != "user_signing_key" || *id == ask.user {
                    answer[format!("{kind}s")][id] = key.clone();
                }
            }
        }
        Answer::ok(&answer)
    }

    pub(super) fn claim_keys(&mut self, ask: &Ask) -> Answer {
        let mut keys = json!({});
        let asked = ask.json();
        for (id, devices) in asked["one_time_keys"].as_object().into_iter().flatten() {
            if let Some(account) = self.accounts.get_mut(id) {
                let count = devices.as_object().map_or(0, serde_json::Map::len);
                account.most_claimed = account.most_claimed.max(count);
            }
            for device_id in devices.as_object().into_iter().flatten().map(|(id, _)| id) {
                let account = self.accounts.get_mut(id);
                let device = account.and_then(|account| account.devices.get_mut(device_id));
                if let Some((key_id, key)) = device.and_then(|device| device.keys.claim()) {
                    keys[id][device_id][key_id] = key;
                }
            }
        }
        Answer::ok(&json!({"one_time_keys": keys, "failures": {}}))
    }

    pub(super) fn changed_keys(&self, ask: &Ask) -> Answer {
        let position = |name: &str| {
            ask.query
                .get(name)
                .and_then(|token| super::sync::room_part(token))
        };
        let from = position("from").unwrap_or(0);
        let until = position("to").unwrap_or(u64::MAX);
        let changed: Vec<String> = self
            .sharing_with(&ask.user)
            .into_iter()
            .filter(|user| {
                let at = self.accounts.get(user).map_or(0, |is| is.keys_changed);
                from < at && at <= until
            })
            .collect();
        Answer::ok(&json!({"changed": changed, "left": []}))
    }

    pub(super) fn upload_identity(&mut self, ask: &Ask) -> Answer {
        let body = ask.json();
        let Some(account) = self.accounts.get_mut(&ask.user) else {
            return Answer::forbidden("no such user");
        };
        if account.identity.upload(&body) {
            self.keys_changed(&ask.user);
        }
        Answer::empty()
    }

    pub(super) fn upload_signatures(&mut self, ask: &Ask) -> Answer {
        let body = ask.json();
        let mut failures = json!({});
        let mut changed = BTreeSet::new();
        for (user, signed) in body.as_object().into_iter().flatten() {
            for (id, object) in signed.as_object().into_iter().flatten() {
                let account = self.accounts.get_mut(user);
                let target = account.and_then(|account| match account.devices.get_mut(id) {
                    Some(device) => device.keys.published.as_mut(),
                    None => {
                        let master = account.identity.keys.get_mut("master_key")?;
                        let is = master["keys"].get(format!("ed25519:{id}")).is_some();
                        is.then_some(master)
                    }
                });
                match target {
                    Some(target) => {
                        keys::add_signatures(target, object);
                        changed.insert(user.clone());
                    }
                    None => {
                        failures[user][id] =
                            json!({"errcode": "M_NOT_FOUND", "error": "no such key"});
                    }
                }
            }
        }
        for user in changed {
            self.keys_changed(&user);
        }
        Answer::ok(&json!({"failures": failures}))
    }

    pub(super) fn send_to_device(&mut self, ask: &Ask, kind: &str) -> Answer {
        let body = ask.json();
        let mut messages = Vec::new();
        for (user, devices) in body["messages"].as_object().into_iter().flatten() {
            let account = self.accounts.get(user);
            for (wanted, content) in devices.as_object().into_iter().flatten() {
                if self.firsts.is_other_message(content) {
                    let sender = &ask.user;
                    self.reuses
                        .push(format!("{sender}: a place in its Olm session with {user}"));
                }
                let ids = account
                    .into_iter()
                    .flat_map(|account| account.devices.keys());
                messages.extend(ids.filter(|id| wanted == "*" || wanted == *id).map(|id| {
                    Message {
                        to: (user.clone(), id.clone()),
                        json: json!({"type": kind, "sender": ask.user, "content": content}),
                    }
                }));
            }
        }
        let (ours, others) = messages
            .into_iter()
            .partition(|message: &Message| self.is_ours(&message.to.0));
        self.deliver(others);
        if let Some(ours) = self.hold_messages(&ask.user, ours) {
            self.send_to_service(&ask.user, ours);
        }
        Answer::empty()
    }

    /// Lets become of messages for the service's devices what becomes of this sender's.
    pub(super) fn send_to_service(&mut self, sender: &str, messages: Vec<Message>) {
        match self.mail.get_mut(sender) {
            None => self.deliver(messages),
            Some(Mail::Late(kept)) => kept.extend(messages),
            Some(Mail::Twice) => {
                self.deliver(messages.clone());
                self.deliver(messages);
            }
            Some(Mail::Lost) => {}
        }
    }

    /// From now on this becomes of what somebody sends to the service's devices.
    pub fn begin_mail(&mut self, sender: &str, mail: Mail) {
        self.mail.insert(sender.to_owned(), mail);
    }

    /// Delivers what was late, and from now on everything.
    pub fn end_mail(&mut self, sender: &str) {
        if let Some(Mail::Late(kept)) = self.mail.remove(sender) {
            self.deliver(kept);
        }
    }

    fn deliver(&mut self, messages: Vec<Message>) {
        for Message {
            to: (user, id),
            json: mut message,
        } in messages
        {
            let position = self.step();
            let Some(account) = self.accounts.get_mut(&user) else {
                continue;
            };
            // It may have been deleted since.
            let Some(device) = account.devices.get_mut(&id) else {
                continue;
            };
            device.inbox.push_back((position, message.clone()));
            account.bell.notify_waiters();
            if self.is_ours(&user) {
                message["to_user_id"] = user.into();
                message["to_device_id"] = id.into();
                self.queue.push_message(message);
            }
        }
    }
}
