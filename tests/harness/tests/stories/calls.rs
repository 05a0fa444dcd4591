//! Calls of two people who see each other through a mask, in real browsers with fake microphones
//! and cameras: the events of a call cross the two rooms, what is said goes directly.

use anyhow::{Context, Result, ensure};
use harness::{Browser, Chat, Person, Seen, WorldOptions};
use ruma::{OwnedUserId, UserId};
use serde_json::{Value, json};

use crate::{
    masked::{comes_to_portal, does_not_name, masked},
    told::{LINE, Story, quick, times},
};

/// Two people in a masked conversation, each with a browser.
struct Callers {
    // First: browsers go before their homeserver does.
    alices: Browser,
    sams: Browser,
    alices_chat: Chat,
    sams_chat: Chat,
    /// Who Alice is in Sam's room.
    alices_ghost: OwnedUserId,
    story: Story,
}

/// `turn`: whether their homeserver has a relay for calls.
async fn callers(turn: bool) -> Result<Callers> {
    let options = WorldOptions { turn, ..quick() };
    let story = masked(options).await?;
    let alices_chat = story.alice_writes(LINE).await?;
    let (alices_ghost, sams_chat) = comes_to_portal(&story.sam).await?;
    sams_chat.sees(LINE).await?;
    let synapse = &story.world.synapse;
    let browser = |person| Browser::of(person, synapse);
    let (alices, sams) = tokio::try_join!(browser(&story.alice), browser(&story.sam))?;
    for browser in [&alices, &sams] {
        ensure!(browser.relays == u64::from(turn), "{}", browser.relays);
    }
    Ok(Callers {
        alices,
        sams,
        alices_chat,
        sams_chat,
        alices_ghost,
        story,
    })
}

impl Callers {
    /// What each side was shown by the other's ghost of a call, and who the other is.
    fn sides(&self) -> [(&Chat, &UserId, &Person); 2] {
        let story = &self.story;
        [
            (&self.sams_chat, &self.alices_ghost, &story.alice),
            (&self.alices_chat, &story.ghost, &story.sam),
        ]
    }

    /// Neither side was shown who the other is, nor where.
    fn shows_nobody_and_no_place(&self) -> Result<()> {
        for (chat, ghost, other) in self.sides() {
            does_not_name(chat, &other.user_id)?;
            for event in carried(chat, ghost) {
                let all = event.content.to_string().to_lowercase();
                for kind in ["typ host", "typ srflx", "typ prflx", ".local"] {
                    ensure!(!all.contains(kind), "{kind}: {all}");
                }
            }
        }
        Ok(())
    }
}

/// The events of calls that a ghost has brought into a room.
fn carried(chat: &Chat, ghost: &UserId) -> Vec<Seen> {
    let call = |seen: &Seen| seen.sender == ghost && seen.event_type.starts_with("m.call.");
    chat.events().into_iter().filter(call).collect()
}

fn goes_from(flow: &Value, kind: &str) -> Result<()> {
    for end in ["local", "remote"] {
        ensure!(flow[end]["candidateType"] == kind, "{flow}");
    }
    Ok(())
}

fn grows(flow: &Value, kind: &str) -> Result<()> {
    let bytes = flow[kind].as_array().context("no numbers")?;
    let bytes: Vec<u64> = bytes.iter().filter_map(Value::as_u64).collect();
    ensure!(bytes.len() >= 3 && bytes.is_sorted(), "{flow}");
    Ok(())
}

#[tokio::test]
async fn a_call_connects_through_relays_and_shows_neither_where_nor_who_the_other_is() -> Result<()>
{
    let mut is = callers(true).await?;

    // Alice calls, with pictures.
    let call = is.alices.calls(&is.alices_chat, true).await?;
    ensure!(is.sams.rings(&is.sams_chat, &call).await? == "video");
    is.sams.answers().await?;
    for side in [&is.alices, &is.sams] {
        let flow = side.hears(&call).await?;
        goes_from(&flow, "relay")?;
        grows(&flow, "audio")?;
        grows(&flow, "video")?;
    }
    // What they negotiate in the middle of it crosses too.
    for held in [true, false] {
        is.sams.holds(held).await?;
        is.alices.is_held(&call, held).await?;
    }
    is.alices.hangs_up().await?;
    let end = is.sams.sees_end(&call).await?;
    ensure!(
        end["by"] == "remote" && end["reason"] == "user_hangup",
        "{end}"
    );

    // Sam calls back, without.
    let call = is.sams.calls(&is.sams_chat, false).await?;
    ensure!(is.alices.rings(&is.alices_chat, &call).await? == "voice");
    is.alices.answers().await?;
    for side in [&is.alices, &is.sams] {
        let flow = side.hears(&call).await?;
        goes_from(&flow, "relay")?;
        grows(&flow, "audio")?;
    }
    is.sams.hangs_up().await?;
    let end = is.alices.sees_end(&call).await?;
    ensure!(end["by"] == "remote", "{end}");

    is.shows_nobody_and_no_place()?;
    for (chat, ghost, _) in is.sides() {
        let events = carried(chat, ghost);
        let relay = |seen: &Seen| seen.content.to_string().contains("typ relay");
        ensure!(events.iter().any(relay), "{events:#?}");
        // Nobody is told of a relay that is missing.
        ensure!(times(chat, ghost, "will probably not connect") == 0);
    }
    Ok(())
}

#[tokio::test]
async fn a_call_that_is_hung_up_before_the_answer_stops_ringing() -> Result<()> {
    let mut is = callers(true).await?;
    let call = is.alices.calls(&is.alices_chat, false).await?;
    is.sams.rings(&is.sams_chat, &call).await?;
    is.alices.hangs_up().await?;
    let end = is.sams.sees_end(&call).await?;
    ensure!(
        end["by"] == "remote" && end["reason"] == "user_hangup",
        "{end}"
    );
    is.alices.sees_end(&call).await?;

    // And one that is declined.
    let call = is.alices.calls(&is.alices_chat, false).await?;
    is.sams.rings(&is.sams_chat, &call).await?;
    is.sams.rejects().await?;
    let end = is.alices.sees_end(&call).await?;
    ensure!(end["by"] == "remote", "{end}");

    // Nothing hangs: what is said next arrives.
    is.alices_chat.says("never mind, I will write").await?;
    is.sams_chat.sees("never mind, I will write").await?;
    is.shows_nobody_and_no_place()
}

#[tokio::test]
async fn without_a_relay_both_are_told_why_they_cannot_call_each_other() -> Result<()> {
    let mut is = callers(false).await?;
    let call = is.alices.calls(&is.alices_chat, false).await?;
    is.sams.rings(&is.sams_chat, &call).await?;
    is.sams.answers().await?;
    let why = "your client has found no relay (TURN server)";
    for (chat, ghost) in [
        (&is.alices_chat, &is.story.ghost),
        (&is.sams_chat, &is.alices_ghost),
    ] {
        let told = chat.sees_part(why).await?;
        ensure!(told.sender == *ghost, "said by {}", told.sender);
        ensure!(told.was_encrypted());
    }
    is.alices.hangs_up().await?;
    let end = is.sams.sees_end(&call).await?;
    ensure!(end["by"] == "remote", "{end}");
    is.sams_chat.says("then let us write").await?;
    is.alices_chat.sees("then let us write").await?;
    for (chat, ghost, _) in is.sides() {
        ensure!(times(chat, ghost, "will probably not connect") == 1);
        let events = carried(chat, ghost);
        let shown = |seen: &Seen| seen.content.to_string().contains("candidate:");
        ensure!(!events.iter().any(shown), "{events:#?}");
    }
    is.shows_nobody_and_no_place()
}

#[tokio::test]
async fn the_caller_learns_that_it_is_the_other_side_that_has_no_relay() -> Result<()> {
    let mut is = callers(true).await?;
    is.sams.loses_relays().await?;
    let call = is.alices.calls(&is.alices_chat, false).await?;
    is.sams.rings(&is.sams_chat, &call).await?;
    is.sams.answers().await?;
    let (sams_ghost, alices_ghost) = (is.story.ghost.clone(), is.alices_ghost.clone());
    is.sams_chat
        .sees_part("your client has found no relay")
        .await?;
    let other = is.alices_chat.sees_part("the other side has no relay");
    ensure!(other.await?.sender == sams_ghost);
    is.alices.hangs_up().await?;
    is.sams.sees_end(&call).await?;
    for (chat, ghost) in [
        (&is.alices_chat, &sams_ghost),
        (&is.sams_chat, &alices_ghost),
    ] {
        ensure!(times(chat, ghost, "will probably not connect") == 1);
    }
    is.shows_nobody_and_no_place()
}

#[tokio::test]
async fn direct_calls_need_no_relay() -> Result<()> {
    let mut is = callers(false).await?;
    let bot = is.story.world.bot()?;
    let asked = is.story.control_room.asks(&bot, "calls sam direct").await?;
    ensure!(
        asked.text().is_some_and(|text| text.contains("@sam")),
        "{asked:?}"
    );
    let call = is.alices.calls(&is.alices_chat, false).await?;
    is.sams.rings(&is.sams_chat, &call).await?;
    is.sams.answers().await?;
    for side in [&is.alices, &is.sams] {
        let flow = side.hears(&call).await?;
        ensure!(flow["local"]["candidateType"] == "host", "{flow}");
        grows(&flow, "audio")?;
    }
    is.sams.hangs_up().await?;
    let end = is.alices.sees_end(&call).await?;
    ensure!(end["by"] == "remote", "{end}");
    for (chat, ghost, other) in is.sides() {
        does_not_name(chat, &other.user_id)?;
        ensure!(times(chat, ghost, "will probably not connect") == 0);
        let events = carried(chat, ghost);
        let host = |seen: &Seen| seen.content.to_string().contains("typ host");
        ensure!(events.iter().any(host), "{events:#?}");
    }
    Ok(())
}

/// No browser is needed for it: it is the events that count, as Element Call sends them.
#[tokio::test]
async fn what_works_instead_of_a_call_of_one_room_is_said_once_in_each_room() -> Result<()> {
    let story = masked(quick()).await?;
    let chat = story.alice_writes(LINE).await?;
    let (alices_ghost, sams_chat) = comes_to_portal(&story.sam).await?;
    sams_chat.sees(LINE).await?;

    let me = &story.alice.user_id;
    let device = story.alice.device()?;
    let key = format!("_{me}_{device}_m.call");
    let member = json!({
        "application": "m.call",
        "call_id": "",
        "device_id": device,
        "expires": 14_400_000,
        "foci_preferred": [],
        "focus_active": { "type": "livekit", "focus_selection": "oldest_membership" },
        "scope": "m.room",
    });
    chat.sets_state("org.matrix.msc3401.call.member", &key, member.clone())
        .await?;
    let notification = json!({
        "notification_type": "ring",
        "lifetime": 30_000,
        "sender_ts": 1_795_000_000_000_u64,
        "m.mentions": { "user_ids": [], "room": true },
    });
    chat.sends("org.matrix.msc4075.rtc.notification", notification.clone())
        .await?;
    let notify = json!({
        "application": "m.call",
        "call_id": "",
        "notify_type": "ring",
        "m.mentions": { "user_ids": [], "room": true },
    });
    chat.sends("org.matrix.msc4075.call.notify", notify).await?;
    let told = chat.sees_part("Legacy call").await?;
    ensure!(told.sender == story.ghost, "said by {}", told.sender);
    // And again, as clients do while a call goes on.
    chat.sets_state("org.matrix.msc3401.call.member", &key, member)
        .await?;
    chat.sends("org.matrix.msc4075.rtc.notification", notification.clone())
        .await?;
    chat.says("did it ring?").await?;
    sams_chat.sees("did it ring?").await?;
    sams_chat
        .sends("org.matrix.msc4075.rtc.notification", notification)
        .await?;
    sams_chat.sees_part("Legacy call").await?;
    sams_chat.says("it did not").await?;
    chat.sees("it did not").await?;

    ensure!(times(&chat, &story.ghost, "Legacy call") == 1);
    ensure!(times(&sams_chat, &alices_ghost, "Legacy call") == 1);
    for (chat, ghost) in [(&chat, &*story.ghost), (&sams_chat, &*alices_ghost)] {
        let crossed = chat.events().into_iter();
        let mut crossed = crossed.filter(|seen| seen.sender == *ghost);
        let rtc = crossed.find(|seen| seen.event_type.contains(".msc"));
        ensure!(rtc.is_none(), "{rtc:?}");
    }
    Ok(())
}
