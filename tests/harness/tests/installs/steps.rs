//! What is told on every installation.

use anyhow::{Context, Result, ensure};
use harness::{Chat, Log, PATIENCE, Person, World};
use ruma::OwnedUserId;

use crate::told::{LINE, Story, comes, ends_well, invited_to, quoted, shown, times};

const SECOND: &str = "it has been there since the rain began";

/// No ghost is ever in the room that Alice makes. Returns what `doctor` says, who finds nothing wrong.
pub async fn with_the_module(story: &Story) -> Result<String> {
    let (alice, sam) = (&story.alice, &story.sam);
    let chat = story.alice_writes(LINE).await?;
    let invite = invited_to(sam, &chat).await?;
    ensure!(invite.sender == alice.user_id, "by {}", invite.sender);
    ensure!(invite.encrypted, "{invite:#?}");
    let sams = sam.accepts(&invite).await?;
    ensure!(sams.sees(LINE).await?.sender == alice.user_id);
    story.ends_well(&chat, &sams).await?;
    let members = alice.members(chat.id()).await?;
    ensure!(
        members.len() == 2,
        "{members:?} were in the room or invited"
    );
    let found = story.world.service.succeeds(&["doctor"]).await?;
    ensure!(found.contains("All is well."), "{found}");
    ensure!(found.contains("loaded in Synapse"), "{found}");
    Ok(found)
}

/// The homeserver loses the module at a restart, and everything goes on by ghosts, whatever is
/// restarted or killed.
pub async fn without_the_module(story: &mut Story) -> Result<()> {
    let world = &mut story.world;
    world.synapse.stop().await?;
    let module = world.synapse.options_mut().further.remove("modules");
    ensure!(module.is_some(), "there was no module");
    world.synapse.start().await?;
    introduced(story, "bob", async |_| Ok(()))
        .await
        .context("after a restart of the homeserver")?;

    story.world.service.stop().await?;
    introduced(story, "carol", async |story| {
        story.world.service.start().await
    })
    .await
    .context("the service restarts meanwhile")?;

    let mut door = story.waits_at_the_door()?;
    introduced(story, "dave", async |story| {
        door.held().await?;
        story.world.synapse.stop().await?;
        story.lets_in()?;
        story.world.synapse.start().await
    })
    .await
    .context("the homeserver restarts meanwhile")?;

    asked_first(story).await.context("a request")?;
    masked(story).await.context("a masked pair")?;
    story.world.nothing_leaked(&[LINE, SECOND])
}

/// Somebody writes to Sam; then `meanwhile` happens; then the ghost introduces them.
pub async fn introduced(
    story: &mut Story,
    name: &str,
    meanwhile: impl AsyncFnOnce(&mut Story) -> Result<()>,
) -> Result<()> {
    let asker = story.world.person(name).await?;
    let chat = asker.starts_chat(&[&story.ghost]).await?;
    chat.says(LINE).await?;
    meanwhile(story).await?;
    // The pauses between the service's tries grow while the homeserver is away.
    let invited = |log: &Log| {
        let mut invites = log.invites().into_iter();
        invites.find_map(|invite| (invite.room == chat.id()).then_some(()))
    };
    let sam = &story.sam;
    sam.until_within(PATIENCE * 4, "an invite", invited).await?;
    let asked_as = format!("{} (via @sam)", shown(&asker.user_id));
    let sams = comes(&story.sam, &chat, &story.ghost, &asked_as).await?;
    sams.sees(&quoted(&shown(&asker.user_id), LINE)).await?;
    ends_well(&story.world, (&asker, &chat), (&story.sam, &sams)).await?;
    let passed_on = times(&sams, &story.ghost, LINE);
    ensure!(passed_on == 1, "{passed_on} times: {:#?}", sams.texts());
    Ok(())
}

/// Somebody who holds a handle that is set so by one command.
async fn owner(world: &World, name: &str, command: &str, part: &str) -> Result<(Person, Chat)> {
    let (owner, control_room) = world.owner(name).await?;
    let answer = control_room.asks(&world.bot()?, command).await?;
    let said = answer.text().unwrap_or_default();
    ensure!(said.contains(part), "{said}");
    Ok((owner, control_room))
}

/// Lou is asked first; the service is killed while Alice waits.
async fn asked_first(story: &mut Story) -> Result<()> {
    let (lou, control_room) =
        owner(&story.world, "lou", "policy lou ask", "people ask first").await?;
    let ghost = story.world.ghost("lou")?;
    let chat = story.alice.starts_chat(&[&ghost]).await?;
    chat.says(LINE).await?;
    control_room.sees_part("asks to chat with you").await?;
    story.world.service.kill().await?;
    chat.says(SECOND).await?;
    story.world.service.start().await?;
    control_room.asks(&story.world.bot()?, "accept 1").await?;
    let lous = comes(&lou, &chat, &ghost, "Alice (via @lou)").await?;
    for line in [LINE, SECOND] {
        lous.sees(&quoted("Alice", line)).await?;
    }
    ends_well(&story.world, (&story.alice, &chat), (&lou, &lous)).await
}

/// Kim is masked; both sides are killed while the two talk.
async fn masked(story: &mut Story) -> Result<()> {
    let (kim, _control_room) = owner(&story.world, "kim", "mode kim masked", "is masked").await?;
    let ghost = story.world.ghost("kim")?;
    let chat = story.alice.starts_chat(&[&ghost]).await?;
    chat.says(LINE).await?;
    let (alices_ghost, kims) = comes_to_portal(&kim).await?;
    let line = kims.sees(LINE).await?;
    ensure!(line.sender == alices_ghost && line.was_encrypted());
    kims.says("and it looks at me").await?;
    chat.sees("and it looks at me").await?;

    story.world.service.kill().await?;
    chat.says(SECOND).await?;
    story.world.service.start().await?;
    kims.sees(SECOND).await?;
    story.world.synapse.kill().await?;
    story.world.synapse.start().await?;
    kims.says("now it is gone").await?;
    chat.sees("now it is gone").await?;
    for line in [LINE, SECOND] {
        let passed_on = times(&kims, &alices_ghost, line);
        ensure!(passed_on == 1, "{passed_on} times: {:#?}", kims.texts());
    }
    for (chat, other) in [(&chat, &kim), (&kims, &story.alice)] {
        let shown = format!("{:?}", chat.events());
        ensure!(!shown.contains(other.user_id.as_str()), "{shown}");
    }
    Ok(())
}

/// Waits until the owner is invited to a portal by a ghost, and accepts.
async fn comes_to_portal(owner: &Person) -> Result<(OwnedUserId, Chat)> {
    let invite = owner
        .invited(|invite| invite.sender.localpart().starts_with("_dm_.p"))
        .await?;
    ensure!(invite.is_direct && invite.encrypted, "{invite:#?}");
    let chat = owner.accepts(&invite).await?;
    Ok((invite.sender, chat))
}
