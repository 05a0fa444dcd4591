//! A transaction of 100 MiB costs the service no memory, and everything behind it goes on.

use std::fs;

use anyhow::{Context, Result, ensure};
use futures_util::stream;
use harness::{World, WorldOptions};

const MIB: usize = 1 << 20;
/// How much the memory of the service may grow while it reads one body.
const GROWTH_MAX: usize = 32 * MIB;

/// The memory of a process, in bytes: `VmRSS` now, or `VmHWM` at most since it was reset.
pub fn memory(process: u32, field: &str) -> Result<usize> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let size = line.and_then(|line| line.trim_start_matches(':').trim().strip_suffix(" kB"));
    Ok(size.context("no such field")?.trim().parse::<usize>()? << 10)
}

/// Lets `VmHWM` begin anew.
pub fn reset_peak(process: u32) -> Result<()> {
    Ok(fs::write(format!("/proc/{process}/clear_refs"), "5")?)
}

/// A world whose service's memory can be looked at. Otherwise it is closed to everybody but root.
pub fn debuggable(mut options: WorldOptions) -> WorldOptions {
    let debuggable = ("STONECHAT_DEBUGGABLE".to_owned(), "1".to_owned());
    options.service.environment.push(debuggable);
    options
}

/// The process id of the service.
pub fn process(world: &World) -> Result<u32> {
    let process = world.service.process().and_then(|it| it.id());
    process.context("not running")
}

/// `head`, `chunk` until there are 100 MiB, `tail`.
fn body(head: &str, chunk: String, tail: &str) -> reqwest::Body {
    let count = 100 * MIB / chunk.len() + 1;
    let chunk = bytes::Bytes::from(chunk);
    let pieces = std::iter::once(bytes::Bytes::from(head.to_owned()))
        .chain(std::iter::repeat_n(chunk, count))
        .chain(std::iter::once(bytes::Bytes::from(tail.to_owned())));
    reqwest::Body::wrap_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)))
}

#[tokio::test]
async fn a_transaction_of_100_mib_costs_no_memory_and_holds_up_nothing() -> Result<()> {
    let mut world = World::start_with(debuggable(WorldOptions::default())).await?;
    let (_sam, control_room) = world.owner("sam").await?;
    let bot = world.bot()?;
    let process = process(&world)?;
    let (url, token) = (world.service.url(), world.service.token("hs_token")?);
    let http = reqwest::Client::builder().no_proxy().build()?;

    let junk = || "x".repeat(MIB);
    let stripped = format!(
        r#"{{"type":"m.room.topic","state_key":"","sender":"@eve:evil.org","content":{{"topic":"{}"}}}},"#,
        "t".repeat(50_000)
    );
    let event = format!(
        r#"{{"type":"m.room.message","content":{{"body":"{}"}},"event_id":7}},"#,
        "y".repeat(60_000)
    );
    let invite = r#"{"events":[{"type":"m.room.member","event_id":"$big","room_id":"!big:evil.org",
        "sender":"@eve:evil.org","state_key":"@_dm_sam:example.org","content":{"membership":"invite"},
        "unsigned":{"invite_room_state":["#;
    let bodies = [
        (
            "padding",
            body(r#"{"padding":""#, junk(), r#"","events":[]}"#),
        ),
        ("stripped state", body(invite, stripped, "{}]}}]}")),
        (
            "event",
            body(r#"{"events":[{"type":"t","content":""#, junk(), r#""}]}"#),
        ),
        (
            "to-device",
            body(
                r#"{"to_device":[{"type":"m.room.encrypted","content":""#,
                junk(),
                &format!(r#"","sender":"@eve:evil.org","to_user_id":"{bot}"}}]}}"#),
            ),
        ),
        ("many events", body(r#"{"events":["#, event, "{}]}")),
    ];
    for (at, (what, body)) in bodies.into_iter().enumerate() {
        reset_peak(process)?;
        let before = memory(process, "VmRSS")?;
        let path = format!("_matrix/app/v1/transactions/large{at}");
        let answer = http
            .put(url.join(&path)?)
            .bearer_auth(&token)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await?;
        let grown = memory(process, "VmHWM")?.saturating_sub(before);
        println!("100 MiB of {what}: {} KiB", grown >> 10);
        ensure!(answer.status() == 200, "{what}: {}", answer.status());
        ensure!(grown < GROWTH_MAX, "{what}: grown by {} MiB", grown >> 20);
    }
    let handles = control_room.asks(&bot, "handles").await?;
    ensure!(handles.text().is_some_and(|text| text.contains("@sam")));
    let status = world.service.succeeds(&["status"]).await?;
    for reason in ["event_too_large", "to_device_too_large", "event_malformed"] {
        ensure!(status.contains(reason), "{status}");
    }
    world.service.stop().await?;
    Ok(())
}
