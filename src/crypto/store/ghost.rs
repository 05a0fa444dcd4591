//! One ghost in memory: its records, locks and caches.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use matrix_sdk_common::cross_process_lock::memory_store_helper::Lease;
use matrix_sdk_crypto::{
    Account,
    olm::{InboundGroupSession, PickledInboundGroupSession, StaticAccountData},
    types::events::room::encrypted::RoomEncryptedEventContent,
};
use ruma::{RoomId, events::AnyMessageLikeEventContent, serde::Raw};

use super::{
    GhostStoreError,
    olm_hashes::OlmHashes,
    outbound_sessions::ActiveOutboundSessions,
    record::{
        ACCOUNT, BACKED_UP, BUNDLE, BY_DEVICE, DONE, DOWNLOADED, INBOUND, OUTBOUND, PARKED,
        PENDING_BUNDLE, RIVAL, ROOM_SETTINGS, WITHHELD, broken, decode, part_at,
    },
    room_key_filter::RoomKeyFilter,
    sealed_records::{SealedRecords, Writes},
};

/// The one object of a ghost, shared by all handles of its store.
pub(super) struct StoredGhost {
    pub(super) user: String,
    pub(super) records: SealedRecords,
    /// Held during a key rotation.
    pub(super) rotating: Arc<tokio::sync::Mutex<()>>,
    /// Held while something is pickled and written: otherwise an older pickle could be written
    /// last.
    pub(super) saving: Arc<tokio::sync::Mutex<()>>,
    pub(super) account: RwLock<Option<StaticAccountData>>,
    pub(super) leases: Mutex<HashMap<String, Lease>>,
    pub(super) olm_hashes: Mutex<Option<OlmHashes>>,
    /// The filter of room keys. Without a filter all keys are kept.
    pub(super) room_key_filter: RwLock<Option<RoomKeyFilter>>,
    pub(super) outbound_sessions: ActiveOutboundSessions,
}

impl std::fmt::Debug for StoredGhost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredGhost")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl StoredGhost {
    pub(super) fn new(user: String, records: SealedRecords) -> Self {
        Self {
            user,
            records,
            rotating: Arc::default(),
            saving: Arc::default(),
            account: RwLock::default(),
            leases: Mutex::default(),
            olm_hashes: Mutex::default(),
            room_key_filter: RwLock::default(),
            outbound_sessions: ActiveOutboundSessions::default(),
        }
    }

    /// Encrypts with the active session of a room. `None` if there is none.
    pub(super) async fn encrypt_with_active(
        &self,
        room: &RoomId,
        event_type: &str,
        content: &Raw<AnyMessageLikeEventContent>,
    ) -> Option<Raw<RoomEncryptedEventContent>> {
        // The session must not be written to disk between this check and the message.
        let _one_at_a_time = self.saving.lock().await;
        let session = self.outbound_sessions.of(room)?;
        Some(session.encrypt(event_type, content).await.content)
    }

    /// Writes the active sessions to disk, and makes them inactive.
    pub(super) async fn persist_outbound_sessions(&self) -> Result<(), GhostStoreError> {
        // A save in progress invalidates a session before it is written here, or after.
        let _one_at_a_time = self.saving.lock().await;
        self.outbound_sessions.persist(&self.records).await
    }

    /// Drops all keys and sessions from memory.
    pub(super) fn drop_all_keys(&self) {
        self.records.drop_all_keys();
        *self.account.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.outbound_sessions.forget_all();
    }

    pub(super) fn remember_account(&self, account: &Account) {
        let mut known = self.account.write().unwrap_or_else(PoisonError::into_inner);
        *known = Some(account.static_data().clone());
    }

    pub(super) fn account(&self) -> Result<Option<Account>, GhostStoreError> {
        let Some(pickle) = self.records.value(ACCOUNT, &[])? else {
            return Ok(None);
        };
        let account = Account::from_pickle(pickle).map_err(|e| broken(ACCOUNT, &e))?;
        self.remember_account(&account);
        Ok(Some(account))
    }

    pub(super) fn static_account(&self) -> Result<StaticAccountData, GhostStoreError> {
        if let Some(known) = &*self.account.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(known.clone());
        }
        let account = self.account()?.ok_or(GhostStoreError::NoAccount)?;
        Ok(account.static_data().clone())
    }

    pub(super) fn group_session(plain: &[u8]) -> Result<InboundGroupSession, GhostStoreError> {
        let pickle: PickledInboundGroupSession = decode(INBOUND, plain)?;
        InboundGroupSession::from_pickle(pickle).map_err(|e| broken(INBOUND, &e))
    }

    pub(super) fn group_sessions(
        &self,
        parts: &[&[u8]],
    ) -> Result<Vec<InboundGroupSession>, GhostStoreError> {
        let records = self
            .records
            .list(INBOUND, &self.records.keys.of(INBOUND, parts))?;
        records
            .iter()
            .map(|(_, plain)| Self::group_session(plain))
            .collect()
    }

    pub(super) fn is_backed_up(
        &self,
        session: &InboundGroupSession,
        version: &str,
    ) -> Result<bool, GhostStoreError> {
        let parts = [
            session.room_id().as_bytes(),
            session.session_id().as_bytes(),
        ];
        Ok(self
            .records
            .value::<String>(BACKED_UP, &parts)?
            .is_some_and(|known| known == version))
    }

    pub(super) fn delete_room(&self, room: &RoomId) -> Result<(), GhostStoreError> {
        self.outbound_sessions.forget(room);
        let room = room.as_bytes();
        let mut writes = Writes::default();
        let mut sessions = Vec::new();
        for kind in [INBOUND, RIVAL] {
            sessions.extend(
                self.records
                    .list(kind, &self.records.keys.of(kind, &[room]))?,
            );
        }
        for (key, plain) in sessions {
            let pickle: PickledInboundGroupSession = decode(INBOUND, &plain)?;
            // A session has the same part in both keys.
            let mut index = self
                .records
                .keys
                .of(BY_DEVICE, &[pickle.sender_key.to_base64().as_bytes()]);
            index.extend_from_slice(part_at(&key, 1));
            writes.delete(index);
            writes.delete(key);
        }
        for kind in [
            BACKED_UP,
            OUTBOUND,
            WITHHELD,
            ROOM_SETTINGS,
            BUNDLE,
            PENDING_BUNDLE,
            DOWNLOADED,
            PARKED,
            DONE,
        ] {
            for key in self.records.keys_of(&self.records.keys.of(kind, &[room]))? {
                writes.delete(key);
            }
        }
        self.records.write(writes)
    }
}
