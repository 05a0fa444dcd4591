//! An owner who likes to be asked before anybody reaches them.

use anyhow::{Result, ensure};
use harness::{Chat, PersonOptions, Seen, WorldOptions, checks};

use crate::{
    remains::{ciphertexts, read_nothing},
    told::{LINE, Story, goodbye, quick, quoted, reason},
};

const SECOND: &str = "it looks as if it waits for somebody";
const THIRD: &str = "bring the long lens if you come";

/// Sam lets himself be asked.
async fn story(options: WorldOptions) -> Result<Story> {
    let story = Story::begins_with(options, PersonOptions::default()).await?;
    let bot = story.world.bot()?;
    let answer = story.control_room.asks(&bot, "policy sam ask").await?;
    let said = answer.text().unwrap_or_default();
    ensure!(said.contains("people ask first"), "{said}");
    Ok(story)
}

/// Alice writes, is told that Sam is asked, and Sam is shown her line and nothing else.
async fn alice_asks(story: &Story) -> Result<(Chat, Seen)> {
    let chat = story.alice_writes(LINE).await?;
    let told = chat.sees_part("likes to be asked first").await?;
    let said = told.text().unwrap_or_default();
    ensure!(told.sender == story.ghost && told.was_encrypted());
    ensure!(said.contains("the service can read"), "{said}");
    let shown = story
        .control_room
        .sees_part("asks to chat with you")
        .await?;
    let said = shown.text().unwrap_or_default();
    ensure!(shown.sender == story.world.bot()? && shown.was_encrypted());
    ensure!(
        said.contains(&format!("Request 1: Alice ({})", story.alice.user_id)),
        "{said}"
    );
    ensure!(said.contains(&format!("> {LINE}\n")), "{said}");
    Ok((chat, shown))
}

/// Nobody invited Sam anywhere, and he has heard nothing but the opening line.
fn nothing_came_of_it(story: &Story, not_shown: &[&str]) -> Result<()> {
    let invites = story.sam.log().invites();
    ensure!(
        invites.iter().all(|i| i.sender != story.ghost),
        "{invites:?}"
    );
    for (_, text) in story.control_room.texts() {
        ensure!(not_shown.iter().all(|part| !text.contains(part)), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn whoever_is_accepted_is_introduced_and_all_they_wrote_comes_in_order() -> Result<()> {
    let story = story(quick()).await?;
    let (chat, _) = alice_asks(&story).await?;
    chat.says(SECOND).await?;
    chat.says(THIRD).await?;
    story
        .world
        .only_these_are_in(&chat, &story.alice, &[&story.alice.user_id, &story.ghost])
        .await?;
    nothing_came_of_it(&story, &[SECOND, THIRD])?;
    story.world.nothing_leaked(&[LINE, SECOND, THIRD])?;

    let bot = story.world.bot()?;
    let answer = story.control_room.asks(&bot, "accept 1").await?;
    let said = answer.text().unwrap_or_default();
    ensure!(said.contains("invited to a chat"), "{said}");
    let sams = story.sam_comes(&chat).await?;
    sams.sees(&quoted("Alice", THIRD)).await?;
    story.ends_well(&chat, &sams).await?;
    let quotes: Vec<String> = sams
        .texts()
        .into_iter()
        .filter(|(by, _)| *by == story.ghost)
        .map(|(_, text)| text)
        .collect();
    let expected = [LINE, SECOND, THIRD].map(|line| quoted("Alice", line));
    ensure!(quotes == expected, "{quotes:#?}");
    checks::nothing_to_warn_of(&[&story.alice, &story.sam]).await?;
    story.world.nothing_leaked(&[LINE, SECOND, THIRD])
}

#[tokio::test]
async fn whoever_is_declined_hears_what_everybody_hears_and_nothing_is_kept() -> Result<()> {
    let mut story = story(quick()).await?;
    let (chat, shown) = alice_asks(&story).await?;
    chat.says(SECOND).await?;
    story.control_room.reacts(&shown.event_id, "👎").await?;
    story.control_room.sees_part("I have turned").await?;
    let left = goodbye(&chat, &story.ghost).await?;
    ensure!(
        reason(&left) == Some("This handle cannot be reached at the moment."),
        "{:?}",
        left.content
    );
    nothing_came_of_it(&story, &[SECOND])?;
    let bot = story.world.bot()?;
    let none = story.control_room.asks(&bot, "requests").await?;
    ensure!(none.text().is_some_and(|text| text.contains("Nobody asks")));

    let said = ciphertexts(&story.alice, chat.id()).await?;
    let (ghost, room) = (story.ghost.clone(), chat.id().to_owned());
    read_nothing(&mut story.world, &ghost, &[(room, said)]).await?;
    story.world.nothing_leaked(&[LINE, SECOND])
}

#[tokio::test]
async fn a_request_that_nobody_answers_ends_like_one_that_was_declined() -> Result<()> {
    let mut options = quick();
    options.service = options.service.set("introductions.wait_for_answer", "4s");
    let story = story(options).await?;
    let (chat, shown) = alice_asks(&story).await?;
    let left = goodbye(&chat, &story.ghost).await?;
    ensure!(
        reason(&left) == Some("This handle cannot be reached at the moment."),
        "{:?}",
        left.content
    );
    // A reaction that comes too late leads nowhere.
    story.control_room.reacts(&shown.event_id, "✅").await?;
    let bot = story.world.bot()?;
    let none = story.control_room.asks(&bot, "requests").await?;
    ensure!(none.text().is_some_and(|text| text.contains("Nobody asks")));
    nothing_came_of_it(&story, &[])
}

#[tokio::test]
async fn a_kill_while_somebody_waits_loses_nothing_of_it() -> Result<()> {
    let mut story = story(quick()).await?;
    let (chat, shown) = alice_asks(&story).await?;
    story.world.service.kill().await?;
    chat.says(SECOND).await?;
    story.world.service.start().await?;
    chat.says(THIRD).await?;
    story.control_room.reacts(&shown.event_id, "👍").await?;
    let sams = story.sam_comes(&chat).await?;
    for line in [LINE, SECOND, THIRD] {
        sams.sees(&quoted("Alice", line)).await?;
    }
    story.ends_well(&chat, &sams).await?;
    let shown = story
        .control_room
        .texts()
        .into_iter()
        .filter(|(_, text)| text.contains("asks to chat with you"));
    ensure!(shown.count() == 1, "the request was shown twice");

    // Whom Sam accepted once need not ask again.
    let answer = story
        .control_room
        .asks(&story.world.bot()?, "handles")
        .await?;
    let said = answer.text().unwrap_or_default();
    ensure!(said.contains("people ask you first"), "{said}");
    let again = story.alice_writes("the same bank, tomorrow?").await?;
    again.sees_part("already have a chat").await?;
    Ok(())
}
