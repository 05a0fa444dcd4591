//! The choices of a run: who waits how long, who is killed when. A seed repeats them; it is printed
//! by a run that fails, and `STONECHAT_SEED` gives it to the next.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::fake::{Faults, Restart, World};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.and_then(|n| n.parse().ok()).unwrap_or(default)
}

pub struct Plan {
    pub seed: u64,
    rng: StdRng,
}

impl Plan {
    pub fn new() -> Self {
        let seed = number("STONECHAT_SEED", rand::random_range(0..1_000_000));
        println!("STONECHAT_SEED={seed} repeats the choices of this run");
        Self::of(seed)
    }

    /// The plan of a seed that is printed elsewhere.
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// A pause of up to so many milliseconds, but for a tenth of it at least.
    pub fn pause(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(most / 10..=most))
    }

    /// A number below this one.
    pub fn number(&mut self, below: u64) -> u64 {
        self.rng.random_range(0..below)
    }

    /// So many different moments before `end`, in order.
    pub fn moments(&mut self, count: u64, end: u64) -> Vec<usize> {
        let mut moments = std::collections::BTreeSet::new();
        while (moments.len() as u64) < count.min(end / 2) {
            moments.insert(self.rng.random_range(1..end) as usize);
        }
        moments.into_iter().collect()
    }

    /// A plan of its own for somebody who acts at the same time.
    pub fn another(&mut self) -> Self {
        Self {
            seed: self.seed,
            rng: StdRng::seed_from_u64(self.rng.random()),
        }
    }

    pub fn faults(&self) -> Faults {
        Faults::of_all_kinds(self.seed)
    }

    /// How the homeserver goes down, if it does this time: one time in so many.
    pub fn restart(&mut self, one_in: u32) -> Option<Restart> {
        let now = self.rng.random_ratio(1, one_in);
        let killed = self.rng.random_bool(0.5);
        now.then_some(if killed {
            Restart::Killed
        } else {
            Restart::InOrder
        })
    }

    /// Kills the service so many times, with pauses of up to `every` milliseconds between its
    /// being started and its end; now and then the homeserver restarts as well.
    pub async fn kills(&mut self, world: &mut World, times: u64, every: u64) -> Result<()> {
        for _ in 0..times {
            tokio::time::sleep(self.pause(every)).await;
            self.kill(world, 200).await?;
        }
        world.service.ready().await
    }

    /// Kills the service and starts it again after up to so many milliseconds; one time in five
    /// the homeserver restarts in between.
    pub async fn kill(&mut self, world: &mut World, away: u64) -> Result<()> {
        let process = world.service.process_mut().context("not running")?;
        if let Some(status) = process.ended()? {
            bail!("it ended by itself ({status})\n{}", process.last_lines());
        }
        world.service.kill().await?;
        let away = self.pause(away);
        match self.restart(5) {
            Some(how) => world.fake.restart(how, away).await,
            None => tokio::time::sleep(away).await,
        }
        world.service.launch()
    }
}
