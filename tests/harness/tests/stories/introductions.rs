//! Alice knows nothing of Sam but his handle.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{Chat, ChatOptions, Log, PersonOptions, checks};
use ruma::UserId;
use serde_json::Value;

use crate::{
    remains,
    told::{LINE, Story, goodbye, quoted, times},
};

/// The main story, in a room of this version. Element decides for whom to encrypt the first
/// message half a second and more before it sends it; nobody has joined by then.
async fn alice_reaches_sam(version: &str, gap: Duration, careful: bool) -> Result<()> {
    let clients = PersonOptions {
        exclude_insecure_devices: careful,
        ..PersonOptions::default()
    };
    let (mut story, element) = Story::begins_behind_a_proxy(clients).await?;
    let (ghost, alice, sam) = (&story.ghost, &story.alice, &story.sam);
    element.like_element(gap);

    let options = ChatOptions::default().version(version)?;
    let chat = alice.starts_chat_with(&[ghost], options).await?;
    let first = chat.says(LINE).await?;
    element.calm();
    let sams = story.sam_comes(&chat).await?;

    let passed_on = sams.sees(&quoted("Alice", LINE)).await?;
    ensure!(passed_on.sender == *ghost && passed_on.was_encrypted());
    ensure!(
        times(&sams, &alice.user_id, LINE) == 0,
        "it precedes his invite, so he cannot have it from her"
    );
    let left = goodbye(&chat, ghost).await?;
    ensure!(left.content.get("reason").is_none(), "{left:?}");
    story.ends_well(&chat, &sams).await?;
    ensure!(times(&sams, ghost, LINE) == 1, "{:#?}", sams.texts());
    ensure!(times(&chat, ghost, LINE) == 1, "{:#?}", chat.texts());

    let levels = chat.state("m.room.power_levels", "").await?;
    let levels = levels.context("no power levels")?;
    ensure!(levels["users"][sam.user_id.as_str()] == 100, "{levels}");
    ensure!(levels["users"][ghost.as_str()] == Value::Null, "{levels}");
    let seen = chat.events();
    let invited = seen.iter().find(|seen| {
        seen.membership() == Some((ghost.as_str(), "invite")) || seen.event_id == first
    });
    let invited = invited.context("no beginning")?.sent;
    println!(
        "room version {version}: from the invite to the ghost's leaving {} ms",
        left.sent.saturating_sub(invited)
    );

    story
        .world
        .nothing_leaked(&[LINE, "can you read this, sam?", "every word of it"])?;
    let (room, ghost) = (chat.id().to_owned(), story.ghost.clone());
    let ciphertexts = remains::ciphertexts(&story.alice, &room).await?;
    remains::read_nothing(&mut story.world, &ghost, &[(room, ciphertexts)]).await
}

#[tokio::test]
async fn alice_reaches_sam_by_his_handle_in_a_room_of_version_10() -> Result<()> {
    alice_reaches_sam("10", Duration::from_millis(500), true).await
}

#[tokio::test]
async fn alice_reaches_sam_by_his_handle_in_a_room_of_version_11() -> Result<()> {
    alice_reaches_sam("11", Duration::from_millis(1200), false).await
}

#[tokio::test]
async fn alice_reaches_sam_by_his_handle_in_a_room_of_version_12() -> Result<()> {
    alice_reaches_sam("12", Duration::from_millis(800), true).await
}

#[tokio::test]
async fn they_chat_on_and_starting_again_leads_back_to_their_room() -> Result<()> {
    let story = Story::begins().await?;
    let (ghost, alice, sam) = (&story.ghost, &story.alice, &story.sam);
    let chat = story.alice_writes(LINE).await?;
    let sams = story.sam_comes(&chat).await?;
    let passed_on = sams.sees(&quoted("Alice", LINE)).await?.event_id;
    story.ends_well(&chat, &sams).await?;

    let answer = sams.replies(&passed_on, "then I bring the camera").await?;
    let seen = chat.sees("then I bring the camera").await?;
    ensure!(seen.relates_to() == Some(("m.in_reply_to", passed_on.as_str())));
    chat.reacts(&answer, "👍").await?;
    let reaction = sams
        .sees_where("her reaction", |seen| seen.event_type == "m.reaction")
        .await?;
    ensure!(reaction.relates_to() == Some(("m.annotation", answer.as_str())));
    sams.edits(&answer, "then I bring both cameras").await?;
    chat.sees("then I bring both cameras").await?;
    chat.sends_file("heron.raw", &[5; 4000]).await?;
    sams.sees("heron.raw").await?;
    checks::nothing_to_warn_of(&[alice, sam]).await?;

    // She has forgotten that they have a room.
    let second = story
        .alice_writes("a second start of the same chat")
        .await?;
    let told = second.sees_part("already have a chat").await?;
    ensure!(told.sender == *ghost && told.was_encrypted());
    let text = told.text().unwrap_or_default();
    ensure!(text.contains(chat.id().as_str()), "{text}");
    goodbye(&second, ghost).await?;
    story
        .world
        .only_these_are_in(&second, alice, &[&alice.user_id])
        .await?;

    // She insists: the old room may be dead.
    let third = story.alice_writes("a third start of the same chat").await?;
    let sams = story.sam_comes(&third).await?;
    let quote = quoted("Alice", "a third start of the same chat");
    sams.sees(&quote).await?;
    story.ends_well(&third, &sams).await?;
    ensure!(
        sam.log().invites().iter().all(|i| i.room != second.id()),
        "Sam was invited into the second room"
    );
    story.world.nothing_leaked(&[
        LINE,
        "then I bring the camera",
        "then I bring both cameras",
        "a second start of the same chat",
        "a third start of the same chat",
    ])
}

#[tokio::test]
async fn a_ghost_does_not_come_back_into_a_room_that_it_has_left() -> Result<()> {
    let story = Story::begins().await?;
    let (ghost, alice) = (&story.ghost, &story.alice);
    let chat = story.alice_writes(LINE).await?;
    let sams = story.sam_comes(&chat).await?;
    story.ends_well(&chat, &sams).await?;

    for again in 1..=2 {
        chat.invites(ghost).await?;
        let gone = |log: &Log| memberships(log, &chat, ghost, "leave") == 1 + again;
        alice
            .until("the ghost to decline", |log| gone(log).then_some(()))
            .await?;
    }
    let seen = chat.events().into_iter();
    let after = seen.skip_while(|e| e.membership() != Some((ghost.as_str(), "leave")));
    let back = after.filter(|e| e.membership() == Some((ghost.as_str(), "join")));
    ensure!(back.count() == 0, "it came back");
    story.ends_well(&chat, &sams).await
}

fn memberships(log: &Log, chat: &Chat, who: &UserId, membership: &str) -> usize {
    let seen = log.events_in(chat.id());
    let of = seen
        .iter()
        .filter(|e| e.membership() == Some((who.as_str(), membership)));
    of.count()
}
