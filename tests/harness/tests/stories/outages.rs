//! The service, the homeserver or the network between them is away for a while.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use harness::{Chat, Log, PATIENCE, Person, PersonOptions, proxy::Fate};
use ruma::{OwnedUserId, UserId};

use crate::{
    masked::{comes_to_portal, masked, masks},
    owners::deactivates,
    told::{LINE, Story, comes, ends_well, place, quick, quoted, times},
};

/// Longer than anything is tried that fails for another reason and is tried for seconds.
const OUTAGE: Duration = Duration::from_secs(75);
/// The longest pause between two tries, and a little more.
const PAUSE: Duration = Duration::from_secs(90);

async fn story() -> Result<Story> {
    Story::begins_with(quick(), PersonOptions::default()).await
}

/// The line was passed on, once, and the two are alone.
async fn ends(story: &Story, chat: &harness::Chat, line: &str) -> Result<()> {
    let sams = story.sam_comes(chat).await?;
    sams.sees(&quoted("Alice", line)).await?;
    story.ends_well(chat, &sams).await?;
    let passed_on = times(&sams, &story.ghost, line);
    ensure!(passed_on == 1, "{passed_on} times: {:#?}", sams.texts());
    Ok(())
}

#[tokio::test]
async fn what_happens_while_the_service_is_down_is_done_when_it_is_back() -> Result<()> {
    let mut story = story().await?;
    story.world.service.stop().await?;
    let chat = story.alice_writes(LINE).await?;
    chat.says("and nobody is at the door").await?;
    story.world.service.start().await?;
    ends(&story, &chat, LINE).await?;
    ensure!(times(&chat, &story.ghost, "and nobody is at the door") == 1);
    story
        .world
        .nothing_leaked(&[LINE, "and nobody is at the door"])
}

#[tokio::test]
async fn a_restart_of_the_homeserver_while_the_service_is_down_loses_nothing() -> Result<()> {
    let mut story = story().await?;
    // It forgets what it could not deliver: the truth is what it tells when asked.
    story.world.service.kill().await?;
    let chat = story.alice_writes(LINE).await?;
    story.world.synapse.restart().await?;
    story.world.service.start().await?;
    ends(&story, &chat, LINE).await?;
    story.world.nothing_leaked(&[LINE])
}

#[tokio::test]
async fn a_homeserver_that_restarts_in_the_middle_is_waited_for() -> Result<()> {
    let mut story = story().await?;
    let mut door = story.waits_at_the_door()?;
    let chat = story.alice_writes(LINE).await?;
    door.held().await?;
    story.world.synapse.stop().await?;
    story.lets_in()?;
    story.world.synapse.start().await?;
    ends(&story, &chat, LINE).await
}

#[tokio::test]
async fn a_network_that_is_away_in_the_middle_is_waited_for() -> Result<()> {
    let story = story().await?;
    let pushed = story.world.to_service.as_ref().context("no network")?;
    let asked = story.network()?;
    let mut door = story.waits_at_the_door()?;
    let chat = story.alice_writes(LINE).await?;
    door.held().await?;
    asked.judge(|_, _| Fate::Refuse(StatusCode::BAD_GATEWAY));
    pushed.judge(|_, _| Fate::Refuse(StatusCode::BAD_GATEWAY));
    story.lets_in()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    chat.says("said while nobody could hear it").await?;
    asked.calm();
    pushed.calm();
    ends(&story, &chat, LINE).await?;
    ensure!(times(&chat, &story.ghost, "said while nobody could hear it") == 1);
    Ok(())
}

#[tokio::test]
async fn a_network_that_loses_every_first_answer_doubles_nothing() -> Result<()> {
    let story = story().await?;
    let mut met = std::collections::HashSet::new();
    story.network()?.judge(move |method, path| {
        let acts = matches!(method, "PUT" | "POST");
        if acts && met.insert((method.to_owned(), place(path).to_owned())) {
            Fate::LoseAnswer(StatusCode::GATEWAY_TIMEOUT)
        } else {
            Fate::Pass
        }
    });
    let mut known = std::collections::HashSet::new();
    let pushed = story.world.to_service.as_ref().context("no network")?;
    pushed.judge(move |_, path| {
        if known.insert(place(path).to_owned()) {
            Fate::LoseAnswer(StatusCode::GATEWAY_TIMEOUT)
        } else {
            Fate::Pass
        }
    });
    let chat = story.alice_writes(LINE).await?;
    ends(&story, &chat, LINE).await
}

/// Alice talks to somebody masked whose account is then deactivated.
struct Deactivated {
    chat: Chat,
    /// Who stands for either.
    ghosts: [OwnedUserId; 2],
    _owner: Person,
}

impl Deactivated {
    async fn begins(story: &Story, name: &str) -> Result<Self> {
        let world = &story.world;
        let (owner, control_room) = world.owner(name).await?;
        masks(world, &control_room, name).await?;
        let ghost = world.ghost(name)?;
        let chat = story.alice.starts_chat(&[&ghost]).await?;
        chat.says(LINE).await?;
        let (alices_ghost, portal) = comes_to_portal(&owner).await?;
        portal.sees(LINE).await?;
        deactivates(world, &owner).await?;
        let synapse = world.synapse.process().context("not running")?;
        synapse.line_with("User parter finished", PATIENCE).await?;
        Ok(Self {
            chat,
            ghosts: [ghost, alices_ghost],
            _owner: owner,
        })
    }
}

/// Waits for a text that somebody says in a room.
async fn reads(who: &Person, chat: &Chat, by: &UserId, part: &str) -> Result<()> {
    let said = |log: &Log| {
        let texts = log.texts_in(chat.id()).into_iter();
        let mut said = texts.filter(|(sender, text)| sender == by && text.contains(part));
        said.next().map(drop)
    };
    who.until_within(PAUSE, part, said).await
}

/// What takes minutes: a proxy that answers for the homeserver, beside an owner who is gone for
/// good, whose ghosts can ask.
#[tokio::test]
async fn what_waits_for_minutes_is_not_lost_and_who_waits_in_vain_is_told() -> Result<()> {
    let story = masked(quick()).await?;
    let (alice, sam, world) = (&story.alice, &story.sam, &story.world);
    let (kim, _kims) = world.owner("kim").await?;
    let bob = world.person("bob").await?;
    let chat = story.alice_writes(LINE).await?;
    let (alices_ghost, sams) = comes_to_portal(sam).await?;
    sams.sees(LINE).await?;
    let dora = Deactivated::begins(&story, "dora").await?;
    dora.chat.says("are you there?").await?;

    let can_ask = dora.ghosts.clone();
    story.network()?.judge(move |_, path| {
        let can_ask = can_ask.iter().any(|ghost| path.contains(ghost.localpart()));
        match can_ask {
            true => Fate::Pass,
            false => Fate::Refuse(StatusCode::BAD_GATEWAY),
        }
    });
    chat.says("said while a proxy answered").await?;
    let wrong = chat.says("wrong chat, sorry").await?;
    chat.redacts(&wrong).await?;
    let kims_ghost = world.ghost("kim")?;
    let asked = bob.starts_chat(&[&kims_ghost]).await?;
    asked.says("asked while a proxy answered").await?;
    tokio::time::sleep(OUTAGE).await;
    story.network()?.calm();

    let arrives = "said while a proxy answered";
    reads(sam, &sams, &alices_ghost, arrives).await?;
    chat.says("and now?").await?;
    sams.sees("and now?").await?;
    let carried = sams.events().into_iter();
    let carried = carried.filter(|seen| seen.sender == alices_ghost && seen.state_key.is_none());
    let carried: Vec<_> = carried.map(|seen| seen.text().map(str::to_owned)).collect();
    let wanted = [LINE, arrives, "and now?"].map(|text| Some(text.to_owned()));
    ensure!(carried == wanted, "Sam was shown {carried:?}");
    // Nobody was told anything but whom they talk to.
    let told = times(&chat, &story.ghost, "");
    ensure!(told == 1, "{told} times: {:#?}", chat.texts());

    let kims = comes(&kim, &asked, &kims_ghost, "Bob (via @kim)").await?;
    let quote = quoted("Bob", "asked while a proxy answered");
    kims.sees(&quote).await?;
    ends_well(world, (&bob, &asked), (&kim, &kims)).await?;
    let told = times(&asked, &kims_ghost, "");
    ensure!(told == 1, "{told} times: {:#?}", asked.texts());

    reads(
        alice,
        &dora.chat,
        &dora.ghosts[0],
        "Your message is waiting",
    )
    .await
}
