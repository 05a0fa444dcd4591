//! Files from another homeserver arrive byte for byte and cost the service no memory; who sends one
//! that is too large reads the limit.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{Chat, Person, ServiceOptions, SynapseOptions, WorldOptions};
use serde_json::{Value, json};
use url::Url;

use crate::{
    federation::two_servers_with,
    large_bodies::{debuggable, memory, process, reset_peak},
    masked::{comes_to_portal, masks},
    told::{LINE, quick},
};

const MIB: usize = 1 << 20;
/// The sizes of the files, in MiB.
const SIZES: [usize; 4] = [1, 9, 50, 99];
/// How much the memory of the service may grow while a file passes through it.
const GROWTH_MAX: usize = 8 * MIB;
/// How long a file may take on a busy machine, through two homeservers written in Python.
const ARRIVAL: Duration = Duration::from_secs(90);

/// Bytes that look encrypted.
fn file(size: usize) -> Vec<u8> {
    let mut state = size as u64 | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(size / 8).flatten().collect()
}

/// Uploads a file, and sends an event as clients do it for one that they have encrypted.
async fn sends(person: &Person, chat: &Chat, name: &str, bytes: Vec<u8>) -> Result<()> {
    let size = bytes.len();
    let answer: Value = reqwest::Client::new()
        .post(address(person, "_matrix/media/v3/upload")?)
        .bearer_auth(person.client.access_token().context("signed out")?)
        .header("content-type", "application/octet-stream")
        .body(bytes)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    let key = json!({"kty": "oct", "key_ops": ["encrypt", "decrypt"], "alg": "A256CTR", "ext": true,
                     "k": "aWF6-32KGYaC3A_FEUCk1Bt0JA37zP0wrStgmdCaW-0"});
    let file = json!({"v": "v2", "url": answer["content_uri"], "key": key,
                      "iv": "w+sE15fzSc0AAAAAAAAAAA",
                      "hashes": {"sha256": "fdSLu/YkRx3Wyh3KQabP3rd6+SFiKg5lsJZQHtkSAYA"}});
    let content = json!({"msgtype": "m.file", "body": name, "file": file,
                         "info": {"mimetype": "application/octet-stream", "size": size}});
    chat.sends("m.room.message", content).await.map(drop)
}

/// What a client downloads.
async fn download(person: &Person, uri: &str) -> Result<bytes::Bytes> {
    let path = uri.strip_prefix("mxc://").context("no address of a file")?;
    let path = format!("_matrix/client/v1/media/download/{path}");
    let answer = reqwest::Client::new()
        .get(address(person, &path)?)
        .bearer_auth(person.client.access_token().context("signed out")?)
        .send()
        .await?;
    Ok(answer.error_for_status()?.bytes().await?)
}

fn address(person: &Person, path: &str) -> Result<Url> {
    Ok(person.client.homeserver().join(path)?)
}

/// A homeserver that takes files of this size.
fn takes(size: &str) -> SynapseOptions {
    let mut options = SynapseOptions::default();
    options
        .further
        .insert("max_upload_size".into(), json!(size));
    options
}

#[tokio::test]
async fn files_of_up_to_100_mib_arrive_as_they_are_and_cost_no_memory() -> Result<()> {
    let here = WorldOptions {
        synapse: takes("100M"),
        service: ServiceOptions::default().set("relay.media_at_most", "200MiB"),
        ..quick()
    };
    let (world, there) = two_servers_with(debuggable(here), takes("110M")).await?;
    let (sam, control_room) = world.owner("sam").await?;
    masks(&world, &control_room, "sam").await?;
    let bob = Person::register(&there, "bob").await?;
    let chat = bob.starts_chat(&[&world.ghost("sam")?]).await?;
    chat.says(LINE).await?;
    let (_, sams) = comes_to_portal(&sam).await?;
    sams.sees(LINE).await?;

    let process = process(&world)?;
    let ours = format!("mxc://{}/", sam.user_id.server_name());
    for size in SIZES {
        let (bytes, name) = (file(size * MIB), format!("{size} MiB.bin"));
        reset_peak(process)?;
        let before = memory(process, "VmRSS")?;
        sends(&bob, &chat, &name, bytes.clone()).await?;
        let seen = sam.until_within(ARRIVAL, &name, |log| {
            log.find(|seen| seen.room == *sams.id() && seen.content["body"] == name)
        });
        let seen = seen.await?;
        let grown = memory(process, "VmHWM")?.saturating_sub(before);
        println!("{name}: {} KiB", grown >> 10);
        let uri = seen.content["file"]["url"].as_str().unwrap_or_default();
        ensure!(uri.starts_with(&ours), "{seen:?}");
        ensure!(download(&sam, uri).await? == bytes, "{name} has changed");
        ensure!(grown < GROWTH_MAX, "{name}: grown by {} KiB", grown >> 10);
    }

    // Larger than what our homeserver takes: it does not fetch such a file either.
    sends(&bob, &chat, "101 MiB.bin", file(101 * MIB)).await?;
    let told = chat.sees_part("larger than").await?;
    let text = told.text().unwrap_or_default();
    ensure!(
        text.contains("100 MB, the most that I can pass on"),
        "{text}"
    );
    chat.says("then without it").await?;
    sams.sees("then without it").await?;
    Ok(())
}
