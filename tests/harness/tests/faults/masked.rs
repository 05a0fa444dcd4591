//! Two masked people, and everything that can fail between them: each message arrives once, in
//! order, decrypted, from a device that its owner has signed.
//!
//! `STONECHAT_MESSAGES=5000 STONECHAT_KILLS=50` is the long form.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use harness::{
    Log, PATIENCE, Seen, ServiceOptions,
    fake::{Options, Person, Restart, World},
};
use ruma::{OwnedRoomId, OwnedUserId};

use crate::plan::{Plan, number};

/// One of the two: what they see is a room with a ghost.
#[derive(Clone)]
pub struct Side {
    pub person: Arc<Person>,
    /// Their room with the bot, if they have one.
    control: Option<OwnedRoomId>,
    pub room: OwnedRoomId,
    /// Who stands for the other.
    pub ghost: OwnedUserId,
}

/// A conversation between two people who see each other's ghosts only.
pub struct Conversation {
    pub world: World,
    pub alice: Side,
    pub sam: Side,
}

fn options() -> ServiceOptions {
    ServiceOptions::default()
        .set("reconcile.interval", "2s")
        .set("reconcile.ghosts_per_second", 20)
}

/// Somebody with a masked handle; `sam:far.test` is of another server and holds `@sam`.
pub async fn masked(world: &World, name: &str) -> Result<(Arc<Person>, OwnedRoomId)> {
    let (person, control) = world.owner(name).await?;
    let handle = person.user_id.localpart();
    let bot = world.bot()?;
    let command = format!("mode {handle} masked");
    let answer = person.asks(&control, &bot, &command).await?;
    ensure!(!answer.contains("not offered"), "{answer}");
    world.has_keys(&world.ghost(handle)?).await?;
    Ok((person, control))
}

/// Two people with masked handles (the first has none if it is not to be masked), who have met.
async fn meet(world: &World, alice: &str, alice_is_masked: bool, sam: &str) -> Result<[Side; 2]> {
    let (alice, alices_control) = if alice_is_masked {
        let (alice, control) = masked(world, alice).await?;
        (alice, Some(control))
    } else {
        (Person::register(&world.fake, alice).await?, None)
    };
    let (sam, sams_control) = masked(world, sam).await?;
    let sams_ghost = world.ghost(sam.user_id.localpart())?;
    let room = alice.starts_chat(&[&sams_ghost]).await?;
    alice.says(&room, "hello from behind a mask").await?;
    let known = sam.log().invites().len();
    let invite = sam.until("an invite into a portal", |log| {
        log.invites().into_iter().nth(known)
    });
    let invite = invite.await?;
    ensure!(invite.encrypted && invite.is_direct, "{invite:#?}");
    sam.joins(&invite.room).await?;
    let hello = |seen: &Seen| seen.text() == Some("hello from behind a mask");
    let seen = sam.sees(&invite.room, "the first message", hello).await?;
    ensure!(seen.sender == invite.sender && seen.sender != alice.user_id);
    Ok([
        Side {
            person: alice,
            control: alices_control,
            room,
            ghost: sams_ghost,
        },
        Side {
            person: sam,
            control: Some(sams_control),
            room: invite.room,
            ghost: seen.sender,
        },
    ])
}

/// Two people with masked handles who have met.
pub async fn introduce_masked(world: &World, alice: &str, sam: &str) -> Result<[Side; 2]> {
    meet(world, alice, true, sam).await
}

impl Conversation {
    /// Sam is masked. Alice is too, or has no handle at all.
    pub async fn begin(alice_is_masked: bool) -> Result<Self> {
        let world = World::start(Options::default(), options()).await?;
        let [alice, sam] = meet(&world, "alice", alice_is_masked, "sam").await?;
        Ok(Self { world, alice, sam })
    }

    /// How much there is in both rooms: it rises with each message said and with each carried.
    fn progress(&self) -> usize {
        let rooms = [&self.alice.room, &self.sam.room];
        self.world.fake.with(|server| {
            let rooms = rooms
                .iter()
                .filter_map(|room| server.rooms.get(room.as_str()));
            rooms.map(|room| room.events.len()).sum()
        })
    }

    /// Kills the service, and now and then the homeserver, at moments of the plan: when so much
    /// has happened, and some requests later.
    pub async fn kills(&mut self, plan: &mut Plan, times: u64, messages: u64) -> Result<()> {
        let before = self.progress();
        for at in plan.moments(times, messages * 3) {
            let mut requests = self.world.fake.requests();
            let (mut reached, mut since) = (self.progress(), Instant::now());
            while reached - before < at {
                let next = tokio::time::timeout(PATIENCE, requests.changed()).await;
                next.with_context(|| format!("nothing happens after {reached}"))??;
                if self.progress() > reached {
                    (reached, since) = (self.progress(), Instant::now());
                }
                // It may ask and ask, and get nowhere.
                ensure!(
                    since.elapsed() < 2 * PATIENCE,
                    "no progress after {reached}"
                );
            }
            for _ in 0..plan.number(12) {
                // The service may have nothing more to ask.
                let _ = tokio::time::timeout(Duration::from_millis(50), requests.changed()).await;
            }
            plan.kill(&mut self.world, 150).await?;
        }
        // It is ready when a transaction of the homeserver has arrived, which may take as long as
        // everything else that is queued there; whether it is at work is seen by what it does.
        Ok(())
    }
}

impl Side {
    fn text(&self, n: u64) -> String {
        format!("{} says {n}", self.person.user_id.localpart())
    }

    async fn says_all(&self, mut plan: Plan, messages: u64) -> Result<()> {
        for n in 0..messages {
            self.person.says(&self.room, &self.text(n)).await?;
            tokio::time::sleep(plan.pause(30)).await;
        }
        Ok(())
    }

    /// What the ghost has said here, in order.
    fn heard(&self, log: &Log) -> Vec<String> {
        let texts = log.texts_in(&self.room).into_iter();
        let ghosts = texts.filter(|(by, _)| *by == self.ghost);
        ghosts.map(|(_, text)| text).collect()
    }

    /// Waits for everything that the other side has said, as long as more and more comes.
    async fn hears_all(&self, other: &Side, messages: u64) -> Result<()> {
        let last = other.text(messages - 1);
        let mut count = 0;
        loop {
            let more = self.person.until("more", |log| {
                let heard = self.heard(log);
                let done = heard.contains(&last);
                (done || heard.len() > count).then_some((done, heard.len()))
            });
            let (done, now) = match more.await {
                Ok(more) => more,
                Err(_) => bail!("{} heard {count} and no more", self.person.user_id),
            };
            if done {
                return Ok(());
            }
            count = now;
        }
    }

    /// Everything once, in order, and nothing to warn of.
    fn heard_well(&self, other: &Side, messages: u64) -> Result<()> {
        let log = self.person.log();
        let prefix = format!("{} says ", other.person.user_id.localpart());
        let heard = self.heard(log).into_iter();
        let heard: Vec<String> = heard.filter(|text| text.starts_with(&prefix)).collect();
        let want: Vec<String> = (0..messages).map(|n| other.text(n)).collect();
        if let Some(at) =
            (0..heard.len().max(want.len())).find(|at| heard.get(*at) != want.get(*at))
        {
            let around = |all: &[String]| {
                all[at.min(all.len())..]
                    .iter()
                    .take(6)
                    .cloned()
                    .collect::<Vec<_>>()
            };
            bail!(
                "{} heard {:?} instead of {:?}, {} messages in all",
                self.person.user_id,
                around(&heard),
                around(&want),
                heard.len()
            );
        }
        let shields = log.shields();
        ensure!(shields.is_empty(), "{:#?}", shields.first());
        self.sees_nothing_of(other)
    }

    /// Nobody's Matrix ID crosses.
    pub fn sees_nothing_of(&self, other: &Side) -> Result<()> {
        let id = other.person.user_id.as_str();
        for seen in self.person.log().events_in(&self.room) {
            let all = format!("{} {:?} {}", seen.sender, seen.state_key, seen.content);
            ensure!(!all.contains(id), "{id} is in {seen:#?}");
        }
        Ok(())
    }
}

/// A homeserver forgets what it had queued when it goes down: its history still has it.
#[tokio::test]
async fn what_the_homeserver_has_lost_is_carried_however_much_it_is() -> Result<()> {
    const MESSAGES: u64 = 2_500;
    let mut both = Conversation::begin(true).await?;
    both.world.service.kill().await?;
    for n in 0..MESSAGES {
        let text = both.alice.text(n);
        both.alice.person.says(&both.alice.room, &text).await?;
    }
    let restarting = both.world.fake.restart(Restart::Killed, Duration::ZERO);
    restarting.await;
    both.world.service.launch()?;
    both.sam.hears_all(&both.alice, MESSAGES).await?;
    both.sam.heard_well(&both.alice, MESSAGES)
}

#[tokio::test]
async fn every_message_between_two_masked_people_arrives_once_and_in_order() -> Result<()> {
    let mut plan = Plan::new();
    let messages = number("STONECHAT_MESSAGES", 300);
    let kills = number("STONECHAT_KILLS", 4);
    let mut both = Conversation::begin(true).await?;
    both.world.fake.begin_faults(plan.faults());

    let speaking = [&both.alice, &both.sam].map(|side| {
        let side = side.clone();
        let plan = plan.another();
        tokio::spawn(async move { side.says_all(plan, messages).await })
    });
    both.kills(&mut plan, kills, messages).await?;
    for speaking in speaking {
        speaking.await??;
    }
    println!("faults: {:?}", both.world.fake.end_faults());

    both.alice.hears_all(&both.sam, messages).await?;
    both.sam.hears_all(&both.alice, messages).await?;
    // What would come a second time comes now.
    let bot = both.world.bot()?;
    for side in [&both.alice, &both.sam] {
        let control = side.control.as_ref().context("no control room")?;
        let answer = side.person.asks(control, &bot, "handles");
        answer.await.context("the bot no longer answers")?;
    }
    both.alice.heard_well(&both.sam, messages)?;
    both.sam.heard_well(&both.alice, messages)?;
    let reuses = both.world.fake.reuses();
    ensure!(reuses.is_empty(), "{reuses:?}");
    Ok(())
}
