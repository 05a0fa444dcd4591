//! What a machine wants sent by itself: keys, repairs of broken sessions, answers.

use std::{iter, sync::atomic::Ordering};

use matrix_sdk_crypto::{
    CollectStrategy, OlmError,
    types::requests::{AnyIncomingResponse, AnyOutgoingRequest, OutgoingRequest, ToDeviceRequest},
};
use ruma::{
    DeviceId, OwnedDeviceId, OwnedUserId, UserId, api::client::to_device::send_event_to_device,
};
use serde_json::json;

use super::{CryptoError, Machines, machines::InUse};

impl Machines {
    /// Carries out what the machine has waiting. What fails stays with the machine; the next round
    /// takes it up again.
    pub(super) async fn run_errands(&self, ghost: &InUse) -> Result<(), CryptoError> {
        ghost.slot.errands_due.store(true, Ordering::Relaxed);
        {
            let _one_at_a_time = ghost.slot.errands.lock().await;
            ghost.slot.errands_asked.store(false, Ordering::Release);
            // Devices whose session with us broke get a new one.
            let repaired = self.claim_sessions(ghost, iter::empty()).await?;
            let mut greetings = Vec::new();
            for (user, device) in repaired {
                greetings.extend(greet(ghost, &user, &device).await?);
            }
            let requests = ghost.machine.outgoing_requests().await?;
            // Neither keys nor anything encrypted leaves before it is certain that a crash cannot
            // make us forget it.
            self.0.store.flush().await?;
            for request in &greetings {
                self.send_to_devices(ghost, request).await?;
            }
            for request in requests {
                self.run_errand(ghost, &request).await?;
            }
        }
        ghost.slot.errands_due.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps a ghost's own requests waiting meanwhile, as a slow server does.
    #[cfg(test)]
    pub(crate) async fn while_errands_wait<T>(
        &self,
        user: &UserId,
        act: impl Future<Output = T>,
    ) -> T {
        let slot = self.slot(user);
        let _held = slot.errands.lock().await;
        act.await
    }

    async fn run_errand(
        &self,
        ghost: &InUse,
        request: &OutgoingRequest,
    ) -> Result<(), CryptoError> {
        let (hs, who, id) = (&self.0.hs, ghost.actor(), request.request_id());
        match request.request() {
            AnyOutgoingRequest::KeysUpload(keys) => {
                let answer = hs.send(who, keys.clone()).await?;
                ghost.machine.mark_request_as_sent(id, &answer).await?;
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

    /// Begins an Olm session with each device of these people that has none with us, and with each
    /// whose session broke; returns all of these. To be called with the errands locked.
    pub(super) async fn claim_sessions<'a>(
        &self,
        ghost: &InUse,
        users: impl Iterator<Item = &'a UserId>,
    ) -> Result<Vec<(OwnedUserId, OwnedDeviceId)>, CryptoError> {
        let Some((id, claim)) = ghost.machine.get_missing_sessions(users).await? else {
            return Ok(Vec::new());
        };
        let devices = claim
            .one_time_keys
            .iter()
            .flat_map(|(user, devices)| devices.keys().map(|device| (user.clone(), device.clone())))
            .collect();
        let answer = self.0.hs.send(ghost.actor(), claim).await?;
        ghost.machine.mark_request_as_sent(&id, &answer).await?;
        Ok(devices)
    }

    /// Sends messages to devices. Their transaction ids are random, so they are unique over all
    /// our users, as they have to be: the homeserver swallows the second use of one.
    pub(super) async fn send_to_devices(
        &self,
        ghost: &InUse,
        request: &ToDeviceRequest,
    ) -> Result<(), CryptoError> {
        let send = send_event_to_device::v3::Request::new_raw(
            request.event_type.clone(),
            request.txn_id.clone(),
            request.messages.clone(),
        );
        let answer = self.0.hs.send(ghost.actor(), send).await?;
        let answer = AnyIncomingResponse::ToDevice(&answer);
        ghost
            .machine
            .mark_request_as_sent(&request.txn_id, answer)
            .await?;
        Ok(())
    }
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
