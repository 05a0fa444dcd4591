//! How fast masked conversations are carried: the real service as a child process, on the fake
//! homeserver, which lives in this process with everybody's clients.
//! `cargo bench -p harness --bench relay`
//!
//! `--conversations 1,100,1000` says how many at a time, `--messages N` how many messages all of
//! them say together in a measurement, `--load P` at how many percent of the full speed the delay
//! is measured, `--machines N` how many ghosts' keys the service keeps in memory (two ghosts to a
//! conversation). The homeserver works on the same cores as the service: full speed is that of both
//! together, and the service's CPU time is its own. Machines are not equally fast at all times, so
//! the bare cost of a message is measured just before each measurement and just after it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark that cannot go on has nothing to say, and what it has goes to the terminal"
)]

#[path = "relay/conversation.rs"]
mod conversation;
#[path = "../../../benches/support/mod.rs"]
#[allow(dead_code, reason = "other benchmarks need more of it")]
mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use harness::{
    ServiceOptions,
    fake::{Options, World},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use conversation::Conversation;
use support::cpu;

/// How long a run may go on without carrying another message.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many conversations are set up at the same time.
const AT_ONCE: usize = 12;

/// The figures of one number of conversations.
struct Figures {
    conversations: usize,
    /// Messages per second at full speed.
    speed: f64,
    /// CPU time of the service per message, in µs: at full speed, and below it.
    cpu: [f64; 2],
    /// What vodozemac alone took of that at the time: one decryption and one encryption, in µs.
    bare: [f64; 2],
    /// CPU time of the homeserver and of everything else in this process, at full speed.
    others: f64,
    /// Messages per second in the measurement of the delay.
    load: f64,
    /// Half of the messages were sent on within this time, in ms, and 99 %.
    delay: [f64; 2],
    /// Memory per conversation, in KB.
    memory: f64,
    /// How much the database grew for each message at full speed, in bytes.
    disk: f64,
}

fn main() -> Result<()> {
    if let Some(code) = harness::service::act_as_service_if_asked() {
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }
    let counts = counts();
    let messages = support::option("--messages", 10_000);
    let load = support::option("--load", 50);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // By this name the homeserver is left out where the bare cost is measured.
        .thread_name("homeserver")
        .enable_all()
        .build()?;
    let mut all = Vec::new();
    let mut burst = None;
    for count in counts {
        let figures = runtime.block_on(measure(count, messages, load))?;
        if count == 1 {
            burst = Some(figures.speed);
        }
        all.push(figures);
    }
    print(&all, load);
    if let Some(burst) = burst {
        println!("\nOne conversation in a burst of {messages} messages: {burst:.0} a second.");
    }
    Ok(())
}

fn counts() -> Vec<usize> {
    let mut words = std::env::args().skip_while(|word| word != "--conversations");
    words.next();
    let list = words.next().unwrap_or_else(|| "1,100,1000".to_owned());
    list.split(',').map(|n| n.parse().unwrap()).collect()
}

fn print(all: &[Figures], load: usize) {
    println!("{}\n", support::machine());
    println!(
        "| conversations | messages per second, at full speed | CPU of the service per message, µs \
         | bare vodozemac then, µs | ratio | CPU of the homeserver per message, µs \
         | delay at {load} % of that: messages per second | half within, ms | 99 % within, ms \
         | CPU of the service per message then, µs | bare vodozemac then, µs | ratio \
         | memory per conversation, KB | growth of the database per message, bytes |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for one in all {
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} \
             | {:.1} | {:.0} | {:.0} |",
            one.conversations,
            one.speed,
            one.cpu[0],
            one.bare[0],
            one.cpu[0] / one.bare[0],
            one.others,
            one.load,
            one.delay[0],
            one.delay[1],
            one.cpu[1],
            one.bare[1],
            one.cpu[1] / one.bare[1],
            one.memory,
            one.disk,
        );
    }
}

async fn measure(count: usize, messages: usize, load: usize) -> Result<Figures> {
    let options = Options {
        measures: true,
        ..Options::default()
    };
    let service = ServiceOptions::default().set("log.level", "error").set(
        "crypto.machines_in_memory",
        support::option("--machines", 200),
    );
    let world = Arc::new(World::start(options, service).await?);
    let process = world.service.process().context("not running")?;
    let process = process.id().context("ended")?;

    let began = Instant::now();
    let people = conversation::people(&world, count, AT_ONCE).await?;
    let before = cpu::memory_of(process);
    let all = conversation::begin(&world, people, AT_ONCE).await?;
    eprintln!(
        "{count} conversations begun in {:.0} s",
        began.elapsed().as_secs_f64()
    );

    let each = messages.div_ceil(count);
    let mut rng = StdRng::seed_from_u64(1);
    // Once without looking, so that everything has been used.
    run(&all, 3.min(each), None, &mut rng).await?;
    let size = || harness::checks::size(&world.service.data());
    let size_before = size()?;
    let full = run(&all, each, None, &mut rng).await?.figures();
    let grown = size()?.saturating_sub(size_before);
    let rate = full.speed * load as f64 / 100.0;
    // Some twenty seconds are enough.
    let fewer = each.min(((rate * 20.0) / count as f64).ceil() as usize);
    let calm = run(&all, fewer, Some(rate), &mut rng).await?.figures();
    let memory = cpu::memory_of(process).saturating_sub(before) as f64;
    for one in all.iter().take(20) {
        one.is_well().await?;
    }
    let reuses = world.fake.reuses();
    ensure!(reuses.is_empty(), "{reuses:?}");
    Ok(Figures {
        conversations: count,
        speed: full.speed,
        cpu: [full.cpu, calm.cpu],
        bare: [full.bare, calm.bare],
        others: full.others,
        load: calm.speed,
        delay: calm.delay,
        memory: memory / count as f64 / 1000.0,
        disk: grown as f64 / (each * count) as f64,
    })
}

/// What one run has to tell.
struct Run {
    took: Duration,
    /// From the transaction to the request, for each message.
    delays: Vec<Duration>,
    used: [Duration; 2],
    /// Before and after.
    bare: [f64; 2],
}

struct Told {
    speed: f64,
    cpu: f64,
    bare: f64,
    others: f64,
    delay: [f64; 2],
}

impl Run {
    fn figures(mut self) -> Told {
        self.delays.sort();
        let count = self.delays.len();
        let each = |used: Duration| used.as_secs_f64() * 1e6 / count as f64;
        let at = |part: f64| {
            let place = ((count as f64 * part) as usize).min(count - 1);
            self.delays[place].as_secs_f64() * 1000.0
        };
        Told {
            speed: count as f64 / self.took.as_secs_f64(),
            cpu: each(self.used[0]),
            bare: self.bare.iter().sum::<f64>() / 2.0,
            others: each(self.used[1]),
            delay: [at(0.5), at(0.99)],
        }
    }
}

/// What one decryption and one encryption cost at this moment, in µs.
fn bare() -> f64 {
    const TIMES: usize = 10_000;
    let (encrypting, decrypting) = support::megolm::round(TIMES);
    let used = cpu::sum(&encrypting) + cpu::sum(&decrypting);
    used.as_secs_f64() * 1e6 / TIMES as f64
}

/// Everybody says so many messages, all at once or at a rate, and all of them are carried.
async fn run(
    all: &[Conversation],
    each: usize,
    rate: Option<f64>,
    rng: &mut StdRng,
) -> Result<Run> {
    let process = all[0].process();
    let mut said = Vec::new();
    for one in all {
        said.push((one.marks(), one.encrypts(each).await?));
    }
    // What came with the keys is done before the clock runs.
    all[0].is_quiet().await?;
    let used = || {
        [
            cpu::of_process(process),
            cpu::of_process(std::process::id()),
        ]
    };
    let bare_before = bare();
    let (began, before) = (Instant::now(), used());
    let mut due = began;
    for n in 0..each {
        for (one, (_, texts)) in all.iter().zip(&mut said) {
            if let Some(rate) = rate {
                // As independent people write: pauses of all lengths.
                let pause = -rng.random_range(f64::EPSILON..1.0).ln() / rate;
                due += Duration::from_secs_f64(pause);
                tokio::time::sleep_until(due.into()).await;
            }
            one.says(std::mem::take(&mut texts[n])).await?;
        }
    }
    let mut carried = 0;
    let mut last = Instant::now();
    while carried < all.len() * each {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = all
            .iter()
            .zip(&said)
            .map(|(one, (marks, _))| one.carried(marks))
            .sum();
        if now > carried {
            (carried, last) = (now, Instant::now());
        }
        ensure!(
            last.elapsed() < PATIENCE,
            "{carried} of {} carried",
            all.len() * each
        );
    }
    let after = used();
    all[0].is_quiet().await?;
    let bare_after = bare();
    let pushed = all[0].pushed();
    let mut delays = Vec::new();
    let mut end = began;
    for (one, (marks, _)) in all.iter().zip(&said) {
        for (event, arrived) in one.pairs(marks, each)? {
            let pushed = pushed.get(&event).context("never pushed")?;
            delays.push(arrived.saturating_duration_since(*pushed));
            end = end.max(arrived);
        }
    }
    Ok(Run {
        took: end - began,
        delays,
        used: [after[0] - before[0], after[1] - before[1]],
        bare: [bare_before, bare_after],
    })
}
