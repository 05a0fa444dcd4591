//! Keys that the homeserver lost while it still has the user and the device.
//!
//! No request fails then: others see a user without keys, and encrypt nothing for it. So the service
//! has to check.

use ruma::OwnedUserId;

use super::{
    CryptoError, Machines,
    provision::check_published,
    record::{GhostKind, Step},
};
use crate::matrix::Actor;

impl Machines {
    /// Returns those of our users that have published keys and are not shown with them. `asker` is
    /// any user of ours. Ask for at most [`KEYS_ASKED_MAX`](crate::matrix::KEYS_ASKED_MAX).
    ///
    /// A user whose keys change while this runs is left out.
    pub async fn users_with_lost_keys(
        &self,
        asker: Actor<'_>,
        users: &[OwnedUserId],
    ) -> Result<Vec<OwnedUserId>, CryptoError> {
        let mut records = Vec::new();
        for user in users {
            let record = self
                .record(user)?
                .filter(|record| record.step == Step::Ready && record.kind != GhostKind::Bare);
            records.extend(record.map(|record| (user, record)));
        }
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let asked = records.iter().map(|(user, _)| (*user).clone());
        let shown = self.0.hs.query_keys(asker, asked).await?;
        let mut lost = Vec::new();
        for (user, before) in records {
            let is_lost = matches!(
                check_published(user, &before, &shown),
                Err(CryptoError::NotAsUploaded { .. })
            );
            let is_same = self
                .record(user)?
                .is_some_and(|now| now.step == before.step && now.device == before.device);
            if is_lost && is_same {
                lost.push(user.clone());
            }
        }
        Ok(lost)
    }
}
