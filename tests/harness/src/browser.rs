//! Somebody's client in a real browser, for calls: Debian's Chromium with a fake microphone and
//! camera, and matrix-js-sdk in it (`tests/harness/js/browser/`).

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    Chat, Person, Synapse,
    js::install,
    process::{Process, temporary_folder},
    synapse::PASSWORD,
};

/// A browser is slow to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The browser of a person: a further device of theirs, which they have signed.
pub struct Browser {
    /// How many relays its homeserver has told it of.
    pub relays: u64,
    placed: u32,
    name: String,
    process: Process,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Opens a browser and signs in. What is said in the rooms is in the person's own log as well,
    /// since it is encrypted for all of their devices.
    pub async fn of(person: &Person, synapse: &Synapse) -> Result<Self> {
        let program = install(
            "js/browser",
            "browser-person",
            &["browser.mjs", "bundle.mjs", "page.mjs"],
            Some("bundle.mjs"),
        );
        let program = program.await?;
        let folder = temporary_folder("browser")?;
        let mut command = Command::new("node");
        command
            .arg(program.join("browser.mjs"))
            .arg("--chromium")
            .arg(chromium()?)
            .arg("--profile")
            .arg(folder.path().join("profile"));
        let name = format!("the browser of {}", person.user_id);
        let process = Process::start(&name, command, &folder.path().join("log"))?;
        let mut browser = Self {
            relays: 0,
            placed: 0,
            name,
            process,
            _folder: folder,
        };
        browser.says_that("open", |_| true).await?;
        browser
            .does(json!({
                "deed": "sign-in",
                "homeserver": synapse.url().as_str().trim_end_matches('/'),
                "user": person.user_id.localpart(),
                "password": PASSWORD,
            }))
            .await?;
        let ready = browser.says_that("ready", |_| true).await?;
        let device = ready["device"].as_str().context("no device")?;
        person.signs_own_device(device).await?;
        browser.relays = ready["relays"].as_u64().unwrap_or_default();
        Ok(browser)
    }

    /// Is from now on in a network from which no relay can be reached.
    pub async fn loses_relays(&mut self) -> Result<()> {
        self.does(json!({ "deed": "lose-relays" })).await?;
        self.says_that("lost-relays", |_| true).await.map(drop)
    }

    /// Places a call; its id is returned.
    pub async fn calls(&mut self, chat: &Chat, video: bool) -> Result<String> {
        self.placed += 1;
        let (room, number) = (chat.id().as_str(), self.placed);
        self.does(json!({ "deed": "call", "room": room, "video": video, "number": number }))
            .await?;
        let calls = self.says_that("calls", |said| said["number"] == number);
        let calls = calls.await?;
        let call = calls["call"].as_str().context("a call without an id")?;
        Ok(call.to_owned())
    }

    /// Waits until a call comes in this room; whether it is a `voice` or a `video` call.
    pub async fn rings(&self, chat: &Chat, call: &str) -> Result<String> {
        let room = chat.id().as_str();
        let this = |said: &Value| said["room"] == room && said["call"] == call;
        let rings = self.says_that("rings", this).await?;
        Ok(rings["kind"].as_str().unwrap_or_default().to_owned())
    }

    /// Answers the call at hand.
    pub async fn answers(&mut self) -> Result<()> {
        self.does(json!({ "deed": "answer" })).await
    }

    /// Declines it.
    pub async fn rejects(&mut self) -> Result<()> {
        self.does(json!({ "deed": "reject" })).await
    }

    /// Puts the other side on hold, or takes it off: the two negotiate anew.
    pub async fn holds(&mut self, held: bool) -> Result<()> {
        self.does(json!({ "deed": "hold", "held": held })).await
    }

    /// Waits until it is on hold, or off it again.
    pub async fn is_held(&self, call: &str, held: bool) -> Result<()> {
        let this = |said: &Value| said["call"] == call && said["held"] == held;
        self.says_that("held", this).await.map(drop)
    }

    /// Hangs up.
    pub async fn hangs_up(&mut self) -> Result<()> {
        self.does(json!({ "deed": "hang-up" })).await
    }

    /// Waits until voices (and pictures) come from the other side, and returns by which way.
    pub async fn hears(&self, call: &str) -> Result<Value> {
        self.says_that("flows", |said| said["call"] == call).await
    }

    /// Waits until a call has ended, and returns how.
    pub async fn sees_end(&self, call: &str) -> Result<Value> {
        self.says_that("ended", |said| said["call"] == call).await
    }

    /// Everything it has said so far.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.process.lines();
        lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    async fn does(&mut self, what: Value) -> Result<()> {
        self.process.is_told(&what.to_string()).await
    }

    /// Waits for a line of its output; an error if it says that something failed.
    async fn says_that(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let said = self
            .process
            .line_where(&format!("{what:?}"), PATIENCE, |line| {
                let said: Value = serde_json::from_str(line).ok()?;
                let failed = said["what"] == "failed" || said["what"] == "call-error";
                (failed || said["what"] == what && wanted(&said)).then_some(said)
            })
            .await?;
        if said["what"] != what {
            bail!("{}: {said}\n{}", self.name, self.process.last_lines());
        }
        Ok(said)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It closes its windows before it ends, so that nothing writes to the folder while this is
        // removed.
        self.process.lets_go(Duration::from_secs(10));
    }
}

/// Where Chromium is: in the path, or where `STONECHAT_CHROMIUM` says.
fn chromium() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("STONECHAT_CHROMIUM") {
        return Ok(path.into());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&folders).map(|folder| folder.join("chromium"));
    places.find(|path| path.is_file()).context(
        "there is no chromium: stories of calls need it (on Debian: apt-get install \
         --no-install-recommends chromium), or the path of one in STONECHAT_CHROMIUM",
    )
}
