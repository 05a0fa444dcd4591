//! What the homeserver says about itself.

use std::fmt;

use http::Method;
use secrecy::SecretString;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Actor, Homeserver, MatrixError, homeserver::parse_json};

/// The software that a homeserver runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ServerVersion {
    /// The name of the software, like `Synapse`.
    pub name: String,
    /// Its version, like `1.163.2`.
    pub version: String,
}

/// Where and how calls are relayed (`GET /_matrix/client/v3/voip/turnServer`). All of it is empty if the
/// homeserver knows of no TURN server.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct TurnCredentials {
    /// The user name.
    pub username: String,
    /// The password, which holds for about a day.
    pub password: SecretString,
    /// The addresses of the TURN servers.
    pub uris: Vec<String>,
}

impl fmt::Debug for TurnCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnCredentials")
            .field("uris", &self.uris)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct FederationVersion {
    server: ServerVersion,
}

#[derive(Deserialize)]
struct AdminVersion {
    server_version: String,
}

#[derive(Deserialize)]
struct RtcTransports {
    #[serde(default)]
    rtc_transports: Vec<Value>,
}

#[derive(Deserialize)]
struct WellKnown {
    #[serde(default, rename = "org.matrix.msc4143.rtc_foci")]
    rtc_foci: Vec<Value>,
}

impl Homeserver {
    async fn get_json<T: DeserializeOwned>(
        &self,
        who: Actor<'_>,
        path: &[&str],
    ) -> Result<Option<T>, MatrixError> {
        let request = self.request(Method::GET, who, path, &[])?;
        match self.execute(request).await {
            Ok(body) => parse_json(&body).map(Some),
            // A proxy may refuse what it does not pass on.
            Err(error) if error.is_missing() || matches!(error.status(), Some(403..=405)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the software that the homeserver runs; `None` if it does not say. Synapse says it to
    /// everybody on its admin API, and to other servers (`GET /_matrix/federation/v1/version`).
    pub async fn server_version(
        &self,
        who: Actor<'_>,
    ) -> Result<Option<ServerVersion>, MatrixError> {
        let path = ["_synapse", "admin", "v1", "server_version"];
        if let Some(AdminVersion { server_version }) = self.get_json(who, &path).await? {
            return Ok(Some(ServerVersion {
                name: "Synapse".to_owned(),
                version: server_version,
            }));
        }
        let path = ["_matrix", "federation", "v1", "version"];
        let found: Option<FederationVersion> = self.get_json(who, &path).await?;
        Ok(found.map(|found| found.server))
    }

    /// Returns where and how a user's calls are relayed.
    pub async fn turn_credentials(&self, who: Actor<'_>) -> Result<TurnCredentials, MatrixError> {
        let path = ["_matrix", "client", "v3", "voip", "turnServer"];
        Ok(self.get_json(who, &path).await?.unwrap_or_default())
    }

    /// Returns whether clients are told where calls of MatrixRTC (MSC4143) can meet: by the homeserver
    /// itself, or in `/.well-known/matrix/client` at its address.
    pub async fn names_rtc_transports(&self, who: Actor<'_>) -> Result<bool, MatrixError> {
        let msc = "org.matrix.msc4143";
        let path = ["_matrix", "client", "unstable", msc, "rtc", "transports"];
        let found: Option<RtcTransports> = self.get_json(who, &path).await?;
        if found.is_some_and(|found| !found.rtc_transports.is_empty()) {
            return Ok(true);
        }
        let path = [".well-known", "matrix", "client"];
        // Whatever answers there may not be a homeserver.
        let found: Option<WellKnown> = self.get_json(who, &path).await.unwrap_or(None);
        Ok(found.is_some_and(|found| !found.rtc_foci.is_empty()))
    }
}
