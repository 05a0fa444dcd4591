//! People with too many devices.

use std::sync::Arc;

use anyhow::Result;
use harness::{
    PATIENCE,
    hostile::{DeviceList, Draft, Endpoint, RoomOptions},
};
use serde_json::json;

use crate::stage::Stage;

/// More than Synapse takes from `/user/devices`; it takes them from `/user/keys/query`.
const MANY: usize = 10_000;

/// As many as Synapse takes from `/user/devices`.
const ALLOWED: usize = 1000;

pub async fn ten_thousand(stage: &mut Stage) -> Result<()> {
    let attacker = stage.attacker().await?;
    let owner = stage.world.owner("polite").await?;
    for (round, count) in [ALLOWED, MANY].into_iter().enumerate() {
        let eve = attacker.user("eve")?;
        let list = Arc::new(DeviceList::new(&eve, count)?);
        attacker.shows_devices(&eve, list);
        let room = attacker.opens_room(RoomOptions::default())?;
        for target in [stage.world.ghost("polite")?, stage.world.ghost("kim")?] {
            let reply = attacker.invites(&room, &target, room.stripped()).await?;
            reply.accepted()?;
        }
        let update = json!({
            "edu_type": "m.device_list_update",
            "content": {
                "user_id": eve,
                "device_id": "HOSTILE0",
                "stream_id": 2 + count,
                "prev_id": [],
            },
        });
        stage
            .under_attack(async {
                attacker
                    .is_asked(&[Endpoint::SendJoin], round + 1, PATIENCE)
                    .await?;
                attacker.sends(&[], vec![update]).await?;
                // A word in clear is answered, encrypted for all her devices.
                let text = json!({ "msgtype": "m.text", "body": "in clear" });
                attacker
                    .says(&room, Draft::message("m.room.message", text))
                    .await?;
                attacker
                    .is_asked(&[Endpoint::Devices], round + 1, PATIENCE)
                    .await
            })
            .await?;
        println!(
            "with {count} devices: {} times asked for all, {} times queried, {} claims",
            attacker.asked(&[Endpoint::Devices]),
            attacker.asked(&[Endpoint::KeyQuery]),
            attacker.asked(&[Endpoint::KeyClaim]),
        );
    }
    drop(owner);
    Ok(())
}
