//! The public records of a ghost's keys, which need no crypto store. Nothing here is secret.

use std::time::Duration;

use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    store::{Store, StoreError, Table},
};

/// The kind of keys a ghost has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GhostKind {
    /// No keys: the ghost is registered, so that it can decline invites, and nothing more.
    Bare,
    /// An Olm machine: the ghost reads and writes.
    Machine,
    /// Published keys whose private halves nobody has: the ghost neither reads nor writes.
    Keyless,
}

/// The progress in making a ghost's keys. Each step is written before the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Step {
    /// About to be registered. Nothing on the homeserver is known to be ours.
    Planned,
    /// Registered by us.
    Registered,
    /// Keys exist and may have been uploaded in part.
    Keyed,
    /// Everything is uploaded and was verified on the homeserver.
    Ready,
    /// The keys are being removed.
    Retiring,
}

/// How long a used fallback key stays published, and how long the one before it still decrypts. So
/// anybody who uses up a ghost's keys costs it one upload in this time.
const FALLBACK_PAUSE: Duration = Duration::from_secs(60 * 60);

/// A device and an identity that a ghost had before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Former {
    pub(super) device: OwnedDeviceId,
    /// The public master key, in base64.
    pub(super) master: Option<String>,
    /// Whether the homeserver no longer has the device.
    pub(super) deleted: bool,
}

/// The public part of a ghost's keys. Never deleted: a name that was ours once must be recognised
/// as ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GhostRecord {
    pub(super) kind: GhostKind,
    pub(super) step: Step,
    /// The number of devices the ghost has had.
    pub(super) generation: u32,
    pub(super) device: Option<OwnedDeviceId>,
    /// The device's public Ed25519 key, in base64.
    pub(super) ed25519: Option<String>,
    /// The public master key, in base64.
    pub(super) master: Option<String>,
    pub(super) former: Vec<Former>,
    /// When it was noticed that the published fallback key was used.
    #[serde(default)]
    pub(super) fallback_used_at: Option<Timestamp>,
    /// When the fallback key before the published one was replaced. It still decrypts.
    #[serde(default)]
    pub(super) former_fallback_since: Option<Timestamp>,
    /// When one-time keys were last made on demand.
    #[serde(default)]
    pub(super) made_on_demand_at: Timestamp,
    /// The number made on demand since unused ones were last discarded.
    #[serde(default)]
    pub(super) made_on_demand: u32,
    /// Whether the homeserver lost the ghost, and may not have all of its keys again yet.
    #[serde(default)]
    pub(super) being_restored: bool,
}

impl GhostRecord {
    pub(super) fn planned(kind: GhostKind) -> Self {
        Self {
            kind,
            step: Step::Planned,
            generation: 0,
            device: None,
            ed25519: None,
            master: None,
            former: Vec::new(),
            fallback_used_at: None,
            former_fallback_since: None,
            made_on_demand_at: Timestamp::default(),
            made_on_demand: 0,
            being_restored: false,
        }
    }

    /// Moves the present device to the former ones.
    pub(super) fn archive_device(&mut self) {
        if let Some(device) = self.device.take() {
            let master = self.master.take();
            self.push_former(device, master);
        }
        self.ed25519 = None;
        self.fallback_used_at = None;
        self.former_fallback_since = None;
        self.made_on_demand = 0;
    }

    /// Adds a device of ours that is not the present one, and that the homeserver may have.
    pub(super) fn push_former(&mut self, device: OwnedDeviceId, master: Option<String>) {
        /// The homeserver can only show the newest master key; older ones need no remembering.
        const FORMER_DEVICES_MAX: usize = 8;
        self.former.push(Former {
            device,
            master,
            deleted: false,
        });
        let surplus = self.former.len().saturating_sub(FORMER_DEVICES_MAX);
        self.former.drain(..surplus);
    }

    /// Adds an identity that the homeserver shows, and that is to be replaced.
    pub(super) fn push_former_master(&mut self, device: OwnedDeviceId, master: String) {
        self.push_former(device, Some(master));
        if let Some(former) = self.former.last_mut() {
            former.deleted = true;
        }
    }

    /// Returns whether the published fallback key was used so long ago that it is replaced now.
    pub(super) fn is_fallback_due(&self, now: Timestamp) -> bool {
        self.fallback_used_at
            .is_some_and(|at| now.since(at) >= FALLBACK_PAUSE)
    }

    /// Returns whether the fallback key before the published one is forgotten now: what was sent to
    /// it has arrived.
    pub(super) fn is_former_fallback_due(&self, now: Timestamp) -> bool {
        self.former_fallback_since
            .is_some_and(|at| now.since(at) >= FALLBACK_PAUSE)
    }

    pub(super) fn is_ready(&self, kind: GhostKind) -> bool {
        self.kind == kind && self.step == Step::Ready
    }
}

/// [`GhostRecord`] by user.
pub(super) struct GhostRecords;

impl Table for GhostRecords {
    const ID: u8 = 7;
    const NAME: &'static str = "ghost keys";
    const SECRET: bool = false;
    type Key = OwnedUserId;
    type Value = GhostRecord;
}

/// Returns the users that are ready, with their devices: the first `limit` of them.
pub fn ready_devices(
    store: &Store,
    limit: usize,
) -> Result<Vec<(OwnedUserId, OwnedDeviceId)>, StoreError> {
    let mut devices = Vec::new();
    for page in store.pages::<GhostRecords>(&[]) {
        for (user, record) in page? {
            if devices.len() >= limit {
                return Ok(devices);
            }
            let device = record.device.filter(|_| record.step == Step::Ready);
            devices.extend(device.map(|device| (user, device)));
        }
    }
    Ok(devices)
}

/// Rooms whose keys a ghost keeps: it is joined, or about to join. Deleted when it has left.
pub(super) struct ExpectedRooms;

impl Table for ExpectedRooms {
    const ID: u8 = 8;
    const NAME: &'static str = "expected rooms";
    const SECRET: bool = false;
    type Key = (OwnedUserId, OwnedRoomId);
    type Value = ();
}

/// Rooms that a ghost has left lately, and when: their keys are not parked. Deleted after a week, or
/// when the room is expected again.
pub(super) struct ForgottenRooms;

impl Table for ForgottenRooms {
    const ID: u8 = 71;
    const NAME: &'static str = "forgotten rooms";
    const SECRET: bool = false;
    type Key = (OwnedUserId, OwnedRoomId);
    type Value = Timestamp;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_its_shape_on_disk() {
        let mut record = GhostRecord::planned(GhostKind::Machine);
        record.device = Some("DEV1".into());
        record.master = Some("master".into());
        record.archive_device();
        record.device = Some("DEV2".into());
        record.step = Step::Ready;
        insta::assert_json_snapshot!(record, @r#"
        {
          "kind": "Machine",
          "step": "Ready",
          "generation": 0,
          "device": "DEV2",
          "ed25519": null,
          "master": null,
          "former": [
            {
              "device": "DEV1",
              "master": "master",
              "deleted": false
            }
          ],
          "fallback_used_at": null,
          "former_fallback_since": null,
          "made_on_demand_at": 0,
          "made_on_demand": 0,
          "being_restored": false
        }
        "#);
    }
}
