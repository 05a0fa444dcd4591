//! What a machine wants sent by itself: keys, repairs of broken sessions, answers.

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
    CryptoError, MAX_SIGNED_DEVICES, Machines,
    device_lists::SignedDevices,
    machines::Pinned,
    slot::InUse,
    split_request::{SplitRequest, may_be_spoiled_by_one},
};

/// How a round of requests ended.
enum Round {
    Done,
    /// Another round repairs the sessions.
    LeftToAnother,
}

impl Machines {
    /// Carries out what the machine has waiting. What fails stays with the machine; the next round
    /// takes it up again.
    ///
    /// First what goes to the homeserver alone: a new session may take as long as the slowest server
    /// of those who wrote to the ghost.
    pub(super) async fn process_outgoing_requests(
        &self,
        ghost: &Pinned,
    ) -> Result<(), CryptoError> {
        let number = ghost.slot.requests_due.begin();
        let round = self.run_round(ghost).await;
        match round {
            Ok(Round::Done) => ghost.slot.requests_due.done(number),
            // The other round says how it ended.
            Ok(Round::LeftToAnother) => {}
            Err(_) => ghost.slot.requests_due.failed(number),
        }
        round.map(drop)
    }

    async fn run_round(&self, ghost: &Pinned) -> Result<Round, CryptoError> {
        ghost.slot.repairs_asked.store(true, Ordering::Release);
        {
            let _a_place = self.0.uploads.acquire().await;
            let _one_at_a_time = ghost.slot.sending.lock().await;
            ghost.slot.requests_asked.store(false, Ordering::Release);
            self.send_outgoing_requests(ghost).await?;
        }
        while ghost.slot.repairs_asked.load(Ordering::Acquire) {
            // Whoever is at it does this as well.
            let Ok(_one_at_a_time) = ghost.slot.repairing.try_lock() else {
                return Ok(Round::LeftToAnother);
            };
            ghost.slot.repairs_asked.store(false, Ordering::Release);
            self.repair_sessions(ghost).await?;
        }
        Ok(Round::Done)
    }

    /// Sends what the machine wants sent. To be called with `Slot::sending` locked.
    pub(super) async fn send_outgoing_requests(&self, ghost: &Pinned) -> Result<(), CryptoError> {
        let requests = ghost.machine().await?.machine.outgoing_requests().await?;
        if requests.is_empty() {
            return Ok(());
        }
        // Neither keys nor anything encrypted leaves before it is certain that a crash cannot make
        // us forget it.
        self.0.store.flush().await?;
        for request in requests {
            self.send_request(ghost, &request).await?;
        }
        Ok(())
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
        let mut greetings = Vec::new();
        for (user, device) in broken {
            greetings.extend(greet(&ghost.machine().await?, &user, &device).await?);
        }
        self.0.store.flush().await?;
        for request in &greetings {
            self.send_to_devices(ghost, request).await?;
        }
        Ok(())
    }

    /// Keeps a ghost's own requests waiting meanwhile, as a slow server does.
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

    /// Keeps a ghost from taking in messages meanwhile, as much work does.
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
                let machine = ghost.machine().await?;
                machine.machine.mark_request_as_sent(id, &answer).await?;
            }
            AnyOutgoingRequest::ToDeviceRequest(request) => {
                self.send_to_devices(ghost, request).await?;
            }
            // We ask for people's keys when they are needed, and nobody can begin a verification
            // with a ghost, so the rest does not come to pass.
            AnyOutgoingRequest::KeysQuery(_)
            | AnyOutgoingRequest::KeysClaim(_)
            | AnyOutgoingRequest::SignatureUpload(_)
            | AnyOutgoingRequest::RoomMessage(_) => {}
        }
        Ok(())
    }

    /// Begins an Olm session with each device of these people that has none with us.
    ///
    /// Several claims of a ghost may be under way at the same time. The machine knows the newest
    /// only, but takes the answers to all: of the others it does not note which devices had no key
    /// left.
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

    /// Claims keys, of a person for no more than [`MAX_SIGNED_DEVICES`] devices: those that they
    /// have signed, since no others get room keys. People whose keys make the answer useless are
    /// left without a session.
    async fn claim(
        &self,
        ghost: &Pinned,
        id: &TransactionId,
        claim: claim_keys::v3::Request,
        signed: &SignedDevices,
    ) -> Result<(), CryptoError> {
        let mut all = claim_keys::v3::Response::new(BTreeMap::new());
        let mut people = Vec::new();
        for (user, mut devices) in claim.one_time_keys {
            if devices.len() > MAX_SIGNED_DEVICES {
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
                        tracing::info!(%user, %error, "somebody's one-time keys are of no use");
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        let machine = ghost.machine().await?;
        machine.machine.mark_request_as_sent(id, &all).await?;
        Ok(())
    }

    /// Sends messages to devices. Their transaction ids are random, so they are unique over all
    /// our users, as they have to be: the homeserver swallows the second use of one.
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

/// Returns a claim of keys for each device of these people that has no session with the ghost, and
/// for each whose session broke.
async fn missing_sessions<'a>(
    ghost: &Pinned,
    users: impl Iterator<Item = &'a UserId>,
) -> Result<Option<(OwnedTransactionId, claim_keys::v3::Request)>, CryptoError> {
    let ghost = ghost.machine().await?;
    Ok(ghost.machine.get_missing_sessions(users).await?)
}

/// An empty message in a new session: only when something arrives in it does the other side stop
/// using the broken one. (The library means to do this itself, but never hands the message out.)
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
        // It left no key; the next message from it makes us try again.
        Err(OlmError::MissingSession) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
