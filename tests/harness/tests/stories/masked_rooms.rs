//! The rooms of masked conversations: what they are called, and what becomes of them.

use anyhow::{Context, Result, ensure};
use harness::{Chat, ChatOptions, Person, World, checks};
use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId, api::client::room::upgrade_room, serde::Raw};
use serde_json::{Value, json};

use crate::{
    masked::{comes_to_group, comes_to_portal, does_not_name, masked, masks},
    told::{LINE, Story, confirms, quick, times},
};

/// Waits until a room is called like this.
async fn is_called(chat: &Chat, name: &str) -> Result<OwnedUserId> {
    let seen = chat
        .sees_where(&format!("the name {name:?}"), |seen| {
            seen.event_type == "m.room.name" && seen.content["name"] == name
        })
        .await?;
    ensure!(called(chat).await? == name, "{seen:?}");
    Ok(seen.sender)
}

/// What a room is called now.
async fn called(chat: &Chat) -> Result<String> {
    let name = chat.state("m.room.name", "").await?.unwrap_or_default();
    Ok(name["name"].as_str().unwrap_or_default().to_owned())
}

async fn topic(chat: &Chat) -> Result<String> {
    let topic = chat.state("m.room.topic", "").await?.unwrap_or_default();
    Ok(topic["topic"].as_str().unwrap_or_default().to_owned())
}

async fn calls(chat: &Chat, name: &str) -> Result<()> {
    let content = json!({ "name": name });
    chat.sets_state("m.room.name", "", content).await?;
    Ok(())
}

/// How often a room was given a name.
fn times_named(chat: &Chat, name: &str) -> usize {
    let events = chat.events().into_iter();
    events
        .filter(|seen| seen.event_type == "m.room.name" && seen.content["name"] == name)
        .count()
}

/// Alice's group with Sam and Kim, who are both masked, and their portals.
struct Group {
    story: Story,
    kim: Person,
    chat: Chat,
    sams: Chat,
    kims: Chat,
}

async fn group(name: &str) -> Result<Group> {
    let story = masked(quick()).await?;
    let (kim, kims_room) = story.world.owner("kim").await?;
    masks(&story.world, &kims_room, "kim").await?;
    let kims = story.world.ghost("kim")?;
    let options = ChatOptions {
        state: vec![json!({
            "type": "m.room.name", "state_key": "", "content": { "name": name },
        })],
        ..ChatOptions::group()
    };
    let ghosts = [&*story.ghost, &*kims];
    let chat = story.alice.starts_chat_with(&ghosts, options).await?;
    for ghost in ghosts {
        chat.sees_join(ghost).await?;
    }
    chat.says("good evening, all").await?;
    let sams = comes_to_group(&story.sam).await?;
    let kims = comes_to_group(&kim).await?;
    sams.sees("good evening, all").await?;
    kims.sees("good evening, all").await?;
    Ok(Group {
        story,
        kim,
        chat,
        sams,
        kims,
    })
}

#[tokio::test]
async fn a_group_is_called_the_same_in_every_room_and_after_nobody() -> Result<()> {
    let Group {
        mut story,
        kim,
        chat,
        sams,
        kims,
    } = group("Alice's rowing club").await?;
    let (alice, sam) = (story.alice.user_id.clone(), story.sam.user_id.clone());
    // The name was there before the invite.
    for portal in [&sams, &kims] {
        ensure!(called(portal).await? == "Someone's rowing club");
    }
    calls(&chat, &format!("The herons of {alice}")).await?;
    for portal in [&sams, &kims] {
        let by = is_called(portal, "The herons of @Someone").await?;
        ensure!(by.localpart().starts_with("_dm_.p"), "named by {by}");
    }
    // The topic keeps what everybody has to know.
    let content = json!({ "topic": format!("We meet at the lock. Ask {alice}") });
    chat.sets_state("m.room.topic", "", content).await?;
    sams.sees_where("the topic", |seen| {
        let topic = seen.content["topic"].as_str().unwrap_or_default();
        seen.event_type == "m.room.topic" && topic.ends_with("We meet at the lock. Ask @Someone")
    })
    .await?;
    let shown = topic(&sams).await?;
    ensure!(shown.contains("can read it on the way"), "{shown}");

    // Sam may not name the room of the others; he is told, and it is called as before.
    calls(&sams, "The otters").await?;
    sams.sees_part("your handle may not do that").await?;
    ensure!(called(&sams).await? == "The herons of @Someone");
    ensure!(called(&chat).await? == format!("The herons of {alice}"));
    // Now he may.
    let mut levels: Value = chat
        .state("m.room.power_levels", "")
        .await?
        .context("no power levels")?;
    levels["users"][story.ghost.as_str()] = json!(50);
    chat.sets_state("m.room.power_levels", "", levels).await?;
    let mine = format!("The otters of {sam}");
    calls(&sams, &mine).await?;
    let by = is_called(&chat, "The otters of @sam").await?;
    ensure!(by == story.ghost, "named by {by}");
    is_called(&kims, "The otters of @sam").await?;
    ensure!(called(&sams).await? == mine);

    // While nobody is there to hear it, too.
    story.world.service.kill().await?;
    calls(&chat, "Owls").await?;
    story.world.service.start().await?;
    for portal in [&sams, &kims] {
        is_called(portal, "Owls").await?;
    }
    chat.says("that was the last name").await?;
    sams.sees("that was the last name").await?;
    for room in [&chat, &sams, &kims] {
        ensure!(times_named(room, "Owls") == 1);
    }
    ensure!(times_named(&chat, "The otters of @sam") == 1);
    does_not_name(&sams, &alice)?;
    does_not_name(&kims, &alice)?;
    does_not_name(&chat, &sam)?;
    does_not_name(&kims, &sam)?;
    does_not_name(&chat, &kim.user_id)
}

#[tokio::test]
async fn a_moderator_deletes_for_all_what_a_masked_person_has_said() -> Result<()> {
    let Group {
        story: _story,
        kim: _kim,
        chat,
        sams,
        kims,
    } = group("Rowers").await?;
    sams.says("you row like a duck").await?;
    let here = chat.sees("you row like a duck").await?;
    let there = kims.sees("you row like a duck").await?;
    chat.redacts(&here.event_id).await?;
    kims.sees_where("the deletion", |seen| {
        seen.event_type == "m.room.redaction" && seen.content["redacts"] == there.event_id.as_str()
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_chat_of_two_has_a_name_if_somebody_gives_it_one() -> Result<()> {
    let story = masked(quick()).await?;
    let chat = story.alice_writes(LINE).await?;
    let (_, sams) = comes_to_portal(&story.sam).await?;
    sams.sees(LINE).await?;
    ensure!(sams.state("m.room.name", "").await?.is_none());
    calls(&chat, "Repairs").await?;
    is_called(&sams, "Repairs").await?;
    // In a chat that Element made both may.
    calls(&sams, "Sam mends the roof").await?;
    let by = is_called(&chat, "Sam mends the roof").await?;
    ensure!(by == story.ghost);
    calls(&chat, "").await?;
    is_called(&sams, "").await?;
    does_not_name(&sams, &story.alice.user_id)?;
    does_not_name(&chat, &story.sam.user_id)
}

/// Replaces a room as a client does, up to the inviting.
async fn upgrades(person: &Person, chat: &Chat) -> Result<Chat> {
    let request = upgrade_room::v3::Request::new(chat.id().to_owned(), RoomVersionId::V11);
    let answer = person.client.send(request).await?;
    let new = person.chat(&answer.replacement_room);
    let here = |_: &harness::Log| new.room().is_ok().then_some(());
    person.until("the new room", here).await?;
    Ok(new)
}

/// What an admin of the homeserver does to a room.
async fn administers(
    world: &World,
    token: &str,
    method: reqwest::Method,
    path: &str,
    body: Value,
) -> Result<()> {
    let url = world.synapse.url().join(path)?;
    reqwest::Client::new()
        .request(method, url)
        .bearer_auth(token)
        .json(&body)
        .send()
        .await?
        .error_for_status()?;
    Ok(())
}

/// How many portals somebody was invited to.
fn portals(owner: &Person) -> Vec<OwnedRoomId> {
    let mut rooms: Vec<OwnedRoomId> = owner
        .log()
        .invites()
        .into_iter()
        .filter(|invite| invite.sender.localpart() != "_dm_.bot")
        .map(|invite| invite.room)
        .collect();
    rooms.sort();
    rooms.dedup();
    rooms
}

/// Waits for an invite to another portal, and accepts it.
async fn comes_to_another(owner: &Person, not: &Chat) -> Result<Chat> {
    let invite = owner
        .invited(|invite| invite.room != not.id() && invite.sender.localpart() != "_dm_.bot")
        .await?;
    owner.accepts(&invite).await
}

#[tokio::test]
async fn a_conversation_goes_on_in_the_room_that_has_replaced_alices() -> Result<()> {
    let mut story = masked(quick()).await?;
    let chat = story.alice_writes(LINE).await?;
    let (ghost, sams) = comes_to_portal(&story.sam).await?;
    sams.sees(LINE).await?;
    let before = sams.says("before the move").await?;
    chat.sees("before the move").await?;

    // The service is killed at the door, and comes back to an invite and a message.
    let mut door = story.waits_at_the_door()?;
    let new = upgrades(&story.alice, &chat).await?;
    door.held().await?;
    story.world.service.kill().await?;
    story.lets_in()?;
    new.invites(&story.ghost).await?;
    new.says("is anybody here?").await?;
    story.world.service.start().await?;
    new.sees_join(&story.ghost).await?;
    let heard = sams.sees("is anybody here?").await?;
    ensure!(heard.sender == ghost, "{}", heard.sender);
    sams.replies(&heard.event_id, "all of us are").await?;
    let reply = new.sees_part("all of us are").await?;
    ensure!(reply.content["m.relates_to"]["m.in_reply_to"]["event_id"].is_string());
    chat.sees_leave(&story.ghost).await?;
    // What was said in the old room is not there to be answered, and that is said.
    sams.replies(&before, "about that").await?;
    new.sees_part("about that").await?;
    sams.sees_part("no longer known here").await?;

    // It stays so over a restart; and nobody was taken for somebody new.
    story.world.service.kill().await?;
    new.says("still here?").await?;
    story.world.service.start().await?;
    sams.sees("still here?").await?;
    ensure!(portals(&story.sam).len() == 1);
    ensure!(times(&sams, &ghost, "is anybody here?") == 1);
    does_not_name(&sams, &story.alice.user_id)?;
    does_not_name(&new, &story.sam.user_id)?;
    let texts = new.texts();
    let greeted = texts.iter().any(|(_, text)| text.contains("is masked"));
    ensure!(!greeted, "{texts:?}");
    checks::nothing_to_warn_of(&[&story.alice, &story.sam]).await
}

#[tokio::test]
async fn a_conversation_is_not_led_to_where_others_are() -> Result<()> {
    let story = masked(quick()).await?;
    let mallory = story.world.person("mallory").await?;
    let chat = story.alice_writes(LINE).await?;
    let (_, sams) = comes_to_portal(&story.sam).await?;
    sams.sees(LINE).await?;
    // A successor in every respect, but that somebody else is in it.
    let mut request = ChatOptions::group().request(&[&mallory.user_id])?;
    let predecessor = json!({ "predecessor": { "room_id": chat.id(), "event_id": "$last" } });
    let predecessor = serde_json::value::to_raw_value(&predecessor)?;
    request.creation_content = Some(Raw::from_json(predecessor));
    let trap = story.alice.client.create_room(request).await?;
    let trap = story.alice.chat(trap.room_id());
    let content = json!({ "body": "moved", "replacement_room": trap.id() });
    chat.sets_state("m.room.tombstone", "", content).await?;
    let at_trap = mallory
        .invited(|invite| invite.room == trap.id())
        .await
        .context("Mallory")?;
    let mallorys = mallory.accepts(&at_trap).await?;
    trap.invites(&story.ghost).await?;
    // It joins to look, and may be gone before Alice has seen it inside.
    trap.sees_leave(&story.ghost).await?;
    chat.sees_part("was upgraded").await?;
    sams.sees_part("was upgraded").await?;
    chat.says("we are still alone").await?;
    sams.sees("we are still alone").await?;
    sams.says("so we are").await?;
    chat.sees("so we are").await?;
    ensure!(
        mallorys
            .texts()
            .iter()
            .all(|(_, text)| !text.contains("alone") && !text.contains("so we are"))
    );
    Ok(())
}

#[tokio::test]
async fn a_person_who_forgets_to_invite_a_ghost_is_told_and_can_do_so_later() -> Result<()> {
    let Group {
        story,
        kim: _kim,
        chat,
        sams,
        kims,
    } = group("Rowers").await?;
    let control_room = story.world.control_room(&story.alice).await?;
    let new = upgrades(&story.alice, &chat).await?;
    // Nobody can say anything in the old room.
    control_room.sees_part("was upgraded").await?;
    sams.sees_part("was upgraded").await?;
    new.invites(&story.ghost).await?;
    new.sees_join(&story.ghost).await?;
    // Who is in brings the others.
    new.sees_join(&story.world.ghost("kim")?).await?;
    new.says("here we go on").await?;
    sams.sees("here we go on").await?;
    kims.sees("here we go on").await?;
    kims.says("gladly").await?;
    new.sees("gladly").await?;
    sams.sees("gladly").await?;
    ensure!(portals(&story.sam).len() == 1);
    Ok(())
}

#[tokio::test]
async fn a_portal_that_was_replaced_or_deleted_is_made_anew() -> Result<()> {
    let story = masked(quick()).await?;
    let chat = story.alice_writes(LINE).await?;
    let (ghost, first) = comes_to_portal(&story.sam).await?;
    first.sees(LINE).await?;
    // Sam may do as he likes in it, and leads the ghost to a room of his own.
    let (world, post) = (&story.world, reqwest::Method::POST);
    let token = world.synapse.register_admin("admin").await?;
    let path = format!("_synapse/admin/v1/rooms/{}/make_room_admin", first.id());
    let sam = json!({ "user_id": story.sam.user_id });
    administers(world, &token, post, &path, sam).await?;
    first
        .sees_where("Sam's power", |seen| {
            seen.content["users"][story.sam.user_id.as_str()] == 100
        })
        .await?;
    upgrades(&story.sam, &first).await?;
    let second = comes_to_another(&story.sam, &first).await?;
    first.sees_leave(&ghost).await?;
    chat.says("a second one").await?;
    let heard = second.sees("a second one").await?;
    ensure!(heard.sender == ghost);
    second.says("and it works").await?;
    chat.sees("and it works").await?;

    // An admin deletes it: the next message makes another one.
    let path = format!("_synapse/admin/v1/rooms/{}", second.id());
    let body = json!({ "purge": true });
    administers(world, &token, reqwest::Method::DELETE, &path, body).await?;
    chat.says("a third one").await?;
    let rooms = [first.id().to_owned(), second.id().to_owned()];
    let invite = story
        .sam
        .invited(|invite| !rooms.contains(&invite.room) && invite.sender.localpart() != "_dm_.bot")
        .await?;
    let third = story.sam.accepts(&invite).await?;
    third.sees("a third one").await?;
    third.says("and this one too").await?;
    chat.sees("and this one too").await?;
    does_not_name(&third, &story.alice.user_id)
}

#[tokio::test]
async fn somebody_is_called_as_they_choose_and_never_as_their_profile_says() -> Result<()> {
    let story = masked(quick()).await?;
    let bot = story.world.bot()?;
    let control_room = story.world.control_room(&story.alice).await?;
    let chat = story.alice_writes(LINE).await?;
    let (ghost, sams) = comes_to_portal(&story.sam).await?;
    sams.sees(LINE).await?;
    // What she is called elsewhere is carried nowhere.
    story.alice.is_called("Alice of the harbour").await?;
    chat.sees_where("her new name", |seen| {
        seen.content["displayname"] == "Alice of the harbour"
    })
    .await?;
    let topics = |sams: &Chat| {
        let events = sams.events().into_iter();
        events
            .filter(|seen| seen.event_type == "m.room.topic")
            .count()
    };
    let before = topics(&sams);
    confirms(&control_room, &bot, "appear Kim @sam").await?;
    sams.sees_where("the ghost's new name", |seen| {
        seen.membership() == Some((ghost.as_str(), "join")) && seen.content["displayname"] == "Kim"
    })
    .await?;
    sams.says(&format!("hello {ghost}")).await?;
    // She reads the name that she has in her own room.
    chat.sees("hello @Alice of the harbour").await?;
    chat.says(&format!("I am {}", story.alice.user_id)).await?;
    sams.sees("I am @Kim").await?;
    ensure!(topics(&sams) == before, "a new topic");
    for seen in sams.events() {
        ensure!(!format!("{seen:?}").contains("harbour"), "{seen:?}");
    }
    does_not_name(&sams, &story.alice.user_id)
}
