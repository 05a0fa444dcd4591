//! The test suite of matrix-sdk-crypto, and what it does not test.

mod backups;
mod crash;
mod forgetting;
mod records;
mod room_keys;
mod suite;

use std::path::{Path, PathBuf};

use matrix_sdk_crypto::{
    Account, DeviceData,
    olm::{InboundGroupSession, OutboundGroupSession, PickledSession, Session},
    store::{
        CryptoStore,
        types::{Changes, DeviceChanges, PendingChanges},
    },
    types::DeviceKeys,
    vodozemac::{
        Curve25519PublicKey,
        olm::{Account as VodozemacAccount, SessionConfig},
    },
};
use ruma::{RoomId, SecondsSinceUnixEpoch, UserId, device_id, room_id, user_id};

use super::{GhostStore, GhostStores};
use crate::store::{Store, StoreKey, StoreOptions};

fn sam() -> &'static UserId {
    user_id!("@_dm_sam:example.org")
}

fn kim() -> &'static UserId {
    user_id!("@_dm_kim:example.org")
}

fn room() -> &'static RoomId {
    room_id!("!introduction:example.org")
}

/// A folder in which stores are opened, closed and copied.
struct House {
    folder: tempfile::TempDir,
    key: StoreKey,
}

impl House {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            key: StoreKey::random().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn open(&self) -> (Store, GhostStores) {
        self.open_at(&self.path())
    }

    fn open_at(&self, path: &Path) -> (Store, GhostStores) {
        let store = Store::open(
            path,
            &self.key,
            &StoreOptions {
                cache_bytes: 1 << 20,
            },
        )
        .unwrap();
        let all = GhostStores::open(&store).unwrap();
        (store, all)
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn bytes_of(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(bytes_of(&path));
        } else {
            all.extend(std::fs::read(&path).unwrap());
        }
    }
    all
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// An account with its device, saved.
async fn settle(ghost: &GhostStore, user: &UserId) -> Account {
    let account = Account::with_device_id(user, device_id!("DOORBELL"));
    let pending = PendingChanges {
        account: Some(account.deep_clone()),
    };
    ghost.save_pending_changes(pending).await.unwrap();
    let new = vec![DeviceData::from_account(&account)];
    let devices = DeviceChanges {
        new,
        ..Default::default()
    };
    ghost
        .save_changes(Changes {
            devices,
            ..Default::default()
        })
        .await
        .unwrap();
    account
}

/// A session that another device began, and its last use in seconds since 1970.
fn olm_session(own: &DeviceKeys, sender: Curve25519PublicKey, used: u32) -> Session {
    let theirs = VodozemacAccount::new().curve25519_key();
    let pickle = VodozemacAccount::new()
        .create_outbound_session(SessionConfig::version_1(), theirs, theirs)
        .unwrap()
        .pickle();
    let pickle = PickledSession {
        pickle,
        sender_key: sender,
        created_using_fallback_key: true,
        creation_time: SecondsSinceUnixEpoch(1_u32.into()),
        last_use_time: SecondsSinceUnixEpoch(used.into()),
    };
    Session::from_pickle(own.clone(), pickle).unwrap()
}

/// A pair of group sessions for a room, saved.
async fn converse(
    ghost: &GhostStore,
    account: &Account,
    room: &RoomId,
) -> (OutboundGroupSession, InboundGroupSession) {
    let (outbound, inbound) = account.create_group_session_pair_with_defaults(room).await;
    let changes = Changes {
        outbound_group_sessions: vec![outbound.clone()],
        inbound_group_sessions: vec![inbound.clone()],
        ..Default::default()
    };
    ghost.save_changes(changes).await.unwrap();
    (outbound, inbound)
}
