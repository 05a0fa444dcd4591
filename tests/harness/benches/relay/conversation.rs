//! A conversation between two masked people: setting it up, speaking in it, and looking at what
//! became of what was said.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use harness::{
    Seen,
    fake::{Event, Person, World},
};
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{json, value::RawValue};

/// After so many syncs a client has the keys of everything that is measured.
const SYNCS: usize = 20;

/// Alice speaks, and what she says is carried into Sam's portal.
pub struct Conversation {
    world: Arc<World>,
    alice: Arc<Person>,
    room: OwnedRoomId,
    sam: Arc<Person>,
    portal: OwnedRoomId,
    /// Who stands for Alice.
    ghost: OwnedUserId,
}

/// Where a measurement begins in both rooms.
pub struct Marks {
    room: usize,
    portal: usize,
}

/// Two masked people, with their handles.
pub struct Pair {
    alice: Arc<Person>,
    sam: Arc<Person>,
    handle: String,
}

async fn masked(world: &World, handle: String) -> Result<Arc<Person>> {
    let (person, control) = world.owner(&handle).await?;
    let bot = world.bot()?;
    let command = format!("mode {handle} masked");
    let answer = person.asks(&control, &bot, &command).await?;
    ensure!(!answer.contains("not offered"), "{answer}");
    world.has_keys(&world.ghost(&handle)?).await?;
    Ok(person)
}

/// So many pairs of people who do not know each other yet.
pub async fn people(world: &Arc<World>, count: usize, at_once: usize) -> Result<Vec<Pair>> {
    let making = (0..count).map(|n| async move {
        let handle = format!("sam{n}");
        anyhow::Ok(Pair {
            alice: masked(world, format!("alice{n}")).await?,
            sam: masked(world, handle.clone()).await?,
            handle,
        })
    });
    stream::iter(making)
        .buffer_unordered(at_once)
        .try_collect()
        .await
}

/// Lets each pair begin a conversation; then their clients rest.
pub async fn begin(
    world: &Arc<World>,
    pairs: Vec<Pair>,
    at_once: usize,
) -> Result<Vec<Conversation>> {
    let beginning = pairs.into_iter().map(|pair| async move {
        let Pair { alice, sam, handle } = pair;
        let room = alice.starts_chat(&[&world.ghost(&handle)?]).await?;
        alice.says(&room, "hello").await?;
        let invite = sam.invited(|invite| invite.encrypted).await?;
        sam.joins(&invite.room).await?;
        let hello = |seen: &Seen| seen.text() == Some("hello");
        let seen = sam.sees(&invite.room, "the first message", hello).await?;
        alice.rests();
        sam.rests();
        anyhow::Ok(Conversation {
            world: world.clone(),
            alice,
            room,
            sam,
            portal: invite.room,
            ghost: seen.sender,
        })
    });
    stream::iter(beginning)
        .buffer_unordered(at_once)
        .try_collect()
        .await
}

impl Conversation {
    /// The service's process.
    pub fn process(&self) -> u32 {
        let process = self.world.service.process();
        process.and_then(|process| process.id()).unwrap_or_default()
    }

    /// Waits until everything has been pushed, and the service has asked for nothing for a while.
    pub async fn is_quiet(&self) -> Result<()> {
        let mut requests = self.world.fake.requests();
        loop {
            let still = Duration::from_millis(300);
            let asked = tokio::time::timeout(still, requests.changed()).await;
            let idle = self.world.fake.with(|server| server.queue.is_idle());
            match asked {
                Ok(asked) => asked?,
                Err(_) if idle => return Ok(()),
                Err(_) => {}
            }
        }
    }

    /// Encrypts messages without sending them.
    pub async fn encrypts(&self, count: usize) -> Result<Vec<Box<RawValue>>> {
        // Alice learns who joined since, and whose devices changed.
        self.alice.syncs().await?;
        let empty = json!({"msgtype": "m.text", "body": ""}).to_string().len();
        let mut texts = Vec::with_capacity(count);
        for n in 0..count {
            // Content of 300 bytes, as in the other benchmarks.
            let mut body = format!("{n} ");
            body.push_str(&"x".repeat(300 - empty - body.len()));
            let content = json!({"msgtype": "m.text", "body": body});
            let encrypting = self.alice.encrypts(&self.room, "m.room.message", &content);
            texts.push(encrypting.await?);
        }
        Ok(texts)
    }

    /// Sends what was encrypted.
    pub async fn says(&self, encrypted: Box<RawValue>) -> Result<()> {
        self.alice.puts(&self.room, encrypted).await.map(drop)
    }

    fn length(&self, room: &OwnedRoomId) -> usize {
        self.world.fake.with(|server| {
            let room = server.rooms.get(room.as_str());
            room.map_or(0, |room| room.events.len())
        })
    }

    /// Where both rooms end now.
    pub fn marks(&self) -> Marks {
        Marks {
            room: self.length(&self.room),
            portal: self.length(&self.portal),
        }
    }

    /// How much has come into the portal since.
    pub fn carried(&self, marks: &Marks) -> usize {
        self.length(&self.portal) - marks.portal
    }

    /// When each event was first pushed.
    pub fn pushed(&self) -> HashMap<String, Instant> {
        self.world.fake.pushed()
    }

    /// Each message since, and when the request arrived that carried it. They are told from each
    /// other by their order, which is the same in both rooms.
    pub fn pairs(&self, marks: &Marks, count: usize) -> Result<Vec<(String, Instant)>> {
        let by = |room: &OwnedRoomId, from: usize, who: &OwnedUserId| {
            let events = self.world.fake.events(room.as_str()).into_iter().skip(from);
            let said = |event: &Event| event.kind == "m.room.encrypted" && event.sender == *who;
            events.filter(said).collect::<Vec<_>>()
        };
        let said = by(&self.room, marks.room, &self.alice.user_id);
        let carried = by(&self.portal, marks.portal, &self.ghost);
        ensure!(
            said.len() == count && carried.len() == count,
            "{} said, {} carried",
            said.len(),
            carried.len()
        );
        let pairs = said.into_iter().zip(carried);
        Ok(pairs
            .map(|(said, carried)| (said.id, carried.arrived))
            .collect())
    }

    /// Whether Sam's client shows everything in order, and warns of nothing.
    pub async fn is_well(&self) -> Result<()> {
        let log = self.sam.log();
        // A sync brings a hundred keys at most, and all messages at once.
        for _ in 0..SYNCS {
            self.sam.syncs().await?;
            if log.shields().is_empty() {
                break;
            }
        }
        let texts = log.texts_in(&self.portal).into_iter();
        let texts: Vec<String> = texts
            .filter(|(by, _)| *by == self.ghost)
            .map(|(_, text)| text)
            .collect();
        let mut expected = 0;
        for text in texts.iter().skip(1) {
            let number = text.split(' ').next().context("empty")?;
            let number: usize = number.parse()?;
            ensure!(
                number == 0 || number == expected,
                "{number} after {expected}"
            );
            expected = number + 1;
        }
        let shields = log.shields();
        ensure!(shields.is_empty(), "{:#?}", shields.first());
        Ok(())
    }
}
