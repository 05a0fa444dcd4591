//! The process that receives the homeserver's pushes: this one, or a running Stonechat.

use std::time::Duration;

use tokio::time::Instant;

use super::Problem;
use crate::{
    cli::{CliError, admin::RunningService},
    server::{self, SelfTest},
};

/// The receiver of the homeserver's pushes.
#[derive(Clone)]
pub enum Observer {
    /// The server of this process.
    Local(SelfTest),
    /// The Stonechat that has the data folder open. It is asked on its admin socket: if it is down,
    /// another program may listen on its port, and must not be shown a token.
    Running(RunningService),
}

impl Observer {
    /// Waits for a mark. Returns whether it came, and how many transactions have come so far.
    pub async fn wait_for_mark(
        &self,
        mark: &str,
        timeout: Duration,
    ) -> Result<(bool, u64), Problem> {
        match self {
            Self::Local(test) => {
                let seen = test.wait_for_mark(mark, timeout).await;
                Ok((seen, test.transaction_count()))
            }
            Self::Running(running) => {
                let until = Instant::now() + timeout;
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

    /// Returns the module's reports once it has been called more than `after` times for rooms of the
    /// checks, or after the timeout.
    pub async fn wait_for_call(
        &self,
        after: u64,
        timeout: Duration,
    ) -> Result<server::ModuleStatus, Problem> {
        match self {
            Self::Local(test) => Ok(test.module().wait_for_call(after, timeout).await),
            Self::Running(running) => {
                let until = Instant::now() + timeout;
                loop {
                    let seen = running
                        .module_status(after)
                        .await
                        .map_err(|error| cannot_ask(&error))?;
                    if seen.calls > after || Instant::now() >= until {
                        return Ok(seen);
                    }
                }
            }
        }
    }
}

fn cannot_ask(error: &CliError) -> Problem {
    Problem::new(
        format!("the running Stonechat cannot be asked: {error}"),
        "restart it if it is of another version, and try again",
    )
}
