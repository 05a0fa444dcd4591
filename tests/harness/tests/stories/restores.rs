//! The service is lost and comes back from a backup.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result, ensure};
use harness::{Log, PATIENCE, PersonOptions, Seen, ServiceOptions, World, WorldOptions, checks};
use serde_json::Value;

use crate::{
    control_room::answered,
    told::{LINE, Story, comes, ends_well, goodbye, quoted},
};

/// The file that these stories write.
const FILE: &str = "stonechat.backup";

/// The devices of our users as the homeserver keeps them, and every one-time and fallback key that
/// lies there.
async fn devices_and_keys(world: &World) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let devices = world
        .synapse
        .query("SELECT device_id FROM e2e_device_keys_json WHERE user_id LIKE '@\\_dm\\_%' ESCAPE '\\'")
        .await?;
    let mut keys = BTreeSet::new();
    for table in ["e2e_one_time_keys_json", "e2e_fallback_keys_json"] {
        let sql = format!(
            "SELECT user_id, key_json FROM {table} WHERE user_id LIKE '@\\_dm\\_%' ESCAPE '\\'"
        );
        for row in world.synapse.query(&sql).await? {
            let key: Value = serde_json::from_str(&text(&row[1]))?;
            keys.insert(format!("{} {}", text(&row[0]), text(&key["key"])));
        }
    }
    let devices: BTreeSet<String> = devices.iter().map(|row| text(&row[0])).collect();
    ensure!(!devices.is_empty() && keys.len() > 50, "{devices:?}");
    Ok((devices, keys))
}

/// Kills the service, takes its data away, and puts the backup in its place.
async fn lost_and_restored(world: &mut World) -> Result<String> {
    if world.service.process().is_some() {
        world.service.kill().await?;
    }
    let data = world.service.data();
    fs::rename(&data, data.with_extension("lost"))?;
    world.service.succeeds(&["restore", FILE]).await
}

#[tokio::test]
async fn a_restored_service_wedges_nobodys_session_and_reuses_no_key() -> Result<()> {
    let mut story = Story::begins().await?;
    let bot = story.world.bot()?;
    let chat = story.alice_writes(LINE).await?;
    let sams = story.sam_comes(&chat).await?;
    sams.sees(&quoted("Alice", LINE)).await?;
    story.ends_well(&chat, &sams).await?;
    answered(&story.control_room, &bot, "handles", "@sam").await?;

    // A backup while people talk.
    let talking = async {
        for n in 0..6 {
            let word = format!("gibberish{n}");
            answered(&story.control_room, &bot, &word, "I don't know").await?;
        }
        anyhow::Ok(())
    };
    let writing = story.world.service.succeeds(&["backup", FILE]);
    let (talked, written) = tokio::join!(talking, writing);
    talked?;
    let written = written?;
    ensure!(
        written.contains("handles: 1,") && written.contains("store.key"),
        "{written}"
    );
    let file = story.world.service.folder().join(FILE);
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600);
    checks::holds_none_of(story.world.service.folder(), &[LINE])?;
    let again = story.world.service.command_line(&["backup", FILE]).await?;
    let words = String::from_utf8_lossy(&again.stderr).into_owned();
    ensure!(
        !again.status.success() && words.contains("--force"),
        "{words}"
    );
    let running = story.world.service.command_line(&["restore", FILE]).await?;
    let words = String::from_utf8_lossy(&running.stderr).into_owned();
    ensure!(
        !running.status.success() && words.contains("stop it first"),
        "{words}"
    );

    // Life goes on.
    let kim = story.world.person("kim").await?;
    let kims = story.world.control_room(&kim).await?;
    story.world.claims(&kim, &kims, "kim").await?;
    story.world.claims(&kim, &kims, "canal").await?;
    answered(
        &story.control_room,
        &bot,
        "policy sam nobody",
        "nobody reaches you",
    )
    .await?;
    answered(&story.control_room, &bot, "policy sam everyone", "everyone").await?;
    let dave = story.world.person("dave").await?;
    let daves = dave.starts_chat(&[&story.ghost]).await?;
    daves.says("is the lock open on sundays?").await?;
    let sams_of_dave = comes(&story.sam, &daves, &story.ghost, "Dave (via @sam)").await?;
    ends_well(&story.world, (&dave, &daves), (&story.sam, &sams_of_dave)).await?;
    let (devices, keys) = devices_and_keys(&story.world).await?;

    // And ends; somebody writes to nobody.
    story.world.service.kill().await?;
    let bob = story.world.person("bob").await?;
    let bobs = bob.starts_chat(&[&story.ghost]).await?;
    bobs.says("is anybody there, at the lock?").await?;
    let restored = lost_and_restored(&mut story.world).await?;
    ensure!(
        restored.contains("What Stonechat cannot know"),
        "{restored}"
    );
    story.world.service.start().await?;

    let (devices_now, keys_now) = devices_and_keys(&story.world).await?;
    let kept: Vec<_> = devices.intersection(&devices_now).collect();
    // The ghosts of the two handles that are lost belong to nobody, and keep their devices.
    ensure!(kept.len() == 2, "{devices:?} {devices_now:?}");
    let fresh = keys_now.difference(&keys).count();
    ensure!(fresh >= 90, "only {fresh} new keys");
    let again =
        |key: &&String| key.starts_with(bot.as_str()) || key.starts_with(story.ghost.as_str());
    let again: Vec<_> = keys.intersection(&keys_now).filter(again).collect();
    ensure!(again.is_empty(), "published a second time: {again:?}");
    for user in [&bot, &story.ghost] {
        let shown = story.alice.devices_of(user).await?;
        ensure!(shown.len() == 1, "{user} has {shown:?}");
        ensure!(
            shown
                .iter()
                .all(|(id, signed)| *signed && !devices.contains(id))
        );
    }

    // Sam and the bot, in the room that they have.
    story
        .control_room
        .sees_part("I was restored from a backup of 20")
        .await?;
    answered(&story.control_room, &bot, "handles", "@sam").await?;
    answered(
        &story.control_room,
        &bot,
        "whoami",
        story.sam.user_id.as_str(),
    )
    .await?;
    // Kim's room is younger than the backup.
    kims.sees_part("I was restored from a backup").await?;
    answered(&kims, &bot, "handles", "You don't have a handle").await?;

    // Who wrote while it was down is told, and brought together with Sam.
    let sams_of_bob = comes(&story.sam, &bobs, &story.ghost, "Bob (via @sam)").await?;
    bobs.sees_part("I couldn't decrypt your message for @sam")
        .await?;
    ends_well(&story.world, (&bob, &bobs), (&story.sam, &sams_of_bob)).await?;
    // And a new introduction.
    let carol = story.world.person("carol").await?;
    let carols = carol.starts_chat(&[&story.ghost]).await?;
    carols.says("a new day at the old lock").await?;
    let sams_of_carol = comes(&story.sam, &carols, &story.ghost, "Carol (via @sam)").await?;
    sams_of_carol
        .sees(&quoted("Carol", "a new day at the old lock"))
        .await?;
    ends_well(
        &story.world,
        (&carol, &carols),
        (&story.sam, &sams_of_carol),
    )
    .await?;

    // The ghost does not come back to a room that it left after the backup.
    daves.invites(&story.ghost).await?;
    let declined = |log: &Log| {
        let of_ghost = |seen: &Seen| {
            let membership = seen.membership();
            membership.filter(|(user, _)| *user == story.ghost.as_str())?;
            membership.map(|(_, is)| is.to_owned())
        };
        let events = log.events_in(daves.id());
        let all: Vec<_> = events.iter().filter_map(of_ghost).collect();
        all.ends_with(&["leave".to_owned(), "invite".to_owned(), "leave".to_owned()])
            .then_some(())
    };
    dave.until("the ghost to decline", declined).await?;

    // Handles that were claimed after the backup: one was found, the other is as soon as somebody
    // asks for it; nobody else gets them.
    let log = fs::read_to_string(story.world.service.log())?;
    ensure!(
        log.contains("@kim changed since the backup and is frozen"),
        "{log}"
    );
    let canal = story.world.ghost("canal")?;
    let lost = carol.starts_chat(&[&canal]).await?;
    goodbye(&lost, &canal).await?;
    let frozen = format!("ghost={canal}");
    let process = story.world.service.process();
    ensure!(process.is_some_and(|it| it.lines().iter().any(|l| l.contains(&frozen))));
    for handle in ["kim", "canal"] {
        let claim = format!("claim {handle}");
        answered(&story.control_room, &bot, &claim, "taken").await?;
    }

    // The admin looks at it, and gives it back.
    let service = &story.world.service;
    let shown = service.succeeds(&["handle", "show", "kim"]).await?;
    ensure!(shown.contains("not in the backup"), "{shown}");
    let refused = service.command_line(&["handle", "unfreeze", "kim"]).await?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(1) && why.contains("who owns @kim is not known"),
        "{why}"
    );
    service
        .succeeds(&["handle", "transfer", "kim", kim.user_id.as_str()])
        .await?;
    kims.sees_part("The admin of this server gave you @kim")
        .await?;
    story.world.reachable(&carol, "kim").await?;
    let kims_ghost = story.world.ghost("kim")?;
    let carols = carol.starts_chat(&[&kims_ghost]).await?;
    carols.says("to the lock keeper").await?;
    let kims_of_carol = comes(&kim, &carols, &kims_ghost, "Carol (via @kim)").await?;
    ends_well(&story.world, (&carol, &carols), (&kim, &kims_of_carol)).await?;
    checks::nothing_to_warn_of(&[&story.alice, &story.sam, &kim, &carol]).await
}

#[tokio::test]
async fn introductions_under_way_end_with_a_word() -> Result<()> {
    let service = ServiceOptions::default()
        .set("introductions.linger", "100s")
        .set("introductions.at_most", "120s");
    let options = WorldOptions {
        service,
        ..WorldOptions::default()
    };
    let mut story = Story::begins_with(options, PersonOptions::default()).await?;
    // One that the backup knows, and one that began after it.
    let known = story.alice_writes(LINE).await?;
    let sams_of_known = story.sam_comes(&known).await?;
    sams_of_known.sees(&quoted("Alice", LINE)).await?;
    story.world.service.succeeds(&["backup", FILE]).await?;
    let bob = story.world.person("bob").await?;
    let unknown = bob.starts_chat(&[&story.ghost]).await?;
    unknown.says("the second line of the day").await?;
    let sams = comes(&story.sam, &unknown, &story.ghost, "Bob (via @sam)").await?;
    sams.sees(&quoted("Bob", "the second line of the day"))
        .await?;
    // Said while the ghost is there, and passed on by nobody.
    story.world.service.kill().await?;
    for chat in [&known, &unknown] {
        chat.says("do you still hear me, ghost?").await?;
    }
    story.world.service.set("introductions.linger", "1s")?;
    lost_and_restored(&mut story.world).await?;
    // Killed in the midst of it, too.
    story.world.service.launch()?;
    let process = story.world.service.process().context("it was started")?;
    process.line_with("has a new device", PATIENCE).await?;
    story.world.service.kill().await?;
    story.world.service.start().await?;
    let shown = story.alice.devices_of(&story.ghost).await?;
    ensure!(shown.len() == 1, "{shown:?}");
    // In the room that the backup did not know, the new device reads none of two messages.
    for (chat, words) in [
        (&known, "I couldn't decrypt your message for @sam"),
        (&unknown, "I couldn't decrypt this and other messages"),
    ] {
        chat.sees_part(words).await?;
        goodbye(chat, &story.ghost).await?;
    }
    story.ends_well(&known, &sams_of_known).await?;
    ends_well(&story.world, (&bob, &unknown), (&story.sam, &sams)).await
}

#[tokio::test]
async fn a_stopped_service_is_backed_up_and_nothing_is_overwritten() -> Result<()> {
    let mut story = Story::begins().await?;
    let bot = story.world.bot()?;
    story.world.service.stop().await?;
    story.world.service.succeeds(&["backup", FILE]).await?;
    let folder = story.world.service.folder().to_owned();
    let whole = fs::read(folder.join(FILE))?;
    fs::write(folder.join("cut"), &whole[..whole.len() - 40])?;
    let mut damaged = whole.clone();
    // In the check at the end: elsewhere it may as well make the file look cut.
    damaged[whole.len() - 1] ^= 1;
    fs::write(folder.join("damaged"), damaged)?;
    for (file, words) in [
        ("cut", "cut short"),
        ("damaged", "damaged"),
        (FILE, "there is a database"),
        ("nothing", "cannot read"),
    ] {
        for force in [&["restore", file][..], &["restore", "--force", file]] {
            if file == FILE && force.len() == 3 {
                continue;
            }
            let refused = story.world.service.command_line(force).await?;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            ensure!(
                !refused.status.success() && said.contains(words),
                "{file}: {said}"
            );
        }
    }
    // Nothing was changed by any of it.
    story.world.service.start().await?;
    answered(&story.control_room, &bot, "handles", "@sam").await?;
    story.world.service.stop().await?;
    let said = story
        .world
        .service
        .succeeds(&["restore", "--force", FILE])
        .await?;
    ensure!(said.contains("replaced-20"), "{said}");
    let aside = fs::read_dir(story.world.service.data())?
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with("replaced-"));
    ensure!(aside.is_some_and(|entry| entry.path().join("sled").is_dir()));
    story.world.service.start().await?;
    story
        .control_room
        .sees_part("I was restored from a backup")
        .await?;
    answered(&story.control_room, &bot, "handles", "@sam").await?;
    checks::nothing_to_warn_of(&[&story.sam]).await
}
