//! One real Synapse: its own folder, its own loopback port, SQLite, nothing sent anywhere.

mod config;
pub mod federation;
mod register;

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::process::Command;
use url::Url;

use crate::{
    PATIENCE,
    process::{Process, free_port, temporary_folder},
    venv::Venv,
};

pub use register::PASSWORD;

/// What Synapse says once it takes requests.
const LISTENING: &str = "Synapse now listening on TCP port";

/// How a homeserver is set up.
#[derive(Clone, Debug)]
pub struct SynapseOptions {
    /// Its name. One that federates is called `localhost:PORT` instead.
    pub server_name: String,
    /// Keep Synapse's default rate limits for people; raised far above any story otherwise.
    pub default_rate_limits: bool,
    /// `default_room_version`; Synapse's own default (12) if `None`.
    pub room_version: Option<String>,
    /// `encryption_enabled_by_default_for_room_type: invite`.
    pub encrypts_private_rooms: bool,
    /// Whether anybody may register; otherwise only through [`Synapse::register`].
    pub open_registration: bool,
    /// The flags that an application service needs to hear to-device messages.
    pub application_service_flags: bool,
    /// Further keys of `homeserver.yaml`, which win over ours.
    pub further: Map<String, Value>,
    /// Where Python finds further packages: Stonechat's module, for example.
    pub python_path: Option<PathBuf>,
    /// Federate: on this TLS port, with this certificate.
    pub federation: Option<federation::Member>,
}

impl Default for SynapseOptions {
    fn default() -> Self {
        Self {
            server_name: "stone.test".into(),
            default_rate_limits: false,
            room_version: None,
            encrypts_private_rooms: false,
            open_registration: false,
            application_service_flags: true,
            further: Map::new(),
            python_path: None,
            federation: None,
        }
    }
}

/// A homeserver, running or stopped. Dropping it ends it and removes its folder.
pub struct Synapse {
    options: SynapseOptions,
    venv: Venv,
    // Declared before the folder: the process has to be gone when that is removed.
    process: Option<Process>,
    folder: TempDir,
    port: u16,
    registrations: Vec<PathBuf>,
    http: reqwest::Client,
}

impl Synapse {
    /// Prepares a homeserver without starting it, so that an application service can be set up
    /// against its address first.
    pub fn prepare(venv: &Venv, options: SynapseOptions) -> Result<Self> {
        Ok(Self {
            options,
            venv: venv.clone(),
            process: None,
            folder: temporary_folder("synapse")?,
            port: free_port()?,
            registrations: Vec::new(),
            http: reqwest::Client::new(),
        })
    }

    /// Prepares and starts a homeserver without application services.
    pub async fn start_new(options: SynapseOptions) -> Result<Self> {
        let venv = Venv::ready(|_| {})?;
        let mut synapse = Self::prepare(&venv, options)?;
        synapse.start().await?;
        Ok(synapse)
    }

    /// Installs an application service; takes effect with the next start.
    pub fn install(&mut self, registration: &Path) {
        self.registrations.push(registration.to_owned());
    }

    /// Its options, to be changed between a stop and a start.
    pub fn options_mut(&mut self) -> &mut SynapseOptions {
        &mut self.options
    }

    /// Starts it, on the data it has, and waits until it takes requests.
    pub async fn start(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("Synapse runs already");
        }
        // Somebody else may take our port between our look and Synapse's: then take another, if
        // nobody knows the first one yet.
        let first_start = !self.database().exists();
        for attempt in 0.. {
            let config = config::write(self)?;
            let mut command = Command::new(self.venv.python());
            command
                .arg(self.folder.path().join("launch.py"))
                .arg("--config-path")
                .arg(&config)
                .current_dir(self.folder.path())
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .envs(
                    self.options
                        .python_path
                        .iter()
                        .map(|path| ("PYTHONPATH", path)),
                );
            let process = Process::start("Synapse", command, &self.log())?;
            let listeners = 1 + usize::from(self.options.federation.is_some());
            match self.listening(&process, listeners).await {
                Ok(()) => {
                    self.process = Some(process);
                    return Ok(());
                }
                Err(error) => {
                    let taken = process.last_lines().contains("Address already in use");
                    if !taken || attempt >= 3 {
                        return Err(error).context("Synapse does not start");
                    }
                    if first_start && self.registrations.is_empty() {
                        self.port = free_port()?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn listening(&self, process: &Process, listeners: usize) -> Result<()> {
        // Twice the patience: a first start makes the database as well.
        process
            .line_with(&format!("{LISTENING} {}", self.port), PATIENCE * 2)
            .await?;
        if listeners > 1
            && let Some(member) = &self.options.federation
        {
            process
                .line_with(&format!("TCP port {} (TLS)", member.port), PATIENCE)
                .await?;
        }
        Ok(())
    }

    /// Stops it in order (SIGTERM).
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        let process = self.process.take().context("Synapse is not running")?;
        process.stop(Duration::from_secs(20)).await
    }

    /// Ends it at once (SIGKILL).
    pub async fn kill(&mut self) -> Result<()> {
        let process = self.process.take().context("Synapse is not running")?;
        process.kill().await
    }

    /// Stops it in order and starts it again on the same data.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// The part of a user id after the colon.
    pub fn server_name(&self) -> &str {
        match &self.options.federation {
            Some(member) => &member.server_name,
            None => &self.options.server_name,
        }
    }

    /// A full user id on this server.
    pub fn user(&self, localpart: &str) -> Result<ruma::OwnedUserId> {
        Ok(ruma::UserId::parse(format!(
            "@{localpart}:{}",
            self.server_name()
        ))?)
    }

    /// Where clients and application services reach it.
    pub fn url(&self) -> Url {
        let mut url = Url::parse("http://127.0.0.1/").unwrap_or_else(|_| unreachable!("constant"));
        let _ = url.set_port(Some(self.port));
        url
    }

    /// Its folder: database, media, log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its SQLite database (beside it the `-wal` file with what is not yet folded in).
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("homeserver.db")
    }

    /// Asks its database, also while it runs: the rows, each a list of values.
    pub async fn query(&self, sql: &str) -> Result<Vec<Vec<Value>>> {
        self.database_says(sql, &[]).await
    }

    /// The same, with values for the question marks.
    pub async fn database_says(&self, sql: &str, values: &[&str]) -> Result<Vec<Vec<Value>>> {
        let asked = Command::new(self.venv.python())
            .args(["-c", include_str!("query.py")])
            .arg(self.database())
            .arg(sql)
            .args(values)
            .kill_on_drop(true)
            .output();
        let said = tokio::time::timeout(PATIENCE, asked)
            .await
            .context("the database does not answer")??;
        if !said.status.success() {
            bail!("{sql}: {}", String::from_utf8_lossy(&said.stderr));
        }
        Ok(serde_json::from_slice(&said.stdout)?)
    }

    /// Changes its database while it does not run, as an admin with SQL does. `values` are those for
    /// the question marks.
    pub async fn change_database(&self, sql: &str, values: &[&str]) -> Result<()> {
        let changed = Command::new(self.venv.python())
            .args(["-c", include_str!("change.py")])
            .arg(self.database())
            .arg(sql)
            .args(values)
            .kill_on_drop(true)
            .output()
            .await?;
        if !changed.status.success() {
            bail!("{sql}: {}", String::from_utf8_lossy(&changed.stderr));
        }
        Ok(())
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("homeserver.log")
    }

    /// The running process.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// The running process, to do things to.
    pub fn process_mut(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Keeps the folder when this is dropped, and says where it is.
    pub fn keep_folder(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}
