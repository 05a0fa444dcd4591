//! The homeserver of `tests/fake-homeserver`, without a pusher: what would be pushed is handed over
//! by the test.

use std::{collections::BTreeMap, sync::Arc};

use fake_homeserver::{Fake, Options, Registration, Server};
use ruma::{DeviceId, RoomId, UserId};
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{
    crypto::IncomingCrypto,
    matrix::{Homeserver, HomeserverOptions},
};

pub(crate) use fake_homeserver::{Held, Outage, When};

/// Who makes the rooms that a user is put into.
const HOST: &str = "@alice:hs.test";

/// The homeserver, which is there until the runtime ends. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct FakeHomeserver {
    fake: Arc<Fake>,
    /// One client for all: to make one takes long without optimisation.
    client: Arc<OnceCell<Homeserver>>,
}

/// For what a test orders, and for the requests that came.
impl std::ops::Deref for FakeHomeserver {
    type Target = Fake;

    fn deref(&self) -> &Fake {
        &self.fake
    }
}

impl FakeHomeserver {
    pub(crate) async fn start() -> Self {
        let options = Options {
            server_name: "hs.test".to_owned(),
            pushes: false,
            ..Options::default()
        };
        let fake = Arc::new(Fake::start(options).await.unwrap());
        fake.serves(Registration {
            id: "stonechat".to_owned(),
            as_token: "token".to_owned(),
            sender: "@_dm_.svc:hs.test".to_owned(),
            prefix: "@_dm_".to_owned(),
            ..Registration::default()
        });
        // A test may drop every handle and go on with its client.
        let kept = fake.clone();
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(kept);
        });
        Self {
            fake,
            client: Arc::default(),
        }
    }

    pub(crate) async fn connect(&self) -> Homeserver {
        let connecting = || async {
            let token = SecretString::from("token");
            Homeserver::connect(self.url(), token, HomeserverOptions::default())
                .await
                .unwrap()
        };
        self.client.get_or_init(connecting).await.clone()
    }

    /// The token up to which a sync would go now that leaves nothing for the next.
    pub(crate) fn sync_token(&self) -> String {
        self.with(|server| server.sync_token(server.position))
    }

    /// Waits until `done` is true of the requests made so far.
    pub(crate) async fn until(&self, done: impl Fn(&Self) -> bool) {
        let limit = std::time::Duration::from_secs(10);
        self.fake.until(limit, || done(self)).await.unwrap();
    }

    pub(crate) fn name(&self, user: &UserId) -> Option<String> {
        self.with(|server| {
            let account = server.accounts.get(user.as_str())?;
            Some(account.profile.get("displayname")?.as_str()?.to_owned())
        })
    }
}

/// Devices.
impl FakeHomeserver {
    /// Makes a user and a device without asking anybody.
    pub(crate) fn add_device(&self, user: &UserId, device: &DeviceId) {
        self.with(|server| {
            server.device_of(user.as_str(), device.as_str());
        });
    }

    pub(crate) fn devices(&self, user: &UserId) -> Vec<String> {
        self.with(|server| {
            let account = server.accounts.get(user.as_str()).into_iter();
            let devices = account.flat_map(|account| account.devices.keys());
            devices.cloned().collect()
        })
    }

    /// Gives a device of a user these keys, without one-time keys.
    pub(crate) fn put_device_keys(&self, user: &UserId, device: &str, keys: Value) {
        self.with(|server| server.put_device_keys(user.as_str(), device, keys));
    }

    /// How many identities the user has ever published, and the most keys any of its devices had.
    pub(crate) fn ever_published(&self, user: &UserId) -> (usize, usize) {
        self.with(|server| {
            let user = &server.accounts[user.as_str()];
            let devices = user.devices.values();
            let keys = devices.map(|device| device.keys.published_count()).max();
            (user.identity.master_count(), keys.unwrap_or_default())
        })
    }

    /// Puts messages into the inboxes of all devices of a user.
    pub(crate) fn put_to_device(&self, user: &UserId, messages: &[Value]) {
        for device in self.devices(user) {
            for message in messages {
                let message = message.clone();
                self.with(|server| server.put_message(user.as_str(), &device, message));
            }
        }
    }

    /// The next sync says that the devices of this user changed.
    pub(crate) fn put_changed_devices(&self, user: &UserId) {
        self.with(|server| server.keys_changed(user.as_str()));
    }

    /// What a transaction would bring for a device now: its messages, and how many keys it has.
    pub(crate) fn take_incoming(&self, user: &UserId, device: &DeviceId) -> IncomingCrypto {
        let incoming = self.with(|server| server.take_incoming(user.as_str(), device.as_str()));
        let (algorithm, count) = incoming.one_time_keys;
        let count = u32::try_from(count).unwrap();
        let messages = incoming.messages.iter();
        let unused = incoming.unused_fallback.into_iter();
        IncomingCrypto {
            to_device: messages
                .map(|message| serde_json::value::to_raw_value(message).unwrap())
                .collect(),
            otk_counts: Some(BTreeMap::from([(algorithm.into(), count.into())])),
            fallback_types: Some(unused.map(Into::into).collect()),
            device_lists_changed: Vec::new(),
        }
    }

    /// How many messages wait for a device.
    pub(crate) fn waiting(&self, user: &UserId, device: &DeviceId) -> usize {
        self.device(user, device, |device| device.inbox.len())
    }

    /// For how many devices of a user keys were claimed at once, at most.
    pub(crate) fn claimed(&self, user: &UserId) -> usize {
        self.with(|server| server.accounts[user.as_str()].most_claimed)
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

    fn device<T>(
        &self,
        user: &UserId,
        device: &DeviceId,
        act: impl FnOnce(&mut fake_homeserver::Device) -> T,
    ) -> T {
        self.with(|server| {
            let user = server.accounts.get_mut(user.as_str());
            let devices = &mut user.expect("the user exists").devices;
            act(devices.get_mut(device.as_str()).expect("the device exists"))
        })
    }
}

/// Rooms.
impl FakeHomeserver {
    /// A user is joined to these rooms, and invited to those, and in no others.
    pub(crate) fn put_into_rooms(&self, user: &UserId, joined: &[&str], invited: &[&str]) {
        let user = user.as_str();
        self.with(|server| {
            let rooms: Vec<String> = server.rooms.keys().cloned().collect();
            for room in rooms {
                if !joined.contains(&&*room) && !invited.contains(&&*room) {
                    server.put_member(&room, user, user, "leave");
                }
            }
            for room in invited.iter().chain(joined) {
                server.put_room(room, HOST);
                server.put_member(room, HOST, user, "invite");
            }
            for room in joined {
                server.put_member(room, user, user, "join");
            }
        });
    }

    /// The rooms that a user is joined to.
    pub(crate) fn rooms_of(&self, user: &UserId) -> Vec<String> {
        self.with(|server| server.joined_by(user.as_str()))
    }

    /// A room in which these are, and nobody else; who is invited already stays so.
    pub(crate) fn add_room(&self, room: &RoomId, members: &[&UserId]) {
        let room = room.as_str();
        self.with(|server| {
            server.put_room(room, members[0].as_str());
            let gone: Vec<String> = joined(server, room)
                .into_iter()
                .filter(|user| !members.iter().any(|member| member.as_str() == user))
                .collect();
            for member in members {
                server.put_member(room, member.as_str(), member.as_str(), "join");
            }
            for user in gone {
                server.put_member(room, &user, &user, "leave");
            }
        });
    }

    /// Somebody is invited into a room, which its inviter made if there is none.
    pub(crate) fn invite(&self, room: &RoomId, by: &UserId, user: &UserId) {
        self.with(|server| {
            server.put_room(room.as_str(), by.as_str());
            server.put_member(room.as_str(), by.as_str(), user.as_str(), "invite");
        });
    }

    /// Somebody's membership in a room that was made, `leave` if they are not there.
    pub(crate) fn membership(&self, room: &RoomId, user: &UserId) -> String {
        self.with(|server| {
            let room = &server.rooms[room.as_str()];
            room.membership(user.as_str()).to_owned()
        })
    }

    /// How many events that are no state were sent into a room.
    pub(crate) fn sent(&self, room: &RoomId) -> usize {
        let events = self.events(room.as_str());
        let said = events.iter().filter(|event| event.state_key.is_none());
        said.count()
    }

    /// Forgets all transaction ids, as Synapse does after a day.
    pub(crate) fn forget_transactions(&self) {
        self.with(Server::forget_transactions);
    }
}

fn joined(server: &Server, room: &str) -> Vec<String> {
    let room = server.rooms.get(room).into_iter();
    let joined = room.flat_map(|room| room.with_membership("join"));
    joined.map(str::to_owned).collect()
}
