//! Secrets, which are not in the configuration file, and the environment variables that can replace
//! their files.

use secrecy::{ExposeSecret, SecretString};

use super::ConfigError;

/// Replaces `as_token` of the registration.
pub const AS_TOKEN: &str = "STONECHAT_AS_TOKEN";
/// Replaces `hs_token` of the registration.
pub const HS_TOKEN: &str = "STONECHAT_HS_TOKEN";
/// Replaces the file named by `module.token_file`.
pub const MODULE_TOKEN: &str = "STONECHAT_MODULE_TOKEN";
/// Replaces the file named by `store.key_file`, with the same content.
pub const STORE_KEY: &str = "STONECHAT_STORE_KEY";

/// A lookup of environment variables: those of the process, or a closure in tests.
pub type Environment<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// Looks up an environment variable of this process.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns a token from the environment, if it is set.
pub(super) fn token(
    environment: Environment<'_>,
    name: &'static str,
) -> Result<Option<SecretString>, ConfigError> {
    match environment(name).map(SecretString::from) {
        None => Ok(None),
        Some(token) => check_token(&token)
            .map(|()| Some(token))
            .map_err(|problem| ConfigError::Environment { name, problem }),
    }
}

/// Checks that a token can be sent in a header and cannot be guessed.
pub(super) fn check_token(token: &SecretString) -> Result<(), String> {
    let token = token.expose_secret();
    if token.len() < 32 {
        return Err("is shorter than 32 characters".to_owned());
    }
    if token.len() > 255 || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("must be at most 255 visible ASCII characters".to_owned());
    }
    Ok(())
}
