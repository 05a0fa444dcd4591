//! `cargo run --example demo`: two people meet by handle, on a real Synapse, with real clients.
//!
//! Sets up everything it needs in cargo's target folder and in temporary folders, tells what
//! happens as it happens, and checks at the end that nobody but the two can have read it.
//! `-- --keep` leaves it running and says how to sign in from Element.

#![recursion_limit = "512"]

#[path = "scenes/masked.rs"]
mod masked;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use harness::{
    Chat, Person, World, WorldOptions, checks,
    ruma::OwnedUserId,
    service,
    synapse::PASSWORD,
    venv::{Progress, Venv, synapse_version},
};
use indicatif::{ProgressBar, ProgressStyle};

/// Two people meet by handle, in an encrypted chat, on a real homeserver.
#[derive(Parser)]
struct Options {
    /// Leave homeserver and service running until Ctrl-C, and say how to sign in.
    #[arg(long)]
    keep: bool,
    /// Do without Stonechat's module in Synapse: a ghost hears the opening line, passes it on and
    /// leaves.
    #[arg(long)]
    without_module: bool,
    /// Both wear masks: each is in a room of their own, and neither sees the other's Matrix ID.
    #[arg(long)]
    masked: bool,
}

fn main() -> ExitCode {
    if let Some(code) = service::act_as_service_if_asked() {
        return code;
    }
    let options = Options::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(Box::pin(play(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:?}");
            ExitCode::FAILURE
        }
    }
}

const OPENING_LINE: &str = "Hi Sam, it is Alice from the harbour. Coffee on Thursday?";
const REPLY: &str = "Alice! Gladly. At the old lighthouse?";
const SECOND: &str = "Perfect, at hafl past three.";
const SECOND_EDITED: &str = "Perfect, at half past three.";

async fn play(options: &Options) -> Result<()> {
    let stage = Stage {
        started: Instant::now(),
    };

    stage.scene("Setting up");
    let venv = synapse_with_progress()?;
    let with_module = !options.without_module;
    let setup = WorldOptions {
        module: with_module,
        ..WorldOptions::default()
    };
    let mut world = World::prepare(&venv, setup).await?;
    stage.says(
        "Stonechat",
        match with_module {
            true => "`stonechat init --with-module` wrote configuration, registration and token",
            false => "`stonechat init` wrote config/stonechat.yaml and registration.yaml",
        },
    );
    let begun = Instant::now();
    world.synapse.start().await?;
    stage.says(
        "Synapse",
        &format!(
            "{} {}serves {} ({})",
            synapse_version(),
            if with_module { "with the module " } else { "" },
            world.synapse.url(),
            seconds(begun.elapsed())
        ),
    );
    let begun = Instant::now();
    world.service.start().await?;
    stage.says(
        "Stonechat",
        &format!(
            "`stonechat run` has checked the homeserver and is ready ({})",
            seconds(begun.elapsed())
        ),
    );

    stage.scene("Sam claims a handle");
    let (alice, sam) = tokio::try_join!(world.person("alice"), world.person("sam"))?;
    stage.says("Alice, Sam", "sign in, each on a device of their own");
    let bot = world.bot()?;
    let control_room = world.control_room(&sam).await?;
    stage.says("Sam", &format!("starts a chat with {bot}"));
    if let Some((_, greeting)) = control_room.texts().first() {
        stage.says("Bot", greeting);
    }
    stage.says("Sam", "claim sam");
    world.claims(&sam, &control_room, "sam").await?;
    if let Some((_, answer)) = control_room.texts().last() {
        stage.says("Bot", answer);
    }

    if options.masked {
        return masked::play(
            &stage,
            &mut world,
            (&alice, &sam),
            &control_room,
            options.keep,
        )
        .await;
    }

    stage.scene("Alice reaches @sam");
    let ghost = world.ghost("sam")?;
    stage.says(
        "Alice",
        &format!("knows the handle only: \"Start chat\" with {ghost}"),
    );
    let asked = Instant::now();
    let chat = alice.starts_chat(&[&ghost]).await?;
    chat.says(OPENING_LINE).await?;
    stage.says("Alice", OPENING_LINE);
    let inviter = if with_module { &alice.user_id } else { &ghost };
    let invited = sam.invited_by(inviter).await;
    let invite = invited.with_context(|| module_lines(&world))?;
    let invited_after = asked.elapsed();
    stage.says(
        "Sam",
        &format!(
            "is invited to a {} by \"{}\"",
            if invite.is_direct {
                "direct chat"
            } else {
                "room"
            },
            invite.sender_name.as_deref().unwrap_or("?"),
        ),
    );
    let sams = sam.accepts(&invite).await?;
    let passed_on = sams.sees_part(OPENING_LINE).await?;
    stage.says(
        "Sam",
        &format!("reads: {}", passed_on.text().unwrap_or_default()),
    );
    let gone_after = if with_module {
        no_ghost_was_there(&world, &chat).await?;
        stage.says(
            "Ghost",
            "was never there: Synapse's database knows of none in this room",
        );
        None
    } else {
        chat.sees_leave(&ghost).await?;
        stage.says("Ghost", "has left");
        Some(asked.elapsed())
    };

    stage.scene("They talk");
    sams.replies(&passed_on.event_id, REPLY).await?;
    let reply = chat.sees_part(REPLY).await?;
    stage.says("Sam", &format!("{REPLY}   (a reply)"));
    chat.reacts(&reply.event_id, "👍").await?;
    sams.sees_where("the reaction", |seen| seen.event_type == "m.reaction")
        .await?;
    stage.says("Alice", "👍   (a reaction)");
    let second = chat.says(SECOND).await?;
    sams.sees(SECOND).await?;
    stage.says("Alice", SECOND);
    chat.edits(&second, SECOND_EDITED).await?;
    sams.sees(SECOND_EDITED).await?;
    stage.says("Alice", &format!("{SECOND_EDITED}   (an edit)"));

    stage.scene("Who can read it");
    world
        .only_these_are_in(&chat, &alice, &[&alice.user_id, &sam.user_id])
        .await?;
    who_holds_keys(&stage, &chat, &alice).await?;
    checks::nothing_to_warn_of(&[&alice, &sam]).await?;
    stage.says("Clients", "show no shield and no \"Unable to decrypt\"");
    let texts = [OPENING_LINE, REPLY, SECOND, SECOND_EDITED];
    for folder in world.folders() {
        checks::holds_none_of(&folder, &texts)?;
    }
    for (who, folder) in ["Synapse", "Stonechat"].into_iter().zip(world.folders()) {
        let size = checks::size(&folder)? / 1024;
        stage.says(
            who,
            &format!("{size} KiB of database, media and log: none of their words"),
        );
    }

    stage.scene("Timings");
    stage.says(
        "",
        &format!(
            "{:>8}  from Alice's first click to Sam's invite",
            seconds(invited_after)
        ),
    );
    if let Some(gone_after) = gone_after {
        stage.says(
            "",
            &format!("{:>8}  until the ghost was gone", seconds(gone_after)),
        );
    }
    stage.says(
        "",
        &format!("{:>8}  for all of this", seconds(stage.started.elapsed())),
    );

    if options.keep {
        keep(&stage, &mut world).await?;
    }
    Ok(())
}

/// Whether the homeserver's database has never had a user of Stonechat's in this room.
async fn no_ghost_was_there(world: &World, chat: &Chat) -> Result<()> {
    let sql = "SELECT user_id FROM room_memberships \
               WHERE room_id = ?1 AND user_id LIKE '@\\_dm\\_%' ESCAPE '\\'";
    let room = [chat.id().as_str()];
    let rows = world.synapse.database_says(sql, &room).await?;
    ensure!(rows.is_empty(), "{rows:?} were in the room");
    Ok(())
}

/// The members of the room, and the devices that its keys go to.
async fn who_holds_keys(stage: &Stage, chat: &Chat, alice: &Person) -> Result<()> {
    let members: BTreeMap<OwnedUserId, String> = chat.present(alice).await?;
    for user in members.keys() {
        let devices = alice.devices_of(user).await?;
        ensure!(!devices.is_empty(), "{user} has no device");
        ensure!(
            devices.values().all(|signed| *signed),
            "{user} has an unsigned device"
        );
        let names: Vec<_> = devices.into_keys().collect();
        stage.says(
            "",
            &format!("{user} holds the keys on {} (signed)", names.join(", ")),
        );
    }
    stage.says(
        "",
        "nobody else is in the room, and keys go to members only",
    );
    Ok(())
}

/// What the homeserver has to say about Stonechat, which is what the module in it says.
fn module_lines(world: &World) -> String {
    let log = std::fs::read_to_string(world.synapse.log()).unwrap_or_default();
    let lines = log.lines().filter(|line| {
        line.contains("_stonechat") || line.contains("Stonechat") || line.contains("createRoom")
    });
    let lines: Vec<&str> = lines.collect();
    format!("the homeserver says:\n{}", lines.join("\n"))
}

async fn keep(stage: &Stage, world: &mut World) -> Result<()> {
    let kim = world.synapse.register("kim").await?;
    stage.scene("Left running");
    let url = world.synapse.url();
    println!(
        "
Sign in from Element (Desktop, or any Element Web):
    homeserver  {url}
    user        {}
    password    {PASSWORD}
Then start a chat with {}, or with {} and write: help

Files:
    {}
    {}
Ctrl-C ends it.",
        kim.localpart(),
        world.ghost("sam")?,
        world.bot()?,
        world.synapse.folder().display(),
        world.service.folder().display(),
    );
    tokio::signal::ctrl_c().await?;
    world.service.stop().await?;
    world.synapse.stop().await?;
    Ok(())
}

fn synapse_with_progress() -> Result<Venv> {
    let mut bar: Option<ProgressBar> = None;
    let venv = Venv::ready(|Progress { done, total, what }| {
        let bar = bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(
                "          installing Synapse [{bar:30}] {pos}/{len} {msg}",
            );
            let bar = ProgressBar::new(total.into());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        bar.set_position(done.into());
        bar.set_message(what);
    })?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(venv)
}

struct Stage {
    started: Instant,
}

impl Stage {
    fn scene(&self, title: &str) {
        println!("\n── {title} ──");
    }

    /// A line of the transcript; further lines of a text stand below its first.
    fn says(&self, who: &str, what: &str) {
        let time = seconds(self.started.elapsed());
        let mut lines = what.lines();
        println!("{time:>7}  {who:<10} {}", lines.next().unwrap_or_default());
        for line in lines {
            println!("{:20}{line}", "");
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}
