//! People of another homeserver, which talks to ours over TLS.

use anyhow::Result;
use harness::{
    Person, Synapse, SynapseOptions, World, WorldOptions, checks, synapse::federation::Authority,
    venv::Venv,
};

const OPENING_LINE: &str = "hello from far away and across the water";
const ANSWER: &str = "good to hear from you over there";

/// Our homeserver with Stonechat, and another one without.
pub async fn two_servers(here: WorldOptions) -> Result<(World, Synapse)> {
    let venv = Venv::ready(|_| {})?;
    let authority = Authority::new(&venv)?;
    let member = || -> Result<_> {
        Ok(SynapseOptions {
            federation: Some(authority.member()?),
            ..SynapseOptions::default()
        })
    };
    let here = WorldOptions {
        synapse: member()?,
        ..here
    };
    tokio::try_join!(World::start_with(here), Synapse::start_new(member()?))
}

#[tokio::test]
async fn an_owner_on_another_homeserver_is_reached_by_handle() -> Result<()> {
    let (world, there) = two_servers(WorldOptions::default()).await?;
    let (alice, sam) = tokio::try_join!(world.person("alice"), Person::register(&there, "sam"))?;
    let control_room = world.control_room(&sam).await?;
    world.claims(&sam, &control_room, "sam").await?;
    let ghost = world.ghost("sam")?;

    let chat = alice.starts_chat(&[&ghost]).await?;
    chat.says(OPENING_LINE).await?;
    let invite = sam.invited_by(&ghost).await?;
    assert!(invite.is_direct);
    let sams = sam.accepts(&invite).await?;
    sams.sees_part(OPENING_LINE).await?;
    chat.sees_leave(&ghost).await?;
    sams.says(ANSWER).await?;
    chat.sees(ANSWER).await?;

    world
        .only_these_are_in(&chat, &alice, &[&alice.user_id, &sam.user_id])
        .await?;
    checks::nothing_to_warn_of(&[&alice, &sam]).await?;
    world.nothing_leaked(&[OPENING_LINE, ANSWER])?;
    checks::holds_none_of(there.folder(), &[OPENING_LINE, ANSWER])
}

#[tokio::test]
async fn somebody_of_another_homeserver_reaches_an_owner_of_ours() -> Result<()> {
    let (world, there) = two_servers(WorldOptions::default()).await?;
    let ((sam, _control_room), bob) =
        tokio::try_join!(world.owner("sam"), Person::register(&there, "bob"))?;
    let ghost = world.ghost("sam")?;

    let chat = bob.starts_chat(&[&ghost]).await?;
    chat.says(OPENING_LINE).await?;
    let sams = sam.accepts(&sam.invited_by(&ghost).await?).await?;
    sams.sees_part(OPENING_LINE).await?;
    chat.sees_leave(&ghost).await?;
    sams.says(ANSWER).await?;
    chat.sees(ANSWER).await?;

    world
        .only_these_are_in(&chat, &bob, &[&bob.user_id, &sam.user_id])
        .await?;
    checks::nothing_to_warn_of(&[&bob, &sam]).await?;
    world.nothing_leaked(&[OPENING_LINE, ANSWER])?;
    checks::holds_none_of(there.folder(), &[OPENING_LINE, ANSWER])
}
