//! People on the homeserver who live in this process, with ordinary clients: the same library that
//! Element is built on.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Instant};

use anyhow::{Context, Result, bail};
use axum::http;
use matrix_sdk_common::deserialized_responses::{DecryptedRoomEvent, ProcessedToDeviceEvent};
use matrix_sdk_crypto::{
    DecryptionSettings, EncryptionSettings, EncryptionSyncChanges, MegolmError, OlmMachine,
    TrustRequirement,
    types::requests::{AnyIncomingResponse, AnyOutgoingRequest, OutgoingRequest, ToDeviceRequest},
};
use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedUserId, RoomId, TransactionId, UInt, UserId,
    api::{
        IncomingResponse as _, OutgoingRequest as MatrixRequest, SupportedVersions,
        auth_scheme::{AuthScheme, SendAccessToken},
        client::{
            keys::{get_keys, upload_signing_keys},
            sync::sync_events::DeviceLists,
            to_device::send_event_to_device,
        },
        path_builder::VersionHistory,
    },
    events::{AnyMessageLikeEventContent, AnyToDeviceEvent},
    serde::Raw,
};
use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::{
    Fake, Shared, http as wire,
    model::{Answer, Ask, Server},
};

/// A client of a user, on a device of theirs, whose keys are in memory. Nothing goes wrong with its
/// requests.
pub struct Client {
    /// Its cryptography.
    pub machine: OlmMachine,
    home: Arc<Shared>,
    user: OwnedUserId,
    device: OwnedDeviceId,
    versions: SupportedVersions,
}

impl Fake {
    /// Logs a user in on a new device, and returns its client, which has published no keys.
    pub async fn log_in(&self, user: OwnedUserId, device: OwnedDeviceId) -> Client {
        self.with(|server| {
            server.device_of(user.as_str(), device.as_str());
        });
        Client {
            machine: OlmMachine::new(&user, &device).await,
            home: self.shared.clone(),
            user,
            device,
            versions: SupportedVersions::from_parts(&["v1.11".to_owned()], &BTreeMap::new()),
        }
    }
}

impl Client {
    /// Looks at, or changes, what the homeserver knows.
    pub fn with<T>(&self, act: impl FnOnce(&mut Server) -> T) -> T {
        self.home.with(act)
    }

    /// Returns what rings when a sync may bring something.
    pub fn bell(&self) -> Arc<Notify> {
        let bell = self.with(|server| {
            let account = server.accounts.get(self.user.as_str());
            account.map(|account| account.bell.clone())
        });
        bell.unwrap_or_default()
    }

    /// Makes any request of the client-server API.
    pub async fn request<R>(&self, request: R) -> Result<R::IncomingResponse>
    where
        R: MatrixRequest<PathBuilder = VersionHistory>,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
    {
        let token = SendAccessToken::Always("of a person");
        let request: http::Request<Vec<u8>> =
            request.try_into_http_request("http://fake", token, Cow::Borrowed(&self.versions))?;
        let (parts, body) = request.into_parts();
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let answer = self.ask(parts.method.as_str(), path, query, body).await;
        let mut response = http::Response::new(answer.body);
        *response.status_mut() = http::StatusCode::from_u16(answer.status)?;
        let name = std::any::type_name::<R>();
        match R::IncomingResponse::try_from_http_response(response) {
            Ok(response) => Ok(response),
            Err(error) => bail!("{} was refused a {name}: {error}", self.user),
        }
    }

    /// Makes a request; waits as long as the homeserver is away.
    pub async fn ask(&self, method: &str, path: &str, query: &str, body: Vec<u8>) -> Answer {
        self.home.until_back().await;
        let ask = Ask {
            user: self.user.to_string(),
            device: Some(self.device.to_string()),
            by_service: false,
            method: method.to_owned(),
            parts: wire::split(path),
            path: path.to_owned(),
            query: wire::query(query),
            content_type: None,
            body,
            arrived: Instant::now(),
        };
        self.home.ask(&ask).await
    }
}

/// What its machine asks for and takes in.
impl Client {
    /// Publishes an identity and signs the device with it.
    pub async fn sign_device(&self) -> Result<()> {
        let requests = self.machine.bootstrap_cross_signing(false).await?;
        let keys = requests.upload_signing_keys_req;
        let mut upload = upload_signing_keys::v3::Request::new();
        upload.master_key = keys.master_key.map(|key| key.to_raw());
        upload.self_signing_key = keys.self_signing_key.map(|key| key.to_raw());
        upload.user_signing_key = keys.user_signing_key.map(|key| key.to_raw());
        let answer = self.request(upload).await?;
        let answer = AnyIncomingResponse::SigningKeysUpload(&answer);
        let id = TransactionId::new();
        self.machine.mark_request_as_sent(&id, answer).await?;
        self.request(requests.upload_signatures_req).await?;
        self.query_keys(&[&self.user]).await
    }

    /// Signs the device with the identity that another client of the same user has.
    pub async fn sign_device_as(&self, other: &Self) -> Result<()> {
        self.query_keys(&[&self.user]).await?;
        let keys = other.machine.export_cross_signing_keys().await?;
        let keys = keys.context("the other client has no identity")?;
        self.machine.import_cross_signing_keys(keys).await?;
        let device = self.machine.get_device(&self.user, &self.device, None);
        let device = device.await?.context("the device has no keys")?;
        self.request(device.verify().await?).await?;
        self.query_keys(&[&self.user]).await
    }

    /// Asks for the devices and identities of these users.
    pub async fn query_keys(&self, users: &[&UserId]) -> Result<()> {
        let (id, request) = self.machine.query_keys_for_users(users.iter().copied());
        let mut query = get_keys::v3::Request::new();
        query.device_keys = request.device_keys;
        let answer = self.request(query).await?;
        Ok(self.machine.mark_request_as_sent(&id, &answer).await?)
    }

    /// Begins sessions with the devices of these users where there are none.
    pub async fn claim_keys(&self, users: &[&UserId]) -> Result<()> {
        let users = users.to_vec();
        let missing = self.machine.get_missing_sessions(users.into_iter());
        if let Some((id, claim)) = missing.await? {
            let answer = self.request(claim).await?;
            self.machine.mark_request_as_sent(&id, &answer).await?;
        }
        Ok(())
    }

    /// Makes the requests that the machine asks for, as far as they are wanted.
    pub async fn run_errands(&self, wanted: impl Fn(&AnyOutgoingRequest) -> bool) -> Result<()> {
        for request in self.machine.outgoing_requests().await? {
            if wanted(request.request()) {
                self.run(&request).await?;
            }
        }
        Ok(())
    }

    async fn run(&self, request: &OutgoingRequest) -> Result<()> {
        let (machine, id) = (&self.machine, request.request_id());
        match request.request() {
            AnyOutgoingRequest::KeysUpload(keys) => {
                let answer = self.request(keys.clone()).await?;
                machine.mark_request_as_sent(id, &answer).await?;
            }
            AnyOutgoingRequest::KeysQuery(keys) => {
                let mut query = get_keys::v3::Request::new();
                query.device_keys = keys.device_keys.clone();
                let answer = self.request(query).await?;
                machine.mark_request_as_sent(id, &answer).await?;
            }
            AnyOutgoingRequest::KeysClaim(claim) => {
                let answer = self.request(claim.clone()).await?;
                machine.mark_request_as_sent(id, &answer).await?;
            }
            AnyOutgoingRequest::SignatureUpload(upload) => {
                let answer = self.request(upload.clone()).await?;
                machine.mark_request_as_sent(id, &answer).await?;
            }
            AnyOutgoingRequest::ToDeviceRequest(request) => self.send_to_devices(request).await?,
            AnyOutgoingRequest::RoomMessage(_) => {}
        }
        Ok(())
    }

    async fn send_to_devices(&self, request: &ToDeviceRequest) -> Result<()> {
        let send = send_event_to_device::v3::Request::new_raw(
            request.event_type.clone(),
            request.txn_id.clone(),
            request.messages.clone(),
        );
        let answer = self.request(send).await?;
        let answer = AnyIncomingResponse::ToDevice(&answer);
        let marking = self.machine.mark_request_as_sent(&request.txn_id, answer);
        marking.await.context("a message to devices")
    }

    /// Encrypts a content for these users, whose keys are known; sends them the room key if they do
    /// not have it.
    pub async fn encrypt(
        &self,
        room: &RoomId,
        to: &[&UserId],
        settings: EncryptionSettings,
        kind: &str,
        content: Box<RawValue>,
    ) -> Result<Box<RawValue>> {
        self.claim_keys(to).await?;
        let to = to.to_vec();
        let sharing = self.machine.share_room_key(room, to.into_iter(), settings);
        for request in sharing.await? {
            self.send_to_devices(&request).await?;
        }
        let content = Raw::<AnyMessageLikeEventContent>::from_json(content);
        let encrypting = self.machine.encrypt_room_event_raw(room, kind, &content);
        Ok(encrypting.await?.content.into_json())
    }

    /// Takes in what a sync brings for the device; returns the messages, and how many room keys were
    /// among them.
    pub async fn receive(
        &self,
        messages: Vec<Raw<AnyToDeviceEvent>>,
        changed: &DeviceLists,
        one_time_keys: &BTreeMap<OneTimeKeyAlgorithm, UInt>,
        unused_fallback: &[OneTimeKeyAlgorithm],
    ) -> Result<(Vec<ProcessedToDeviceEvent>, usize)> {
        let settings = DecryptionSettings {
            sender_device_trust_requirement: TrustRequirement::Untrusted,
        };
        let (none, unchanged) = (BTreeMap::new(), DeviceLists::new());
        let (mut all, mut keys) = (Vec::new(), 0);
        // One at a time: of two keys of one session that come at once the library keeps the
        // second, be it from further on.
        let messages = messages.into_iter().map(Some);
        for message in messages.chain([None]) {
            let last = message.is_none();
            let changes = EncryptionSyncChanges {
                to_device_events: message.into_iter().collect(),
                changed_devices: if last { changed } else { &unchanged },
                one_time_keys_counts: if last { one_time_keys } else { &none },
                unused_fallback_keys: last.then_some(unused_fallback),
                next_batch_token: None,
            };
            let receiving = self.machine.receive_sync_changes(changes, &settings);
            let (processed, new) = receiving.await?;
            all.extend(processed);
            keys += new.len();
        }
        Ok((all, keys))
    }

    /// Decrypts an event if it is from a device that its owner has signed.
    pub async fn decrypt(
        &self,
        room: &RoomId,
        event: &RawValue,
    ) -> Result<DecryptedRoomEvent, MegolmError> {
        let settings = DecryptionSettings {
            sender_device_trust_requirement: TrustRequirement::CrossSigned,
        };
        let event = Raw::from_json(event.to_owned());
        let opening = self.machine.decrypt_room_event(&event, room, &settings);
        opening.await
    }
}

impl Shared {
    /// Waits until the homeserver is there.
    async fn until_back(&self) {
        loop {
            let back = self.back.notified();
            if !self.is_away() {
                return;
            }
            back.await;
        }
    }
}
