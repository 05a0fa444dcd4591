//! Turns the changes of a machine into records. The changes of one call are one batch.

use std::{collections::BTreeMap, sync::PoisonError};

use matrix_sdk_crypto::{
    olm::{InboundGroupSession, PickledSession, Session},
    store::types::{Changes, PendingChanges},
    vodozemac::megolm::SessionOrdering,
};
use ruma::UserId;

use super::{
    GhostStoreError,
    ghost::StoredGhost,
    olm_hashes, reception,
    record::{
        ACCOUNT, BACKUP_KEY, BACKUP_VERSION, BUNDLE, CUSTOM, DEHYDRATED, DEVICE, DOWNLOADED,
        IDENTITY, NEXT_BATCH, OLM, PENDING_BUNDLE, PRIVATE_IDENTITY, REQUEST, REQUEST_BY_INFO,
        ROOM_SETTINGS, SECRET, TRACKED, WITHHELD, decode, encode, encode_json,
    },
    room_key_filter::filter_room_keys,
    sealed_records::Writes,
};

/// Maximum number of Olm sessions kept with one device. A client has one, or a second if it lost
/// its store or both sides began at the same time.
pub(super) const OLM_SESSIONS_MAX: usize = 10;

/// The Olm sessions with one device that are saved.
#[derive(Default)]
struct Kept {
    /// The sessions by their keys in the store.
    pickles: BTreeMap<Vec<u8>, PickledSession>,
    /// Whether one of them is not in the store yet.
    are_more: bool,
}

/// Returns the sessions without duplicates: of several keys of one session from one device, the
/// earliest.
///
/// The machine compares a key with the one in the store, but not with another one of the same
/// batch. Clients send a key again, from a later index, when an Olm session is new; the later key
/// would replace the earlier one, and the first messages could not be decrypted.
pub(super) async fn furthest_back(sessions: Vec<InboundGroupSession>) -> Vec<InboundGroupSession> {
    let mut kept: Vec<InboundGroupSession> = Vec::with_capacity(sessions.len());
    for session in sessions {
        let same = kept.iter_mut().find(|kept| {
            kept.room_id() == session.room_id()
                && kept.session_id() == session.session_id()
                && kept.sender_key() == session.sender_key()
        });
        let Some(same) = same else {
            kept.push(session);
            continue;
        };
        match session.compare_ratchet(same).await {
            SessionOrdering::Better | SessionOrdering::Equal => *same = session,
            SessionOrdering::Worse | SessionOrdering::Unconnected => {}
        }
    }
    kept
}

impl StoredGhost {
    pub(super) async fn save_account(
        &self,
        changes: PendingChanges,
    ) -> Result<(), GhostStoreError> {
        let _one = self.saving.lock().await;
        let Some(account) = changes.account else {
            return Ok(());
        };
        let mut writes = Writes::default();
        let pickle = encode(ACCOUNT, &account.pickle())?;
        writes.put(ACCOUNT, self.records.keys.of(ACCOUNT, &[]), pickle);
        self.records.write(writes)?;
        self.remember_account(&account);
        Ok(())
    }

    pub(super) async fn save_changes(&self, mut changes: Changes) -> Result<(), GhostStoreError> {
        reception::defer_or_merge(&mut changes);
        self.drop_own_sessions(&mut changes)?;
        let filter = self
            .room_key_filter
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let parked = match &filter {
            Some(filter) => filter_room_keys(filter, &mut changes),
            None => Vec::new(),
        };
        changes.inbound_group_sessions =
            furthest_back(std::mem::take(&mut changes.inbound_group_sessions)).await;
        let _one = self.saving.lock().await;
        if reception::is_under_way() {
            let received = std::mem::take(&mut changes.inbound_group_sessions);
            changes.inbound_group_sessions = self.without_known_keys(received).await?;
        }
        let mut writes = Writes::default();
        self.sessions(&changes, &mut writes).await?;
        self.people(&changes, &mut writes)?;
        self.values(&changes, &mut writes)?;
        self.rooms(&changes, &mut writes)?;
        if let Some(filter) = &filter {
            self.park(parked, filter.clock.now(), &mut writes).await?;
        }
        let known = *self
            .olm_hashes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let hashes = olm_hashes::add(&self.records, known, &changes.message_hashes, &mut writes)?;
        self.records.write(writes)?;
        *self
            .olm_hashes
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(hashes);
        self.outbound_sessions
            .activate(changes.outbound_group_sessions);
        Ok(())
    }

    /// Drops the inbound halves of the ghost's own group sessions: it never reads what it has said
    /// itself.
    fn drop_own_sessions(&self, changes: &mut Changes) -> Result<(), GhostStoreError> {
        let sessions = &mut changes.inbound_group_sessions;
        let filter = self.room_key_filter.read();
        let is_filtered = filter.unwrap_or_else(PoisonError::into_inner).is_some();
        if is_filtered && !sessions.is_empty() {
            let own = self.static_account()?.identity_keys.curve25519;
            sessions.retain(|session| session.sender_key() != own);
        }
        Ok(())
    }

    async fn sessions(
        &self,
        changes: &Changes,
        writes: &mut Writes,
    ) -> Result<(), GhostStoreError> {
        self.olm_sessions(&changes.sessions, writes).await?;
        self.save_inbound_sessions(&changes.inbound_group_sessions, writes)
            .await?;
        self.outbound_sessions
            .invalidate(&self.records.keys, changes, writes);
        if let Some(identity) = &changes.private_identity {
            let pickle = encode(PRIVATE_IDENTITY, &identity.pickle().await)?;
            writes.put(
                PRIVATE_IDENTITY,
                self.records.keys.of(PRIVATE_IDENTITY, &[]),
                pickle,
            );
        }
        Ok(())
    }

    /// Saves Olm sessions. Of those with one device, the [`OLM_SESSIONS_MAX`] used last are kept: a
    /// device can begin any number of them with the fallback key, and the machine loads them all to
    /// read one message.
    async fn olm_sessions(
        &self,
        sessions: &[Session],
        writes: &mut Writes,
    ) -> Result<(), GhostStoreError> {
        let mut of_sender: BTreeMap<String, Kept> = BTreeMap::new();
        for session in sessions {
            let sender = session.sender_key().to_base64();
            let parts = [sender.as_bytes(), session.session_id().as_bytes()];
            let key = self.records.keys.of(OLM, &parts);
            let pickle = session.pickle().await;
            let kept = of_sender.entry(sender).or_default();
            kept.are_more |= !self.records.has(&key)?;
            kept.pickles.insert(key, pickle);
        }
        for (sender, mut kept) in of_sender {
            if kept.are_more {
                let prefix = self.records.keys.of(OLM, &[sender.as_bytes()]);
                let mut all: Vec<_> = Vec::new();
                for (key, plain) in self.records.list(OLM, &prefix)? {
                    if !kept.pickles.contains_key(&key) {
                        let pickle: PickledSession = decode(OLM, &plain)?;
                        all.push((false, pickle.last_use_time, pickle.creation_time, key));
                    }
                }
                for (key, pickle) in &kept.pickles {
                    all.push((
                        true,
                        pickle.last_use_time,
                        pickle.creation_time,
                        key.clone(),
                    ));
                }
                all.sort();
                let too_many = all.len().saturating_sub(OLM_SESSIONS_MAX);
                for (.., key) in all.into_iter().take(too_many) {
                    if kept.pickles.remove(&key).is_none() {
                        writes.delete(key);
                    }
                }
            }
            for (key, pickle) in kept.pickles {
                writes.put(OLM, key, encode(OLM, &pickle)?);
            }
        }
        Ok(())
    }

    fn people(&self, changes: &Changes, writes: &mut Writes) -> Result<(), GhostStoreError> {
        for device in changes.devices.new.iter().chain(&changes.devices.changed) {
            let parts = [device.user_id().as_bytes(), device.device_id().as_bytes()];
            writes.put(
                DEVICE,
                self.records.keys.of(DEVICE, &parts),
                encode(DEVICE, device)?,
            );
        }
        for device in &changes.devices.deleted {
            let parts = [device.user_id().as_bytes(), device.device_id().as_bytes()];
            writes.delete(self.records.keys.of(DEVICE, &parts));
        }
        for identity in changes
            .identities
            .new
            .iter()
            .chain(&changes.identities.changed)
        {
            let key = self
                .records
                .keys
                .of(IDENTITY, &[identity.user_id().as_bytes()]);
            writes.put(IDENTITY, key, encode(IDENTITY, identity)?);
        }
        for request in &changes.key_requests {
            let id = request.request_id.as_bytes();
            writes.put(
                REQUEST,
                self.records.keys.of(REQUEST, &[id]),
                encode(REQUEST, request)?,
            );
            writes.put(
                REQUEST_BY_INFO,
                self.records
                    .keys
                    .of(REQUEST_BY_INFO, &[request.info.as_key().as_bytes()]),
                encode(REQUEST_BY_INFO, &request.request_id)?,
            );
        }
        Ok(())
    }

    fn values(&self, changes: &Changes, writes: &mut Writes) -> Result<(), GhostStoreError> {
        if let Some(token) = &changes.next_batch_token {
            writes.put(
                NEXT_BATCH,
                self.records.keys.of(NEXT_BATCH, &[]),
                encode(NEXT_BATCH, token)?,
            );
        }
        if let Some(key) = &changes.backup_decryption_key {
            writes.put(
                BACKUP_KEY,
                self.records.keys.of(BACKUP_KEY, &[]),
                encode(BACKUP_KEY, key)?,
            );
        }
        if let Some(version) = &changes.backup_version {
            let key = self.records.keys.of(BACKUP_VERSION, &[]);
            writes.put(BACKUP_VERSION, key, encode(BACKUP_VERSION, version)?);
        }
        if let Some(key) = &changes.dehydrated_device_pickle_key {
            writes.put(
                DEHYDRATED,
                self.records.keys.of(DEHYDRATED, &[]),
                encode(DEHYDRATED, key)?,
            );
        }
        for item in &changes.secrets {
            let parts = [item.secret_name.as_str().as_bytes(), item.secret.as_bytes()];
            writes.put(
                SECRET,
                self.records.keys.of(SECRET, &parts),
                encode(SECRET, &*item.secret)?,
            );
        }
        Ok(())
    }

    fn rooms(&self, changes: &Changes, writes: &mut Writes) -> Result<(), GhostStoreError> {
        for (room, sessions) in &changes.withheld_session_info {
            for (session, entry) in sessions {
                let key = self
                    .records
                    .keys
                    .of(WITHHELD, &[room.as_bytes(), session.as_bytes()]);
                writes.put(WITHHELD, key, encode_json(WITHHELD, entry)?);
            }
        }
        for (room, settings) in &changes.room_settings {
            let key = self.records.keys.of(ROOM_SETTINGS, &[room.as_bytes()]);
            writes.put(ROOM_SETTINGS, key, encode(ROOM_SETTINGS, settings)?);
        }
        for bundle in &changes.received_room_key_bundles {
            let parts = [
                bundle.bundle_data.room_id.as_bytes(),
                bundle.sender_user.as_bytes(),
            ];
            writes.put(
                BUNDLE,
                self.records.keys.of(BUNDLE, &parts),
                encode_json(BUNDLE, bundle)?,
            );
        }
        for room in &changes.room_key_backups_fully_downloaded {
            writes.mark(self.records.keys.of(DOWNLOADED, &[room.as_bytes()]));
        }
        for (room, details) in &changes.rooms_pending_key_bundle {
            let key = self.records.keys.of(PENDING_BUNDLE, &[room.as_bytes()]);
            match details {
                Some(details) => {
                    writes.put(PENDING_BUNDLE, key, encode(PENDING_BUNDLE, details)?);
                }
                None => writes.delete(key),
            }
        }
        Ok(())
    }

    pub(super) fn save_tracked(&self, users: &[(&UserId, bool)]) -> Result<(), GhostStoreError> {
        let mut writes = Writes::default();
        for (user, dirty) in users {
            let tracked = matrix_sdk_crypto::TrackedUser {
                user_id: (*user).to_owned(),
                dirty: *dirty,
            };
            let key = self.records.keys.of(TRACKED, &[user.as_bytes()]);
            writes.put(TRACKED, key, encode(TRACKED, &tracked)?);
        }
        self.records.write(writes)
    }

    pub(super) fn save_custom(&self, name: &str, value: Vec<u8>) -> Result<(), GhostStoreError> {
        let mut writes = Writes::default();
        writes.put(
            CUSTOM,
            self.records.keys.of(CUSTOM, &[name.as_bytes()]),
            value.into(),
        );
        self.records.write(writes)
    }
}
