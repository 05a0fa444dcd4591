//! What a test puts there itself, and takes away, without asking anybody.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    device::Device,
    keys::{ALGORITHM, DeviceKeys},
    room::Room,
    server::{Account, Draft, Server},
};

/// What a transaction brings for one device.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// Its messages, addressed to it.
    pub messages: Vec<Value>,
    /// How many one-time keys it has left, by algorithm.
    pub one_time_keys: (&'static str, usize),
    /// For which algorithms there is a fallback key that nobody has used.
    pub unused_fallback: Vec<&'static str>,
}

impl Server {
    /// Returns the account of a user, whom it makes if there is none. Somebody new may have been
    /// invited before.
    pub fn account(&mut self, user: &str) -> &mut Account {
        let rooms = &self.rooms;
        self.accounts.entry(user.to_owned()).or_insert_with(|| {
            let rooms = rooms.values();
            let rooms = rooms.filter(|room| room.memberships.contains_key(user));
            Account {
                rooms: rooms.map(|room| room.id.clone()).collect(),
                ..Account::default()
            }
        })
    }

    /// Returns a device of a user; makes both if there is none.
    pub fn device_of(&mut self, user: &str, device: &str) -> &mut Device {
        let devices = &mut self.account(user).devices;
        devices.entry(device.to_owned()).or_default()
    }

    /// Gives a device of a user these keys, without one-time keys.
    pub fn put_device_keys(&mut self, user: &str, device: &str, keys: Value) {
        self.device_of(user, device).keys.published = Some(keys);
        self.keys_changed(user);
    }

    /// Deletes all devices of a user, as an admin may do it.
    pub fn delete_devices(&mut self, user: &str) {
        self.account(user).devices.clear();
        self.keys_changed(user);
    }

    /// Loses the keys of all devices of a user; the devices stay.
    pub fn lose_keys(&mut self, user: &str) {
        for device in self.account(user).devices.values_mut() {
            device.keys = DeviceKeys::default();
        }
        self.keys_changed(user);
    }

    /// Loses a user with all of their devices; the rooms keep them as a member.
    pub fn lose_account(&mut self, user: &str) {
        self.keys_changed(user);
        self.accounts.remove(user);
    }

    /// Gives away all one-time keys of a user's devices, and then the fallback key.
    pub fn use_up_keys(&mut self, user: &str) {
        for device in self.account(user).devices.values_mut() {
            device.keys.waste(usize::MAX);
            device.keys.claim();
        }
    }

    /// From now on nobody is told when the devices of this user change, as when the news of another
    /// server get lost.
    pub fn hide_device_changes(&mut self, user: &str) {
        self.unseen.insert(user.to_owned());
    }

    /// Deletes a device of a user, as when they log out, and tells everybody about their devices
    /// again.
    pub fn log_out(&mut self, user: &str, device: &str) {
        self.unseen.remove(user);
        self.account(user).devices.remove(device);
        self.keys_changed(user);
    }

    /// Puts a message into the inbox of a device.
    pub fn put_message(&mut self, user: &str, device: &str, message: Value) {
        let position = self.step();
        let inbox = &mut self.device_of(user, device).inbox;
        inbox.push_back((position, message));
    }

    /// Takes what a transaction would bring for a device now.
    pub fn take_incoming(&mut self, user: &str, device: &str) -> Incoming {
        let is = self.device_of(user, device);
        let messages = is.inbox.drain(..).map(|(_, mut message)| {
            message["to_user_id"] = user.into();
            message["to_device_id"] = device.into();
            message
        });
        Incoming {
            messages: messages.collect(),
            one_time_keys: (ALGORITHM, is.keys.one_time_count()),
            unused_fallback: is.keys.unused_fallback().to_vec(),
        }
    }

    /// Makes an encrypted room with its creator in it, if there is none of this id.
    pub fn put_room(&mut self, id: &str, creator: &str) {
        if self.rooms.contains_key(id) {
            return;
        }
        let room = Room {
            id: id.to_owned(),
            version: "12".to_owned(),
            creators: BTreeSet::from([creator.to_owned()]),
            ..Room::default()
        };
        self.rooms.insert(id.to_owned(), room);
        let algorithm = json!({"algorithm": "m.megolm.v1.aes-sha2"});
        let mine = self.member_content(creator, "join");
        let state = [
            ("m.room.create", "", json!({"room_version": "12"})),
            ("m.room.member", creator, mine),
            ("m.room.power_levels", "", json!({"users": {}})),
            ("m.room.join_rules", "", json!({"join_rule": "invite"})),
            (
                "m.room.history_visibility",
                "",
                json!({"history_visibility": "shared"}),
            ),
            ("m.room.encryption", "", algorithm),
        ];
        for (kind, key, content) in state {
            self.append(id, Draft::state(creator, kind, key, &content));
        }
    }

    /// Gives somebody a membership in a room, as `by` would do it.
    pub fn put_member(&mut self, room: &str, by: &str, user: &str, membership: &str) {
        let is = self.rooms.get(room).map(|room| room.membership(user));
        if is != Some(membership) {
            let content = self.member_content(user, membership);
            self.append(room, Draft::state(by, "m.room.member", user, &content));
        }
    }

    /// Returns the rooms that a user is joined to.
    pub fn joined_by(&self, user: &str) -> Vec<String> {
        let rooms = self.accounts.get(user).map(|account| &account.rooms);
        let rooms = rooms.into_iter().flatten();
        let is_joined = |id: &&String| self.rooms.get(*id).is_some_and(|room| room.is_joined(user));
        rooms.filter(is_joined).cloned().collect()
    }

    /// Forgets all transaction ids, as Synapse does after a day.
    pub fn forget_transactions(&mut self) {
        self.answered.clear();
        self.sent.clear();
    }
}
