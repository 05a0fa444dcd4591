//! Everything at once, by many seeds: introductions, requests, commands and masked conversations,
//! while the homeserver fails in every way it can and the service is killed in between. Whatever
//! somebody said arrives once, in order and readable, or they are told.
//!
//! Each round has a seed of its own. A round that fails prints it; `STONECHAT_SEED=… STONECHAT_ROUNDS=1`
//! repeats its choices. `STONECHAT_ROUNDS=2000` is the long form.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use harness::{
    PATIENCE, Seen, Service,
    fake::{Fake, Options, Outage, Person, Restart, World},
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use tokio::sync::watch;

use crate::{
    introductions::{quick, said_by},
    masked::{Side, introduce_masked},
    plan::{Plan, number},
};

/// Rounds that run at the same time.
const LANES: u64 = 3;

/// How long something said may take to arrive, with kills and outages on the way.
const IN_TIME: Duration = PATIENCE.saturating_mul(3);

/// The people who are there in all rounds of a lane.
struct Lane {
    bot: OwnedUserId,
    /// Holds an open handle.
    open: Owner,
    /// Holds an open handle, and likes to be asked first.
    asked: Owner,
    /// Two masked people and what they have said so far.
    pair: [Side; 2],
}

struct Owner {
    person: Arc<Person>,
    control: OwnedRoomId,
    ghost: OwnedUserId,
}

impl Lane {
    async fn begin(world: &World, n: u64) -> Result<Self> {
        let owner = async |name: String| -> Result<Owner> {
            let (person, control) = world.owner(&name).await?;
            let ghost = world.ghost(&name)?;
            Ok(Owner {
                person,
                control,
                ghost,
            })
        };
        let asked = owner(format!("ada{n}")).await?;
        let bot = world.bot()?;
        let policy = format!("policy ada{n} ask");
        let answer = asked.person.asks(&asked.control, &bot, &policy).await?;
        ensure!(answer.contains("ask"), "{answer}");
        let pair = introduce_masked(world, &format!("kim{n}"), &format!("lee{n}")).await?;
        Ok(Self {
            bot,
            open: owner(format!("sam{n}")).await?,
            asked,
            pair,
        })
    }

    /// One round. All of it happens at the same time.
    async fn round(&self, fake: &Fake, seed: u64) -> Result<()> {
        let mut plan = Plan::of(seed);
        let (first, second) = (plan.another(), plan.another());
        let (third, fourth, fifth) = (plan.another(), plan.another(), plan.another());
        tokio::try_join!(
            self.introduction(fake, seed, first),
            self.request(fake, seed, second),
            self.command(seed, third),
            self.says(0, seed, fourth),
            self.says(1, seed, fifth),
        )?;
        Ok(())
    }

    /// Somebody new writes to the open handle. Each line is passed on once, or the owner reads it
    /// in the room itself.
    async fn introduction(&self, fake: &Fake, seed: u64, mut plan: Plan) -> Result<()> {
        let Owner {
            person: owner,
            ghost,
            ..
        } = &self.open;
        let asker = Person::register(fake, &format!("ann{seed}")).await?;
        let room = asker.starts_chat(&[ghost]).await?;
        let lines = 1 + plan.number(3);
        let line = |n: u64| format!("the heron is back {seed}.{n}");
        for n in 0..lines {
            asker.says(&room, &line(n)).await?;
            tokio::time::sleep(plan.pause(300)).await;
        }
        let invited = |log: &harness::Log| log.invites().into_iter().find(|it| it.room == room);
        let log = owner.log();
        log.until(IN_TIME, "an invite", invited).await?;
        owner.joins(&room).await?;
        for n in 0..lines {
            let line = line(n);
            let arrives = |seen: &Seen| {
                let text = seen.text().is_some_and(|text| text.contains(&line));
                seen.room == room && text
            };
            log.until(IN_TIME, &line, |log| log.find(arrives)).await?;
        }
        left(&asker, &room, ghost).await?;
        for n in 0..lines {
            let times = said_by(log, &room, ghost, &line(n));
            ensure!(times <= 1, "{} was passed on {times} times", line(n));
        }
        readable(log, &room)?;
        owner.leaves(&room).await
    }

    /// Somebody new writes to the handle whose owner is asked first. The owner reads the line in
    /// the request and answers; an accepted asker is introduced, a declined one sees the ghost go.
    async fn request(&self, fake: &Fake, seed: u64, mut plan: Plan) -> Result<()> {
        let Owner {
            person: owner,
            control,
            ghost,
        } = &self.asked;
        let asker = Person::register(fake, &format!("ron{seed}")).await?;
        let room = asker.starts_chat(&[ghost]).await?;
        let line = format!("may I see the heron, {seed}?");
        asker.says(&room, &line).await?;
        let log = owner.log();
        let shown = |seen: &Seen| {
            let text = seen
                .text()
                .filter(|text| text.contains(asker.user_id.as_str()))?;
            let (_, number) = text.split_once("Request ")?;
            Some(number.split_once(':')?.0.to_owned())
        };
        let request = log.until(IN_TIME, "the request", |log| {
            log.events_in(control).iter().find_map(shown)
        });
        let request = request
            .await
            .with_context(|| format!("of {}", asker.user_id))?;
        tokio::time::sleep(plan.pause(200)).await;
        if plan.number(3) == 0 {
            owner.says(control, &format!("decline {request}")).await?;
            return left(&asker, &room, ghost).await;
        }
        owner.says(control, &format!("accept {request}")).await?;
        let invited = |log: &harness::Log| log.invites().into_iter().find(|it| it.room == room);
        log.until(IN_TIME, "an invite after accepting", invited)
            .await?;
        owner.joins(&room).await?;
        let quoted = |seen: &Seen| {
            let text = seen.text().is_some_and(|text| text.contains(&line));
            seen.room == room && seen.sender == *ghost && text
        };
        log.until(IN_TIME, &line, |log| log.find(quoted)).await?;
        left(&asker, &room, ghost).await?;
        let times = said_by(log, &room, ghost, &line);
        ensure!(times == 1, "{line} was passed on {times} times");
        readable(log, &room)?;
        owner.leaves(&room).await
    }

    /// The bot answers a command once.
    async fn command(&self, seed: u64, mut plan: Plan) -> Result<()> {
        let Owner {
            person: owner,
            control,
            ..
        } = &self.open;
        tokio::time::sleep(plan.pause(300)).await;
        owner.says(control, &format!("gibberish{seed}")).await?;
        let word = format!("`gibberish{seed}`");
        let answered = |seen: &Seen| {
            let text = seen.text().is_some_and(|text| text.contains(&word));
            seen.sender == self.bot && text
        };
        let log = owner.log();
        log.until(IN_TIME, &word, |log| log.find(answered)).await?;
        let times = said_by(log, control, &self.bot, &word);
        ensure!(times == 1, "{word} was answered {times} times");
        readable(log, control)
    }

    /// One of the masked pair says a few things; the other reads them once and in order.
    async fn says(&self, who: usize, seed: u64, mut plan: Plan) -> Result<()> {
        let (speaker, reader) = (&self.pair[who], &self.pair[1 - who]);
        let count = 1 + plan.number(5);
        let mark = format!("in round {seed}");
        let text = |n: u64| format!("{n} from {who} {mark}");
        for n in 0..count {
            speaker.person.says(&speaker.room, &text(n)).await?;
            tokio::time::sleep(plan.pause(200)).await;
        }
        let log = reader.person.log();
        let heard = |log: &harness::Log| -> Vec<String> {
            let texts = log.texts_in(&reader.room).into_iter();
            let theirs = texts.filter(|(by, text)| *by == reader.ghost && text.ends_with(&mark));
            theirs.map(|(_, text)| text).collect()
        };
        let last = text(count - 1);
        let arrived = log.until(IN_TIME, &last, |log| {
            heard(log).contains(&last).then_some(())
        });
        arrived
            .await
            .with_context(|| format!("heard only {:?}", heard(log)))?;
        let wanted: Vec<String> = (0..count).map(text).collect();
        ensure!(
            heard(log) == wanted,
            "{:?} instead of {wanted:?}",
            heard(log)
        );
        readable(log, &reader.room)?;
        reader.sees_nothing_of(speaker)
    }
}

async fn left(asker: &Person, room: &RoomId, ghost: &UserId) -> Result<()> {
    let gone =
        |seen: &Seen| seen.room == room && seen.membership() == Some((ghost.as_str(), "leave"));
    let log = asker.log();
    let leaving = log.until(IN_TIME, "the ghost leave", |log| log.find(gone));
    leaving.await.map(drop)
}

/// Nothing in the room is unreadable or shows a shield.
fn readable(log: &harness::Log, room: &RoomId) -> Result<()> {
    let shields = log.shields();
    match shields.iter().find(|seen| seen.room == room) {
        Some(seen) => bail!("{seen:#?}"),
        None => Ok(()),
    }
}

/// What goes wrong around the rounds, until they are over.
async fn weather(
    fake: &Fake,
    service: &mut Service,
    mut plan: Plan,
    mut over: watch::Receiver<bool>,
) -> Result<[u64; 3]> {
    let mut counts = [0; 3];
    loop {
        let pause = plan.pause(2_500);
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
                counts[0] += 1;
            }
            1 => {
                let how = [Restart::Killed, Restart::InOrder][plan.number(2) as usize];
                fake.restart(how, plan.pause(1_000)).await;
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
                tokio::time::sleep(plan.pause(2_000)).await;
                fake.end_outage();
                counts[2] += 1;
            }
        }
    }
}

#[tokio::test]
#[ignore = "takes long: run it by name, with --ignored"]
async fn whatever_fails_each_thing_said_arrives_once_or_its_sender_is_told() -> Result<()> {
    let mut plan = Plan::new();
    let first = plan.seed;
    let rounds = number("STONECHAT_ROUNDS", 60);
    let mut world = World::start(Options::default(), quick()).await?;
    let lanes = (0..LANES.min(rounds)).map(|n| Lane::begin(&world, n));
    let lanes = try_join_all(lanes).await?;
    world.fake.begin_faults(plan.faults());
    let (over, is_over) = watch::channel(false);
    let World { fake, service } = &mut world;
    let fake = &*fake;
    let seeds = std::sync::Mutex::new(first..first + rounds);
    let seeds = &seeds;
    let telling = async {
        let running = lanes.iter().map(|lane| async move {
            loop {
                let seed = seeds.lock().ok().and_then(|mut seeds| seeds.next());
                let Some(seed) = seed else {
                    return anyhow::Ok(());
                };
                let round = lane.round(fake, seed).await;
                round.with_context(|| format!("STONECHAT_SEED={seed} STONECHAT_ROUNDS=1"))?;
            }
        });
        let told = try_join_all(running).await.map(drop);
        over.send_replace(true);
        told
    };
    let (told, weather) = tokio::join!(telling, weather(fake, service, plan.another(), is_over));
    let [kills, restarts, outages] = weather?;
    println!(
        "{rounds} rounds: {kills} kills, {restarts} restarts of the homeserver, {outages} outages, \
         faults: {:?}",
        fake.end_faults()
    );
    told?;
    ensure!(fake.reuses().is_empty(), "{:?}", fake.reuses());
    Ok(())
}
