//! Groups in a round of [`seeds`](crate::seeds): a conversation in which two of three people are
//! masked, and introductions into a room with several. In each is also somebody whose server does
//! not say which devices they have: nobody waits for them.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use harness::{
    Invite, Log, Seen,
    fake::{Fake, Person, World},
};
use ruma::{OwnedRoomId, OwnedUserId};

use crate::{
    introductions::said_by,
    masked::masked,
    oracle::{
        IN_TIME, UNREAD, encrypts_early, joins, joins_after, left, readable, readable_but_for_races,
    },
    plan::Plan,
    round::{Keys, Owner},
};

/// How long the homeserver waits for a server that does not answer.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(1);

/// What a ghost says whose owner was invited after the line was passed on.
const FROM_NOW_ON: &str = "can read what is written here from now on";

/// A masked group.
pub struct Group {
    /// The first has made the room and is not masked.
    members: Vec<Member>,
    /// Is in the room of the first.
    pub silent: Arc<Person>,
}

struct Member {
    person: Arc<Person>,
    room: OwnedRoomId,
    /// Who listens in that room.
    ghost: OwnedUserId,
}

impl Group {
    /// Gets everybody to know everybody.
    pub async fn begin(world: &World, n: u64) -> Result<Self> {
        let silent = Person::register(&world.fake, &format!("mia{n}:silent{n}.test")).await?;
        let ida = Person::register(&world.fake, &format!("ida{n}")).await?;
        let handles = [format!("max{n}"), format!("noa{n}")];
        let names = [handles[0].clone(), format!("{}:far{n}.test", handles[1])];
        let owners = try_join_all(names.iter().map(|name| masked(world, name))).await?;
        let ghosts = [world.ghost(&handles[0])?, world.ghost(&handles[1])?];
        let room = ida
            .starts_group(&[&ghosts[0], &ghosts[1], &silent.user_id])
            .await?;
        silent.joins(&room).await?;
        for ghost in &ghosts {
            let joined = |seen: &Seen| seen.membership() == Some((ghost.as_str(), "join"));
            ida.sees(&room, "a ghost join", joined).await?;
        }
        ida.says(&room, "good evening, all").await?;
        let mut members = vec![Member {
            person: ida,
            room,
            ghost: ghosts[0].clone(),
        }];
        for (person, _) in owners {
            let by_ghost = |invite: &Invite| invite.sender.localpart() != "_dm_.bot";
            let invite = person.invited(by_ghost).await?;
            person.joins(&invite.room).await?;
            let hello = |seen: &Seen| seen.text() == Some("good evening, all");
            person
                .sees(&invite.room, "the first message", hello)
                .await?;
            members.push(Member {
                person,
                room: invite.room,
                ghost: invite.sender,
            });
        }
        let silent_server = silent.user_id.server_name().as_str();
        world.fake.set_silent(silent_server, GIVEN_UP_AFTER);
        Ok(Self { members, silent })
    }

    /// Each says a few things at the same time; all others read them once and in order. If a key
    /// comes too late, its sender is told.
    pub async fn talks(&self, fake: &Fake, seed: u64, mut plan: Plan) -> Result<()> {
        let all = (0..self.members.len()).map(|who| {
            let plan = plan.another();
            self.says(fake, who, seed, plan)
        });
        try_join_all(all).await.map(drop)
    }

    async fn says(&self, fake: &Fake, who: usize, seed: u64, mut plan: Plan) -> Result<()> {
        let Member {
            person: me,
            room,
            ghost,
        } = &self.members[who];
        let mark = format!("from {who} in group {seed}");
        let told = times_told(me.log(), room);
        let keys = Keys::that_arrive(&mut plan);
        if keys != Keys::Arrive {
            me.machine().discard_room_key(room).await?;
        }
        keys.begin(fake, &me.user_id, ghost);
        let count = 1 + plan.number(3);
        for n in 0..count {
            me.says(room, &format!("{n} {mark}")).await?;
            tokio::time::sleep(plan.pause(300)).await;
        }
        keys.end(fake, &me.user_id);
        me.says(room, &format!("the end {mark}")).await?;
        let said: Vec<String> = (0..count)
            .map(|n| n.to_string())
            .chain(["the end".to_owned()])
            .map(|text| format!("{text} {mark}"))
            .collect();
        let others = self.members.iter().filter(|other| other.room != *room);
        for other in others {
            let what = || {
                format!(
                    "{} reads {}, keys: {keys:?}",
                    other.person.user_id, me.user_id
                )
            };
            let heard = other.hears(&mark).await.with_context(what)?;
            let arrived = said.iter().filter(|said| heard.contains(said));
            ensure!(
                arrived.eq(&heard),
                "not once or not in order: {heard:?} of {said:?}, {}",
                what()
            );
            if heard.len() < said.len() {
                ensure!(
                    keys == Keys::Late,
                    "lost: {heard:?} of {said:?}, {}",
                    what()
                );
                let is_told = |log: &Log| (times_told(log, room) > told).then_some(());
                let telling = me.log().until(IN_TIME, "being told", is_told);
                telling.await.with_context(what)?;
            }
            self.is_hidden_from(other)?;
            readable(other.person.log(), &other.room)?;
        }
        Ok(())
    }

    /// Nobody sees the Matrix ID of somebody masked, and masked people see nobody's.
    fn is_hidden_from(&self, reader: &Member) -> Result<()> {
        let is_masked = reader.room != self.members[0].room;
        let first = usize::from(!is_masked);
        let others = self.members[first..].iter().map(|member| &member.person);
        let silent = Some(&self.silent).filter(|_| is_masked);
        let others = others.chain(silent).map(|person| &person.user_id);
        for other in others.filter(|other| **other != reader.person.user_id) {
            for seen in reader.person.log().events_in(&reader.room) {
                let all = format!("{} {:?} {}", seen.sender, seen.state_key, seen.content);
                ensure!(!all.contains(other.as_str()), "{other} is in {seen:#?}");
            }
        }
        Ok(())
    }
}

impl Member {
    /// Waits for the last thing that somebody says in a round, and returns all of it.
    async fn hears(&self, mark: &str) -> Result<Vec<String>> {
        let heard = |log: &Log| -> Vec<String> {
            let texts = log.texts_in(&self.room).into_iter();
            let texts = texts.map(|(_, text)| text);
            texts.filter(|text| text.ends_with(mark)).collect()
        };
        let end = format!("the end {mark}");
        let log = self.person.log();
        let arrived = log.until(IN_TIME, &end, |log| heard(log).contains(&end).then_some(()));
        arrived
            .await
            .with_context(|| format!("heard only {:?}", heard(log)))?;
        Ok(heard(log))
    }
}

/// How often any ghost has told somebody that it could not read them.
fn times_told(log: &Log, room: &OwnedRoomId) -> usize {
    let texts = log.texts_in(room).into_iter();
    texts.filter(|(_, text)| text.contains(UNREAD)).count()
}

/// Somebody new makes a group with two open handles and somebody of a server that does not answer.
/// Each line is passed on once for both owners, or they read it in the room itself. Returns for how
/// many owners that was not so: they were invited too late, and their ghost has said that they can
/// read from now on.
pub async fn introduction_in_group(
    fake: &Fake,
    owners: [&Owner; 2],
    silent: &Person,
    seed: u64,
    mut plan: Plan,
) -> Result<usize> {
    let asker = Person::register(fake, &format!("gus{seed}")).await?;
    let keys = Keys::that_arrive(&mut plan);
    keys.begin(fake, &asker.user_id, &owners[0].ghost);
    let invited = [&*owners[0].ghost, &*owners[1].ghost, &*silent.user_id];
    let room = asker.starts_group(&invited).await?;
    let lines = 1 + plan.number(3);
    let lines: Vec<String> = (0..lines)
        .map(|n| format!("the herons are back {seed}.{n}"))
        .collect();
    let (first, last) = match lines.split_last() {
        Some((last, first)) if !first.is_empty() && plan.number(3) == 0 => (first, Some(last)),
        _ => (&*lines, None),
    };
    let early = match last {
        Some(last) => Some(encrypts_early(&asker, &room, last).await?),
        None => None,
    };
    for line in first {
        asker.says(&room, line).await?;
        tokio::time::sleep(plan.pause(300)).await;
    }
    if keys == Keys::Late {
        tokio::time::sleep(plan.pause(1_000)).await;
    }
    keys.end(fake, &asker.user_id);
    let [one, other] = owners.map(|owner| &owner.person);
    joins_after(one, &room, early.map(|early| asker.puts(&room, early))).await?;
    joins(other, &room).await?;
    let mut late = 0;
    for owner in owners {
        let (log, ghost) = (owner.person.log(), &owner.ghost);
        let is_told = |log: &Log| said_by(log, &room, ghost, FROM_NOW_ON) > 0;
        let has_all = |log: &Log| {
            let texts = log.texts_in(&room);
            lines
                .iter()
                .all(|line| texts.iter().any(|(_, text)| text.contains(line)))
        };
        let done = |log: &Log| (has_all(log) || is_told(log)).then_some(());
        let reading = log.until(IN_TIME, "each line in a group", done).await;
        reading.with_context(|| format!("{}, keys: {keys:?}", owner.person.user_id))?;
        left(&asker, &room, ghost).await?;
        if !has_all(log) {
            ensure!(is_told(asker.log()), "{} was not told", asker.user_id);
            late += 1;
        }
    }
    for owner in owners {
        let log = owner.person.log();
        for line in &lines {
            let texts = log.texts_in(&room).into_iter();
            let copies = texts.filter(|(by, text)| *by != asker.user_id && text.contains(line));
            let times = copies.count();
            ensure!(times <= 1, "{line} was passed on {times} times");
        }
        readable_but_for_races(&owner.person, &room, &asker)?;
        owner.person.leaves(&room).await?;
    }
    readable(asker.log(), &room)?;
    Ok(late)
}
