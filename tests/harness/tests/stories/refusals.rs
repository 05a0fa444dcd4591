//! Who is declined, and that nobody can tell why.

use anyhow::{Context, Result, ensure};
use harness::{Chat, Person, PersonOptions, ServiceOptions, World, WorldOptions};
use ruma::UserId;
use serde_json::json;

use crate::told::{LINE, Story, comes, confirms, ends_well, goodbye, quick, quoted, reason};

/// One declined invite, as the person who asked sees it.
#[derive(Debug)]
struct Declined {
    #[expect(dead_code, reason = "told by `Debug` when it is not as the others")]
    why: &'static str,
    content: serde_json::Value,
    after: u64,
}

async fn declined(why: &'static str, asker: &Person, ghost: &UserId) -> Result<Declined> {
    let chat = asker.starts_chat(&[ghost]).await?;
    let left = goodbye(&chat, ghost).await.context(why)?;
    let seen = chat.events();
    let membership = |wanted: &str| {
        let mut seen = seen.iter();
        seen.find(|e| e.membership() == Some((ghost.as_str(), wanted)))
            .cloned()
    };
    ensure!(membership("join").is_none(), "{why}: the ghost joined");
    let invited = membership("invite").context("nobody was invited")?;
    let mut content = left.content.clone();
    // Its own name is all that tells one ghost from another.
    if let Some(fields) = content.as_object_mut() {
        fields.remove("displayname");
    }
    Ok(Declined {
        why,
        after: left.sent.saturating_sub(invited.sent),
        content,
    })
}

#[tokio::test]
async fn refused_blocked_barred_limited_and_unclaimed_look_alike() -> Result<()> {
    let limited = ServiceOptions::default()
        .set("limits.new_conversations_per_sender", 2)
        .set("permissions", json!({ "@erin:stone.test": "none" }))
        .set("introductions.linger", "1s");
    let world = World::start_with(WorldOptions {
        service: limited,
        ..WorldOptions::default()
    })
    .await?;
    let bot = world.bot()?;
    let (sam, sams_room) = world.owner("sam").await?;
    let (_kim, kims_room) = world.owner("kim").await?;
    let (bob, bobs_room) = world.owner("bobby").await?;
    world.claims(&bob, &bobs_room, "rob").await?;
    let carol = world.person("carol").await?;
    let dave = world.person("dave").await?;
    let erin = world.person("erin").await?;
    let (sams, kims) = (world.ghost("sam")?, world.ghost("kim")?);

    // A block covers every handle of the person blocked, whichever it names.
    let answer = sams_room.asks(&bot, "block @rob").await?;
    ensure!(
        answer.text().is_some_and(|text| text.contains("Blocked")),
        "{answer:?}"
    );
    let answer = kims_room.asks(&bot, "policy kim nobody").await?;
    ensure!(
        answer
            .text()
            .is_some_and(|text| text.contains("nobody reaches you")),
        "{answer:?}"
    );

    let nobodys = world.ghost("nobodyhere")?;
    let others = world.ghost("norhere")?;
    let all = [
        declined("blocked", &bob, &sams).await?,
        declined("policy", &carol, &kims).await?,
        declined("not permitted", &erin, &sams).await?,
        declined("unclaimed", &dave, &nobodys).await?,
        declined("unclaimed again", &dave, &others).await?,
        declined("over the limit", &dave, &sams).await?,
    ];
    let first = &all[0];
    let words = first.content["reason"].as_str().unwrap_or_default();
    ensure!(words.contains("can't be reached at the moment"), "{all:#?}");
    ensure!(
        all.iter().all(|one| one.content == first.content),
        "{all:#?}"
    );
    let soonest = all.iter().map(|one| one.after).min().unwrap_or_default();
    let latest = all.iter().map(|one| one.after).max().unwrap_or_default();
    ensure!(soonest >= 1_900 && latest - soonest < 1_500, "{all:#?}");
    ensure!(sam.log().invites().iter().all(|i| i.sender != sams));

    let answer = sams_room.asks(&bot, "unblock @rob").await?;
    ensure!(
        answer.text().is_some_and(|text| text.contains("Unblocked")),
        "{answer:?}"
    );
    let chat = bob.starts_chat(&[&sams]).await?;
    chat.says(LINE).await?;
    let sams_chat = comes(&sam, &chat, &sams, "Bobby (via @sam)").await?;
    sams_chat.sees(&quoted("Bobby", LINE)).await?;
    ends_well(&world, (&bob, &chat), (&sam, &sams_chat)).await
}

#[tokio::test]
async fn a_released_handle_reaches_nobody_and_its_next_owner_is_somebody_else() -> Result<()> {
    let mut options = quick();
    options.service = options.service.set("handles.quarantine", "0s");
    let mut story = Story::begins_with(options, PersonOptions::default()).await?;
    let (bot, ghost) = (story.world.bot()?, story.ghost.clone());
    let kim = story.world.person("kim").await?;
    let chat = story.alice_writes(LINE).await?;
    let sams = story.sam_comes(&chat).await?;
    story.ends_well(&chat, &sams).await?;
    let before = story.alice.keys_of(&ghost).await?;

    release(&story.control_room, &bot, "sam").await?;
    let second = story.alice.starts_chat(&[&ghost]).await?;
    let left = goodbye(&second, &ghost).await?;
    ensure!(reason(&left).is_some(), "{left:?}");

    // A new owner: new keys, and Alice's chat with Sam is not theirs.
    let kims_room = story.world.control_room(&kim).await?;
    story.world.claims(&kim, &kims_room, "sam").await?;
    let after = story.alice.keys_of(&ghost).await?;
    for keys in ["device_keys", "master_keys", "self_signing_keys"] {
        ensure!(before[keys] != after[keys], "{keys} of {ghost} stayed");
    }
    // Nobody has told Alice's client that the keys it knows are gone: it hears of that when the
    // ghost joins, and may have encrypted her first line for the old ones by then.
    let mut door = story.waits_at_the_door()?;
    let third = story.alice_writes("is this still you, Sam?").await?;
    door.held().await?;
    story.lets_in()?;
    let kims = comes(&kim, &third, &ghost, "Alice (via @sam)").await?;
    // Her line is passed on if her client has heard of the new keys in time; if not, she is asked
    // for it again.
    let told = third
        .sees_where("her line passed on, or asked for again", |seen| {
            seen.sender == ghost
                && seen.text().is_some_and(|text| {
                    text.contains("couldn't decrypt your message for @sam")
                        || text == "Alice wrote:\n> is this still you, Sam?"
                })
        })
        .await?;
    ensure!(told.was_encrypted(), "{told:?}");
    third.says("again: is this still you, Sam?").await?;
    kims.sees_part("again: is this still you, Sam?").await?;
    let two: [&UserId; 2] = [&story.alice.user_id, &kim.user_id];
    story
        .world
        .only_these_are_in(&third, &story.alice, &two)
        .await?;
    ensure!(
        story
            .sam
            .log()
            .invites()
            .iter()
            .all(|i| i.room != third.id())
    );
    story.world.service.stop().await.map(drop)
}

/// Gives a handle up, with the code that the bot asks for.
pub async fn release(room: &Chat, bot: &UserId, handle: &str) -> Result<()> {
    let done = confirms(room, bot, &format!("release {handle}")).await?;
    ensure!(
        done.text()
            .is_some_and(|text| text.contains("no longer yours")),
        "{done:?}"
    );
    Ok(())
}
