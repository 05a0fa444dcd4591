//! A Redis of our own, over which the processes of one homeserver talk.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    PATIENCE,
    daemon::{Daemon, find},
    process::{free_port, temporary_folder},
};

/// What to do where it is missing.
const MISSING: &str = "cannot find redis-server: tests of a Synapse with workers need Redis (on \
                       Debian: apt-get install --no-install-recommends redis-server; its own \
                       service need not run)";

/// A running Redis. Dropping it ends it and removes its folder.
pub struct Redis {
    // Declared before the folder: the process has to be gone when that is removed.
    _daemon: Daemon,
    _folder: TempDir,
    port: u16,
    password: String,
}

impl Redis {
    /// Starts one that keeps nothing on disk.
    pub async fn start() -> Result<Self> {
        let Some(program) = find("redis-server", &[]) else {
            bail!(MISSING)
        };
        let folder = temporary_folder("redis")?;
        let password = hex::encode(rand::random::<[u8; 16]>());
        for attempt in 0.. {
            let port = free_port()?;
            // In a file, so that the password is in no list of processes.
            let settings = format!(
                "bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave \"\"\nappendonly no\n\
                 daemonize no\n"
            );
            std::fs::write(folder.path().join("redis.conf"), settings)?;
            let daemon = Daemon::start(
                "Redis",
                &program,
                "TERM",
                &["redis.conf"],
                None,
                folder.path(),
            )?;
            let ready = daemon.process().line_with("Ready to accept", PATIENCE);
            match ready.await {
                Ok(_) => {
                    return Ok(Self {
                        _daemon: daemon,
                        _folder: folder,
                        port,
                        password,
                    });
                }
                // Somebody else may have taken the port between our look and Redis's.
                Err(error) if attempt >= 3 => return Err(error).context("Redis does not start"),
                Err(_) => {}
            }
        }
        bail!("Redis does not start")
    }

    /// What Synapse has to know of it (`redis` in `homeserver.yaml`).
    pub fn settings(&self) -> Value {
        json!({
            "enabled": true,
            "host": "127.0.0.1",
            "port": self.port,
            "password": self.password,
        })
    }
}
