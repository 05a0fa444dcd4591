//! A child process that dies with us, and whose every line of output is kept.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::watch,
};

/// Set for a child that should end when its standard input does.
const DIE_WITH_PARENT: &str = "STONECHAT_DIE_WITH_PARENT";

/// In a child: ends the process at once when the parent is gone, however the parent died.
///
/// The parent holds the other end of our standard input. Linux' parent-death signal would not do:
/// it is sent when the *thread* that forked ends, and test runtimes end threads all the time.
pub fn die_with_parent() {
    if std::env::var_os(DIE_WITH_PARENT).is_none() {
        return;
    }
    std::thread::spawn(|| {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1)) {}
        std::process::abort();
    });
}

/// A running child process.
pub struct Process {
    name: String,
    child: Child,
    life_line: Option<ChildStdin>,
    output: Arc<Output>,
    log: PathBuf,
}

/// What the child has printed so far.
struct Output {
    lines: Mutex<Lines>,
    changed: watch::Sender<usize>,
}

struct Lines {
    seen: Vec<String>,
    open: usize,
    file: File,
}

impl Process {
    /// Starts `command`; what it prints is appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write the log {}", log.display()))?;
        let mut child = command
            .env(DIE_WITH_PARENT, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C is for us: we end our children ourselves, in order.
            .process_group(0)
            .spawn()
            .with_context(|| {
                format!("cannot start {name} ({:?})", command.as_std().get_program())
            })?;
        let output = Arc::new(Output {
            lines: Mutex::new(Lines {
                seen: Vec::new(),
                open: 2,
                file,
            }),
            changed: watch::Sender::new(0),
        });
        if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
            tokio::spawn(follow(out, output.clone()));
            tokio::spawn(follow(err, output.clone()));
        }
        let life_line = child.stdin.take();
        Ok(Self {
            name: name.to_owned(),
            child,
            life_line,
            output,
            log: log.to_owned(),
        })
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The lines printed since this process was started.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().seen.clone()
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until a line holds `needle`, and returns it; an error if the process ends first.
    pub async fn line_with(&self, needle: &str, patience: Duration) -> Result<String> {
        let what = format!("{needle:?}");
        self.line_where(&what, patience, |line| {
            line.contains(needle).then(|| line.to_owned())
        })
        .await
    }

    /// Waits for a line in which `find` finds something; an error if the process ends first.
    pub async fn line_where<T>(
        &self,
        what: &str,
        patience: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let mut changed = self.output.changed.subscribe();
        let found = async {
            let mut from = 0;
            loop {
                {
                    let lines = self.output.lock();
                    if let Some(found) = lines.seen[from..].iter().find_map(|line| find(line)) {
                        return Ok(found);
                    }
                    from = lines.seen.len();
                    if lines.open == 0 {
                        bail!("{} ended before it said {what}", self.name);
                    }
                }
                changed.changed().await?;
            }
        };
        match tokio::time::timeout(patience, found).await {
            Ok(result) => result.with_context(|| self.last_lines()),
            Err(_) => bail!(
                "{} did not say {what} within {patience:?}\n{}",
                self.name,
                self.last_lines()
            ),
        }
    }

    /// The end of its output, for an error message.
    pub fn last_lines(&self) -> String {
        let lines = self.output.lock();
        let from = lines.seen.len().saturating_sub(25);
        format!(
            "last lines of {}:\n{}",
            self.name,
            lines.seen[from..].join("\n")
        )
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal by name (`TERM`, `STOP`, `CONT`, …).
    pub fn signal(&self, name: &str) -> Result<()> {
        let Some(id) = self.id() else {
            bail!("{} has ended already", self.name)
        };
        // The shell's own `kill`: there may be no program of that name.
        let status = std::process::Command::new("sh")
            .args(["-c", &format!("kill -{name} {id}")])
            .status()?;
        if !status.success() {
            bail!("cannot send SIG{name} to {} ({id})", self.name);
        }
        Ok(())
    }

    /// Writes a line to its standard input.
    pub async fn is_told(&mut self, line: &str) -> Result<()> {
        let input = self.life_line.as_mut();
        let input = input.with_context(|| format!("{} believes that we died", self.name))?;
        let line = format!("{line}\n");
        let told = input.write_all(line.as_bytes()).await;
        told.with_context(|| format!("{} does not listen", self.name))
    }

    /// Lets it believe that we have died.
    pub fn lose_parent(&mut self) {
        self.life_line = None;
    }

    /// Waits for it to end by itself.
    pub async fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!(
                "{} did not end within {patience:?}\n{}",
                self.name,
                self.last_lines()
            ),
        }
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub async fn stop(mut self, patience: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait(patience).await
    }

    /// Ends it at once (SIGKILL). Unlike after a power cut, what it wrote and did not sync stays.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await?;
        Ok(())
    }
}

impl Process {
    /// Waits for its end where nothing can be awaited.
    fn wait_blocking(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it by closing its standard input, for one that has children of its own to end.
    pub fn lets_go(&mut self, patience: Duration) {
        self.lose_parent();
        self.wait_blocking(patience);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its folder is removed next: it must be gone by then.
        let _ = self.child.start_kill();
        self.wait_blocking(Duration::from_secs(2));
    }
}

impl Output {
    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn follow(from: impl AsyncRead + Unpin, output: Arc<Output>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(from.read_until(b'\n', &mut line).await, Ok(n) if n > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let mut lines = output.lock();
        let _ = writeln!(lines.file, "{text}");
        lines.seen.push(text);
        output.changed.send_modify(|n| *n += 1);
        drop(lines);
        line.clear();
    }
    output.lock().open -= 1;
    output.changed.send_modify(|n| *n += 1);
}

/// The ports that this process was given by [`free_port`].
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of the loopback interface that nobody listens on, and that was not given before.
///
/// Below the range that the kernel hands to outgoing connections, so that the port is still free
/// when a stopped server comes back to it.
pub fn free_port() -> Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..200 {
        let port = rand::random_range(20_000..32_000);
        let is_free = || std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if !given.contains(&port) && is_free() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 between 20000 and 32000")
}

/// Where temporary folders go: `STONECHAT_TEST_FOLDER`, or the system's. With
/// `STONECHAT_TEST_KEEP` they stay, so that one can read the logs of a story that failed.
pub fn temporary_folder(name: &str) -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    let prefix = format!("stonechat-{name}-");
    builder.prefix(&prefix);
    builder.disable_cleanup(std::env::var_os("STONECHAT_TEST_KEEP").is_some());
    let made = match std::env::var_os("STONECHAT_TEST_FOLDER") {
        Some(folder) => std::fs::create_dir_all(&folder).and_then(|()| builder.tempdir_in(folder)),
        None => builder.tempdir(),
    };
    made.context("cannot make a temporary folder")
}
