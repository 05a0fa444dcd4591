//! matrix-sdk-crypto's own suite for stores, each test as another ghost of one database.
#![allow(
    clippy::disallowed_methods,
    reason = "a part of the suite waits in real time"
)]

use std::sync::PoisonError;

use matrix_sdk_crypto::olm::StaticAccountData;
use ruma::UserId;

use super::super::{GhostStore, GhostStores};
use crate::store::{Store, StoreKey, StoreOptions};

impl GhostStore {
    /// The suite asks for it.
    fn get_static_account(&self) -> Option<StaticAccountData> {
        self.ghost
            .account
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn ghost(all: &GhostStores, name: &str, clear: bool) -> GhostStore {
    let user = UserId::parse(format!("@_dm_{name}:example.org")).unwrap();
    if clear && let Some(old) = all.existing(&user).unwrap() {
        old.wipe().await.unwrap();
    }
    all.ghost(&user).unwrap()
}

const PREFIX: &str = "stonechat-suite-";

/// Remove what earlier runs left.
fn sweep() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if pid.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

mod on_sled {
    use std::sync::LazyLock;

    use matrix_sdk_crypto::{cryptostore_integration_tests, cryptostore_integration_tests_time};

    use super::*;

    static ALL: LazyLock<(tempfile::TempDir, GhostStores)> = LazyLock::new(|| {
        sweep();
        // A static is never dropped, so the folder outlives the run; the next one sweeps it up.
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        let key = StoreKey::random().unwrap();
        let store = Store::open(folder.path(), &key, &StoreOptions::default()).unwrap();
        (folder, GhostStores::open(&store).unwrap())
    });

    async fn get_store(name: &str, _passphrase: Option<&str>, clear: bool) -> GhostStore {
        ghost(&ALL.1, name, clear).await
    }

    cryptostore_integration_tests!();
    cryptostore_integration_tests_time!();
}

mod in_memory {
    use std::sync::LazyLock;

    use matrix_sdk_crypto::{cryptostore_integration_tests, cryptostore_integration_tests_time};

    use super::*;

    static ALL: LazyLock<GhostStores> =
        LazyLock::new(|| GhostStores::open(&Store::in_memory()).unwrap());

    async fn get_store(name: &str, _passphrase: Option<&str>, clear: bool) -> GhostStore {
        ghost(&ALL, name, clear).await
    }

    cryptostore_integration_tests!();
    cryptostore_integration_tests_time!();
}
