//! People of another homeserver, which talks to ours over TLS.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use harness::{
    Person, Synapse, SynapseOptions, World, WorldOptions, checks, synapse::federation::Authority,
    venv::Venv,
};
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    masked::{comes_to_portal, masks},
    told::quick,
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

/// Passes bytes on between two ports, as long as `true` is sent, the value that it begins with.
async fn link(from: u16, to: u16) -> Result<watch::Sender<bool>> {
    let listener = TcpListener::bind(("127.0.0.1", from)).await?;
    let (is_open, _) = watch::channel(true);
    let link = is_open.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut is_open = is_open.subscribe();
            if !*is_open.borrow() {
                continue;
            }
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else {
                    return;
                };
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    _ = is_open.wait_for(|is_open| !is_open) => {}
                }
            });
        }
    });
    Ok(link)
}

#[tokio::test]
async fn what_was_said_while_the_servers_were_apart_arrives_in_order() -> Result<()> {
    let venv = Venv::ready(|_| {})?;
    let authority = Authority::new(&venv)?;
    let mut ours = authority.member()?;
    // Others find it by its name, which is the port of the link.
    let behind = authority.member()?.port;
    let link = link(std::mem::replace(&mut ours.port, behind), behind).await?;
    let here = WorldOptions {
        synapse: SynapseOptions {
            federation: Some(ours),
            ..SynapseOptions::default()
        },
        ..quick()
    };
    // A server that could not reach another tries again after ten minutes, if nothing is set.
    let mut there = SynapseOptions {
        federation: Some(authority.member()?),
        ..SynapseOptions::default()
    };
    let soon =
        json!({"destination_min_retry_interval": "1s", "destination_max_retry_interval": "2s"});
    there.further.insert("federation".into(), soon);
    let (world, mut there) = tokio::try_join!(World::start_with(here), Synapse::start_new(there))?;
    let ((sam, control_room), bob) =
        tokio::try_join!(world.owner("sam"), Person::register(&there, "bob"))?;
    masks(&world, &control_room, "sam").await?;
    let chat = bob.starts_chat(&[&world.ghost("sam")?]).await?;
    chat.says(OPENING_LINE).await?;
    let (ghost, sams) = comes_to_portal(&sam).await?;
    sams.sees(OPENING_LINE).await?;

    link.send_replace(false);
    let lines: Vec<String> = (1..=25).map(|n| format!("line {n}")).collect();
    for line in &lines {
        chat.says(line).await?;
    }
    // Their server forgets what it has not sent: it catches up by sending its newest message.
    there.restart().await?;
    // A cut of servers that are restarted lasts longer than this.
    tokio::time::sleep(Duration::from_secs(11)).await;
    link.send_replace(true);
    let mut said = 0;
    while !sams
        .texts()
        .iter()
        .any(|(_, text)| text.starts_with("back"))
    {
        ensure!(said < 12, "nothing comes after the cut");
        said += 1;
        let back = format!("back {said}");
        chat.says(&back).await?;
        let seen = tokio::time::timeout(Duration::from_secs(10), sams.sees(&back));
        let _ = seen.await;
    }
    let told: Vec<String> = sams
        .texts()
        .into_iter()
        .filter(|(by, text)| *by == ghost && text.starts_with("line"))
        .map(|(_, text)| text)
        .collect();
    if told != lines {
        bail!("Sam was told {told:?}");
    }
    Ok(())
}
