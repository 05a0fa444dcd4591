//! With the module in Synapse no ghost is ever in the room, and the service knows nothing of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use axum::http::StatusCode;
use harness::{
    Chat, ChatOptions, Invite, PATIENCE, Person, PersonOptions, Seen, World, WorldOptions, checks,
    proxy::Fate,
};
use ruma::{UserId, api::client::room::create_room::v3::Request as CreateRoom};
use serde_json::{Value, json};
use stonechat::{
    clock::{Clock, SystemClock},
    directory::{Directory, DirectorySettings},
    handle::{Handle, HandleRules},
};

use crate::{
    federation::two_servers,
    masked::{comes_to_portal, masks},
    remains::Remains,
    told::{
        LINE, Story, comes, ends_well, goodbye, in_clear, invited_to, quick, quoted, reason, times,
    },
};

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

/// A copy of the service's store, read with its own keys, remembers no room of these two.
async fn nothing_is_remembered(world: &mut World, asker: &UserId, handles: &[&str]) -> Result<()> {
    world.service.stop().await?;
    let remains = Remains::of(world).await?;
    let settings = DirectorySettings::new(asker.server_name().to_owned());
    let directory = Directory::new(remains.store.clone(), settings);
    for name in handles {
        let handle = Handle::parse(name, &HandleRules::default())?;
        let record = directory.lookup(&handle)?.context("no such handle")?;
        let now = SystemClock.now();
        let room = directory.room_of(asker, &handle, record.generation, now)?;
        ensure!(room.is_none(), "{room:?} is remembered for {handle}");
    }
    Ok(())
}

/// The opening line reaches Sam as Alice's own, and nobody else is ever there.
async fn alice_meets_sam(version: &str) -> Result<()> {
    let mut story = story().await?;
    let (alice, sam) = (&story.alice, &story.sam);
    let options = ChatOptions::default().version(version)?;
    let chat = alice.starts_chat_with(&[&story.ghost], options).await?;
    chat.says(LINE).await?;
    let (invite, sams) = comes_by_name(sam, &chat, alice).await?;
    ensure!(invite.is_direct, "{invite:#?}");
    ensure!(
        invite.sender_name.as_deref() == Some("Alice"),
        "{invite:#?}"
    );
    let line = sams.sees(LINE).await?;
    ensure!(line.sender == alice.user_id && line.was_encrypted());
    story.ends_well(&chat, &sams).await?;

    let create = chat.state("m.room.create", "").await?;
    let create = create.context("no beginning")?;
    let levels = chat.state("m.room.power_levels", "").await?;
    let levels = levels.context("no power levels")?;
    let sams_id = sam.user_id.as_str();
    match version {
        "12" => ensure!(
            create["additional_creators"] == json!([sams_id]),
            "{create}"
        ),
        _ => ensure!(levels["users"][sams_id] == 100, "{levels}"),
    }
    ensure!(!levels.to_string().contains("_dm_"), "{levels}");

    no_ghost_was_there(&story.world, &[&chat]).await?;
    story.world.nothing_leaked(&[LINE, "every word of it"])?;
    let alice = story.alice.user_id.clone();
    nothing_is_remembered(&mut story.world, &alice, &["sam"]).await?;
    no_ghost_was_there(&story.world, &[&chat]).await
}

#[tokio::test]
async fn with_the_module_alice_meets_sam_alone_in_a_room_of_version_10() -> Result<()> {
    alice_meets_sam("10").await
}

#[tokio::test]
async fn with_the_module_alice_meets_sam_alone_in_a_room_of_version_11() -> Result<()> {
    alice_meets_sam("11").await
}

#[tokio::test]
async fn with_the_module_alice_meets_sam_alone_in_a_room_of_version_12() -> Result<()> {
    alice_meets_sam("12").await
}

#[tokio::test]
async fn with_the_module_a_strict_handle_needs_no_ghost_and_its_first_message_is_read() -> Result<()>
{
    let story = story().await?;
    let bot = story.world.bot()?;
    let answer = story.control_room.asks(&bot, "mode sam strict").await?;
    ensure!(answer.text().is_some_and(|text| text.contains("is strict")));
    let chat = story.alice_writes(LINE).await?;
    let (_, sams) = comes_by_name(&story.sam, &chat, &story.alice).await?;
    ensure!(sams.sees(LINE).await?.sender == story.alice.user_id);
    story.ends_well(&chat, &sams).await?;
    no_ghost_was_there(&story.world, &[&chat]).await
}

#[tokio::test]
async fn with_the_module_a_group_has_its_owners_from_the_beginning_and_each_of_them_once()
-> Result<()> {
    let mut story = story().await?;
    let bob = story.world.person("bob").await?;
    let (kim, kims_room) = story.world.owner("kim").await?;
    story.world.claims(&kim, &kims_room, "kimberly").await?;
    let ghosts = [
        story.world.ghost("kim")?,
        story.world.ghost("kimberly")?,
        story.ghost.clone(),
    ];
    let (alice, sam) = (&story.alice, &story.sam);

    // Two handles of one owner, an owner who is invited by name too, and somebody without a handle.
    let invited: [&UserId; 5] = [
        &ghosts[0],
        &sam.user_id,
        &ghosts[1],
        &ghosts[2],
        &bob.user_id,
    ];
    let options = ChatOptions::group();
    let chat = alice.starts_chat_with(&invited, options).await?;
    chat.says(LINE).await?;
    let mut theirs = Vec::new();
    for person in [&kim, sam, &bob] {
        let (invite, chat) = comes_by_name(person, &chat, alice).await?;
        ensure!(!invite.is_direct, "{invite:#?}");
        chat.sees(LINE).await?;
        theirs.push(chat);
    }
    theirs[0].says("Kim is here").await?;
    for chat in [&chat, &theirs[1], &theirs[2]] {
        chat.sees("Kim is here").await?;
    }
    let four: [&UserId; 4] = [&alice.user_id, &kim.user_id, &sam.user_id, &bob.user_id];
    story.world.only_these_are_in(&chat, alice, &four).await?;
    checks::nothing_to_warn_of(&[alice, &kim, sam, &bob]).await?;
    no_ghost_was_there(&story.world, &[&chat]).await?;
    let alice = alice.user_id.clone();
    nothing_is_remembered(&mut story.world, &alice, &["sam", "kim", "kimberly"]).await
}

/// The ghost was invited, declined without joining, and this is how.
async fn declined(world: &World, chat: &Chat, ghost: &UserId) -> Result<(String, u64)> {
    let left = goodbye(chat, ghost).await?;
    let seen = chat.events();
    let invited = seen.iter().find(|e| is(e, ghost, "invite"));
    let invited = invited.context("nobody was invited")?;
    ensure!(!seen.iter().any(|e| is(e, ghost, "join")), "it joined");
    let joined = json!([ghost, "join"]);
    let ours = ours_in(world, chat).await?;
    ensure!(!ours.iter().any(|row| json!(row) == joined), "{ours:?}");
    let words = reason(&left).context("without a word")?.to_owned();
    Ok((words, left.sent.saturating_sub(invited.sent)))
}

fn is(seen: &Seen, who: &UserId, membership: &str) -> bool {
    seen.membership() == Some((who.as_str(), membership))
}

/// What the server says to somebody who creates a room or invites.
fn forbidden<T>(done: Result<T>) -> Result<String> {
    match done {
        Ok(_) => bail!("it was not refused"),
        Err(error) if format!("{error:?}").contains("M_FORBIDDEN") => Ok(format!("{error:?}")),
        Err(error) => Err(error).context("refused in another way"),
    }
}

#[tokio::test]
async fn with_the_module_a_masked_ghost_stays_and_blocked_refused_and_limited_are_declined_alike()
-> Result<()> {
    let mut options = with_module();
    options.service = options
        .service
        .set("limits.new_conversations_per_sender", 3);
    let story = Story::begins_with(options, PersonOptions::default()).await?;
    let (bot, sams_ghost) = (story.world.bot()?, story.ghost.clone());
    let (kim, kims_room) = story.world.owner("kim").await?;
    let (rob, _) = story.world.owner("rob").await?;
    let bob = story.world.person("bob").await?;
    let (kims, robs) = (story.world.ghost("kim")?, story.world.ghost("rob")?);
    let answer = story
        .control_room
        .asks(&bot, "block @bob:stone.test")
        .await?;
    ensure!(answer.text().is_some_and(|text| text.contains("Blocked")));
    masks(&story.world, &kims_room, "kim").await?;

    let world = &story.world;
    let mut all = Vec::new();
    let chat = bob.starts_chat(&[&sams_ghost]).await?;
    all.push(declined(world, &chat, &sams_ghost).await?);
    let masked = bob.starts_chat(&[&kims]).await?;
    masked.says(LINE).await?;
    let (_, portal) = comes_to_portal(&kim).await?;
    portal.sees(LINE).await?;
    masked.sees_join(&kims).await?;
    kims_room.asks(&bot, "policy kim nobody").await?;
    let refused = story.alice.starts_chat(&[&kims]).await?;
    all.push(declined(world, &refused, &kims).await?);
    // Two were counted, and this is the third, though each was asked for twice.
    let chat = bob.starts_chat(&[&robs]).await?;
    let (_, robs_chat) = comes_by_name(&rob, &chat, &bob).await?;
    ends_well(world, (&bob, &chat), (&rob, &robs_chat)).await?;
    no_ghost_was_there(world, &[&chat]).await?;
    let limited = bob.starts_chat(&[&robs]).await?;
    all.push(declined(world, &limited, &robs).await?);

    ensure!(all.iter().all(|(words, _)| *words == all[0].0), "{all:#?}");
    let after = all.iter().map(|(_, after)| *after);
    let (soonest, latest) = (after.clone().min(), after.max());
    let (soonest, latest) = (soonest.unwrap_or_default(), latest.unwrap_or_default());
    ensure!(soonest >= 1_900 && latest - soonest < 1_500, "{all:#?}");
    ensure!(story.sam.log().invites().iter().all(|i| i.sender == bot));
    Ok(())
}

#[tokio::test]
async fn with_the_module_a_blocked_person_cannot_invite_by_matrix_id_and_others_can() -> Result<()>
{
    let story = story().await?;
    let bot = story.world.bot()?;
    let (alice, sam) = (&story.alice, &story.sam);
    let answer = story
        .control_room
        .asks(&bot, "block @alice:stone.test")
        .await?;
    ensure!(answer.text().is_some_and(|text| text.contains("Blocked")));

    let rooms = alice.client.rooms().len();
    let refused = alice.starts_chat(&[&sam.user_id]).await;
    let words = forbidden(refused)?;
    ensure!(words.contains(sam.user_id.as_str()), "{words}");
    ensure!(alice.client.rooms().len() == rooms, "a room was left over");
    let bob = story.world.person("bob").await?;
    let others: [&UserId; 1] = [&bob.user_id];
    let chat = alice
        .starts_chat_with(&others, ChatOptions::group())
        .await?;
    forbidden(chat.invites(&sam.user_id).await)?;
    let bobs = bob.accepts(&invited_to(&bob, &chat).await?).await?;
    bobs.invites(&sam.user_id).await?;
    invited_to(sam, &chat).await?;

    let answer = story
        .control_room
        .asks(&bot, "unblock @alice:stone.test")
        .await?;
    ensure!(answer.text().is_some_and(|text| text.contains("Unblocked")));
    let chat = alice.starts_chat(&[&sam.user_id]).await?;
    comes_by_name(sam, &chat, alice).await?;
    Ok(())
}

#[tokio::test]
async fn with_the_module_a_blocked_person_of_another_server_cannot_invite_by_matrix_id()
-> Result<()> {
    let (mut world, there) = two_servers(with_module()).await?;
    let ((sam, control_room), alice, bob) = tokio::try_join!(
        world.owner("sam"),
        Person::register(&there, "alice"),
        Person::register(&there, "bob")
    )?;
    let bot = world.bot()?;
    let block = format!("block {}", alice.user_id);
    let answer = control_room.asks(&bot, &block).await?;
    ensure!(answer.text().is_some_and(|text| text.contains("Blocked")));

    forbidden(alice.starts_chat(&[&sam.user_id]).await)?;
    let others: [&UserId; 1] = [&bob.user_id];
    let options = ChatOptions::group();
    let chat = alice.starts_chat_with(&others, options).await?;
    forbidden(chat.invites(&sam.user_id).await)?;
    // Somebody else of the same server gets through, into the same room too.
    let bobs = bob.accepts(&invited_to(&bob, &chat).await?).await?;
    bobs.invites(&sam.user_id).await?;
    let invite = invited_to(&sam, &chat).await?;
    ensure!(invite.sender == bob.user_id, "by {}", invite.sender);
    let invites = sam.log().invites();
    ensure!(
        invites.iter().all(|invite| invite.sender != alice.user_id),
        "{invites:#?}"
    );

    let answer = control_room.asks(&bot, &format!("un{block}")).await?;
    ensure!(answer.text().is_some_and(|text| text.contains("Unblocked")));
    let chat = alice.starts_chat(&[&sam.user_id]).await?;
    comes_by_name(&sam, &chat, &alice).await?;

    // Blocked again; but a Stonechat that is away keeps nobody's invite.
    let answer = control_room.asks(&bot, &block).await?;
    ensure!(answer.text().is_some_and(|text| text.contains("Blocked")));
    forbidden(alice.starts_chat(&[&sam.user_id]).await)?;
    world.service.stop().await?;
    let chat = alice.starts_chat(&[&sam.user_id]).await?;
    comes_by_name(&sam, &chat, &alice).await.map(drop)
}

/// A chat that is made while something is wrong with Stonechat, and how long that took.
async fn starts_in_time(story: &Story) -> Result<(Chat, Duration)> {
    let begun = Instant::now();
    let chat = story.alice.starts_chat(&[&story.ghost]).await?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(5), "it took {took:?}");
    Ok((chat, took))
}

/// The ghost is there, and introduces, as without the module.
async fn the_ghost_introduces(story: &Story, chat: &Chat) -> Result<()> {
    let sams = story.sam_comes(chat).await?;
    sams.sees(&quoted("Alice", LINE)).await?;
    ensure!(times(&sams, &story.alice.user_id, LINE) == 0);
    story.ends_well(chat, &sams).await
}

#[tokio::test]
async fn with_the_module_and_without_stonechat_the_ghost_is_invited_and_introduces_later()
-> Result<()> {
    let mut story = story().await?;
    // Nobody listens behind the proxy any more; then not even the proxy answers.
    story.world.service.stop().await?;
    let (chat, _) = starts_in_time(&story).await?;
    chat.says(LINE).await?;
    story.world.service.start().await?;
    the_ghost_introduces(&story, &chat).await?;
    // The module that got no answer does not ask for a while, but is told that the service is back:
    // whoever comes next meets no ghost.
    let (kim, lou) = tokio::try_join!(story.world.person("kim"), story.world.person("lou"))?;
    story.world.service.stop().await?;
    lou.starts_chat(&[&story.ghost]).await?;
    story.world.service.start().await?;
    let fresh = kim.starts_chat(&[&story.ghost]).await?;
    comes_by_name(&story.sam, &fresh, &kim).await?;
    no_ghost_was_there(&story.world, &[&fresh]).await
}

#[tokio::test]
async fn with_the_module_a_slow_or_senseless_stonechat_keeps_nobody_waiting() -> Result<()> {
    let story = story().await?;
    let pushed = story.world.to_service.as_ref().context("no network")?;
    let baseline = {
        pushed.judge(|_, path| match path.contains("/_stonechat/v1/") {
            // 200 with nothing in it.
            true => Fate::Refuse(StatusCode::OK),
            false => Fate::Pass,
        });
        let (chat, took) = starts_in_time(&story).await?;
        chat.says(LINE).await?;
        the_ghost_introduces(&story, &chat).await?;
        took
    };
    let heard = heard(&story)?;
    pushed.calm();
    heard_again(&story, heard).await?;

    pushed.judge(|_, path| match path.contains("/_stonechat/v1/") {
        true => Fate::Delay(Duration::from_secs(20)),
        false => Fate::Pass,
    });
    // Half a second at most, and after the first time hardly ever that.
    let (slow, took) = starts_in_time(&story).await?;
    ensure!(
        took < baseline + Duration::from_millis(2000),
        "{took:?} {baseline:?}"
    );
    let left = ours_in(&story.world, &slow).await?;
    ensure!(!left.is_empty(), "nobody was invited");
    for _ in 0..3 {
        let (_, took) = starts_in_time(&story).await?;
        ensure!(
            took < baseline + Duration::from_millis(2000),
            "{took:?} {baseline:?}"
        );
    }
    pushed.calm();
    Ok(())
}

const HEARD: &str = "Stonechat answers again";

/// How often the module has noticed that Stonechat answers again.
fn heard(story: &Story) -> Result<usize> {
    let homeserver = story.world.synapse.process().context("no homeserver")?;
    let lines = homeserver.lines();
    Ok(lines.iter().filter(|line| line.contains(HEARD)).count())
}

/// Waits until it has noticed that once more.
async fn heard_again(story: &Story, before: usize) -> Result<()> {
    let homeserver = story.world.synapse.process().context("no homeserver")?;
    let count = std::cell::Cell::new(0);
    let find = |line: &str| {
        count.set(count.get() + usize::from(line.contains(HEARD)));
        (count.get() > before).then_some(())
    };
    homeserver.line_where(HEARD, PATIENCE, find).await
}

#[tokio::test]
async fn with_the_module_odd_lists_are_answered_sensibly() -> Result<()> {
    let story = story().await?;
    let (alice, sam, ghost) = (&story.alice, &story.sam, &story.ghost);
    let bot = story.world.bot()?;

    // A room in clear is encrypted from its first event on.
    let chat = alice.starts_chat_with(&[ghost], in_clear()).await?;
    comes_by_name(sam, &chat, alice).await?;
    let algorithm = chat.state("m.room.encryption", "").await?;
    let algorithm = algorithm.context("not encrypted")?;
    ensure!(
        algorithm["algorithm"] == "m.megolm.v1.aes-sha2",
        "{algorithm}"
    );
    no_ghost_was_there(&story.world, &[&chat]).await?;

    // One's own handle: the ghost says so.
    let own = sam.starts_chat(&[ghost]).await?;
    let left = goodbye(&own, ghost).await?;
    ensure!(
        reason(&left).is_some_and(|why| why.contains("handle is yours")),
        "{left:?}"
    );

    // The bot does not mind who else is invited: it goes.
    let crowd: [&UserId; 2] = [&bot, ghost];
    let chat = alice.starts_chat_with(&crowd, ChatOptions::group()).await?;
    comes_by_name(sam, &chat, alice).await?;
    chat.sees_leave(&bot).await?;
    let two: [&UserId; 2] = [&alice.user_id, &sam.user_id];
    story.world.only_these_are_in(&chat, alice, &two).await?;

    // A group in clear is the ghost's business: it turns encryption on before anybody comes.
    let options = ChatOptions {
        is_direct: false,
        ..in_clear()
    };
    let chat = alice.starts_chat_with(&[ghost], options).await?;
    let invite = invited_to(sam, &chat).await?;
    ensure!(invite.sender == *ghost && invite.encrypted, "{invite:#?}");

    // Power that was meant for the ghost is its owner's; a name in capitals is the same handle.
    let shouted = ghost.as_str().replace("_sam", "_SAM");
    let mut request = CreateRoom::new();
    request.is_direct = true;
    request.invite = vec![UserId::parse(&shouted)?];
    let levels = json!({"users": {alice.user_id.as_str(): 100, shouted: 75}});
    request.power_level_content_override = Some(ruma::serde::Raw::from_json(
        serde_json::value::to_raw_value(&levels)?,
    ));
    request.room_version = Some("11".try_into()?);
    let made = alice.client.create_room(request).await?;
    let chat = alice.chat(made.room_id());
    comes_by_name(sam, &chat, alice).await?;
    let levels = chat.state("m.room.power_levels", "").await?;
    let levels = levels.context("no power levels")?;
    ensure!(levels["users"][sam.user_id.as_str()] == 75, "{levels}");
    no_ghost_was_there(&story.world, &[&chat]).await
}

#[tokio::test]
async fn with_the_module_an_owner_who_takes_no_invites_makes_nobodys_room_fail() -> Result<()> {
    let story = story().await?;
    story.sam.blocks_all_invites().await?;
    let chat = story.alice_writes(LINE).await?;
    let told = chat.sees_part("cannot be invited at the moment").await?;
    ensure!(told.sender == story.ghost && told.was_encrypted());
    goodbye(&chat, &story.ghost).await.map(drop)
}

#[tokio::test]
async fn with_the_module_an_owner_on_another_homeserver_is_left_to_the_ghost_which_introduces()
-> Result<()> {
    let (world, there) = two_servers(with_module()).await?;
    let (alice, sam) = tokio::try_join!(world.person("alice"), Person::register(&there, "sam"))?;
    let control_room = world.control_room(&sam).await?;
    world.claims(&sam, &control_room, "sam").await?;
    let ghost = world.ghost("sam")?;

    let chat = alice.starts_chat(&[&ghost]).await?;
    chat.says(LINE).await?;
    let sams = comes(&sam, &chat, &ghost, "Alice, to your handle @sam").await?;
    sams.sees(&quoted("Alice", LINE)).await?;
    goodbye(&chat, &ghost).await?;
    ends_well(&world, (&alice, &chat), (&sam, &sams)).await?;
    let ours = ours_in(&world, &chat).await?;
    ensure!(
        ours.contains(&vec![json!(ghost), json!("join")]),
        "{ours:?}"
    );
    world.nothing_leaked(&[LINE])?;
    checks::holds_none_of(there.folder(), &[LINE])
}

#[tokio::test]
async fn with_the_module_an_owner_who_is_asked_first_is_asked_by_the_ghost_and_only_once()
-> Result<()> {
    let story = story().await?;
    let (alice, sam, ghost) = (&story.alice, &story.sam, &story.ghost);
    let bot = story.world.bot()?;
    let answer = story.control_room.asks(&bot, "policy sam ask").await?;
    let said = answer.text().unwrap_or_default();
    ensure!(said.contains("people ask first"), "{said}");

    let chat = story.alice_writes(LINE).await?;
    let told = chat.sees_part("likes to be asked first").await?;
    ensure!(told.sender == *ghost && told.was_encrypted());
    let shown = story
        .control_room
        .sees_part("asks to chat with you")
        .await?;
    let said = shown.text().unwrap_or_default();
    ensure!(said.contains(&format!("> {LINE}\n")), "{said}");
    let two: [&UserId; 2] = [&alice.user_id, ghost];
    story.world.only_these_are_in(&chat, alice, &two).await?;

    story.control_room.reacts(&shown.event_id, "👍").await?;
    let sams = story.sam_comes(&chat).await?;
    sams.sees(&quoted("Alice", LINE)).await?;
    goodbye(&chat, ghost).await?;
    story.ends_well(&chat, &sams).await?;

    // Whom he has accepted once he need not be asked about, and then there is no ghost either.
    let again = alice.starts_chat(&[ghost]).await?;
    again.says("the same bank, tomorrow?").await?;
    let (_, sams) = comes_by_name(sam, &again, alice).await?;
    sams.sees("the same bank, tomorrow?").await?;
    story.ends_well(&again, &sams).await?;
    no_ghost_was_there(&story.world, &[&again]).await
}

#[tokio::test]
async fn doctor_says_whether_the_module_is_loaded_and_what_it_is_good_for() -> Result<()> {
    let world = World::start_with(WorldOptions {
        module: true,
        ..WorldOptions::default()
    });
    let mut world = world.await?;
    let said = world.service.succeeds(&["doctor"]).await?;
    ensure!(said.contains("loaded in Synapse"), "{said}");
    // Without the service running it listens itself.
    world.service.stop().await?;
    let said = world.service.succeeds(&["doctor"]).await?;
    ensure!(said.contains("loaded in Synapse"), "{said}");
    world.service.start().await?;

    // The homeserver without the module, and Stonechat set up for one.
    world.synapse.stop().await?;
    world.synapse.options_mut().further.remove("modules");
    world.synapse.start().await?;
    let said = world.service.command_line(&["doctor"]).await?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(!said.status.success() && text.contains("FAILED"), "{text}");
    ensure!(text.contains("does not call the module"), "{text}");

    // Neither of the two: only a recommendation.
    std::fs::remove_file(world.service.config().with_file_name("module.token"))?;
    let said = world.service.succeeds(&["doctor"]).await?;
    ensure!(said.contains("there is no module"), "{said}");
    ensure!(said.contains("registration --with-module"), "{said}");
    Ok(())
}
