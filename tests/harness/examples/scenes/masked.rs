//! The same story between two masked people.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Result, ensure};
use harness::{Chat, Person, World, checks, ruma::OwnedUserId};

use crate::{OPENING_LINE, REPLY, SECOND, SECOND_EDITED, Stage, keep, seconds};

/// From the masking of two handles to who could read what.
pub async fn play(
    stage: &Stage,
    world: &mut World,
    (alice, sam): (&Person, &Person),
    control_room: &Chat,
    leave_running: bool,
) -> Result<()> {
    stage.scene("Both put on a mask");
    let alices_control_room = world.control_room(alice).await?;
    world.claims(alice, &alices_control_room, "alice").await?;
    let bot = world.bot()?;
    for (who, room, handle) in [
        ("Sam", control_room, "sam"),
        ("Alice", &alices_control_room, "alice"),
    ] {
        let text = format!("mode {handle} masked");
        stage.says(who, &text);
        let answer = room.asks(&bot, &text).await?;
        if who == "Sam" {
            stage.says("Bot", answer.text().unwrap_or_default());
        }
    }

    stage.scene("Alice reaches @sam");
    let (sams_ghost, alices_ghost) = (world.ghost("sam")?, world.ghost("alice")?);
    stage.says(
        "Alice",
        &format!("knows the handle only: \"Start chat\" with {sams_ghost}"),
    );
    let asked = Instant::now();
    let chat = alice.starts_chat(&[&sams_ghost]).await?;
    chat.says(OPENING_LINE).await?;
    stage.says("Alice", OPENING_LINE);
    let invite = sam.invited_by(&alices_ghost).await?;
    let invited_after = asked.elapsed();
    let name = invite.sender_name.as_deref().unwrap_or("?");
    stage.says("Sam", &format!("is invited to a direct chat by \"{name}\""));
    let sams = sam.accepts(&invite).await?;
    let line = sams.sees(OPENING_LINE).await?;
    stage.says(
        "Sam",
        &format!("reads, from {}: {OPENING_LINE}", line.sender),
    );
    let told = chat.sees_part("can read it on the way").await?;
    stage.says("Ghost", told.text().unwrap_or_default());

    stage.scene("They talk");
    sams.replies(&line.event_id, REPLY).await?;
    let reply = chat.sees_part(REPLY).await?;
    stage.says("Sam", &format!("{REPLY}   (a reply)"));
    chat.reacts(&reply.event_id, "👍").await?;
    sams.sees_where("the reaction", |seen| seen.event_type == "m.reaction")
        .await?;
    stage.says("Alice", "👍   (a reaction)");
    let begun = Instant::now();
    let second = chat.says(SECOND).await?;
    sams.sees(SECOND).await?;
    let carried_after = begun.elapsed();
    stage.says("Alice", SECOND);
    chat.edits(&second, SECOND_EDITED).await?;
    sams.sees(SECOND_EDITED).await?;
    stage.says("Alice", &format!("{SECOND_EDITED}   (an edit)"));

    stage.scene("Who sees whom");
    for (who, me, other, chat) in [("Alice", alice, sam, &chat), ("Sam", sam, alice, &sams)] {
        let members: BTreeMap<OwnedUserId, String> = chat.present(me).await?;
        let names: Vec<&str> = members.keys().map(|user| user.as_str()).collect();
        stage.says(who, &format!("is in a room with {}", names.join(", ")));
        for seen in chat.events() {
            let all = format!("{seen:?}");
            ensure!(!all.contains(other.user_id.as_str()), "{all}");
        }
    }
    stage.says(
        "",
        "and in nothing they were sent stands the other's Matrix ID",
    );
    checks::nothing_to_warn_of(&[alice, sam]).await?;
    stage.says("Clients", "show no shield and no \"Unable to decrypt\"");
    let texts = [OPENING_LINE, REPLY, SECOND, SECOND_EDITED];
    for (who, folder) in ["Synapse", "Stonechat"].into_iter().zip(world.folders()) {
        checks::holds_none_of(&folder, &texts)?;
        let size = checks::size(&folder)? / 1024;
        stage.says(
            who,
            &format!("{size} KiB of database, media and log: none of their words"),
        );
    }

    stage.scene("Timings");
    for (time, what) in [
        (invited_after, "from Alice's first click to Sam's invite"),
        (
            carried_after,
            "from her sending a message to his reading it",
        ),
        (stage.started.elapsed(), "for all of this"),
    ] {
        stage.says("", &format!("{:>8}  {what}", seconds(time)));
    }
    if leave_running {
        keep(stage, world).await?;
    }
    Ok(())
}
