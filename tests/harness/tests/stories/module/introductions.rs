//! Owners who are in the room from its first event on, and rooms that nobody remembers.

use anyhow::{Context, Result, ensure};
use harness::{ChatOptions, World, checks};
use ruma::{UserId, api::client::room::create_room::v3::Request as CreateRoom};
use serde_json::json;
use stonechat::{
    clock::{Clock, SystemClock},
    directory::{Directory, DirectorySettings},
    handle::{Handle, HandleRules},
    ids::Person,
};

use super::{comes_by_name, no_ghost_was_there, story};
use crate::{
    remains::Remains,
    told::{LINE, goodbye, in_clear, invited_to, reason},
};

/// A copy of the service's store, read with its own keys, remembers no room of these two.
async fn nothing_is_remembered(world: &mut World, asker: &UserId, handles: &[&str]) -> Result<()> {
    world.service.stop().await?;
    let remains = Remains::of(world).await?;
    let settings = DirectorySettings::new(asker.server_name().to_owned());
    let directory = Directory::new(remains.store.clone(), settings);
    let asker = Person::new(asker.to_owned());
    for name in handles {
        let handle = Handle::parse(name, &HandleRules::default())?;
        let record = directory.lookup(&handle)?.context("no such handle")?;
        let now = SystemClock.now();
        let room = directory.room_of(&asker, &handle, record.generation, now)?;
        ensure!(room.is_none(), "{room:?} is remembered for {handle}");
    }
    Ok(())
}

/// The opening line reaches Sam as Alice's own, and nobody else is ever there.
async fn alice_meets_sam(version: &str) -> Result<()> {
    let mut story = story().await?;
    let (alice, sam) = (&story.alice, &story.sam);
    let options = ChatOptions::default().version(version)?;
    let chat = alice.starts_chat_with(&[&story.ghost], options).await?;
    chat.says(LINE).await?;
    let (invite, sams) = comes_by_name(sam, &chat, alice).await?;
    ensure!(invite.is_direct, "{invite:#?}");
    ensure!(
        invite.sender_name.as_deref() == Some("Alice"),
        "{invite:#?}"
    );
    let line = sams.sees(LINE).await?;
    ensure!(line.sender == alice.user_id && line.was_encrypted());
    story.ends_well(&chat, &sams).await?;

    let create = chat.state("m.room.create", "").await?;
    let create = create.context("no beginning")?;
    let levels = chat.state("m.room.power_levels", "").await?;
    let levels = levels.context("no power levels")?;
    let sams_id = sam.user_id.as_str();
    match version {
        "12" => ensure!(
            create["additional_creators"] == json!([sams_id]),
            "{create}"
        ),
        _ => ensure!(levels["users"][sams_id] == 100, "{levels}"),
    }
    ensure!(!levels.to_string().contains("_dm_"), "{levels}");

    no_ghost_was_there(&story.world, &[&chat]).await?;
    story.world.nothing_leaked(&[LINE, "every word of it"])?;
    let alice = story.alice.user_id.clone();
    nothing_is_remembered(&mut story.world, &alice, &["sam"]).await?;
    no_ghost_was_there(&story.world, &[&chat]).await
}

#[tokio::test]
async fn with_the_module_alice_meets_sam_alone_in_a_room_of_version_10() -> Result<()> {
    alice_meets_sam("10").await
}

#[tokio::test]
async fn with_the_module_alice_meets_sam_alone_in_a_room_of_version_11() -> Result<()> {
    alice_meets_sam("11").await
}

#[tokio::test]
async fn with_the_module_alice_meets_sam_alone_in_a_room_of_version_12() -> Result<()> {
    alice_meets_sam("12").await
}

#[tokio::test]
async fn with_the_module_a_strict_handle_needs_no_ghost_and_its_first_message_is_read() -> Result<()>
{
    let story = story().await?;
    let bot = story.world.bot()?;
    let answer = story.control_room.asks(&bot, "mode sam strict").await?;
    ensure!(answer.text().is_some_and(|text| text.contains("is strict")));
    let chat = story.alice_writes(LINE).await?;
    let (_, sams) = comes_by_name(&story.sam, &chat, &story.alice).await?;
    ensure!(sams.sees(LINE).await?.sender == story.alice.user_id);
    story.ends_well(&chat, &sams).await?;
    no_ghost_was_there(&story.world, &[&chat]).await
}

#[tokio::test]
async fn with_the_module_a_group_has_its_owners_from_the_beginning_and_each_of_them_once()
-> Result<()> {
    let mut story = story().await?;
    let bob = story.world.person("bob").await?;
    let (kim, kims_room) = story.world.owner("kim").await?;
    story.world.claims(&kim, &kims_room, "kimberly").await?;
    let ghosts = [
        story.world.ghost("kim")?,
        story.world.ghost("kimberly")?,
        story.ghost.clone(),
    ];
    let (alice, sam) = (&story.alice, &story.sam);

    // Two handles of one owner, an owner who is invited by name too, and somebody without a handle.
    let invited: [&UserId; 5] = [
        &ghosts[0],
        &sam.user_id,
        &ghosts[1],
        &ghosts[2],
        &bob.user_id,
    ];
    let options = ChatOptions::group();
    let chat = alice.starts_chat_with(&invited, options).await?;
    chat.says(LINE).await?;
    let mut theirs = Vec::new();
    for person in [&kim, sam, &bob] {
        let (invite, chat) = comes_by_name(person, &chat, alice).await?;
        ensure!(!invite.is_direct, "{invite:#?}");
        chat.sees(LINE).await?;
        theirs.push(chat);
    }
    theirs[0].says("Kim is here").await?;
    for chat in [&chat, &theirs[1], &theirs[2]] {
        chat.sees("Kim is here").await?;
    }
    let four: [&UserId; 4] = [&alice.user_id, &kim.user_id, &sam.user_id, &bob.user_id];
    story.world.only_these_are_in(&chat, alice, &four).await?;
    checks::nothing_to_warn_of(&[alice, &kim, sam, &bob]).await?;
    no_ghost_was_there(&story.world, &[&chat]).await?;
    let alice = alice.user_id.clone();
    nothing_is_remembered(&mut story.world, &alice, &["sam", "kim", "kimberly"]).await
}

#[tokio::test]
async fn with_the_module_odd_lists_are_answered_sensibly() -> Result<()> {
    let story = story().await?;
    let (alice, sam, ghost) = (&story.alice, &story.sam, &story.ghost);
    let bot = story.world.bot()?;

    // A room in clear is encrypted from its first event on.
    let chat = alice.starts_chat_with(&[ghost], in_clear()).await?;
    comes_by_name(sam, &chat, alice).await?;
    let algorithm = chat.state("m.room.encryption", "").await?;
    let algorithm = algorithm.context("not encrypted")?;
    ensure!(
        algorithm["algorithm"] == "m.megolm.v1.aes-sha2",
        "{algorithm}"
    );
    no_ghost_was_there(&story.world, &[&chat]).await?;

    // One's own handle: the bot says so.
    let own = sam.starts_chat(&[ghost]).await?;
    let left = goodbye(&own, ghost).await?;
    ensure!(
        reason(&left).is_some_and(|why| why.contains("can't be reached")),
        "{left:?}"
    );
    let told = "is yours, so its ghost";
    story.control_room.sees_part(told).await?;

    // The bot does not mind who else is invited: it goes.
    let crowd: [&UserId; 2] = [&bot, ghost];
    let chat = alice.starts_chat_with(&crowd, ChatOptions::group()).await?;
    comes_by_name(sam, &chat, alice).await?;
    chat.sees_leave(&bot).await?;
    let two: [&UserId; 2] = [&alice.user_id, &sam.user_id];
    story.world.only_these_are_in(&chat, alice, &two).await?;

    // A group in clear is the ghost's business: it turns encryption on before anybody comes.
    let options = ChatOptions {
        is_direct: false,
        ..in_clear()
    };
    let chat = alice.starts_chat_with(&[ghost], options).await?;
    let invite = invited_to(sam, &chat).await?;
    ensure!(invite.sender == *ghost && invite.encrypted, "{invite:#?}");

    // Power that was meant for the ghost is its owner's; a name in capitals is the same handle.
    let shouted = ghost.as_str().replace("_sam", "_SAM");
    let mut request = CreateRoom::new();
    request.is_direct = true;
    request.invite = vec![UserId::parse(&shouted)?];
    let levels = json!({"users": {alice.user_id.as_str(): 100, shouted: 75}});
    request.power_level_content_override = Some(ruma::serde::Raw::from_json(
        serde_json::value::to_raw_value(&levels)?,
    ));
    request.room_version = Some("11".try_into()?);
    let made = alice.client.create_room(request).await?;
    let chat = alice.chat(made.room_id());
    comes_by_name(sam, &chat, alice).await?;
    let levels = chat.state("m.room.power_levels", "").await?;
    let levels = levels.context("no power levels")?;
    ensure!(levels["users"][sam.user_id.as_str()] == 75, "{levels}");
    no_ghost_was_there(&story.world, &[&chat]).await
}
