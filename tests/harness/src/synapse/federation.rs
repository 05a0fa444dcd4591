//! Two homeservers that talk to each other over TLS on loopback, with a test CA of their own.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::{
    process::{free_port, temporary_folder},
    venv::Venv,
};

/// A certificate authority, and the certificate of `localhost` that it signed.
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// Makes one, with the `cryptography` package that Synapse brings along.
    pub fn new(venv: &Venv) -> Result<Self> {
        let folder = temporary_folder("ca")?;
        let made = Command::new(venv.python())
            .args(["-c", include_str!("authority.py")])
            .arg(folder.path())
            .output()?;
        if !made.status.success() {
            bail!(
                "cannot make a test CA: {}",
                String::from_utf8_lossy(&made.stderr)
            );
        }
        Ok(Self { folder })
    }

    /// A place in the federation: a name, a port and the certificate.
    pub fn member(&self) -> Result<Member> {
        let port = free_port()?;
        Ok(Member {
            server_name: format!("localhost:{port}"),
            port,
            authority: self.folder.path().join("ca.pem"),
            certificate: self.folder.path().join("server.pem"),
            key: self.folder.path().join("server.key"),
        })
    }

    /// The CA's certificate, for clients that check.
    pub fn certificate(&self) -> &Path {
        self.folder.path()
    }
}

/// One server of a federation.
#[derive(Clone, Debug)]
pub struct Member {
    /// `localhost:PORT`: other servers find it by its name alone.
    pub server_name: String,
    /// Where it listens for other servers.
    pub port: u16,
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Member {
    /// The file with the certificate of the authority.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// The file with this server's certificate.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The file with the private key of the certificate.
    pub fn key(&self) -> &Path {
        &self.key
    }

    pub(super) fn configure(&self, config: &mut Map<String, Value>) {
        if let Some(listeners) = config.get_mut("listeners").and_then(Value::as_array_mut) {
            listeners.push(json!({
                "port": self.port,
                "bind_addresses": ["127.0.0.1"],
                "type": "http",
                "tls": true,
                "resources": [{ "names": ["federation"], "compress": false }],
            }));
        }
        config.extend([
            ("tls_certificate_path".into(), json!(self.certificate)),
            ("tls_private_key_path".into(), json!(self.key)),
            ("federation_custom_ca_list".into(), json!([self.authority])),
            // The other server is on loopback, which Synapse refuses to talk to otherwise.
            ("ip_range_blacklist".into(), json!([])),
            ("federation_ip_range_blacklist".into(), json!([])),
            ("allow_public_rooms_over_federation".into(), json!(false)),
        ]);
    }
}
