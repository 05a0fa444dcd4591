//! People on the homeserver who live in this process.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Instant};

use anyhow::{Result, bail};
use axum::http;
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::{
        IncomingResponse as _, OutgoingRequest, SupportedVersions,
        auth_scheme::{AuthScheme, SendAccessToken},
        path_builder::VersionHistory,
    },
};
use tokio::sync::Notify;

use crate::{
    Fake, Shared, http as wire,
    model::{Answer, Ask, Server},
};

/// A client of a user, on a device of theirs. Nothing goes wrong with its requests.
pub struct Client {
    home: Arc<Shared>,
    user: OwnedUserId,
    device: OwnedDeviceId,
    versions: SupportedVersions,
}

impl Fake {
    /// Returns a client of a user and a device that exist.
    pub fn client(&self, user: OwnedUserId, device: OwnedDeviceId) -> Client {
        Client {
            home: self.shared.clone(),
            user,
            device,
            versions: SupportedVersions::from_parts(&["v1.11".to_owned()], &BTreeMap::new()),
        }
    }
}

impl Client {
    /// Looks at, or changes, what the homeserver knows.
    pub fn with<T>(&self, act: impl FnOnce(&mut Server) -> T) -> T {
        self.home.with(act)
    }

    /// Returns what rings when a sync may bring something.
    pub fn bell(&self) -> Arc<Notify> {
        let bell = self.with(|server| {
            let account = server.accounts.get(self.user.as_str());
            account.map(|account| account.bell.clone())
        });
        bell.unwrap_or_default()
    }

    /// Makes any request of the client-server API.
    pub async fn request<R>(&self, request: R) -> Result<R::IncomingResponse>
    where
        R: OutgoingRequest<PathBuilder = VersionHistory>,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
    {
        let token = SendAccessToken::Always("of a person");
        let request: http::Request<Vec<u8>> =
            request.try_into_http_request("http://fake", token, Cow::Borrowed(&self.versions))?;
        let (parts, body) = request.into_parts();
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let answer = self.ask(parts.method.as_str(), path, query, body).await;
        let mut response = http::Response::new(answer.body);
        *response.status_mut() = http::StatusCode::from_u16(answer.status)?;
        let name = std::any::type_name::<R>();
        match R::IncomingResponse::try_from_http_response(response) {
            Ok(response) => Ok(response),
            Err(error) => bail!("{} was refused a {name}: {error}", self.user),
        }
    }

    /// Makes a request; waits as long as the homeserver is away.
    pub async fn ask(&self, method: &str, path: &str, query: &str, body: Vec<u8>) -> Answer {
        self.home.until_back().await;
        let ask = Ask {
            user: self.user.to_string(),
            device: Some(self.device.to_string()),
            by_service: false,
            method: method.to_owned(),
            parts: wire::split(path),
            path: path.to_owned(),
            query: wire::query(query),
            content_type: None,
            body,
            arrived: Instant::now(),
        };
        self.home.ask(&ask).await
    }
}

impl Shared {
    /// Waits until the homeserver is there.
    async fn until_back(&self) {
        loop {
            let back = self.back.notified();
            if !self.is_away() {
                return;
            }
            back.await;
        }
    }
}
