//! Introductions and the bot, on a homeserver that fails.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use harness::{
    Log, ServiceOptions,
    fake::{Options, Person, World},
};
use ruma::{OwnedRoomId, UserId};

use crate::plan::{Plan, number};

/// Ghosts that stay for a second only, and ask for themselves often.
pub fn quick() -> ServiceOptions {
    ServiceOptions::default()
        .set("introductions.linger", "1s")
        .set("introductions.wait_for_message", "20s")
        .set("introductions.at_most", "5s")
        .set("reconcile.interval", "2s")
        .set("reconcile.ghosts_per_second", 20)
}

/// The bot listens to so many in a minute, and to a few more.
const COMMANDS: u64 = 15;

pub fn said_by(log: &Log, room: &OwnedRoomId, who: &UserId, part: &str) -> usize {
    let said = log.texts_in(room).into_iter();
    said.filter(|(by, text)| by == who && text.contains(part))
        .count()
}

struct Asker {
    person: Arc<Person>,
    room: OwnedRoomId,
    line: String,
}

async fn asks(world: &World, name: &str) -> Result<Asker> {
    let person = Person::register(&world.fake, name).await?;
    let room = person.starts_chat(&[&world.ghost("sam")?]).await?;
    let line = format!("the heron is back, says {name}");
    person.says(&room, &line).await?;
    Ok(Asker { person, room, line })
}

/// Sam comes, reads the line once, and the two are alone and read each other.
async fn ends_well(world: &World, sam: &Person, asker: &Asker) -> Result<()> {
    let Asker { person, room, line } = asker;
    let ghost = world.ghost("sam")?;
    let invite = sam.invited(|invite| invite.room == *room).await?;
    ensure!(invite.sender == ghost && invite.encrypted && invite.is_direct);
    sam.joins(room).await?;
    let quote = |seen: &harness::Seen| {
        seen.sender == ghost && seen.text().is_some_and(|text| text.contains(line.as_str()))
    };
    sam.sees(room, "the quote", quote).await?;
    let gone = |seen: &harness::Seen| seen.membership() == Some((ghost.as_str(), "leave"));
    person.sees(room, "the ghost leave", gone).await?;
    sam.says(room, "every word of it").await?;
    let answered = |seen: &harness::Seen| seen.text() == Some("every word of it");
    person.sees(room, "Sam's answer", answered).await?;
    for log in [sam.log(), person.log()] {
        let times = said_by(log, room, &ghost, line);
        ensure!(times == 1, "passed on {times} times:\n{}", log.transcript());
        ensure!(log.shields().is_empty(), "{}", log.transcript());
    }
    Ok(())
}

#[tokio::test]
async fn an_introduction_and_the_bot_work_on_the_fake_homeserver() -> Result<()> {
    let mut world = World::start(Options::default(), quick()).await?;
    let (sam, control) = world.owner("sam").await?;
    let bot = world.bot()?;
    let answer = sam.asks(&control, &bot, "handles").await?;
    ensure!(answer.contains("@sam"), "{answer}");
    let asker = asks(&world, "alice").await?;
    ends_well(&world, &sam, &asker).await?;
    ensure!(world.fake.reuses().is_empty(), "{:?}", world.fake.reuses());
    ensure!(world.service.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn no_introduction_is_lost_and_nothing_is_said_twice_whatever_fails() -> Result<()> {
    let mut plan = Plan::new();
    let askers = number("STONECHAT_ASKERS", 6);
    let kills = number("STONECHAT_KILLS", 4);
    let mut world = World::start(Options::default(), quick()).await?;
    let (sam, _control) = world.owner("sam").await?;
    world.fake.begin_faults(plan.faults());
    let asking = (0..askers).map(|n| {
        let (world, name) = (&world, format!("asker{n}"));
        async move { asks(world, &name).await }
    });
    let askers = try_join_all(asking).await?;
    plan.kills(&mut world, kills, 1500).await?;
    println!("faults: {:?}", world.fake.end_faults());
    for asker in &askers {
        ends_well(&world, &sam, asker)
            .await
            .with_context(|| format!("the chat of {}", asker.person.user_id))?;
    }
    ensure!(world.fake.reuses().is_empty(), "{:?}", world.fake.reuses());
    Ok(())
}

#[tokio::test]
async fn every_command_is_answered_once_whatever_fails() -> Result<()> {
    let mut plan = Plan::new();
    let kills = number("STONECHAT_KILLS", 4).clamp(1, COMMANDS);
    let mut world = World::start(Options::default(), quick()).await?;
    let (sam, control) = world.owner("sam").await?;
    let bot = world.bot()?;
    world.fake.begin_faults(plan.faults());
    for n in 0..COMMANDS {
        sam.says(&control, &format!("gibberish{n}")).await?;
        if n % (COMMANDS / kills) == 0 {
            plan.kills(&mut world, 1, 700).await?;
        }
    }
    println!("faults: {:?}", world.fake.end_faults());
    for n in 0..COMMANDS {
        let word = format!("I don't know `gibberish{n}`");
        let answer = |seen: &harness::Seen| {
            seen.sender == bot && seen.text().is_some_and(|text| text.contains(&word))
        };
        sam.sees(&control, &word, answer).await?;
    }
    for n in 0..COMMANDS {
        let times = said_by(sam.log(), &control, &bot, &format!("`gibberish{n}`"));
        ensure!(
            times == 1,
            "answered {times} times:\n{}",
            sam.log().transcript()
        );
    }
    ensure!(sam.log().shields().is_empty(), "{}", sam.log().transcript());
    Ok(())
}
