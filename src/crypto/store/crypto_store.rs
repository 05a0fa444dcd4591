//! `CryptoStore` for one ghost.

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
        PickledInboundGroupSession, PrivateCrossSigningIdentity, SenderDataType, Session,
        StaticAccountData,
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
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{
    GhostStore, GhostStoreError,
    changes::ByDevice,
    deferred_sessions,
    ghost::{Ghost, Writes},
    olm_hashes,
    record::{
        ACCOUNT, BACKED_UP, BACKUP_KEY, BACKUP_VERSION, BUNDLE, BY_DEVICE, CUSTOM, DEHYDRATED,
        DEVICE, DOWNLOADED, IDENTITY, INBOUND, Kind, NEXT_BATCH, OLM, OUTBOUND, PENDING_BUNDLE,
        PRIVATE_IDENTITY, REQUEST, REQUEST_BY_INFO, ROOM_SETTINGS, SECRET, TRACKED, WITHHELD,
        broken, decode, decode_json,
    },
};

type Result<T> = std::result::Result<T, GhostStoreError>;

impl Ghost {
    /// The value of a kind and parts.
    pub(super) fn value<T: DeserializeOwned>(
        &self,
        kind: Kind,
        parts: &[&[u8]],
    ) -> Result<Option<T>> {
        let plain = self.read(kind, &self.keys.of(kind, parts))?;
        plain.map(|plain| decode(kind, &plain)).transpose()
    }

    /// The values of a kind whose keys begin with parts.
    fn values_of<T: DeserializeOwned>(&self, kind: Kind, parts: &[&[u8]]) -> Result<Vec<T>> {
        let records = self.list(kind, &self.keys.of(kind, parts))?;
        records
            .iter()
            .map(|(_, plain)| decode(kind, plain))
            .collect()
    }

    fn delete(&self, kind: Kind, parts: &[&[u8]]) -> Result<()> {
        let mut writes = Writes::default();
        writes.delete(self.keys.of(kind, parts));
        self.write(writes)
    }

    pub(super) fn remember_account(&self, account: &Account) {
        let mut known = self.account.write().unwrap_or_else(PoisonError::into_inner);
        *known = Some(account.static_data().clone());
    }

    fn account(&self) -> Result<Option<Account>> {
        let Some(pickle) = self.value(ACCOUNT, &[])? else {
            return Ok(None);
        };
        let account = Account::from_pickle(pickle).map_err(|e| broken(ACCOUNT, &e))?;
        self.remember_account(&account);
        Ok(Some(account))
    }

    fn static_account(&self) -> Result<StaticAccountData> {
        if let Some(known) = &*self.account.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(known.clone());
        }
        let account = self.account()?.ok_or(GhostStoreError::NoAccount)?;
        Ok(account.static_data().clone())
    }

    fn group_session(plain: &[u8]) -> Result<InboundGroupSession> {
        let pickle: PickledInboundGroupSession = decode(INBOUND, plain)?;
        InboundGroupSession::from_pickle(pickle).map_err(|e| broken(INBOUND, &e))
    }

    fn group_sessions(&self, parts: &[&[u8]]) -> Result<Vec<InboundGroupSession>> {
        let records = self.list(INBOUND, &self.keys.of(INBOUND, parts))?;
        records
            .iter()
            .map(|(_, plain)| Self::group_session(plain))
            .collect()
    }

    fn is_backed_up(&self, session: &InboundGroupSession, version: &str) -> Result<bool> {
        let parts = [
            session.room_id().as_bytes(),
            session.session_id().as_bytes(),
        ];
        Ok(self
            .value::<String>(BACKED_UP, &parts)?
            .is_some_and(|known| known == version))
    }
}

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
        let Some(pickle) = self.ghost.value(PRIVATE_IDENTITY, &[])? else {
            return Ok(None);
        };
        PrivateCrossSigningIdentity::from_pickle(pickle)
            .map(Some)
            .map_err(|e| broken(PRIVATE_IDENTITY, &e))
    }

    async fn save_changes(&self, changes: Changes) -> Result<()> {
        // It would be a new one, in the place of the one that is published.
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
        let deferred = deferred_sessions::deferred_with(sender_key);
        let pickles = self.ghost.values_of(OLM, &[sender_key.as_bytes()])?;
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
        let key = self
            .ghost
            .keys
            .of(INBOUND, &[room_id.as_bytes(), session_id.as_bytes()]);
        let version = match self.ghost.inbound_sessions.get(&key) {
            Ok(session) => return Ok(Some(session)),
            Err(version) => version,
        };
        let Some(plain) = self.ghost.read(INBOUND, &key)? else {
            return Ok(None);
        };
        let session = Ghost::group_session(&plain)?;
        self.ghost.inbound_sessions.insert(version, key, &session);
        Ok(Some(session))
    }

    async fn get_withheld_info(
        &self,
        room_id: &RoomId,
        session_id: &str,
    ) -> Result<Option<RoomKeyWithheldEntry>> {
        let key = self
            .ghost
            .keys
            .of(WITHHELD, &[room_id.as_bytes(), session_id.as_bytes()]);
        self.ghost
            .read(WITHHELD, &key)?
            .map(|plain| decode_json(WITHHELD, &plain))
            .transpose()
    }

    async fn get_withheld_sessions_by_room_id(
        &self,
        room_id: &RoomId,
    ) -> Result<Vec<RoomKeyWithheldEntry>> {
        let prefix = self.ghost.keys.of(WITHHELD, &[room_id.as_bytes()]);
        let records = self.ghost.list(WITHHELD, &prefix)?;
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
        let total = self.ghost.keys_of(&self.ghost.keys.of(INBOUND, &[]))?.len();
        let versions: Vec<String> = self.ghost.values_of(BACKED_UP, &[])?;
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
        // In the order of the hashes, which is as good as any.
        let after = after_session_id.map(|id| {
            ghost
                .keys
                .of(BY_DEVICE, &[sender.as_bytes(), id.as_bytes()])
        });
        let mut sessions = Vec::new();
        for (key, plain) in
            ghost.list(BY_DEVICE, &ghost.keys.of(BY_DEVICE, &[sender.as_bytes()]))?
        {
            if sessions.len() >= limit {
                break;
            }
            let entry: ByDevice = decode(BY_DEVICE, &plain)?;
            if after.as_ref().is_some_and(|after| key <= *after)
                || entry.sender_data != sender_data_type
            {
                continue;
            }
            if let Some(plain) = ghost.read(INBOUND, &entry.session)? {
                sessions.push(Ghost::group_session(&plain)?);
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

    /// Nothing to do: each session knows which backup it is in.
    async fn reset_backup_state(&self) -> Result<()> {
        Ok(())
    }

    async fn load_backup_keys(&self) -> Result<BackupKeys> {
        Ok(BackupKeys {
            decryption_key: self.ghost.value(BACKUP_KEY, &[])?,
            backup_version: self.ghost.value(BACKUP_VERSION, &[])?,
        })
    }

    async fn load_dehydrated_device_pickle_key(&self) -> Result<Option<DehydratedDeviceKey>> {
        self.ghost.value(DEHYDRATED, &[])
    }

    async fn delete_dehydrated_device_pickle_key(&self) -> Result<()> {
        self.ghost.delete(DEHYDRATED, &[])
    }

    async fn get_outbound_group_session(
        &self,
        room_id: &RoomId,
    ) -> Result<Option<OutboundGroupSession>> {
        let ghost = &self.ghost;
        if let Some(session) = ghost.outbound_sessions.of(room_id) {
            return Ok(Some(session));
        }
        let key = ghost.keys.of(OUTBOUND, &[room_id.as_bytes()]);
        let Some(plain) = ghost.read(OUTBOUND, &key)? else {
            return Ok(None);
        };
        let (run, pickle) = plain
            .split_first_chunk()
            .ok_or_else(|| broken(OUTBOUND, &"it is too short"))?;
        if u64::from_be_bytes(*run) < ghost.store.run().sure_since {
            // The world may have seen later messages of it than this record knows: the next one
            // would reuse a message index, and with it key and nonce. A new session is made.
            ghost.delete(OUTBOUND, &[room_id.as_bytes()])?;
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
        self.ghost.values_of(TRACKED, &[])
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
            .value(DEVICE, &[user_id.as_bytes(), device_id.as_bytes()])
    }

    async fn get_user_devices(
        &self,
        user_id: &UserId,
    ) -> Result<HashMap<OwnedDeviceId, DeviceData>> {
        let devices: Vec<DeviceData> = self.ghost.values_of(DEVICE, &[user_id.as_bytes()])?;
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
        self.ghost.value(IDENTITY, &[user_id.as_bytes()])
    }

    async fn is_message_known(&self, message_hash: &OlmMessageHash) -> Result<bool> {
        olm_hashes::is_known(&self.ghost, message_hash)
    }

    async fn get_outgoing_secret_requests(
        &self,
        request_id: &TransactionId,
    ) -> Result<Option<GossipRequest>> {
        self.ghost.value(REQUEST, &[request_id.as_bytes()])
    }

    async fn get_secret_request_by_info(
        &self,
        secret_info: &SecretInfo,
    ) -> Result<Option<GossipRequest>> {
        let info = secret_info.as_key();
        match self
            .ghost
            .value::<OwnedTransactionId>(REQUEST_BY_INFO, &[info.as_bytes()])?
        {
            Some(id) => self.get_outgoing_secret_requests(&id).await,
            None => Ok(None),
        }
    }

    async fn get_unsent_secret_requests(&self) -> Result<Vec<GossipRequest>> {
        let requests: Vec<GossipRequest> = self.ghost.values_of(REQUEST, &[])?;
        Ok(requests
            .into_iter()
            .filter(|request| !request.sent_out)
            .collect())
    }

    async fn delete_outgoing_secret_requests(&self, request_id: &TransactionId) -> Result<()> {
        let keys = &self.ghost.keys;
        let Some(request) = self.get_outgoing_secret_requests(request_id).await? else {
            return Ok(());
        };
        let mut writes = Writes::default();
        writes.delete(keys.of(REQUEST, &[request_id.as_bytes()]));
        writes.delete(keys.of(REQUEST_BY_INFO, &[request.info.as_key().as_bytes()]));
        self.ghost.write(writes)
    }

    async fn get_secrets_from_inbox(
        &self,
        secret_name: &SecretName,
    ) -> Result<Vec<Zeroizing<String>>> {
        let secrets: Vec<String> = self
            .ghost
            .values_of(SECRET, &[secret_name.as_str().as_bytes()])?;
        Ok(secrets.into_iter().map(Zeroizing::new).collect())
    }

    async fn delete_secrets_from_inbox(&self, secret_name: &SecretName) -> Result<()> {
        let mut writes = Writes::default();
        let prefix = self
            .ghost
            .keys
            .of(SECRET, &[secret_name.as_str().as_bytes()]);
        for key in self.ghost.keys_of(&prefix)? {
            writes.delete(key);
        }
        self.ghost.write(writes)
    }

    async fn get_room_settings(&self, room_id: &RoomId) -> Result<Option<RoomSettings>> {
        self.ghost.value(ROOM_SETTINGS, &[room_id.as_bytes()])
    }

    async fn get_received_room_key_bundle_data(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
    ) -> Result<Option<StoredRoomKeyBundleData>> {
        let key = self
            .ghost
            .keys
            .of(BUNDLE, &[room_id.as_bytes(), user_id.as_bytes()]);
        self.ghost
            .read(BUNDLE, &key)?
            .map(|plain| decode_json(BUNDLE, &plain))
            .transpose()
    }

    async fn get_pending_key_bundle_details_for_room(
        &self,
        room_id: &RoomId,
    ) -> Result<Option<RoomPendingKeyBundleDetails>> {
        self.ghost.value(PENDING_BUNDLE, &[room_id.as_bytes()])
    }

    async fn get_all_rooms_pending_key_bundles(&self) -> Result<Vec<RoomPendingKeyBundleDetails>> {
        self.ghost.values_of(PENDING_BUNDLE, &[])
    }

    async fn has_downloaded_all_room_keys(&self, room_id: &RoomId) -> Result<bool> {
        self.ghost
            .has(&self.ghost.keys.of(DOWNLOADED, &[room_id.as_bytes()]))
    }

    async fn get_custom_value(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let key = self.ghost.keys.of(CUSTOM, &[key.as_bytes()]);
        Ok(self.ghost.read(CUSTOM, &key)?.map(|plain| plain.to_vec()))
    }

    async fn set_custom_value(&self, key: &str, value: Vec<u8>) -> Result<()> {
        self.ghost.save_custom(key, value)
    }

    async fn remove_custom_value(&self, key: &str) -> Result<()> {
        self.ghost.delete(CUSTOM, &[key.as_bytes()])
    }

    /// Leases are between processes; only one can have the store open, so memory will do.
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
        self.ghost.value(NEXT_BATCH, &[])
    }

    /// Nothing to do: the database belongs to all ghosts.
    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn reopen(&self) -> Result<()> {
        Ok(())
    }

    /// Unknown: the database belongs to all ghosts.
    async fn get_size(&self) -> Result<Option<usize>> {
        Ok(None)
    }
}
