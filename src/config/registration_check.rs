//! Checks of the registration: does it fit the configuration, and is it what Stonechat needs?

use std::path::Path;

use secrecy::ExposeSecret;
use url::Url;

use super::{
    Config, ConfigError, PROTOCOL, Registration, SENDER_LOCALPART, registration::user_pattern,
    sample::SAMPLE_TOKEN_MARK, secrets::check_token,
};
use crate::handle::GHOST_PREFIX;

/// What to do about weak tokens.
const NEW_TOKENS: &str = "run `stonechat registration --new-tokens`";

/// Checks that a registration fits the configuration and that its tokens are strong.
pub(super) fn check_registration(
    path: &Path,
    registration: &Registration,
    config_path: &Path,
    config: &Config,
) -> Result<(), ConfigError> {
    let check = RegistrationCheck {
        path,
        registration,
        config_path,
        config,
    };
    check.appservice()?;
    check.options()?;
    check.namespaces()?;
    check.tokens()
}

struct RegistrationCheck<'a> {
    path: &'a Path,
    registration: &'a Registration,
    config_path: &'a Path,
    config: &'a Config,
}

impl RegistrationCheck<'_> {
    fn refuse(
        &self,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Result<(), ConfigError> {
        Err(ConfigError::value(self.path, key, problem, remedy))
    }

    /// Refuses a value that does not fit: the registration or the configuration has to change.
    fn refuse_mismatch(&self, key: &str, problem: impl Into<String>) -> Result<(), ConfigError> {
        let remedy = format!(
            "run `stonechat registration` and restart the homeserver, or correct {}",
            self.config_path.display()
        );
        self.refuse(key, problem, remedy)
    }

    fn appservice(&self) -> Result<(), ConfigError> {
        let (id, url) = (&self.registration.id, self.registration.url.as_ref());
        let appservice = &self.config.appservice;
        if *id != appservice.id {
            self.refuse_mismatch(
                "id",
                format!("is \"{id}\" but appservice.id is \"{}\"", appservice.id),
            )?;
        }
        if url != Some(&appservice.url) {
            let url = url.map_or("null", Url::as_str);
            self.refuse_mismatch(
                "url",
                format!("is {url} but appservice.url is {}", appservice.url),
            )?;
        }
        Ok(())
    }

    fn options(&self) -> Result<(), ConfigError> {
        let registration = self.registration;
        if registration.sender_localpart != SENDER_LOCALPART {
            self.refuse_mismatch("sender_localpart", format!("must be {SENDER_LOCALPART}"))?;
        }
        for (key, value, want) in [
            ("rate_limited", registration.rate_limited, false),
            ("receive_ephemeral", registration.receive_ephemeral, true),
            ("org.matrix.msc3202", registration.msc3202, true),
            ("io.element.msc4190", registration.msc4190, true),
        ] {
            if value != want {
                self.refuse_mismatch(key, format!("must be {want}"))?;
            }
        }
        if !registration.protocols.iter().any(|name| name == PROTOCOL) {
            self.refuse_mismatch("protocols", format!("must contain {PROTOCOL}"))?;
        }
        Ok(())
    }

    /// Checks that the namespace is exactly our own pattern. Whether it is exclusive is the admin's
    /// choice: servers where people have to consent to terms need it to be, and in return their
    /// user directory lists no ghost.
    fn namespaces(&self) -> Result<(), ConfigError> {
        let server = &self.config.homeserver.server_name;
        let want = user_pattern(server);
        let namespaces = &self.registration.namespaces;
        for (key, list) in [
            ("namespaces.aliases", &namespaces.aliases),
            ("namespaces.rooms", &namespaces.rooms),
        ] {
            if !list.is_empty() {
                self.refuse_mismatch(key, "must be empty: Stonechat has none of its own")?;
            }
        }
        let key = "namespaces.users";
        match namespaces.users.as_slice() {
            [] => self.refuse_mismatch(key, "is empty"),
            [only] if only.regex == want => Ok(()),
            [only] if !only.regex.starts_with(&format!("@{GHOST_PREFIX}")) => self.refuse_mismatch(
                key,
                format!(
                    "\"{}\" is wider than the names that are Stonechat's ({want})",
                    only.regex
                ),
            ),
            [only] => self.refuse_mismatch(
                key,
                format!(
                    "\"{}\" is not {want}, as homeserver.server_name {server} asks for",
                    only.regex
                ),
            ),
            _ => self.refuse_mismatch(
                key,
                format!("holds more than the names that are Stonechat's ({want})"),
            ),
        }
    }

    fn tokens(&self) -> Result<(), ConfigError> {
        let (as_token, hs_token) = (&self.registration.as_token, &self.registration.hs_token);
        for (key, token) in [("as_token", as_token), ("hs_token", hs_token)] {
            if token.expose_secret().contains(SAMPLE_TOKEN_MARK) {
                self.refuse(key, "is the sample that everybody knows", NEW_TOKENS)?;
            }
            if let Err(problem) = check_token(token) {
                self.refuse(key, problem, NEW_TOKENS)?;
            }
        }
        if as_token.expose_secret() == hs_token.expose_secret() {
            self.refuse("hs_token", "is the same as as_token", NEW_TOKENS)?;
        }
        Ok(())
    }
}
