//! Masked handles: two people talk, each in a room of their own, and neither sees the other's
//! Matrix ID.

use anyhow::{Context, Result, ensure};
use harness::{Chat, Person, PersonOptions, World, WorldOptions, checks};
use ruma::{OwnedUserId, UserId};

use crate::told::{LINE, Story, confirms, quick, times};

/// Sam's handle is masked.
pub async fn masked(options: WorldOptions) -> Result<Story> {
    let story = Story::begins_with(options, PersonOptions::default()).await?;
    masks(&story.world, &story.control_room, "sam").await?;
    Ok(story)
}

/// A person masks a handle.
pub async fn masks(world: &World, control_room: &Chat, handle: &str) -> Result<()> {
    let bot = world.bot()?;
    let answer = control_room
        .asks(&bot, &format!("mode {handle} masked"))
        .await?;
    let text = answer.text().unwrap_or_default().to_owned();
    ensure!(text.contains("is masked"), "{text}");
    ensure!(text.contains("can read it on the way"), "{text}");
    Ok(())
}

/// Waits until the owner is invited to a portal by a ghost, and accepts.
pub async fn comes_to_portal(owner: &Person) -> Result<(OwnedUserId, Chat)> {
    let invite = owner
        .invited(|invite| {
            let name = invite.sender.localpart();
            name.starts_with("_dm_") && name != "_dm_.bot"
        })
        .await?;
    ensure!(invite.is_direct && invite.encrypted, "{invite:#?}");
    let chat = owner.accepts(&invite).await?;
    Ok((invite.sender, chat))
}

/// Nothing that this client was shown of a room names somebody.
pub fn does_not_name(chat: &Chat, user: &UserId) -> Result<()> {
    for seen in chat.events() {
        let all = format!("{seen:?}");
        ensure!(!all.contains(user.as_str()), "{} is named: {all}", user);
    }
    Ok(())
}

#[tokio::test]
async fn two_people_talk_and_neither_sees_the_others_matrix_id() -> Result<()> {
    let story = masked(quick()).await?;
    let (alice, sam) = (&story.alice, &story.sam);
    let chat = story.alice_writes(LINE).await?;
    let (alices_ghost, sams) = comes_to_portal(sam).await?;
    ensure!(
        alices_ghost.localpart().starts_with("_dm_.p"),
        "{alices_ghost}"
    );
    let line = sams.sees(LINE).await?;
    ensure!(line.sender == alices_ghost, "said by {}", line.sender);
    ensure!(line.was_encrypted());

    // What the portal is, in the way that clients know (MSC2346).
    let bridge = sams.state("m.bridge", "chat.stonechat").await?;
    let bridge = bridge.context("the portal does not say what it is")?;
    ensure!(bridge["bridgebot"] == story.world.bot()?.as_str());
    ensure!(bridge["protocol"]["id"] == "stonechat", "{bridge}");
    let topic = sams.state("m.room.topic", "").await?;
    let topic = topic.context("the portal has no topic")?;
    ensure!(
        topic["topic"]
            .as_str()
            .is_some_and(|it| it.contains("can read")),
        "{topic}"
    );

    // Alice is told at once that she talks through a mask.
    chat.sees_part("can read it on the way").await?;

    // A reply, a reaction, an edit, a deletion, each way.
    sams.replies(&line.event_id, "the lock is dry").await?;
    let reply = chat.sees_part("the lock is dry").await?;
    ensure!(reply.sender == story.ghost, "said by {}", reply.sender);
    ensure!(reply.content["m.relates_to"]["m.in_reply_to"]["event_id"].is_string());
    chat.reacts(&reply.event_id, "🦆").await?;
    let reaction = sams
        .sees_where("the reaction", |seen| seen.event_type == "m.reaction")
        .await?;
    ensure!(reaction.sender == alices_ghost);
    let second = chat.says("then the hreon leaves").await?;
    sams.sees("then the hreon leaves").await?;
    chat.edits(&second, "then the heron leaves").await?;
    sams.sees("then the heron leaves").await?;
    let third = sams.says("I should not say this").await?;
    chat.sees("I should not say this").await?;
    sams.redacts(&third).await?;
    chat.sees_where("the deletion", |seen| seen.event_type == "m.room.redaction")
        .await?;
    chat.sends_file("map.png", b"not really a picture").await?;
    let file = sams
        .sees_where("the file", |seen| seen.content["msgtype"] == "m.file")
        .await?;
    ensure!(file.content["file"]["url"].is_string(), "{file:?}");

    // Nobody's name, in no field of no event.
    does_not_name(&sams, &alice.user_id)?;
    does_not_name(&chat, &sam.user_id)?;
    let here = [alice.user_id.clone(), story.ghost.clone()];
    let there = [sam.user_id.clone(), alices_ghost];
    for (chat, seer, members) in [(&chat, alice, here), (&sams, sam, there)] {
        let present = chat.present(seer).await?;
        let mut present: Vec<&OwnedUserId> = present.keys().collect();
        let mut members: Vec<&OwnedUserId> = members.iter().collect();
        present.sort();
        members.sort();
        ensure!(present == members, "{present:?}");
    }
    ensure!(times(&sams, &line.sender, LINE) == 1);
    checks::nothing_to_warn_of(&[alice, sam]).await?;
    let texts = [
        LINE,
        "the lock is dry",
        "then the hreon leaves",
        "I should not say this",
    ];
    story.world.nothing_leaked(&texts)
}

#[tokio::test]
async fn between_two_masked_people_each_is_the_others_handle() -> Result<()> {
    let story = masked(quick()).await?;
    let alices_control_room = story.world.control_room(&story.alice).await?;
    story
        .world
        .claims(&story.alice, &alices_control_room, "alice")
        .await?;
    masks(&story.world, &alices_control_room, "alice").await?;
    let chat = story.alice_writes(LINE).await?;
    let (ghost, sams) = comes_to_portal(&story.sam).await?;
    ensure!(ghost == story.world.ghost("alice")?, "{ghost}");
    sams.sees(LINE).await?;
    sams.says("I know that handle").await?;
    chat.sees("I know that handle").await?;
    // Starting it from the other side leads back to the room he has.
    let again = story.sam.starts_chat(&[&ghost]).await?;
    again.says("hello again").await?;
    again.sees_part(sams.id().as_str()).await?;
    again.sees_leave(&ghost).await?;
    checks::nothing_to_warn_of(&[&story.alice, &story.sam]).await
}

#[tokio::test]
async fn a_conversation_ends_with_words_when_the_mask_is_taken_off() -> Result<()> {
    let story = masked(quick()).await?;
    let chat = story.alice_writes(LINE).await?;
    let (ghost, sams) = comes_to_portal(&story.sam).await?;
    sams.sees(LINE).await?;
    let bot = story.world.bot()?;
    let answer = confirms(&story.control_room, &bot, "mode sam open").await?;
    ensure!(answer.text().is_some_and(|text| text.contains("is open")));
    chat.sees_part("has ended").await?;
    sams.sees_part("has ended").await?;
    chat.sees_leave(&story.ghost).await?;
    sams.sees_leave(&ghost).await?;
    does_not_name(&chat, &story.sam.user_id)
}

#[tokio::test]
async fn who_is_blocked_is_told_what_everybody_is_told() -> Result<()> {
    let story = masked(quick()).await?;
    let chat = story.alice_writes(LINE).await?;
    let (ghost, sams) = comes_to_portal(&story.sam).await?;
    sams.sees(LINE).await?;
    let bot = story.world.bot()?;
    let block = format!("block {ghost}");
    let answer = story.control_room.asks(&bot, &block).await?;
    ensure!(
        answer
            .text()
            .is_some_and(|text| text.starts_with("Blocked")),
        "{answer:?}"
    );
    chat.sees_part("has ended").await?;
    chat.sees_leave(&story.ghost).await?;
    // And the door stays shut.
    let again = story.alice.starts_chat(&[&story.ghost]).await?;
    let declined = crate::told::goodbye(&again, &story.ghost).await?;
    let reason = crate::told::reason(&declined)
        .context("no reason")?
        .to_owned();
    ensure!(
        reason == "This handle can't be reached at the moment.",
        "{reason}"
    );
    Ok(())
}

#[tokio::test]
async fn a_portal_is_found_again_when_either_comes_back() -> Result<()> {
    let story = masked(quick()).await?;
    let chat = story.alice_writes(LINE).await?;
    let (ghost, sams) = comes_to_portal(&story.sam).await?;
    sams.sees(LINE).await?;
    // Sam leaves; the next message invites him again, into the same room.
    sams.leaves().await?;
    chat.says("are you still there?").await?;
    let again = |_: &harness::Log| {
        let room = sams.room().ok()?;
        (format!("{:?}", room.state()) == "Invited").then_some(())
    };
    story.sam.until("a second invite", again).await?;
    let sams = story.sam.joins(sams.id()).await?;
    sams.sees("are you still there?").await?;
    // Alice leaves; her next chat goes to the portal that there is.
    chat.leaves().await?;
    sams.sees_part("has left the conversation").await?;
    let second = story.alice_writes("I am back").await?;
    let back = sams.sees("I am back").await?;
    ensure!(back.sender == ghost);
    sams.says("so am I").await?;
    second.sees("so am I").await?;
    Ok(())
}

#[tokio::test]
async fn what_is_masked_can_be_asked_about_first() -> Result<()> {
    let story = masked(quick()).await?;
    let bot = story.world.bot()?;
    story.control_room.asks(&bot, "policy sam ask").await?;
    let chat = story.alice_writes(LINE).await?;
    let request = story
        .control_room
        .sees_part("asks to chat with you")
        .await?;
    let text = request.text().unwrap_or_default().to_owned();
    ensure!(text.contains(LINE), "{text}");
    ensure!(!text.contains(story.alice.user_id.as_str()), "{text}");
    chat.says("and a second line").await?;
    story.control_room.asks(&bot, "accept 1").await?;
    let (_, sams) = comes_to_portal(&story.sam).await?;
    sams.sees(LINE).await?;
    sams.sees("and a second line").await?;
    does_not_name(&sams, &story.alice.user_id)?;
    does_not_name(&story.control_room, &story.alice.user_id)
}

#[tokio::test]
async fn in_a_group_open_and_masked_people_read_each_other() -> Result<()> {
    let story = masked(quick()).await?;
    let (kim, kims_room) = story.world.owner("kim").await?;
    masks(&story.world, &kims_room, "kim").await?;
    let (lou, _) = story.world.owner("lou").await?;
    let (kims, lous) = (story.world.ghost("kim")?, story.world.ghost("lou")?);
    let ghosts = [&*story.ghost, &*kims, &*lous];
    let chat = story
        .alice
        .starts_chat_with(&ghosts, harness::ChatOptions::group())
        .await?;
    // Lou's handle is open: she is in the room herself.
    let invite = lou.invited(|invite| invite.room == chat.id()).await?;
    let lou_here = lou.accepts(&invite).await?;
    chat.sees_leave(&lous).await?;
    for ghost in [&story.ghost, &kims] {
        chat.sees_join(ghost).await?;
    }
    chat.says("good evening, all").await?;
    let sam_there = comes_to_group(&story.sam).await?;
    let kim_there = comes_to_group(&kim).await?;
    sam_there.sees("good evening, all").await?;
    kim_there.sees("good evening, all").await?;
    lou_here.sees("good evening, all").await?;

    sam_there.says("and to you").await?;
    let in_chat = chat.sees("and to you").await?;
    ensure!(in_chat.sender == story.ghost, "{}", in_chat.sender);
    lou_here.sees("and to you").await?;
    let at_kims = kim_there.sees("and to you").await?;
    ensure!(at_kims.sender == story.ghost, "{}", at_kims.sender);
    kim_there.replies(&at_kims.event_id, "well said").await?;
    chat.sees_part("well said").await?;
    sam_there.sees_part("well said").await?;
    lou_here.says("I am the open one").await?;
    let lous_words = sam_there.sees("I am the open one").await?;
    ensure!(lous_words.sender != lou.user_id);

    // One goes: the others see that, and go on.
    lou_here.leaves().await?;
    sam_there.sees_leave(&lous_words.sender).await?;
    chat.says("good night, Lou").await?;
    sam_there.sees("good night, Lou").await?;
    for (there, who) in [(&sam_there, &story.sam), (&kim_there, &kim)] {
        for other in [&story.alice, &lou, &story.sam, &kim] {
            if other.user_id != who.user_id {
                does_not_name(there, &other.user_id)?;
            }
        }
    }
    for masked in [&story.sam, &kim] {
        does_not_name(&chat, &masked.user_id)?;
    }
    checks::nothing_to_warn_of(&[&story.alice, &story.sam, &kim]).await
}

/// Waits until somebody is invited to the portal of a group, and accepts.
pub async fn comes_to_group(owner: &Person) -> Result<Chat> {
    let invite = owner
        .invited(|invite| {
            let name = invite.sender.localpart();
            name.starts_with("_dm_") && name != "_dm_.bot"
        })
        .await?;
    ensure!(!invite.is_direct && invite.encrypted, "{invite:#?}");
    owner.accepts(&invite).await
}
