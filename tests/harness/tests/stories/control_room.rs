//! What happens in the room that a person and the bot share.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{Chat, ChatOptions, PersonOptions, World, checks};
use rand::Rng as _;
use ruma::UserId;

use crate::told::{confirms, goodbye, in_clear, reason, times};

/// Asks the bot, and wants `part` in its answer.
pub async fn answered(chat: &Chat, bot: &UserId, command: &str, part: &str) -> Result<String> {
    let answer = chat.asks(bot, command).await?;
    let text = answer.text().unwrap_or_default();
    ensure!(text.contains(part), "to {command:?} the bot said {text:?}");
    ensure!(answer.was_encrypted(), "{command:?} was answered in clear");
    Ok(text.to_owned())
}

#[tokio::test]
async fn sam_finds_his_way_in_the_control_room() -> Result<()> {
    let world = World::start().await?;
    let bot = world.bot()?;
    let (sam, kim) = (world.person("sam").await?, world.person("kim").await?);
    let chat = world.control_room(&sam).await?;
    let greeting = chat.sees_part("claim sam").await?;
    ensure!(greeting.sender == bot && greeting.was_encrypted());

    answered(&chat, &bot, "help", "claim").await?;
    answered(&chat, &bot, "clam sam", "Did you mean `claim sam`?").await?;
    answered(&chat, &bot, "@kim", "`dm @kim`").await?;
    answered(&chat, &bot, "handles", "claim").await?;
    world.claims(&sam, &chat, "Sam").await?;
    answered(&chat, &bot, "handles", "@Sam").await?;
    answered(&chat, &bot, "policy sam", "everyone may reach you").await?;
    answered(&chat, &bot, "policy sam nobody", "nobody reaches you").await?;
    answered(&chat, &bot, "policy sam everyone", "everyone may reach you").await?;
    answered(&chat, &bot, "mode sam sealed", "not offered here yet").await?;
    answered(&chat, &bot, "mode sam masked", "can read it on the way").await?;
    answered(&chat, &bot, "calls sam", "are hidden").await?;
    answered(&chat, &bot, "calls sam direct", "are direct").await?;
    answered(&chat, &bot, "appear Sammy", "see you as Sammy").await?;
    let open = confirms(&chat, &bot, "mode sam open").await?;
    ensure!(
        open.text().is_some_and(|text| text.contains("is open")),
        "{open:?}"
    );
    answered(&chat, &bot, "whoami", sam.user_id.as_str()).await?;

    let kims = world.control_room(&kim).await?;
    let link = answered(&kims, &bot, "dm @sam", "https://matrix.to/#/").await?;
    let to_owner = sam.user_id.matrix_to_uri().to_string();
    ensure!(
        link.contains(&to_owner),
        "{link:?} does not lead to {to_owner}"
    );
    answered(&kims, &bot, "dm @nobodyhere", "I can't bring you together").await?;
    answered(&chat, &bot, &format!("block {}", kim.user_id), "Blocked").await?;
    answered(&chat, &bot, "unblock", kim.user_id.as_str()).await?;
    let refused = answered(&kims, &bot, "dm @sam", "I can't bring you together").await?;
    let unclaimed = answered(&kims, &bot, "dm @nobodyhere", "I can't").await?;
    ensure!(
        refused.replace("@sam", "@nobodyhere") == unclaimed,
        "{refused:?}"
    );
    answered(
        &chat,
        &bot,
        &format!("unblock {}", kim.user_id),
        "Unblocked",
    )
    .await?;
    answered(&kims, &bot, "dm @sam", &to_owner).await?;

    checks::nothing_to_warn_of(&[&sam, &kim]).await
}

#[tokio::test]
async fn an_edit_a_reaction_and_a_file_run_no_command() -> Result<()> {
    let world = World::start().await?;
    let bot = world.bot()?;
    let sam = world.person("sam").await?;
    let chat = world.control_room(&sam).await?;
    let asked = chat.says("whoami").await?;
    let answer = chat.sees_part("You're").await?;
    chat.edits(&asked, "claim sam").await?;
    chat.reacts(&answer.event_id, "👍").await?;
    answered(&chat, &bot, "handles", "You don't have a handle").await?;
    ensure!(times(&chat, &bot, "") == 3, "{:#?}", chat.texts());
    chat.sends_file("claim.txt", b"claim sam").await?;
    chat.sees_part("I only read text").await?;
    Ok(())
}

#[tokio::test]
async fn the_bot_stays_only_where_it_is_alone_with_one_person_and_encrypted() -> Result<()> {
    let world = World::start().await?;
    let bot = world.bot()?;
    let (sam, kim) = (world.person("sam").await?, world.person("kim").await?);

    let chat = sam.starts_chat_with(&[&bot], in_clear()).await?;
    let greeting = chat.sees_part("Hello!").await?;
    ensure!(greeting.was_encrypted(), "it greeted in clear");
    ensure!(chat.state("m.room.encryption", "").await?.is_some());
    answered(&chat, &bot, "whoami", sam.user_id.as_str()).await?;

    let options = ChatOptions {
        trusted: false,
        ..in_clear()
    };
    let clear = sam.starts_chat_with(&[&bot], options).await?;
    let left = goodbye(&clear, &bot).await?;
    let why = reason(&left).unwrap_or_default();
    ensure!(why.contains("not encrypted"), "{left:?}");

    let public = ChatOptions {
        state: vec![serde_json::json!({
            "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "public" },
        })],
        ..ChatOptions::default()
    };
    let open = sam.starts_chat_with(&[&bot], public).await?;
    let left = goodbye(&open, &bot).await?;
    let why = reason(&left).unwrap_or_default();
    ensure!(why.contains("without an invite"), "{left:?}");

    chat.invites(&kim.user_id).await?;
    let left = goodbye(&chat, &bot).await?;
    let why = reason(&left).unwrap_or_default();
    ensure!(why.contains("only with one person at a time"), "{left:?}");

    // It can say nothing to somebody whose devices it cannot trust.
    let unsigned = PersonOptions {
        cross_signing: false,
        ..PersonOptions::default()
    };
    let bob = world.person_with("bob", unsigned).await?;
    let bobs = bob.starts_chat(&[&bot]).await?;
    let left = goodbye(&bobs, &bot).await?;
    let why = reason(&left).unwrap_or_default();
    ensure!(why.contains("you haven't verified it"), "{left:?}");

    // From then on somewhere else.
    let next = world.control_room(&sam).await?;
    answered(&next, &bot, "claim sam", "is yours").await?;
    Ok(())
}

#[tokio::test]
async fn a_command_is_neither_lost_nor_run_twice_by_a_kill() -> Result<()> {
    let mut world = World::start().await?;
    let bot = world.bot()?;
    let sam = world.person("sam").await?;
    // The very first message, before the bot is there.
    let chat = sam.starts_chat(&[&bot]).await?;
    chat.says("claim sam").await?;
    chat.sees_part("is yours").await?;

    for round in 0..4 {
        let word = format!("gibberish{round}");
        chat.says(&word).await?;
        let pause = rand::rng().random_range(0..120);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        world.service.kill().await?;
        world.service.start().await?;
        chat.sees_part(&format!("I don't know `{word}`"))
            .await
            .with_context(|| format!("killed {pause} ms after {word}"))?;
    }
    // While it is down altogether.
    world.service.stop().await?;
    chat.says("claim samuel").await?;
    world.service.start().await?;
    chat.sees_part("@samuel is yours").await?;
    answered(&chat, &bot, "handles", "@samuel").await?;
    for round in 0..4 {
        let answers = times(&chat, &bot, &format!("`gibberish{round}`"));
        ensure!(answers == 1, "{answers} answers: {:#?}", chat.texts());
    }
    ensure!(times(&chat, &bot, "is yours") == 2, "{:#?}", chat.texts());
    checks::nothing_to_warn_of(&[&sam]).await
}
