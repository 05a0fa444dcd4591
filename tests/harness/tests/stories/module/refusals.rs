//! People who are declined, and blocked people who cannot invite by Matrix id either.

use anyhow::{Context, Result, bail, ensure};
use harness::{Chat, ChatOptions, Person, PersonOptions, Seen, World};
use ruma::UserId;
use serde_json::json;

use super::{comes_by_name, no_ghost_was_there, ours_in, story, with_module};
use crate::{
    federation::two_servers,
    masked::{comes_to_portal, masks},
    told::{LINE, Story, ends_well, goodbye, invited_to, reason},
};

/// The ghost was invited, declined without joining, and this is how.
async fn declined(world: &World, chat: &Chat, ghost: &UserId) -> Result<(String, u64)> {
    let left = goodbye(chat, ghost).await?;
    let seen = chat.events();
    let invited = seen.iter().find(|e| is(e, ghost, "invite"));
    let invited = invited.context("nobody was invited")?;
    ensure!(!seen.iter().any(|e| is(e, ghost, "join")), "it joined");
    let joined = json!([ghost, "join"]);
    let ours = ours_in(world, chat).await?;
    ensure!(!ours.iter().any(|row| json!(row) == joined), "{ours:?}");
    let words = reason(&left).context("without a word")?.to_owned();
    Ok((words, left.sent.saturating_sub(invited.sent)))
}

fn is(seen: &Seen, who: &UserId, membership: &str) -> bool {
    seen.membership() == Some((who.as_str(), membership))
}

/// What the server says to somebody who creates a room or invites.
fn forbidden<T>(done: Result<T>) -> Result<String> {
    match done {
        Ok(_) => bail!("it was not refused"),
        Err(error) if format!("{error:?}").contains("M_FORBIDDEN") => Ok(format!("{error:?}")),
        Err(error) => Err(error).context("refused in another way"),
    }
}

#[tokio::test]
async fn with_the_module_a_masked_ghost_stays_and_blocked_refused_and_limited_are_declined_alike()
-> Result<()> {
    let mut options = with_module();
    options.service = options
        .service
        .set("limits.new_conversations_per_sender", 3);
    let story = Story::begins_with(options, PersonOptions::default()).await?;
    let (bot, sams_ghost) = (story.world.bot()?, story.ghost.clone());
    let (kim, kims_room) = story.world.owner("kim").await?;
    let (rob, _) = story.world.owner("rob").await?;
    let bob = story.world.person("bob").await?;
    let (kims, robs) = (story.world.ghost("kim")?, story.world.ghost("rob")?);
    let answer = story
        .control_room
        .asks(&bot, "block @bob:stone.test")
        .await?;
    ensure!(answer.text().is_some_and(|text| text.contains("Blocked")));
    masks(&story.world, &kims_room, "kim").await?;

    let world = &story.world;
    let mut all = Vec::new();
    let chat = bob.starts_chat(&[&sams_ghost]).await?;
    all.push(declined(world, &chat, &sams_ghost).await?);
    let masked = bob.starts_chat(&[&kims]).await?;
    masked.says(LINE).await?;
    let (_, portal) = comes_to_portal(&kim).await?;
    portal.sees(LINE).await?;
    masked.sees_join(&kims).await?;
    kims_room.asks(&bot, "policy kim nobody").await?;
    let refused = story.alice.starts_chat(&[&kims]).await?;
    all.push(declined(world, &refused, &kims).await?);
    // Two were counted, and this is the third, though each was asked for twice.
    let chat = bob.starts_chat(&[&robs]).await?;
    let (_, robs_chat) = comes_by_name(&rob, &chat, &bob).await?;
    ends_well(world, (&bob, &chat), (&rob, &robs_chat)).await?;
    no_ghost_was_there(world, &[&chat]).await?;
    let limited = bob.starts_chat(&[&robs]).await?;
    all.push(declined(world, &limited, &robs).await?);

    ensure!(all.iter().all(|(words, _)| *words == all[0].0), "{all:#?}");
    let after = all.iter().map(|(_, after)| *after);
    let (soonest, latest) = (after.clone().min(), after.max());
    let (soonest, latest) = (soonest.unwrap_or_default(), latest.unwrap_or_default());
    ensure!(soonest >= 1_900 && latest - soonest < 1_500, "{all:#?}");
    ensure!(story.sam.log().invites().iter().all(|i| i.sender == bot));
    Ok(())
}

#[tokio::test]
async fn with_the_module_a_blocked_person_cannot_invite_by_matrix_id_and_others_can() -> Result<()>
{
    let story = story().await?;
    let bot = story.world.bot()?;
    let (alice, sam) = (&story.alice, &story.sam);
    let answer = story
        .control_room
        .asks(&bot, "block @alice:stone.test")
        .await?;
    ensure!(answer.text().is_some_and(|text| text.contains("Blocked")));

    let rooms = alice.client.rooms().len();
    let refused = alice.starts_chat(&[&sam.user_id]).await;
    let words = forbidden(refused)?;
    ensure!(words.contains(sam.user_id.as_str()), "{words}");
    ensure!(alice.client.rooms().len() == rooms, "a room was left over");
    let bob = story.world.person("bob").await?;
    let others: [&UserId; 1] = [&bob.user_id];
    let chat = alice
        .starts_chat_with(&others, ChatOptions::group())
        .await?;
    forbidden(chat.invites(&sam.user_id).await)?;
    let bobs = bob.accepts(&invited_to(&bob, &chat).await?).await?;
    bobs.invites(&sam.user_id).await?;
    invited_to(sam, &chat).await?;

    let answer = story
        .control_room
        .asks(&bot, "unblock @alice:stone.test")
        .await?;
    ensure!(answer.text().is_some_and(|text| text.contains("Unblocked")));
    let chat = alice.starts_chat(&[&sam.user_id]).await?;
    comes_by_name(sam, &chat, alice).await?;
    Ok(())
}

#[tokio::test]
async fn with_the_module_a_blocked_person_of_another_server_cannot_invite_by_matrix_id()
-> Result<()> {
    let (mut world, there) = two_servers(with_module()).await?;
    let ((sam, control_room), alice, bob) = tokio::try_join!(
        world.owner("sam"),
        Person::register(&there, "alice"),
        Person::register(&there, "bob")
    )?;
    let bot = world.bot()?;
    let block = format!("block {}", alice.user_id);
    let answer = control_room.asks(&bot, &block).await?;
    ensure!(answer.text().is_some_and(|text| text.contains("Blocked")));

    forbidden(alice.starts_chat(&[&sam.user_id]).await)?;
    let others: [&UserId; 1] = [&bob.user_id];
    let options = ChatOptions::group();
    let chat = alice.starts_chat_with(&others, options).await?;
    forbidden(chat.invites(&sam.user_id).await)?;
    // Somebody else of the same server gets through, into the same room too.
    let bobs = bob.accepts(&invited_to(&bob, &chat).await?).await?;
    bobs.invites(&sam.user_id).await?;
    let invite = invited_to(&sam, &chat).await?;
    ensure!(invite.sender == bob.user_id, "by {}", invite.sender);
    let invites = sam.log().invites();
    ensure!(
        invites.iter().all(|invite| invite.sender != alice.user_id),
        "{invites:#?}"
    );

    let answer = control_room.asks(&bot, &format!("un{block}")).await?;
    ensure!(answer.text().is_some_and(|text| text.contains("Unblocked")));
    let chat = alice.starts_chat(&[&sam.user_id]).await?;
    comes_by_name(&sam, &chat, &alice).await?;

    // Blocked again; but a Stonechat that is away keeps nobody's invite.
    let answer = control_room.asks(&bot, &block).await?;
    ensure!(answer.text().is_some_and(|text| text.contains("Blocked")));
    forbidden(alice.starts_chat(&[&sam.user_id]).await)?;
    world.service.stop().await?;
    let chat = alice.starts_chat(&[&sam.user_id]).await?;
    comes_by_name(&sam, &chat, &alice).await.map(drop)
}
