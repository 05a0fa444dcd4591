//! What is told only where Synapse has workers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{
    PATIENCE,
    synapse::workers::{APPSERVICES, EVENTS, GENERIC},
};

use crate::{
    steps::introduced,
    told::{LINE, Story},
};

/// How long Synapse's worker for application services may take until it tries again: long, for a
/// busy machine.
const PAUSE: Duration = Duration::from_secs(120);

/// The module reports itself from every process.
pub async fn module_is_seen_on_all(story: &Story) -> Result<()> {
    let service = story.world.service.process().context("not running")?;
    for name in ["main", GENERIC, EVENTS, APPSERVICES] {
        let loaded = |line: &str| {
            let is_it = line.contains("the module is loaded") && line.contains(name);
            is_it.then_some(())
        };
        let what = format!("that the module is loaded on {name}");
        service.line_where(&what, PATIENCE, loaded).await?;
    }
    Ok(())
}

/// The worker that pushes, and the one that writes events, are killed and come back.
pub async fn killed_and_started_again(story: &mut Story) -> Result<()> {
    story.world.synapse.kill_worker(APPSERVICES).await?;
    introduced(story, "erin", async |story| {
        story.world.synapse.start_workers().await?;
        // Synapse looks for what to push when there is a new event.
        let bot = story.world.bot()?;
        story.control_room.asks(&bot, "handles").await.map(drop)
    })
    .await
    .context("nothing is pushed meanwhile")?;

    let mut door = story.waits_at_the_door()?;
    introduced(story, "frank", async |story| {
        door.held().await?;
        story.world.synapse.kill_worker(EVENTS).await?;
        story.lets_in()?;
        story.world.synapse.start_workers().await
    })
    .await
    .context("no event can be written meanwhile")
}

/// While the service is away, the pause between the tries of the worker that pushes grows, and a
/// ping, which another process answers, does not end it: the service waits. A ping that the worker
/// answers ends it.
pub async fn pushes_pause(story: &mut Story) -> Result<()> {
    story.world.service.stop().await?;
    introduced(story, "grace", async |story| {
        pauses(story, "in 16.000000s").await?;
        story.world.service.launch()?;
        let service = story.world.service.process().context("not running")?;
        service.line_with(" ready", PAUSE).await.map(drop)
    })
    .await
    .context("pings go to the main process")?;

    story.world.synapse.pings_end_pauses();
    story.world.synapse.kill_worker(APPSERVICES).await?;
    story.world.synapse.start_workers().await?;
    story.world.service.stop().await?;
    introduced(story, "heidi", async |story| {
        pauses(story, "in 32.000000s").await?;
        let begun = Instant::now();
        story.world.service.start().await?;
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(30), "it took {took:?}");
        Ok(())
    })
    .await
    .context("pings go to the worker that pushes")?;
    story.world.nothing_leaked(&[LINE])
}

/// Waits until the worker that pushes says how long it waits now.
async fn pauses(story: &Story, said: &str) -> Result<()> {
    let worker = story.world.synapse.worker(APPSERVICES);
    let worker = worker.context("not running")?;
    worker.line_with(said, PAUSE).await.map(drop)
}
