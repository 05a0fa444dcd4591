//! Accounts for people, made with the registration secret: registration itself stays closed, as
//! it is on most servers.

use anyhow::{Context, Result, bail};
use hmac::{Hmac, Mac};
use ruma::OwnedUserId;
use serde_json::{Value, json};
use sha1::Sha1;

use super::Synapse;

/// Everybody's password.
pub const PASSWORD: &str = "a password for stories";
pub(super) const REGISTRATION_SECRET: &str = "the registration secret of the stories";

impl Synapse {
    /// Makes an account (password: [`PASSWORD`], unless it has none with MAS) and returns its user
    /// id.
    pub async fn register(&self, localpart: &str) -> Result<OwnedUserId> {
        match &self.parts.mas {
            Some(mas) => self.provision(mas, localpart).await?,
            None => self.register_as(localpart, false).await.map(drop)?,
        }
        self.user(localpart)
    }

    /// Makes an administrator and returns an access token of theirs, for Synapse's admin API.
    pub async fn register_admin(&self, localpart: &str) -> Result<String> {
        let said = self.register_as(localpart, true).await?;
        let token = said["access_token"]
            .as_str()
            .context("no access token in the answer")?;
        Ok(token.to_owned())
    }

    async fn register_as(&self, localpart: &str, admin: bool) -> Result<Value> {
        let url = self.url().join("_synapse/admin/v1/register")?;
        let said: Value = self
            .http
            .get(url.clone())
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let nonce = said["nonce"]
            .as_str()
            .context("no nonce in Synapse's answer")?;
        let mut mac = Hmac::<Sha1>::new_from_slice(REGISTRATION_SECRET.as_bytes())?;
        let role = if admin { "admin" } else { "notadmin" };
        mac.update([nonce, localpart, PASSWORD, role].join("\0").as_bytes());
        let answer = self
            .http
            .post(url)
            .json(&json!({
                "nonce": nonce,
                "username": localpart,
                "displayname": display_name(localpart),
                "password": PASSWORD,
                "admin": admin,
                "inhibit_login": !admin,
                "mac": hex::encode(mac.finalize().into_bytes()),
            }))
            .send()
            .await?;
        let status = answer.status();
        let said: Value = answer.json().await?;
        if !status.is_success() {
            bail!("Synapse does not register {localpart}: {status} {said}");
        }
        Ok(said)
    }
}

/// `alice` is shown as `Alice`.
pub fn display_name(localpart: &str) -> String {
    let mut letters = localpart.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}
