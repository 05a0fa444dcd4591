//! Room keys that came before their room was expected.
//!
//! A key and the invite to its room take different ways, and with federation the key may be there
//! first. It cannot come again: the Olm message that brought it is used up. So it is parked for a few
//! minutes, where nothing can be decrypted with it, sealed as all keys are.

use std::{collections::HashMap, time::Duration};

use matrix_sdk_crypto::olm::{InboundGroupSession, PickledInboundGroupSession};
use ruma::{OwnedUserId, RoomId};
use serde::{Deserialize, Serialize};

use super::{
    GhostStore, GhostStoreError, GhostStores,
    changes::furthest_back,
    ghost::StoredGhost,
    record::{Kind, PARKED, broken, decode, encode, ghost_prefix},
    registry::GhostIds,
    sealed_records::Writes,
};
use crate::{clock::Timestamp, store::raw};

/// How long a key is parked.
pub(in crate::crypto) const PARKED_FOR: Duration = Duration::from_secs(5 * 60);
/// Maximum number of parked keys of a ghost.
pub(in crate::crypto) const PARKED_MAX: usize = 200;
/// Number of ghosts that are looked at in one read.
const PAGE_GHOSTS: usize = 1000;

#[derive(Serialize, Deserialize)]
struct ParkedKey {
    at: Timestamp,
    /// The Curve25519 key of the device that sent it, in base64.
    #[serde(default)]
    sender: String,
    session: PickledInboundGroupSession,
}

/// Where a parked key is in the store, when it was parked, and from whom it came.
struct Parked {
    at: Timestamp,
    key: Vec<u8>,
    sender: String,
}

/// Returns which of the parked keys goes to make room: the oldest of the device that sent most, so
/// that nobody drives out the keys of others.
fn find_victim(kept: &[Parked]) -> Option<usize> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for parked in kept {
        *counts.entry(&parked.sender).or_default() += 1;
    }
    let most = counts.values().max()?;
    kept.iter()
        .position(|parked| counts.get(parked.sender.as_str()) == Some(most))
}

impl ParkedKey {
    fn is_expired(&self, now: Timestamp) -> bool {
        now.since(self.at) > PARKED_FOR
    }
}

impl StoredGhost {
    /// Parks keys, and deletes expired ones and those beyond the limit. The caller holds `saving`.
    pub(super) async fn park(
        &self,
        sessions: Vec<InboundGroupSession>,
        now: Timestamp,
        writes: &mut Writes,
    ) -> Result<(), GhostStoreError> {
        if sessions.is_empty() {
            return Ok(());
        }
        let mut kept = self.delete_expired(now, writes)?;
        for session in furthest_back(sessions).await {
            let sender = session.sender_key().to_base64();
            let parts = [
                session.room_id().as_bytes(),
                session.session_id().as_bytes(),
                sender.as_bytes(),
            ];
            let key = self.records.keys.of(PARKED, &parts);
            // The first key of a session is the one that reads its first message.
            if kept.iter().any(|known| known.key == key) {
                continue;
            }
            let parked = ParkedKey {
                at: now,
                sender: sender.clone(),
                session: session.pickle().await,
            };
            writes.put(PARKED, key.clone(), encode(PARKED, &parked)?);
            kept.push(Parked {
                at: now,
                key,
                sender,
            });
            if kept.len() > PARKED_MAX
                && let Some(victim) = find_victim(&kept)
            {
                writes.delete(kept.remove(victim).key);
            }
        }
        Ok(())
    }

    /// Deletes expired keys. Returns the others, the oldest first.
    fn delete_expired(
        &self,
        now: Timestamp,
        writes: &mut Writes,
    ) -> Result<Vec<Parked>, GhostStoreError> {
        let all = self.records.keys.of(PARKED, &[]);
        let mut kept = Vec::new();
        for (key, plain) in self.records.list(PARKED, &all)? {
            let parked: ParkedKey = decode(PARKED, &plain)?;
            if parked.is_expired(now) {
                writes.delete(key);
            } else {
                kept.push(Parked {
                    at: parked.at,
                    key,
                    sender: parked.sender,
                });
            }
        }
        kept.sort_by(|one, other| (one.at, &one.key).cmp(&(other.at, &other.key)));
        Ok(kept)
    }
}

impl GhostStore {
    /// Moves the parked keys of a room, which is expected from now on, to the others.
    pub(in crate::crypto) async fn admit_parked_keys(
        &self,
        room: &RoomId,
        now: Timestamp,
    ) -> Result<(), GhostStoreError> {
        let ghost = &self.ghost;
        let of_room = ghost.records.keys.of(PARKED, &[room.as_bytes()]);
        if !ghost.records.has_any(&of_room)? {
            return Ok(());
        }
        let _one = ghost.saving.lock().await;
        let mut writes = Writes::default();
        let mut admitted: Vec<ParkedKey> = Vec::new();
        for (key, plain) in ghost.records.list(PARKED, &of_room)? {
            writes.delete(key);
            admitted.push(decode(PARKED, &plain)?);
        }
        admitted.retain(|parked| !parked.is_expired(now));
        // The newest of a device are kept.
        admitted.sort_by_key(|parked| parked.at);
        let mut sessions = Vec::with_capacity(admitted.len());
        for parked in admitted {
            let session = InboundGroupSession::from_pickle(parked.session)
                .map_err(|error| broken(PARKED, &error))?;
            if ghost.session_of_device(&session)?.is_none()
                && !ghost.is_done(room, session.session_id())?
            {
                sessions.push(session);
            }
        }
        ghost.save_inbound_sessions(&sessions, &mut writes).await?;
        ghost.records.write(writes)
    }

    async fn delete_expired_parked_keys(&self, now: Timestamp) -> Result<(), GhostStoreError> {
        let _one = self.ghost.saving.lock().await;
        let mut writes = Writes::default();
        self.ghost.delete_expired(now, &mut writes)?;
        self.ghost.records.write(writes)
    }
}

impl GhostStores {
    /// Deletes the expired parked keys of all ghosts.
    pub(in crate::crypto) async fn delete_expired_parked_keys(
        &self,
        now: Timestamp,
    ) -> Result<(), GhostStoreError> {
        for user in self.users_with(PARKED)? {
            if let Some(ghost) = self.existing(&user)? {
                ghost.delete_expired_parked_keys(now).await?;
            }
        }
        Ok(())
    }

    /// Returns the ghosts that have a record of a kind. Nearly all have none, and need not be opened.
    pub(super) fn users_with(&self, kind: Kind) -> Result<Vec<OwnedUserId>, GhostStoreError> {
        let mut users = Vec::new();
        let mut after = None;
        loop {
            let page = self
                .store()
                .scan::<GhostIds>(&[], after.as_ref(), PAGE_GHOSTS)?;
            let Some((last, _)) = page.last() else {
                return Ok(users);
            };
            after = Some(last.clone());
            for (user, id) in page {
                let mut of_kind = ghost_prefix(id);
                of_kind.push(kind.byte);
                if !raw::scan(self.store(), &of_kind, None, 1)?.is_empty() {
                    users.extend(OwnedUserId::try_from(user));
                }
            }
        }
    }
}
