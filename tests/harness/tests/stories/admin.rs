//! What an admin does about handles, on the command line and by the bot, and who is told.

use anyhow::{Context, Result, ensure};
use harness::{Chat, Person, PersonOptions, ServiceOptions, World, WorldOptions};
use serde_json::{Value, json};

use crate::{
    masked::{comes_to_portal, masks},
    told::{comes, confirms, ends_well, goodbye, reason},
};

/// A world in which Root is an admin.
async fn begins() -> Result<(World, Person, Chat)> {
    let service = ServiceOptions::default()
        .set("permissions", json!({ "@root:stone.test": "admin" }))
        .set("introductions.linger", "1s");
    let options = WorldOptions {
        service,
        ..WorldOptions::default()
    };
    let world = World::start_with(options).await?;
    let root = world.person("root").await?;
    let control_room = world.control_room(&root).await?;
    Ok((world, root, control_room))
}

/// Runs a command with `--json`, and returns what it printed.
async fn prints(world: &World, args: &[&str]) -> Result<Value> {
    let args: Vec<&str> = args.iter().chain(&["--json"]).copied().collect();
    let printed = world.service.succeeds(&args).await?;
    serde_json::from_str(&printed).with_context(|| printed)
}

/// Runs a command that does not succeed. Returns its exit code and what it says.
async fn fails(world: &World, args: &[&str]) -> Result<(Option<i32>, String)> {
    let output = world.service.command_line(args).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "{args:?} succeeded");
    Ok((output.status.code(), said))
}

/// Checks that a chat with this ghost is declined like every one that is refused.
async fn is_declined(world: &World, asker: &Person, handle: &str) -> Result<()> {
    let ghost = world.ghost(handle)?;
    let chat = asker.starts_chat(&[&ghost]).await?;
    let gone = goodbye(&chat, &ghost).await?;
    ensure!(
        reason(&gone).is_some_and(|why| why.contains("can't be reached at the moment")),
        "{gone:?}"
    );
    chat.leaves().await
}

#[tokio::test]
async fn a_handle_is_taken_from_an_impostor_and_given_to_whom_it_names() -> Result<()> {
    let (mut world, root, roots_room) = begins().await?;
    let bot = world.bot()?;
    let (mallory, mallorys_room) = world.owner("heron").await?;
    let alice = world.person("alice").await?;
    let carol = world.person("carol").await?;

    // To everybody else there is no such command.
    let said = mallorys_room.asks(&bot, "admin unfreeze heron").await?;
    ensure!(said.text().is_some_and(|it| it.starts_with("I don't know")));
    roots_room
        .asks(&bot, "admin freeze heron Carol says that she is Heron")
        .await?;
    let told = mallorys_room.sees_part("was frozen by the admin").await?;
    let told = told.text().unwrap_or_default();
    ensure!(told.contains("Carol says that she is Heron"), "{told}");
    is_declined(&world, &alice, "heron").await?;
    let shown = prints(&world, &["handle", "show", "heron"]).await?;
    ensure!(shown["state"] == "frozen", "{shown}");
    ensure!(
        shown["frozen_for"]["admin"]["note"] == "Carol says that she is Heron",
        "{shown}"
    );

    // She has never written to the bot.
    let carols_id = carol.user_id.as_str();
    let transfer = [
        "handle", "transfer", "heron", carols_id, "--reason", "she is",
    ];
    let done = prints(&world, &transfer).await?;
    ensure!(done["handle"]["owner"] == carols_id, "{done}");
    let invite = carol.invited_by(&bot).await?;
    let carols_room = carol.accepts(&invite).await?;
    carols_room.sees_part("gave you @heron").await?;
    mallorys_room.sees_part("is no longer yours").await?;
    world.reachable(&alice, "heron").await?;
    let ghost = world.ghost("heron")?;
    let chat = alice.starts_chat(&[&ghost]).await?;
    chat.says("are you the real one?").await?;
    let carols = comes(&carol, &chat, &ghost, "Alice (via @heron)").await?;
    ends_well(&world, (&alice, &chat), (&carol, &carols)).await?;

    // By the bot, with a code; afterwards the last owner does not get it back.
    let done = confirms(&roots_room, &bot, "admin release heron enough").await?;
    ensure!(done.text().is_some_and(|it| it.contains("was taken from")));
    carols_room.sees_part("is no longer yours").await?;
    let said = carols_room.asks(&bot, "claim heron").await?;
    ensure!(said.text().is_some_and(|it| it.contains("was given up")));

    let log = prints(&world, &["audit", "--subject", "@heron"]).await?;
    let acts = log.as_array().context("no list")?.iter();
    let acts: Vec<_> = acts
        .map(|it| (&it["act"], &it["by"], &it["reason"]))
        .collect();
    let root = json!({ "person": root.user_id });
    ensure!(acts.len() == 3, "{acts:?}");
    ensure!(
        acts[0]
            == (
                &json!("freeze"),
                &root,
                &json!("Carol says that she is Heron")
            )
    );
    ensure!(
        acts[1].0 == "transfer" && acts[1].1["login"].is_string(),
        "{acts:?}"
    );
    ensure!(
        acts[2] == (&json!("release"), &root, &json!("enough")),
        "{acts:?}"
    );

    for (args, code, words) in [
        (["handle", "freeze", "nobody1"], 4, "nobody holds @nobody1"),
        (["handle", "show", "nobody1"], 4, "nobody holds @nobody1"),
        (
            ["handle", "unreserve", "heron"],
            1,
            "@heron is not reserved",
        ),
        (["handle", "melt", "heron"], 2, "melt"),
    ] {
        let (is, said) = fails(&world, &args).await?;
        ensure!(
            is == Some(code) && said.contains(words),
            "{args:?}: {is:?} {said}"
        );
    }
    world.service.stop().await?;
    let (code, said) = fails(&world, &["handle", "list"]).await?;
    ensure!(
        code == Some(3) && said.contains("is not running"),
        "{code:?} {said}"
    );
    drop(mallory);
    Ok(())
}

#[tokio::test]
async fn an_act_is_finished_after_a_crash_and_its_owner_told_once() -> Result<()> {
    let (mut world, _root, _room) = begins().await?;
    let bot = world.bot()?;
    let (sam, sams_room) = world.owner("sam").await?;
    let alice = world.person("alice").await?;
    let owner = sam.user_id.to_string();
    for name in ["heron", "egret", "bittern"] {
        world
            .service
            .succeeds(&["handle", "claim", name, &owner])
            .await?;
        world.service.kill().await?;
        world.service.start().await?;
    }
    for name in ["heron", "egret", "bittern"] {
        let words = format!("gave you @{name}");
        sams_room.sees_part(&words).await?;
        world.reachable(&alice, name).await?;
    }
    // All that was to be said has been said by now.
    sams_room.asks(&bot, "whoami").await?;
    for name in ["heron", "egret", "bittern"] {
        let words = format!("gave you @{name}");
        let times = sams_room.texts().into_iter();
        let times = times.filter(|(_, text)| text.contains(&words)).count();
        ensure!(times == 1, "{name}: {times}");
    }
    Ok(())
}

#[tokio::test]
async fn a_command_of_an_admin_from_a_device_that_they_have_not_signed_does_nothing() -> Result<()>
{
    let service =
        ServiceOptions::default().set("permissions", json!({ "@root:stone.test": "admin" }));
    let options = WorldOptions {
        service,
        ..WorldOptions::default()
    };
    let world = World::start_with(options).await?;
    let bot = world.bot()?;
    let (_sam, _room) = world.owner("sam").await?;
    let unsigned = PersonOptions {
        cross_signing: false,
        ..PersonOptions::default()
    };
    let root = world.person_with("root", unsigned).await?;
    let chat = root.starts_chat(&[&bot]).await?;
    chat.says("admin freeze sam").await?;
    chat.sees_leave(&bot).await?;
    let shown = prints(&world, &["handle", "show", "sam"]).await?;
    ensure!(shown["state"] == "active", "{shown}");
    let log = prints(&world, &["audit"]).await?;
    ensure!(log == json!([]), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_banned_person_is_answered_like_everybody_who_is_refused() -> Result<()> {
    let (world, root, roots_room) = begins().await?;
    let bot = world.bot()?;
    let (_sam, sams_room) = world.owner("sam").await?;
    let eve = world.person("eve").await?;
    let eves = eve.user_id.as_str();
    world
        .service
        .succeeds(&["person", "ban", eves, "--reason", "spam"])
        .await?;
    is_declined(&world, &eve, "sam").await?;
    let shown = prints(&world, &["person", "show", eves]).await?;
    ensure!(
        shown["permission"] == "none" && shown["ban"]["reason"] == "spam",
        "{shown}"
    );
    ensure!(
        shown["limits"][0]["what"] == "requests_of_sender",
        "{shown}"
    );
    let bans = prints(&world, &["bans"]).await?;
    ensure!(bans[0]["subject"] == eves, "{bans}");
    prints(&world, &["limits", "reset", eves]).await?;
    let limits = prints(&world, &["limits", "show", eves]).await?;
    ensure!(limits["limits"] == json!([]), "{limits}");
    roots_room
        .asks(&bot, &format!("admin unban {eves}"))
        .await?;
    let ghost = world.ghost("sam")?;
    let chat = eve.starts_chat(&[&ghost]).await?;
    chat.sees_join(&ghost).await?;

    // An owner is told, and reached by nobody.
    let sams = world.synapse.user("sam")?;
    world
        .service
        .succeeds(&["person", "ban", sams.as_str()])
        .await?;
    sams_room.sees_part("has banned you here").await?;
    is_declined(&world, &root, "sam").await?;
    // What is kept about him, to be given to him.
    let export = ["person", "export", sams.as_str()];
    let exported: Value = serde_json::from_str(&world.service.succeeds(&export).await?)?;
    ensure!(
        exported["handles"][0]["handle"] == "sam"
            && exported["control_room"] == sams_room.id().as_str()
            && exported["acts"][0]["act"] == "ban"
            && !exported.to_string().contains(eves),
        "{exported}"
    );
    let log = prints(&world, &["audit", "--since", "1h"]).await?;
    let acts = log.as_array().context("no list")?.iter();
    let acts: Vec<_> = acts.filter_map(|it| it["act"].as_str()).collect();
    ensure!(acts == ["ban", "reset-limits", "unban", "ban"], "{acts:?}");
    Ok(())
}

/// Waits until nothing of a person is kept but what admins did about them.
async fn is_not_kept(world: &World, who: &str) -> Result<()> {
    let deadline = tokio::time::Instant::now() + harness::PATIENCE;
    loop {
        let kept = world.service.succeeds(&["person", "export", who]).await?;
        let kept: Value = serde_json::from_str(&kept)?;
        let parts = [
            "handles",
            "conversations",
            "notices",
            "blocks",
            "introductions",
        ];
        if parts.iter().all(|part| kept[part] == json!([])) && kept["control_room"].is_null() {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < deadline, "{kept}");
    }
}

#[tokio::test]
async fn an_erased_person_is_gone_and_those_who_talked_with_them_are_told() -> Result<()> {
    let (world, _root, _) = begins().await?;
    let sam = world.person("sam").await?;
    let sams_room = world.control_room(&sam).await?;
    world.claims(&sam, &sams_room, "sam").await?;
    masks(&world, &sams_room, "sam").await?;
    let bob = world.person("bob").await?;
    let bobs = bob.starts_chat(&[&world.ghost("sam")?]).await?;
    bobs.says("is the heron there?").await?;
    let (_, portal) = comes_to_portal(&sam).await?;
    portal.sees("is the heron there?").await?;

    let sams = sam.user_id.as_str();
    let (code, said) = fails(&world, &["person", "erase", sams]).await?;
    ensure!(
        code == Some(2) && said.contains("--yes"),
        "{code:?}: {said}"
    );
    let erased = prints(
        &world,
        &["person", "erase", sams, "--yes", "--reason", "asked for"],
    )
    .await?;
    let done = erased["done"].as_str().unwrap_or_default();
    ensure!(
        done.contains("@sam") && done.contains("quarantine"),
        "{erased}"
    );
    let left = goodbye(&sams_room, &world.bot()?).await?;
    ensure!(
        reason(&left).is_some_and(|why| why.starts_with("What I kept about you is deleted")),
        "{left:?}"
    );
    bobs.sees_part("has ended").await?;
    goodbye(&bobs, &world.ghost("sam")?).await?;
    is_not_kept(&world, sams).await?;
    is_declined(&world, &bob, "sam").await?;

    // He can do it himself, too: here Bob does.
    let bobs_room = world.control_room(&bob).await?;
    world.claims(&bob, &bobs_room, "bob").await?;
    let bot = world.bot()?;
    bobs_room.says("my data").await?;
    let file = bobs_room
        .sees_where("his data", |seen| seen.content["msgtype"] == "m.file")
        .await?;
    ensure!(
        file.was_encrypted() && file.content["filename"] == "stonechat-data.json",
        "{file:?}"
    );
    let data: Value = serde_json::from_slice(&bobs_room.downloads(&file).await?)?;
    ensure!(
        data["person"] == bob.user_id.as_str() && data["handles"][0]["handle"] == "bob",
        "{data}"
    );
    let answer = bobs_room.asks(&bot, "forget me").await?;
    let text = answer.text().unwrap_or_default();
    ensure!(text.contains("You'd lose @bob"), "{text}");
    confirms(&bobs_room, &bot, "forget me").await?;
    goodbye(&bobs_room, &bot).await?;
    is_not_kept(&world, bob.user_id.as_str()).await
}
