//! Our users: registering them, their profiles, what they keep on the homeserver, and pings, which
//! prove that the token works.

use std::time::Duration;

use ruma::{
    OwnedDeviceId, OwnedTransactionId, OwnedUserId, UserId,
    api::client::{
        account::{get_username_availability, register, whoami},
        appservice::request_ping,
        config::{get_global_account_data, set_global_account_data},
        profile::{get_profile, set_profile_field},
    },
    events::GlobalAccountDataEventType,
    profile::ProfileFieldValue,
    serde::Raw,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::timeout;

use super::{Actor, Fate, Homeserver, MatrixError, homeserver::PROBE_TIMEOUT};

/// The type under which the homeserver writes something when it is tried out.
const PROBE_TYPE: &str = "chat.stonechat.probe";

impl Homeserver {
    /// Registers a user in our namespace. Returns `false` if the name is taken, by us or by
    /// somebody else: only our store can tell.
    ///
    /// The answer contains no access token and no device: ghosts act with the service's token.
    pub async fn register(&self, localpart: &str) -> Result<bool, MatrixError> {
        let mut request = register::v3::Request::new();
        request.username = Some(localpart.to_owned());
        request.login_type = Some(register::LoginType::ApplicationService);
        request.inhibit_login = true;
        match self.send_as_service(request).await {
            Ok(_) => Ok(true),
            Err(error) if error.has_errcode("M_USER_IN_USE") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns whether anybody could register this name. Asked without a token; a refusal
    /// (`M_USER_IN_USE`, `M_EXCLUSIVE`, `M_INVALID_USERNAME`) is `false`.
    pub async fn username_available(&self, localpart: &str) -> Result<bool, MatrixError> {
        let request = get_username_availability::v3::Request::new(localpart.to_owned());
        match self.send_unauthenticated(request).await {
            Ok(answer) => Ok(answer.available),
            Err(error) if error.is_refusal() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the user and the device that the homeserver sees in our requests. A refusal is
    /// returned as it came.
    pub async fn whoami(
        &self,
        who: Actor<'_>,
    ) -> Result<(OwnedUserId, Option<OwnedDeviceId>), MatrixError> {
        let answer = self.send_once(who, whoami::v3::Request::new()).await?;
        Ok((answer.user_id, answer.device_id))
    }

    /// Returns whether the homeserver fails at requests that concern nobody else and need its
    /// database: to say who makes them, and to write something. Its disk may be full, or its database
    /// open for reading only.
    pub async fn is_down(&self, who: Actor<'_>) -> bool {
        match timeout(PROBE_TIMEOUT, self.whoami(who)).await {
            Err(_elapsed) => return true,
            Ok(Ok(_) | Err(MatrixError::RateLimited { .. })) => {}
            Ok(Err(error)) if error.fate() == Fate::Final => {}
            Ok(Err(_)) => return true,
        }
        let nothing = json!({});
        let writing = self.set_account_data(who, PROBE_TYPE, &nothing);
        match timeout(PROBE_TIMEOUT, writing).await {
            Err(_elapsed) => true,
            Ok(Err(MatrixError::RateLimited { .. })) => false,
            // A proxy may know nothing of this request, and the user may be missing: the homeserver
            // is there.
            Ok(answer) => answer.is_err_and(|error| {
                error.missing_user().is_none() && matches!(error.fate(), Fate::Failing | Fate::Away)
            }),
        }
    }

    /// Returns a profile; `None` if the user does not exist.
    pub async fn profile(
        &self,
        who: Actor<'_>,
        user: &UserId,
    ) -> Result<Option<get_profile::v3::Response>, MatrixError> {
        match self
            .send(who, get_profile::v3::Request::new(user.to_owned()))
            .await
        {
            Ok(profile) => Ok(Some(profile)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the display name of a user; `None` if the user does not exist or has none.
    pub async fn display_name(
        &self,
        who: Actor<'_>,
        user: &UserId,
    ) -> Result<Option<String>, MatrixError> {
        let profile = self.profile(who, user).await?;
        let name =
            profile.and_then(|profile| profile.get("displayname")?.as_str().map(str::to_owned));
        Ok(name)
    }

    /// Sets the display name of one of our users, unless it is set already: every change is an
    /// event in each of the user's rooms.
    pub async fn set_display_name(&self, who: Actor<'_>, name: &str) -> Result<(), MatrixError> {
        if self.display_name(who, who.user).await?.as_deref() == Some(name) {
            return Ok(());
        }
        self.write_display_name(who, name).await
    }

    /// Sets the display name of one of our users without reading the current one.
    pub async fn write_display_name(&self, who: Actor<'_>, name: &str) -> Result<(), MatrixError> {
        let value = ProfileFieldValue::DisplayName(name.to_owned());
        let request = set_profile_field::v3::Request::new(who.user.to_owned(), value);
        self.send(who, request).await.map(drop)
    }

    /// Returns what one of our users keeps on the homeserver under a type; `None` if there is nothing,
    /// or something else than `T`.
    pub async fn account_data<T: DeserializeOwned>(
        &self,
        who: Actor<'_>,
        kind: &str,
    ) -> Result<Option<T>, MatrixError> {
        let kind = GlobalAccountDataEventType::from(kind);
        let request = get_global_account_data::v3::Request::new(who.user.to_owned(), kind);
        match self.send(who, request).await {
            Ok(answer) => Ok(answer.account_data.deserialize_as_unchecked().ok()),
            Err(error) if error.has_errcode("M_NOT_FOUND") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps something for one of our users on the homeserver, in the place of what was kept under
    /// the same type.
    pub async fn set_account_data(
        &self,
        who: Actor<'_>,
        kind: &str,
        data: &impl Serialize,
    ) -> Result<(), MatrixError> {
        let kind = GlobalAccountDataEventType::from(kind);
        let data = Raw::new(data).map_err(|error| MatrixError::Request(error.to_string()))?;
        let user = who.user.to_owned();
        let request =
            set_global_account_data::v3::Request::new_raw(user, kind, data.cast_unchecked());
        self.send(who, request).await.map(drop)
    }

    /// Asks the homeserver to ping us, which proves that its URL and token for us are right.
    ///
    /// Returns how long the ping took as the homeserver saw it.
    pub async fn ping(
        &self,
        appservice_id: &str,
        transaction: OwnedTransactionId,
    ) -> Result<Duration, MatrixError> {
        let mut request = request_ping::v1::Request::new(appservice_id.to_owned());
        request.transaction_id = Some(transaction);
        self.send_as_service(request)
            .await
            .map(|answer| answer.duration)
    }
}
