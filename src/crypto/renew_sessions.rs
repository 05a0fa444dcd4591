//! Fresh Olm sessions with a person whose room key got lost.
//!
//! A client sends the key of a group session to a device once. When that message was lost, every
//! further message of the session is unreadable, for days. But clients send the key again, with their
//! next message, once a device has begun a new Olm session with them.

use std::collections::BTreeMap;

use ruma::{OneTimeKeyAlgorithm, TransactionId, UserId, api::client::keys::claim_keys};

use super::{EncryptError, Machines, encrypt::signed_devices};

impl Machines {
    /// Begins a new Olm session with each signed device of a person, and says something empty in it.
    pub async fn renew_olm_sessions(
        &self,
        user: &UserId,
        person: &UserId,
    ) -> Result<(), EncryptError> {
        let ghost = self.pin(user)?;
        let people = [person.to_owned()];
        let within = self.0.settings.devices_fresh_for;
        let unanswered = self.update_device_lists(&ghost, &people, within).await?;
        let signed = signed_devices(&ghost, &people, &unanswered).await?;
        let mut wanted = BTreeMap::new();
        let mut devices = Vec::new();
        for (user, own) in &signed {
            for device in own.keys() {
                let of_user: &mut BTreeMap<_, _> = wanted.entry(user.clone()).or_default();
                of_user.insert(device.clone(), OneTimeKeyAlgorithm::SignedCurve25519);
                devices.push((user.clone(), device.clone()));
            }
        }
        {
            let _a_place = self.0.repairs.acquire().await;
            let claim = claim_keys::v3::Request::new(wanted);
            // The machine accepts the answer to a claim that it did not ask for.
            self.claim(&ghost, &TransactionId::new(), claim, &signed)
                .await?;
        }
        Ok(self.greet_devices(&ghost, devices).await?)
    }
}
