//! The people who must not notice: Alice reaches Sam by a handle, and Alice and Kim talk through
//! Kim's mask.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use harness::{Chat, Person, World};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::pulse::Pulse;

/// The longest that a person may wait for any step, besides what the homeserver is late with by
/// itself.
const AT_MOST: Duration = Duration::from_secs(3);

/// How much time lies between the beginnings of two rounds at least: in each of them Sam types a
/// command, and the bot takes twenty a minute from a person.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(4);

/// How long something took.
#[derive(Clone, Copy, Debug)]
struct Step {
    took: Duration,
    /// How late the homeserver was meanwhile.
    late: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = self.took.as_secs_f32();
        write!(f, "{took:.1} s")?;
        let late = self.late.as_secs_f32();
        if late > 0.1 {
            write!(f, " ({late:.1} s of them the homeserver's)")?;
        }
        Ok(())
    }
}

/// How long each step of a round took.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// From Sam's `claim` to the bot's answer.
    claimed: Step,
    /// From the start of Alice's chat with the handle to Sam's invite.
    invited: Step,
    /// From Sam's accepting to his reading of Alice's first line.
    read: Step,
    /// From Alice's message to Kim's reading it.
    to_masked: Step,
    /// From Kim's answer to Alice's reading it.
    from_masked: Step,
}

impl Steps {
    fn named(&self) -> [(&'static str, Step); 5] {
        [
            ("claim", self.claimed),
            ("invite", self.invited),
            ("first line", self.read),
            ("to the masked", self.to_masked),
            ("from the masked", self.from_masked),
        ]
    }

    fn check(&self) -> Result<()> {
        for (name, step) in self.named() {
            ensure!(
                step.took.saturating_sub(step.late) <= AT_MOST,
                "\"{name}\" took longer than {AT_MOST:?}: {self}"
            );
        }
        Ok(())
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, step)) in self.named().into_iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}{name} {step}")?;
        }
        Ok(())
    }
}

/// Three local people and the masked conversation of two of them.
pub struct Undisturbed {
    alice: Person,
    sam: Person,
    /// Sam's room with the bot.
    control_room: Chat,
    /// Alice's room with Kim's ghost.
    to_kim: Chat,
    /// Kim's room with Alice's ghost.
    to_alice: Chat,
    round: u32,
    /// When the next round may begin.
    pace: Interval,
    pulse: Pulse,
    // Last: the client goes after its rooms.
    _kim: Person,
}

impl Undisturbed {
    /// Makes the accounts, and lets Alice and Kim meet.
    pub async fn move_in(world: &World) -> Result<Self> {
        let (alice, sam, kim) = tokio::try_join!(
            world.person("alice"),
            world.person("sam"),
            world.person("kim")
        )?;
        let (control_room, kims_room) =
            tokio::try_join!(world.control_room(&sam), world.control_room(&kim))?;
        world.claims(&kim, &kims_room, "kim").await?;
        kims_room.asks(&world.bot()?, "mode kim masked").await?;
        let ghost = world.ghost("kim")?;
        let to_kim = alice.starts_chat(&[&ghost]).await?;
        to_kim.says("is this Kim?").await?;
        let invite = kim
            .invited(|invite| invite.sender.localpart().starts_with("_dm_.p"))
            .await?;
        let to_alice = kim.accepts(&invite).await?;
        to_alice.sees("is this Kim?").await?;
        let mut pace = interval(BETWEEN_ROUNDS);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            alice,
            sam,
            control_room,
            to_kim,
            to_alice,
            round: 0,
            pace,
            pulse: Pulse::of(world).await?,
            _kim: kim,
        })
    }

    /// Sam claims a further handle, Alice reaches him by it, and Alice and Kim say a word each; an
    /// error if any of it took too long.
    pub async fn go_on(&mut self, world: &World) -> Result<Steps> {
        self.pace.tick().await;
        self.round += 1;
        let handle = format!("sam{}", self.round);
        let ghost = world.ghost(&handle)?;

        let began = Instant::now();
        let claim = format!("claim {handle}");
        let answer = self.control_room.asks(&world.bot()?, &claim).await?;
        let claimed = self.since(began);
        world
            .reachable(&self.alice, &handle)
            .await
            .with_context(|| format!("the bot said {:?}", answer.text()))?;

        let line = format!("a line for {handle}");
        let began = Instant::now();
        let chat = self.alice.starts_chat(&[&ghost]).await?;
        chat.says(&line).await?;
        let invite = self.sam.invited(|invite| invite.room == chat.id()).await?;
        let invited = self.since(began);
        let began = Instant::now();
        let sams = self.sam.accepts(&invite).await?;
        sams.sees_part(&line).await?;
        let read = self.since(began);

        let steps = Steps {
            claimed,
            invited,
            read,
            to_masked: self
                .says(&self.to_kim, &self.to_alice, &format!("to Kim, {handle}"))
                .await?,
            from_masked: self
                .says(&self.to_alice, &self.to_kim, &format!("to Alice, {handle}"))
                .await?,
        };
        steps.check()?;
        Ok(steps)
    }

    fn since(&self, began: Instant) -> Step {
        Step {
            took: began.elapsed(),
            late: self.pulse.late_since(began),
        }
    }

    /// How long it takes until what is said in one room is read in the other.
    async fn says(&self, here: &Chat, there: &Chat, text: &str) -> Result<Step> {
        let began = Instant::now();
        here.says(text).await?;
        there.sees(text).await?;
        Ok(self.since(began))
    }
}
