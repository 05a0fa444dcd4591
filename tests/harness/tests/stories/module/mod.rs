//! With the module in Synapse no ghost is ever in the room, and the service knows nothing of it.

mod introductions;
mod outages;
mod owners;
mod refusals;

use anyhow::{Result, ensure};
use harness::{Chat, Invite, Person, PersonOptions, World, WorldOptions, checks};
use serde_json::{Value, json};

use crate::told::{Story, invited_to, quick};

/// A homeserver with the module, and a network that stories can disturb.
fn with_module() -> WorldOptions {
    WorldOptions {
        module: true,
        ..quick()
    }
}

async fn story() -> Result<Story> {
    Story::begins_with(with_module(), PersonOptions::default()).await
}

/// Waits until somebody is invited by a person, and not by a ghost, and accepts.
async fn comes_by_name(owner: &Person, chat: &Chat, asker: &Person) -> Result<(Invite, Chat)> {
    let invite = invited_to(owner, chat).await?;
    ensure!(invite.sender == asker.user_id, "by {}", invite.sender);
    ensure!(invite.encrypted, "{invite:#?}");
    let chat = owner.accepts(&invite).await?;
    Ok((invite, chat))
}

/// Which users of Stonechat's the homeserver's database has in a room, and how.
async fn ours_in(world: &World, chat: &Chat) -> Result<Vec<Vec<Value>>> {
    let sql = "SELECT user_id, membership FROM room_memberships \
               WHERE room_id = ?1 AND user_id LIKE '@\\_dm\\_%' ESCAPE '\\' \
               UNION SELECT state_key, type FROM events \
               WHERE room_id = ?1 AND (state_key LIKE '@\\_dm\\_%' ESCAPE '\\' \
                                       OR sender LIKE '@\\_dm\\_%' ESCAPE '\\')";
    world
        .synapse
        .database_says(sql, &[chat.id().as_str()])
        .await
}

/// Nobody of ours was ever invited, joined, or said anything; and nothing of the service's names
/// the room, nor the log.
async fn no_ghost_was_there(world: &World, chats: &[&Chat]) -> Result<()> {
    for chat in chats {
        let everybody = "SELECT count(*) FROM room_memberships WHERE room_id = ?1";
        let room = [chat.id().as_str()];
        let rows = world.synapse.database_says(everybody, &room).await?;
        ensure!(rows != [[json!(0)]], "{} has no members", chat.id());
        let ours = ours_in(world, chat).await?;
        ensure!(ours.is_empty(), "in {} were {ours:?}", chat.id());
        checks::holds_none_of(world.service.folder(), &[chat.id().as_str()])?;
    }
    Ok(())
}
