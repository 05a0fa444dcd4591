//! Servers that take requests and never answer.

use anyhow::Result;
use harness::{
    PATIENCE,
    hostile::{Endpoint, HostileServer, RoomOptions},
};
use ruma::OwnedUserId;

use crate::stage::Stage;

/// How many servers stall at once: more than there are places for joins.
const SERVERS: usize = 10;

pub async fn joins(stage: &mut Stage) -> Result<()> {
    let (first, second) = (
        stage.world.owner("slow1").await?,
        stage.world.owner("slow2").await?,
    );
    let targets = [stage.world.ghost("slow1")?, stage.world.ghost("slow2")?];
    let mut servers = Vec::new();
    for number in 0..SERVERS {
        let server = stage.attacker().await?;
        server.stalls(if number % 2 == 0 {
            &[Endpoint::MakeJoin, Endpoint::MakeLeave]
        } else {
            &[Endpoint::SendJoin, Endpoint::SendLeave]
        });
        servers.push(server);
    }
    for server in &servers {
        invites_all(server, &targets).await?;
    }
    // Now they hold what they can get hold of.
    let asked = servers
        .iter()
        .map(|server| Box::pin(server.is_asked(&[Endpoint::MakeJoin], 1, PATIENCE)));
    futures_util::future::select_ok(asked).await?;
    stage.under_attack(async { Ok(()) }).await?;
    stage.under_attack(async { Ok(()) }).await?;
    let asked = servers
        .iter()
        .map(|server| server.asked(&[Endpoint::MakeJoin]));
    println!("joins under way: {}", asked.sum::<usize>());
    // The service is restarted while they still stall.
    stage.restart_service().await?;
    stage.under_attack(async { Ok(()) }).await?;
    drop((servers, first, second));
    Ok(())
}

async fn invites_all(server: &HostileServer, targets: &[OwnedUserId]) -> Result<()> {
    for target in targets {
        let room = server.opens_room(RoomOptions::default())?;
        let reply = server.invites(&room, target, room.stripped()).await?;
        reply.accepted()?;
    }
    Ok(())
}

pub async fn key_queries(stage: &mut Stage) -> Result<()> {
    let attacker = stage.attacker().await?;
    attacker.stalls(&[Endpoint::Devices, Endpoint::KeyQuery, Endpoint::KeyClaim]);
    let owner = stage.world.owner("patient").await?;
    let targets = [stage.world.ghost("patient")?, stage.world.ghost("kim")?];
    invites_all(&attacker, &targets).await?;
    let keys = [Endpoint::Devices, Endpoint::KeyQuery];
    stage
        .under_attack(attacker.is_asked(&keys, 1, PATIENCE))
        .await?;
    stage.under_attack(async { Ok(()) }).await?;
    println!("key queries under way: {}", attacker.asked(&keys));
    drop(owner);
    Ok(())
}
