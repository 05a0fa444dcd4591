//! To-device messages that are too large.

use anyhow::{Context, Result};
use serde_json::json;

use crate::stage::Stage;

pub async fn too_large(stage: &mut Stage) -> Result<()> {
    let attacker = stage.attacker().await?;
    let eve = attacker.user("eve")?;
    let owner = stage.world.owner("deaf").await?;
    let targets = [stage.world.bot()?, stage.world.ghost("deaf")?];
    stage
        .under_attack(async {
            for size in [1 << 20, 5 << 20] {
                for target in &targets {
                    let devices = attacker.devices_of(target).await?;
                    let device = devices.first().context("no device")?;
                    let content = json!({
                        "algorithm": "m.olm.v1.curve25519-aes-sha2",
                        "sender_key": "A".repeat(43),
                        "ciphertext": { "padding": "A".repeat(size) },
                    });
                    attacker
                        .sends_to_device(&eve, "m.room.encrypted", (target, device), content)
                        .await?;
                }
            }
            Ok(())
        })
        .await?;
    // A restart catches up with the bot's inbox, and the next reconciliation with the ghost's: the
    // homeserver keeps what has not been acknowledged.
    stage.restart_service().await?;
    for target in &targets {
        let large = "SELECT count(*) FROM device_inbox \
                     WHERE user_id = ? AND length(message_json) > 500000";
        stage.comes_to(large, &[target.as_str()], 0).await?;
    }
    drop(owner);
    Ok(())
}
