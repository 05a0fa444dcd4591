//! The client of the admin socket of a running service.

use std::{io, path::Path};

use ruma::{OwnedDeviceId, OwnedUserId};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use url::Url;

use super::CliError;
use crate::{
    directory::HandlePage,
    engine::{StampHistory, StorePart},
    matrix::install_crypto_provider,
    server::{
        HandleDetails, HandleQuery, LastBackup, MarkStatus, ModuleStatus, Reloaded, SOCKET, Status,
    },
};

/// A running service, reached over its admin socket.
#[derive(Clone, Debug)]
pub struct RunningService {
    http: reqwest::Client,
}

impl RunningService {
    /// Connects to the service that has this data folder open. Returns `None` if none is running.
    pub async fn find(data: &Path) -> Result<Option<Self>, CliError> {
        let path = data.join(SOCKET);
        match UnixStream::connect(&path).await {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(CliError::Check(format!(
                    "cannot ask {}: {error}; run this as the user that runs Stonechat",
                    path.display()
                )));
            }
        }
        install_crypto_provider();
        let http = reqwest::Client::builder()
            .unix_socket(path)
            .build()
            .map_err(|error| connection_lost(&error))?;
        Ok(Some(Self { http }))
    }

    /// Returns the state of the service.
    pub async fn status(&self) -> Result<Status, CliError> {
        self.get("status").await
    }

    /// Returns a page of the handles.
    pub async fn handles(&self, query: &HandleQuery) -> Result<HandlePage, CliError> {
        let mut url = handles_url()?;
        let filters = [
            ("owner", query.owner.as_ref().map(ToString::to_string)),
            ("server", query.server.clone()),
            ("state", query.state.map(|state| state.as_str().to_owned())),
            ("after", query.after.clone()),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        self.answer_to(self.http.get(url)).await
    }

    /// Returns what is known of a handle, which may be typed with its `@`.
    pub async fn handle(&self, typed: &str) -> Result<HandleDetails, CliError> {
        let name = typed.strip_prefix('@').unwrap_or(typed);
        let mut url = handles_url()?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(name);
        }
        self.answer_to(self.http.get(url)).await
    }

    /// Lets the service read its configuration again.
    pub async fn reload(&self) -> Result<Reloaded, CliError> {
        self.answer_to(self.http.post("http://stonechat/v1/reload"))
            .await
    }

    /// Returns what the store consists of. The service reads every record for it.
    pub async fn store_parts(&self) -> Result<Vec<StorePart>, CliError> {
        self.get("sizes").await
    }

    /// Returns users of the service and their devices.
    pub async fn devices(&self) -> Result<Vec<(OwnedUserId, OwnedDeviceId)>, CliError> {
        self.get("devices").await
    }

    /// Returns the ghosts that are still to be made or removed.
    pub async fn owed_ghosts(&self) -> Result<Vec<OwnedUserId>, CliError> {
        self.get("owed").await
    }

    /// Returns what the service's store knows about its stamps.
    pub async fn stamp_history(&self) -> Result<StampHistory, CliError> {
        self.get("stamps").await
    }

    /// Returns whether the homeserver pushed a mark. The answer may take some seconds.
    pub async fn mark_status(&self, mark: &str) -> Result<MarkStatus, CliError> {
        self.get(&format!("pushed/{mark}")).await
    }

    /// Returns the module's reports once there are more than `after` of them, or after some
    /// seconds.
    pub async fn module_status(&self, after: u64) -> Result<ModuleStatus, CliError> {
        self.get(&format!("reports/{after}")).await
    }

    async fn get<T: DeserializeOwned>(&self, what: &str) -> Result<T, CliError> {
        self.answer_to(self.http.get(format!("http://stonechat/v1/{what}")))
            .await
    }

    async fn answer_to<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, CliError> {
        let answer = request
            .send()
            .await
            .map_err(|error| connection_lost(&error))?;
        if !answer.status().is_success() {
            let words = answer.text().await.unwrap_or_default();
            return Err(CliError::Check(words));
        }
        answer.json().await.map_err(|error| connection_lost(&error))
    }

    /// Requests a backup and hands each chunk of it to `write`.
    pub async fn backup(
        &self,
        mut write: impl FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let asked = self.http.post("http://stonechat/v1/backup").send();
        let mut answer = asked.await.map_err(|error| connection_lost(&error))?;
        if !answer.status().is_success() {
            let words = answer.text().await.unwrap_or_default();
            return Err(CliError::Check(words));
        }
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => write(&chunk)?,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.explain_break(&error).await),
            }
        }
    }

    async fn explain_break(&self, error: &reqwest::Error) -> CliError {
        let asked = self.http.get("http://stonechat/v1/backup").send().await;
        let last: Option<LastBackup> = match asked {
            Ok(answer) => answer.json().await.ok(),
            Err(_) => None,
        };
        match last.and_then(|last| last.failed) {
            Some(words) => CliError::Check(words),
            None => connection_lost(error),
        }
    }
}

fn handles_url() -> Result<Url, CliError> {
    Url::parse("http://stonechat/v1/handles").map_err(|error| connection_lost(&error))
}

fn connection_lost(error: &dyn std::error::Error) -> CliError {
    let mut words = error.to_string();
    let mut deeper = error.source();
    while let Some(reason) = deeper {
        words = format!("{words}: {reason}");
        deeper = reason.source();
    }
    CliError::Check(format!(
        "the running Stonechat closed the connection ({words}); look at its log and try again"
    ))
}
