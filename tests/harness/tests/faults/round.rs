//! What happens in a round of [`seeds`](crate::seeds), all of it at the same time, and what must
//! have become of it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use harness::{
    Log, PATIENCE, Seen,
    fake::{Fake, Mail, Person, World},
};
use ruma::{EventId, OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::{
    introductions::said_by,
    masked::{Side, introduce_masked},
    plan::Plan,
};

/// How long something said may take to arrive, with kills and outages on the way.
const IN_TIME: Duration = PATIENCE.saturating_mul(3);

/// How long the service waits before it makes the same user again, and some time to spare.
const MADE_AGAIN_EVERY: Duration = Duration::from_secs(70);

/// How long somebody takes to read that they could not be read.
const BEFORE_ANOTHER_TRY: Duration = Duration::from_secs(1);

/// How often somebody whose keys get lost says something again until it is read.
const TRIES: u64 = 4;

/// The people who are there in all rounds of a lane.
pub struct Lane {
    bot: OwnedUserId,
    /// Holds an open handle.
    open: Owner,
    /// Holds an open handle, and likes to be asked first.
    asked: Owner,
    /// Two masked people and what they have said so far.
    pair: [Side; 2],
    /// When the device of the ghost that each of them sees was last deleted.
    deleted: [Mutex<Option<Instant>>; 2],
    /// How often each of the pair was told that their key got lost.
    told: [AtomicU64; 2],
    /// How often keys were late, and how often so late that their sender was told.
    late: [AtomicU64; 2],
}

struct Owner {
    person: Arc<Person>,
    control: OwnedRoomId,
    ghost: OwnedUserId,
}

/// What becomes of the keys that somebody sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    Arrive,
    Late,
    Twice,
    Lost,
    /// The device for which they are is deleted, with all of its keys.
    OfDeletedDevice,
}

impl Keys {
    /// Half of the time they arrive, as they should.
    fn by(plan: &mut Plan) -> Self {
        match plan.number(7) {
            0 => Self::Late,
            1 => Self::Twice,
            2 => Self::Lost,
            3 => Self::OfDeletedDevice,
            _ => Self::Arrive,
        }
    }

    /// Where nobody says anything a second time.
    fn that_arrive(plan: &mut Plan) -> Self {
        match Self::by(plan) {
            Self::Lost | Self::OfDeletedDevice => Self::Arrive,
            keys => keys,
        }
    }

    fn begin(self, fake: &Fake, sender: &UserId) {
        let mail = match self {
            Self::Arrive | Self::OfDeletedDevice => return,
            Self::Late => Mail::Late(Vec::new()),
            Self::Twice => Mail::Twice,
            Self::Lost => Mail::Lost,
        };
        fake.with(|server| server.begin_mail(sender.as_str(), mail));
    }

    fn end(self, fake: &Fake, sender: &UserId) {
        fake.with(|server| server.end_mail(sender.as_str()));
    }
}

impl Lane {
    /// Gets everybody to know everybody.
    pub async fn begin(world: &World, n: u64) -> Result<Self> {
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
            deleted: Default::default(),
            told: Default::default(),
            late: Default::default(),
        })
    }

    /// One round. All of it happens at the same time.
    pub async fn round(&self, fake: &Fake, seed: u64) -> Result<()> {
        let mut plan = Plan::of(seed);
        let (first, second) = (plan.another(), plan.another());
        let (third, fourth, fifth) = (plan.another(), plan.another(), plan.another());
        tokio::try_join!(
            self.introduction(fake, seed, first),
            self.request(fake, seed, second),
            self.command(fake, seed, third),
            self.says(fake, 0, seed, fourth),
            self.says(fake, 1, seed, fifth),
        )?;
        Ok(())
    }

    /// Somebody new writes to the open handle. Each line is passed on once, or the owner reads it
    /// in the room itself. A line whose key gets lost is asked for once.
    async fn introduction(&self, fake: &Fake, seed: u64, mut plan: Plan) -> Result<()> {
        let Owner {
            person: owner,
            ghost,
            ..
        } = &self.open;
        let asker = Person::register(fake, &format!("ann{seed}")).await?;
        let keys = match Keys::by(&mut plan) {
            // The asker could not begin a chat with it.
            Keys::OfDeletedDevice => Keys::Lost,
            keys => keys,
        };
        keys.begin(fake, &asker.user_id);
        let room = asker.starts_chat(&[ghost]).await?;
        let lines = if keys == Keys::Lost {
            1
        } else {
            1 + plan.number(3)
        };
        let line = |n: u64| format!("the heron is back {seed}.{n}");
        let mut said = Vec::new();
        for n in 0..lines {
            said.push(asker.says(&room, &line(n)).await?);
            tokio::time::sleep(plan.pause(300)).await;
        }
        if keys == Keys::Late {
            tokio::time::sleep(plan.pause(1_000)).await;
        }
        keys.end(fake, &asker.user_id);
        let log = owner.log();
        joins(owner, &room).await?;
        if keys == Keys::Lost {
            left(&asker, &room, ghost).await?;
            let times = replies(asker.log(), &room, ghost, &said[0]);
            ensure!(times == 1, "{} was asked for {times} times", line(0));
            asker.says(&room, &line(0)).await?;
        }
        for n in 0..lines {
            hears(log, &room, &line(n))
                .await
                .with_context(|| format!("keys: {keys:?}"))?;
        }
        left(&asker, &room, ghost).await?;
        for n in 0..lines {
            let times = said_by(log, &room, ghost, &line(n));
            ensure!(times <= 1, "{} was passed on {times} times", line(n));
        }
        if keys != Keys::Lost {
            readable(log, &room)?;
        }
        readable(asker.log(), &room)?;
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
        let keys = Keys::that_arrive(&mut plan);
        keys.begin(fake, &asker.user_id);
        let room = asker.starts_chat(&[ghost]).await?;
        let line = format!("may I see the heron, {seed}?");
        asker.says(&room, &line).await?;
        if keys == Keys::Late {
            tokio::time::sleep(plan.pause(1_000)).await;
        }
        keys.end(fake, &asker.user_id);
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
        joins(owner, &room).await.context("after accepting")?;
        hears(log, &room, &line)
            .await
            .with_context(|| format!("keys: {keys:?}"))?;
        left(&asker, &room, ghost).await?;
        let times = said_by(log, &room, ghost, &line);
        ensure!(times == 1, "{line} was passed on {times} times");
        readable(log, &room)?;
        owner.leaves(&room).await
    }

    /// The bot answers a command once.
    async fn command(&self, fake: &Fake, seed: u64, mut plan: Plan) -> Result<()> {
        let Owner {
            person: owner,
            control,
            ..
        } = &self.open;
        tokio::time::sleep(plan.pause(300)).await;
        let keys = Keys::that_arrive(&mut plan);
        if keys != Keys::Arrive {
            owner.machine().discard_room_key(control).await?;
        }
        keys.begin(fake, &owner.user_id);
        owner.says(control, &format!("gibberish{seed}")).await?;
        if keys == Keys::Late {
            tokio::time::sleep(plan.pause(1_000)).await;
        }
        keys.end(fake, &owner.user_id);
        let word = format!("`gibberish{seed}`");
        let answered = |seen: &Seen| {
            let text = seen.text().is_some_and(|text| text.contains(&word));
            seen.sender == self.bot && text
        };
        let log = owner.log();
        let answer = log.until(IN_TIME, &word, |log| log.find(answered)).await;
        answer.with_context(|| format!("keys: {keys:?}"))?;
        let times = said_by(log, control, &self.bot, &word);
        ensure!(times == 1, "{word} was answered {times} times");
        readable(log, control)
    }

    /// One of the masked pair says a few things; the other reads them once and in order. What is
    /// deleted is not read in the end. If a key gets lost, or the ghost's device, its sender is told
    /// and says it again. A key that comes too late is told of as well.
    async fn says(&self, fake: &Fake, who: usize, seed: u64, mut plan: Plan) -> Result<()> {
        let (speaker, reader) = (&self.pair[who], &self.pair[1 - who]);
        let (me, room) = (&speaker.person, &speaker.room);
        let count = 1 + plan.number(5);
        let mark = format!("in round {seed}");
        let text = |n: u64| format!("{n} from {who} {mark}");
        let keys = match Keys::by(&mut plan) {
            Keys::OfDeletedDevice if !self.may_delete_device(who) => Keys::Lost,
            keys => keys,
        };
        let deleted = Some(plan.number(count)).filter(|_| plan.number(3) == 0);
        let told = times_told(me.log(), room, &speaker.ghost);
        if keys != Keys::Arrive {
            me.machine().discard_room_key(room).await?;
        }
        keys.begin(fake, &me.user_id);
        if keys == Keys::OfDeletedDevice {
            let ghost = speaker.ghost.as_str();
            fake.with(|server| server.delete_devices(ghost));
        }
        if matches!(keys, Keys::Lost | Keys::OfDeletedDevice) {
            let lost = self.loses_keys(fake, who, &mark).await;
            lost.with_context(|| format!("keys: {keys:?}"))?;
        }
        for n in 0..count {
            let said = me.says(room, &text(n)).await?;
            tokio::time::sleep(plan.pause(200)).await;
            if deleted == Some(n) {
                me.redacts(room, &said).await?;
            }
        }
        if keys == Keys::Late {
            tokio::time::sleep(plan.pause(1_000)).await;
            keys.end(fake, &me.user_id);
        }
        let end = format!("the end {mark}");
        me.says(room, &end).await?;
        keys.end(fake, &me.user_id);
        let log = reader.person.log();
        let heard = |log: &Log| -> Vec<String> {
            let texts = log.texts_in(&reader.room).into_iter();
            let theirs = texts.filter(|(by, text)| *by == reader.ghost && text.ends_with(&mark));
            theirs
                .map(|(_, text)| text)
                .filter(|text| !text.starts_with("try"))
                .collect()
        };
        let arrived = log.until(IN_TIME, &end, |log| heard(log).contains(&end).then_some(()));
        arrived
            .await
            .with_context(|| format!("keys: {keys:?}, heard only {:?}", heard(log)))?;
        // What was deleted before it was passed on was never there.
        let is_deleted = |said: &String| deleted.is_some_and(|n| *said == text(n));
        let wanted: Vec<String> = (0..count).map(text).chain([end]).collect();
        let heard = heard(log);
        let missing: Vec<&String> = wanted.iter().filter(|said| !heard.contains(said)).collect();
        let arrived = wanted.iter().filter(|said| heard.contains(said));
        let what = || format!("{heard:?} of {wanted:?}, deleted {deleted:?}, keys: {keys:?}");
        ensure!(arrived.eq(&heard), "not once or not in order: {}", what());
        if keys == Keys::Late {
            self.late[0].fetch_add(1, Ordering::Relaxed);
        }
        if missing.iter().any(|said| !is_deleted(said)) {
            // An outage can make a late key come later than it is waited for.
            ensure!(keys == Keys::Late, "lost: {}", what());
            self.late[1].fetch_add(1, Ordering::Relaxed);
            is_told(me.log(), room, &speaker.ghost, told)
                .await
                .with_context(what)?;
        }
        if let Some(said) = heard.iter().find(|said| is_deleted(said)) {
            is_taken_back(reader, said).await?;
        }
        readable(log, &reader.room)?;
        reader.sees_nothing_of(speaker)
    }

    /// Returns whether the device of a ghost may be deleted: the service makes the same user again
    /// once a minute at most.
    fn may_delete_device(&self, who: usize) -> bool {
        let mut last = self.deleted[who]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|at| at.elapsed() > MADE_AGAIN_EVERY);
        if may {
            *last = Some(Instant::now());
        }
        may
    }

    /// Returns how often keys were late, and how often so late that their sender was told.
    pub fn late(&self) -> [u64; 2] {
        [0, 1].map(|n| self.late[n].load(Ordering::Relaxed))
    }

    /// Says things whose key is lost until one is read. For each that is not, its sender is told.
    async fn loses_keys(&self, fake: &Fake, who: usize, mark: &str) -> Result<()> {
        let (speaker, reader) = (&self.pair[who], &self.pair[1 - who]);
        let (me, room) = (&speaker.person, &speaker.room);
        // matrix-sdk counts the sessions that a device has begun with it, begins anew once the device
        // was gone, and sends a key again when there are more than before.
        let tries = TRIES + self.told[who].load(Ordering::Relaxed);
        for n in 0..tries {
            let before = times_told(me.log(), room, &speaker.ghost);
            let text = format!("try {n} from {who} {mark}");
            me.says(room, &text).await?;
            if n == 0 {
                fake.with(|server| server.end_mail(me.user_id.as_str()));
            }
            let is_read = tokio::select! {
                read = hears(reader.person.log(), &reader.room, &text) => {
                    read?;
                    true
                }
                told = is_told(me.log(), room, &speaker.ghost, before) => {
                    told?;
                    false
                }
            };
            if is_read {
                return Ok(());
            }
            self.told[who].fetch_add(1, Ordering::Relaxed);
            // Nobody reads what they are told and answers in no time; new sessions come meanwhile.
            tokio::time::sleep(BEFORE_ANOTHER_TRY).await;
        }
        bail!("{} could not be read after {tries} tries", me.user_id)
    }
}

/// Waits for an invite into a room and joins it.
async fn joins(owner: &Person, room: &RoomId) -> Result<()> {
    let invited = |log: &Log| log.invites().into_iter().find(|it| it.room == room);
    owner.log().until(IN_TIME, "an invite", invited).await?;
    owner.joins(room).await
}

/// Waits for words in a room, by whomever.
async fn hears(log: &Log, room: &RoomId, words: &str) -> Result<()> {
    let says = |seen: &Seen| {
        let text = seen.text().is_some_and(|text| text.contains(words));
        seen.room == room && text
    };
    log.until(IN_TIME, words, |log| log.find(says))
        .await
        .map(drop)
}

async fn left(asker: &Person, room: &RoomId, ghost: &UserId) -> Result<()> {
    let gone =
        |seen: &Seen| seen.room == room && seen.membership() == Some((ghost.as_str(), "leave"));
    let log = asker.log();
    let leaving = log.until(IN_TIME, "the ghost leave", |log| log.find(gone));
    leaving.await.map(drop)
}

/// How often somebody has replied to an event.
fn replies(log: &Log, room: &RoomId, by: &UserId, to: &EventId) -> usize {
    let reply = Some(("m.in_reply_to", to.as_str()));
    let events = log.events_in(room).into_iter();
    let replies = events.filter(|seen| seen.sender == by && seen.relates_to() == reply);
    replies.count()
}

/// Waits until a ghost has told somebody once more that it could not read them.
async fn is_told(log: &Log, room: &OwnedRoomId, ghost: &UserId, before: usize) -> Result<()> {
    let told = log.until(IN_TIME, "being told", |log| {
        (times_told(log, room, ghost) > before).then_some(())
    });
    told.await
}

/// How often a ghost has told somebody that it could not read them.
fn times_told(log: &Log, room: &OwnedRoomId, ghost: &UserId) -> usize {
    said_by(log, room, ghost, "I couldn't decrypt your message")
}

/// Waits until something that was said is deleted.
async fn is_taken_back(reader: &Side, said: &str) -> Result<()> {
    let log = reader.person.log();
    let copy = log.find(|seen| seen.room == reader.room && seen.text() == Some(said));
    let copy = copy.context("it was there")?.event_id;
    let deletes = |seen: &Seen| {
        seen.event_type == "m.room.redaction" && seen.content["redacts"] == copy.as_str()
    };
    let what = format!("the deletion of {said:?}");
    log.until(IN_TIME, &what, |log| log.find(deletes))
        .await
        .map(drop)
}

/// Nothing in the room is unreadable or shows a shield.
fn readable(log: &Log, room: &RoomId) -> Result<()> {
    let shields = log.shields();
    match shields.iter().find(|seen| seen.room == room) {
        Some(seen) => bail!("{seen:#?}"),
        None => Ok(()),
    }
}
