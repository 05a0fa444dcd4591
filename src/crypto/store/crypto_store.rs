//! The implementation of `CryptoStore` for one ghost.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

use async_trait::async_trait;
use matrix_sdk_common::cross_process_lock::{
    CrossProcessLockGeneration, memory_store_helper::try_take_leased_lock,
};
use matrix_sdk_crypto::{
    Account, DeviceData, GossipRequest, SecretInfo, TrackedUser, UserIdentityData,
    olm::{
        Curve25519PublicKey, InboundGroupSession, OlmMessageHash, OutboundGroupSession,
        PrivateCrossSigningIdentity, SenderDataType, Session,
    },
    store::{
        CryptoStore,
        types::{
            BackupKeys, Changes, DehydratedDeviceKey, PendingChanges, RoomKeyCounts,
            RoomKeyWithheldEntry, RoomPendingKeyBundleDetails, RoomSettings,
            StoredRoomKeyBundleData,
        },
    },
};
use ruma::{
    DeviceId, OwnedDeviceId, OwnedTransactionId, RoomId, TransactionId, UserId,
    events::secret::request::SecretName,
};
use zeroize::Zeroizing;

use super::{
    GhostStore, GhostStoreError,
    ghost::StoredGhost,
    inbound_sessions::ByDevice,
    olm_hashes, reception,
    record::{
        BACKED_UP, BACKUP_KEY, BACKUP_VERSION, BUNDLE, BY_DEVICE, CUSTOM, DEHYDRATED, DEVICE,
        DOWNLOADED, IDENTITY, INBOUND, NEXT_BATCH, OLM, OUTBOUND, PENDING_BUNDLE, PRIVATE_IDENTITY,
        REQUEST, REQUEST_BY_INFO, ROOM_SETTINGS, SECRET, TRACKED, WITHHELD, broken, decode,
        decode_json,
    },
    sealed_records::Writes,
};

type Result<T> = std::result::Result<T, GhostStoreError>;

#[async_trait]
impl CryptoStore for GhostStore {
    type Error = GhostStoreError;

    async fn load_account(&self) -> Result<Option<Account>> {
        self.ghost.account()
    }

    async fn load_identity(&self) -> Result<Option<PrivateCrossSigningIdentity>> {
        if !self.signs {
            return Ok(None);
        }
        let Some(pickle) = self.ghost.records.value(PRIVATE_IDENTITY, &[])? else {
            return Ok(None);
        };
        PrivateCrossSigningIdentity::from_pickle(pickle)
            .map(Some)
            .map_err(|e| broken(PRIVATE_IDENTITY, &e))
    }

    async fn save_changes(&self, changes: Changes) -> Result<()> {
        // It would be a new identity, in place of the published one.
        if !self.signs && changes.private_identity.is_some() {
            return Err(GhostStoreError::NotToSign);
        }
        self.ghost.save_changes(changes).await
    }

    async fn save_pending_changes(&self, changes: PendingChanges) -> Result<()> {
        self.ghost.save_account(changes).await
    }

    async fn save_inbound_group_sessions(
        &self,
        sessions: Vec<InboundGroupSession>,
        backed_up_to_version: Option<&str>,
    ) -> Result<()> {
        self.ghost
            .save_inbound(&sessions, backed_up_to_version)
            .await
    }

    async fn get_sessions(&self, sender_key: &str) -> Result<Option<Vec<Session>>> {
        let deferred = reception::deferred_with(sender_key);
        let pickles = self
            .ghost
            .records
            .values_of(OLM, &[sender_key.as_bytes()])?;
        if pickles.is_empty() && deferred.is_empty() {
            return Ok(None);
        }
        let own = self.get_own_device().await?.as_device_keys().clone();
        let sessions: Result<Vec<_>> = pickles
            .into_iter()
            .map(|pickle| Session::from_pickle(own.clone(), pickle).map_err(|e| broken(OLM, &e)))
            .collect();
        let mut sessions = sessions?;
        sessions.extend(deferred);
        Ok(Some(sessions))
    }

    async fn get_inbound_group_session(
        &self,
        room_id: &RoomId,
        session_id: &str,
    ) -> Result<Option<InboundGroupSession>> {
        if reception::is_under_way() {
            return Ok(None);
        }
        let key = self
            .ghost
            .records
            .keys
            .of(INBOUND, &[room_id.as_bytes(), session_id.as_bytes()]);
        let version = match self.ghost.records.inbound_sessions.get(&key) {
            Ok(session) => return Ok(Some(session)),
            Err(version) => version,
        };
        let Some(plain) = self.ghost.records.read(INBOUND, &key)? else {
            return self.ghost.rival(room_id, session_id);
        };
        let session = StoredGhost::group_session(&plain)?;
        self.ghost
            .records
            .inbound_sessions
            .insert(version, key, &session);
        Ok(Some(session))
    }

    async fn get_withheld_info(
        &self,
        room_id: &RoomId,
        session_id: &str,
    ) -> Result<Option<RoomKeyWithheldEntry>> {
        let key = self
            .ghost
            .records
            .keys
            .of(WITHHELD, &[room_id.as_bytes(), session_id.as_bytes()]);
        self.ghost
            .records
            .read(WITHHELD, &key)?
            .map(|plain| decode_json(WITHHELD, &plain))
            .transpose()
    }

    async fn get_withheld_sessions_by_room_id(
        &self,
        room_id: &RoomId,
    ) -> Result<Vec<RoomKeyWithheldEntry>> {
        let prefix = self.ghost.records.keys.of(WITHHELD, &[room_id.as_bytes()]);
        let records = self.ghost.records.list(WITHHELD, &prefix)?;
        records
            .iter()
            .map(|(_, plain)| decode_json(WITHHELD, plain))
            .collect()
    }

    async fn get_inbound_group_sessions(&self) -> Result<Vec<InboundGroupSession>> {
        self.ghost.group_sessions(&[])
    }

    async fn inbound_group_session_counts(
        &self,
        backup_version: Option<&str>,
    ) -> Result<RoomKeyCounts> {
        let total = self
            .ghost
            .records
            .keys_of(&self.ghost.records.keys.of(INBOUND, &[]))?
            .len();
        let versions: Vec<String> = self.ghost.records.values_of(BACKED_UP, &[])?;
        let backed_up = versions
            .iter()
            .filter(|version| Some(version.as_str()) == backup_version)
            .count();
        Ok(RoomKeyCounts { total, backed_up })
    }

    async fn get_inbound_group_sessions_by_room_id(
        &self,
        room_id: &RoomId,
    ) -> Result<Vec<InboundGroupSession>> {
        self.ghost.group_sessions(&[room_id.as_bytes()])
    }

    async fn get_inbound_group_sessions_for_device_batch(
        &self,
        curve_key: Curve25519PublicKey,
        sender_data_type: SenderDataType,
        after_session_id: Option<String>,
        limit: usize,
    ) -> Result<Vec<InboundGroupSession>> {
        let ghost = &self.ghost;
        let sender = curve_key.to_base64();
        // In the order of the hashes; any fixed order is good enough.
        let after = after_session_id.map(|id| {
            ghost
                .records
                .keys
                .of(BY_DEVICE, &[sender.as_bytes(), id.as_bytes()])
        });
        let mut sessions = Vec::new();
        for (key, plain) in ghost.records.list(
            BY_DEVICE,
            &ghost.records.keys.of(BY_DEVICE, &[sender.as_bytes()]),
        )? {
            if sessions.len() >= limit {
                break;
            }
            let entry: ByDevice = decode(BY_DEVICE, &plain)?;
            if after.as_ref().is_some_and(|after| key <= *after)
                || entry.sender_data != sender_data_type
            {
                continue;
            }
            if let Some(plain) = ghost.records.read(INBOUND, &entry.session)? {
                sessions.push(StoredGhost::group_session(&plain)?);
            }
        }
        Ok(sessions)
    }

    async fn inbound_group_sessions_for_backup(
        &self,
        backup_version: &str,
        limit: usize,
    ) -> Result<Vec<InboundGroupSession>> {
        let mut sessions = Vec::new();
        for session in self.ghost.group_sessions(&[])? {
            if sessions.len() >= limit {
                break;
            }
            if !self.ghost.is_backed_up(&session, backup_version)? {
                sessions.push(session);
            }
        }
        Ok(sessions)
    }

    async fn mark_inbound_group_sessions_as_backed_up(
        &self,
        backup_version: &str,
        room_and_session_ids: &[(&RoomId, &str)],
    ) -> Result<()> {
        let mut sessions = Vec::new();
        for (room, id) in room_and_session_ids {
            if let Some(session) = self.get_inbound_group_session(room, id).await? {
                session.mark_as_backed_up();
                sessions.push(session);
            }
        }
        self.ghost
            .save_inbound(&sessions, Some(backup_version))
            .await
    }

    /// Does nothing: each session knows which backup it is in.
    async fn reset_backup_state(&self) -> Result<()> {
        Ok(())
    }

    async fn load_backup_keys(&self) -> Result<BackupKeys> {
        Ok(BackupKeys {
            decryption_key: self.ghost.records.value(BACKUP_KEY, &[])?,
            backup_version: self.ghost.records.value(BACKUP_VERSION, &[])?,
        })
    }

    async fn load_dehydrated_device_pickle_key(&self) -> Result<Option<DehydratedDeviceKey>> {
        self.ghost.records.value(DEHYDRATED, &[])
    }

    async fn delete_dehydrated_device_pickle_key(&self) -> Result<()> {
        self.ghost.records.delete(DEHYDRATED, &[])
    }

    async fn get_outbound_group_session(
        &self,
        room_id: &RoomId,
    ) -> Result<Option<OutboundGroupSession>> {
        let ghost = &self.ghost;
        if let Some(session) = ghost.outbound_sessions.of(room_id) {
            return Ok(Some(session));
        }
        let key = ghost.records.keys.of(OUTBOUND, &[room_id.as_bytes()]);
        let Some(plain) = ghost.records.read(OUTBOUND, &key)? else {
            return Ok(None);
        };
        let (run, pickle) = plain
            .split_first_chunk()
            .ok_or_else(|| broken(OUTBOUND, &"it is too short"))?;
        if u64::from_be_bytes(*run) < ghost.records.store.run().trusted_since {
            // Others may have seen later messages of this session than the record knows. The next
            // one would reuse a message index, and with it key and nonce. So a new session is made.
            ghost.records.delete(OUTBOUND, &[room_id.as_bytes()])?;
            return Ok(None);
        }
        let account = ghost.static_account()?;
        OutboundGroupSession::from_pickle(
            account.device_id,
            Arc::clone(&account.identity_keys),
            decode_json(OUTBOUND, pickle)?,
        )
        .map(Some)
        .map_err(|e| broken(OUTBOUND, &e))
    }

    async fn load_tracked_users(&self) -> Result<Vec<TrackedUser>> {
        self.ghost.records.values_of(TRACKED, &[])
    }

    async fn save_tracked_users(&self, users: &[(&UserId, bool)]) -> Result<()> {
        self.ghost.save_tracked(users)
    }

    async fn get_device(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
    ) -> Result<Option<DeviceData>> {
        self.ghost
            .records
            .value(DEVICE, &[user_id.as_bytes(), device_id.as_bytes()])
    }

    async fn get_user_devices(
        &self,
        user_id: &UserId,
    ) -> Result<HashMap<OwnedDeviceId, DeviceData>> {
        let devices: Vec<DeviceData> = self
            .ghost
            .records
            .values_of(DEVICE, &[user_id.as_bytes()])?;
        Ok(devices
            .into_iter()
            .map(|device| (device.device_id().to_owned(), device))
            .collect())
    }

    async fn get_own_device(&self) -> Result<DeviceData> {
        let account = self.ghost.static_account()?;
        self.get_device(&account.user_id, &account.device_id)
            .await?
            .ok_or(GhostStoreError::NoAccount)
    }

    async fn get_user_identity(&self, user_id: &UserId) -> Result<Option<UserIdentityData>> {
        self.ghost.records.value(IDENTITY, &[user_id.as_bytes()])
    }

    async fn is_message_known(&self, message_hash: &OlmMessageHash) -> Result<bool> {
        let mut known = self
            .ghost
            .olm_hashes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (is_known, hashes) = olm_hashes::is_known(&self.ghost.records, *known, message_hash)?;
        *known = Some(hashes);
        Ok(is_known)
    }

    async fn get_outgoing_secret_requests(
        &self,
        request_id: &TransactionId,
    ) -> Result<Option<GossipRequest>> {
        self.ghost.records.value(REQUEST, &[request_id.as_bytes()])
    }

    async fn get_secret_request_by_info(
        &self,
        secret_info: &SecretInfo,
    ) -> Result<Option<GossipRequest>> {
        let info = secret_info.as_key();
        match self
            .ghost
            .records
            .value::<OwnedTransactionId>(REQUEST_BY_INFO, &[info.as_bytes()])?
        {
            Some(id) => self.get_outgoing_secret_requests(&id).await,
            None => Ok(None),
        }
    }

    async fn get_unsent_secret_requests(&self) -> Result<Vec<GossipRequest>> {
        let requests: Vec<GossipRequest> = self.ghost.records.values_of(REQUEST, &[])?;
        Ok(requests
            .into_iter()
            .filter(|request| !request.sent_out)
            .collect())
    }

    async fn delete_outgoing_secret_requests(&self, request_id: &TransactionId) -> Result<()> {
        let keys = &self.ghost.records.keys;
        let Some(request) = self.get_outgoing_secret_requests(request_id).await? else {
            return Ok(());
        };
        let mut writes = Writes::default();
        writes.delete(keys.of(REQUEST, &[request_id.as_bytes()]));
        writes.delete(keys.of(REQUEST_BY_INFO, &[request.info.as_key().as_bytes()]));
        self.ghost.records.write(writes)
    }

    async fn get_secrets_from_inbox(
        &self,
        secret_name: &SecretName,
    ) -> Result<Vec<Zeroizing<String>>> {
        let secrets: Vec<String> = self
            .ghost
            .records
            .values_of(SECRET, &[secret_name.as_str().as_bytes()])?;
        Ok(secrets.into_iter().map(Zeroizing::new).collect())
    }

    async fn delete_secrets_from_inbox(&self, secret_name: &SecretName) -> Result<()> {
        let mut writes = Writes::default();
        let prefix = self
            .ghost
            .records
            .keys
            .of(SECRET, &[secret_name.as_str().as_bytes()]);
        for key in self.ghost.records.keys_of(&prefix)? {
            writes.delete(key);
        }
        self.ghost.records.write(writes)
    }

    async fn get_room_settings(&self, room_id: &RoomId) -> Result<Option<RoomSettings>> {
        self.ghost
            .records
            .value(ROOM_SETTINGS, &[room_id.as_bytes()])
    }

    async fn get_received_room_key_bundle_data(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
    ) -> Result<Option<StoredRoomKeyBundleData>> {
        let key = self
            .ghost
            .records
            .keys
            .of(BUNDLE, &[room_id.as_bytes(), user_id.as_bytes()]);
        self.ghost
            .records
            .read(BUNDLE, &key)?
            .map(|plain| decode_json(BUNDLE, &plain))
            .transpose()
    }

    async fn get_pending_key_bundle_details_for_room(
        &self,
        room_id: &RoomId,
    ) -> Result<Option<RoomPendingKeyBundleDetails>> {
        self.ghost
            .records
            .value(PENDING_BUNDLE, &[room_id.as_bytes()])
    }

    async fn get_all_rooms_pending_key_bundles(&self) -> Result<Vec<RoomPendingKeyBundleDetails>> {
        self.ghost.records.values_of(PENDING_BUNDLE, &[])
    }

    async fn has_downloaded_all_room_keys(&self, room_id: &RoomId) -> Result<bool> {
        self.ghost.records.has(
            &self
                .ghost
                .records
                .keys
                .of(DOWNLOADED, &[room_id.as_bytes()]),
        )
    }

    async fn get_custom_value(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let key = self.ghost.records.keys.of(CUSTOM, &[key.as_bytes()]);
        Ok(self
            .ghost
            .records
            .read(CUSTOM, &key)?
            .map(|plain| plain.to_vec()))
    }

    async fn set_custom_value(&self, key: &str, value: Vec<u8>) -> Result<()> {
        self.ghost.save_custom(key, value)
    }

    async fn remove_custom_value(&self, key: &str) -> Result<()> {
        self.ghost.records.delete(CUSTOM, &[key.as_bytes()])
    }

    /// Leases are for several processes; only one can have the store open, so memory is enough.
    async fn try_take_leased_lock(
        &self,
        lease_duration_ms: u32,
        key: &str,
        holder: &str,
    ) -> Result<Option<CrossProcessLockGeneration>> {
        let mut leases = self
            .ghost
            .leases
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(try_take_leased_lock(
            &mut leases,
            lease_duration_ms,
            key,
            holder,
        ))
    }

    async fn next_batch_token(&self) -> Result<Option<String>> {
        self.ghost.records.value(NEXT_BATCH, &[])
    }

    /// Does nothing: the database belongs to all ghosts.
    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn reopen(&self) -> Result<()> {
        Ok(())
    }

    /// Unknown, because the database belongs to all ghosts.
    async fn get_size(&self) -> Result<Option<usize>> {
        Ok(None)
    }
}
