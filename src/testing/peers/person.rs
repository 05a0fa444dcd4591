//! Somebody with an ordinary client: the same library that Element is built on.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use fake_homeserver::Client;
use matrix_sdk_common::deserialized_responses::ProcessedToDeviceEvent;
use matrix_sdk_crypto::{
    CollectStrategy, EncryptionSettings, MegolmError, types::requests::AnyOutgoingRequest,
};
use ruma::{
    DeviceId, OwnedDeviceId, OwnedUserId, RoomId, UserId,
    api::client::sync::sync_events::DeviceLists, serde::Raw,
};
use serde_json::{Value, json, value::RawValue};

use super::{FakeHomeserver, device_keys};

pub(crate) struct Person {
    client: Client,
    fake: FakeHomeserver,
    user: OwnedUserId,
    device: OwnedDeviceId,
    unreadable: AtomicUsize,
}

/// For the machine of their client.
impl std::ops::Deref for Person {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// The `m.room.encrypted` event that a homeserver makes of a content, under a new event id.
pub(crate) fn encrypted_event(sender: &UserId, room: &RoomId, content: &RawValue) -> Box<RawValue> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let event = json!({
        "type": "m.room.encrypted", "room_id": room, "sender": sender, "content": content,
        "event_id": format!("$event{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        "origin_server_ts": 1_795_376_395_450_u64,
    });
    serde_json::value::to_raw_value(&event).unwrap()
}

impl Person {
    /// Somebody whose only device they have signed.
    pub(crate) async fn new(fake: &FakeHomeserver, user: &str) -> Self {
        let person = Self::unsigned(fake, user, "PHONE").await;
        person.sign().await;
        person
    }

    /// Somebody with a device that nobody has signed.
    pub(crate) async fn unsigned(fake: &FakeHomeserver, user: &str, device: &str) -> Self {
        let user = OwnedUserId::try_from(user).unwrap();
        let device: OwnedDeviceId = device.into();
        let person = Self {
            fake: fake.clone(),
            client: fake.log_in(user.clone(), device.clone()).await,
            user,
            device,
            unreadable: AtomicUsize::new(0),
        };
        person.pump().await;
        person
    }

    pub(crate) fn user(&self) -> &UserId {
        &self.user
    }

    pub(crate) fn device(&self) -> &DeviceId {
        &self.device
    }

    /// Publishes an identity and signs the device with it.
    pub(crate) async fn sign(&self) {
        self.client.sign_device().await.unwrap();
    }

    /// Logs in on further devices, which leave no one-time keys; signs the first of them.
    pub(crate) async fn gather(&self, devices: Range<usize>, signed: usize) {
        let names: Vec<String> = devices.map(|n| format!("D{n:04}")).collect();
        for name in &names {
            self.fake
                .put_device_keys(&self.user, name, device_keys(&self.user, name));
        }
        self.query(&[&self.user]).await;
        for name in &names[..signed] {
            let device = self
                .machine
                .get_device(&self.user, name.as_str().into(), None);
            let signature = device.await.unwrap().unwrap().verify().await.unwrap();
            self.client.request(signature).await.unwrap();
        }
    }

    pub(crate) async fn query(&self, users: &[&UserId]) {
        self.client.query_keys(users).await.unwrap();
    }

    /// Uploads keys and sends messages, and asks for nobody's keys: a test says when.
    async fn pump(&self) {
        let wanted = |request: &AnyOutgoingRequest| {
            matches!(
                request,
                AnyOutgoingRequest::KeysUpload(_) | AnyOutgoingRequest::ToDeviceRequest(_)
            )
        };
        self.client.run_errands(wanted).await.unwrap();
    }

    /// Begins sessions where there are none.
    pub(crate) async fn claim(&self, users: &[&UserId]) {
        self.client.claim_keys(users).await.unwrap();
    }

    /// Says something in a room, as Element does it, and returns the event.
    pub(crate) async fn says(&self, room: &RoomId, to: &[&UserId], text: &str) -> Box<RawValue> {
        self.says_with(room, to, text, CollectStrategy::AllDevices)
            .await
    }

    pub(crate) async fn says_with(
        &self,
        room: &RoomId,
        to: &[&UserId],
        text: &str,
        sharing_strategy: CollectStrategy,
    ) -> Box<RawValue> {
        let content = json!({"msgtype": "m.text", "body": text});
        self.sends(room, to, &content, sharing_strategy).await
    }

    /// Sends a message with any content, and returns the event.
    pub(crate) async fn sends(
        &self,
        room: &RoomId,
        to: &[&UserId],
        content: &Value,
        sharing_strategy: CollectStrategy,
    ) -> Box<RawValue> {
        self.query(to).await;
        let settings = EncryptionSettings {
            sharing_strategy,
            ..Default::default()
        };
        self.says_json(room, to, &content.to_string(), settings)
            .await
    }

    /// Says half an emoji, as a client does that cuts a text at a fixed length.
    pub(crate) async fn says_half_an_emoji(&self, room: &RoomId, to: &[&UserId]) -> Box<RawValue> {
        let content = r#"{"msgtype":"m.text","body":"half \ud83d"}"#;
        self.says_content(room, to, content).await
    }

    /// Says JSON, valid for others or not, as the content of a message.
    pub(crate) async fn says_content(
        &self,
        room: &RoomId,
        to: &[&UserId],
        content: &str,
    ) -> Box<RawValue> {
        self.query(to).await;
        let settings = EncryptionSettings {
            sharing_strategy: CollectStrategy::AllDevices,
            ..Default::default()
        };
        self.says_json(room, to, content, settings).await
    }

    async fn says_json(
        &self,
        room: &RoomId,
        to: &[&UserId],
        content: &str,
        settings: EncryptionSettings,
    ) -> Box<RawValue> {
        let content = RawValue::from_string(content.to_owned()).unwrap();
        let encrypted = self
            .client
            .encrypt(room, to, settings, "m.room.message", content)
            .await
            .unwrap();
        encrypted_event(&self.user, room, &encrypted)
    }

    /// Takes in what has come for the device; returns how many room keys were among it.
    pub(crate) async fn receives(&self) -> usize {
        let incoming = self.fake.take_incoming(&self.user, &self.device);
        let messages = incoming.to_device.into_iter().map(Raw::from_json).collect();
        let unchanged = DeviceLists::new();
        let counts = incoming.otk_counts.unwrap();
        let unused = incoming.fallback_types.unwrap();
        let receiving = self.client.receive(messages, &unchanged, &counts, &unused);
        let (messages, keys) = receiving.await.unwrap();
        let unreadable = |event: &&ProcessedToDeviceEvent| {
            matches!(event, ProcessedToDeviceEvent::UnableToDecrypt { .. })
        };
        let unreadable = messages.iter().filter(unreadable).count();
        self.unreadable.fetch_add(unreadable, Ordering::Relaxed);
        self.pump().await;
        keys
    }

    /// How many messages to the device could not be read so far.
    pub(crate) fn unreadable(&self) -> usize {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// What an event says, for a client that hears only devices signed by their owner.
    pub(crate) async fn reads(
        &self,
        room: &RoomId,
        event: &RawValue,
    ) -> Result<String, MegolmError> {
        let content = self.reads_content(room, event).await?;
        Ok(content["body"].as_str().unwrap().to_owned())
    }

    /// The content of an event, for a client that hears only devices signed by their owner.
    pub(crate) async fn reads_content(
        &self,
        room: &RoomId,
        event: &RawValue,
    ) -> Result<Value, MegolmError> {
        let decrypted = self.client.decrypt(room, event).await?;
        let event: Value = decrypted.event.deserialize_as_unchecked().unwrap();
        Ok(event["content"].clone())
    }
}
