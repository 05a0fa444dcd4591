//! Who sees what the homeserver pushes: this process, or the Stonechat that runs already.

use std::time::Duration;

use tokio::time::Instant;

use super::Problem;
use crate::{
    cli::{CliError, admin::RunningService},
    server::{self, SelfTest},
};

/// Sees what the homeserver pushes.
#[derive(Clone)]
pub enum Observer {
    /// The server of this process.
    Local(SelfTest),
    /// The Stonechat that has the data folder open. It is asked on its admin socket: whatever
    /// listens on the port of a Stonechat that is down must not be shown a token.
    Running(RunningService),
}

impl Observer {
    /// Whether a mark comes, and how many transactions have come so far.
    pub async fn wait_for_mark(
        &self,
        mark: &str,
        at_most: Duration,
    ) -> Result<(bool, u64), Problem> {
        match self {
            Self::Local(test) => {
                let seen = test.wait_for_mark(mark, at_most).await;
                Ok((seen, test.transaction_count()))
            }
            Self::Running(running) => {
                let until = Instant::now() + at_most;
                loop {
                    let pushed = running
                        .mark_status(mark)
                        .await
                        .map_err(|error| cannot_ask(&error))?;
                    if pushed.seen || Instant::now() >= until {
                        return Ok((pushed.seen, pushed.transactions));
                    }
                }
            }
        }
    }

    /// What the module in the homeserver has reported, as soon as there were more than `after`
    /// reports, or else after some seconds.
    pub async fn wait_for_report(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<server::ModuleStatus, Problem> {
        match self {
            Self::Local(test) => Ok(test.module().wait_for_report(after, at_most).await),
            Self::Running(running) => {
                let until = Instant::now() + at_most;
                loop {
                    let seen = running
                        .module_status(after)
                        .await
                        .map_err(|error| cannot_ask(&error))?;
                    if seen.reports > after || Instant::now() >= until {
                        return Ok(seen);
                    }
                }
            }
        }
    }
}

fn cannot_ask(error: &CliError) -> Problem {
    Problem::new(
        format!("the Stonechat that runs cannot be asked: {error}"),
        "restart it if it is of another version, and try again",
    )
}
