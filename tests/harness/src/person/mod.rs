//! Somebody with a Matrix client: matrix-sdk with an encrypted store on disk, cross-signing on,
//! syncing in the background, as Element does it.

mod act;
mod chat;
mod log;
mod sync;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use matrix_sdk::{
    Client,
    authentication::matrix::MatrixSession,
    config::RequestConfig,
    encryption::{BackupDownloadStrategy, EncryptionSettings},
    ruma::{OwnedUserId, UserId},
    store::RoomLoadSettings,
};
use matrix_sdk_crypto::{CollectStrategy, DecryptionSettings, TrustRequirement};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use url::Url;

use crate::{
    PATIENCE,
    process::temporary_folder,
    synapse::{PASSWORD, Synapse},
};

pub use act::ChatOptions;
pub use chat::Chat;
pub use log::{Invite, Log, Seen, Sign, Trust};
pub(crate) use sync::{read_invite, read_raw};

/// How somebody's client is set up.
#[derive(Clone, Debug)]
pub struct PersonOptions {
    /// Element's "exclude insecure devices" (MSC4153): share with and accept from devices that
    /// their owner has signed, only.
    pub exclude_insecure_devices: bool,
    /// Without it the person has one device that they have not signed.
    pub cross_signing: bool,
    /// Reach the homeserver through here instead (a [`crate::proxy::Proxy`]).
    pub through: Option<Url>,
}

impl Default for PersonOptions {
    fn default() -> Self {
        Self {
            exclude_insecure_devices: false,
            cross_signing: true,
            through: None,
        }
    }
}

/// A person, signed in and syncing. Dropping it ends the client and deletes its store.
pub struct Person {
    /// The client, for whatever this page has no word for.
    pub client: Client,
    /// Who they are.
    pub user_id: OwnedUserId,
    log: Arc<Log>,
    sync: JoinHandle<()>,
    _folder: TempDir,
}

impl Drop for Person {
    fn drop(&mut self) {
        self.sync.abort();
    }
}

impl Person {
    /// Makes an account on `synapse` and signs in to it.
    pub async fn register(synapse: &Synapse, localpart: &str) -> Result<Self> {
        Self::register_with(synapse, localpart, PersonOptions::default()).await
    }

    /// The same, with a client of another kind.
    pub async fn register_with(
        synapse: &Synapse,
        localpart: &str,
        options: PersonOptions,
    ) -> Result<Self> {
        let user_id = synapse.register(localpart).await?;
        let url = options.through.clone().unwrap_or_else(|| synapse.url());
        let session = synapse.delegated_session(&user_id).await?;
        Box::pin(Self::begin(&url, &user_id, session, &options)).await
    }

    /// Signs in to an account, by its password, with a new device.
    pub async fn sign_in(url: &Url, user_id: &UserId, options: &PersonOptions) -> Result<Self> {
        Self::begin(url, user_id, None, options).await
    }

    /// Begins a session, or takes up the one that somebody has signed in to elsewhere.
    async fn begin(
        url: &Url,
        user_id: &UserId,
        session: Option<MatrixSession>,
        options: &PersonOptions,
    ) -> Result<Self> {
        let folder = temporary_folder(user_id.localpart())?;
        let trust = if options.exclude_insecure_devices {
            TrustRequirement::CrossSigned
        } else {
            TrustRequirement::Untrusted
        };
        let strategy = if options.exclude_insecure_devices {
            CollectStrategy::IdentityBasedStrategy
        } else {
            CollectStrategy::AllDevices
        };
        let client = Client::builder()
            .homeserver_url(url)
            // The homeserver would send us past the proxy that a story put in between.
            .respect_login_well_known(false)
            .sqlite_store(folder.path(), None)
            .request_config(RequestConfig::new().max_retry_time(Duration::from_secs(60)))
            .with_encryption_settings(EncryptionSettings {
                auto_enable_cross_signing: options.cross_signing,
                backup_download_strategy: BackupDownloadStrategy::Manual,
                auto_enable_backups: false,
            })
            .with_room_key_recipient_strategy(strategy)
            .with_decryption_settings(DecryptionSettings {
                sender_device_trust_requirement: trust,
            })
            .build()
            .await
            .context("cannot build the client")?;
        let signs_in = client.matrix_auth();
        match session {
            Some(session) => {
                let rooms = RoomLoadSettings::default();
                signs_in.restore_session(session, rooms).await
            }
            None => {
                let login = signs_in.login_username(user_id, PASSWORD);
                login.initial_device_display_name("Stories").await.map(drop)
            }
        }
        .with_context(|| format!("{user_id} cannot sign in"))?;
        client
            .encryption()
            .wait_for_e2ee_initialization_tasks()
            .await;
        let log = Arc::new(Log::new(user_id.to_owned()));
        let sync = tokio::spawn(Box::pin(sync::run(client.clone(), log.clone())));
        let person = Self {
            client,
            user_id: user_id.to_owned(),
            log,
            sync,
            _folder: folder,
        };
        person
            .until("a first sync", |log| log.synced().then_some(()))
            .await?;
        Ok(person)
    }

    /// Everything that the client has shown so far.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Wakes whenever the client has shown something new.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.log.changes()
    }

    /// Waits until `find` finds what it looks for among what the client has shown.
    ///
    /// `what` is for the error message, which tells what was seen instead.
    pub async fn until<T>(&self, what: &str, find: impl FnMut(&Log) -> Option<T>) -> Result<T> {
        self.until_within(PATIENCE, what, find).await
    }

    /// The same with a patience of its own.
    pub async fn until_within<T>(
        &self,
        patience: Duration,
        what: &str,
        find: impl FnMut(&Log) -> Option<T>,
    ) -> Result<T> {
        self.log.until(patience, what, find).await
    }
}
