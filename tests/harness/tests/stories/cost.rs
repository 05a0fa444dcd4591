//! What a message and an introduction cost the homeserver while nothing goes wrong.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use harness::{Chat, World, WorldOptions};
use ruma::UserId;

use crate::{
    masked::{comes_to_portal, masked},
    names::ask,
    told::{LINE, comes, goodbye, quick},
};

/// What a message needs: it is sent on, and a receipt shows that it has arrived.
const OF_MESSAGES: [(&str, usize); 3] = [
    ("PUT client/rooms/send/m.room.encrypted", 2 * MESSAGES),
    ("POST client/rooms/receipt/m.read", 2 * MESSAGES),
    PROBE,
];
/// What an introduction needs at most, and one more message. The ghost reads the room's state again
/// after each change.
const OF_AN_INTRODUCTION: [(&str, usize); 14] = [
    ("POST client/rooms/join", 1),
    ("GET client/rooms/state", 9),
    ("GET client/rooms/messages", 4),
    ("POST client/keys/query", 3),
    ("POST client/keys/claim", 2),
    ("PUT client/m.room.encrypted", 2),
    ("PUT client/rooms/send/m.room.encrypted", 2),
    ("POST client/rooms/receipt/m.read", 1),
    ("PUT client/rooms/state/m.room.member", 2),
    ("PUT client/rooms/state/m.room.power_levels", 2),
    ("POST client/rooms/leave", 1),
    ("GET client/sync", 3),
    ("POST client/keys/upload", 1),
    PROBE,
];
/// Whether the homeserver reaches the service, which is looked at now and then.
const PROBE: (&str, usize) = ("POST client/appservice/stonechat/ping", 9);

/// How many messages are counted in each direction, after as many that are not.
const MESSAGES: usize = 10;

/// The requests that the homeserver has answered to the service so far, each as its method and what
/// it does, without names of rooms and users.
fn requests(world: &World) -> Result<Vec<String>> {
    let synapse = world.synapse.process().context("not running")?;
    let lines = synapse.lines().into_iter();
    // "… - {@_dm_.svc:…|@_dm_sam:…} Processed request: … "PUT /_matrix/… HTTP/1.1" …"
    let asked = lines.filter_map(|line| {
        let (who, rest) = line.split_once("} Processed request:")?;
        let (_, who) = who.rsplit_once('{')?;
        let (method, path) = rest.split_once('"')?.1.split_once(' ')?;
        who.starts_with("@_dm_")
            .then(|| format!("{method} {}", act(path)))
    });
    Ok(asked.collect())
}

/// What a request does: the parts of its path that are words.
fn act(path: &str) -> String {
    let path = path.split(['?', ' ']).next().unwrap_or(path);
    let words = path.split('/').filter(|part| {
        let letters = |c: char| c.is_ascii_lowercase() || matches!(c, '_' | '.');
        !part.is_empty() && !part.starts_with("_matrix") && part.chars().all(letters)
    });
    words.collect::<Vec<_>>().join("/")
}

/// An error if something was asked that is not needed, or more often than that.
fn are_needed(requests: &[String], needed: &[(&str, usize)]) -> Result<()> {
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    for request in requests {
        *counted.entry(request).or_default() += 1;
    }
    println!("{counted:#?}");
    for (request, count) in &counted {
        let most = needed.iter().find(|(known, _)| known == request);
        let most = most.map_or(0, |(_, most)| *most);
        ensure!(*count <= most, "{count} times {request}: {counted:#?}");
    }
    Ok(())
}

/// How many connections are open to a port.
fn connections(port: u16) -> Result<usize> {
    let table = fs::read_to_string("/proc/net/tcp")?;
    let local = format!(":{port:04X}");
    let open = table.lines().filter(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (at, _, state) = (fields.next(), fields.next(), fields.next());
        at.is_some_and(|at| at.ends_with(&local)) && state == Some("01")
    });
    Ok(open.count())
}

/// Says things one after the other, and waits until each has arrived, and at the end until the
/// sender sees that.
async fn cross(from: &Chat, to: &Chat, ghost: &UserId, texts: &[String]) -> Result<()> {
    let mut last = None;
    for text in texts {
        last = Some(from.says(text).await?);
        to.sees(text).await?;
    }
    let last = last.context("nothing to say")?;
    let is_read = |sign: &harness::Sign| sign.read(&last, ghost).is_some();
    from.shows("that it has arrived", is_read).await
}

fn lines(what: &str) -> Vec<String> {
    (1..=MESSAGES).map(|n| format!("{what} {n}")).collect()
}

/// The homeserver has several connections to the service, which it uses by turns.
#[tokio::test]
async fn in_quiet_use_nothing_is_asked_but_what_carries_a_message() -> Result<()> {
    let story = masked(WorldOptions {
        network: false,
        ..quick()
    })
    .await?;
    let (world, ghost) = (&story.world, &story.ghost);
    let (kim, _kims) = world.owner("kim").await?;
    let bob = world.person("bob").await?;
    let chat = story.alice_writes(LINE).await?;
    let (alices_ghost, sams) = comes_to_portal(&story.sam).await?;
    sams.sees(LINE).await?;
    // Keys are exchanged with the first messages, and Sam's joining is looked at.
    cross(&chat, &sams, ghost, &lines("warm")).await?;
    cross(&sams, &chat, &alices_ghost, &lines("warm back")).await?;

    let port = world.service.url().port().context("no port")?;
    let before = connections(port)?;
    let lookup = || ask(world, &story.alice, "user/stonechat", &[("handle", "sam")]);
    try_join_all((0..8).map(|_| lookup())).await?;
    let after = connections(port)?;
    ensure!(after > before, "still {before} connections");

    let before = requests(world)?.len();
    cross(&chat, &sams, ghost, &lines("there")).await?;
    cross(&sams, &chat, &alices_ghost, &lines("and back")).await?;
    are_needed(&requests(world)?[before..], &OF_MESSAGES)?;

    let before = requests(world)?.len();
    let kims_ghost = world.ghost("kim")?;
    let asked = bob.starts_chat(&[&kims_ghost]).await?;
    asked.says(LINE).await?;
    comes(&kim, &asked, &kims_ghost, "Bob (via @kim)").await?;
    goodbye(&asked, &kims_ghost).await?;
    // By then the ghost has asked what it asks after it has left.
    cross(&chat, &sams, ghost, &["one more".to_owned()]).await?;
    are_needed(&requests(world)?[before..], &OF_AN_INTRODUCTION)
}
