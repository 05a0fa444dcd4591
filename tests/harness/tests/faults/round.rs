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
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, try_join_all},
};
use harness::{
    Log, Seen,
    fake::{Arrival, Fake, Mail, Person, World},
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::{
    group::{Group, introduction_in_group},
    introductions::said_by,
    masked::{Side, introduce_masked},
    oracle::{
        IN_TIME, encrypts_early, hears, is_taken_back, is_told, joins, joins_after, left, readable,
        readable_but_for_races, replies, times_told,
    },
    plan::Plan,
};

/// How long the service waits before it makes the same user again, and some time to spare.
const MADE_AGAIN_EVERY: Duration = Duration::from_secs(70);

/// How long somebody takes to read that they could not be read; longer each time.
const BEFORE_ANOTHER_TRY: Duration = Duration::from_secs(1);

/// How often somebody whose keys get lost says something again until it is read.
const TRIES: u64 = 5;

/// The people who are there in all rounds of a lane.
pub struct Lane {
    bot: OwnedUserId,
    /// Holds an open handle.
    open: Owner,
    /// Holds an open handle too.
    also_open: Owner,
    /// Holds an open handle, and likes to be asked first.
    asked: Owner,
    /// Two masked people, the first of whom is of another server.
    pair: [Mutex<Side>; 2],
    group: Group,
    /// When something of the ghost that each of the pair sees was last deleted.
    deleted: [Mutex<Option<Instant>>; 2],
    /// How often each of the pair was told that their key got lost.
    told: [AtomicU64; 2],
    /// How often keys were late, and how often so late that their sender was told.
    late: [AtomicU64; 2],
    /// How many owners were introduced in groups, and how many came after the line was passed on.
    introduced: [AtomicU64; 2],
}

pub struct Owner {
    pub person: Arc<Person>,
    control: OwnedRoomId,
    pub ghost: OwnedUserId,
}

/// What becomes of the keys that somebody sends to a ghost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    Arrive,
    Late,
    Twice,
    Lost,
    /// The ghost has no one-time keys left, and its fallback key was used before.
    OfUsedFallback,
    /// The homeserver has lost the ghost's device with all of its keys.
    OfDeletedDevice,
    /// The homeserver has lost the ghost's registration with everything that belongs to it.
    OfDeletedUser,
    /// The homeserver shows no keys of the ghost's device.
    Unpublished,
}

/// Another server that does not reach ours while its person says something.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// So many of the newest events are pushed in the end.
    newest: usize,
    arrival: Arrival,
    /// Something said meanwhile is shown to nobody; it may be deleted.
    deletes_unseen: bool,
}

impl Keys {
    /// Half of the time they arrive, as they should.
    fn by(plan: &mut Plan) -> Self {
        match plan.number(14) {
            0 | 1 => Self::Late,
            2 => Self::Twice,
            3 => Self::Lost,
            4 => Self::OfUsedFallback,
            5 => Self::OfDeletedDevice,
            6 => Self::OfDeletedUser,
            7 => Self::Unpublished,
            _ => Self::Arrive,
        }
    }

    /// Where nobody says anything a second time.
    pub fn that_arrive(plan: &mut Plan) -> Self {
        match Self::by(plan) {
            keys if keys == Self::Lost || keys.are_deleted() => Self::Arrive,
            keys => keys,
        }
    }

    /// Returns whether the service has to make something again.
    fn are_deleted(self) -> bool {
        matches!(
            self,
            Self::OfDeletedDevice | Self::OfDeletedUser | Self::Unpublished
        )
    }

    pub fn begin(self, fake: &Fake, sender: &UserId, ghost: &UserId) {
        let (sender, ghost) = (sender.as_str(), ghost.as_str());
        fake.with(|server| match self {
            Self::Arrive => {}
            Self::Late => server.begin_mail(sender, Mail::Late(Vec::new())),
            Self::Twice => server.begin_mail(sender, Mail::Twice),
            Self::Lost => server.begin_mail(sender, Mail::Lost),
            Self::OfUsedFallback => server.use_up_keys(ghost),
            Self::OfDeletedDevice => server.delete_devices(ghost),
            Self::OfDeletedUser => server.lose_account(ghost),
            Self::Unpublished => server.lose_keys(ghost),
        });
    }

    pub fn end(self, fake: &Fake, sender: &UserId) {
        fake.with(|server| server.end_mail(sender.as_str()));
    }
}

impl Cut {
    /// One time in three.
    fn by(plan: &mut Plan) -> Option<Self> {
        let cut = Self {
            newest: 1 + plan.number(10) as usize,
            arrival: [Arrival::InOrder, Arrival::NewestFirst][plan.number(2) as usize],
            deletes_unseen: plan.number(2) == 0,
        };
        (plan.number(3) == 0).then_some(cut)
    }

    fn begin(fake: &Fake, person: &Person) {
        let server_name = person.user_id.server_name();
        fake.with(|server| server.begin_cut(server_name.as_str()));
    }

    /// The person says something that the homeserver shows to nobody.
    async fn unseen(self, fake: &Fake, person: &Person, room: &RoomId, text: &str) -> Result<()> {
        let unseen = person.says(room, text).await?;
        if self.deletes_unseen {
            person.redacts(room, &unseen).await?;
        }
        fake.with(|server| server.soft_fail(unseen.as_str()));
        Ok(())
    }

    fn end(self, fake: &Fake, person: &Person) {
        let name = person.user_id.server_name().as_str();
        fake.with(|server| server.end_cut(name, self.newest, self.arrival));
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
        let bot = world.bot()?;
        let (kim, lee) = (format!("kim{n}:far{n}.test"), format!("lee{n}"));
        let (open, also_open, asked, pair, group) = tokio::try_join!(
            owner(format!("sam{n}")),
            owner(format!("tom{n}")),
            owner(format!("ada{n}")),
            introduce_masked(world, &kim, &lee),
            Group::begin(world, n),
        )?;
        let policy = format!("policy ada{n} ask");
        let answer = asked.person.asks(&asked.control, &bot, &policy).await?;
        ensure!(answer.contains("ask"), "{answer}");
        Ok(Self {
            bot,
            open,
            also_open,
            asked,
            pair: pair.map(Mutex::new),
            group,
            deleted: Default::default(),
            told: Default::default(),
            late: Default::default(),
            introduced: Default::default(),
        })
    }

    /// One round: nearly all of it happens at the same time. Returns which part took longest.
    pub async fn round(&self, fake: &Fake, seed: u64) -> Result<(&'static str, Duration)> {
        let mut plan = Plan::of(seed);
        let mut another = || plan.another();
        let (first, second, third) = (another(), another(), another());
        let (fourth, fifth, sixth, seventh) = (another(), another(), another(), another());
        let parts = [
            timed("introduction", self.introduction(fake, seed, first).boxed()),
            timed("request", self.request(fake, seed, second).boxed()),
            timed("command", self.command(fake, seed, third).boxed()),
            timed(
                "first of the pair",
                self.says(fake, 0, seed, fourth).boxed(),
            ),
            timed(
                "second of the pair",
                self.says(fake, 1, seed, fifth).boxed(),
            ),
            timed(
                "introduction in a group",
                self.introduction_in_group(fake, seed, sixth).boxed(),
            ),
            timed("group", self.group.talks(fake, seed, seventh).boxed()),
        ];
        let mut took = try_join_all(parts).await?;
        if plan.number(6) == 0 {
            let who = plan.number(2) as usize;
            let speaking = self.says_on_another_device(fake, who, seed).boxed();
            took.push(timed("another device", speaking).await?);
        }
        if plan.number(6) == 0 {
            let losing = self.loses_portal(fake, seed).boxed();
            took.push(timed("lost portal", losing).await?);
        }
        let longest = took.into_iter().max_by_key(|(_, took)| *took);
        longest.context("nothing happened")
    }

    /// Returns one of the pair, and the other.
    fn sides(&self, who: usize) -> [Side; 2] {
        [who, 1 - who].map(|who| {
            let side = self.pair[who].lock();
            side.unwrap_or_else(PoisonError::into_inner).clone()
        })
    }

    /// The homeserver has lost that the ghost of a portal is there: the next that is said brings its
    /// owner into another one.
    async fn loses_portal(&self, fake: &Fake, seed: u64) -> Result<()> {
        let [kim, mut lee] = self.sides(0);
        let rooms = |log: &Log| -> Vec<OwnedRoomId> {
            let invites = log.invites().into_iter();
            invites.map(|invite| invite.room).collect()
        };
        let before = rooms(lee.person.log());
        let (old, ghost) = (lee.room.as_str(), lee.ghost.as_str());
        fake.with(|server| server.put_member(old, ghost, ghost, "leave"));
        let line = format!("where are you, {seed}?");
        kim.person.says(&kim.room, &line).await?;
        let log = lee.person.log();
        let another = |log: &Log| rooms(log).into_iter().find(|room| !before.contains(room));
        let room = log.until(IN_TIME, "another portal", another).await?;
        lee.person.joins(&room).await?;
        hears(log, &room, &line).await?;
        lee.room = room;
        let answer = format!("here I am, {seed}");
        lee.person.says(&lee.room, &answer).await?;
        *self.pair[1].lock().unwrap_or_else(PoisonError::into_inner) = lee;
        hears(kim.person.log(), &kim.room, &answer).await
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
            keys if keys.are_deleted() => Keys::Lost,
            keys => keys,
        };
        keys.begin(fake, &asker.user_id, ghost);
        let room = asker.starts_chat(&[ghost]).await?;
        let lines = if keys == Keys::Lost {
            1
        } else {
            1 + plan.number(3)
        };
        let line = |n: u64| format!("the heron is back {seed}.{n}");
        let early = match lines > 1 && plan.number(3) == 0 {
            true => Some(encrypts_early(&asker, &room, &line(lines - 1)).await?),
            false => None,
        };
        let mut said = Vec::new();
        for n in 0..lines - u64::from(early.is_some()) {
            said.push(asker.says(&room, &line(n)).await?);
            tokio::time::sleep(plan.pause(300)).await;
        }
        if keys == Keys::Late {
            tokio::time::sleep(plan.pause(1_000)).await;
        }
        keys.end(fake, &asker.user_id);
        let log = owner.log();
        joins_after(owner, &room, early.map(|early| asker.puts(&room, early))).await?;
        if keys == Keys::Lost {
            left(&asker, &room, ghost).await?;
            let times = replies(asker.log(), &room, ghost, &said[0]);
            ensure!(times == 1, "{} was asked for {times} times", line(0));
            asker.says(&room, &line(0)).await?;
        }
        for n in 0..lines {
            hears(log, &room, &line(n)).await.with_context(|| {
                let asker = asker.log().transcript();
                format!("keys: {keys:?}; the asker saw:\n{asker}")
            })?;
        }
        left(&asker, &room, ghost).await?;
        for n in 0..lines {
            let times = said_by(log, &room, ghost, &line(n));
            ensure!(times <= 1, "{} was passed on {times} times", line(n));
        }
        if keys != Keys::Lost {
            readable_but_for_races(owner, &room, &asker)?;
        }
        readable(asker.log(), &room)?;
        owner.leaves(&room).await
    }

    /// Somebody new makes a group with two open handles and somebody whose server does not answer.
    async fn introduction_in_group(&self, fake: &Fake, seed: u64, plan: Plan) -> Result<()> {
        let (owners, silent) = ([&self.open, &self.also_open], &self.group.silent);
        let late = introduction_in_group(fake, owners, silent, seed, plan).await?;
        for (count, more) in self.introduced.iter().zip([owners.len(), late]) {
            count.fetch_add(more as u64, Ordering::Relaxed);
        }
        Ok(())
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
        keys.begin(fake, &asker.user_id, ghost);
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
        keys.begin(fake, &owner.user_id, &self.bot);
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
    /// deleted is not read in the end. If a key gets lost, or what the ghost has on the homeserver,
    /// its sender is told and says it again. A key that comes too late is told of as well.
    async fn says(&self, fake: &Fake, who: usize, seed: u64, mut plan: Plan) -> Result<()> {
        let [speaker, reader] = &self.sides(who);
        let (me, room) = (&speaker.person, &speaker.room);
        let count = 1 + plan.number(5);
        let mark = format!("in round {seed}");
        let text = |n: u64| format!("{n} from {who} {mark}");
        let keys = match Keys::by(&mut plan) {
            keys if keys.are_deleted() && !self.may_delete(who) => Keys::Lost,
            keys => keys,
        };
        let cut = Cut::by(&mut plan).filter(|_| who == 0);
        let deleted = Some(plan.number(count)).filter(|_| plan.number(3) == 0);
        let told = times_told(me.log(), room, &speaker.ghost);
        if keys != Keys::Arrive {
            me.machine().discard_room_key(room).await?;
        }
        keys.begin(fake, &me.user_id, &speaker.ghost);
        if keys == Keys::Lost || keys.are_deleted() {
            let lost = self.loses_keys(fake, who, keys, &mark).await;
            lost.with_context(|| format!("keys: {keys:?}"))?;
        }
        if cut.is_some() {
            Cut::begin(fake, me);
        }
        for n in 0..count {
            let said = me.says(room, &text(n)).await?;
            tokio::time::sleep(plan.pause(200)).await;
            if deleted == Some(n) {
                me.redacts(room, &said).await?;
            }
        }
        if let Some(cut) = cut {
            let text = format!("seen by nobody {mark}");
            cut.unseen(fake, me, room, &text).await?;
        }
        if keys == Keys::Late {
            tokio::time::sleep(plan.pause(1_000)).await;
            keys.end(fake, &me.user_id);
        }
        let end = format!("the end {mark}");
        me.says(room, &end).await?;
        keys.end(fake, &me.user_id);
        if let Some(cut) = cut {
            cut.end(fake, me);
        }
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
            .with_context(|| format!("keys: {keys:?}, {cut:?}, heard only {:?}", heard(log)))?;
        // What was deleted before it was passed on was never there.
        let is_deleted = |said: &String| deleted.is_some_and(|n| *said == text(n));
        let wanted: Vec<String> = (0..count).map(text).chain([end]).collect();
        let heard = heard(log);
        let missing: Vec<&String> = wanted.iter().filter(|said| !heard.contains(said)).collect();
        let arrived = wanted.iter().filter(|said| heard.contains(said));
        let what =
            || format!("{heard:?} of {wanted:?}, deleted {deleted:?}, keys: {keys:?}, {cut:?}");
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

    /// Somebody logs in on another device without anybody being told, is read there, and reads.
    async fn says_on_another_device(&self, fake: &Fake, who: usize, seed: u64) -> Result<()> {
        let [speaker, reader] = self.sides(who);
        let (me, device) = (&speaker.person.user_id, format!("TABLET{seed}"));
        fake.with(|server| server.hide_device_changes(me.as_str()));
        let tablet = speaker.person.logs_in(fake, &device).await?;
        let line = format!("I have a new device, {seed}");
        tablet.says(&speaker.room, &line).await?;
        hears(reader.person.log(), &reader.room, &line).await?;
        let answer = format!("I can read your new device, {seed}");
        reader.person.says(&reader.room, &answer).await?;
        hears(tablet.log(), &speaker.room, &answer).await?;
        fake.with(|server| server.log_out(me.as_str(), &device));
        Ok(())
    }

    /// Returns whether something of a ghost may be deleted: the service makes the same user again
    /// once a minute at most.
    fn may_delete(&self, who: usize) -> bool {
        let mut last = self.deleted[who]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|at| at.elapsed() > MADE_AGAIN_EVERY);
        if may {
            *last = Some(Instant::now());
        }
        may
    }

    /// Returns how many owners were introduced in groups, and how many came after the line was passed
    /// on.
    pub fn introduced(&self) -> [u64; 2] {
        [0, 1].map(|n| self.introduced[n].load(Ordering::Relaxed))
    }

    /// Returns how often keys were late, and how often so late that their sender was told.
    pub fn late(&self) -> [u64; 2] {
        [0, 1].map(|n| self.late[n].load(Ordering::Relaxed))
    }

    /// Says things whose key is lost until one is read. For each that is not, its sender is told.
    /// What the homeserver has lost is there again before the second.
    async fn loses_keys(&self, fake: &Fake, who: usize, keys: Keys, mark: &str) -> Result<()> {
        let [speaker, reader] = &self.sides(who);
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
            if n == 0 && keys.are_deleted() {
                let is_there = || fake.with(|server| server.is_signed(speaker.ghost.as_str()));
                fake.until(IN_TIME, is_there).await?;
            } else if is_read {
                return Ok(());
            }
            self.told[who].fetch_add(u64::from(!is_read), Ordering::Relaxed);
            // Nobody reads what they are told and answers in no time; new sessions come meanwhile.
            tokio::time::sleep(BEFORE_ANOTHER_TRY.mul_f64(n as f64 + 1.0)).await;
        }
        bail!("{} could not be read after {tries} tries", me.user_id)
    }
}

/// Tells how long a part of a round takes.
async fn timed(
    part: &'static str,
    doing: BoxFuture<'_, Result<()>>,
) -> Result<(&'static str, Duration)> {
    let began = Instant::now();
    doing.await.context(part)?;
    Ok((part, began.elapsed()))
}
