//! `stonechat init`

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::Args;
use ruma::OwnedServerName;
use url::Url;

use super::{CliError, places};
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
    /// Where to write the registration. If nothing is given: registration.yaml, in /etc/stonechat
    /// if the configuration is there, otherwise in the current folder.
    #[arg(long, value_name = "FILE")]
    registration: Option<PathBuf>,
    /// The folder of the database. If none is given: /var/lib/stonechat/data if the configuration
    /// is in /etc/stonechat, otherwise `data` in the current folder.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
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
        let registration_file = self.registration_file(config_path);
        let config = self.config(config_path)?;
        let text = sample_file(&config)?;
        // A configuration that `run` would refuse is not written.
        Config::parse(config_path, &text)?;
        if !self.force {
            refuse_existing(&[config_path, &registration_file])?;
        }
        let module = ModuleToken::of(config_path, &config);
        let new_module = self.with_module && !module.is_there();
        let registration = Registration::of(&config, Tokens::generate(&mut super::rng()));
        // Every file is checked before the first one changes.
        let mut files = vec![
            PrivateFile::prepare(config_path, &text, self.force)?,
            registration.prepare(&registration_file, self.force)?,
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
            (&registration_file, "the registration, for the homeserver"),
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
        println!("{}", homeserver_yaml(&registration_file));
        if self.with_module {
            println!("{}", module_yaml(&config, &module));
        }
        println!("{}", starting(config_path));
        Ok(())
    }

    fn registration_file(&self, config_path: &Path) -> PathBuf {
        let given = self.registration.clone();
        given.unwrap_or_else(|| places::registration(config_path))
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
        config.registration = relative_to(path, &self.registration_file(path));
        let data = self.data.clone().unwrap_or_else(|| places::data(path));
        config.data = relative_to(path, &data);
        Ok(config)
    }
}

/// Refuses to replace a configuration or a registration.
fn refuse_existing(paths: &[&Path]) -> Result<(), ConfigError> {
    match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(ConfigError::Exists {
            path: (*path).to_owned(),
        }),
        None => Ok(()),
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

/// Returns how to start Stonechat and to check that all is well.
fn starting(config_path: &Path) -> String {
    if places::is_system(config_path) {
        return "\
Then restart the homeserver, start Stonechat, and check that all is well:
  systemctl restart matrix-synapse
  systemctl restart stonechat
  sudo -u stonechat stonechat doctor"
            .to_owned();
    }
    let config = if config_path == places::config() {
        String::new()
    } else {
        format!(" --config {}", config_path.display())
    };
    format!(
        "\
Then restart the homeserver and start Stonechat:
  stonechat{config} run
and check that all is well:
  stonechat{config} doctor"
    )
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
With the module in Synapse, no ghost enters the rooms that are created for open handles. {finding}
and add this to homeserver.yaml (to a list `modules` that exists already, add the entry). It is also
in {file}:

{snippet}
Synapse must be able to read the token too:
  chgrp matrix-synapse {path} && chmod 640 {path}
",
        finding = finding_the_module(places::packaged_module()),
        file = token.snippet_path().display(),
        snippet = snippet(config, token),
    )
}

/// Returns how Synapse finds the module, which the Debian package has in a folder.
fn finding_the_module(packaged: Option<&Path>) -> String {
    match packaged {
        Some(folder) => format!(
            "\
Let
Synapse find it (systemctl edit matrix-synapse):
  [Service]
  Environment=PYTHONPATH={}
",
            folder.display()
        ),
        None => "\
Install it
from the folder synapse-module of Stonechat's source into a folder of its own:
  /opt/venvs/matrix-synapse/bin/pip install --no-deps --upgrade \\
      --target /usr/local/lib/stonechat-synapse ./synapse-module

let Synapse find it there (systemctl edit matrix-synapse):
  [Service]
  Environment=PYTHONPATH=/usr/local/lib/stonechat-synapse
"
        .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn the_configuration_of_the_system_names_the_folder_of_its_database() {
        let line = "stonechat init --homeserver http://127.0.0.1:8008 --server-name example.org";
        let given = "--registration /srv/sc/reg.yaml --data /srv/sc/db";
        for (config_path, more, registration, data) in [
            (
                "/etc/stonechat/stonechat.yaml",
                "",
                "registration.yaml",
                "/var/lib/stonechat/data",
            ),
            (
                "/etc/stonechat/stonechat.yaml",
                given,
                "/srv/sc/reg.yaml",
                "/srv/sc/db",
            ),
            (
                "/srv/sc/config/stonechat.yaml",
                given,
                "../reg.yaml",
                "../db",
            ),
        ] {
            let words = format!("{line} {more}");
            let init = match Cli::try_parse_from(words.split_whitespace())
                .unwrap()
                .command
            {
                Command::Init(init) => init,
                other => unreachable!("{other:?}"),
            };
            let config = init.config(Path::new(config_path)).unwrap();
            assert_eq!(
                config.registration,
                Path::new(registration),
                "{config_path}"
            );
            assert_eq!(config.data, Path::new(data), "{config_path}");
        }
    }

    #[test]
    fn the_next_step_is_the_service_of_the_system_or_a_command() {
        let system = starting(Path::new("/etc/stonechat/stonechat.yaml"));
        assert!(system.contains("systemctl restart stonechat"), "{system}");
        let other = starting(Path::new("/srv/sc/stonechat.yaml"));
        assert!(
            other.contains("stonechat --config /srv/sc/stonechat.yaml run\n"),
            "{other}"
        );
    }

    #[test]
    fn a_module_that_the_package_has_need_not_be_installed() {
        let packaged = finding_the_module(Some(Path::new("/usr/share/x")));
        assert!(packaged.contains("PYTHONPATH=/usr/share/x\n"), "{packaged}");
        assert!(!packaged.contains("pip install"), "{packaged}");
        let source = finding_the_module(None);
        assert!(source.contains("pip install"), "{source}");
    }
}
