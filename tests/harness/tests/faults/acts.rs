//! Replies, reactions, edits and deletions across a mask, while things fail: each arrives once, in
//! order, and is about the same message on both sides.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use harness::{Log, PATIENCE, Seen};
use ruma::{OwnedEventId, UserId};
use serde_json::json;

use crate::{
    masked::{Conversation, Side},
    plan::{Plan, number},
};

/// What somebody did in a room, in words that are the same in every room: messages are named by
/// what they say, and not by their ids.
fn acts(log: &Log, side: &Side, who: &UserId) -> Vec<String> {
    let events = log.events_in(&side.room);
    let names: HashMap<&str, &str> = events
        .iter()
        .filter_map(|seen| Some((seen.event_id.as_str(), seen.text()?)))
        .collect();
    let name = |id: &str| {
        names
            .get(id)
            .copied()
            .unwrap_or("something else")
            .to_owned()
    };
    let by_them = events.iter().filter(|seen| seen.sender == who);
    by_them.filter_map(|seen| act(seen, &name)).collect()
}

fn act(seen: &Seen, name: &impl Fn(&str) -> String) -> Option<String> {
    let text = seen.text().map(own_words);
    let act = match (seen.event_type.as_str(), seen.relates_to()) {
        ("m.room.message", Some(("m.in_reply_to", to))) => {
            format!("{} in reply to {}", text?, own_words(&name(to)))
        }
        ("m.room.message", Some(("m.replace", what))) => {
            // The new words are what the log has of an edit; the old ones tell which it was.
            format!("{} instead of {}", text?, own_words(&name(what)))
        }
        ("m.room.message", _) => text?,
        ("m.reaction", Some((_, to))) => {
            let key = seen.content["m.relates_to"]["key"].as_str()?;
            format!("{key} at {}", own_words(&name(to)))
        }
        ("m.room.redaction", _) => {
            let what = seen.content["redacts"].as_str()?;
            format!("without {}", own_words(&name(what)))
        }
        _ => return None,
    };
    // What the service says itself is not what anybody did.
    act.contains(" says ").then_some(act)
}

/// Leaves out the edits of messages that are deleted in the end: one that was still waiting then is
/// not sent.
fn without_edits_of_deleted(acts: Vec<String>) -> Vec<String> {
    let deleted = acts.iter().filter_map(|act| act.strip_prefix("without "));
    let deleted: HashSet<String> = deleted.map(str::to_owned).collect();
    let of_deleted = |act: &String| {
        let edited = act.split_once(" instead of ");
        edited.is_some_and(|(_, of)| deleted.contains(of))
    };
    acts.into_iter().filter(|act| !of_deleted(act)).collect()
}

/// A reply may quote what it is about in lines of their own.
fn own_words(text: &str) -> String {
    text.lines().last().unwrap_or_default().to_owned()
}

impl Side {
    /// Does all kinds of things, by the plan.
    async fn acts_on(&self, other: &Side, mut plan: Plan, count: u64) -> Result<()> {
        let (me, room) = (&self.person, &self.room);
        let name = me.user_id.localpart();
        let mut said: Vec<(OwnedEventId, String)> = Vec::new();
        for n in 0..count {
            tokio::time::sleep(plan.pause(40)).await;
            let text = format!("{name} says {n}");
            let heard = self.last_heard();
            match (plan.number(6), heard) {
                (0, Some(to)) => {
                    let relation = json!({"m.in_reply_to": {"event_id": to}});
                    let content =
                        json!({"msgtype": "m.text", "body": text, "m.relates_to": relation});
                    me.sends(room, "m.room.message", &content).await?;
                }
                (1, Some(to)) => me.reacts(room, &to, &format!("+{n}")).await?,
                (2, _) if !said.is_empty() => {
                    let (what, _) = &said[plan.number(said.len() as u64) as usize];
                    let content = json!({
                        "msgtype": "m.text", "body": format!("* {text}"),
                        "m.new_content": {"msgtype": "m.text", "body": text},
                        "m.relates_to": {"rel_type": "m.replace", "event_id": what},
                    });
                    me.sends(room, "m.room.message", &content).await?;
                }
                (3, _) if !said.is_empty() => {
                    let (what, text) = said.remove(plan.number(said.len() as u64) as usize);
                    // What is deleted before it was carried never arrives.
                    other.hears(&text).await?;
                    me.redacts(room, &what).await?;
                }
                _ => said.push((me.says(room, &text).await?, text)),
            }
        }
        me.says(room, &format!("{name} says goodbye"))
            .await
            .map(drop)
    }

    fn last_heard(&self) -> Option<OwnedEventId> {
        let events = self.person.log().events_in(&self.room);
        let by_them = |seen: &&Seen| seen.sender == self.ghost;
        let mut texts = events.iter().rev().filter(by_them);
        let plain = |seen: &&Seen| {
            seen.relates_to().is_none() && seen.text().is_some_and(|text| text.contains(" says "))
        };
        texts.find(plain).map(|seen| seen.event_id.clone())
    }

    async fn hears(&self, text: &str) -> Result<()> {
        let heard = |seen: &Seen| seen.sender == self.ghost && seen.text() == Some(text);
        // The service may be down for most of it.
        let log = self.person.log();
        let wait = log.until(PATIENCE * 2, text, |log| log.find(heard));
        wait.await.map(drop)
    }

    /// What the other did is what was seen here.
    fn saw_the_same(&self, other: &Side) -> Result<usize> {
        let theirs = acts(other.person.log(), other, &other.person.user_id);
        let theirs = without_edits_of_deleted(theirs);
        let seen = without_edits_of_deleted(acts(self.person.log(), self, &self.ghost));
        for (n, (did, saw)) in theirs.iter().zip(&seen).enumerate() {
            if did != saw {
                // The other may have been told that this act could not be carried.
                let told = other.person.log().texts_in(&other.room).into_iter();
                let told: Vec<String> = told
                    .filter(|(by, text)| *by == other.ghost && !text.contains(" says "))
                    .map(|(_, text)| text)
                    .collect();
                bail!(
                    "{} saw {saw:?} instead of {did:?} as the {n}th; the other was told {told:#?}",
                    self.person.user_id
                );
            }
        }
        ensure!(
            theirs.len() == seen.len(),
            "{} of {}",
            seen.len(),
            theirs.len()
        );
        self.sees_nothing_of(other)?;
        let shields = self.person.log().shields();
        ensure!(shields.is_empty(), "{:#?}", shields.first());
        Ok(seen.len())
    }
}

#[tokio::test]
async fn replies_reactions_edits_and_deletions_find_their_messages() -> Result<()> {
    let mut plan = Plan::new();
    let count = number("STONECHAT_MESSAGES", 120);
    let kills = number("STONECHAT_KILLS", 4);
    let mut both = Conversation::begin(false).await?;
    both.world.fake.begin_faults(plan.faults());
    let sides = [(&both.alice, &both.sam), (&both.sam, &both.alice)];
    let acting = sides.map(|(side, other)| {
        let (side, other, plan) = (side.clone(), other.clone(), plan.another());
        tokio::spawn(async move { side.acts_on(&other, plan, count).await })
    });
    both.kills(&mut plan, kills, count).await?;
    for acting in acting {
        acting.await??;
    }
    println!("faults: {:?}", both.world.fake.end_faults());
    let (alice, sam) = (&both.alice, &both.sam);
    sam.hears("alice says goodbye").await?;
    alice.hears("sam says goodbye").await?;
    // Whatever would still come a second time.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (side, other) in [(alice, sam), (sam, alice)] {
        let seen = side.saw_the_same(other);
        let seen = seen.with_context(|| side.person.log().transcript())?;
        ensure!(seen as u64 > count / 2, "{seen}");
    }
    Ok(())
}
