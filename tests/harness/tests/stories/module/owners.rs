//! Owners whom the module leaves to the ghost.

use anyhow::{Result, ensure};
use harness::{Person, checks};
use ruma::UserId;
use serde_json::json;

use super::{comes_by_name, no_ghost_was_there, ours_in, story, with_module};
use crate::{
    federation::two_servers,
    owners::deactivates,
    told::{LINE, comes, ends_well, goodbye, quoted},
};

#[tokio::test]
async fn with_the_module_an_owner_who_takes_no_invites_makes_nobodys_room_fail() -> Result<()> {
    let story = story().await?;
    story.sam.blocks_all_invites().await?;
    let chat = story.alice_writes(LINE).await?;
    let told = chat.sees_part("can't be invited at the moment").await?;
    ensure!(told.sender == story.ghost && told.was_encrypted());
    goodbye(&chat, &story.ghost).await.map(drop)
}

#[tokio::test]
async fn with_the_module_an_owner_on_another_homeserver_is_left_to_the_ghost_which_introduces()
-> Result<()> {
    let mut options = with_module();
    let everybody = json!({ "*": "claim" });
    options.service = options.service.set("permissions", everybody);
    let (world, there) = two_servers(options).await?;
    let (alice, sam) = tokio::try_join!(world.person("alice"), Person::register(&there, "sam"))?;
    let control_room = world.control_room(&sam).await?;
    world.claims(&sam, &control_room, "sam").await?;
    let ghost = world.ghost("sam")?;

    let chat = alice.starts_chat(&[&ghost]).await?;
    chat.says(LINE).await?;
    let sams = comes(&sam, &chat, &ghost, "Alice (via @sam)").await?;
    sams.sees(&quoted("Alice", LINE)).await?;
    goodbye(&chat, &ghost).await?;
    ends_well(&world, (&alice, &chat), (&sam, &sams)).await?;
    let ours = ours_in(&world, &chat).await?;
    ensure!(
        ours.contains(&vec![json!(ghost), json!("join")]),
        "{ours:?}"
    );
    world.nothing_leaked(&[LINE])?;
    checks::holds_none_of(there.folder(), &[LINE])
}

#[tokio::test]
async fn with_the_module_an_owner_who_is_asked_first_is_asked_by_the_ghost_and_only_once()
-> Result<()> {
    let story = story().await?;
    let (alice, sam, ghost) = (&story.alice, &story.sam, &story.ghost);
    let bot = story.world.bot()?;
    let answer = story.control_room.asks(&bot, "policy sam ask").await?;
    let said = answer.text().unwrap_or_default();
    ensure!(said.contains("people ask first"), "{said}");

    let chat = story.alice_writes(LINE).await?;
    let told = chat.sees_part("wants to be asked first").await?;
    ensure!(told.sender == *ghost && told.was_encrypted());
    let shown = story
        .control_room
        .sees_part("asks to chat with you")
        .await?;
    let said = shown.text().unwrap_or_default();
    ensure!(said.contains(&format!("> {LINE}\n")), "{said}");
    let two: [&UserId; 2] = [&alice.user_id, ghost];
    story.world.only_these_are_in(&chat, alice, &two).await?;

    story.control_room.reacts(&shown.event_id, "👍").await?;
    let sams = story.sam_comes(&chat).await?;
    sams.sees(&quoted("Alice", LINE)).await?;
    goodbye(&chat, ghost).await?;
    story.ends_well(&chat, &sams).await?;

    // Whom he has accepted once he need not be asked about, and then there is no ghost either.
    let again = alice.starts_chat(&[ghost]).await?;
    again.says("the same bank, tomorrow?").await?;
    let (_, sams) = comes_by_name(sam, &again, alice).await?;
    sams.sees("the same bank, tomorrow?").await?;
    story.ends_well(&again, &sams).await?;
    no_ghost_was_there(&story.world, &[&again]).await
}

#[tokio::test]
async fn with_the_module_a_deactivated_account_is_erased_and_its_handle_leads_to_nobody()
-> Result<()> {
    let story = story().await?;
    // The module knows that Stonechat is there.
    let chat = story.alice_writes(LINE).await?;
    ensure!(ours_in(&story.world, &chat).await?.is_empty());
    deactivates(&story.world, &story.sam).await?;
    let ask = ["handle", "list", "--json"];
    let deadline = tokio::time::Instant::now() + harness::PATIENCE;
    let (owner, state) = loop {
        let shown = story.world.service.succeeds(&ask).await?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        let sam = &shown[0];
        if sam["state"] == "quarantined" || tokio::time::Instant::now() > deadline {
            break (sam["owner"].clone(), sam["state"].clone());
        }
    };
    ensure!(
        owner == story.ghost.as_str() && state == "quarantined",
        "{owner} {state}"
    );
    let audit = story.world.service.succeeds(&["audit", "--json"]).await?;
    ensure!(audit.contains("the account was deactivated"), "{audit}");
    let chat = story.alice.starts_chat(&[&story.ghost]).await?;
    goodbye(&chat, &story.ghost).await.map(drop)
}
