//! The configuration and the registration, read and checked together.

use std::path::{Path, PathBuf};

use ruma::{OwnedUserId, ServerName, UserId};
use secrecy::SecretString;

use super::{
    BOT_LOCALPART, Config, ConfigError, Registration,
    config_check::check_config,
    files,
    module::ModuleToken,
    options_in_file::renamed_in,
    registration_check::check_registration,
    secrets::{self, Environment},
    yaml,
};
use crate::permissions::Permissions;

impl Config {
    /// Reads a configuration file and checks its values.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(path, &read_config_text(path)?)
    }

    /// Reads the text of a configuration file and checks its values. `path` is for the errors.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = yaml::parse_yaml(path, text)
            .map_err(|error| renamed_in(path, text).unwrap_or(error))?;
        check_config(path, &config)?;
        Ok(config)
    }
}

/// Reads the text of a configuration file.
pub fn read_config_text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|reason| ConfigError::Read {
        path: path.to_owned(),
        reason,
        remedy: "make one with `stonechat init`, or name it with --config".to_owned(),
    })
}

/// Everything that `run` and `doctor` need before they touch the network or the database.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The configuration as written.
    pub config: Config,
    /// The registration, with the tokens of the environment if they are set.
    pub registration: Registration,
    /// The path of the configuration.
    pub config_path: PathBuf,
    /// The path of the registration.
    pub registration_path: PathBuf,
    /// The folder of the database, resolved.
    pub data: PathBuf,
    /// The file with the key of the store, resolved.
    pub key_file: PathBuf,
    /// The token of the module in the homeserver, if there is a module.
    pub module_token: Option<SecretString>,
}

impl Setup {
    /// Reads and checks the configuration and the registration.
    pub fn load(path: &Path, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let config = Config::load(path)?;
        let registration_path = files::absolute_beside(path, &config.registration);
        let mut registration = Registration::read(&registration_path)?;
        if let Some(token) = secrets::token(environment, secrets::AS_TOKEN)? {
            registration.as_token = token;
        }
        if let Some(token) = secrets::token(environment, secrets::HS_TOKEN)? {
            registration.hs_token = token;
        }
        check_registration(&registration_path, &registration, path, &config)?;
        let module_token = match secrets::token(environment, secrets::MODULE_TOKEN)? {
            Some(token) => Some(token),
            None => ModuleToken::of(path, &config).read(&registration)?,
        };
        Ok(Self {
            data: files::absolute_beside(path, &config.data),
            key_file: files::absolute_beside(path, &config.store.key_file),
            module_token,
            config,
            registration,
            config_path: path.to_owned(),
            registration_path,
        })
    }

    /// Returns what people may do.
    pub fn permissions(&self) -> Permissions {
        self.permissions_on(&self.config.homeserver.server_name)
    }

    /// Returns what people may do on a server of this name.
    pub fn permissions_on(&self, server: &ServerName) -> Permissions {
        let written = self.config.permissions.iter();
        // Each key was checked when the file was read.
        let known = written.filter_map(|(key, may)| Some((key.parse().ok()?, *may)));
        Permissions::new(server, known)
    }

    /// Returns the bot's Matrix ID.
    pub fn bot(&self) -> Result<OwnedUserId, ConfigError> {
        let server = &self.config.homeserver.server_name;
        UserId::parse(format!("@{BOT_LOCALPART}:{server}")).map_err(|error| ConfigError::Value {
            path: self.config_path.clone(),
            key: "homeserver.server_name".to_owned(),
            problem: format!("makes no user id: {error}"),
            remedy: "write the name as in the homeserver's own configuration".to_owned(),
        })
    }
}
