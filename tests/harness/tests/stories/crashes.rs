//! Stonechat is killed at every step of an introduction.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{Chat, Person, PersonOptions, proxy::Fate};
use rand::Rng as _;
use ruma::OwnedRoomId;

use crate::remains::{ciphertexts, read_nothing};
use crate::told::{LINE, Story, comes, ends_well, place, quick, quoted, shown, times};

/// The requests by which an introduction goes forward.
const STEPS: [&str; 10] = [
    "the joining",
    "the reading of the room's state",
    "the reading of what was said",
    "the showing of who asks",
    "the invite",
    "the sharing of the key",
    "the passing on",
    "the handing over",
    "the leaving",
    "the last sync",
];

fn is_step(step: &str, method: &str, path: &str) -> bool {
    let path = place(path);
    let member = path.contains("/state/m.room.member/");
    let ghosts = path.contains("_dm_");
    match step {
        "the joining" => method == "POST" && path.ends_with("/join"),
        "the reading of the room's state" => method == "GET" && path.ends_with("/state"),
        "the reading of what was said" => method == "GET" && path.ends_with("/messages"),
        "the showing of who asks" => method == "PUT" && member && ghosts,
        "the invite" => method == "PUT" && member && !ghosts,
        "the sharing of the key" => method == "PUT" && path.contains("/sendToDevice/"),
        "the passing on" => method == "PUT" && path.contains("/send/m.room.encrypted/"),
        "the handing over" => method == "PUT" && path.contains("/state/m.room.power_levels"),
        "the leaving" => method == "POST" && path.ends_with("/leave"),
        _ => false,
    }
}

/// Kills the service when a request of each step is on its way (`Hold`: the homeserver never hears
/// of it) or just done (`HoldAnswer`: the service never hears that it was).
async fn killed_at_every_step(fate: Fate) -> Result<()> {
    let mut story = Story::begins_with(quick(), PersonOptions::default()).await?;
    let mut rooms = Vec::new();
    for (at, step) in STEPS.into_iter().enumerate() {
        let asker = story.world.person(&format!("asker{at}")).await?;
        let room = killed_at(&mut story, &asker, step, fate.clone())
            .await
            .with_context(|| format!("killed at {step}, {fate:?}"))?;
        let said = ciphertexts(&asker, &room).await?;
        rooms.push((room, said));
    }
    read_nothing(&mut story.world, &story.ghost, &rooms).await?;
    story.world.nothing_leaked(&[LINE])
}

async fn killed_at(
    story: &mut Story,
    asker: &Person,
    step: &'static str,
    fate: Fate,
) -> Result<OwnedRoomId> {
    let mut left = false;
    let mut caught = story.network()?.catches(fate, step, move |method, path| {
        let sync = left && place(path).ends_with("/sync");
        left |= is_step("the leaving", method, path);
        sync && step == "the last sync" || is_step(step, method, path)
    });
    let line = format!("{LINE}, said {}", asker.user_id.localpart());
    let chat = asker.starts_chat(&[&story.ghost]).await?;
    chat.says(&line).await?;
    caught.held().await?;
    story.world.service.kill().await?;
    let network = story.network()?;
    network.calm();
    network.release();
    story.world.service.start().await?;
    ends(story, asker, &chat, &line).await?;
    Ok(chat.id().to_owned())
}

async fn ends(story: &Story, asker: &Person, chat: &Chat, line: &str) -> Result<()> {
    let (ghost, sam) = (&story.ghost, &story.sam);
    let name = shown(&asker.user_id);
    let name_in_invite = format!("{name} (via @sam)");
    let sams = comes(sam, chat, ghost, &name_in_invite).await?;
    sams.sees(&quoted(&name, line)).await?;
    ends_well(&story.world, (asker, chat), (sam, &sams)).await?;
    for chat in [chat, &sams] {
        let passed_on = times(chat, ghost, line);
        ensure!(
            passed_on == 1,
            "passed on {passed_on} times: {:#?}",
            chat.texts()
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_introduction_goes_on_after_a_kill_before_any_of_its_steps() -> Result<()> {
    killed_at_every_step(Fate::Hold).await
}

#[tokio::test]
async fn an_introduction_goes_on_after_a_kill_right_after_any_of_its_steps() -> Result<()> {
    killed_at_every_step(Fate::HoldAnswer).await
}

#[tokio::test]
async fn six_people_ask_while_the_service_is_killed_again_and_again() -> Result<()> {
    let mut story = Story::begins_with(quick(), PersonOptions::default()).await?;
    let mut askers = Vec::new();
    for at in 0..6 {
        askers.push(story.world.person(&format!("asker{at}")).await?);
    }
    let ghost = story.ghost.clone();
    let asking = askers.iter().map(|asker| {
        let ghost = &ghost;
        async move {
            let line = format!("{LINE}, said {}", asker.user_id.localpart());
            let chat = asker.starts_chat(&[ghost]).await?;
            chat.says(&line).await?;
            anyhow::Ok((chat, line))
        }
    });
    let killing = async {
        for _ in 0..5 {
            let pause = rand::rng().random_range(200..1500);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            story.world.service.kill().await?;
            story.world.service.start().await?;
        }
        anyhow::Ok(())
    };
    let (chats, killed) = tokio::join!(futures_util::future::try_join_all(asking), killing);
    killed?;
    for (asker, (chat, line)) in askers.iter().zip(chats?) {
        ends(&story, asker, &chat, &line)
            .await
            .with_context(|| format!("the chat of {}", asker.user_id))?;
    }
    Ok(())
}
