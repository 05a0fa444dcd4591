//! The inbound group sessions of a ghost, and how many of them are kept.
//!
//! A device can send any number of room keys for the rooms that a ghost is in, and a homeserver can
//! make up any number of devices. An index by device, which the machine needs anyway, says which
//! sessions came first. The entries of one device are read with each new key of it, those of all
//! devices only when a room has too many.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::PoisonError,
};

use matrix_sdk_crypto::olm::{InboundGroupSession, PickledInboundGroupSession, SenderDataType};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    GhostStoreError,
    ghost::StoredGhost,
    record::{BACKED_UP, BY_DEVICE, INBOUND, KIND_AT, RIVAL, decode, encode, part_at},
    sealed_records::Writes,
};
use crate::clock::Timestamp;

/// Maximum number of inbound group sessions kept of one device. A client begins one when somebody
/// leaves, after a week, and after as many messages as the room says: a hundred, or each if it says
/// one.
pub(super) const INBOUND_SESSIONS_MAX: usize = 200;
/// Maximum number of inbound group sessions kept of one room. A conversation has a hundred people at
/// most, and a message is read when it comes, or a week later.
pub(super) const ROOM_SESSIONS_MAX: usize = 1000;
/// The number of sessions of a room that are left when there were too many, so that the whole index is
/// read with one key in a hundred of a flood.
pub(super) const ROOM_SESSIONS_LEFT: usize = 900;

/// Minimum number of them that come from devices not known to be signed, if there are so many: a
/// device may be known only with its first message.
const UNSIGNED_LEFT: usize = 100;

/// An inbound group session made by a device, and how far its sender is known.
#[derive(Serialize, Deserialize)]
pub(super) struct ByDevice {
    pub(super) session: Vec<u8>,
    pub(super) sender_data: SenderDataType,
    /// When the session came, in milliseconds, or the next number after that of the device's
    /// last one. The one with the lowest number is the oldest.
    #[serde(default)]
    number: u64,
}

impl ByDevice {
    fn room(&self) -> &[u8] {
        part_at(&self.session, 0)
    }

    /// Returns whether the sender was found to have signed the device.
    fn is_signed(&self) -> bool {
        !matches!(
            self.sender_data,
            SenderDataType::UnknownDevice | SenderDataType::DeviceInfo
        )
    }
}

/// What is written when sessions are saved.
#[derive(Default)]
struct SessionWrites {
    /// The sessions to be written: their index entries by key, and the pickled sessions.
    saved: BTreeMap<Vec<u8>, (ByDevice, Zeroizing<Vec<u8>>)>,
    /// The keys of index entries to be deleted, and those of their sessions.
    gone: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The keys of index entries of which the session is elsewhere now, and where it was.
    moved: Vec<(Vec<u8>, Vec<u8>)>,
    /// The number of new sessions by room.
    new: BTreeMap<Vec<u8>, usize>,
}

/// A session that may have to make room for another one.
struct Candidate {
    /// The key of its index entry.
    index: Vec<u8>,
    /// The room or the device whose sessions are counted.
    of: Vec<u8>,
    number: u64,
}

impl StoredGhost {
    /// Saves inbound group sessions, and deletes those that have to make room for them. The caller
    /// holds `saving`.
    pub(super) async fn save_inbound_sessions(
        &self,
        sessions: &[InboundGroupSession],
        writes: &mut Writes,
    ) -> Result<(), GhostStoreError> {
        let mut of_sender: BTreeMap<String, Vec<&InboundGroupSession>> = BTreeMap::new();
        for session in sessions {
            let sender = session.sender_key().to_base64();
            of_sender.entry(sender).or_default().push(session);
        }
        let mut staged = SessionWrites::default();
        for (sender, sessions) in of_sender {
            self.make_room_for_sessions(&sender, &sessions, &mut staged)
                .await?;
        }
        self.make_room_in_rooms(&mut staged)?;
        for (index, session) in staged.moved {
            self.delete_inbound(&index, &session, writes)?;
        }
        for (index, session) in staged.gone {
            self.delete_inbound(&index, &session, writes)?;
            writes.delete(index);
        }
        // After all deletions, so that none of them hits a session that another device sends now.
        for (index, (entry, pickle)) in staged.saved {
            writes.put(BY_DEVICE, index, encode(BY_DEVICE, &entry)?);
            writes.put(INBOUND, entry.session, pickle);
        }
        Ok(())
    }

    /// Stages the sessions of a device. Deletes those of its sessions that have to make room for new
    /// ones: in the room that has most of them, so that a busy group does not drive out the session of
    /// a quiet chat.
    async fn make_room_for_sessions(
        &self,
        sender: &str,
        sessions: &[&InboundGroupSession],
        staged: &mut SessionWrites,
    ) -> Result<(), GhostStoreError> {
        let keys = &self.records.keys;
        let mut kept = self.index_entries(&keys.of(BY_DEVICE, &[sender.as_bytes()]))?;
        let newest = kept.values().map(|entry| entry.number).max();
        let next = (newest.unwrap_or(0) + 1).max(self.now_in_millis());
        let mut pickles = BTreeMap::new();
        for (next, session) in (next..).zip(sessions) {
            let id = session.session_id().as_bytes();
            let index = keys.of(BY_DEVICE, &[sender.as_bytes(), id]);
            let former = kept.get(&index);
            let is_taken = |key: &[u8]| {
                let mut saved = staged.saved.values();
                saved.any(|(entry, _)| entry.session == key)
            };
            let at = former.map(|former| former.session.as_slice());
            let key = self.inbound_key(session, at, is_taken)?;
            // The index has one entry for a session, and an honest client uses it in one room.
            if let Some(former) = former
                && former.session != key
            {
                staged.moved.push((index.clone(), former.session.clone()));
            }
            if former.is_none_or(|former| former.session != key) {
                *staged.new.entry(part_at(&key, 0).to_vec()).or_default() += 1;
            }
            let number = former.map_or(next, |former| former.number);
            let entry = ByDevice {
                session: key,
                sender_data: session.sender_data_type(),
                number,
            };
            kept.insert(index.clone(), entry);
            pickles.insert(index, encode(INBOUND, &session.pickle().await)?);
        }
        let too_many = kept.len().saturating_sub(INBOUND_SESSIONS_MAX);
        let of_room = |(index, entry): (&Vec<u8>, &ByDevice)| Candidate {
            index: index.clone(),
            of: entry.room().to_vec(),
            number: entry.number,
        };
        for index in find_victims(kept.iter().map(of_room).collect(), too_many) {
            if let Some(entry) = kept.remove(&index) {
                staged.gone.insert(index, entry.session);
            }
        }
        for (index, pickle) in pickles {
            if let Some(entry) = kept.remove(&index) {
                staged.saved.insert(index, (entry, pickle));
            }
        }
        Ok(())
    }

    /// Deletes sessions of the rooms that would have more than [`ROOM_SESSIONS_MAX`]: of devices
    /// that are not known to be signed first, since those can be made up, and of the device that has
    /// most.
    fn make_room_in_rooms(&self, staged: &mut SessionWrites) -> Result<(), GhostStoreError> {
        for (room, new) in std::mem::take(&mut staged.new) {
            let mut count = new;
            for kind in [INBOUND, RIVAL] {
                let mut of_room = self.records.keys.of(kind, &[]);
                of_room.extend_from_slice(&room);
                count += self.records.keys_of(&of_room)?.len();
            }
            if count <= ROOM_SESSIONS_MAX {
                continue;
            }
            let mut kept = self.index_entries(&self.records.keys.of(BY_DEVICE, &[]))?;
            kept.retain(|index, _| !staged.gone.contains_key(index));
            let saved = staged.saved.iter();
            let all = kept
                .iter()
                .filter(|(index, _)| !staged.saved.contains_key(*index))
                .chain(saved.map(|(index, (entry, _))| (index, entry)))
                .filter(|(_, entry)| entry.room() == room);
            let (mut signed, mut unsigned) = (Vec::new(), Vec::new());
            for (index, entry) in all {
                let of_class = if entry.is_signed() {
                    &mut signed
                } else {
                    &mut unsigned
                };
                of_class.push(Candidate {
                    index: index.clone(),
                    of: part_at(index, 0).to_vec(),
                    number: entry.number,
                });
            }
            let count = signed.len() + unsigned.len();
            if count <= ROOM_SESSIONS_MAX {
                continue;
            }
            let too_many = count - ROOM_SESSIONS_LEFT;
            let of_unsigned = too_many.min(unsigned.len().saturating_sub(UNSIGNED_LEFT));
            let mut victims = find_victims(unsigned, of_unsigned);
            victims.extend(find_victims(signed, too_many - of_unsigned));
            for index in victims {
                let saved = staged.saved.remove(&index).map(|(entry, _)| entry);
                if let Some(entry) = kept.remove(&index).or(saved) {
                    staged.gone.insert(index, entry.session);
                }
            }
        }
        Ok(())
    }

    /// Returns the sessions of which the device that made them has made a newer one for the same room
    /// before a moment: the keys of their index entries, and theirs.
    pub(super) fn sessions_superseded_before(
        &self,
        moment: Timestamp,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, GhostStoreError> {
        let entries = self.index_entries(&self.records.keys.of(BY_DEVICE, &[]))?;
        let mut of_device: BTreeMap<(Vec<u8>, Vec<u8>), Vec<_>> = BTreeMap::new();
        for (index, entry) in entries {
            let device = part_at(&index, 0).to_vec();
            let sessions = of_device
                .entry((device, entry.room().to_vec()))
                .or_default();
            sessions.push((entry.number, index, entry.session));
        }
        let mut superseded = Vec::new();
        for mut sessions in of_device.into_values() {
            sessions.sort();
            let mut sessions = sessions.into_iter().peekable();
            while let Some((_, index, session)) = sessions.next() {
                if sessions.peek().is_some_and(|(newer, ..)| *newer < moment.0) {
                    superseded.push((index, session));
                }
            }
        }
        Ok(superseded)
    }

    /// Returns the entries of the index whose keys begin with a prefix.
    fn index_entries(&self, prefix: &[u8]) -> Result<BTreeMap<Vec<u8>, ByDevice>, GhostStoreError> {
        let entries = self.records.list(BY_DEVICE, prefix)?;
        entries
            .into_iter()
            .map(|(index, plain)| Ok((index, decode(BY_DEVICE, &plain)?)))
            .collect()
    }

    /// Returns the time, or zero in a store without a clock: then only the sessions of one device are
    /// in order.
    fn now_in_millis(&self) -> u64 {
        let filter = self.room_key_filter.read();
        let filter = filter.unwrap_or_else(PoisonError::into_inner);
        filter.as_ref().map_or(0, |filter| filter.clock.now().0)
    }

    /// Deletes the session of an index entry, unless the one under this key has come from another
    /// device since.
    pub(super) fn delete_inbound(
        &self,
        index: &[u8],
        key: &[u8],
        writes: &mut Writes,
    ) -> Result<(), GhostStoreError> {
        let Some(plain) = self.records.read(INBOUND, key)? else {
            return Ok(());
        };
        let pickle: PickledInboundGroupSession = decode(INBOUND, &plain)?;
        let sender = pickle.sender_key.to_base64();
        let of_sender = self.records.keys.of(BY_DEVICE, &[sender.as_bytes()]);
        if !index.starts_with(&of_sender) {
            return Ok(());
        }
        // Both keys have the same parts, unless it is a rival, which is in no backup.
        let mut backed_up = key.to_vec();
        if let Some(kind) = backed_up.get_mut(KIND_AT) {
            *kind = BACKED_UP.byte;
        }
        writes.delete(backed_up);
        writes.delete(key.to_vec());
        Ok(())
    }

    /// Saves group sessions, and the backup version that they are in.
    pub(super) async fn save_inbound(
        &self,
        sessions: &[InboundGroupSession],
        version: Option<&str>,
    ) -> Result<(), GhostStoreError> {
        let _one = self.saving.lock().await;
        let mut writes = Writes::default();
        if let Some(version) = version {
            for session in sessions {
                let parts = [
                    session.room_id().as_bytes(),
                    session.session_id().as_bytes(),
                ];
                let version = encode(BACKED_UP, &version)?;
                writes.put(BACKED_UP, self.records.keys.of(BACKED_UP, &parts), version);
            }
        }
        self.save_inbound_sessions(sessions, &mut writes).await?;
        self.records.write(writes)
    }
}

/// Returns which sessions go, as many as are too many: each time the oldest of the room or device
/// that has most.
fn find_victims(mut candidates: Vec<Candidate>, too_many: usize) -> Vec<Vec<u8>> {
    let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
    if too_many > 0 {
        for candidate in &candidates {
            *counts.entry(candidate.of.clone()).or_default() += 1;
        }
    }
    let mut victims = Vec::new();
    for _ in 0..too_many {
        let rank = |candidate: &Candidate| {
            let count = counts.get(&candidate.of).copied().unwrap_or_default();
            (Reverse(count), candidate.number)
        };
        let victim = (0..candidates.len()).min_by_key(|at| candidates.get(*at).map(rank));
        let Some(victim) = victim else {
            break;
        };
        let victim = candidates.swap_remove(victim);
        if let Some(count) = counts.get_mut(&victim.of) {
            *count -= 1;
        }
        victims.push(victim.index);
    }
    victims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_its_shape_on_disk() {
        let entry = ByDevice {
            session: vec![1, 2],
            sender_data: SenderDataType::SenderVerified,
            number: 7,
        };
        let bytes = encode(BY_DEVICE, &entry).unwrap();
        let value: serde_json::Value = rmp_serde::from_slice(&bytes).unwrap();
        let expected = serde_json::json!({
            "session": [1, 2], "sender_data": "SenderVerified", "number": 7,
        });
        assert_eq!(value, expected);
    }
}
