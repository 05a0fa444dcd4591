//! The data of one side is set back, or loses a part, and both go on with each other.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use harness::{
    Invite, PATIENCE, Person, PersonOptions, ServiceOptions, World, WorldOptions, checks,
};
use ruma::UserId;
use serde_json::Value;

use crate::{
    control_room::answered,
    masked::masks,
    told::{LINE, Story, invited_to},
};

/// The file that these stories write.
const FILE: &str = "stonechat.backup";

/// Copies a file or a folder with everything in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status()?;
    ensure!(status.success(), "cp {} ({status})", from.display());
    Ok(())
}

/// Waits until somebody is shown with these devices.
async fn shown_with(asker: &Person, user: &UserId, devices: &BTreeMap<String, bool>) -> Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let shown = asker.devices_of(user).await?;
        if shown == *devices {
            return Ok(());
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "{user} has {shown:?}, not {devices:?}"
        );
        // Nobody tells when a device is there again.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

async fn identity(asker: &Person, user: &UserId) -> Result<Value> {
    let keys = asker.keys_of(user).await?;
    let master = keys["master_keys"][user.as_str()]["keys"].clone();
    ensure!(master.is_object(), "{user} has no identity: {keys}");
    Ok(master)
}

#[tokio::test]
async fn an_older_copy_of_the_data_is_refused_until_it_is_restored_from_itself() -> Result<()> {
    let mut story = Story::begins().await?;
    let bot = story.world.bot()?;
    let identity_then = identity(&story.alice, &story.ghost).await?;
    story.world.service.stop().await?;
    let data = story.world.service.data();
    let older = data.with_extension("older");
    copy(&data, &older)?;
    // Life goes on.
    story.world.service.start().await?;
    let sam = story.sam.user_id.clone();
    answered(&story.control_room, &bot, "whoami", sam.as_str()).await?;
    let devices = story.alice.devices_of(&story.ghost).await?;
    story.world.service.stop().await?;

    fs::rename(&data, data.with_extension("newest"))?;
    fs::rename(&older, &data)?;
    for _ in 0..2 {
        let refused = story.world.service.start().await;
        let refused = format!("{:#}", refused.err().context("it started")?);
        ensure!(refused.contains("restore --force"), "{refused}");
    }
    let doctor = story.world.service.command_line(&["doctor"]).await?;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    ensure!(
        !doctor.status.success() && said.contains("snapshot"),
        "{said}"
    );

    story.world.service.succeeds(&["backup", FILE]).await?;
    let restore = ["restore", "--force", FILE];
    story.world.service.succeeds(&restore).await?;
    story.world.service.start().await?;
    story
        .control_room
        .sees_part("I was restored from a backup")
        .await?;
    answered(&story.control_room, &bot, "handles", "@sam").await?;
    let devices_now = story.alice.devices_of(&story.ghost).await?;
    ensure!(
        devices_now.len() == 1 && devices_now != devices,
        "{devices_now:?}"
    );
    ensure!(identity(&story.alice, &story.ghost).await? == identity_then);
    let chat = story.alice_writes(LINE).await?;
    let sams = story.sam_comes(&chat).await?;
    story.ends_well(&chat, &sams).await?;
    // What it is now is no older copy.
    story.world.service.kill().await?;
    story.world.service.start().await?;
    let doctor = story.world.service.command_line(&["doctor"]).await?;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    ensure!(doctor.status.success(), "{said}");
    checks::nothing_to_warn_of(&[&story.alice, &story.sam]).await
}

#[tokio::test]
async fn what_a_homeserver_lost_that_was_set_back_is_made_again() -> Result<()> {
    let mut story = Story::begins().await?;
    let (bot, canal) = (story.world.bot()?, story.world.ghost("canal")?);
    // A copy of its database.
    story.world.synapse.stop().await?;
    let database = story.world.synapse.database();
    let older = database.with_extension("older");
    copy(&database, &older)?;
    story.world.synapse.start().await?;
    // Life goes on: a ghost is made, and the service starts again.
    story
        .world
        .claims(&story.sam, &story.control_room, "canal")
        .await?;
    let users = [&bot, &story.ghost, &canal];
    let mut before = Vec::new();
    for user in users {
        let devices = story.alice.devices_of(user).await?;
        before.push((devices, identity(&story.alice, user).await?));
    }
    for _ in 0..2 {
        story.world.service.restart().await?;
    }
    answered(&story.control_room, &bot, "handles", "@canal").await?;

    story.world.service.stop().await?;
    story.world.synapse.stop().await?;
    for part in ["db-wal", "db-shm"] {
        let _ = fs::remove_file(database.with_extension(part));
    }
    fs::rename(&older, &database)?;
    story.world.synapse.start().await?;
    let doctor = story.world.service.command_line(&["doctor"]).await?;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let named = "the homeserver's database was set back";
    ensure!(!doctor.status.success() && said.contains(named), "{said}");
    story.world.service.start().await?;
    // Clients of before know more than the homeserver does; this one is new.
    let carol = story.world.person("carol").await?;
    for (user, (devices, identity_then)) in users.into_iter().zip(before) {
        shown_with(&carol, user, &devices).await?;
        ensure!(identity(&carol, user).await? == identity_then, "{user}");
    }
    let carols = story.world.control_room(&carol).await?;
    story.world.claims(&carol, &carols, "lock").await?;
    answered(&carols, &bot, "claim canal", "taken").await?;
    // A message goes by handle, and one through a mask.
    let dave = story.world.person("dave").await?;
    let chat = dave.starts_chat(&[&story.world.ghost("lock")?]).await?;
    chat.says(LINE).await?;
    let invite = invited_to(&carol, &chat).await?;
    carol.accepts(&invite).await?.sees_part(LINE).await?;
    masks(&story.world, &carols, "lock").await?;
    let erin = story.world.person("erin").await?;
    let chat = erin.starts_chat(&[&story.world.ghost("lock")?]).await?;
    chat.says(LINE).await?;
    let by_alias = |invite: &Invite| invite.sender.localpart().starts_with("_dm_.p");
    let invite = carol.invited(by_alias).await?;
    let portal = carol.accepts(&invite).await?;
    portal.sees(LINE).await?;
    portal.says("and back").await?;
    chat.sees("and back").await?;
    let doctor = story.world.service.command_line(&["doctor"]).await?;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    ensure!(doctor.status.success(), "{said}");
    checks::nothing_to_warn_of(&[&carol]).await
}

/// An administrator deletes a device of a user.
async fn deletes_device(world: &World, user: &UserId, device: &str) -> Result<()> {
    let token = world.synapse.register_admin("admin").await?;
    let path = format!("_synapse/admin/v2/users/{user}/devices/{device}");
    reqwest::Client::new()
        .delete(format!("{}{path}", world.synapse.url()))
        .bearer_auth(token)
        .send()
        .await?
        .error_for_status()?;
    Ok(())
}

#[tokio::test]
async fn a_ghost_whose_device_or_keys_were_deleted_is_whole_again() -> Result<()> {
    let options = WorldOptions {
        service: ServiceOptions::default().set("reconcile.interval", "1s"),
        ..WorldOptions::default()
    };
    let mut story = Story::begins_with(options, PersonOptions::default()).await?;
    let ghost = story.ghost.clone();
    let devices = story.alice.devices_of(&ghost).await?;
    let identity_then = identity(&story.alice, &ghost).await?;
    let (device, _) = devices.first_key_value().context("it has no device")?;
    deletes_device(&story.world, &ghost, device).await?;
    shown_with(&story.alice, &ghost, &devices).await?;

    story.world.service.stop().await?;
    story.world.synapse.stop().await?;
    let lose = "DELETE FROM e2e_device_keys_json WHERE user_id = ?";
    let synapse = &mut story.world.synapse;
    synapse.change_database(lose, &[ghost.as_str()]).await?;
    synapse.start().await?;
    ensure!(story.alice.devices_of(&ghost).await?.is_empty());
    let doctor = story.world.service.command_line(&["doctor"]).await?;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let named = format!("lost the keys of {ghost}");
    ensure!(!doctor.status.success() && said.contains(&named), "{said}");
    story.world.service.start().await?;
    shown_with(&story.alice, &ghost, &devices).await?;
    ensure!(identity(&story.alice, &ghost).await? == identity_then);

    let chat = story.alice_writes(LINE).await?;
    let sams = story.sam_comes(&chat).await?;
    story.ends_well(&chat, &sams).await?;
    let doctor = story.world.service.command_line(&["doctor"]).await?;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    ensure!(doctor.status.success(), "{said}");
    checks::nothing_to_warn_of(&[&story.alice, &story.sam]).await
}
