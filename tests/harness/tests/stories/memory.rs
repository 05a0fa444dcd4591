//! A strict handle's private keys are nowhere in the memory of the service.
//!
//! Every place of its writable memory that could hold a key is taken for one: the public key is
//! derived and compared with what is published. That the search finds what is there is shown with
//! the bot, whose keys the service does have.

use std::{
    collections::HashSet,
    fs,
    io::{Read, Seek, SeekFrom},
};

use anyhow::{Context, Result, ensure};
use harness::{World, WorldOptions};
use matrix_sdk_crypto::vodozemac::{Curve25519PublicKey, Curve25519SecretKey, Ed25519SecretKey};
use ruma::UserId;
use serde_json::Value;

/// Keys lie where the allocator, or a struct of words, puts them.
const STEP: usize = 8;
/// Size of a page of memory. Most pages of an allocator were never touched.
const PAGE: usize = 4096;
/// Number of pages that are read at a time.
const PAGES_AT_ONCE: usize = 256;
/// Length of a private key.
const KEY: usize = 32;

#[tokio::test]
async fn no_private_key_of_a_strict_handle_is_in_the_memory_of_the_service() -> Result<()> {
    let mut options = WorldOptions::default();
    // Otherwise its memory is closed to everybody but root.
    let debuggable = ("STONECHAT_DEBUGGABLE".to_owned(), "1".to_owned());
    options.service.environment.push(debuggable);
    let mut world = World::start_with(options).await?;
    let (sam, control_room) = world.owner("sam").await?;
    let (bot, ghost) = (world.bot()?, world.ghost("sam")?);
    let open = published(&sam.keys_of(&ghost).await?, &ghost)?;
    control_room.asks(&bot, "mode sam strict").await?;
    let strict = loop {
        let keys = published(&sam.keys_of(&ghost).await?, &ghost);
        match keys {
            Ok(keys) if keys.is_disjoint(&open) && keys.len() >= 4 => break keys,
            // Keys are there for the asking only: nothing tells that they changed.
            _ => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    };
    let bots = published(&sam.keys_of(&bot).await?, &bot)?;

    // An answer has just been encrypted, so the bot's machine is in memory.
    control_room.asks(&bot, "whoami").await?;
    let process = world.service.process().context("not running")?;
    let id = process.id().context("ended")?;
    let both: HashSet<_> = strict.union(&bots).copied().collect();
    let found = tokio::task::spawn_blocking(move || private_keys_in(id, &both)).await??;
    ensure!(
        !found.is_disjoint(&bots),
        "the search finds nothing, not even the keys of the bot"
    );
    ensure!(found.is_disjoint(&strict), "a private key was kept");
    world.service.stop().await?;
    Ok(())
}

/// The public keys of somebody's devices and identity, Curve25519 and Ed25519 alike.
fn published(keys: &Value, user: &UserId) -> Result<HashSet<[u8; 32]>> {
    let mut all = HashSet::new();
    let device_keys = keys["device_keys"][user.as_str()].as_object();
    let devices = device_keys.context("no devices")?.values();
    let identity = ["master_keys", "self_signing_keys"].map(|part| &keys[part][user.as_str()]);
    for signed in devices.chain(identity) {
        for key in signed["keys"].as_object().context("no keys")?.values() {
            let key = Curve25519PublicKey::from_base64(key.as_str().context("no text")?)?;
            all.insert(key.to_bytes());
        }
    }
    Ok(all)
}

/// Which of these public keys have their private halves in the memory of a process.
fn private_keys_in(id: u32, public: &HashSet<[u8; 32]>) -> Result<HashSet<[u8; 32]>> {
    let maps = fs::read_to_string(format!("/proc/{id}/maps"))?;
    let mut memory = fs::File::open(format!("/proc/{id}/mem"))?;
    let (mut tried, mut found) = (HashSet::new(), HashSet::new());
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else {
            continue;
        };
        // Files of the database and the program's own text hold no secrets of this run.
        if !rights.starts_with("rw") || fields.nth(3).is_some_and(|name| name.starts_with('/')) {
            continue;
        }
        let (from, to) = range.split_once('-').context("no range")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        for start in (from..to).step_by(PAGE * PAGES_AT_ONCE) {
            // A key may begin on the last page of this part and end on the next one.
            let end = to.min(start + (PAGE * PAGES_AT_ONCE + KEY) as u64);
            let mut part = vec![0; usize::try_from(end - start)?];
            memory.seek(SeekFrom::Start(start))?;
            // What is guarded cannot be read.
            if memory.read_exact(&mut part).is_err() {
                continue;
            }
            for window in windows_of(&part).filter(looks_random) {
                if !tried.insert(window) {
                    continue;
                }
                let curve = Curve25519PublicKey::from(&Curve25519SecretKey::from_slice(&window));
                let signing = Ed25519SecretKey::from_slice(&window).public_key();
                for key in [curve.to_bytes(), *signing.as_bytes()] {
                    if public.contains(&key) {
                        found.insert(key);
                    }
                }
            }
        }
    }
    Ok(found)
}

/// Returns every place of this part of the memory at which a key could begin. None begins on a page of
/// zeros.
fn windows_of(part: &[u8]) -> impl Iterator<Item = [u8; KEY]> {
    let touched = (0..part.len()).step_by(PAGE).filter(|page| {
        let bytes = &part[*page..part.len().min(page + PAGE)];
        *bytes != [0; PAGE][..bytes.len()]
    });
    let places = touched.flat_map(|page| (page..page + PAGE).step_by(STEP));
    places.filter_map(|place| part.get(place..place + KEY)?.try_into().ok())
}

/// Of 32 random bytes fewer than 24 different ones, or three zeros, are as good as impossible;
/// pointers, texts and counters look otherwise.
fn looks_random(window: &[u8; 32]) -> bool {
    let zeros = window.iter().filter(|byte| **byte == 0).count();
    let ascii = window.iter().filter(|byte| byte.is_ascii_graphic()).count();
    let mut seen = [false; 256];
    for byte in window {
        seen[usize::from(*byte)] = true;
    }
    let different = seen.iter().filter(|seen| **seen).count();
    zeros < 4 && ascii < 28 && different >= 22
}
