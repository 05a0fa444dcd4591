//! An owner who likes to be asked before anybody reaches them.

use anyhow::{Context, Result, ensure};
use harness::{Chat, Person, PersonOptions, Seen, WorldOptions, checks, proxy::Fate};
use ruma::OwnedRoomId;

use crate::{
    remains::{ciphertexts, read_nothing},
    told::{LINE, Story, comes, ends_well, goodbye, place, quick, quoted, reason, shown, times},
};

const SECOND: &str = "it looks as if it waits for somebody";
const THIRD: &str = "bring the long lens if you come";

/// Sam lets himself be asked.
async fn story(options: WorldOptions) -> Result<Story> {
    let story = Story::begins_with(options, PersonOptions::default()).await?;
    let bot = story.world.bot()?;
    let answer = story.control_room.asks(&bot, "policy sam ask").await?;
    let said = answer.text().unwrap_or_default();
    ensure!(said.contains("people ask first"), "{said}");
    Ok(story)
}

/// Alice writes, is told that Sam is asked, and Sam is shown her line and nothing else.
async fn alice_asks(story: &Story) -> Result<(Chat, Seen)> {
    let chat = story.alice_writes(LINE).await?;
    let told = chat.sees_part("wants to be asked first").await?;
    let said = told.text().unwrap_or_default();
    ensure!(told.sender == story.ghost && told.was_encrypted());
    ensure!(said.contains("the service can read"), "{said}");
    let shown = story
        .control_room
        .sees_part("asks to chat with you")
        .await?;
    let said = shown.text().unwrap_or_default();
    ensure!(shown.sender == story.world.bot()? && shown.was_encrypted());
    ensure!(
        said.contains(&format!("Request 1: Alice ({})", story.alice.user_id)),
        "{said}"
    );
    ensure!(said.contains(&format!("> {LINE}\n")), "{said}");
    // Sam's phone notifies him of it.
    let content = &shown.content;
    ensure!(content["msgtype"] == "m.text", "{shown:?}");
    let mentioned = &content["m.mentions"]["user_ids"][0];
    ensure!(*mentioned == story.sam.user_id.as_str(), "{shown:?}");
    // The answers are there to be clicked.
    for key in ["✅", "❌", "🚫"] {
        let is_offered = |seen: &Seen| {
            let relation = &seen.content["m.relates_to"];
            let is_it = relation["event_id"] == shown.event_id.as_str() && relation["key"] == key;
            seen.event_type == "m.reaction" && is_it
        };
        let room = &story.control_room;
        let offered = room.sees_where("an answer to click", is_offered).await?;
        ensure!(offered.sender == story.world.bot()?, "{offered:?}");
    }
    Ok((chat, shown))
}

/// Nobody invited Sam anywhere, and he has heard nothing but the opening line.
fn nothing_came_of_it(story: &Story, not_shown: &[&str]) -> Result<()> {
    let invites = story.sam.log().invites();
    ensure!(
        invites.iter().all(|i| i.sender != story.ghost),
        "{invites:?}"
    );
    for (_, text) in story.control_room.texts() {
        ensure!(not_shown.iter().all(|part| !text.contains(part)), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn an_accepted_asker_is_introduced_and_all_they_wrote_comes_in_order() -> Result<()> {
    let story = story(quick()).await?;
    let (chat, _) = alice_asks(&story).await?;
    chat.says(SECOND).await?;
    chat.says(THIRD).await?;
    story
        .world
        .only_these_are_in(&chat, &story.alice, &[&story.alice.user_id, &story.ghost])
        .await?;
    nothing_came_of_it(&story, &[SECOND, THIRD])?;
    story.world.nothing_leaked(&[LINE, SECOND, THIRD])?;

    let bot = story.world.bot()?;
    let answer = story.control_room.asks(&bot, "accept 1").await?;
    let said = answer.text().unwrap_or_default();
    ensure!(said.contains("invited to a chat"), "{said}");
    let sams = story.sam_comes(&chat).await?;
    sams.sees(&quoted("Alice", THIRD)).await?;
    story.ends_well(&chat, &sams).await?;
    let quotes: Vec<String> = sams
        .texts()
        .into_iter()
        .filter(|(by, _)| *by == story.ghost)
        .map(|(_, text)| text)
        .collect();
    let expected = [LINE, SECOND, THIRD].map(|line| quoted("Alice", line));
    ensure!(quotes == expected, "{quotes:#?}");
    checks::nothing_to_warn_of(&[&story.alice, &story.sam]).await?;
    story.world.nothing_leaked(&[LINE, SECOND, THIRD])
}

#[tokio::test]
async fn a_declined_asker_hears_what_everybody_hears_and_nothing_is_kept() -> Result<()> {
    let mut story = story(quick()).await?;
    let (chat, shown) = alice_asks(&story).await?;
    chat.says(SECOND).await?;
    story.control_room.reacts(&shown.event_id, "👎").await?;
    story.control_room.sees_part("I've turned").await?;
    let left = goodbye(&chat, &story.ghost).await?;
    ensure!(
        reason(&left) == Some("This handle can't be reached at the moment."),
        "{:?}",
        left.content
    );
    nothing_came_of_it(&story, &[SECOND])?;
    let bot = story.world.bot()?;
    let none = story.control_room.asks(&bot, "requests").await?;
    ensure!(
        none.text()
            .is_some_and(|text| text.contains("Nobody is asking"))
    );

    let said = ciphertexts(&story.alice, chat.id()).await?;
    let (ghost, room) = (story.ghost.clone(), chat.id().to_owned());
    read_nothing(&mut story.world, &ghost, &[(room, said)]).await?;
    story.world.nothing_leaked(&[LINE, SECOND])
}

#[tokio::test]
async fn a_request_that_nobody_answers_ends_like_one_that_was_declined() -> Result<()> {
    let mut options = quick();
    options.service = options.service.set("introductions.wait_for_answer", "4s");
    let story = story(options).await?;
    let (chat, shown) = alice_asks(&story).await?;
    let left = goodbye(&chat, &story.ghost).await?;
    ensure!(
        reason(&left) == Some("This handle can't be reached at the moment."),
        "{:?}",
        left.content
    );
    // A reaction that comes too late leads nowhere.
    story.control_room.reacts(&shown.event_id, "✅").await?;
    let bot = story.world.bot()?;
    let none = story.control_room.asks(&bot, "requests").await?;
    ensure!(
        none.text()
            .is_some_and(|text| text.contains("Nobody is asking"))
    );
    nothing_came_of_it(&story, &[])
}

#[tokio::test]
async fn a_kill_while_somebody_waits_loses_nothing_of_it() -> Result<()> {
    let mut story = story(quick()).await?;
    let (chat, shown) = alice_asks(&story).await?;
    story.world.service.kill().await?;
    chat.says(SECOND).await?;
    story.world.service.start().await?;
    chat.says(THIRD).await?;
    story.control_room.reacts(&shown.event_id, "👍").await?;
    let sams = story.sam_comes(&chat).await?;
    for line in [LINE, SECOND, THIRD] {
        sams.sees(&quoted("Alice", line)).await?;
    }
    story.ends_well(&chat, &sams).await?;
    let shown = story
        .control_room
        .texts()
        .into_iter()
        .filter(|(_, text)| text.contains("asks to chat with you"));
    ensure!(shown.count() == 1, "the request was shown twice");

    // Whom Sam accepted once need not ask again.
    let answer = story
        .control_room
        .asks(&story.world.bot()?, "handles")
        .await?;
    let said = answer.text().unwrap_or_default();
    ensure!(said.contains("people ask you first"), "{said}");
    let again = story.alice_writes("the same bank, tomorrow?").await?;
    again.sees_part("already have a chat").await?;
    Ok(())
}

/// Where the service is killed in the course of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The ghost tells the asker that the owner is asked.
    Telling,
    /// The bot shows the request to the owner.
    Showing,
    /// The owner has answered, and the bot says what it makes of it.
    Confirming,
    /// Accepted: the ghost looks at the room again.
    Looking,
    /// The owner is invited.
    Inviting,
    /// What was kept is passed on.
    PassingOn,
    /// The ghost goes, because it is done.
    Leaving,
    /// The ghost goes, because the owner does not want this.
    Declined,
}

const STEPS: [Step; 8] = [
    Step::Telling,
    Step::Showing,
    Step::Confirming,
    Step::Looking,
    Step::Inviting,
    Step::PassingOn,
    Step::Leaving,
    Step::Declined,
];

impl Step {
    fn is_before_the_answer(self) -> bool {
        matches!(self, Step::Telling | Step::Showing)
    }

    /// Whether a request of the service is this step's.
    fn is(self, method: &str, path: &str, chat: &str, control_room: &str) -> bool {
        let path = place(path);
        // Room ids stand in paths with some of their characters escaped.
        let plain = |room: &str| room[1..].split(':').next().unwrap_or_default().to_owned();
        let here = path.contains(&plain(chat));
        let sends = method == "PUT" && path.contains("/send/m.room.encrypted/");
        let member = method == "PUT" && path.contains("/state/m.room.member/");
        match self {
            Step::Telling | Step::PassingOn => here && sends,
            Step::Showing | Step::Confirming => path.contains(&plain(control_room)) && sends,
            Step::Looking => here && method == "GET" && path.ends_with("/state"),
            Step::Inviting => here && member && !path.contains("_dm_"),
            Step::Leaving | Step::Declined => here && method == "POST" && path.ends_with("/leave"),
        }
    }
}

/// Kills the service at each step of a request, as the introductions' story does at theirs.
async fn killed_at_every_step(fate: Fate) -> Result<()> {
    let mut story = story(quick()).await?;
    let mut rooms = Vec::new();
    for (at, step) in STEPS.into_iter().enumerate() {
        let asker = story.world.person(&format!("asker{at}")).await?;
        let room = killed_at(&mut story, &asker, step, fate.clone())
            .await
            .with_context(|| format!("killed at {step:?}, {fate:?}"))?;
        let said = ciphertexts(&asker, &room).await?;
        rooms.push((room, said));
    }
    let bot = story.world.bot()?;
    let none = story.control_room.asks(&bot, "requests").await?;
    ensure!(
        none.text()
            .is_some_and(|text| text.contains("Nobody is asking"))
    );
    read_nothing(&mut story.world, &story.ghost, &rooms).await?;
    story.world.nothing_leaked(&[LINE, SECOND])
}

async fn killed_at(
    story: &mut Story,
    asker: &Person,
    step: Step,
    fate: Fate,
) -> Result<OwnedRoomId> {
    let (ghost, bot) = (story.ghost.clone(), story.world.bot()?);
    let name = shown(&asker.user_id);
    let line = format!("{LINE}, said {name}");
    let second = format!("{SECOND}, said {name}");
    let chat = asker.starts_chat(&[&ghost]).await?;
    let (room, control_room) = (chat.id().to_owned(), story.control_room.id().to_owned());
    let catches = |story: &Story| {
        let (room, control_room) = (room.to_string(), control_room.to_string());
        let wanted = move |method: &str, path: &str| step.is(method, path, &room, &control_room);
        anyhow::Ok(story.network()?.catches(fate.clone(), "its step", wanted))
    };
    let mut caught = None;
    if step.is_before_the_answer() {
        caught = Some(catches(story)?);
    }
    chat.says(&line).await?;
    if let Some(caught) = &mut caught {
        caught.held().await?;
        dies_and_comes_back(story).await?;
    }

    let asks = format!("{name} ({}) asks to chat with you", asker.user_id);
    let request = story.control_room.sees_part(&asks).await?;
    chat.sees_part("wants to be asked first").await?;
    chat.says(&second).await?;
    let answer = match step {
        Step::Declined => "👎",
        _ => "👍",
    };
    if !step.is_before_the_answer() {
        let mut caught = catches(story)?;
        story.control_room.reacts(&request.event_id, answer).await?;
        if step == Step::Leaving {
            // It stays until the owner has come, and a little longer.
            comes(&story.sam, &chat, &ghost, &to_sam(&name)).await?;
        }
        caught.held().await?;
        dies_and_comes_back(story).await?;
    } else {
        story.control_room.reacts(&request.event_id, answer).await?;
    }

    if step == Step::Declined {
        let left = goodbye(&chat, &ghost).await?;
        let why = Some("This handle can't be reached at the moment.");
        ensure!(reason(&left) == why, "{:?}", left.content);
        ensure!(story.sam.log().invites().iter().all(|i| i.room != room));
    } else {
        let sams = match step {
            Step::Leaving => story.sam.chat(&room),
            _ => comes(&story.sam, &chat, &ghost, &to_sam(&name)).await?,
        };
        for line in [&line, &second] {
            sams.sees(&quoted(&name, line)).await?;
        }
        ends_well(&story.world, (asker, &chat), (&story.sam, &sams)).await?;
        let quotes = sams.texts().into_iter().filter(|(by, _)| *by == ghost);
        let quotes: Vec<String> = quotes.map(|(_, text)| text).collect();
        let wanted = [&line, &second].map(|line| quoted(&name, line));
        ensure!(quotes == wanted, "{quotes:#?}");
    }
    // Nobody was told anything twice.
    let told = times(&chat, &ghost, "wants to be asked first");
    let asked = times(&story.control_room, &bot, &asks);
    ensure!((told, asked) == (1, 1), "told {told} times, asked {asked}");
    Ok(room)
}

fn to_sam(name: &str) -> String {
    format!("{name} (via @sam)")
}

async fn dies_and_comes_back(story: &mut Story) -> Result<()> {
    story.world.service.kill().await?;
    let network = story.network()?;
    network.calm();
    network.release();
    story.world.service.start().await
}

#[tokio::test]
async fn a_request_goes_on_after_a_kill_before_any_of_its_steps() -> Result<()> {
    killed_at_every_step(Fate::Hold).await
}

#[tokio::test]
async fn a_request_goes_on_after_a_kill_right_after_any_of_its_steps() -> Result<()> {
    killed_at_every_step(Fate::HoldAnswer).await
}

#[tokio::test]
async fn a_line_that_comes_after_the_request_is_shown_to_the_owner() -> Result<()> {
    let mut options = quick();
    options.service = options.service.set("introductions.wait_for_message", "1s");
    let story = story(options).await?;
    let chat = story.alice.starts_chat(&[&story.ghost]).await?;
    let asked = story
        .control_room
        .sees_part("asks to chat with you")
        .await?;
    ensure!(!asked.text().is_some_and(|text| text.contains("> ")));
    chat.says(LINE).await?;
    let shown = story
        .control_room
        .sees_part("Request 1: Alice writes")
        .await?;
    let said = shown.text().unwrap_or_default();
    ensure!(said.contains(&format!("> {LINE}\n")), "{said}");
    story.control_room.reacts(&shown.event_id, "✅").await?;
    let sams = story.sam_comes(&chat).await?;
    story.ends_well(&chat, &sams).await
}
