//! Invites that are too large, lie, or are too many.

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use harness::{
    PATIENCE,
    hostile::{HostileRoom, HostileServer, RoomOptions, now},
};
use ruma::UserId;
use serde_json::{Value, json};

use crate::stage::{ASKS_PER_SENDER, Stage};

/// How many requests an attacker has under way at a time.
const AT_ONCE: usize = 2;

/// How many names are made up: more than the service declines in a day.
const MADE_UP: usize = 300;

/// What a room tells the invited, with a topic of this size.
fn padded(room: &HostileRoom, size: usize) -> Vec<Value> {
    let mut stripped = room.stripped();
    stripped.push(json!({
        "type": "m.room.topic",
        "state_key": "",
        "sender": room.creator(),
        "content": { "topic": "A".repeat(size) },
    }));
    stripped
}

pub async fn too_much_stripped_state(stage: &mut Stage) -> Result<()> {
    let attacker = stage.attacker().await?;
    let owner = stage.world.owner("big").await?;
    let ghost = stage.world.ghost("big")?;
    let targets = [
        ghost.clone(),
        stage.world.ghost("nobody-at-all")?,
        stage.world.bot()?,
    ];
    let mut invites = Vec::new();
    let mut rooms = Vec::new();
    for size in [600 << 10, 17 << 20] {
        for target in &targets {
            let room = attacker.opens_room(RoomOptions::default())?;
            let stripped = padded(&room, size);
            invites.push(attacker.prepares_invite(&room, target, stripped, now())?.1);
            if *target == ghost {
                rooms.push(room);
            }
        }
    }
    stage
        .under_attack(async {
            for invite in invites {
                attacker.sends_prepared(invite).await?.accepted()?;
            }
            // Too much beside it makes no invite invalid: the ghost of a handle comes.
            for room in &rooms {
                attacker
                    .hears_membership(&ghost, room, "join", PATIENCE)
                    .await?;
            }
            Ok(())
        })
        .await?;
    drop(owner);
    Ok(())
}

/// What looks like an invite of the same ghost by somebody else.
fn forged(by: &UserId, ghost: &UserId) -> Value {
    json!({
        "type": "m.room.member",
        "state_key": ghost,
        "sender": by,
        "content": { "membership": "invite" },
    })
}

pub async fn in_somebody_elses_name(stage: &mut Stage) -> Result<()> {
    let attacker = stage.attacker().await?;
    let (owner, control_room) = stage.world.owner("shy").await?;
    let bot = stage.world.bot()?;
    control_room.asks(&bot, "policy shy nobody").await?;
    let (shy, lou) = (stage.world.ghost("shy")?, stage.world.person("lou").await?);
    let times = ASKS_PER_SENDER as usize + 1;
    stage
        .under_attack(async {
            let invites = stream::iter(0..times).map(|_| async {
                let room = attacker.opens_room(RoomOptions::default())?;
                let mut stripped = vec![forged(&lou.user_id, &shy)];
                stripped.extend(room.stripped());
                let reply = attacker.invites_at(&room, &shy, stripped, -1).await?;
                reply.accepted()
            });
            let done: Vec<Value> = invites.buffer_unordered(AT_ONCE).try_collect().await?;
            anyhow::Ok(done.len())
        })
        .await?;
    // What was not taken in as pushed is learned from a `/sync` then.
    stage.restart_service().await?;
    let rows = "SELECT count(*) FROM local_current_membership \
                WHERE user_id = ? AND membership = 'invite'";
    stage.comes_to(rows, &[shy.as_str()], 0).await?;
    // Lou has done nothing, so Lou may still reach people.
    let chat = lou.starts_chat(&[&stage.world.ghost("sam1")?]).await?;
    chat.says("may I still ask?").await?;
    let gone = |seen: &harness::Seen| {
        seen.membership()
            .is_some_and(|(_, membership)| membership == "leave" || membership == "join")
            && seen.sender.localpart() == "_dm_sam1"
    };
    let answer = chat.sees_where("what the ghost does", gone).await?;
    ensure!(
        answer.membership().map(|(_, is)| is) == Some("join"),
        "the ghost declines: {answer:?}"
    );
    drop(owner);
    Ok(())
}

pub async fn made_up_names(stage: &mut Stage) -> Result<()> {
    let attacker = stage.attacker().await?;
    let server = stage.world.synapse.server_name().to_owned();
    stage
        .under_attack(async {
            let invites = stream::iter(0..MADE_UP).map(|number| {
                let (attacker, server) = (&attacker, &server);
                async move {
                    let name = UserId::parse(format!("@_dm_madeup{number}:{server}"))?;
                    let room = attacker.opens_room(RoomOptions::default())?;
                    let reply = attacker.invites(&room, &name, room.stripped()).await?;
                    reply.accepted()
                }
            });
            let done: Vec<Value> = invites.buffer_unordered(AT_ONCE).try_collect().await?;
            anyhow::Ok(done.len())
        })
        .await?;
    Ok(())
}

pub async fn synapses_own_limit(stage: &mut Stage) -> Result<()> {
    let attacker = stage.attacker().await?;
    let bot = stage.world.bot()?;
    stage
        .under_attack(async {
            for _ in 0..5 {
                invites_bot(&attacker, &bot).await?.accepted()?;
            }
            let sixth = invites_bot(&attacker, &bot).await?;
            ensure!(sixth.status == 429, "the sixth is answered {sixth:?}");
            ensure!(sixth.body["errcode"] == "M_LIMIT_EXCEEDED", "{sixth:?}");
            let wait = sixth.body["retry_after_ms"].as_u64();
            println!("the sixth has to wait {wait:?} ms");
            ensure!(wait.is_some_and(|wait| wait > 0), "{sixth:?}");
            Ok(())
        })
        .await?;
    // The people of the place start chats with the bot all the same.
    let lou = stage.world.person("lou").await?;
    stage
        .world
        .control_room(&lou)
        .await
        .context("a local person does not reach the bot")?;
    Ok(())
}

async fn invites_bot(attacker: &HostileServer, bot: &UserId) -> Result<harness::hostile::Reply> {
    let room = attacker.opens_room(RoomOptions::default())?;
    attacker.invites(&room, bot, room.stripped()).await
}
