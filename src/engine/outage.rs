//! Tells an outage of the homeserver from a request at which it fails alone.
//!
//! After a failed request that it may fail at as a whole, the homeserver is asked who the bot is, and
//! to keep something for it: a homeserver whose disk is full can read and not write. One room asks at
//! a time, and the answer is good for all rooms for a moment. While the homeserver fails at one of
//! these too, no time runs for what is tried ([`super::retry`]).

use std::time::Duration;

use tokio::sync::Mutex;

use crate::{
    clock::Timestamp,
    engine::{Engine, EngineError},
    matrix::Actor,
};

/// How long an answer is good for.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// The last answer.
#[derive(Debug, Default)]
pub(super) struct OutageProbe(Mutex<Option<ProbeAnswer>>);

#[derive(Clone, Copy, Debug)]
struct ProbeAnswer {
    at: Timestamp,
    is_down: bool,
}

impl ProbeAnswer {
    fn is_good(self, now: Timestamp) -> bool {
        self.at <= now && now.since(self.at) < GOOD_FOR
    }
}

impl Engine {
    /// Returns the error that decides whether something is tried again: that the homeserver is down,
    /// if it is, or the error itself.
    pub(in crate::engine) async fn unless_outage(&self, error: EngineError) -> EngineError {
        if error.may_be_outage() && self.homeserver_is_down().await {
            return EngineError::HomeserverDown(Box::new(error));
        }
        error
    }

    /// Returns whether the homeserver fails as a whole, as of a moment ago.
    pub(in crate::engine) async fn homeserver_is_down(&self) -> bool {
        let mut last = self.0.outage_probe.0.lock().await;
        if let Some(answer) = last.filter(|answer| answer.is_good(self.now())) {
            return answer.is_down;
        }
        let bot = &self.settings().bot;
        let acting = self.find_user(bot).ok().flatten();
        let actor = acting
            .as_ref()
            .map_or(Actor::user(bot), |acting| acting.actor());
        let asking = async { Some(self.homeserver().is_down(actor).await) };
        // While the service stops, nothing is given up.
        let is_down = self.unless_stopping(asking).await.unwrap_or(true);
        let was_down = last.is_some_and(|answer| answer.is_down);
        if is_down != was_down {
            if is_down {
                tracing::warn!("the homeserver is down: what has to be done waits for it");
            } else {
                tracing::info!("the homeserver is back");
            }
        }
        let at = self.now();
        *last = Some(ProbeAnswer { at, is_down });
        is_down
    }
}

#[cfg(test)]
#[path = "outage_tests.rs"]
mod tests;
