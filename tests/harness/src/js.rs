//! The example bot on matrix-js-sdk (`tests/harness/js/bot.mjs`) as a person of a story: a client
//! that was not made with the Rust SDK.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use ruma::OwnedUserId;
use serde_json::Value;
use tokio::process::Command;

use crate::{Process, Synapse, process::temporary_folder, synapse::PASSWORD, venv::target_folder};

/// npm has much to fetch the first time, and Node is slow to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running bot.
pub struct JsBot {
    /// Who it is.
    pub user_id: OwnedUserId,
    process: Process,
    _folder: tempfile::TempDir,
}

impl JsBot {
    /// Makes an account and starts the bot on it; with `stonechat` and a handle it claims that.
    pub async fn start(
        synapse: &Synapse,
        localpart: &str,
        claim: Option<(&ruma::UserId, &str)>,
    ) -> Result<Self> {
        let program = install("js", "example-bot", &["bot.mjs"], None).await?;
        let user_id = synapse.register(localpart).await?;
        let folder = temporary_folder("js")?;
        let mut command = Command::new("node");
        command
            .arg(program.join("bot.mjs"))
            .args(["--homeserver", synapse.url().as_str().trim_end_matches('/')])
            .args(["--user", localpart, "--password", PASSWORD]);
        if let Some((stonechat, handle)) = claim {
            command.args(["--stonechat", stonechat.as_str(), "--handle", handle]);
        }
        let process = Process::start("the example bot", command, &folder.path().join("log"))?;
        let bot = Self {
            user_id,
            process,
            _folder: folder,
        };
        bot.says_that("ready", |_| true).await?;
        Ok(bot)
    }

    /// Waits for a line of its output: `what`, and whatever `wanted` asks of the rest.
    pub async fn says_that(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.process
            .line_where(&format!("{what:?}"), PATIENCE, |line| {
                let said: Value = serde_json::from_str(line).ok()?;
                (said["what"] == what && wanted(&said)).then_some(said)
            })
            .await
    }

    /// Everything it has said so far.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.process.lines();
        lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// An error if it saw a shield, a message in clear or one that it could not decrypt.
    pub fn saw_nothing_to_warn_of(&self) -> Result<()> {
        for line in self.lines() {
            let warns = match line["what"].as_str() {
                Some("heard") => line["encrypted"] != true || line["shield"] != 0,
                Some("undecryptable" | "refused" | "failed") => true,
                _ => false,
            };
            if warns {
                bail!("the example bot: {line}");
            }
        }
        Ok(())
    }
}

/// Copies a Node program with its packages beside it into a folder of cargo's target folder, and
/// runs `then`, a program of its own, when something has changed. npm runs once. Two stories may ask
/// at once.
///
/// It runs in a thread of its own: npm may take minutes, in which the people of the story go on.
pub(crate) async fn install(
    source: &'static str,
    name: &'static str,
    programs: &'static [&str],
    then: Option<&'static str>,
) -> Result<PathBuf> {
    tokio::task::spawn_blocking(move || install_now(source, name, programs, then)).await?
}

fn install_now(source: &str, name: &str, programs: &[&str], then: Option<&str>) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let folder = target_folder()?.join(name);
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.with_extension("lock"))?;
    lock.lock()?;
    let wanted = fs::read_to_string(source.join("package-lock.json"))?;
    let stamp = folder.join("installed.json");
    let mut changed = Vec::new();
    for program in programs {
        let (from, to) = (source.join(program), folder.join(program));
        let (new, old) = (fs::read(&from)?, fs::read(&to).ok());
        if old.as_ref() != Some(&new) {
            changed.push((to, new));
        }
    }
    let has_packages = fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted);
    if has_packages && changed.is_empty() {
        return Ok(folder);
    }
    // Should this not come to its end, it is done again.
    let _ = fs::remove_file(&stamp);
    for (to, new) in changed {
        fs::write(to, new)?;
    }
    if !has_packages {
        for name in ["package.json", "package-lock.json"] {
            fs::copy(source.join(name), folder.join(name))?;
        }
        run(
            &folder,
            "npm",
            &["ci", "--no-audit", "--no-fund", "--fetch-retries=5"],
        )?;
    }
    if let Some(program) = then {
        run(&folder, "node", &[program])?;
    }
    fs::write(stamp, wanted)?;
    Ok(folder)
}

fn run(folder: &Path, program: &str, args: &[&str]) -> Result<()> {
    let output = std::process::Command::new(program)
        .args(args)
        .current_dir(folder)
        .output()
        .with_context(|| {
            format!("cannot run {program}: this story needs Node.js 20 or newer and npm")
        })?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {} failed:\n{errors}", args.join(" "));
    }
    Ok(())
}
