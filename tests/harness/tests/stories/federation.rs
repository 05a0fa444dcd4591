//! People of another homeserver, which talks to ours over TLS.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use harness::{
    Chat, Log, PATIENCE, Person, Synapse, SynapseOptions, World, WorldOptions, checks,
    synapse::federation::Authority, venv::Venv,
};
use ruma::OwnedUserId;
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};

use crate::{control_room::answered, masked::masks, told::quick};

const OPENING_LINE: &str = "hello from far away and across the water";
const ANSWER: &str = "good to hear from you over there";

/// Our homeserver with Stonechat, and another one without.
pub async fn two_servers(here: WorldOptions) -> Result<(World, Synapse)> {
    two_servers_with(here, SynapseOptions::default()).await
}

/// The same with another homeserver that is set up like this.
pub async fn two_servers_with(
    mut here: WorldOptions,
    mut there: SynapseOptions,
) -> Result<(World, Synapse)> {
    let venv = Venv::ready(|_| {})?;
    let authority = Authority::new(&venv)?;
    here.synapse.federation = Some(authority.member()?);
    there.federation = Some(authority.member()?);
    tokio::try_join!(World::start_with(here), Synapse::start_new(there))
}

#[tokio::test]
async fn an_owner_on_another_homeserver_is_reached_by_handle() -> Result<()> {
    let (mut world, there) = two_servers(WorldOptions::default()).await?;
    let (alice, sam) = tokio::try_join!(world.person("alice"), Person::register(&there, "sam"))?;
    let control_room = world.control_room(&sam).await?;
    let bot = world.bot()?;
    answered(&control_room, &bot, "claim sam", "You can't have a handle").await?;
    // The admin of our server lets people of that one have handles, and the service goes on.
    let permissions = |of_there: &str| json!({ there.server_name(): of_there });
    world.service.set("permissions", permissions("claim"))?;
    let said = world.service.succeeds(&["reload"]).await?;
    ensure!(said.contains("The new permissions hold now."), "{said}");
    world.claims(&sam, &control_room, "sam").await?;
    let list = ["handle", "list", "--server", there.server_name(), "--json"];
    let listed: serde_json::Value = serde_json::from_str(&world.service.succeeds(&list).await?)?;
    ensure!(listed[0]["owner"] == sam.user_id.as_str(), "{listed}");
    let shown = world.service.succeeds(&["handle", "show", "@sam"]).await?;
    ensure!(shown.contains(sam.user_id.as_str()), "{shown}");
    // With the right to claim goes no handle that somebody has.
    world.service.set("permissions", permissions("reach"))?;
    let service = world.service.process().context("it does not run")?;
    service.signal("HUP")?;
    let reloads = std::cell::Cell::new(0);
    service
        .line_where("that it was reloaded twice", PATIENCE, |line| {
            reloads.update(|n| n + i32::from(line.contains("the configuration was read again")));
            (reloads.get() == 2).then_some(())
        })
        .await?;
    answered(
        &control_room,
        &bot,
        "claim heron",
        "You can't have a handle",
    )
    .await?;
    let ghost = world.ghost("sam")?;

    let chat = alice.starts_chat(&[&ghost]).await?;
    chat.says(OPENING_LINE).await?;
    let invite = sam.invited_by(&ghost).await?;
    assert!(invite.is_direct);
    let sams = sam.accepts(&invite).await?;
    sams.sees_part(OPENING_LINE).await?;
    chat.sees_leave(&ghost).await?;
    sams.says(ANSWER).await?;
    chat.sees(ANSWER).await?;

    world
        .only_these_are_in(&chat, &alice, &[&alice.user_id, &sam.user_id])
        .await?;
    checks::nothing_to_warn_of(&[&alice, &sam]).await?;
    world.nothing_leaked(&[OPENING_LINE, ANSWER])?;
    checks::holds_none_of(there.folder(), &[OPENING_LINE, ANSWER])
}

#[tokio::test]
async fn somebody_of_another_homeserver_reaches_an_owner_of_ours() -> Result<()> {
    let (world, there) = two_servers(WorldOptions::default()).await?;
    let ((sam, _control_room), bob) =
        tokio::try_join!(world.owner("sam"), Person::register(&there, "bob"))?;
    let ghost = world.ghost("sam")?;

    let chat = bob.starts_chat(&[&ghost]).await?;
    chat.says(OPENING_LINE).await?;
    let sams = sam.accepts(&sam.invited_by(&ghost).await?).await?;
    sams.sees_part(OPENING_LINE).await?;
    chat.sees_leave(&ghost).await?;
    sams.says(ANSWER).await?;
    chat.sees(ANSWER).await?;

    world
        .only_these_are_in(&chat, &bob, &[&bob.user_id, &sam.user_id])
        .await?;
    checks::nothing_to_warn_of(&[&bob, &sam]).await?;
    world.nothing_leaked(&[OPENING_LINE, ANSWER])?;
    checks::holds_none_of(there.folder(), &[OPENING_LINE, ANSWER])
}

/// Passes bytes on between two ports, as long as `true` is sent, the value that it begins with.
async fn link(from: u16, to: u16) -> Result<watch::Sender<bool>> {
    let listener = TcpListener::bind(("127.0.0.1", from)).await?;
    let (is_open, _) = watch::channel(true);
    let link = is_open.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut is_open = is_open.subscribe();
            if !*is_open.borrow() {
                continue;
            }
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else {
                    return;
                };
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    _ = is_open.wait_for(|is_open| !is_open) => {}
                }
            });
        }
    });
    Ok(link)
}

/// How many messages each of three people writes while the servers are apart. Ours asks for up to
/// ten by itself; the others it fetches only when somebody reads the room's history.
const WRITTEN_APART: [(&str, usize); 3] = [("bob", 5), ("carol", 25), ("dave", 300)];
/// How many commands a person of the other server writes to the bot meanwhile. The bot answers up to
/// twenty in a minute.
const COMMANDS: usize = 15;
/// How old a message of another homeserver is at most if it came without a detour, and a little
/// more: a cut of servers that are restarted lasts longer.
const LATE: Duration = Duration::from_secs(11);
/// Within what time everything has to arrive once the servers reach each other again. It takes some
/// twenty seconds where nothing else runs.
const AFTER_THE_CUT: Duration = Duration::from_secs(60);

/// Somebody of the other homeserver, who talks to the masked Sam.
struct Writer {
    chat: Chat,
    lines: Vec<String>,
    /// Who they are to Sam, and in which room.
    ghost: OwnedUserId,
    sams: Chat,
    _person: Person,
}

impl Writer {
    /// They meet.
    async fn meets(world: &World, sam: &Person, person: Person, count: usize) -> Result<Self> {
        let known: Vec<_> = sam.log().invites().into_iter().map(|it| it.room).collect();
        let chat = person.starts_chat(&[&world.ghost("sam")?]).await?;
        chat.says(OPENING_LINE).await?;
        let invite = sam.invited(|invite| !known.contains(&invite.room)).await?;
        let sams = sam.accepts(&invite).await?;
        sams.sees(OPENING_LINE).await?;
        let name = person.user_id.localpart();
        Ok(Self {
            chat,
            lines: (1..=count).map(|n| format!("{name}, line {n}")).collect(),
            ghost: invite.sender,
            sams,
            _person: person,
        })
    }

    async fn writes(&self) -> Result<()> {
        for line in &self.lines {
            self.chat.says(line).await?;
        }
        Ok(())
    }

    /// Waits until Sam has read the last line, and looks whether he has read all, once and in order.
    async fn is_read(&self, sam: &Person, patience: Duration) -> Result<()> {
        let room = self.sams.id();
        let told = |log: &Log| {
            let texts = log.texts_in(room).into_iter();
            let lines = texts.filter(|(by, text)| *by == self.ghost && text.contains(", line "));
            lines.map(|(_, text)| text).collect::<Vec<_>>()
        };
        let last = self.lines.last().context("nothing to write")?;
        sam.until_within(patience, last, |log| told(log).contains(last).then_some(()))
            .await?;
        let told = told(sam.log());
        ensure!(told == self.lines, "Sam was told {told:?}");
        Ok(())
    }
}

/// Our homeserver, which the other one reaches through a link, and the other one.
struct Linked {
    world: World,
    there: Synapse,
    link: watch::Sender<bool>,
    // Its folder has the certificates, which a server that starts again reads again.
    _authority: Authority,
}

async fn two_servers_with_a_link() -> Result<Linked> {
    let venv = Venv::ready(|_| {})?;
    let authority = Authority::new(&venv)?;
    let mut ours = authority.member()?;
    // Others find it by its name, which is the port of the link.
    let behind = authority.member()?.port;
    let link = link(std::mem::replace(&mut ours.port, behind), behind).await?;
    let here = WorldOptions {
        synapse: SynapseOptions {
            federation: Some(ours),
            ..SynapseOptions::default()
        },
        ..quick()
    };
    // A server that could not reach another tries again after ten minutes, if nothing is set.
    let mut there = SynapseOptions {
        federation: Some(authority.member()?),
        ..SynapseOptions::default()
    };
    let soon =
        json!({"destination_min_retry_interval": "1s", "destination_max_retry_interval": "2s"});
    there.further.insert("federation".into(), soon);
    let (world, there) = tokio::try_join!(World::start_with(here), Synapse::start_new(there))?;
    Ok(Linked {
        world,
        there,
        link,
        _authority: authority,
    })
}

#[tokio::test]
async fn what_was_said_while_the_servers_were_apart_arrives_in_order() -> Result<()> {
    let mut servers = two_servers_with_a_link().await?;
    let world = &servers.world;
    let (sam, control_room) = world.owner("sam").await?;
    masks(world, &control_room, "sam").await?;
    let mut writers = Vec::new();
    for (name, count) in WRITTEN_APART {
        let person = Person::register(&servers.there, name).await?;
        writers.push(Writer::meets(world, &sam, person, count).await?);
    }

    let erin = Person::register(&servers.there, "erin").await?;
    let commands = world.control_room(&erin).await?;
    commands.asks(&world.bot()?, "whoami").await?;

    servers.link.send_replace(false);
    let written = writers.iter().map(Writer::writes);
    let asked = async {
        for _ in 0..COMMANDS {
            commands.says("whoami").await?;
        }
        Ok(())
    };
    tokio::try_join!(try_join_all(written), asked)?;
    let written = Instant::now();
    // Their server forgets what it has not sent: it catches up by sending its newest messages.
    servers.there.stop().await?;
    tokio::time::sleep_until(written + LATE).await;
    servers.link.send_replace(true);
    servers.there.start().await?;
    let connected = Instant::now();
    let until = connected + AFTER_THE_CUT;
    // It does so when it has something new to send.
    let again = "bob, line 6".to_owned();
    writers[0].chat.says(&again).await?;
    writers[0].lines.push(again);
    for writer in &writers {
        let left = until.saturating_duration_since(Instant::now());
        writer.is_read(&sam, left).await?;
    }
    let answers = |log: &Log| {
        let texts = log.texts_in(commands.id()).into_iter();
        texts
            .filter(|(_, text)| text.starts_with("You're "))
            .count()
    };
    let left = until.saturating_duration_since(Instant::now());
    let all = |log: &Log| (answers(log) > COMMANDS).then_some(());
    erin.until_within(left, "an answer to each command", all)
        .await?;
    ensure!(answers(erin.log()) == COMMANDS + 1);
    println!("all has arrived after {:?}", connected.elapsed());
    Ok(())
}
