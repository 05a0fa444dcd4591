//! Rooms with too much in them.

use std::time::Duration;

use anyhow::Result;
use harness::hostile::{Draft, Endpoint, HostileRoom, HostileServer, RoomOptions};
use ruma::OwnedUserId;

use crate::stage::Stage;

/// How many members a room has.
const MEMBERS: usize = 5000;

/// How many state events a room has.
const STATE: usize = 3000;

/// How large each of them is.
const LARGE: usize = 60 << 10;

/// How long a visitor may take to be out of such a room again. A slow homeserver cannot read the
/// state within its own minute; then the service tries for two minutes, ends its last request after
/// another, and declines.
const VISIT: Duration = Duration::from_secs(4 * 60);

pub async fn five_thousand_members(stage: &mut Stage) -> Result<()> {
    let attacker = stage.attacker().await?;
    let room = attacker.opens_room(RoomOptions {
        members: MEMBERS,
        ..RoomOptions::default()
    })?;
    visited(stage, &attacker, &room, "crowd").await
}

pub async fn large_state(stage: &mut Stage) -> Result<()> {
    let attacker = stage.attacker().await?;
    let state = (0..STATE).map(|number| Draft::padded(&number.to_string(), LARGE));
    let room = attacker.opens_room(RoomOptions {
        state: state.collect(),
        ..RoomOptions::default()
    })?;
    visited(stage, &attacker, &room, "heavy").await
}

/// A handle's ghost and the bot are invited into the room, and each joins and leaves, or declines.
async fn visited(
    stage: &mut Stage,
    attacker: &HostileServer,
    room: &HostileRoom,
    handle: &str,
) -> Result<()> {
    let owner = stage.world.owner(handle).await?;
    let visitors: [OwnedUserId; 2] = [stage.world.ghost(handle)?, stage.world.bot()?];
    stage
        .under_attack(async {
            for visitor in &visitors {
                let reply = attacker.invites(room, visitor, room.stripped()).await?;
                reply.accepted()?;
                attacker
                    .hears_membership(visitor, room, "leave", VISIT)
                    .await?;
            }
            Ok(())
        })
        .await?;
    println!("joins answered: {}", attacker.asked(&[Endpoint::SendJoin]));
    drop(owner);
    Ok(())
}
