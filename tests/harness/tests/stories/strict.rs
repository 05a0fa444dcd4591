//! Handles for which nothing passes through the service, not even the first line.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{PATIENCE, Person, PersonOptions};
use ruma::UserId;
use serde_json::Value;
use stonechat::crypto::{CryptoError, DecryptError, GhostKind};

use crate::{
    remains::{Remains, ciphertexts},
    told::{LINE, Story, goodbye, times},
};

#[tokio::test]
async fn a_strict_handle_has_keys_that_nobody_has_and_the_bot_says_what_could_not_be_read()
-> Result<()> {
    let (mut story, element) = Story::begins_behind_a_proxy(PersonOptions::default()).await?;
    let (bot, ghost) = (story.world.bot()?, story.ghost.clone());
    let (alice, sam) = (&story.alice, &story.sam);
    let open = alice.keys_of(&ghost).await?;
    complete(&open, &ghost)?;

    let answer = story.control_room.asks(&bot, "mode sam strict").await?;
    ensure!(
        answer.text().is_some_and(|text| text.contains("is strict")),
        "{answer:?}"
    );
    let strict = changed(alice, &ghost, &open).await?;
    complete(&strict, &ghost)?;
    let devices = alice.devices_of(&ghost).await?;
    ensure!(
        devices.len() == 1 && devices.values().all(|signed| *signed),
        "{devices:?}"
    );

    element.like_element(Duration::from_millis(1000));
    let chat = story.alice_writes(LINE).await?;
    element.calm();
    let sams = story.sam_comes(&chat).await?;
    goodbye(&chat, &ghost).await?;
    let two = [&*alice.user_id, &*sam.user_id];
    story.world.only_these_are_in(&chat, alice, &two).await?;

    // Encrypted before Sam was invited: he cannot read it, and Alice hears of that.
    let invite = alice.invited_by(&bot).await?;
    let told = alice.accepts(&invite).await?;
    let words = told.sees_part("sent too early for them to read it").await?;
    ensure!(words.sender == bot && words.was_encrypted());
    chat.says("here it is once more").await?;
    sams.sees("here it is once more").await?;
    ensure!(
        times(&chat, &ghost, "") == 0,
        "a strict ghost spoke: {:#?}",
        chat.texts()
    );
    ensure!(
        times(&sams, &ghost, "") == 0,
        "a strict ghost spoke: {:#?}",
        sams.texts()
    );

    let room = chat.id().to_owned();
    let sent = ciphertexts(alice, &room).await?;
    let line = sent.last().context("nothing was sent")?;
    story.world.service.stop().await?;
    let remains = Remains::of(&story.world).await?;
    ensure!(remains.machines.kind_of(&ghost)? == Some(GhostKind::Keyless));
    let read = remains.machines.decrypt(&ghost, &room, line).await;
    ensure!(
        matches!(
            read,
            Err(DecryptError::Crypto(CryptoError::NotProvisioned { .. }))
        ),
        "a strict ghost has a machine: {:?}",
        read.map(|read| read.event_type)
    );
    drop(remains);
    story.world.service.start().await?;

    // And back: once more a new identity, and it hears again.
    let answer = story.control_room.asks(&bot, "mode sam open").await?;
    ensure!(
        answer.text().is_some_and(|text| text.contains("is open")),
        "{answer:?}"
    );
    let again = changed(&story.alice, &ghost, &strict).await?;
    complete(&again, &ghost)?;
    differ(&again, &open)?;
    story.world.nothing_leaked(&[LINE, "here it is once more"])
}

/// Waits until somebody's keys are others than `before`, in every part.
async fn changed(seen_by: &Person, ghost: &UserId, before: &Value) -> Result<Value> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let keys = seen_by.keys_of(ghost).await?;
        if complete(&keys, ghost)
            .and_then(|()| differ(&keys, before))
            .is_ok()
        {
            return Ok(keys);
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "the keys of {ghost} stayed {keys:#}"
        );
        // Keys are there for the asking only: nothing tells that they changed.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// One device and an identity that signs it, as clients ask for.
fn complete(keys: &Value, ghost: &UserId) -> Result<()> {
    let devices = keys["device_keys"][ghost.as_str()].as_object();
    let devices = devices.context("no device keys")?;
    ensure!(devices.len() == 1, "{devices:?}");
    for of_identity in ["master_keys", "self_signing_keys"] {
        ensure!(
            keys[of_identity][ghost.as_str()]["keys"].is_object(),
            "no {of_identity}: {keys:#}"
        );
    }
    Ok(())
}

fn differ(one: &Value, other: &Value) -> Result<()> {
    for part in ["device_keys", "master_keys", "self_signing_keys"] {
        ensure!(one[part] != other[part], "the same {part}");
    }
    Ok(())
}
