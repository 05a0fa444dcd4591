//! What Stonechat needs of its homeserver, looked at from both sides. `run` makes these checks when
//! it starts, `doctor` makes them and some more.

mod delivery;
mod homeserver;
mod module;
mod observer;

use std::{error::Error, time::Duration};

use ruma::{OwnedDeviceId, OwnedUserId, UserId};

pub use observer::Observer;

use crate::{
    config::{CHECK_LOCALPART, Setup},
    matrix::{Homeserver, MatrixError},
};

/// The lowest version of Synapse that the tests run against.
pub const LOWEST_SYNAPSE: &str = "1.163";

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub wrong: String,
    /// What to change.
    pub remedy: String,
    /// What the homeserver said in its own words, for a person who asks. It is not logged.
    pub server_message: Option<String>,
    /// Whether it may pass by itself: `run` waits then.
    pub is_transient: bool,
}

impl Problem {
    /// What waiting does not help.
    pub fn new(wrong: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            wrong: wrong.into(),
            remedy: remedy.into(),
            server_message: None,
            is_transient: false,
        }
    }

    /// Adds what the homeserver said in its own words.
    fn with_server_message(mut self, said: &str) -> Self {
        self.server_message = Some(said.to_owned());
        self
    }

    /// Of an error that has no better explanation.
    fn from_error(error: &MatrixError, remedy: impl Into<String>) -> Self {
        // The reason of the reason says most: "Connection refused" and not only "no answer".
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
            is_transient: error.is_transient(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.wrong, self.remedy)
    }
}

/// What was found, or what is wrong.
pub type CheckResult = Result<String, Problem>;

/// The homeserver and the user that the checks act as: one of our own, and never the bot, whose
/// devices and rooms are the engine's business.
pub struct Checker<'a> {
    setup: &'a Setup,
    homeserver: Homeserver,
    user: OwnedUserId,
    device: OwnedDeviceId,
    /// What every patience is divided by: tests cannot wait.
    speedup: u32,
}

impl<'a> Checker<'a> {
    /// Reaches the homeserver.
    pub async fn connect(setup: &'a Setup) -> Result<Self, Problem> {
        let homeserver = homeserver::connect(setup).await?;
        let server = &setup.config.homeserver.server_name;
        let user = UserId::parse(format!("@{CHECK_LOCALPART}:{server}"))
            .map_err(|error| Problem::new(error.to_string(), "correct homeserver.server_name"))?;
        // A fresh one for each time: two who check at once must not take away each other's.
        let device = format!("CHECK{:08X}", rand::random::<u32>()).into();
        Ok(Self {
            setup,
            homeserver,
            user,
            device,
            speedup: 1,
        })
    }

    /// The homeserver, for whoever goes on with it.
    pub fn homeserver(&self) -> Homeserver {
        self.homeserver.clone()
    }

    /// Puts away what the checks have made. Best effort: what stays is a device of a user that
    /// nobody talks to.
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

/// How long to wait before the `n`th try again.
pub fn retry_pause(n: u32) -> Duration {
    Duration::from_secs(1 << n.min(5))
}

#[cfg(test)]
mod tests;
