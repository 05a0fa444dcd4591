//! The client of the admin socket of a running service.

use std::{io, path::Path};

use http::StatusCode;
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use url::Url;

use super::CliError;
use crate::{
    config::Setup,
    directory::{AuditPage, BanPage, HandlePage, PersonSummary},
    engine::{PersonExport, StampHistory, StorePart},
    matrix::install_crypto_provider,
    permissions::Grantee,
    server::{
        ActDone, ActRequest, AuditQuery, ErasureRequest, GranteeActRequest, HandleDetails,
        HandleQuery, LastBackup, LimitsUsed, MarkStatus, ModuleStatus, Reloaded, SOCKET, Status,
    },
};

/// A running service, reached over its admin socket.
#[derive(Clone, Debug)]
pub struct RunningService {
    http: reqwest::Client,
}

impl RunningService {
    /// Connects to the service of this setup, which has to be running.
    pub async fn of(setup: &Setup) -> Result<Self, CliError> {
        Self::find(&setup.data).await?.ok_or(CliError::NotRunning)
    }

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
            // There is no TLS on a socket, and a machine without certificate authorities will do.
            .tls_certs_only([])
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
        let filters = [
            ("owner", query.owner.as_ref().map(ToString::to_string)),
            ("server", query.server.clone()),
            ("state", query.state.map(|state| state.as_str().to_owned())),
            ("after", query.after.clone()),
        ];
        self.get_with("handles", &filters).await
    }

    /// Returns what is known of a handle, which may be typed with its `@`.
    pub async fn handle(&self, typed: &str) -> Result<HandleDetails, CliError> {
        self.answer_to(self.http.get(handle_url(typed)?)).await
    }

    /// Does something to a handle, which may be typed with its `@`.
    pub async fn act_on_handle(
        &self,
        typed: &str,
        request: &ActRequest,
    ) -> Result<ActDone, CliError> {
        let mut url = handle_url(typed)?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.push("acts");
        }
        self.answer_to(self.http.post(url).json(request)).await
    }

    /// Does something about a person or a server.
    pub async fn act_on_grantee(&self, request: &GranteeActRequest) -> Result<ActDone, CliError> {
        let acts = self.http.post("http://stonechat/v1/grantees/acts");
        self.answer_to(acts.json(request)).await
    }

    /// Returns what is known of a person.
    pub async fn person(&self, person: &UserId) -> Result<PersonSummary, CliError> {
        self.get_with("person", &[("person", Some(person.to_string()))])
            .await
    }

    /// Returns what is kept about a person.
    pub async fn export_person(&self, person: &UserId) -> Result<PersonExport, CliError> {
        let query = [("person", Some(person.to_string()))];
        self.get_with("person/export", &query).await
    }

    /// Erases a person.
    pub async fn erase_person(&self, request: &ErasureRequest) -> Result<ActDone, CliError> {
        let erasure = self.http.post("http://stonechat/v1/person/erase");
        self.answer_to(erasure.json(request)).await
    }

    /// Returns what somebody has used of the limits.
    pub async fn limits(&self, grantee: &Grantee) -> Result<LimitsUsed, CliError> {
        self.get_with("limits", &[("grantee", Some(grantee.to_string()))])
            .await
    }

    /// Returns a page of the bans.
    pub async fn bans(&self, after: Option<&str>) -> Result<BanPage, CliError> {
        let after = after.map(ToOwned::to_owned);
        self.get_with("bans", &[("after", after)]).await
    }

    /// Returns a page of the audit log.
    pub async fn audit_log(&self, query: AuditQuery) -> Result<AuditPage, CliError> {
        let AuditQuery { after, number } = query;
        self.get(&format!("audit?after={}&number={number}", after.0))
            .await
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

    /// Returns the module's reports once it has been called more than `after` times for rooms of the
    /// checks, or after some seconds.
    pub async fn module_status(&self, after: u64) -> Result<ModuleStatus, CliError> {
        self.get(&format!("reports/{after}")).await
    }

    /// Asks with those parameters that have a value.
    async fn get_with<T: DeserializeOwned>(
        &self,
        what: &str,
        parameters: &[(&str, Option<String>)],
    ) -> Result<T, CliError> {
        let mut url = url_of(what)?;
        for (name, value) in parameters {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        self.answer_to(self.http.get(url)).await
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
        let status = answer.status();
        if !status.is_success() {
            let words = answer.text().await.unwrap_or_default();
            return Err(match status {
                StatusCode::NOT_FOUND if words.is_empty() => CliError::Check(
                    "the running Stonechat is older than this command; start it again".to_owned(),
                ),
                StatusCode::NOT_FOUND => CliError::NotFound(words),
                StatusCode::BAD_REQUEST => CliError::Usage(words),
                _ => CliError::Check(words),
            });
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

fn url_of(what: &str) -> Result<Url, CliError> {
    Url::parse(&format!("http://stonechat/v1/{what}")).map_err(|error| connection_lost(&error))
}

/// Returns the address of a handle, which may be typed with its `@`.
fn handle_url(typed: &str) -> Result<Url, CliError> {
    let name = typed.strip_prefix('@').unwrap_or(typed);
    if name.is_empty() {
        return Err(CliError::Usage("say which handle you mean".to_owned()));
    }
    let mut url = url_of("handles")?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.push(name);
    }
    Ok(url)
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
