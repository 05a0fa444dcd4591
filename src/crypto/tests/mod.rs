//! Stories of ghosts and people with ordinary clients, on the fake homeserver.

mod crowds;
mod forgetting;
mod keyless;
mod kill_nine;
mod machines;
mod old_records;
mod provisioning;
mod receiving;
mod rivals;
mod rotating;
mod silence;
mod talking;

use std::sync::{Arc, Mutex};

use rand::{SeedableRng as _, rngs::StdRng};
use ruma::{OwnedDeviceId, OwnedUserId, RoomId, UserId, room_id, user_id};
use serde_json::{Value, json, value::RawValue};

use super::*;
use crate::{
    store::Store,
    testing::{FakeHomeserver, Person, TestClock, encrypted_event},
};

/// The ghost of most stories.
fn sam() -> &'static UserId {
    user_id!("@_dm_sam:hs.test")
}

fn room() -> &'static RoomId {
    room_id!("!room:hs.test")
}

/// A homeserver and us.
struct World {
    fake: FakeHomeserver,
    store: Store,
    clock: Arc<TestClock>,
    machines: Machines,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut MachineSettings)) -> Self {
        let fake = FakeHomeserver::start().await;
        let clock = Arc::new(TestClock::at(1_795_376_395_450));
        let store = Store::in_memory();
        let mut settings = MachineSettings {
            clock: clock.clone(),
            rng: Arc::new(Mutex::new(StdRng::seed_from_u64(7))),
            ..Default::default()
        };
        change(&mut settings);
        let machines = Machines::new(store.clone(), fake.connect().await, settings).unwrap();
        Self {
            fake,
            store,
            clock,
            machines,
        }
    }

    /// A ghost that reads and writes, in the room.
    async fn with_sam() -> Self {
        let world = Self::new().await;
        world.machines.provision(sam(), "Sam").await.unwrap();
        world.machines.expect_room(sam(), room()).await.unwrap();
        world
    }

    /// Starts anew over the same store.
    async fn restart(self) -> Self {
        let Self {
            fake,
            store,
            clock,
            machines,
        } = self;
        let settings = machines.0.settings.clone();
        drop(machines);
        let machines = Machines::new(store.clone(), fake.connect().await, settings).unwrap();
        Self {
            fake,
            store,
            clock,
            machines,
        }
    }

    fn device(&self, user: &UserId) -> OwnedDeviceId {
        self.machines.device_of(user).unwrap().unwrap()
    }

    /// Hands the ghost what has come for it, as a transaction does.
    async fn deliver(&self, user: &UserId) -> Vec<NewRoomKey> {
        let incoming = self.fake.take_incoming(user, &self.device(user));
        self.machines
            .receive_and_respond(user, incoming)
            .await
            .unwrap()
    }

    async fn encrypt(&self, to: &[&UserId], text: &str) -> Result<Box<RawValue>, EncryptError> {
        let to = EncryptTo {
            room_id: room().to_owned(),
            recipients: to.iter().map(|user| OwnedUserId::from(*user)).collect(),
            rotation_ms: None,
            rotation_msgs: None,
        };
        let content = self
            .machines
            .encrypt(sam(), &to, "m.room.message", &message(text))
            .await?;
        Ok(encrypted_event(sam(), room(), &content))
    }

    async fn decrypt(&self, event: &RawValue) -> Result<String, DecryptError> {
        let decrypted = self.machines.decrypt(sam(), room(), event).await?;
        assert_eq!(decrypted.event_type, "m.room.message");
        let content: Value = serde_json::from_str(decrypted.content.get()).unwrap();
        Ok(content["body"].as_str().unwrap().to_owned())
    }
}

impl Machines {
    /// Dates a ghost's sessions with a device back by years: the library repairs no session that is
    /// younger than an hour, and tells two of the same second apart by chance.
    pub(crate) async fn make_sessions_old(&self, user: &UserId, device: &str) {
        use matrix_sdk_crypto::store::{CryptoStore as _, types::Changes};
        let store = self.0.stores.existing(user).unwrap().unwrap();
        let mut sessions = store.get_sessions(device).await.unwrap().unwrap();
        for session in &mut sessions {
            session.creation_time = ruma::SecondsSinceUnixEpoch(ruma::uint!(1_000_000_000));
        }
        let changes = Changes {
            sessions,
            ..Changes::default()
        };
        store.save_changes(changes).await.unwrap();
        // The machine holds a copy.
        drop(self.unload(&self.slot(user)).await);
    }
}

fn message(text: &str) -> Box<RawValue> {
    serde_json::value::to_raw_value(&json!({"msgtype": "m.text", "body": text})).unwrap()
}

#[test]
fn whatever_we_do_may_be_done_on_another_thread() {
    fn is_send<T: Send>(_: impl FnOnce(Machines) -> T) {}
    is_send(|m| async move { m.provision(sam(), "Sam").await });
    is_send(|m| async move { m.provision_keyless(sam(), "Sam").await });
    is_send(|m| async move { m.provision_bare(sam()).await });
    is_send(|m| async move {
        m.receive_and_respond(sam(), IncomingCrypto::default())
            .await
    });
    is_send(|m| async move { m.decrypt(sam(), room(), RawValue::NULL).await });
    is_send(|m| async move {
        let to = EncryptTo {
            room_id: room().to_owned(),
            recipients: Vec::new(),
            rotation_ms: None,
            rotation_msgs: None,
        };
        m.encrypt(sam(), &to, "t", RawValue::NULL).await
    });
    is_send(|m| async move { m.forget_room(sam(), room()).await });
    is_send(|m| async move { m.retire(sam()).await });
}
