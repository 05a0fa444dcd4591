//! Rooms that are not like Element's direct chats: in clear, and with more people in them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Result, ensure};
use harness::{Chat, ChatOptions, Person, PersonOptions, World, checks, proxy::Fate};
use ruma::UserId;
use serde_json::json;

use crate::told::{
    LINE, Story, comes, goodbye, in_clear, invited_to, place, quick, quoted, reason, times,
    with_network,
};

#[tokio::test]
async fn a_room_in_clear_is_encrypted_first_and_what_was_said_in_clear_is_asked_for_again()
-> Result<()> {
    let story = Story::begins_with(with_network(), PersonOptions::default()).await?;
    let (ghost, alice) = (&story.ghost, &story.alice);
    let mut door = story.waits_at_the_door()?;
    let chat = alice.starts_chat_with(&[ghost], in_clear()).await?;
    chat.says_in_clear("this stands in clear in the homeserver")
        .await?;
    door.held().await?;
    story.lets_in()?;

    let asked = chat
        .sees_part("wasn't encrypted, so I didn't pass it on")
        .await?;
    ensure!(asked.sender == *ghost && asked.was_encrypted());
    let algorithm = chat.state("m.room.encryption", "").await?;
    ensure!(
        algorithm.is_some_and(|is| is["algorithm"] == "m.megolm.v1.aes-sha2"),
        "not encrypted"
    );
    chat.says(LINE).await?;
    let sams = story.sam_comes(&chat).await?;
    sams.sees(&quoted("Alice", LINE)).await?;
    let two = [&*alice.user_id, &*story.sam.user_id];
    story.world.only_these_are_in(&chat, alice, &two).await?;
    ensure!(
        times(&sams, ghost, "in clear in the homeserver") == 0,
        "{:#?}",
        sams.texts()
    );
    checks::nothing_to_warn_of(&[&story.sam]).await?;
    story.world.nothing_leaked(&[LINE])
}

#[tokio::test]
async fn a_room_in_clear_that_the_ghost_may_not_encrypt_is_left_with_the_reason() -> Result<()> {
    let story = Story::begins_with(quick(), PersonOptions::default()).await?;
    let ghost = &story.ghost;
    let options = ChatOptions {
        trusted: false,
        ..in_clear()
    };
    let chat = story.alice.starts_chat_with(&[ghost], options).await?;
    let left = goodbye(&chat, ghost).await?;
    let why = reason(&left).unwrap_or_default();
    ensure!(
        why.contains("isn't encrypted and I may not change that"),
        "{left:?}"
    );

    // The same, encrypted, where it may not invite.
    let options = ChatOptions {
        trusted: false,
        power_levels: Some(json!({ "invite": 50 })),
        ..ChatOptions::default()
    };
    let chat = story.alice.starts_chat_with(&[ghost], options).await?;
    chat.says(LINE).await?;
    let left = goodbye(&chat, ghost).await?;
    let why = reason(&left).unwrap_or_default();
    ensure!(why.contains("I may not invite anybody"), "{left:?}");
    ensure!(story.sam.log().invites().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_ghost_declines_a_space_without_joining_it() -> Result<()> {
    let story = Story::begins_with(quick(), PersonOptions::default()).await?;
    let (ghost, alice) = (&story.ghost, &story.alice);
    let mut request = ChatOptions::group().request(&[ghost])?;
    let space = serde_json::value::to_raw_value(&json!({ "type": "m.space" }))?;
    request.creation_content = Some(ruma::serde::Raw::from_json(space));
    let made = alice.client.create_room(request).await?;
    let space = alice.chat(made.room_id());
    let left = goodbye(&space, ghost).await?;
    let why = reason(&left).unwrap_or_default();
    ensure!(why.contains("This isn't a chat"), "{left:?}");
    let joins = |seen: &harness::Seen| seen.membership() == Some((ghost.as_str(), "join"));
    ensure!(!space.events().iter().any(joins), "{:#?}", space.events());
    ensure!(story.sam.log().invites().is_empty());
    Ok(())
}

#[tokio::test]
async fn all_owners_in_a_group_read_its_first_line_once_and_no_ghost_stays() -> Result<()> {
    let story = Story::begins_with(quick(), PersonOptions::default()).await?;
    let (kim, _kims) = story.world.owner("kim").await?;
    let (alice, sam, ghost) = (&story.alice, &story.sam, &story.ghost);
    let kims_ghost = story.world.ghost("kim")?;

    let ghosts: [&UserId; 2] = [ghost, &kims_ghost];
    let chat = alice
        .starts_chat_with(&ghosts, ChatOptions::group())
        .await?;
    chat.says(LINE).await?;
    let sams = joins(sam, &chat, ghost).await?;
    let kims = joins(&kim, &chat, &kims_ghost).await?;
    let three: [&UserId; 3] = [&alice.user_id, &sam.user_id, &kim.user_id];
    for owners in [&sams, &kims] {
        owners.sees(&quoted("Alice", LINE)).await?;
    }
    all_can_talk(&story.world, (alice, &chat), &[&sams, &kims], &three).await?;
    for owners in [&sams, &kims] {
        // By the ghost with the smallest Matrix ID, for all.
        let quotes = [&kims_ghost, ghost].map(|ghost| times(owners, ghost, LINE));
        ensure!(quotes == [1, 0], "{:#?}", owners.texts());
    }
    checks::nothing_to_warn_of(&[&story.sam, &kim]).await?;
    story.world.nothing_leaked(&[LINE, "now we are complete"])
}

#[tokio::test]
async fn into_a_group_that_exists_a_ghost_brings_its_owner_and_repeats_nothing() -> Result<()> {
    let story = Story::begins_with(quick(), PersonOptions::default()).await?;
    let (alice, sam, ghost) = (&story.alice, &story.sam, &story.ghost);
    // One of them knows nothing of handles.
    let bob = story.world.person("bob").await?;
    let others: [&UserId; 1] = [&bob.user_id];
    let chat = alice
        .starts_chat_with(&others, ChatOptions::group())
        .await?;
    let bobs = bob.accepts(&bob.invited_by(&alice.user_id).await?).await?;
    chat.says(LINE).await?;
    bobs.sees(LINE).await?;
    chat.invites(ghost).await?;
    let sams = joins(sam, &chat, ghost).await?;
    let told = chat
        .sees_part("They can read what is written here from now on")
        .await?;
    ensure!(told.was_encrypted());
    let three: [&UserId; 3] = [&alice.user_id, &sam.user_id, &bob.user_id];
    all_can_talk(&story.world, (alice, &chat), &[&sams, &bobs], &three).await?;
    for chat in [&chat, &bobs, &sams] {
        ensure!(times(chat, ghost, LINE) == 0, "{:#?}", chat.texts());
    }
    story.world.nothing_leaked(&[LINE, "now we are complete"])
}

async fn joins(owner: &Person, chat: &Chat, ghost: &UserId) -> Result<Chat> {
    let invite = invited_to(owner, chat).await?;
    ensure!(invite.sender == *ghost, "invited by {}", invite.sender);
    ensure!(!invite.is_direct && invite.encrypted, "{invite:#?}");
    owner.accepts(&invite).await
}

async fn all_can_talk(
    world: &World,
    (alice, chat): (&Person, &Chat),
    others: &[&Chat],
    members: &[&UserId],
) -> Result<()> {
    world.only_these_are_in(chat, alice, members).await?;
    chat.says("now we are complete").await?;
    for other in others {
        other.sees("now we are complete").await?;
    }
    checks::nothing_to_warn_of(&[alice]).await
}

#[tokio::test]
async fn only_so_many_ghosts_join_at_a_time() -> Result<()> {
    let mut options = with_network();
    options.service = options.service.set("introductions.joins_at_once", 1);
    let story = Story::begins_with(options, PersonOptions::default()).await?;
    let kim = story.world.person("kim").await?;
    let joins = Arc::new(AtomicUsize::new(0));
    let counted = joins.clone();
    story.network()?.judge(move |method, path| {
        if method == "POST" && place(path).ends_with("/join") {
            counted.fetch_add(1, Ordering::SeqCst);
            return Fate::Hold;
        }
        Fate::Pass
    });
    let first = story.alice_writes(LINE).await?;
    story
        .network()?
        .hears(|_, path| place(path).ends_with("/join"))
        .await?;
    let second = kim.starts_chat(&[&story.ghost]).await?;
    second.says("is anybody there?").await?;
    // An invite that came later and is declined, without any joining, shows that all before it
    // have been looked at.
    let nobodys = story.world.ghost("nobodyhere")?;
    let declined = kim.starts_chat(&[&nobodys]).await?;
    goodbye(&declined, &nobodys).await?;
    ensure!(joins.load(Ordering::SeqCst) == 1, "both joined at once");

    story.network()?.calm();
    story.lets_in()?;
    let sams = story.sam_comes(&first).await?;
    story.ends_well(&first, &sams).await?;
    let sams = comes(&story.sam, &second, &story.ghost, "Kim (via @sam)").await?;
    sams.sees(&quoted("Kim", "is anybody there?")).await?;
    Ok(())
}
