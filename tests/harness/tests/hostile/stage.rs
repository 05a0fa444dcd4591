//! The world that the stories share, and what each of them ends with.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::{Either, select};
use harness::{
    PATIENCE, ServiceOptions, Synapse, SynapseOptions, World, WorldOptions,
    hostile::HostileServer,
    synapse::federation::{Authority, Member},
    venv::Venv,
};
use libtest_mimic::{Failed, Trial};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::undisturbed::Undisturbed;

/// How long a story may take before it counts as failed.
const STORY: Duration = Duration::from_secs(300);

/// New conversations that one person may start in a day: more than the undisturbed need.
pub const ASKS_PER_SENDER: u32 = 100;

/// How long the homeserver may take to hand over what is left when an attack has ended.
const DRAINED: Duration = Duration::from_secs(20);

/// Runs stories one after the other, on a stage that they share.
pub struct Theatre(Arc<Inner>);

struct Inner {
    // Declared first: what is on the stage ends while the runtime is still there.
    stage: Mutex<Option<Stage>>,
    runtime: Runtime,
}

impl Theatre {
    /// Starts the runtime. The first story starts the world.
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // An attacker that signs or writes much at once must not hold up the clients.
            .worker_threads(6)
            .enable_all()
            .build()?;
        Ok(Self(Arc::new(Inner {
            stage: Mutex::default(),
            runtime,
        })))
    }

    /// Makes a story a test.
    pub fn shows<F>(&self, name: &str, story: F) -> Trial
    where
        F: AsyncFnOnce(&mut Stage) -> Result<()> + Send + 'static,
    {
        let inner = self.0.clone();
        Trial::test(name, move || {
            let _inside = inner.runtime.enter();
            let there = inner.lock().take();
            let run = async {
                let mut stage = match there {
                    Some(stage) => stage,
                    None => Stage::begins(SynapseOptions::default()).await?,
                };
                stage.plays(story).await?;
                anyhow::Ok(stage)
            };
            let stage = inner.runtime.block_on(run).map_err(failed)?;
            // What an attack has broken is not left to the next story.
            *inner.lock() = Some(stage);
            Ok(())
        })
    }

    /// Makes a story a test that has a world of its own, on a Synapse with its default rate limits.
    pub fn shows_alone<F>(&self, name: &str, story: F) -> Trial
    where
        F: AsyncFnOnce(&mut Stage) -> Result<()> + Send + 'static,
    {
        let inner = self.0.clone();
        Trial::test(name, move || {
            let _inside = inner.runtime.enter();
            // One world at a time.
            drop(inner.lock().take());
            let run = async {
                let mut synapse = SynapseOptions {
                    default_rate_limits: true,
                    ..SynapseOptions::default()
                };
                // The people here write faster than that limit allows.
                let often = json!({ "per_second": 100, "burst_count": 100 });
                synapse.further.insert("rc_message".into(), often);
                Stage::begins(synapse).await?.plays(story).await
            };
            inner.runtime.block_on(run).map_err(failed)
        })
    }
}

impl Drop for Theatre {
    fn drop(&mut self) {
        let _inside = self.0.runtime.enter();
        drop(self.0.lock().take());
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Stage>> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}

/// A homeserver with the service on it, the people of the place, and where attackers come from.
pub struct Stage {
    /// The people who must not notice.
    pub people: Undisturbed,
    /// The homeserver and the service.
    pub world: World,
    here: Member,
    authority: Authority,
    /// The process of the service, which no attack may end.
    process: u32,
}

impl Stage {
    async fn begins(synapse: SynapseOptions) -> Result<Self> {
        let venv = Venv::ready(|_| {})?;
        let authority = Authority::new(&venv)?;
        let here = authority.member()?;
        let service = ServiceOptions::default()
            .set("introductions.wait_for_message", "3s")
            .set("introductions.linger", "1s")
            .set("limits.new_conversations_per_sender", ASKS_PER_SENDER)
            .set("limits.new_conversations_per_server", 10_000)
            .set("limits.claims_per_day", 1000)
            .set("handles.max_per_person", 1000)
            .set("reconcile.interval", "15s");
        let world = World::start_with(WorldOptions {
            synapse: SynapseOptions {
                federation: Some(here.clone()),
                ..synapse
            },
            service,
            ..WorldOptions::default()
        })
        .await?;
        let mut people = Undisturbed::move_in(&world).await?;
        let before = people.go_on(&world).await;
        println!(
            "before any attack: {}",
            before.context("before any attack")?
        );
        Ok(Self {
            people,
            world,
            here,
            authority,
            process: 0,
        })
    }

    async fn plays(&mut self, story: impl AsyncFnOnce(&mut Stage) -> Result<()>) -> Result<()> {
        self.process = self.process()?;
        println!();
        tokio::time::timeout(STORY, async {
            story(self).await?;
            self.is_unharmed().await
        })
        .await
        .with_context(|| format!("the story takes longer than {STORY:?}"))?
    }

    /// A hostile server with a name and a key of its own.
    pub async fn attacker(&self) -> Result<HostileServer> {
        HostileServer::start(&self.authority.member()?, &self.here).await
    }

    /// Runs an attack while the people of the place go on: one round at least, and further rounds
    /// as long as it lasts. Returns what the attack has found out.
    pub async fn under_attack<T>(&mut self, attack: impl Future<Output = Result<T>>) -> Result<T> {
        self.under_attack_on(async |_| attack.await).await
    }

    /// Runs an attack that looks into the homeserver's database, as [`Stage::under_attack`] does.
    pub async fn under_attack_on<T>(
        &mut self,
        attack: impl AsyncFnOnce(&Synapse) -> Result<T>,
    ) -> Result<T> {
        let mut attack = std::pin::pin!(attack(&self.world.synapse));
        let mut found = None;
        loop {
            let round = std::pin::pin!(self.people.go_on(&self.world));
            let steps = if found.is_some() {
                round.await
            } else {
                match select(attack.as_mut(), round).await {
                    Either::Left((done, round)) => {
                        found = Some(done.context("the attack does not go as it should")?);
                        round.await
                    }
                    Either::Right((steps, _)) => steps,
                }
            };
            println!("during the attack: {}", steps.context("during the attack")?);
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    /// What every story ends with: nothing waits, the service is the process it was, the people go
    /// on, and do so after a restart.
    async fn is_unharmed(&mut self) -> Result<()> {
        let after = self.people.go_on(&self.world).await;
        println!("after the attack: {}", after.context("after the attack")?);
        self.nothing_waits().await?;
        self.has_not_died()?;
        println!("the service had {} KiB at most", self.memory()?);
        self.no_errors().context("before the restart")?;

        let began = Instant::now();
        let status = self.world.service.stop().await?;
        ensure!(status.success(), "the service ended with {status}");
        println!("the service stopped within {:?}", began.elapsed());
        self.world
            .service
            .start()
            .await
            .context("after the attack")?;
        println!("the service was back after {:?}", began.elapsed());
        let again = self.people.go_on(&self.world).await;
        println!("after a restart: {}", again.context("after a restart")?);
        self.nothing_waits().await?;
        self.no_errors().context("after the restart")
    }

    /// Starts the service anew, as a story may.
    pub async fn restart_service(&mut self) -> Result<()> {
        self.has_not_died()?;
        self.world.service.restart().await?;
        self.process = self.process()?;
        Ok(())
    }

    fn has_not_died(&self) -> Result<()> {
        let same = self.process()? == self.process;
        ensure!(same, "the service was started anew");
        Ok(())
    }

    fn process(&self) -> Result<u32> {
        let process = self.world.service.process();
        let id = process.and_then(harness::Process::id);
        id.context("the service is not running")
    }

    /// The most memory that the service has had, in KiB.
    fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process()?))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let size = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(size.context("no memory is shown")?.parse()?)
    }

    /// Waits until the homeserver has handed over everything that it has for the service.
    async fn nothing_waits(&self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + DRAINED;
        loop {
            let rows = self
                .world
                .synapse
                .query("SELECT count(*) FROM application_services_txns")
                .await?;
            let waiting = rows.first().and_then(|row| row.first()?.as_u64());
            if waiting.context("no count")? == 0 {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                bail!(
                    "{waiting:?} transactions wait for the service after {DRAINED:?}\n{}",
                    self.last_lines()
                );
            }
            // A database does not tell of changes.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn last_lines(&self) -> String {
        let process = self.world.service.process();
        process.map_or_else(String::new, harness::Process::last_lines)
    }

    /// The service has said nothing of an error since its start.
    fn no_errors(&self) -> Result<()> {
        let process = self.world.service.process();
        let lines = process.context("the service is not running")?.lines();
        let is_error = |line: &&String| {
            let level = line.split_whitespace().nth(1);
            level == Some("ERROR") || line.contains("panicked at")
        };
        let errors: Vec<_> = lines.iter().filter(is_error).collect();
        ensure!(errors.is_empty(), "the service's log has {errors:#?}");
        Ok(())
    }

    /// Nothing from outside has begun a line of the service's log, or reached it unescaped.
    pub fn no_forged_lines(&self) -> Result<()> {
        let log = std::fs::read_to_string(self.world.service.log())?;
        let control = |c: char| c.is_control() && c != '\n';
        let forged = log
            .lines()
            .find(|line| line.contains(control) || line.starts_with("2026-01-01T00:00:00Z"));
        ensure!(forged.is_none(), "in the service's log is {forged:?}");
        Ok(())
    }

    /// Waits for something that only the homeserver's database tells: the one number that `sql`
    /// selects has to be `wanted`.
    pub async fn comes_to(&self, sql: &str, values: &[&str], wanted: u64) -> Result<()> {
        comes_to(&self.world.synapse, sql, values, wanted).await
    }
}

/// Waits for something that only the homeserver's database tells, as [`Stage::comes_to`] does.
pub async fn comes_to(synapse: &Synapse, sql: &str, values: &[&str], wanted: u64) -> Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let rows = synapse.database_says(sql, values).await?;
        let is = rows.first().and_then(|row| row.first()?.as_u64());
        if is == Some(wanted) {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            bail!("{sql} {values:?} is {is:?} after {PATIENCE:?}, not {wanted}");
        }
        // A database does not tell of changes.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
