//! `stonechat init`

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::Args;
use ruma::OwnedServerName;
use url::Url;

use super::CliError;
use crate::{
    config::{
        Config, ConfigError, ModuleToken, PrivateFile, Registration, Tokens, relative_to,
        sample_file, snippet, with_remedy,
    },
    store::StoreKey,
};

/// The arguments of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Where the homeserver is reached, for example http://127.0.0.1:8008.
    #[arg(long, value_name = "URL", value_parser = parse_argument::<Url>)]
    homeserver: Url,
    /// The homeserver's name: the part of its users' ids after the colon.
    #[arg(long, value_name = "NAME", value_parser = parse_argument::<OwnedServerName>)]
    server_name: OwnedServerName,
    /// The address to listen on; 127.0.0.1:29331 if none is given.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_argument::<SocketAddr>)]
    listen: Option<SocketAddr>,
    /// The URL of that address as the homeserver sees it, if it differs.
    #[arg(long, value_name = "URL", value_parser = parse_argument::<Url>)]
    url: Option<Url>,
    /// Where to write the registration.
    #[arg(long, value_name = "FILE", default_value = "registration.yaml")]
    registration: PathBuf,
    /// The folder of the database.
    #[arg(long, value_name = "FOLDER", default_value = "data")]
    data: PathBuf,
    /// Also make a token for Stonechat's module in Synapse, and print how to enable the module.
    #[arg(long)]
    with_module: bool,
    /// Replace an existing configuration and registration. The key of a database is never replaced.
    #[arg(long)]
    force: bool,
}

/// Parses an argument, or says what to write instead.
fn parse_argument<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    T::from_str(text).map_err(|error| with_remedy(&error.to_string()))
}

impl Init {
    /// Writes the files and prints the next steps.
    pub fn run(self, config_path: &Path) -> Result<(), CliError> {
        let config = self.config(config_path)?;
        let text = sample_file(&config)?;
        // A configuration that `run` would refuse is not written.
        Config::parse(config_path, &text)?;
        if !self.force {
            self.refuse_existing(config_path)?;
        }
        let module = ModuleToken::of(config_path, &config);
        let new_module = self.with_module && !module.is_there();
        let registration = Registration::of(&config, Tokens::generate(&mut super::rng()));
        // Every file is checked before the first one changes.
        let mut files = vec![
            PrivateFile::prepare(config_path, &text, self.force)?,
            registration.prepare(&self.registration, self.force)?,
        ];
        if new_module {
            files.push(module.prepare(&mut super::rng(), false)?);
        }
        if self.with_module {
            files.push(module.prepare_snippet(&config)?);
        }
        let key_file = crate::config::absolute_beside(config_path, &config.store.key_file);
        let new_key = key_file.symlink_metadata().is_err();
        if new_key {
            StoreKey::create_file(&key_file)?;
        }
        for file in files {
            file.commit()?;
        }

        let mut written: Vec<(&Path, &str)> = vec![
            (config_path, "the configuration, with every option"),
            (&self.registration, "the registration, for the homeserver"),
        ];
        if new_key {
            written.push((
                &key_file,
                "the key of the database; keep a copy in another place",
            ));
        }
        if new_module {
            written.push((module.path(), "the token of the module, for the homeserver"));
        }
        print_written(&written);
        if !new_key {
            let key_file = key_file.display();
            println!("The key of the database, {key_file}, existed and was kept.");
        }
        println!();
        println!("{}", homeserver_yaml(&self.registration));
        if self.with_module {
            println!("{}", module_yaml(&config, &module));
        }
        println!("Then restart the homeserver and start Stonechat:");
        println!("  stonechat{} run", config_option(config_path));
        println!("and check that all is well:");
        println!("  stonechat{} doctor", config_option(config_path));
        Ok(())
    }

    /// Refuses to replace a configuration or a registration.
    fn refuse_existing(&self, config_path: &Path) -> Result<(), ConfigError> {
        for path in [config_path, &self.registration] {
            if path.symlink_metadata().is_ok() {
                return Err(ConfigError::Exists {
                    path: path.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn config(&self, path: &Path) -> Result<Config, CliError> {
        let mut config = Config::default();
        config.homeserver.url = self.homeserver.clone();
        config.homeserver.server_name = self.server_name.clone();
        if let Some(listen) = self.listen {
            config.appservice.listen = listen;
        }
        config.appservice.url = match &self.url {
            Some(url) => url.clone(),
            None => local_url(config.appservice.listen)?,
        };
        config.registration = relative_to(path, &self.registration);
        config.data = relative_to(path, &self.data);
        Ok(config)
    }
}

/// Prints the files that were written, and what each of them is.
fn print_written(written: &[(&Path, &str)]) {
    let paths = written.iter().map(|(path, _)| path.display().to_string());
    let width = paths.map(|path| path.chars().count()).max();
    println!("Written, readable only by you:");
    for (path, what) in written {
        let path = path.display().to_string();
        println!("  {path:width$}   {what}", width = width.unwrap_or(0));
    }
}

/// Returns the URL of an address we listen on, for a homeserver on the same machine.
fn local_url(listen: SocketAddr) -> Result<Url, CliError> {
    let mut seen = listen;
    if listen.ip().is_unspecified() {
        seen.set_ip(match listen {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Url::parse(&format!("http://{seen}"))
        .map_err(|error| CliError::Usage(format!("--listen {listen} makes no URL: {error}")))
}

/// Returns the option that names a configuration in another place.
fn config_option(config_path: &Path) -> String {
    if config_path == Path::new("config/stonechat.yaml") {
        String::new()
    } else {
        format!(" --config {}", config_path.display())
    }
}

/// Returns what to add to the homeserver's configuration.
pub(super) fn homeserver_yaml(registration: &Path) -> String {
    let path = std::path::absolute(registration).unwrap_or_else(|_| registration.to_owned());
    let path = path.display();
    format!(
        "\
Add to the homeserver's homeserver.yaml (if a key exists already, add what is below it):

app_service_config_files:
  - {quoted}
experimental_features:
  msc2409_to_device_messages_enabled: true
  msc3202_transaction_extensions: true
# Recommended: encrypt rooms with invited people from their first moment.
encryption_enabled_by_default_for_room_type: invite

The homeserver must be able to read the registration. If it runs as another user, allow its group:
  chgrp matrix-synapse {path} && chmod 640 {path}
",
        quoted = serde_json::Value::from(path.to_string()),
    )
}

/// Returns how to install and enable the module.
pub(super) fn module_yaml(config: &Config, token: &ModuleToken) -> String {
    let path = std::path::absolute(token.path()).unwrap_or_else(|_| token.path().to_owned());
    let path = path.display();
    format!(
        "\
With the module in Synapse, no ghost enters the rooms that are created for open handles. Install it
from the folder synapse-module of Stonechat's source into a folder of its own:
  /opt/venvs/matrix-synapse/bin/pip install --no-deps --upgrade \\
      --target /usr/local/lib/stonechat-synapse ./synapse-module

let Synapse find it there (systemctl edit matrix-synapse):
  [Service]
  Environment=PYTHONPATH=/usr/local/lib/stonechat-synapse

and add this to homeserver.yaml (to a list `modules` that exists already, add the entry). It is also
in {file}:

{snippet}
Synapse must be able to read the token too:
  chgrp matrix-synapse {path} && chmod 640 {path}
",
        file = token.snippet_path().display(),
        snippet = snippet(config, token),
    )
}
