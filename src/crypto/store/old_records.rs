//! Records that a ghost needs no longer: group sessions that newer ones have superseded, and people
//! with whom it shares no room.
//!
//! A client uses its newest session in a room. An older one is kept for a day, for messages that
//! come late, and as long as one waits. What the disk does not hold cannot be read by somebody who
//! takes it.
//!
//! A person counts as there while a session of one of their devices is kept, or their devices were
//! queried or first seen within a day. What others publish about themselves can be queried again. An
//! Olm session cannot: the other side goes on using it, also for a new chat with the ghost, whose
//! first message would be lost. So it is kept until it was not used for a month.

use std::{collections::HashSet, time::Duration};

use matrix_sdk_crypto::{DeviceData, TrackedUser, olm::PickledSession};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use super::{
    GhostStore, GhostStoreError, GhostStores,
    ghost::StoredGhost,
    record::{
        BY_DEVICE, DEVICE, DONE, IDENTITY, INBOUND, OLM, RIVAL, TRACKED, decode, room_and_session,
    },
    sealed_records::Writes,
};
use crate::{clock::Timestamp, store::StoreError};

/// How long a session is kept after a newer one of the same device has come.
pub(in crate::crypto) const SUPERSEDED_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the records of a person with whom the ghost shares no room are kept.
pub(in crate::crypto) const STRANGER_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an Olm session with such a person is kept after its last use.
pub(in crate::crypto) const OLM_UNUSED_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl StoredGhost {
    /// Returns whether the key of a session is not accepted again.
    pub(super) fn is_done(&self, room: &RoomId, session_id: &str) -> Result<bool, GhostStoreError> {
        let parts = [room.as_bytes(), session_id.as_bytes()];
        self.records.has(&self.records.keys.of(DONE, &parts))
    }

    /// Returns whether a session of the device with this Curve25519 key, in base64, is kept.
    fn has_group_session_of(&self, device: &str) -> Result<bool, GhostStoreError> {
        let keys = &self.records.keys;
        self.records
            .has_any(&keys.of(BY_DEVICE, &[device.as_bytes()]))
    }

    /// Returns the people who are not there, and the deletions of what is known of their devices.
    fn strangers(
        &self,
        now: Timestamp,
        is_known: impl Fn(&UserId) -> bool,
    ) -> Result<(Vec<OwnedUserId>, Writes), GhostStoreError> {
        let records = &self.records;
        let keys = &records.keys;
        let own = OwnedUserId::try_from(self.user.as_str());
        let mut there: HashSet<OwnedUserId> = own.into_iter().collect();
        let mut devices = Vec::new();
        for (key, plain) in records.list(DEVICE, &keys.of(DEVICE, &[]))? {
            let device: DeviceData = decode(DEVICE, &plain)?;
            let seen = Timestamp(device.first_time_seen_ts().get().into());
            let curve = device.curve25519_key().map(|key| key.to_base64());
            let is_there = now.since(seen) < STRANGER_FOR
                || match curve {
                    Some(curve) => self.has_group_session_of(&curve)?,
                    None => false,
                };
            let user = device.user_id().to_owned();
            if is_there || is_known(&user) {
                there.insert(user);
            } else {
                devices.push((user, key));
            }
        }
        let (mut gone, mut writes) = (HashSet::new(), Writes::default());
        for (user, key) in devices {
            if !there.contains(&user) {
                writes.delete(key);
                gone.insert(user);
            }
        }
        for (_, plain) in records.list(TRACKED, &keys.of(TRACKED, &[]))? {
            let tracked: TrackedUser = decode(TRACKED, &plain)?;
            if !there.contains(&tracked.user_id) && !is_known(&tracked.user_id) {
                gone.insert(tracked.user_id);
            }
        }
        for user in &gone {
            for kind in [TRACKED, IDENTITY] {
                writes.delete(keys.of(kind, &[user.as_bytes()]));
            }
        }
        Ok((gone.into_iter().collect(), writes))
    }

    /// Adds the deletions of Olm sessions that nobody has used for long.
    fn unused_olm_sessions(
        &self,
        now: Timestamp,
        writes: &mut Writes,
    ) -> Result<(), GhostStoreError> {
        let all = self.records.keys.of(OLM, &[]);
        for (key, plain) in self.records.list(OLM, &all)? {
            let session: PickledSession = decode(OLM, &plain)?;
            let used = u64::from(session.last_use_time.get()).saturating_mul(1000);
            if now.since(Timestamp(used)) >= OLM_UNUSED_FOR
                && !self.has_group_session_of(&session.sender_key.to_base64())?
            {
                writes.delete(key);
            }
        }
        Ok(())
    }
}

impl GhostStore {
    /// Deletes the sessions that were superseded long ago, except those that `needed` returns.
    /// Returns whether there were any.
    pub(in crate::crypto) async fn delete_superseded_sessions(
        &self,
        now: Timestamp,
        needed: impl FnOnce() -> Result<Vec<(OwnedRoomId, String)>, StoreError>,
    ) -> Result<bool, GhostStoreError> {
        let ghost = &self.ghost;
        let _one = ghost.saving.lock().await;
        let superseded = ghost.sessions_superseded_before(now - SUPERSEDED_FOR)?;
        if superseded.is_empty() {
            return Ok(false);
        }
        let place = |(room, session): (OwnedRoomId, String)| {
            let parts = [room.as_bytes(), session.as_bytes()];
            room_and_session(&ghost.records.keys.of(INBOUND, &parts)).to_vec()
        };
        let needed: HashSet<Vec<u8>> = needed()?.into_iter().map(place).collect();
        let mut writes = Writes::default();
        for (index, session) in superseded {
            if !needed.contains(room_and_session(&session)) {
                ghost.delete_inbound(&index, &session, &mut writes)?;
                writes.delete(index);
            }
        }
        let any = !writes.is_empty();
        ghost.records.write(writes)?;
        Ok(any)
    }

    /// Returns the number of entries in the index of group sessions.
    #[cfg(test)]
    pub(in crate::crypto) fn count_index_entries(&self) -> usize {
        self.count(BY_DEVICE)
    }

    /// Returns the numbers of devices, identities, tracked people, and Olm sessions.
    #[cfg(test)]
    pub(in crate::crypto) fn people_counts(&self) -> (usize, usize, usize, usize) {
        let [devices, identities, tracked, sessions] =
            [DEVICE, IDENTITY, TRACKED, OLM].map(|kind| self.count(kind));
        (devices, identities, tracked, sessions)
    }

    #[cfg(test)]
    fn count(&self, kind: super::record::Kind) -> usize {
        let records = &self.ghost.records;
        records
            .keys_of(&records.keys.of(kind, &[]))
            .unwrap_or_default()
            .len()
    }

    /// Returns whether a session is kept, from whichever device.
    pub(in crate::crypto) fn holds_session(
        &self,
        room: &RoomId,
        session_id: &str,
    ) -> Result<bool, GhostStoreError> {
        let records = &self.ghost.records;
        let parts = [room.as_bytes(), session_id.as_bytes()];
        Ok(records.has_any(&records.keys.of(INBOUND, &parts))?
            || records.has_any(&records.keys.of(RIVAL, &parts))?)
    }

    /// Marks a session that is deleted: its key is not accepted again.
    pub(in crate::crypto) fn mark_session_done(
        &self,
        room: &RoomId,
        session_id: &str,
    ) -> Result<(), GhostStoreError> {
        let records = &self.ghost.records;
        let parts = [room.as_bytes(), session_id.as_bytes()];
        let mut writes = Writes::default();
        writes.mark(records.keys.of(DONE, &parts));
        records.write(writes)
    }

    /// Returns whether there are people who are not there, or Olm sessions that nobody uses.
    pub(in crate::crypto) fn has_strangers(
        &self,
        now: Timestamp,
        is_known: impl Fn(&UserId) -> bool,
    ) -> Result<bool, GhostStoreError> {
        let (_, mut writes) = self.ghost.strangers(now, is_known)?;
        self.ghost.unused_olm_sessions(now, &mut writes)?;
        Ok(!writes.is_empty())
    }

    /// Deletes the records of people who are not there, and Olm sessions that nobody uses. Returns
    /// these people. The caller has unloaded the machine, which knows them.
    pub(in crate::crypto) async fn delete_strangers(
        &self,
        now: Timestamp,
        is_known: impl Fn(&UserId) -> bool,
    ) -> Result<Vec<OwnedUserId>, GhostStoreError> {
        let _one = self.ghost.saving.lock().await;
        let (gone, mut writes) = self.ghost.strangers(now, is_known)?;
        self.ghost.unused_olm_sessions(now, &mut writes)?;
        self.ghost.records.write(writes)?;
        Ok(gone)
    }
}

impl GhostStores {
    /// Returns the ghosts that have group sessions.
    pub(in crate::crypto) fn users_with_group_sessions(
        &self,
    ) -> Result<Vec<OwnedUserId>, GhostStoreError> {
        self.users_with(BY_DEVICE)
    }

    /// Returns the ghosts that know devices of people.
    pub(in crate::crypto) fn users_with_devices(
        &self,
    ) -> Result<Vec<OwnedUserId>, GhostStoreError> {
        self.users_with(DEVICE)
    }
}
