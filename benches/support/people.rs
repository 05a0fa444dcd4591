//! Machines that talk through a homeserver that is a map in memory: no network, no JSON on the way
//! but what the machines themselves make and read.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use matrix_sdk_crypto::{
    CollectStrategy, DecryptionSettings, EncryptionSettings, EncryptionSyncChanges, OlmMachine,
    TrustRequirement,
    types::requests::{AnyIncomingResponse, AnyOutgoingRequest, ToDeviceRequest},
};
use ruma::{
    OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId, RoomId, TransactionId, UserId,
    api::client::{
        keys::{claim_keys, get_keys, upload_keys, upload_signing_keys},
        sync::sync_events::DeviceLists,
        to_device::send_event_to_device,
    },
    encryption::OneTimeKey,
    events::{AnyMessageLikeEventContent, AnyToDeviceEvent},
    serde::Raw,
};
use serde_json::{json, value::RawValue};

/// What everybody has published. Claims are answered with fallback keys, so that nobody runs out.
#[derive(Default)]
pub struct Directory(Mutex<HashMap<OwnedUserId, Published>>);

#[derive(Clone)]
struct Published {
    shown: get_keys::v3::Response,
    device: OwnedDeviceId,
    fallback: (OwnedOneTimeKeyId, Raw<OneTimeKey>),
}

fn settings(trust: TrustRequirement) -> DecryptionSettings {
    DecryptionSettings {
        sender_device_trust_requirement: trust,
    }
}

impl Directory {
    fn of(&self, user: &UserId) -> Published {
        self.0.lock().unwrap()[user].clone()
    }

    /// Makes everything that a device publishes, signed by an identity, and publishes it.
    pub async fn settle(&self, machine: &OlmMachine) {
        receive(machine, Vec::new(), Some(&[])).await;
        let requests = machine.bootstrap_cross_signing(false).await.unwrap();
        let user = machine.user_id().to_owned();
        let mut shown = get_keys::v3::Response::new();
        let signing = requests.upload_signing_keys_req;
        shown.master_keys = [(user.clone(), signing.master_key.unwrap().to_raw())].into();
        shown.self_signing_keys =
            [(user.clone(), signing.self_signing_key.unwrap().to_raw())].into();
        let answer = upload_signing_keys::v3::Response::new();
        let answer = AnyIncomingResponse::SigningKeysUpload(&answer);
        machine
            .mark_request_as_sent(&TransactionId::new(), answer)
            .await
            .unwrap();

        let upload = requests.upload_keys_req.unwrap();
        let AnyOutgoingRequest::KeysUpload(keys) = upload.request() else {
            panic!("it uploads keys");
        };
        let device = machine.device_id().to_owned();
        let keys_of_device = keys.device_keys.clone().unwrap();
        shown.device_keys = [(user.clone(), [(device.clone(), keys_of_device)].into())].into();
        let fallback = keys.fallback_keys.clone().into_iter().next().unwrap();
        let counts = [("signed_curve25519".into(), 50u32.into())].into();
        let answer = upload_keys::v3::Response::new(counts);
        machine
            .mark_request_as_sent(upload.request_id(), &answer)
            .await
            .unwrap();
        let published = Published {
            shown,
            device,
            fallback,
        };
        self.0.lock().unwrap().insert(user.clone(), published);
        self.look_up(machine, &user).await;
    }

    /// Asks for somebody's keys.
    pub async fn look_up(&self, machine: &OlmMachine, user: &UserId) {
        let (id, _) = machine.query_keys_for_users([user]);
        let answer = self.of(user).shown;
        machine.mark_request_as_sent(&id, &answer).await.unwrap();
    }

    /// Begins an Olm session with somebody.
    pub async fn claim(&self, machine: &OlmMachine, user: &UserId) {
        let missing = machine
            .get_missing_sessions([user].into_iter())
            .await
            .unwrap();
        let (id, _) = missing.unwrap();
        let published = self.of(user);
        let keys = BTreeMap::from([(published.device, BTreeMap::from([published.fallback]))]);
        let answer = claim_keys::v3::Response::new([(user.to_owned(), keys)].into());
        machine.mark_request_as_sent(&id, &answer).await.unwrap();
    }
}

/// Hands a room key to those who have not got it; returns the messages to them.
pub async fn share(
    machine: &OlmMachine,
    room: &RoomId,
    to: &[&UserId],
) -> Vec<(OwnedUserId, Raw<AnyToDeviceEvent>)> {
    let settings = EncryptionSettings {
        rotation_period_msgs: 10_000,
        sharing_strategy: CollectStrategy::IdentityBasedStrategy,
        ..Default::default()
    };
    let users = to.iter().copied();
    let requests = machine.share_room_key(room, users, settings).await.unwrap();
    let mut messages = Vec::new();
    for request in requests {
        messages.extend(events(machine.user_id(), &request));
        let answer = send_event_to_device::v3::Response::new();
        let answer = AnyIncomingResponse::ToDevice(&answer);
        machine
            .mark_request_as_sent(&request.txn_id, answer)
            .await
            .unwrap();
    }
    messages
}

fn events(sender: &UserId, request: &ToDeviceRequest) -> Vec<(OwnedUserId, Raw<AnyToDeviceEvent>)> {
    let mut events = Vec::new();
    for (user, devices) in &request.messages {
        for content in devices.values() {
            let event = json!({"type": request.event_type, "sender": sender, "content": content});
            let event = Raw::new(&event).unwrap().cast_unchecked();
            events.push((user.clone(), event));
        }
    }
    events
}

/// Takes in to-device messages.
pub async fn receive(
    machine: &OlmMachine,
    to_device_events: Vec<Raw<AnyToDeviceEvent>>,
    unused_fallback_keys: Option<&[ruma::OneTimeKeyAlgorithm]>,
) {
    let changes = EncryptionSyncChanges {
        to_device_events,
        changed_devices: &DeviceLists::new(),
        one_time_keys_counts: &BTreeMap::new(),
        unused_fallback_keys,
        next_batch_token: None,
    };
    let settings = settings(TrustRequirement::Untrusted);
    machine
        .receive_sync_changes(changes, &settings)
        .await
        .unwrap();
}

/// Encrypts a message for a room whose key was shared.
pub async fn encrypt(machine: &OlmMachine, room: &RoomId, content: &RawValue) -> Box<RawValue> {
    let content = Raw::<AnyMessageLikeEventContent>::from_json(content.to_owned());
    let encrypted = machine
        .encrypt_room_event_raw(room, "m.room.message", &content)
        .await;
    encrypted.unwrap().content.into_json()
}

/// The event that a homeserver makes of encrypted content.
pub fn event(sender: &UserId, n: usize, content: &RawValue) -> Box<RawValue> {
    let event = json!({
        "type": "m.room.encrypted", "sender": sender, "content": content,
        "event_id": format!("$event{n}"), "origin_server_ts": 1_795_376_395_450_u64,
    });
    serde_json::value::to_raw_value(&event).unwrap()
}

/// Decrypts an event, from a device that its owner has signed.
pub async fn decrypt(machine: &OlmMachine, room: &RoomId, event: &RawValue) {
    let event = Raw::from_json(event.to_owned());
    let settings = settings(TrustRequirement::CrossSigned);
    machine
        .decrypt_room_event(&event, room, &settings)
        .await
        .unwrap();
}

/// What people say: content of 300 bytes.
pub fn message() -> Box<RawValue> {
    let empty = json!({"msgtype": "m.text", "body": ""}).to_string().len();
    let content = json!({"msgtype": "m.text", "body": "x".repeat(300 - empty)});
    serde_json::value::to_raw_value(&content).unwrap()
}
