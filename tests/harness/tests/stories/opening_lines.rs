//! What Alice writes before Sam is there: none of it is lost, and none of it comes twice.

use anyhow::{Context, Result, ensure};
use harness::{Person, PersonOptions, checks, proxy::Fate};
use matrix_sdk::{
    media::{MediaFormat, MediaRequestParameters},
    ruma::events::room::{EncryptedFile, MediaSource},
};
use ruma::{OwnedEventId, UserId};
use serde_json::Value;

use crate::{
    remains::{ciphertexts, read_nothing},
    told::{LINE, Story, goodbye, invited_to, place, quick, quoted, times, with_network},
};

async fn story() -> Result<Story> {
    Story::begins_with(with_network(), PersonOptions::default()).await
}

#[tokio::test]
async fn what_was_written_before_the_ghost_came_is_passed_on_in_order() -> Result<()> {
    let story = story().await?;
    let mut door = story.waits_at_the_door()?;
    let chat = story.alice_writes("first of all: good morning").await?;
    chat.says("second: is the lock open").await?;
    chat.says("third: bring a lamp").await?;
    door.held().await?;
    story.lets_in()?;

    let sams = story.sam_comes(&chat).await?;
    sams.sees_part("third: bring a lamp").await?;
    story.ends_well(&chat, &sams).await?;
    let by_ghost = sams
        .texts()
        .into_iter()
        .filter(|(by, _)| *by == story.ghost);
    let quotes: Vec<String> = by_ghost.map(|(_, text)| text).collect();
    let said = [
        "first of all: good morning",
        "second: is the lock open",
        "third: bring a lamp",
    ];
    ensure!(
        quotes == said.map(|line| quoted("Alice", line)),
        "{quotes:#?}"
    );
    story.world.nothing_leaked(&said)
}

#[tokio::test]
async fn a_file_and_a_voice_message_can_open_a_chat() -> Result<()> {
    let story = story().await?;
    let mut door = story.waits_at_the_door()?;
    let chat = story.alice.starts_chat(&[&story.ghost]).await?;
    let bytes = b"the map of the old canal, drawn by hand ".repeat(50);
    chat.sends_file("canal.map", &bytes).await?;
    chat.sends_voice(&[9; 700]).await?;
    door.held().await?;
    story.lets_in()?;

    let sams = story.sam_comes(&chat).await?;
    let file = sams.sees("Alice sent a file").await?;
    ensure!(file.sender == story.ghost && file.content["filename"] == "canal.map");
    ensure!(download(&story.sam, &file.content).await? == bytes);
    let voice = sams.sees("Alice sent a voice message").await?;
    ensure!(
        voice.content["org.matrix.msc3245.voice"].is_object(),
        "no voice message to a client: {}",
        voice.content
    );
    ensure!(download(&story.sam, &voice.content).await? == [9; 700]);
    story.ends_well(&chat, &sams).await?;
    story
        .world
        .nothing_leaked(&["the map of the old canal, drawn by hand "])
}

/// Loads an attachment and decrypts it, as a client does.
async fn download(person: &Person, content: &Value) -> Result<Vec<u8>> {
    let file: EncryptedFile = serde_json::from_value(content["file"].clone())?;
    let request = MediaRequestParameters {
        source: MediaSource::Encrypted(Box::new(file)),
        format: MediaFormat::File,
    };
    let media = person.client.media();
    Ok(Box::pin(media.get_media_content(&request, false)).await?)
}

#[tokio::test]
async fn a_line_that_was_edited_is_passed_on_as_it_reads_now_and_one_taken_back_is_not()
-> Result<()> {
    let story = story().await?;
    let mut door = story.waits_at_the_door()?;
    let chat = story.alice_writes("meet me at the weir at six").await?;
    let first = said(&story.alice, &chat, "meet me at the weir at six").await?;
    chat.edits(&first, "meet me at the weir at seven").await?;
    let second = chat.says("forget what I told you of Kim").await?;
    chat.redacts(&second).await?;
    door.held().await?;
    story.lets_in()?;

    let sams = story.sam_comes(&chat).await?;
    sams.sees(&quoted("Alice", "meet me at the weir at seven"))
        .await?;
    story.ends_well(&chat, &sams).await?;
    for gone in ["at six", "of Kim"] {
        ensure!(times(&sams, &story.ghost, gone) == 0, "{:#?}", sams.texts());
    }
    ensure!(
        times(&sams, &story.ghost, "weir") == 1,
        "{:#?}",
        sams.texts()
    );
    checks::nothing_to_warn_of(&[&story.sam]).await
}

#[tokio::test]
async fn what_is_edited_or_taken_back_while_the_ghost_is_there_follows_what_it_passed_on()
-> Result<()> {
    let mut options = with_network();
    options.service = options.service.set("introductions.linger", "8s");
    let story = Story::begins_with(options, PersonOptions::default()).await?;
    let ghost = &story.ghost;
    let chat = story.alice_writes("meet me at the weir at six").await?;
    let sams = story.sam_comes(&chat).await?;
    let passed_on = sams
        .sees(&quoted("Alice", "meet me at the weir at six"))
        .await?;

    let first = said(&story.alice, &chat, "meet me at the weir at six").await?;
    chat.edits(&first, "meet me at the weir at seven").await?;
    let edit = sams
        .sees_where("the edit, passed on", |seen| {
            seen.sender == *ghost
                && seen.text() == Some(&quoted("Alice", "meet me at the weir at seven"))
        })
        .await?;
    ensure!(edit.relates_to() == Some(("m.replace", passed_on.event_id.as_str())));
    chat.redacts(&first).await?;
    sams.sees_where("what was passed on, taken back", |seen| {
        let redacts = seen.content["redacts"].as_str();
        seen.event_type == "m.room.redaction"
            && seen.sender == *ghost
            && redacts == Some(passed_on.event_id.as_str())
    })
    .await?;
    goodbye(&chat, ghost).await?;
    story.ends_well(&chat, &sams).await
}

#[tokio::test]
async fn what_falls_between_the_invite_and_the_leaving_is_passed_on_too() -> Result<()> {
    let (story, element) = Story::begins_behind_a_proxy(PersonOptions::default()).await?;
    let ghost = &story.ghost;
    let chat = story.alice.starts_chat(&[ghost]).await?;
    // Encrypted before Sam is invited, for the ghost alone; sent when he is.
    let sending = |method: &str, path: &str| method == "PUT" && place(path).contains("/send/");
    let mut caught = element.catches(Fate::Hold, "her second message", sending);
    let late = tokio::spawn({
        let chat = chat.clone();
        async move { chat.says("sent a moment too late for you").await }
    });
    caught.held().await?;
    chat.says(LINE).await?;
    let invite = invited_to(&story.sam, &chat).await?;
    element.release();
    let late = late.await??;
    // Encrypted for Sam, while the ghost is still there.
    chat.sees_member(&story.sam.user_id, "invite").await?;
    let third = chat.says("and this while you are invited").await?;

    let sams = story.sam.accepts(&invite).await?;
    sams.sees(&quoted("Alice", LINE)).await?;
    sams.sees("and this while you are invited").await?;
    let quote = quoted("Alice", "sent a moment too late for you");
    sams.sees(&quote).await?;
    goodbye(&chat, ghost).await?;
    for (event, text) in [
        (late, "sent a moment too late for you"),
        (third, "and this while you are invited"),
    ] {
        let heard = precedes(&chat.events(), &event, ghost)?;
        ensure!(
            times(&sams, ghost, text) == usize::from(heard),
            "{text:?}, before the ghost left: {heard}, was passed on otherwise: {:#?}",
            sams.texts()
        );
    }
    // No shields: that one of the two cannot be read from Alice herself is what the quote is for.
    let two = [&*story.alice.user_id, &*story.sam.user_id];
    story
        .world
        .only_these_are_in(&chat, &story.alice, &two)
        .await
}

#[tokio::test]
async fn what_comes_in_the_moment_in_which_the_ghost_leaves_is_told_by_the_bot() -> Result<()> {
    let mut story = Story::begins_with(quick(), PersonOptions::default()).await?;
    let (bot, ghost) = (story.world.bot()?, story.ghost.clone());
    let leaving = |method: &str, path: &str| method == "POST" && place(path).ends_with("/leave");
    let network = story.network()?;
    let mut caught = network.catches(Fate::Hold, "the ghost's leaving", leaving);
    let chat = story.alice_writes(LINE).await?;
    let sams = story.sam_comes(&chat).await?;
    caught.held().await?;
    // It has looked for the last time, and is not gone yet.
    let last = "one more thing before you go";
    chat.says(last).await?;
    network.calm();
    network.release();
    goodbye(&chat, &ghost).await?;
    sams.sees(last).await?;
    ensure!(times(&sams, &ghost, last) == 0, "{:#?}", sams.texts());

    let told = story.alice.invited_by(&bot).await?;
    let told = story.alice.accepts(&told).await?;
    let words = told.sees_part("just as their ghost was leaving").await?;
    ensure!(words.sender == bot && words.was_encrypted());
    story.ends_well(&chat, &sams).await?;
    let said = ciphertexts(&story.alice, chat.id()).await?;
    let room = chat.id().to_owned();
    read_nothing(&mut story.world, &ghost, &[(room, said)]).await?;
    story.world.nothing_leaked(&[LINE, last])
}

/// Whether an event comes before the ghost's leaving, in the room's order.
fn precedes(seen: &[harness::Seen], event: &OwnedEventId, ghost: &UserId) -> Result<bool> {
    let event = seen.iter().position(|seen| seen.event_id == *event);
    let left = seen
        .iter()
        .position(|seen| seen.membership() == Some((ghost.as_str(), "leave")));
    Ok(event.context("the message is not there")? < left.context("it has not left")?)
}

/// An event of one's own, by its text.
async fn said(who: &Person, chat: &harness::Chat, text: &str) -> Result<OwnedEventId> {
    let mine = |seen: &harness::Seen| seen.sender == who.user_id && seen.text() == Some(text);
    Ok(chat.sees_where("her own message", mine).await?.event_id)
}

#[tokio::test]
async fn without_an_opening_line_sam_is_invited_all_the_same() -> Result<()> {
    let story = Story::begins_with(quick(), PersonOptions::default()).await?;
    let chat = story.alice.starts_chat(&[&story.ghost]).await?;
    let sams = story.sam_comes(&chat).await?;
    story.ends_well(&chat, &sams).await?;
    let sent = |membership: &str, who: &UserId| {
        let seen = chat.events().into_iter();
        let mut seen = seen.filter(|e| e.membership() == Some((who.as_str(), membership)));
        seen.next().map(|seen| seen.sent)
    };
    let joined = sent("join", &story.ghost).context("the ghost never joined")?;
    let invited = sent("invite", &story.sam.user_id).context("Sam was never invited")?;
    ensure!(
        invited >= joined + 4_500,
        "invited {} ms after the ghost joined",
        invited.saturating_sub(joined)
    );
    ensure!(times(&chat, &story.ghost, "") == 0, "{:#?}", chat.texts());
    Ok(())
}
