//! The requests that a machine makes on its own: key uploads, repairs of broken sessions, and
//! answers.

use std::{collections::BTreeMap, iter, sync::atomic::Ordering};

use matrix_sdk_crypto::{
    CollectStrategy, OlmError,
    types::requests::{AnyIncomingResponse, AnyOutgoingRequest, OutgoingRequest, ToDeviceRequest},
};
use ruma::{
    DeviceId, OwnedDeviceId, OwnedTransactionId, OwnedUserId, TransactionId, UserId,
    api::client::{keys::claim_keys, to_device::send_event_to_device},
};
use serde_json::json;

use super::{
    CryptoError, Machines, SIGNED_DEVICES_MAX, account,
    device_lists::SignedDevices,
    loading::Pinned,
    slot::InUse,
    split_request::{SplitRequest, may_be_spoiled_by_one},
};
use crate::metrics::catalogue::ONE_TIME_KEYS;

/// The end of a round of outgoing requests.
enum Round {
    Done,
    /// Another round is repairing the sessions.
    LeftToAnother,
}

impl Machines {
    /// Makes the machine's outgoing requests. A request that fails stays with the machine, and the
    /// next round repeats it.
    ///
    /// Requests for our homeserver alone come first: a new session may take as long as the slowest
    /// server of the people who wrote to the ghost.
    pub(super) async fn process_outgoing_requests(
        &self,
        ghost: &Pinned,
    ) -> Result<(), CryptoError> {
        let number = ghost.slot.requests_due.begin();
        let round = self.run_round(ghost).await;
        match round {
            Ok(Round::Done) => ghost.slot.requests_due.done(number),
            // The other round reports its own outcome.
            Ok(Round::LeftToAnother) => {}
            Err(_) => ghost.slot.requests_due.failed(number),
        }
        round.map(drop)
    }

    async fn run_round(&self, ghost: &Pinned) -> Result<Round, CryptoError> {
        ghost.slot.repairs_asked.store(true, Ordering::Release);
        let sent;
        {
            let _a_place = self.0.uploads.acquire().await;
            let _one_at_a_time = ghost.slot.sending.lock().await;
            ghost.slot.requests_asked.store(false, Ordering::Release);
            match self.send_outgoing_requests(ghost).await {
                Err(error) if error.is_transient() => return Err(error),
                // Repairs do not depend on what was refused.
                outcome => sent = outcome,
            }
        }
        while ghost.slot.repairs_asked.load(Ordering::Acquire) {
            // The round that holds the lock does this as well.
            let Ok(_one_at_a_time) = ghost.slot.repairing.try_lock() else {
                return sent.map(|()| Round::LeftToAnother);
            };
            ghost.slot.repairs_asked.store(false, Ordering::Release);
            self.repair_sessions(ghost).await?;
        }
        sent.map(|()| Round::Done)
    }

    /// Sends the machine's outgoing requests. The caller must hold `Slot::sending`.
    pub(super) async fn send_outgoing_requests(&self, ghost: &Pinned) -> Result<(), CryptoError> {
        let requests = ghost.machine().await?.machine.outgoing_requests().await?;
        if requests.is_empty() {
            return Ok(());
        }
        // No key and no ciphertext is sent before the state behind it is durable.
        self.0.store.flush().await?;
        let mut refused = None;
        for request in requests {
            let Err(error) = self.send_request(ghost, &request).await else {
                continue;
            };
            if error.is_transient() {
                return Err(error);
            }
            // One that is refused keeps no other back.
            let is_upload = matches!(request.request(), AnyOutgoingRequest::KeysUpload(_));
            if is_upload && is_bad_request(&error) {
                tracing::warn!(user = %ghost.user(), %error, "the homeserver refuses keys of a ghost; others are made");
                let store = self.0.stores.ghost(ghost.user())?;
                let _unloaded = self.unload(&ghost.slot).await;
                account::give_up_unpublished_keys(&store).await?;
            }
            refused.get_or_insert(error);
        }
        refused.map_or(Ok(()), Err)
    }

    /// Begins new sessions with devices whose session with us broke, and tells them.
    async fn repair_sessions(&self, ghost: &Pinned) -> Result<(), CryptoError> {
        let Some((id, claim)) = missing_sessions(ghost, iter::empty()).await? else {
            return Ok(());
        };
        let broken: Vec<(OwnedUserId, OwnedDeviceId)> = claim
            .one_time_keys
            .iter()
            .flat_map(|(user, devices)| devices.keys().map(|device| (user.clone(), device.clone())))
            .collect();
        {
            let _a_place = self.0.repairs.acquire().await;
            self.claim(ghost, &id, claim, &SignedDevices::new()).await?;
        }
        self.greet_devices(ghost, broken).await
    }

    /// Says something empty to each of these devices, in the newest session with it.
    pub(super) async fn greet_devices(
        &self,
        ghost: &Pinned,
        devices: Vec<(OwnedUserId, OwnedDeviceId)>,
    ) -> Result<(), CryptoError> {
        let mut greetings = Vec::new();
        for (user, device) in devices {
            greetings.extend(greet(&ghost.machine().await?, &user, &device).await?);
        }
        self.0.store.flush().await?;
        for request in &greetings {
            self.send_to_devices(ghost, request).await?;
        }
        Ok(())
    }

    /// Keeps a ghost's outgoing requests waiting while `act` runs, as a slow server does.
    #[cfg(test)]
    pub(crate) async fn while_requests_wait<T>(
        &self,
        user: &UserId,
        act: impl Future<Output = T>,
    ) -> T {
        let slot = self.slot(user);
        let _held = slot.sending.lock().await;
        act.await
    }

    /// Keeps a ghost from receiving messages while `act` runs, as a busy machine does.
    #[cfg(test)]
    pub(crate) async fn while_busy<T>(&self, user: &UserId, act: impl Future<Output = T>) -> T {
        let slot = self.slot(user);
        let _held = slot.olm.lock().await;
        act.await
    }

    async fn send_request(
        &self,
        ghost: &Pinned,
        request: &OutgoingRequest,
    ) -> Result<(), CryptoError> {
        let id = request.request_id();
        match request.request() {
            AnyOutgoingRequest::KeysUpload(keys) => {
                let answer = self.0.hs.send(ghost.actor(), keys.clone()).await?;
                ONE_TIME_KEYS.add([], keys.one_time_keys.len() as u64);
                let machine = ghost.machine().await?;
                machine.machine.mark_request_as_sent(id, &answer).await?;
            }
            AnyOutgoingRequest::ToDeviceRequest(request) => {
                self.send_to_devices(ghost, request).await?;
            }
            // People's keys are queried when they are needed, and verifications with a ghost are
            // not passed to its machine, so the machine makes none of these.
            AnyOutgoingRequest::KeysQuery(_)
            | AnyOutgoingRequest::KeysClaim(_)
            | AnyOutgoingRequest::SignatureUpload(_)
            | AnyOutgoingRequest::RoomMessage(_) => {}
        }
        Ok(())
    }

    /// Begins an Olm session with each device of these people that has none with us.
    ///
    /// Several claims of a ghost may be in progress at once. The machine knows only the newest, but
    /// accepts the answers to all; for the others it does not note which devices had no key left.
    pub(super) async fn claim_sessions(
        &self,
        ghost: &Pinned,
        signed: &SignedDevices,
    ) -> Result<(), CryptoError> {
        let users = signed.keys().map(|user| &**user);
        match missing_sessions(ghost, users).await? {
            Some((id, claim)) => self.claim(ghost, &id, claim, signed).await,
            None => Ok(()),
        }
    }

    /// Claims keys for at most [`SIGNED_DEVICES_MAX`] devices of a person: the signed ones, since
    /// no others get room keys. People whose keys make the answer unusable are left without a
    /// session.
    pub(super) async fn claim(
        &self,
        ghost: &Pinned,
        id: &TransactionId,
        claim: claim_keys::v3::Request,
        signed: &SignedDevices,
    ) -> Result<(), CryptoError> {
        let mut all = claim_keys::v3::Response::new(BTreeMap::new());
        let mut people = Vec::new();
        for (user, mut devices) in claim.one_time_keys {
            if devices.len() > SIGNED_DEVICES_MAX {
                let own = signed.get(&user);
                devices.retain(|device, _| own.is_some_and(|own| own.contains_key(device)));
            }
            if !devices.is_empty() {
                people.push((user, devices));
            }
        }
        let mut parts = SplitRequest::of(people);
        while let Some(part) = parts.next() {
            let mut request = claim_keys::v3::Request::new(part.iter().cloned().collect());
            request.timeout = claim.timeout;
            match self.0.hs.send(ghost.actor(), request).await {
                Ok(answer) => {
                    all.one_time_keys.extend(answer.one_time_keys);
                    all.failures.extend(answer.failures);
                }
                Err(error) if may_be_spoiled_by_one(&error) => {
                    if let Some((user, _)) = parts.halve(part) {
                        tracing::info!(%user, %error, "this person's one-time keys are unusable");
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        let machine = ghost.machine().await?;
        machine.machine.mark_request_as_sent(id, &all).await?;
        Ok(())
    }

    /// Sends messages to devices. Their transaction ids are random and so unique across all our
    /// users, as they must be: the homeserver drops the second use of an id.
    pub(super) async fn send_to_devices(
        &self,
        ghost: &Pinned,
        request: &ToDeviceRequest,
    ) -> Result<(), CryptoError> {
        let send = send_event_to_device::v3::Request::new_raw(
            request.event_type.clone(),
            request.txn_id.clone(),
            request.messages.clone(),
        );
        let answer = self.0.hs.send(ghost.actor(), send).await?;
        let answer = AnyIncomingResponse::ToDevice(&answer);
        let machine = ghost.machine().await?;
        machine
            .machine
            .mark_request_as_sent(&request.txn_id, answer)
            .await?;
        Ok(())
    }
}

/// Returns whether the homeserver refused a request for what is in it, such as a one-time key whose
/// id it knows with another content: it was set back, or we were.
fn is_bad_request(error: &CryptoError) -> bool {
    matches!(error, CryptoError::Matrix(error) if error.status() == Some(400))
}

/// Returns a claim of keys for each device of these people that has no session with the ghost, and
/// for each whose session broke.
async fn missing_sessions<'a>(
    ghost: &Pinned,
    users: impl Iterator<Item = &'a UserId>,
) -> Result<Option<(OwnedTransactionId, claim_keys::v3::Request)>, CryptoError> {
    let ghost = ghost.machine().await?;
    Ok(ghost.machine.get_missing_sessions(users).await?)
}

/// Returns an empty message in a new session: the other side stops using the broken session only
/// when something arrives in the new one. (The library is meant to do this itself, but never
/// returns the message.)
async fn greet(
    ghost: &InUse,
    user: &UserId,
    device: &DeviceId,
) -> Result<Option<ToDeviceRequest>, CryptoError> {
    let Some(known) = ghost.machine.get_device(user, device, None).await? else {
        return Ok(None);
    };
    let _one_at_a_time = ghost.slot.olm.lock().await;
    match known
        .encrypt_event_raw("m.dummy", &json!({}), CollectStrategy::AllDevices)
        .await
    {
        Ok(content) => {
            let content = content.cast_unchecked();
            Ok(Some(ToDeviceRequest::new(
                user,
                device.to_owned(),
                "m.room.encrypted",
                content,
            )))
        }
        // The device left no key; its next message makes us try again.
        Err(OlmError::MissingSession) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
