//! Stonechat as a child process, set up through its own command line.

use std::{
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use url::Url;

use crate::{
    PATIENCE,
    metrics::Metrics,
    process::{Process, die_with_parent, free_port, temporary_folder},
};

/// Set for a program that should act as the service instead of doing its own work.
const ACT_AS_SERVICE: &str = "STONECHAT_ACT_AS_SERVICE";

/// How long a subcommand may take. `doctor` waits for up to two minutes for a homeserver that has
/// just been started, and then has a right to say what it found.
const COMMAND: Duration = Duration::from_secs(180);

/// How the service is set up.
#[derive(Clone, Debug, Default)]
pub struct ServiceOptions {
    /// Changes to the configuration that `init` writes: dotted key and value.
    pub config: Vec<(String, Value)>,
    /// `RUST_LOG` for it.
    pub log: Option<String>,
    /// The address under which the homeserver shall reach it, if that is a proxy's.
    pub public_url: Option<Url>,
    /// The port to listen on; a free one if `None`.
    pub port: Option<u16>,
    /// Set up for the module in the homeserver.
    pub module: bool,
    /// Further environment variables.
    pub environment: Vec<(String, String)>,
}

impl ServiceOptions {
    /// Sets a key of the configuration.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config.push((key.to_owned(), value.into()));
        self
    }
}

/// The service, running or stopped. Dropping it ends it and removes its folder.
pub struct Service {
    options: ServiceOptions,
    // Declared before the folder: the process has to be gone when that is removed.
    process: Option<Process>,
    folder: TempDir,
    port: u16,
    metrics_port: u16,
    http: reqwest::Client,
}

/// For a program that starts itself as the service, as the demo does: call it first in `main`, and
/// return the code if there is one.
pub fn act_as_service_if_asked() -> Option<ExitCode> {
    std::env::var_os(ACT_AS_SERVICE)?;
    die_with_parent();
    Some(stonechat::cli::main())
}

/// The program beside the test that runs, or else this program itself, acting as the service.
fn program() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folders = this.ancestors().skip(1).take(2);
    let beside = folders.map(|folder| folder.join("stonechat-service"));
    let is_test = this.parent().is_some_and(|folder| folder.ends_with("deps"));
    Ok(beside
        .into_iter()
        .find(|path| is_test && path.exists())
        .unwrap_or(this))
}

impl Service {
    /// Runs `stonechat init` in a folder of its own and changes what `options` say.
    pub async fn init(
        homeserver: &Url,
        server_name: &str,
        options: ServiceOptions,
    ) -> Result<Self> {
        let service = Self {
            port: match options.port {
                Some(port) => port,
                None => free_port()?,
            },
            metrics_port: free_port()?,
            options,
            process: None,
            folder: temporary_folder("service")?,
            http: reqwest::Client::builder().no_proxy().build()?,
        };
        let url = homeserver.as_str().trim_end_matches('/');
        let mut args = vec!["init", "--homeserver", url, "--server-name", server_name];
        let listen = format!("127.0.0.1:{}", service.port);
        let public = service.public_url()?;
        args.extend(["--listen", &listen, "--url", public.as_str()]);
        args.extend(service.options.module.then_some("--with-module"));
        service.succeeds(&args).await?;
        service.configure()?;
        Ok(service)
    }

    /// Changes further keys of the configuration; takes effect with the next start.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> Result<()> {
        self.options.config.push((key.to_owned(), value.into()));
        self.configure()
    }

    /// The address under which the homeserver reaches it.
    fn public_url(&self) -> Result<Url> {
        match &self.options.public_url {
            Some(url) => Ok(url.clone()),
            None => Ok(Url::parse(&format!("http://127.0.0.1:{}", self.port))?),
        }
    }

    /// What `init` wrote for the homeserver, to turn the module on.
    pub fn module_settings(&self) -> Result<Value> {
        let path = self.config().with_file_name("homeserver-module.yaml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}; does init write it?", path.display()))?;
        Ok(serde_yaml::from_str(&text)?)
    }

    fn configure(&self) -> Result<()> {
        let public = self.public_url()?;
        let mut changes = vec![
            (
                "appservice.listen".to_owned(),
                Value::from(format!("127.0.0.1:{}", self.port)),
            ),
            ("appservice.url".to_owned(), Value::from(public.as_str())),
            (
                "metrics.listen".to_owned(),
                Value::from(format!("127.0.0.1:{}", self.metrics_port)),
            ),
        ];
        changes.extend(self.options.config.clone());
        change_yaml(&self.config(), &changes)?;
        change_yaml(
            &self.registration(),
            &[("url".to_owned(), Value::from(public.as_str()))],
        )
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(program()?);
        command
            .args(args)
            .current_dir(self.folder.path())
            .env(ACT_AS_SERVICE, "1")
            .env("NO_COLOR", "1")
            // Also on a machine on which the Debian package is installed.
            .env("STONECHAT_CONFIG", "config/stonechat.yaml")
            .env_remove("RUST_LOG")
            .envs(self.options.log.iter().map(|filter| ("RUST_LOG", filter)))
            .envs(
                self.options
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            );
        Ok(command)
    }

    /// Runs a subcommand to its end, in the service's folder.
    pub async fn command_line(&self, args: &[&str]) -> Result<Output> {
        let run = self
            .command(args)?
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(COMMAND, run).await;
        output
            .with_context(|| format!("stonechat {args:?} does not end"))?
            .context("cannot run it")
    }

    /// Runs a subcommand that has to succeed, and returns what it printed.
    pub async fn succeeds(&self, args: &[&str]) -> Result<String> {
        let output = self.command_line(args).await?;
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let err = String::from_utf8_lossy(&output.stderr);
            bail!("stonechat {args:?} failed ({}):\n{out}{err}", output.status);
        }
        Ok(out)
    }

    /// Starts `stonechat run` and returns at once.
    pub fn launch(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("Stonechat runs already");
        }
        self.process = Some(Process::start(
            "Stonechat",
            self.command(&["run"])?,
            &self.log(),
        )?);
        Ok(())
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.ready().await
    }

    /// Waits until it serves.
    pub async fn ready(&mut self) -> Result<()> {
        let health = self.url().join("health")?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let process = self.process.as_mut().context("Stonechat is not running")?;
            if let Some(status) = process.ended()? {
                // Its last words may still be on their way.
                tokio::time::sleep(Duration::from_millis(50)).await;
                let last = process.last_lines();
                self.process = None;
                bail!("Stonechat ended while it started ({status})\n{last}");
            }
            let answer = self.http.get(health.clone()).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                bail!(
                    "Stonechat is not ready after {PATIENCE:?}\n{}",
                    process.last_lines()
                );
            }
            // Nothing tells when a port opens but asking it.
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Returns what it shows to Prometheus at this moment, which names nobody.
    pub async fn metrics(&self) -> Result<Metrics> {
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics_port);
        let answer = self.http.get(url).send().await?.error_for_status()?;
        Metrics::parse(&answer.text().await?)
    }

    /// Waits until it shows to Prometheus what `is_it` looks for.
    pub async fn shows(&self, what: &str, is_it: impl Fn(&Metrics) -> bool) -> Result<Metrics> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics().await?;
            if is_it(&metrics) {
                return Ok(metrics);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("{what} is not shown:\n{metrics}");
            }
            // Prometheus asks as well; nothing tells when a value changes.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Stops it in order (SIGTERM). Whatever it has done until then, its metrics name nobody.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        if let Err(error) = self.metrics().await {
            let asked = error.downcast_ref::<reqwest::Error>();
            // It may have ended by itself.
            if !asked.is_some_and(reqwest::Error::is_connect) {
                return Err(error);
            }
        }
        let process = self.process.take().context("Stonechat is not running")?;
        process.stop(PATIENCE).await
    }

    /// Ends it at once (SIGKILL).
    pub async fn kill(&mut self) -> Result<()> {
        self.process
            .take()
            .context("Stonechat is not running")?
            .kill()
            .await
    }

    /// Stops it in order and starts it again on the same data.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// The running process.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// The running process, to do things to.
    pub fn process_mut(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// The address it listens on.
    pub fn url(&self) -> Url {
        let mut url = Url::parse("http://127.0.0.1/").unwrap_or_else(|_| unreachable!("constant"));
        let _ = url.set_port(Some(self.port));
        url
    }

    /// The folder that it runs in: configuration, registration, database, log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config").join("stonechat.yaml")
    }

    /// The registration that the homeserver reads.
    pub fn registration(&self) -> PathBuf {
        self.folder.path().join("registration.yaml")
    }

    /// The folder of its database.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Everything it has printed, over all starts.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("stonechat.log")
    }

    /// A token of the registration (`as_token`, `hs_token`).
    pub fn token(&self, name: &str) -> Result<String> {
        let text = std::fs::read_to_string(self.registration())?;
        let registration: serde_yaml::Value = serde_yaml::from_str(&text)?;
        let token = registration.get(name).and_then(serde_yaml::Value::as_str);
        Ok(token
            .with_context(|| format!("no {name} in the registration"))?
            .to_owned())
    }

    /// Keeps the folder when this is dropped, and says where it is.
    pub fn keep_folder(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

/// Changes dotted keys of a YAML file.
fn change_yaml(path: &Path, changes: &[(String, Value)]) -> Result<()> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; does init write it?", path.display()))?;
    let mut yaml: serde_yaml::Value = serde_yaml::from_str(&text)?;
    for (key, value) in changes {
        let mut at = &mut yaml;
        for name in key.split('.') {
            let map = at
                .as_mapping_mut()
                .with_context(|| format!("{key} is in no section"))?;
            at = map
                .entry(name.into())
                .or_insert_with(|| serde_yaml::Mapping::new().into());
        }
        *at = serde_yaml::to_value(value)?;
    }
    // Written in place, so that the mode stays as it is.
    std::fs::write(path, serde_yaml::to_string(&yaml)?)?;
    Ok(())
}
