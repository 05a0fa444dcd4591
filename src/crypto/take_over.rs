//! Takes a ghost over that the homeserver has and our store does not know, or knows otherwise.

use ruma::UserId;

use super::{
    CryptoError, Machines,
    machines::lock_provisioning,
    provision::shown_master,
    record::{GhostKind, GhostRecord, Step},
};
use crate::matrix::Actor;

impl Machines {
    /// Makes a user of ours that changed after the backup from which the store was restored known
    /// again: all its devices are deleted, and its identity counts as one of ours that is to be
    /// replaced. Afterwards it can be provisioned. For the admin alone: a person who has this account loses it.
    pub async fn take_over(&self, user: &UserId) -> Result<(), CryptoError> {
        let slot = self.slot(user);
        let _one_at_a_time = lock_provisioning(&slot).await;
        let known = self.record(user)?;
        let mut record = known.unwrap_or_else(|| GhostRecord::planned(GhostKind::Bare));
        if record.device.is_some() || record.step == Step::Retiring {
            self.finish_retiring(user, &mut record).await?;
        }
        let (hs, actor) = (&self.0.hs, Actor::user(user));
        let shown = hs.query_keys(actor, [user.to_owned()]).await?;
        let devices = hs.devices_of(user).await?;
        for device in &devices {
            hs.delete_device(user, device).await?;
        }
        if let Some(master) = shown_master(user, &shown) {
            let device = self.new_device_id(record.generation);
            record.push_former_master(device, master);
        }
        record.kind = GhostKind::Bare;
        record.step = Step::Registered;
        self.commit_record(user, &record).await
    }
}
