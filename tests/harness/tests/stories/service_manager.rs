//! What systemd is told, and what `stonechat status` shows.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{World, WorldOptions};
use tokio::{net::UnixDatagram, time::timeout};

/// How long to wait for something that is told every few seconds.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// Waits until the service manager has been told all of these.
async fn is_told(manager: &UnixDatagram, lines: &[&str]) -> Result<()> {
    let mut open: Vec<&str> = lines.to_vec();
    let mut bytes = [0; 4096];
    while !open.is_empty() {
        let received = timeout(TOLD_WITHIN, manager.recv(&mut bytes)).await;
        let length = received.with_context(|| format!("not told {open:?}"))??;
        let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
        // Of two equal lines, each takes one message.
        for line in message.lines() {
            if let Some(at) = open.iter().position(|it| *it == line) {
                open.remove(at);
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn systemd_is_told_that_it_serves_is_ready_works_and_stops() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path)?;
    let mut options = WorldOptions::default();
    let socket = path.to_str().context("no text")?.to_owned();
    options.service.environment.extend([
        ("NOTIFY_SOCKET".to_owned(), socket),
        // Microseconds: it is told three times as often.
        ("WATCHDOG_USEC".to_owned(), "3000000".to_owned()),
    ]);
    let mut world = World::start_with(options).await?;
    is_told(
        &manager,
        &["READY=1", "STATUS=ready", "WATCHDOG=1", "WATCHDOG=1"],
    )
    .await?;

    let status = world.service.succeeds(&["status"]).await?;
    ensure!(
        status.contains(": ready\nhomeserver: ok\ntransactions: ok\nwaiting: ")
            && status.lines().count() <= 10,
        "{status}"
    );
    let status = world.service.succeeds(&["status", "--json"]).await?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    ensure!(
        status["parts"]["homeserver"] == "ok"
            && status["waiting"]["stuck"] == serde_json::json!([]),
        "{status}"
    );
    world.service.stop().await?;
    is_told(&manager, &["STOPPING=1"]).await
}
