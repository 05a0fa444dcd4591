//! Two masked people write to each other while the service is killed and the homeserver restarted.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::{Chat, Person, checks};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use ruma::UserId;

use crate::{
    masked::{comes_to_portal, masked, masks},
    told::{LINE, quick},
};

/// How many messages each of the two sends.
const EACH: usize = 500;
/// How often the service is killed.
const KILLS: usize = 10;
/// How often the homeserver is restarted.
const RESTARTS: usize = 2;
/// How long each wait for messages may take, kills and restarts included.
const ARRIVAL: Duration = Duration::from_secs(10 * 60);

fn line(who: &str, number: usize) -> String {
    format!("{who} says number {number} of many")
}

/// Says everything, each thing until the homeserver has taken it: it is away now and then.
async fn says_all(chat: Chat, who: &'static str) -> Result<()> {
    for number in 0..EACH {
        let text = line(who, number);
        let id = ruma::TransactionId::new();
        let mut tries = 0;
        // One transaction id for all tries, as a client has it: said once, however often sent.
        while let Err(error) = chat.says_as(&text, &id).await {
            tries += 1;
            ensure!(tries < 240, "{who} cannot say anything: {error:#}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
    Ok(())
}

/// Waits until the last thing has arrived, and checks that each did once and in order.
async fn heard_all(me: &Person, chat: &Chat, from: &UserId, who: &str) -> Result<()> {
    let last = line(who, EACH - 1);
    me.until_within(ARRIVAL, &format!("the last of {who}"), |log| {
        let texts = log.texts_in(chat.id());
        texts.iter().any(|(_, text)| *text == last).then_some(())
    })
    .await?;
    let heard: Vec<String> = chat
        .texts()
        .into_iter()
        .filter(|(sender, text)| sender == from && text.starts_with(who))
        .map(|(_, text)| text)
        .collect();
    let said: Vec<String> = (0..EACH).map(|number| line(who, number)).collect();
    if heard == said {
        return Ok(());
    }
    eprintln!(
        "failed syncs of {}: {:#?}",
        me.user_id,
        me.log().failed_syncs()
    );
    let first = heard
        .iter()
        .zip(&said)
        .position(|(heard, said)| heard != said);
    let missing: Vec<&String> = said.iter().filter(|said| !heard.contains(said)).collect();
    let others: Vec<String> = chat.texts().into_iter().map(|(_, text)| text).collect();
    let others = others.iter().filter(|text| !text.contains("says number"));
    bail!(
        "of {who} came {} of {}, first wrong at place {first:?} ({:?}), missing {missing:?}, \
         unreadable {:?}, and {:?}",
        heard.len(),
        said.len(),
        first.and_then(|at| heard.get(at..heard.len().min(at + 5))),
        me.log().shields(),
        others.collect::<Vec<_>>()
    )
}

#[tokio::test]
async fn a_thousand_messages_arrive_once_and_in_order_whatever_is_killed() -> Result<()> {
    let seed = match std::env::var("STONECHAT_SEED") {
        Ok(seed) => seed.parse().context("STONECHAT_SEED is a number")?,
        Err(_) => rand::rng().random(),
    };
    eprintln!("STONECHAT_SEED={seed} repeats these choices");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut story = masked(quick()).await?;
    let alices_room = story.world.control_room(&story.alice).await?;
    story
        .world
        .claims(&story.alice, &alices_room, "alice")
        .await?;
    masks(&story.world, &alices_room, "alice").await?;
    let chat = story.alice_writes(LINE).await?;
    let (alices_ghost, sams) = comes_to_portal(&story.sam).await?;
    sams.sees(LINE).await?;
    sams.says("here I am").await?;
    chat.sees("here I am").await?;

    let talking = tokio::spawn({
        let (chat, sams) = (chat.clone(), sams.clone());
        async move { tokio::try_join!(says_all(chat, "Alice"), says_all(sams, "Sam")).map(drop) }
    });
    // What happens when is told by how far they are, not by a clock.
    let mut troubles: Vec<bool> = vec![true; KILLS];
    troubles.extend(vec![false; RESTARTS]);
    let mut at: Vec<usize> = (0..troubles.len())
        .map(|_| rng.random_range(1..EACH * 9 / 10))
        .collect();
    at.sort_unstable();
    for nth in (1..troubles.len()).rev() {
        troubles.swap(nth, rng.random_range(0..=nth));
    }
    for (kill, at) in troubles.into_iter().zip(at) {
        let reached = line("Alice", at);
        let has_come = |log: &harness::Log| {
            let texts = log.texts_in(chat.id());
            texts.iter().any(|(_, text)| *text == reached).then_some(())
        };
        story
            .alice
            .until_within(ARRIVAL, "the next trouble", has_come)
            .await?;
        if kill {
            story.world.service.kill().await?;
            story.world.service.start().await?;
        } else {
            story.world.synapse.restart().await?;
        }
    }
    tokio::time::timeout(ARRIVAL, talking)
        .await
        .context("they are still talking")???;
    heard_all(&story.sam, &sams, &alices_ghost, "Alice").await?;
    heard_all(&story.alice, &chat, &story.ghost, "Sam").await?;
    checks::nothing_to_warn_of(&[&story.alice, &story.sam]).await?;
    story.world.nothing_leaked(&["says number 77 of many"])
}
