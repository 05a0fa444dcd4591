//! Checks of Stonechat's requirements on its homeserver. `run` makes them when it starts; `doctor`
//! makes these and some more.

mod delivery;
mod homeserver;
mod module;
mod observer;
mod settings;
mod turn;

use std::{error::Error, time::Duration};

use ruma::{OwnedDeviceId, OwnedUserId, UserId};

pub use observer::Observer;

use crate::{
    config::{CHECK_LOCALPART, Setup},
    matrix::{Homeserver, MatrixError},
};

/// The oldest version of Synapse with which the main stories were run.
pub const OLDEST_SYNAPSE: &str = "1.143";

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub wrong: String,
    /// What to change.
    pub remedy: String,
    /// The homeserver's own message. Shown to the admin and not logged.
    pub server_message: Option<String>,
    /// Whether the problem may pass by itself, so that `run` waits.
    pub is_temporary: bool,
}

impl Problem {
    /// Returns a problem that does not pass by itself.
    pub fn new(wrong: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            wrong: wrong.into(),
            remedy: remedy.into(),
            server_message: None,
            is_temporary: false,
        }
    }

    /// Returns the problem of a message that has its remedy after a semicolon.
    pub fn of_message(message: &str) -> Self {
        let (wrong, remedy) = message.split_once("; ").unwrap_or((message, "correct it"));
        Self::new(wrong, remedy)
    }

    /// Adds the homeserver's own message.
    fn with_server_message(mut self, message: &str) -> Self {
        self.server_message = Some(message.to_owned());
        self
    }

    /// Returns the problem of a request that the homeserver refuses until something is changed. An
    /// error that may pass by itself shows nothing of that.
    fn refused(error: &MatrixError, remedy: impl Into<String>) -> Self {
        if error.is_temporary() {
            Self::from_error(error, "see the homeserver's log")
        } else {
            Self::from_error(error, remedy)
        }
    }

    /// Returns the problem of an error that has no better explanation.
    fn from_error(error: &MatrixError, remedy: impl Into<String>) -> Self {
        // The innermost reason says most: "Connection refused" and not only "no answer".
        let mut wrong = error.to_string();
        let mut deeper = error.source();
        while let Some(reason) = deeper {
            deeper = reason.source();
            if deeper.is_none() && !wrong.contains(&reason.to_string()) {
                wrong = format!("{wrong} ({reason})");
            }
        }
        Self {
            wrong,
            remedy: remedy.into(),
            server_message: error.message().map(str::to_owned),
            is_temporary: error.is_temporary(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.wrong, self.remedy)
    }
}

/// The finding of a check, or its problem.
pub type CheckResult = Result<String, Problem>;

/// The homeserver, and the user that the checks act as: never the bot, whose devices and rooms
/// belong to the engine.
pub struct Checker<'a> {
    setup: &'a Setup,
    homeserver: Homeserver,
    user: OwnedUserId,
    device: OwnedDeviceId,
    /// The divisor of every timeout, for tests.
    speedup: u32,
}

impl<'a> Checker<'a> {
    /// Connects to the homeserver.
    pub async fn connect(setup: &'a Setup) -> Result<Self, Problem> {
        let homeserver = homeserver::connect(setup).await?;
        let server = &setup.config.homeserver.server_name;
        let user = UserId::parse(format!("@{CHECK_LOCALPART}:{server}"))
            .map_err(|error| Problem::new(error.to_string(), "correct homeserver.server_name"))?;
        // A new device each time: two processes that check at once must not delete each other's.
        let device = format!("CHECK{:08X}", rand::random::<u32>()).into();
        Ok(Self {
            setup,
            homeserver,
            user,
            device,
            speedup: 1,
        })
    }

    /// Returns the homeserver.
    pub fn homeserver(&self) -> Homeserver {
        self.homeserver.clone()
    }

    /// Deletes the device of the checks. If that fails, a device is left that nobody uses.
    pub async fn clean_up(&self) {
        let removed = self
            .homeserver
            .delete_device(&self.user, &self.device)
            .await;
        if let Err(error) = removed {
            tracing::debug!(%error, "the device of the checks stays behind");
        }
    }
}

/// Returns how long to wait before the `n`th retry.
pub fn retry_pause(n: u32) -> Duration {
    Duration::from_secs(1 << n.min(5))
}

#[cfg(test)]
mod tests;
