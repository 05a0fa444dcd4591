//! A PostgreSQL of our own, for one homeserver.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    PATIENCE,
    daemon::{Daemon, User, command_as, find},
    process::{free_port, temporary_folder},
};

/// What to do where it is missing.
const MISSING: &str = "cannot find PostgreSQL's initdb and postgres, neither in PATH nor in \
                       /usr/lib/postgresql/*/bin: tests of installations need them (on Debian: \
                       apt-get install --no-install-recommends postgresql; its own service need \
                       not run)";

/// The database's user, who owns everything in it.
const USER: &str = "synapse";

/// A running PostgreSQL. Dropping it ends it and removes its folder.
pub struct Postgres {
    // Declared before the folder: the processes have to be gone when that is removed.
    _daemon: Daemon,
    folder: TempDir,
    port: u16,
    password: String,
}

impl Postgres {
    /// Makes an empty one and starts it.
    pub async fn start() -> Result<Self> {
        let programs = programs();
        let (Some(initdb), Some(postgres)) =
            (find("initdb", &programs), find("postgres", &programs))
        else {
            bail!(MISSING)
        };
        let folder = temporary_folder("postgres")?;
        let password = hex::encode(rand::random::<[u8; 16]>());
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, &password)?;
        let user = User::instead_of_root(&["postgres", "nobody"])?;
        if let Some(user) = &user {
            user.owns(folder.path())?;
            user.owns(&password_file)?;
        }
        let made = command_as(&initdb, user.as_ref())
            .args(["--username", USER, "--pwfile", "password"])
            .args(["--auth", "scram-sha-256", "--encoding", "UTF8"])
            // Synapse refuses any other collation.
            .args(["--locale", "C", "--no-sync", "--pgdata", "data"])
            .env("LC_ALL", "C")
            .current_dir(folder.path())
            .output()
            .await
            .with_context(|| {
                format!(
                    "cannot run {} in {} (which PostgreSQL's user has to reach: \
                     STONECHAT_TEST_FOLDER names another place)",
                    initdb.display(),
                    folder.path().display()
                )
            })?;
        if !made.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&made.stderr));
        }
        for attempt in 0.. {
            let port = free_port()?;
            match run(&postgres, user.as_ref(), folder.path(), port).await {
                Ok(daemon) => {
                    return Ok(Self {
                        _daemon: daemon,
                        folder,
                        port,
                        password,
                    });
                }
                // Somebody else may have taken the port between our look and PostgreSQL's.
                Err(error) if attempt >= 3 => return Err(error),
                Err(_) => {}
            }
        }
        bail!("PostgreSQL does not start")
    }

    /// What Synapse has to know of it (`database` in `homeserver.yaml`).
    pub fn settings(&self) -> Value {
        json!({
            "name": "psycopg2",
            "args": {
                "user": USER,
                "password": self.password,
                "dbname": "postgres",
                "host": "127.0.0.1",
                "port": self.port,
                "cp_min": 1,
                "cp_max": 5,
            },
        })
    }

    /// Its folder: data, log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Runs it on a port, and waits until it answers.
async fn run(postgres: &Path, user: Option<&User>, folder: &Path, port: u16) -> Result<Daemon> {
    let port = format!("port={port}");
    let mut arguments = vec!["-D", "data"];
    for setting in [
        port.as_str(),
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        // A test survives a kill of everything but this; it need not survive a power cut.
        "fsync=off",
        "synchronous_commit=off",
        "full_page_writes=off",
    ] {
        arguments.extend(["-c", setting]);
    }
    // SIGINT ends it without waiting for those who are connected.
    let daemon = Daemon::start("PostgreSQL", postgres, "INT", &arguments, user, folder)?;
    let ready = "database system is ready to accept connections";
    let answers = daemon.process().line_with(ready, PATIENCE).await;
    answers.context("PostgreSQL does not start")?;
    Ok(daemon)
}

/// Where Debian puts its programs, the newest version first.
fn programs() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter();
    let versions = versions.flatten().flatten().map(|entry| entry.path());
    let number = |folder: &PathBuf| -> u32 {
        let name = folder.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.parse().ok()).unwrap_or(0)
    };
    let mut versions: Vec<PathBuf> = versions.collect();
    versions.sort_by_key(|folder| std::cmp::Reverse(number(folder)));
    versions.into_iter().map(|it| it.join("bin")).collect()
}
