//! Everything at once, by many seeds: introductions, requests, commands, masked conversations and
//! groups, while the homeserver fails in every way it can and the service is killed in between.
//! Whatever somebody said arrives once, in order and readable, or they are told.
//!
//! Each round has a seed of its own. A round that fails prints it, and how to run it alone.
//! `STONECHAT_ROUNDS=2000` is the long form.

use std::{
    ops::Range,
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::{join_all, try_join_all};
use harness::{
    Service,
    fake::{Fake, Faults, Options, Outage, Restart, World},
};
use serde_json::json;
use tokio::sync::watch;

use crate::{
    introductions::quick,
    plan::{Plan, number},
    round::Lane,
    silence::Pictures,
};

/// Runs this test.
const RUN: &str = "cargo test -p harness --test faults each_thing_said";

/// Rounds that run at the same time.
const LANES: u64 = 8;

/// One round after the other. Returns what the first failed one has to say: those after it would
/// begin where it ended.
async fn rounds_of(lane: &Lane, fake: &Fake, seeds: &Mutex<Range<u64>>) -> Option<String> {
    loop {
        let next = seeds.lock().ok().and_then(|mut seeds| seeds.next());
        let seed = next?;
        let began = Instant::now();
        match lane.round(fake, seed).await {
            Ok((part, longest)) => println!(
                "round {seed} took {:.1?}, the longest part {longest:.1?}: {part}",
                began.elapsed()
            ),
            Err(error) => {
                let alone = format!("STONECHAT_SEED={seed} STONECHAT_ROUNDS=1 {RUN}");
                let failed = format!("round {seed}: {error:?}\nthis round alone: {alone}");
                println!("{failed}");
                return Some(failed);
            }
        }
    }
}

/// What goes wrong at single requests: less than elsewhere, since whole outages come on top.
fn faults(plan: &Plan) -> Faults {
    Faults {
        failing: 0.006,
        failing_after: 0.006,
        dropped: 0.006,
        dropped_after: 0.006,
        ..plan.faults()
    }
}

/// The longest time between two things that go wrong, in milliseconds.
const PAUSE: u64 = 4_000;

/// After so many things that went wrong, nothing does for a while.
const UNTIL_CALM: u64 = 6;

/// How long nothing goes wrong then: what is waited for three seconds has that time once it is calm,
/// however slow the machine is.
const CALM: Duration = Duration::from_secs(10);

/// What goes wrong around the rounds, until they are over.
async fn weather(
    fake: &Fake,
    service: &mut Service,
    mut plan: Plan,
    mut over: watch::Receiver<bool>,
) -> Result<[u64; 3]> {
    let mut counts = [0; 3];
    loop {
        let is_calm = counts.iter().sum::<u64>() % UNTIL_CALM == UNTIL_CALM - 1;
        let pause = plan
            .pause(PAUSE)
            .max(if is_calm { CALM } else { Duration::ZERO });
        if tokio::time::timeout(pause, over.wait_for(|over| *over))
            .await
            .is_ok()
        {
            return Ok(counts);
        }
        match plan.number(4) {
            0 => {
                let process = service.process_mut().context("not running")?;
                if let Some(status) = process.ended()? {
                    bail!("it ended by itself ({status})\n{}", process.last_lines());
                }
                service.kill().await?;
                tokio::time::sleep(plan.pause(200)).await;
                service.launch()?;
                // On a slow machine it would otherwise be killed again and again while it starts;
                // now and then it is. With all that fails it may take long to be ready.
                if plan.number(4) > 0 {
                    let _ = tokio::time::timeout(CALM, service.ready()).await;
                }
                counts[0] += 1;
            }
            1 => {
                let how = [Restart::Killed, Restart::InOrder][plan.number(2) as usize];
                fake.restart(how, plan.pause(700)).await;
                counts[1] += 1;
            }
            _ => {
                let kinds = [
                    Outage::Proxy(502),
                    Outage::Proxy(503),
                    Outage::Proxy(504),
                    Outage::Failing(500),
                    Outage::Failing(503),
                    Outage::Silence,
                ];
                fake.begin_outage(kinds[plan.number(6) as usize]);
                tokio::time::sleep(plan.pause(1_000)).await;
                fake.end_outage();
                counts[2] += 1;
            }
        }
    }
}

#[tokio::test]
async fn whatever_fails_each_thing_said_arrives_once_or_its_sender_is_told() -> Result<()> {
    let mut plan = Plan::new();
    let first = plan.seed;
    let rounds = number("STONECHAT_ROUNDS", 60);
    let options = Options {
        connections: 2,
        ..Options::default()
    };
    let service = quick()
        .set("introductions.wait_for_message", "10s")
        .set("permissions", json!({ "*": "claim" }))
        .set("relay.wait_for_key", "3s");
    let mut world = World::start(options, service).await?;
    let began = Instant::now();
    let lanes = number("STONECHAT_LANES", LANES).min(rounds);
    let lanes = (0..lanes).map(|n| Lane::begin(&world, n));
    let lanes = try_join_all(lanes).await?;
    let pictures = Pictures::begin(&world).await?;
    println!("everybody knows everybody after {:.1?}", began.elapsed());
    world.fake.begin_faults(faults(&plan));
    let (over, is_over) = watch::channel(false);
    let World { fake, service } = &mut world;
    let fake = &*fake;
    let seeds = Mutex::new(first..first + rounds);
    let seeds = &seeds;
    let telling = async {
        let running = lanes.iter().map(|lane| rounds_of(lane, fake, seeds));
        let failed = join_all(running).await;
        over.send_replace(true);
        failed.into_iter().flatten().collect::<Vec<String>>()
    };
    pictures.are_sent(fake.server_name()).await?;
    let (mut failed, weather) =
        tokio::join!(telling, weather(fake, service, plan.another(), is_over));
    let [kills, restarts, outages] = weather?;
    println!(
        "{rounds} rounds: {kills} kills, {restarts} restarts of the homeserver, {outages} outages, \
         faults: {:?}",
        fake.end_faults()
    );
    let late = lanes.iter().map(Lane::late);
    let [late, told] = late.fold([0; 2], |[late, told], [a, b]| [late + a, told + b]);
    println!("keys were late {late} times, {told} times longer than they are waited for");
    let introduced = lanes.iter().map(Lane::introduced);
    let [introduced, after] = introduced.fold([0; 2], |[all, late], [a, b]| [all + a, late + b]);
    println!("{after} of {introduced} owners came to a group after the line was passed on");
    if let Err(error) = pictures.have_arrived().await {
        let again = format!("STONECHAT_SEED={first} STONECHAT_ROUNDS={rounds} {RUN}");
        failed.push(format!("pictures: {error:?}\nall of it again: {again}"));
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    ensure!(told <= 1 + late / 2, "late keys are not waited for");
    ensure!(
        after <= 2 + introduced / 8,
        "owners of a group are not waited for"
    );
    ensure!(fake.reuses().is_empty(), "{:?}", fake.reuses());
    Ok(())
}
