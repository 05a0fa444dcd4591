//! A homeserver of several processes: its workers, and the reverse proxy before all of them.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use tokio::process::Command;
use url::Url;

use crate::{
    PATIENCE,
    process::{Process, free_port},
    proxy::Proxy,
};

use super::LISTENING;

/// The worker that answers most requests of clients.
pub const GENERIC: &str = "generic1";
/// The worker that writes events into the database.
pub const EVENTS: &str = "event_persister1";
/// The worker that pushes to application services.
pub const APPSERVICES: &str = "appservices1";

/// What a worker listens for.
const WORKERS: [(&str, &str); 3] = [
    (GENERIC, "client"),
    (EVENTS, "replication"),
    (APPSERVICES, "client"),
];

/// The workers, running or not.
pub struct Workers {
    front: Proxy,
    /// Whether pings go to the worker that pushes.
    pings_end_pauses: Arc<AtomicBool>,
    /// Where the main process listens for the others.
    replication_port: u16,
    ports: [u16; WORKERS.len()],
    running: Vec<(&'static str, Process)>,
}

impl Workers {
    /// Chooses ports, and starts the reverse proxy. `main_port` is where the main process listens
    /// for clients.
    pub async fn prepare(main_port: u16) -> Result<Self> {
        let mut ports = [0; WORKERS.len()];
        for port in &mut ports {
            *port = free_port()?;
        }
        let main = address(main_port)?;
        let [generic, _, appservices] = ports.map(address);
        let (generic, appservices) = (generic?, appservices?);
        let pings_end_pauses = Arc::new(AtomicBool::new(false));
        let to_appservices = pings_end_pauses.clone();
        let front = Proxy::routing(move |method, path| {
            let is_ping = path.starts_with("/_matrix/client/v1/appservice/");
            if is_for_generic_workers(method, path) {
                generic.clone()
            } else if is_ping && to_appservices.load(Relaxed) {
                appservices.clone()
            } else {
                main.clone()
            }
        });
        Ok(Self {
            pings_end_pauses,
            front: front.await?,
            replication_port: free_port()?,
            ports,
            running: Vec::new(),
        })
    }

    /// Where clients and application services reach the homeserver.
    pub fn url(&self) -> &Url {
        self.front.url()
    }

    /// Sends pings to the worker that pushes, from now on, and not to the main process.
    pub fn pings_end_pauses(&self) {
        self.pings_end_pauses.store(true, Relaxed);
    }

    /// What every process has to know (`homeserver.yaml`).
    pub fn configure(&self, config: &mut Map<String, Value>) {
        let here = |port: u16| json!({ "host": "127.0.0.1", "port": port });
        if let Some(listeners) = config.get_mut("listeners").and_then(Value::as_array_mut) {
            listeners.push(listener(self.replication_port, "replication"));
        }
        config.extend([
            (
                "instance_map".into(),
                json!({ "main": here(self.replication_port), EVENTS: here(self.ports[1]) }),
            ),
            ("stream_writers".into(), json!({ "events": [EVENTS] })),
            ("notify_appservices_from_worker".into(), json!(APPSERVICES)),
            ("worker_replication_secret".into(), json!("stories-only")),
        ]);
    }

    /// Starts those that do not run, and waits until they take part. `command` makes the command of
    /// an app with further configuration files.
    pub async fn start(
        &mut self,
        folder: &Path,
        log_settings: &Path,
        command: impl Fn(&str, &[&Path]) -> Command,
    ) -> Result<()> {
        let mut begun = Vec::new();
        for ((name, resource), port) in WORKERS.iter().zip(self.ports) {
            if self.running.iter().any(|(running, _)| running == name) {
                continue;
            }
            let path = folder.join(format!("{name}.yaml"));
            let settings = json!({
                "worker_app": "synapse.app.generic_worker",
                "worker_name": name,
                "worker_listeners": [listener(port, resource)],
                "worker_log_config": log_settings,
            });
            std::fs::write(&path, serde_json::to_string_pretty(&settings)?)?;
            let command = command("synapse.app.generic_worker", &[&path]);
            let log = folder.join(format!("{name}.log"));
            begun.push((*name, port, Process::start(name, command, &log)?));
        }
        for (name, port, process) in begun {
            for said in [format!("{LISTENING} {port}"), "Connected to redis".into()] {
                let ready = process.line_with(&said, PATIENCE * 2).await;
                ready.with_context(|| format!("{name} does not start"))?;
            }
            self.running.push((name, process));
        }
        Ok(())
    }

    /// Stops those that run, in order (SIGTERM).
    pub async fn stop(&mut self) -> Result<()> {
        for (_, process) in self.running.drain(..) {
            process.stop(PATIENCE).await?;
        }
        Ok(())
    }

    /// Ends all at once (SIGKILL), or the one of this name.
    pub async fn kill(&mut self, name: Option<&str>) -> Result<()> {
        let running = std::mem::take(&mut self.running);
        let count = running.len();
        for (worker, process) in running {
            if name.is_none_or(|name| name == worker) {
                process.kill().await?;
            } else {
                self.running.push((worker, process));
            }
        }
        if self.running.len() == count {
            bail!("no such worker runs: {name:?}");
        }
        Ok(())
    }

    /// The worker of this name, if it runs.
    pub fn process(&self, name: &str) -> Option<&Process> {
        let mut running = self.running.iter();
        running.find_map(|(worker, process)| (*worker == name).then_some(process))
    }
}

fn address(port: u16) -> Result<Url> {
    Ok(Url::parse(&format!("http://127.0.0.1:{port}/"))?)
}

fn listener(port: u16, resource: &str) -> Value {
    json!({
        "port": port,
        "bind_addresses": ["127.0.0.1"],
        "type": "http",
        "resources": [{ "names": [resource], "compress": false }],
    })
}

/// Whether a generic worker may answer this, as Synapse's page on workers says. Everything else is
/// for the main process: typing, receipts, to-device messages, media, and the pings of application
/// services.
fn is_for_generic_workers(method: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path);
    let Some(path) = path.strip_prefix("/_matrix/client/") else {
        return false;
    };
    let Some((version, path)) = path.split_once('/') else {
        return path == "versions";
    };
    let parts: Vec<&str> = path.split('/').collect();
    match (version, parts.as_slice()) {
        (
            "v1",
            [
                "rooms",
                _,
                "hierarchy" | "relations" | "threads" | "timestamp_to_event",
                ..,
            ],
        ) => true,
        (
            "r0" | "v3",
            ["sync" | "events" | "initialSync" | "createRoom" | "publicRooms" | "joined_rooms"]
            | ["search" | "capabilities" | "notifications" | "password_policy" | "login"]
            | ["register"]
            | ["register", "available"]
            | ["user_directory", "search"]
            | ["account", "3pid" | "whoami" | "deactivate"]
            | ["delete_devices"]
            | ["devices" | "join" | "knock" | "profile" | "room_keys", ..]
            | ["directory", "room", ..]
            | ["keys", "query" | "changes" | "claim" | "upload", ..]
            | ["keys", "device_signing" | "signatures", "upload"]
            | ["user", _, "filter", ..]
            | ["voip", "turnServer"]
            | [
                "rooms",
                _,
                "joined_members" | "members" | "messages" | "initialSync",
            ]
            | [
                "rooms",
                _,
                "state" | "send" | "redact" | "event" | "context" | "aliases",
                ..,
            ]
            | [
                "rooms",
                _,
                "join" | "invite" | "leave" | "ban" | "unban" | "kick",
            ],
        ) => true,
        ("r0" | "v3", ["pushrules" | "presence", ..] | ["user", _, "account_data", ..]) => {
            method == "GET"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_for_generic_workers;

    #[test]
    fn rooms_are_made_by_a_worker_and_pings_go_to_the_main_process() {
        for path in [
            "v3/createRoom?user_id=@_dm_sam:stone.test",
            "v3/sync?since=s1",
            "v3/rooms/!a:stone.test/send/m.room.message/1",
            "v3/keys/upload",
            "versions",
        ] {
            let path = format!("/_matrix/client/{path}");
            assert!(is_for_generic_workers("POST", &path), "{path}");
        }
        for path in [
            "/_matrix/client/v1/appservice/stonechat/ping",
            "/_matrix/client/v3/sendToDevice/m.room.encrypted/1",
            "/_matrix/client/v3/rooms/!a:stone.test/typing/@a:stone.test",
            "/_matrix/client/v3/user/@a:stone.test/account_data/m.direct",
            "/_matrix/client/v1/media/download/stone.test/a",
            "/_synapse/admin/v1/register",
        ] {
            assert!(!is_for_generic_workers("PUT", path), "{path}");
        }
    }
}
