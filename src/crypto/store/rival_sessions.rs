//! Keys of one group session that have come from several devices.
//!
//! A member who got the key of a session can send it as their own, and it may come before the key of
//! the device that made the session. A key does not show who made it. A message shows who uses it, by
//! its sender. So the keys of all devices are kept: one where the machine finds it, the others as its
//! rivals, until a message comes from the owner of a rival's device.

use matrix_sdk_crypto::{
    olm::{InboundGroupSession, PickledInboundGroupSession},
    store::CryptoStore,
    vodozemac::megolm::SessionOrdering,
};
use ruma::{RoomId, UserId};

use super::{
    GhostStore, GhostStoreError,
    ghost::StoredGhost,
    inbound_sessions::ByDevice,
    reception,
    record::{BY_DEVICE, INBOUND, Kind, RIVAL, decode, encode, part_at},
    sealed_records::Writes,
};

impl StoredGhost {
    /// Returns the received keys that are new, or begin earlier than what is kept of the same device,
    /// and notes the others as known.
    pub(super) async fn without_known_keys(
        &self,
        received: Vec<InboundGroupSession>,
    ) -> Result<Vec<InboundGroupSession>, GhostStoreError> {
        let mut new = Vec::with_capacity(received.len());
        for session in received {
            let is_known = match self.session_of_device(&session)? {
                None => self.is_done(session.room_id(), session.session_id())?,
                Some(kept) => session.compare_ratchet(&kept).await != SessionOrdering::Better,
            };
            if is_known {
                reception::note_known_key(&session);
            } else {
                new.push(session);
            }
        }
        Ok(new)
    }

    /// Returns what is kept of a session from the same device.
    pub(super) fn session_of_device(
        &self,
        session: &InboundGroupSession,
    ) -> Result<Option<InboundGroupSession>, GhostStoreError> {
        let keys = &self.records.keys;
        let sender = session.sender_key().to_base64();
        let parts = [sender.as_bytes(), session.session_id().as_bytes()];
        let Some(entry) = self.records.value::<ByDevice>(BY_DEVICE, &parts)? else {
            return Ok(None);
        };
        let room = keys.of(INBOUND, &[session.room_id().as_bytes()]);
        if part_at(&entry.session, 0) != part_at(&room, 0) {
            return Ok(None);
        }
        let Some(plain) = self.records.read(INBOUND, &entry.session)? else {
            return Ok(None);
        };
        let kept = Self::group_session(&plain)?;
        Ok((kept.sender_key() == session.sender_key()).then_some(kept))
    }

    /// Returns the key under which a session is saved: that of a rival if the same session of
    /// another device is kept, or is being saved (`is_taken`). `former` is where it is now.
    pub(super) fn inbound_key(
        &self,
        session: &InboundGroupSession,
        former: Option<&[u8]>,
        is_taken: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, GhostStoreError> {
        let keys = &self.records.keys;
        let sender = session.sender_key().to_base64();
        let room = session.room_id().as_bytes();
        let id = session.session_id().as_bytes();
        let rival = keys.of(RIVAL, &[room, id, sender.as_bytes()]);
        if former == Some(rival.as_slice()) {
            return Ok(rival);
        }
        let key = keys.of(INBOUND, &[room, id]);
        let is_of_another = match self.records.read(INBOUND, &key)? {
            Some(plain) => {
                let kept: PickledInboundGroupSession = decode(INBOUND, &plain)?;
                kept.sender_key != session.sender_key()
            }
            None => is_taken(&key),
        };
        Ok(if is_of_another { rival } else { key })
    }

    /// Returns a rival of a session.
    pub(super) fn rival(
        &self,
        room: &RoomId,
        session_id: &str,
    ) -> Result<Option<InboundGroupSession>, GhostStoreError> {
        let parts = [room.as_bytes(), session_id.as_bytes()];
        let rivals = self
            .records
            .list(RIVAL, &self.records.keys.of(RIVAL, &parts))?;
        let rival = rivals.first();
        rival
            .map(|(_, plain)| Self::group_session(plain))
            .transpose()
    }

    /// Stages a session under another key, and changes its index entry.
    fn move_session(
        &self,
        session: &PickledInboundGroupSession,
        session_id: &str,
        (kind, key): (Kind, Vec<u8>),
        writes: &mut Writes,
    ) -> Result<(), GhostStoreError> {
        let sender = session.sender_key.to_base64();
        let parts = [sender.as_bytes(), session_id.as_bytes()];
        if let Some(mut entry) = self.records.value::<ByDevice>(BY_DEVICE, &parts)? {
            entry.session.clone_from(&key);
            let index = self.records.keys.of(BY_DEVICE, &parts);
            writes.put(BY_DEVICE, index, encode(BY_DEVICE, &entry)?);
        }
        writes.put(kind, key, encode(kind, session)?);
        Ok(())
    }
}

impl GhostStore {
    /// Lets the machine use the key of a session that has come from a device of this person, if
    /// the one it uses has not. Returns whether it uses another one now.
    pub(in crate::crypto) async fn prefer_session_of(
        &self,
        person: &UserId,
        room: &RoomId,
        session_id: &str,
    ) -> Result<bool, GhostStoreError> {
        let ghost = &self.ghost;
        let keys = &ghost.records.keys;
        let parts = [room.as_bytes(), session_id.as_bytes()];
        let rivals = keys.of(RIVAL, &parts);
        if !ghost.records.has_any(&rivals)? {
            return Ok(false);
        }
        let devices = self.get_user_devices(person).await?;
        let is_theirs = |session: &PickledInboundGroupSession| {
            let key = Some(session.sender_key);
            devices
                .values()
                .any(|device| device.curve25519_key() == key)
        };
        let _one = ghost.saving.lock().await;
        let used: Option<PickledInboundGroupSession> = ghost.records.value(INBOUND, &parts)?;
        if used.as_ref().is_some_and(is_theirs) {
            return Ok(false);
        }
        for (key, plain) in ghost.records.list(RIVAL, &rivals)? {
            let rival: PickledInboundGroupSession = decode(RIVAL, &plain)?;
            if !is_theirs(&rival) {
                continue;
            }
            let mut writes = Writes::default();
            writes.delete(key);
            if let Some(used) = &used {
                let sender = used.sender_key.to_base64();
                let place = keys.of(RIVAL, &[parts[0], parts[1], sender.as_bytes()]);
                ghost.move_session(used, session_id, (RIVAL, place), &mut writes)?;
            }
            let place = (INBOUND, keys.of(INBOUND, &parts));
            ghost.move_session(&rival, session_id, place, &mut writes)?;
            ghost.records.write(writes)?;
            return Ok(true);
        }
        Ok(false)
    }
}
