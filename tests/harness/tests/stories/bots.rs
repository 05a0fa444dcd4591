//! Bots, which are people to us: they use the ordinary client-server API.

use anyhow::Result;
use harness::{JsBot, World, checks};

/// Driven by matrix-js-sdk: a client that was not made with the Rust SDK.
#[tokio::test]
async fn a_bot_written_against_the_matrix_api_claims_a_handle_and_answers() -> Result<()> {
    let world = World::start().await?;
    let stonechat = world.bot()?;
    let (alice, echo) = tokio::try_join!(
        world.person("alice"),
        JsBot::start(&world.synapse, "robot", Some((&stonechat, "echo"))),
    )?;
    let claimed = echo.says_that("claimed", |_| true).await?;
    assert!(
        claimed["answer"]
            .as_str()
            .is_some_and(|text| text.contains("@echo")),
        "{claimed}"
    );
    let ghost = world.ghost("echo")?;
    world.reachable(&alice, "echo").await?;

    let chat = alice.starts_chat(&[&ghost]).await?;
    chat.says("is there anybody at the other end").await?;
    echo.says_that("invited", |said| said["by"] == ghost.as_str())
        .await?;
    chat.sees("You said: is there anybody at the other end")
        .await?;
    let answer = chat
        .asks(&echo.user_id, "and without the ghost between us")
        .await?;
    assert_eq!(
        answer.text(),
        Some("You said: and without the ghost between us")
    );

    world
        .only_these_are_in(&chat, &alice, &[&alice.user_id, &echo.user_id])
        .await?;
    echo.saw_nothing_to_warn_of()?;
    checks::nothing_to_warn_of(&[&alice]).await?;
    world.nothing_leaked(&[
        "is there anybody at the other end",
        "and without the ghost between us",
    ])
}
