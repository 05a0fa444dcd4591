//! The module in the homeserver: its token and its part of the homeserver's configuration.

use std::path::{Path, PathBuf};

use rand::{CryptoRng, RngCore};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    Config, ConfigError, Registration,
    files::{self, PrivateFile},
    registration::random_hex,
    secrets,
};

/// The name of the file with [`snippet`].
const SNIPPET: &str = "homeserver-module.yaml";

/// The file with the module's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleToken(PathBuf);

impl ModuleToken {
    /// Returns the file that a configuration names.
    pub fn of(config_path: &Path, config: &Config) -> Self {
        Self(files::absolute_beside(
            config_path,
            &config.module.token_file,
        ))
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns whether it exists, which means that there is a module.
    pub fn is_there(&self) -> bool {
        self.0.symlink_metadata().is_ok()
    }

    /// Prepares the file with a new token of 256 bits. See [`PrivateFile::prepare`] for `replace`.
    pub fn prepare<R: RngCore + CryptoRng>(
        &self,
        rng: &mut R,
        replace: bool,
    ) -> Result<PrivateFile, ConfigError> {
        let token = random_hex(rng, "mod_");
        let line = Zeroizing::new(format!("{}\n", token.expose_secret()));
        PrivateFile::prepare(&self.0, &line, replace)
    }

    /// Returns the path of the file beside it that holds the [`snippet`].
    pub fn snippet_path(&self) -> PathBuf {
        self.0.with_file_name(SNIPPET)
    }

    /// Prepares the file with the [`snippet`].
    pub fn prepare_snippet(&self, config: &Config) -> Result<PrivateFile, ConfigError> {
        PrivateFile::prepare(&self.snippet_path(), &snippet(config, self), true)
    }

    /// Reads the token if the file exists. Only its owner and its group may have access.
    pub(super) fn read(
        &self,
        registration: &Registration,
    ) -> Result<Option<SecretString>, ConfigError> {
        if !self.is_there() {
            return Ok(None);
        }
        let again = "make a new one with `stonechat registration --with-module --new-tokens` and \
                     restart the homeserver";
        let text = Zeroizing::new(files::read_private(&self.0, files::OTHERS, again)?);
        let token = SecretString::from(text.trim());
        let refuse = |problem: String| ConfigError::Value {
            path: self.0.clone(),
            key: "token".to_owned(),
            problem,
            remedy: again.to_owned(),
        };
        secrets::check_token(&token).map_err(refuse)?;
        // A holder of one token must not have the others.
        for other in [&registration.as_token, &registration.hs_token] {
            if other.expose_secret() == token.expose_secret() {
                return Err(refuse("is a token of the registration".to_owned()));
            }
        }
        Ok(Some(token))
    }
}

/// Returns the lines that turn the module on in the homeserver's configuration.
pub fn snippet(config: &Config, token: &ModuleToken) -> String {
    let path = std::path::absolute(token.path()).unwrap_or_else(|_| token.path().to_owned());
    let quoted = |text: &str| Value::from(text).to_string();
    format!(
        "\
modules:
  - module: synapse_stonechat.StonechatModule
    config: {{ url: {}, token_file: {} }}
",
        quoted(config.appservice.url.as_str().trim_end_matches('/')),
        quoted(&path.to_string_lossy()),
    )
}
