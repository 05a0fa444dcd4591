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
        let program = installed()?;
        let user_id = synapse.register(localpart).await?;
        let folder = temporary_folder("js")?;
        let mut command = Command::new("node");
        command
            .arg(program)
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

/// The bot with its packages beside it, in cargo's target folder; npm runs once.
fn installed() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("js");
    let folder = target_folder()?.join("example-bot");
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.with_extension("lock"))?;
    lock.lock()?;
    let wanted = fs::read_to_string(source.join("package-lock.json"))?;
    let stamp = folder.join("installed.json");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        fs::copy(source.join("bot.mjs"), folder.join("bot.mjs"))?;
        return Ok(folder.join("bot.mjs"));
    }
    for name in ["package.json", "package-lock.json", "bot.mjs"] {
        fs::copy(source.join(name), folder.join(name))?;
    }
    let npm = std::process::Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .output()
        .context("cannot run npm: this story needs Node.js 20 or newer and npm")?;
    if !npm.status.success() {
        bail!("npm ci failed:\n{}", String::from_utf8_lossy(&npm.stderr));
    }
    fs::write(stamp, wanted)?;
    Ok(folder.join("bot.mjs"))
}
