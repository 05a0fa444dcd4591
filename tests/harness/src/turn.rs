//! A relay for calls (TURN, RFC 8656): a coturn of our own on the loopback interface.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use tokio::{net::UdpSocket, process::Command};

use crate::{
    PATIENCE,
    process::{Process, free_port, temporary_folder},
};

/// What to do where it is missing.
const MISSING: &str = "cannot start turnserver: stories of calls need coturn (on Debian: apt-get \
                       install --no-install-recommends coturn; its own service need not run)";

/// The address from which relayed packets come. Browsers have another one: a relay accepts packets
/// only from addresses that its client named, so it refuses those that a browser sends directly.
const RELAY_IP: &str = "127.0.0.2";

/// A running relay. Dropping it ends it and removes its folder.
pub struct Turn {
    process: Process,
    port: u16,
    secret: String,
    _folder: tempfile::TempDir,
}

impl Turn {
    /// Starts one, and waits until it answers.
    pub async fn start() -> Result<Self> {
        for attempt in 0.. {
            match Self::start_on(free_port()?).await {
                Ok(turn) => return Ok(turn),
                // Somebody else may have taken the port between our look and coturn's.
                Err(error) if attempt >= 3 || error.to_string() == MISSING => return Err(error),
                Err(_) => {}
            }
        }
        bail!("coturn does not start")
    }

    async fn start_on(port: u16) -> Result<Self> {
        let folder = temporary_folder("turn")?;
        let secret = hex::encode(rand::random::<[u8; 32]>());
        let file = |name: &str| folder.path().join(name).display().to_string();
        // In a file, so that the secret is in no list of processes.
        let settings = format!(
            "listening-ip=127.0.0.1\nrelay-ip={RELAY_IP}\nlistening-port={port}\n\
             realm=stone.test\nuse-auth-secret\nstatic-auth-secret={secret}\n\
             allow-loopback-peers\nno-tls\nno-dtls\nno-cli\nno-multicast-peers\nno-rfc5780\n\
             log-file=stdout\npidfile={}\nuserdb={}\n",
            file("turn.pid"),
            file("turn.db"),
        );
        let path = folder.path().join("turn.conf");
        std::fs::write(&path, settings)?;
        let mut command = Command::new("turnserver");
        command.arg("-c").arg(&path).current_dir(folder.path());
        let log = folder.path().join("log");
        let process = Process::start("coturn", command, &log).context(MISSING)?;
        let mut turn = Self {
            process,
            port,
            secret,
            _folder: folder,
        };
        turn.answers().await?;
        Ok(turn)
    }

    /// Waits until it answers a STUN binding request (RFC 8489).
    async fn answers(&mut self) -> Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(("127.0.0.1", self.port)).await?;
        let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        request.extend(rand::random::<[u8; 12]>());
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            if let Some(status) = self.process.ended()? {
                bail!("coturn ended ({status})\n{}", self.process.last_lines());
            }
            // While nobody listens, sending may fail as well.
            let _ = socket.send(&request).await;
            let mut answer = [0; 512];
            let received = socket.recv(&mut answer);
            // Nothing tells when a port opens but asking it.
            match tokio::time::timeout(Duration::from_millis(100), received).await {
                Ok(Ok(_)) if answer[..2] == [1, 1] && answer[4..20] == request[4..20] => {
                    return Ok(());
                }
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        }
        bail!("coturn does not answer\n{}", self.process.last_lines())
    }

    /// What Synapse has to know of it (`homeserver.yaml`).
    pub fn settings(&self) -> Map<String, Value> {
        let settings = json!({
            "turn_uris": [format!("turn:127.0.0.1:{}?transport=udp", self.port)],
            "turn_shared_secret": self.secret,
            "turn_user_lifetime": "1h",
            "turn_allow_guests": false,
        });
        match settings {
            Value::Object(settings) => settings,
            _ => unreachable!("an object literal"),
        }
    }
}
