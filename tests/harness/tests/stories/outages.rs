//! The service, the homeserver or the network between them is away for a while.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use harness::{PersonOptions, proxy::Fate};

use crate::told::{LINE, Story, place, quick, quoted, times};

async fn story() -> Result<Story> {
    Story::begins_with(quick(), PersonOptions::default()).await
}

/// The line was passed on, once, and the two are alone.
async fn ends(story: &Story, chat: &harness::Chat, line: &str) -> Result<()> {
    let sams = story.sam_comes(chat).await?;
    sams.sees(&quoted("Alice", line)).await?;
    story.ends_well(chat, &sams).await?;
    let passed_on = times(&sams, &story.ghost, line);
    ensure!(passed_on == 1, "{passed_on} times: {:#?}", sams.texts());
    Ok(())
}

#[tokio::test]
async fn what_happens_while_the_service_is_down_is_done_when_it_is_back() -> Result<()> {
    let mut story = story().await?;
    story.world.service.stop().await?;
    let chat = story.alice_writes(LINE).await?;
    chat.says("and nobody is at the door").await?;
    story.world.service.start().await?;
    ends(&story, &chat, LINE).await?;
    ensure!(times(&chat, &story.ghost, "and nobody is at the door") == 1);
    story
        .world
        .nothing_leaked(&[LINE, "and nobody is at the door"])
}

#[tokio::test]
async fn a_restart_of_the_homeserver_while_the_service_is_down_loses_nothing() -> Result<()> {
    let mut story = story().await?;
    // It forgets what it could not deliver: the truth is what it tells when asked.
    story.world.service.kill().await?;
    let chat = story.alice_writes(LINE).await?;
    story.world.synapse.restart().await?;
    story.world.service.start().await?;
    ends(&story, &chat, LINE).await?;
    story.world.nothing_leaked(&[LINE])
}

#[tokio::test]
async fn a_homeserver_that_restarts_in_the_middle_is_waited_for() -> Result<()> {
    let mut story = story().await?;
    let mut door = story.waits_at_the_door()?;
    let chat = story.alice_writes(LINE).await?;
    door.held().await?;
    story.world.synapse.stop().await?;
    story.lets_in()?;
    story.world.synapse.start().await?;
    ends(&story, &chat, LINE).await
}

#[tokio::test]
async fn a_network_that_is_away_in_the_middle_is_waited_for() -> Result<()> {
    let story = story().await?;
    let pushed = story.world.to_service.as_ref().context("no network")?;
    let asked = story.network()?;
    let mut door = story.waits_at_the_door()?;
    let chat = story.alice_writes(LINE).await?;
    door.held().await?;
    asked.judge(|_, _| Fate::Refuse(StatusCode::BAD_GATEWAY));
    pushed.judge(|_, _| Fate::Refuse(StatusCode::BAD_GATEWAY));
    story.lets_in()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    chat.says("said while nobody could hear it").await?;
    asked.calm();
    pushed.calm();
    ends(&story, &chat, LINE).await?;
    ensure!(times(&chat, &story.ghost, "said while nobody could hear it") == 1);
    Ok(())
}

#[tokio::test]
async fn a_network_that_loses_every_first_answer_doubles_nothing() -> Result<()> {
    let story = story().await?;
    let mut met = std::collections::HashSet::new();
    story.network()?.judge(move |method, path| {
        let acts = matches!(method, "PUT" | "POST");
        if acts && met.insert((method.to_owned(), place(path).to_owned())) {
            Fate::LoseAnswer(StatusCode::GATEWAY_TIMEOUT)
        } else {
            Fate::Pass
        }
    });
    let mut known = std::collections::HashSet::new();
    let pushed = story.world.to_service.as_ref().context("no network")?;
    pushed.judge(move |_, path| {
        if known.insert(place(path).to_owned()) {
            Fate::LoseAnswer(StatusCode::GATEWAY_TIMEOUT)
        } else {
            Fate::Pass
        }
    });
    let chat = story.alice_writes(LINE).await?;
    ends(&story, &chat, LINE).await
}
