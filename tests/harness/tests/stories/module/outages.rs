//! A Stonechat that is away, slow or senseless, and what `doctor` says of the module.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use harness::{Chat, PATIENCE, World, WorldOptions, proxy::Fate};

use super::{comes_by_name, no_ghost_was_there, ours_in, story};
use crate::told::{LINE, Story, quoted, times};

/// A chat that is made while something is wrong with Stonechat, and how long that took.
async fn starts_in_time(story: &Story) -> Result<(Chat, Duration)> {
    let begun = Instant::now();
    let chat = story.alice.starts_chat(&[&story.ghost]).await?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(5), "it took {took:?}");
    Ok((chat, took))
}

/// The ghost is there, and introduces, as without the module.
async fn the_ghost_introduces(story: &Story, chat: &Chat) -> Result<()> {
    let sams = story.sam_comes(chat).await?;
    sams.sees(&quoted("Alice", LINE)).await?;
    ensure!(times(&sams, &story.alice.user_id, LINE) == 0);
    story.ends_well(chat, &sams).await
}

#[tokio::test]
async fn with_the_module_and_without_stonechat_the_ghost_is_invited_and_introduces_later()
-> Result<()> {
    let mut story = story().await?;
    // Nobody listens behind the proxy; then not even the proxy answers.
    story.world.service.stop().await?;
    let (chat, _) = starts_in_time(&story).await?;
    chat.says(LINE).await?;
    story.world.service.start().await?;
    the_ghost_introduces(&story, &chat).await?;
    // The module that got no answer does not ask for a while, but is told that the service is back:
    // the next asker meets no ghost.
    let (kim, lou) = tokio::try_join!(story.world.person("kim"), story.world.person("lou"))?;
    story.world.service.stop().await?;
    lou.starts_chat(&[&story.ghost]).await?;
    story.world.service.start().await?;
    let fresh = kim.starts_chat(&[&story.ghost]).await?;
    comes_by_name(&story.sam, &fresh, &kim).await?;
    no_ghost_was_there(&story.world, &[&fresh]).await
}

#[tokio::test]
async fn with_the_module_a_slow_or_senseless_stonechat_keeps_nobody_waiting() -> Result<()> {
    let story = story().await?;
    let pushed = story.world.to_service.as_ref().context("no network")?;
    let baseline = {
        pushed.judge(|_, path| match path.contains("/_stonechat/v1/") {
            // 200 with nothing in it.
            true => Fate::Refuse(StatusCode::OK),
            false => Fate::Pass,
        });
        let (chat, took) = starts_in_time(&story).await?;
        chat.says(LINE).await?;
        the_ghost_introduces(&story, &chat).await?;
        took
    };
    let heard = heard(&story)?;
    pushed.calm();
    heard_again(&story, heard).await?;

    pushed.judge(|_, path| match path.contains("/_stonechat/v1/") {
        true => Fate::Delay(Duration::from_secs(20)),
        false => Fate::Pass,
    });
    // Half a second at most, and after the first time hardly ever that.
    let (slow, took) = starts_in_time(&story).await?;
    ensure!(
        took < baseline + Duration::from_millis(2000),
        "{took:?} {baseline:?}"
    );
    let left = ours_in(&story.world, &slow).await?;
    ensure!(!left.is_empty(), "nobody was invited");
    for _ in 0..3 {
        let (_, took) = starts_in_time(&story).await?;
        ensure!(
            took < baseline + Duration::from_millis(2000),
            "{took:?} {baseline:?}"
        );
    }
    pushed.calm();
    Ok(())
}

const HEARD: &str = "Stonechat answers again";

/// How often the module has noticed that Stonechat answers again.
fn heard(story: &Story) -> Result<usize> {
    let homeserver = story.world.synapse.process().context("no homeserver")?;
    let lines = homeserver.lines();
    Ok(lines.iter().filter(|line| line.contains(HEARD)).count())
}

/// Waits until it has noticed that once more.
async fn heard_again(story: &Story, before: usize) -> Result<()> {
    let homeserver = story.world.synapse.process().context("no homeserver")?;
    let count = std::cell::Cell::new(0);
    let find = |line: &str| {
        count.set(count.get() + usize::from(line.contains(HEARD)));
        (count.get() > before).then_some(())
    };
    homeserver.line_where(HEARD, PATIENCE, find).await
}

#[tokio::test]
async fn doctor_says_whether_the_module_is_loaded_and_what_it_is_good_for() -> Result<()> {
    let world = World::start_with(WorldOptions {
        module: true,
        ..WorldOptions::default()
    });
    let mut world = world.await?;
    let said = world.service.succeeds(&["doctor"]).await?;
    ensure!(said.contains("loaded in Synapse"), "{said}");
    // Without the service running it listens itself.
    world.service.stop().await?;
    let said = world.service.succeeds(&["doctor"]).await?;
    ensure!(said.contains("loaded in Synapse"), "{said}");
    world.service.start().await?;

    // The homeserver without the module, and Stonechat set up for one.
    world.synapse.stop().await?;
    world.synapse.options_mut().further.remove("modules");
    world.synapse.start().await?;
    let said = world.service.command_line(&["doctor"]).await?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(!said.status.success() && text.contains("FAILED"), "{text}");
    ensure!(text.contains("does not call the"), "{text}");

    // Neither of the two: only a recommendation.
    std::fs::remove_file(world.service.config().with_file_name("module.token"))?;
    let said = world.service.succeeds(&["doctor"]).await?;
    ensure!(said.contains("there is no module"), "{said}");
    ensure!(said.contains("registration --with-module"), "{said}");
    Ok(())
}
