//! One real Synapse: its own folder, its own loopback ports, nothing sent anywhere. It is one process
//! on SQLite, unless the options ask for another installation.

mod config;
pub mod federation;
mod installation;
mod mas;
mod postgres;
mod redis;
mod register;
pub mod workers;

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

pub use installation::Installation;
pub use register::PASSWORD;

use installation::Parts;

/// What Synapse says once it takes requests.
const LISTENING: &str = "Synapse now listening on TCP port";

/// How a homeserver is set up.
#[derive(Clone, Debug)]
pub struct SynapseOptions {
    /// What it runs on.
    pub installation: Installation,
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
            installation: Installation::default(),
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
    // Declared before the folder: the processes have to be gone when that is removed.
    process: Option<Process>,
    parts: Parts,
    folder: TempDir,
    port: u16,
    registrations: Vec<PathBuf>,
    http: reqwest::Client,
}

impl Synapse {
    /// Prepares a homeserver without starting it, so that an application service can be set up
    /// against its address first.
    pub async fn prepare(venv: &Venv, options: SynapseOptions) -> Result<Self> {
        let port = free_port()?;
        Ok(Self {
            parts: Parts::prepare(options.installation, port).await?,
            options,
            venv: venv.clone(),
            process: None,
            folder: temporary_folder("synapse")?,
            port,
            registrations: Vec::new(),
            http: reqwest::Client::new(),
        })
    }

    /// Prepares and starts a homeserver without application services.
    pub async fn start_new(options: SynapseOptions) -> Result<Self> {
        let venv = Venv::ready(|_| {})?;
        let mut synapse = Self::prepare(&venv, options).await?;
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
            config::write(self)?;
            let command = self.command("synapse.app.homeserver", &[]);
            let process = Process::start("Synapse", command, &self.log())?;
            let listeners = 1 + usize::from(self.options.federation.is_some());
            match self.listening(&process, listeners).await {
                Ok(()) => {
                    self.process = Some(process);
                    return self.start_workers().await;
                }
                Err(error) => {
                    let taken = process.last_lines().contains("Address already in use");
                    if !taken || attempt >= 3 {
                        return Err(error).context("Synapse does not start");
                    }
                    let is_known = self.parts.workers.is_some() || !self.registrations.is_empty();
                    if first_start && !is_known {
                        self.port = free_port()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts the workers that do not run.
    pub async fn start_workers(&mut self) -> Result<()> {
        let Some(mut workers) = self.parts.workers.take() else {
            return Ok(());
        };
        let folder = self.folder.path();
        let log_settings = folder.join(config::LOG_SETTINGS);
        let command = |app: &str, further: &[&Path]| self.command(app, further);
        let started = workers.start(folder, &log_settings, command).await;
        self.parts.workers = Some(workers);
        started
    }

    /// The command of one of Synapse's processes.
    fn command(&self, app: &str, further: &[&Path]) -> Command {
        let folder = self.folder.path();
        let mut command = Command::new(self.venv.python());
        command.arg(folder.join("launch.py")).arg(app);
        let main = folder.join(config::MAIN_FILE);
        for path in [main.as_path()].iter().chain(further) {
            command.arg("--config-path").arg(path);
        }
        command
            .current_dir(folder)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        if let Some(path) = &self.options.python_path {
            command.env("PYTHONPATH", path);
        }
        command
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

    /// Stops it in order (SIGTERM), its workers first.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(workers) = &mut self.parts.workers {
            workers.stop().await?;
        }
        let process = self.process.take().context("Synapse is not running")?;
        process.stop(Duration::from_secs(20)).await
    }

    /// Ends it at once (SIGKILL), with its workers.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(workers) = &mut self.parts.workers {
            workers.kill(None).await?;
        }
        let process = self.process.take().context("Synapse is not running")?;
        process.kill().await
    }

    /// Stops it in order and starts it again on the same data.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// Ends one of its workers at once (SIGKILL); [`Synapse::start_workers`] starts it again.
    pub async fn kill_worker(&mut self, name: &str) -> Result<()> {
        let workers = self.parts.workers.as_mut().context("no workers")?;
        workers.kill(Some(name)).await
    }

    /// Has the reverse proxy send pings to the worker that pushes, as `docs/install.md` recommends.
    pub fn pings_end_pauses(&self) {
        if let Some(workers) = &self.parts.workers {
            workers.pings_end_pauses();
        }
    }

    /// One of its workers, while it runs.
    pub fn worker(&self, name: &str) -> Option<&Process> {
        self.parts.workers.as_ref()?.process(name)
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
        if let Some(workers) = &self.parts.workers {
            return workers.url().clone();
        }
        let mut url = Url::parse("http://127.0.0.1/").unwrap_or_else(|_| unreachable!("constant"));
        let _ = url.set_port(Some(self.port));
        url
    }

    /// The folder of its PostgreSQL, if it has one.
    pub fn postgres_folder(&self) -> Option<&Path> {
        self.parts.postgres.as_ref().map(postgres::Postgres::folder)
    }

    /// Its folder: SQLite database, media, logs.
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
