//! What is left of a chat in files and logs afterwards.

use anyhow::{Context, Result, ensure};
use harness::{PersonOptions, World};
use ruma::RoomId;
use serde_json::Value;

use crate::{
    remains::{Remains, ciphertexts, read_nothing},
    told::{LINE, Story, goodbye, quoted, with_network},
};

#[tokio::test]
async fn what_a_ghost_could_read_it_cannot_read_once_it_has_left() -> Result<()> {
    let mut options = with_network();
    let service = options.service.set("introductions.linger", "100s");
    options.service = service.set("introductions.at_most", "120s");
    let mut story = Story::begins_with(options, PersonOptions::default()).await?;
    let chat = story.alice_writes(LINE).await?;
    let sams = story.sam_comes(&chat).await?;
    sams.sees(&quoted("Alice", LINE)).await?;
    let (room, ghost) = (chat.id().to_owned(), story.ghost.clone());
    let heard = ciphertexts(&story.alice, &room).await?;
    ensure!(heard.len() == 2, "the line and its quote are {heard:#?}");

    // While it is there, its files hold what it needs: else the rest of this story says nothing.
    story.world.service.kill().await?;
    let during = Remains::of(&story.world).await?;
    let [quote, line] = &heard[..] else {
        unreachable!("there are two");
    };
    ensure!(
        during.reads(&ghost, &room, line).await?,
        "cannot read {line}"
    );
    // It keeps no key to read what it has said itself.
    ensure!(
        !during.reads(&ghost, &room, quote).await?,
        "its own words, and readable: {quote}"
    );

    story.world.service.set("introductions.linger", "1s")?;
    story.world.service.start().await?;
    goodbye(&chat, &ghost).await?;
    story.ends_well(&chat, &sams).await?;
    let all = ciphertexts(&story.alice, &room).await?;
    ensure!(all.len() > heard.len(), "nothing was said afterwards");
    // Nor do the old files read what was said after it left.
    for event in &all[..all.len() - heard.len()] {
        ensure!(
            !during.reads(&ghost, &room, event).await?,
            "said when the ghost had gone, and readable with its old keys: {event}"
        );
    }
    drop(during);
    read_nothing(&mut story.world, &ghost, &[(room, all)]).await?;
    story.world.nothing_leaked(&[LINE])
}

#[tokio::test]
async fn no_log_holds_a_text_a_token_or_anything_of_a_key() -> Result<()> {
    let mut options = with_network();
    options.service.log = Some("debug".to_owned());
    let mut story = Story::begins_with(options, PersonOptions::default()).await?;
    let bot = story.world.bot()?;
    let mut door = story.waits_at_the_door()?;
    let chat = story.alice_writes(LINE).await?;
    chat.sends_file("canal.map", b"the map of the old canal")
        .await?;
    door.held().await?;
    story.lets_in()?;
    let sams = story.sam_comes(&chat).await?;
    story.ends_well(&chat, &sams).await?;
    story
        .control_room
        .asks(&bot, "frobnicate the lock gates")
        .await?;
    story.world.service.restart().await?;
    story.control_room.asks(&bot, "whoami").await?;

    let mut secrets: Vec<String> = [
        LINE,
        "canal.map",
        "the map of the old canal",
        "can you read this, sam?",
        "frobnicate the lock gates",
        "You have @sam",
    ]
    .map(str::to_owned)
    .into();
    for token in ["as_token", "hs_token"] {
        secrets.push(story.world.service.token(token)?);
    }
    let key = story
        .world
        .service
        .folder()
        .join("config")
        .join("store.key");
    secrets.push(std::fs::read_to_string(key)?.trim().to_owned());
    for (person, room) in [
        (&story.alice, chat.id()),
        (&story.sam, story.control_room.id()),
    ] {
        secrets.extend(of_keys(person, room).await?);
    }
    let keys = story.alice.keys_of(&story.ghost).await?;
    strings(&keys["device_keys"], &mut |key, value| {
        if key.starts_with("curve25519:") {
            secrets.push(value.to_owned());
        }
    });
    log_holds_none_of(&story.world, &secrets)
}

/// Session ids, sender keys and ciphertexts of a room's events.
async fn of_keys(person: &harness::Person, room: &RoomId) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for event in ciphertexts(person, room).await? {
        let event: Value = serde_json::from_str(event.get())?;
        for field in ["session_id", "sender_key", "ciphertext"] {
            found.extend(event["content"][field].as_str().map(str::to_owned));
        }
    }
    ensure!(!found.is_empty(), "no encrypted event in {room}");
    Ok(found)
}

fn strings(value: &Value, found: &mut impl FnMut(&str, &str)) {
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::String(text) => found(key, text),
            value => strings(value, found),
        }
    }
}

fn log_holds_none_of(world: &World, secrets: &[String]) -> Result<()> {
    let log = std::fs::read_to_string(world.service.log())?;
    ensure!(
        log.lines().any(|line| line.contains("DEBUG")),
        "nothing was logged at this level: {:?}",
        log.lines().next()
    );
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(secret.as_str()));
        ensure!(line.is_none(), "{secret:?} is in the log: {line:?}");
    }
    log.lines().next().context("an empty log").map(drop)
}
