//! What somebody waits for in a round of [`seeds`](crate::seeds), and what they must see.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::{Log, PATIENCE, Seen, fake::Person};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, UserId};
use serde_json::{json, value::RawValue};

use crate::{introductions::said_by, masked::Side};

/// How long something said may take to arrive, with kills and outages on the way.
pub const IN_TIME: Duration = PATIENCE.saturating_mul(3);

/// What a ghost says to somebody whom it could not read.
pub const UNREAD: &str = "I couldn't decrypt your message";

/// Waits for an invite into a room and joins it.
pub async fn joins(owner: &Person, room: &RoomId) -> Result<()> {
    let invited = |log: &Log| log.invites().into_iter().find(|it| it.room == room);
    owner.log().until(IN_TIME, "an invite", invited).await?;
    owner.joins(room).await
}

/// Encrypts a line before anybody but the ghosts is invited.
pub async fn encrypts_early(asker: &Person, room: &RoomId, line: &str) -> Result<Box<RawValue>> {
    let content = json!({"msgtype": "m.text", "body": line});
    asker.encrypts(room, "m.room.message", &content).await
}

/// Waits for an invite into a room, lets something be sent that was encrypted before it, and joins.
pub async fn joins_after(
    owner: &Person,
    room: &RoomId,
    early: Option<impl Future<Output = Result<OwnedEventId>>>,
) -> Result<()> {
    let invited = |log: &Log| log.invites().into_iter().find(|it| it.room == room);
    owner.log().until(IN_TIME, "an invite", invited).await?;
    if let Some(early) = early {
        early.await?;
    }
    owner.joins(room).await
}

/// Waits for words in a room, by whomever.
pub async fn hears(log: &Log, room: &RoomId, words: &str) -> Result<()> {
    let says = |seen: &Seen| {
        let text = seen.text().is_some_and(|text| text.contains(words));
        seen.room == room && text
    };
    log.until(IN_TIME, words, |log| log.find(says))
        .await
        .map(drop)
}

pub async fn left(asker: &Person, room: &RoomId, ghost: &UserId) -> Result<()> {
    let gone =
        |seen: &Seen| seen.room == room && seen.membership() == Some((ghost.as_str(), "leave"));
    let log = asker.log();
    let leaving = log.until(IN_TIME, "the ghost leave", |log| log.find(gone));
    leaving.await.map(drop)
}

/// How often somebody has replied to an event.
pub fn replies(log: &Log, room: &RoomId, by: &UserId, to: &EventId) -> usize {
    let reply = Some(("m.in_reply_to", to.as_str()));
    let events = log.events_in(room).into_iter();
    let replies = events.filter(|seen| seen.sender == by && seen.relates_to() == reply);
    replies.count()
}

/// Waits until a ghost has told somebody once more that it could not read them.
pub async fn is_told(log: &Log, room: &OwnedRoomId, ghost: &UserId, before: usize) -> Result<()> {
    let told = log.until(IN_TIME, "being told", |log| {
        (times_told(log, room, ghost) > before).then_some(())
    });
    told.await
}

/// How often a ghost has told somebody that it could not read them.
pub fn times_told(log: &Log, room: &OwnedRoomId, ghost: &UserId) -> usize {
    said_by(log, room, ghost, UNREAD)
}

/// Waits until something that was said is deleted.
pub async fn is_taken_back(reader: &Side, said: &str) -> Result<()> {
    let log = reader.person.log();
    let copy = log.find(|seen| seen.room == reader.room && seen.text() == Some(said));
    let copy = copy.context("it was there")?.event_id;
    let deletes = |seen: &Seen| {
        seen.event_type == "m.room.redaction" && seen.content["redacts"] == copy.as_str()
    };
    let what = format!("the deletion of {said:?}");
    log.until(IN_TIME, &what, |log| log.find(deletes))
        .await
        .map(drop)
}

/// Nothing in the room is unreadable or shows a shield, except what its sender's client encrypted
/// before the reader was invited, and sent after that: no service can make it readable.
pub fn readable_but_for_races(reader: &Person, room: &RoomId, sender: &Person) -> Result<()> {
    let shields = reader.log().shields();
    let mut here = shields.iter().filter(|seen| seen.room == room);
    match here.find(|seen| !sender.left_out(&reader.user_id, seen)) {
        Some(seen) => bail!("{seen:#?}"),
        None => Ok(()),
    }
}

/// Nothing in the room is unreadable or shows a shield.
pub fn readable(log: &Log, room: &RoomId) -> Result<()> {
    let shields = log.shields();
    match shields.iter().find(|seen| seen.room == room) {
        Some(seen) => bail!("{seen:#?}"),
        None => Ok(()),
    }
}
