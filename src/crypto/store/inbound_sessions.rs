//! The inbound group sessions of a device, and how many of them are kept.
//!
//! A device can send any number of room keys for the rooms that a ghost is in. An index by device,
//! which the machine needs anyway, says which of its sessions came first. It has as many entries as
//! sessions are kept, so saving a key reads no more than that.

use std::collections::BTreeMap;

use matrix_sdk_crypto::olm::{InboundGroupSession, PickledInboundGroupSession, SenderDataType};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    GhostStoreError,
    ghost::StoredGhost,
    record::{BACKED_UP, BY_DEVICE, INBOUND, KIND_AT, decode, encode},
    sealed_records::Writes,
};

/// Maximum number of inbound group sessions kept of one device. A client begins one after a hundred
/// messages, after a week, and when somebody leaves. A message is read when it comes, or a week later
/// at most.
pub(super) const INBOUND_SESSIONS_MAX: usize = 200;

/// An inbound group session made by a device, and how far its sender is known.
#[derive(Serialize, Deserialize)]
pub(super) struct ByDevice {
    pub(super) session: Vec<u8>,
    pub(super) sender_data: SenderDataType,
    /// The place of the session among those of the device. The one with the lowest number is the
    /// oldest.
    #[serde(default)]
    number: u64,
}

/// A session to be written: the key of its index entry, the entry, and the pickled session.
type Pending = (Vec<u8>, ByDevice, Zeroizing<Vec<u8>>);

impl StoredGhost {
    /// Saves inbound group sessions. Of those of one device, the [`INBOUND_SESSIONS_MAX`] that came
    /// last are kept. The caller holds `saving`.
    pub(super) async fn inbound_sessions(
        &self,
        sessions: &[InboundGroupSession],
        writes: &mut Writes,
    ) -> Result<(), GhostStoreError> {
        let mut of_sender: BTreeMap<String, Vec<&InboundGroupSession>> = BTreeMap::new();
        for session in sessions {
            let sender = session.sender_key().to_base64();
            of_sender.entry(sender).or_default().push(session);
        }
        let mut saved = Vec::new();
        for (sender, sessions) in of_sender {
            saved.extend(self.sessions_of_device(&sender, &sessions, writes).await?);
        }
        // After all deletions, so that none of them hits a session that another device sends now.
        for (index, entry, pickle) in saved {
            writes.put(BY_DEVICE, index, encode(BY_DEVICE, &entry)?);
            writes.put(INBOUND, entry.session, pickle);
        }
        Ok(())
    }

    /// Deletes the sessions of a device that have to go for new ones. Returns those to be written.
    async fn sessions_of_device(
        &self,
        sender: &str,
        sessions: &[&InboundGroupSession],
        writes: &mut Writes,
    ) -> Result<Vec<Pending>, GhostStoreError> {
        let keys = &self.records.keys;
        let of_device = keys.of(BY_DEVICE, &[sender.as_bytes()]);
        let mut kept: BTreeMap<Vec<u8>, ByDevice> = BTreeMap::new();
        for (index, plain) in self.records.list(BY_DEVICE, &of_device)? {
            kept.insert(index, decode(BY_DEVICE, &plain)?);
        }
        let mut newest = kept.values().map(|entry| entry.number).max().unwrap_or(0);
        let mut pickles = BTreeMap::new();
        for session in sessions {
            let id = session.session_id().as_bytes();
            let index = keys.of(BY_DEVICE, &[sender.as_bytes(), id]);
            let key = keys.of(INBOUND, &[session.room_id().as_bytes(), id]);
            let former = kept.get(&index);
            // The index has one entry for a session, and an honest client uses it in one room.
            if let Some(former) = former
                && former.session != key
            {
                self.delete_inbound(sender, &former.session, writes)?;
            }
            let number = match former {
                Some(former) => former.number,
                None => {
                    newest += 1;
                    newest
                }
            };
            let entry = ByDevice {
                session: key,
                sender_data: session.sender_data_type(),
                number,
            };
            kept.insert(index.clone(), entry);
            pickles.insert(index, encode(INBOUND, &session.pickle().await)?);
        }
        for index in oldest(&kept) {
            if let Some(gone) = kept.remove(&index) {
                self.delete_inbound(sender, &gone.session, writes)?;
            }
            writes.delete(index);
        }
        let saved = pickles.into_iter().filter_map(|(index, pickle)| {
            let entry = kept.remove(&index)?;
            Some((index, entry, pickle))
        });
        Ok(saved.collect())
    }

    /// Deletes a session of a device, unless the one under this key has come from another device
    /// since.
    fn delete_inbound(
        &self,
        sender: &str,
        key: &[u8],
        writes: &mut Writes,
    ) -> Result<(), GhostStoreError> {
        let Some(plain) = self.records.read(INBOUND, key)? else {
            return Ok(());
        };
        let pickle: PickledInboundGroupSession = decode(INBOUND, &plain)?;
        if pickle.sender_key.to_base64() != sender {
            return Ok(());
        }
        // Both keys have the same parts.
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
        self.inbound_sessions(sessions, &mut writes).await?;
        self.records.write(writes)
    }
}

/// Returns the entries of the oldest sessions, as many as are too many.
fn oldest(kept: &BTreeMap<Vec<u8>, ByDevice>) -> Vec<Vec<u8>> {
    let too_many = kept.len().saturating_sub(INBOUND_SESSIONS_MAX);
    if too_many == 0 {
        return Vec::new();
    }
    let mut all: Vec<_> = kept
        .iter()
        .map(|(index, entry)| (entry.number, index))
        .collect();
    all.sort_unstable();
    let oldest = all.into_iter().take(too_many);
    oldest.map(|(_, index)| index.clone()).collect()
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
