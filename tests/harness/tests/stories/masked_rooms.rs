//! The rooms of masked conversations: what they are called, and what becomes of them.

use anyhow::{Context, Result, ensure};
use harness::{Chat, ChatOptions, Person};
use ruma::OwnedUserId;
use serde_json::{Value, json};

use crate::{
    masked::{comes_to_group, comes_to_portal, does_not_name, masked, masks},
    told::{LINE, Story, quick},
};

/// Waits until a room is called like this.
async fn is_called(chat: &Chat, name: &str) -> Result<OwnedUserId> {
    let seen = chat
        .sees_where(&format!("the name {name:?}"), |seen| {
            seen.event_type == "m.room.name" && seen.content["name"] == name
        })
        .await?;
    ensure!(called(chat).await? == name, "{seen:?}");
    Ok(seen.sender)
}

/// What a room is called now.
async fn called(chat: &Chat) -> Result<String> {
    let name = chat.state("m.room.name", "").await?.unwrap_or_default();
    Ok(name["name"].as_str().unwrap_or_default().to_owned())
}

async fn topic(chat: &Chat) -> Result<String> {
    let topic = chat.state("m.room.topic", "").await?.unwrap_or_default();
    Ok(topic["topic"].as_str().unwrap_or_default().to_owned())
}

async fn calls(chat: &Chat, name: &str) -> Result<()> {
    let content = json!({ "name": name });
    chat.sets_state("m.room.name", "", content).await?;
    Ok(())
}

/// How often a room was given a name.
fn times_named(chat: &Chat, name: &str) -> usize {
    let events = chat.events().into_iter();
    events
        .filter(|seen| seen.event_type == "m.room.name" && seen.content["name"] == name)
        .count()
}

/// Alice's group with Sam and Kim, who are both masked, and their portals.
struct Group {
    story: Story,
    kim: Person,
    chat: Chat,
    sams: Chat,
    kims: Chat,
}

async fn group(name: &str) -> Result<Group> {
    let story = masked(quick()).await?;
    let (kim, kims_room) = story.world.owner("kim").await?;
    masks(&story.world, &kims_room, "kim").await?;
    let kims = story.world.ghost("kim")?;
    let options = ChatOptions {
        state: vec![json!({
            "type": "m.room.name", "state_key": "", "content": { "name": name },
        })],
        ..ChatOptions::group()
    };
    let ghosts = [&*story.ghost, &*kims];
    let chat = story.alice.starts_chat_with(&ghosts, options).await?;
    for ghost in ghosts {
        chat.sees_join(ghost).await?;
    }
    chat.says("good evening, all").await?;
    let sams = comes_to_group(&story.sam).await?;
    let kims = comes_to_group(&kim).await?;
    sams.sees("good evening, all").await?;
    kims.sees("good evening, all").await?;
    Ok(Group {
        story,
        kim,
        chat,
        sams,
        kims,
    })
}

#[tokio::test]
async fn a_group_is_called_the_same_in_every_room_and_after_nobody() -> Result<()> {
    let Group {
        mut story,
        kim,
        chat,
        sams,
        kims,
    } = group("Alice's rowing club").await?;
    let (alice, sam) = (story.alice.user_id.clone(), story.sam.user_id.clone());
    // The name was there before the invite.
    for portal in [&sams, &kims] {
        ensure!(called(portal).await? == "Someone's rowing club");
    }
    calls(&chat, &format!("The herons of {alice}")).await?;
    for portal in [&sams, &kims] {
        let by = is_called(portal, "The herons of @Someone").await?;
        ensure!(by.localpart().starts_with("_dm_.p"), "named by {by}");
    }
    // The topic keeps what everybody has to know.
    let content = json!({ "topic": format!("We meet at the lock. Ask {alice}") });
    chat.sets_state("m.room.topic", "", content).await?;
    sams.sees_where("the topic", |seen| {
        let topic = seen.content["topic"].as_str().unwrap_or_default();
        seen.event_type == "m.room.topic" && topic.ends_with("We meet at the lock. Ask @Someone")
    })
    .await?;
    let shown = topic(&sams).await?;
    ensure!(shown.contains("can read it on the way"), "{shown}");

    // Sam may not name the room of the others; he is told, and it is called as before.
    calls(&sams, "The otters").await?;
    sams.sees_part("your handle may not do that").await?;
    ensure!(called(&sams).await? == "The herons of @Someone");
    ensure!(called(&chat).await? == format!("The herons of {alice}"));
    // Now he may.
    let mut levels: Value = chat
        .state("m.room.power_levels", "")
        .await?
        .context("no power levels")?;
    levels["users"][story.ghost.as_str()] = json!(50);
    chat.sets_state("m.room.power_levels", "", levels).await?;
    let mine = format!("The otters of {sam}");
    calls(&sams, &mine).await?;
    let by = is_called(&chat, "The otters of @sam").await?;
    ensure!(by == story.ghost, "named by {by}");
    is_called(&kims, "The otters of @sam").await?;
    ensure!(called(&sams).await? == mine);

    // While nobody is there to hear it, too.
    story.world.service.kill().await?;
    calls(&chat, "Owls").await?;
    story.world.service.start().await?;
    for portal in [&sams, &kims] {
        is_called(portal, "Owls").await?;
    }
    chat.says("that was the last name").await?;
    sams.sees("that was the last name").await?;
    for room in [&chat, &sams, &kims] {
        ensure!(times_named(room, "Owls") == 1);
    }
    ensure!(times_named(&chat, "The otters of @sam") == 1);
    does_not_name(&sams, &alice)?;
    does_not_name(&kims, &alice)?;
    does_not_name(&chat, &sam)?;
    does_not_name(&kims, &sam)?;
    does_not_name(&chat, &kim.user_id)
}

#[tokio::test]
async fn a_chat_of_two_has_a_name_if_somebody_gives_it_one() -> Result<()> {
    let story = masked(quick()).await?;
    let chat = story.alice_writes(LINE).await?;
    let (_, sams) = comes_to_portal(&story.sam).await?;
    sams.sees(LINE).await?;
    ensure!(sams.state("m.room.name", "").await?.is_none());
    calls(&chat, "Repairs").await?;
    is_called(&sams, "Repairs").await?;
    // In a chat that Element made both may.
    calls(&sams, "Sam mends the roof").await?;
    let by = is_called(&chat, "Sam mends the roof").await?;
    ensure!(by == story.ghost);
    calls(&chat, "").await?;
    is_called(&sams, "").await?;
    does_not_name(&sams, &story.alice.user_id)?;
    does_not_name(&chat, &story.sam.user_id)
}
