//! Somebody with an ordinary client: the same library that Element is built on.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use fake_homeserver::Client;
use matrix_sdk_common::deserialized_responses::ProcessedToDeviceEvent;
use matrix_sdk_crypto::{
    CollectStrategy, DecryptionSettings, EncryptionSettings, EncryptionSyncChanges, MegolmError,
    OlmMachine, TrustRequirement,
    types::requests::{AnyIncomingResponse, AnyOutgoingRequest, OutgoingRequest},
};
use ruma::{
    DeviceId, OwnedDeviceId, OwnedUserId, RoomId, TransactionId, UserId,
    api::{
        OutgoingRequest as MatrixRequest,
        auth_scheme::{AuthScheme, SendAccessToken},
        client::{
            keys::{get_keys, upload_signing_keys},
            sync::sync_events::DeviceLists,
            to_device::send_event_to_device,
        },
        path_builder::VersionHistory,
    },
    events::AnyMessageLikeEventContent,
    serde::Raw,
};
use serde_json::{Value, json, value::RawValue};

use super::{FakeHomeserver, device_keys};

pub(crate) struct Person {
    pub(crate) machine: OlmMachine,
    fake: FakeHomeserver,
    client: Client,
    user: OwnedUserId,
    device: OwnedDeviceId,
    unreadable: AtomicUsize,
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
        fake.add_device(&user, &device);
        let machine = OlmMachine::new(&user, &device).await;
        let person = Self {
            machine,
            fake: fake.clone(),
            client: fake.client(user.clone(), device.clone()),
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

    async fn request<R>(&self, request: R) -> R::IncomingResponse
    where
        R: MatrixRequest<PathBuilder = VersionHistory>,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
    {
        self.client.request(request).await.unwrap()
    }

    /// Publishes an identity and signs the device with it.
    pub(crate) async fn sign(&self) {
        let requests = self.machine.bootstrap_cross_signing(false).await.unwrap();
        let keys = requests.upload_signing_keys_req;
        let mut upload = upload_signing_keys::v3::Request::new();
        upload.master_key = keys.master_key.map(|key| key.to_raw());
        upload.self_signing_key = keys.self_signing_key.map(|key| key.to_raw());
        upload.user_signing_key = keys.user_signing_key.map(|key| key.to_raw());
        let answer = self.request(upload).await;
        let answer = AnyIncomingResponse::SigningKeysUpload(&answer);
        self.machine
            .mark_request_as_sent(&TransactionId::new(), answer)
            .await
            .unwrap();
        self.request(requests.upload_signatures_req).await;
        self.query(&[&self.user]).await;
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
            self.request(signature).await;
        }
    }

    pub(crate) async fn query(&self, users: &[&UserId]) {
        let (id, request) = self.machine.query_keys_for_users(users.iter().copied());
        let mut query = get_keys::v3::Request::new();
        query.device_keys = request.device_keys;
        let answer = self.request(query).await;
        self.machine
            .mark_request_as_sent(&id, &answer)
            .await
            .unwrap();
    }

    async fn pump(&self) {
        for request in self.machine.outgoing_requests().await.unwrap() {
            self.send(&request).await;
        }
    }

    async fn send(&self, request: &OutgoingRequest) {
        let id = request.request_id();
        match request.request() {
            AnyOutgoingRequest::KeysUpload(keys) => {
                let answer = self.request(keys.clone()).await;
                self.machine
                    .mark_request_as_sent(id, &answer)
                    .await
                    .unwrap();
            }
            AnyOutgoingRequest::ToDeviceRequest(request) => self.send_to_device(request).await,
            _ => {}
        }
    }

    async fn send_to_device(&self, request: &matrix_sdk_crypto::types::requests::ToDeviceRequest) {
        let send = send_event_to_device::v3::Request::new_raw(
            request.event_type.clone(),
            request.txn_id.clone(),
            request.messages.clone(),
        );
        let answer = self.request(send).await;
        let answer = AnyIncomingResponse::ToDevice(&answer);
        self.machine
            .mark_request_as_sent(&request.txn_id, answer)
            .await
            .unwrap();
    }

    /// Begins sessions where there are none.
    pub(crate) async fn claim(&self, users: &[&UserId]) {
        let missing = self
            .machine
            .get_missing_sessions(users.iter().copied())
            .await
            .unwrap();
        if let Some((id, claim)) = missing {
            let answer = self.request(claim).await;
            self.machine
                .mark_request_as_sent(&id, &answer)
                .await
                .unwrap();
        }
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
        self.query(to).await;
        self.claim(to).await;
        let settings = EncryptionSettings {
            sharing_strategy,
            ..Default::default()
        };
        let requests = self
            .machine
            .share_room_key(room, to.iter().copied(), settings)
            .await
            .unwrap();
        for request in requests {
            self.send_to_device(&request).await;
        }
        let content = json!({"msgtype": "m.text", "body": text});
        let content = Raw::<AnyMessageLikeEventContent>::from_json(
            serde_json::value::to_raw_value(&content).unwrap(),
        );
        let encrypted = self
            .machine
            .encrypt_room_event_raw(room, "m.room.message", &content)
            .await
            .unwrap();
        encrypted_event(&self.user, room, encrypted.content.json())
    }

    /// Takes in what has come for the device; returns how many room keys were among it.
    pub(crate) async fn receives(&self) -> usize {
        let incoming = self.fake.take_incoming(&self.user, &self.device);
        let settings = DecryptionSettings {
            sender_device_trust_requirement: TrustRequirement::Untrusted,
        };
        let mut keys = 0;
        // One at a time: of two keys of one session that come at once the library keeps the
        // second, be it from further on.
        let messages = incoming.to_device.into_iter().map(Some);
        let (counts, none) = (incoming.otk_counts.unwrap(), BTreeMap::new());
        for message in messages.chain([None]) {
            let last = message.is_none();
            let changes = EncryptionSyncChanges {
                to_device_events: message.into_iter().map(Raw::from_json).collect(),
                changed_devices: &DeviceLists::new(),
                one_time_keys_counts: if last { &counts } else { &none },
                unused_fallback_keys: incoming.fallback_types.as_deref().filter(|_| last),
                next_batch_token: None,
            };
            let receiving = self.machine.receive_sync_changes(changes, &settings);
            let (processed, new) = receiving.await.unwrap();
            keys += new.len();
            let unreadable = |event: &&ProcessedToDeviceEvent| {
                matches!(event, ProcessedToDeviceEvent::UnableToDecrypt { .. })
            };
            let unreadable = processed.iter().filter(unreadable).count();
            self.unreadable.fetch_add(unreadable, Ordering::Relaxed);
        }
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
        let settings = DecryptionSettings {
            sender_device_trust_requirement: TrustRequirement::CrossSigned,
        };
        let event = Raw::from_json(event.to_owned());
        let decrypted = self
            .machine
            .decrypt_room_event(&event, room, &settings)
            .await?;
        let event: Value = decrypted.event.deserialize_as_unchecked().unwrap();
        Ok(event["content"]["body"].as_str().unwrap().to_owned())
    }
}
