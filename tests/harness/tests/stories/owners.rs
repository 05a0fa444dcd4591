//! What the owner may do, be, or not be able to do while somebody asks for them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{ChatOptions, Person, PersonOptions, World, checks, synapse::PASSWORD};
use matrix_sdk::ruma::api::client::uiaa::{AuthData, MatrixUserIdentifier, Password};
use serde_json::json;

use crate::told::{LINE, Story, goodbye, history, invited_to, quick, quoted, reason, times};

async fn story() -> Result<Story> {
    Story::begins_with(quick(), PersonOptions::default()).await
}

#[tokio::test]
async fn a_ghost_goes_when_sam_declines_at_once() -> Result<()> {
    let story = Story::begins().await?;
    let chat = story.alice_writes(LINE).await?;
    let invite = invited_to(&story.sam, &chat).await?;
    story.sam.leaves(&invite.room).await?;
    goodbye(&chat, &story.ghost).await?;
    let alone = [&*story.alice.user_id];
    let world = &story.world;
    world.only_these_are_in(&chat, &story.alice, &alone).await?;
    // His client may have offered to block the ghost as well.
    let told = story
        .control_room
        .sees_part("You declined the chat")
        .await?;
    let said = told.text().unwrap_or_default();
    let block = format!("block {} on @sam", story.alice.user_id);
    let undo = format!("/unignore {}", story.ghost);
    ensure!(said.contains(&block) && said.contains(&undo), "{said}");
    world.nothing_leaked(&[LINE])
}

#[tokio::test]
async fn nobody_is_invited_for_somebody_who_has_left() -> Result<()> {
    let story = story().await?;
    // While the ghost waits for her first words.
    let chat = story.alice.starts_chat(&[&story.ghost]).await?;
    chat.sees_join(&story.ghost).await?;
    chat.leaves().await?;
    // Before it has joined at all.
    let mut door = story.waits_at_the_door()?;
    let second = story.alice_writes(LINE).await?;
    door.held().await?;
    second.leaves().await?;
    story.lets_in()?;

    // What comes later is dealt with: by then Sam would have been invited.
    let third = story.alice_writes("this time I stay").await?;
    let sams = story.sam_comes(&third).await?;
    sams.sees(&quoted("Alice", "this time I stay")).await?;
    story.ends_well(&third, &sams).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let rooms: Vec<_> = story
        .sam
        .log()
        .invites()
        .into_iter()
        .map(|i| i.room)
        .collect();
    ensure!(
        !rooms.contains(&chat.id().to_owned()) && !rooms.contains(&second.id().to_owned()),
        "{rooms:?}"
    );
    Ok(())
}

#[tokio::test]
async fn where_one_reads_only_from_joining_on_the_ghost_waits_for_sam() -> Result<()> {
    let story = story().await?;
    let ghost = &story.ghost;
    let options = history("joined");
    let chat = story.alice.starts_chat_with(&[ghost], options).await?;
    // Her client gives keys only to those who have joined.
    chat.sees_join(ghost).await?;
    chat.says(LINE).await?;
    let told = chat.sees_part("can only read here after joining").await?;
    ensure!(told.sender == *ghost && told.was_encrypted());
    chat.says("still there? take your time").await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let present = chat.present(&story.alice).await?;
    ensure!(
        present.get(ghost).is_some_and(|is| is == "join"),
        "{present:?}"
    );

    let sams = story.sam_comes(&chat).await?;
    sams.sees(&quoted("Alice", LINE)).await?;
    sams.sees(&quoted("Alice", "still there? take your time"))
        .await?;
    story.ends_well(&chat, &sams).await?;
    ensure!(times(&sams, ghost, LINE) == 1);
    story
        .world
        .nothing_leaked(&[LINE, "still there? take your time"])
}

#[tokio::test]
async fn an_owner_without_a_device_of_their_own_signing_is_waited_for() -> Result<()> {
    let mut story = story().await?;
    // Sam signs out, and in again on a device that he has not verified.
    story.sam.client.matrix_auth().logout().await?;
    let unsigned = PersonOptions {
        cross_signing: false,
        ..PersonOptions::default()
    };
    let url = story.world.synapse.url();
    let sam = Person::sign_in(&url, &story.sam.user_id, &unsigned).await?;
    story.sam = sam;

    let chat = story.alice_writes(LINE).await?;
    let told = chat.sees_part("hasn't set up encryption yet").await?;
    ensure!(told.sender == story.ghost && told.was_encrypted());
    let sams = story.sam_comes(&chat).await?;
    ensure!(times(&sams, &story.ghost, LINE) == 0);

    sign(&story.sam).await?;
    let patience = Duration::from_secs(100);
    let quote = quoted("Alice", LINE);
    let read = |log: &harness::Log| log.find(|seen| seen.text() == Some(&quote));
    story.sam.until_within(patience, "her line", read).await?;
    let two = [&*story.alice.user_id, &*story.sam.user_id];
    story
        .world
        .only_these_are_in(&chat, &story.alice, &two)
        .await?;
    story.world.nothing_leaked(&[LINE])
}

/// Makes a new identity and signs the device, as Element's "Reset" does.
async fn sign(person: &Person) -> Result<()> {
    let encryption = person.client.encryption();
    let Err(refused) = Box::pin(encryption.bootstrap_cross_signing(None)).await else {
        return Ok(());
    };
    let asked = refused.as_uiaa_response().context("not asked who it is")?;
    let user = MatrixUserIdentifier::new(person.user_id.localpart().to_owned());
    let mut password = Password::new(user.into(), PASSWORD.to_owned());
    password.session = asked.session.clone();
    let who = AuthData::Password(password);
    Box::pin(encryption.bootstrap_cross_signing(Some(who))).await?;
    Ok(())
}

#[tokio::test]
async fn alice_is_told_when_sam_takes_no_invites() -> Result<()> {
    let story = story().await?;
    story.sam.blocks_all_invites().await?;
    let chat = story.alice_writes(LINE).await?;
    let told = chat
        .sees_part("@sam can't be invited at the moment")
        .await?;
    ensure!(told.sender == story.ghost && told.was_encrypted());
    goodbye(&chat, &story.ghost).await?;
    checks::nothing_to_warn_of(&[&story.alice]).await?;
    let alone = [&*story.alice.user_id];
    let world = &story.world;
    world.only_these_are_in(&chat, &story.alice, &alone).await
}

/// An administrator deactivates an account, and has what its owner wrote erased.
pub async fn deactivates(world: &World, owner: &Person) -> Result<()> {
    let token = world.synapse.register_admin("admin").await?;
    let path = format!("_synapse/admin/v1/deactivate/{}", owner.user_id);
    reqwest::Client::new()
        .post(format!("{}{path}", world.synapse.url()))
        .bearer_auth(token)
        .json(&json!({ "erase": true }))
        .send()
        .await?
        .error_for_status()?;
    Ok(())
}

#[tokio::test]
async fn alice_is_told_when_sam_is_not_there_any_more() -> Result<()> {
    let story = story().await?;
    let world = &story.world;
    deactivates(world, &story.sam).await?;
    // Synapse lets people invite somebody who is gone; that they cannot read shows in their
    // devices.
    let chat = story.alice_writes(LINE).await?;
    let told = chat
        .sees_where("the ghost say why", |seen| {
            seen.sender == story.ghost && seen.text().is_some()
        })
        .await?;
    let text = told.text().unwrap_or_default();
    ensure!(text.contains("their account is gone"), "{text}");
    ensure!(told.was_encrypted());
    Ok(())
}

#[tokio::test]
async fn owners_are_not_introduced_to_themselves_nor_into_rooms_they_are_in() -> Result<()> {
    let story = story().await?;
    let ghost = &story.ghost;
    let own = story.sam.starts_chat(&[ghost]).await?;
    let declined = goodbye(&own, ghost).await?;
    let why = reason(&declined).unwrap_or_default();
    ensure!(why.contains("can't be reached"), "{declined:?}");
    story
        .control_room
        .sees_part("is yours, so its ghost")
        .await?;

    let chat = story
        .alice
        .starts_chat_with(&[&story.sam.user_id], ChatOptions::group())
        .await?;
    story
        .sam
        .accepts(&invited_to(&story.sam, &chat).await?)
        .await?;
    chat.sees_join(&story.sam.user_id).await?;
    chat.invites(ghost).await?;
    let left = goodbye(&chat, ghost).await?;
    let why = reason(&left).unwrap_or_default();
    ensure!(why.contains("is in this room already"), "{left:?}");
    let two = [&*story.alice.user_id, &*story.sam.user_id];
    story
        .world
        .only_these_are_in(&chat, &story.alice, &two)
        .await
}

#[tokio::test]
async fn who_writes_from_an_unsigned_device_is_told_what_to_do() -> Result<()> {
    let story = story().await?;
    let unsigned = PersonOptions {
        cross_signing: false,
        ..PersonOptions::default()
    };
    let bob = story.world.person_with("bob", unsigned).await?;
    let chat = bob.starts_chat(&[&story.ghost]).await?;
    chat.says(LINE).await?;
    let left = goodbye(&chat, &story.ghost).await?;
    let why = reason(&left).unwrap_or_default();
    ensure!(why.contains("you haven't verified it"), "{left:?}");
    ensure!(
        story
            .sam
            .log()
            .invites()
            .iter()
            .all(|i| i.room != chat.id())
    );
    Ok(())
}
