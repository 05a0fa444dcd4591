//! How long a room tries again what fails, and how long it pauses.

use std::time::Duration;

use crate::engine::{EngineError, room::Room};

/// The first pause after a failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause where a key is missing.
const KEY_PAUSE: Duration = Duration::from_secs(2);
/// For how long an event is tried that cannot be handled.
pub(super) const INSIST: Duration = Duration::from_secs(2 * 60);

impl Room {
    /// Whether an item has failed for so long, with an answer, that it will not succeed. A
    /// homeserver that was away, or that we were away from, is given its time again.
    pub(super) fn has_insisted(
        &mut self,
        number: u64,
        at_most: Duration,
        error: &EngineError,
    ) -> bool {
        if !error.exhausts_patience() {
            self.failing = None;
            return false;
        }
        let now = self.engine.now();
        match self.failing {
            Some((failing, since)) if failing == number => now.since(since) > at_most,
            _ => {
                self.failing = Some((number, now));
                false
            }
        }
    }

    pub(super) fn pause_after(&mut self, error: &EngineError) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10).saturating_sub(1));
        let longest = match error {
            EngineError::KeyOnItsWay
            | EngineError::CounterpartOnItsWay
            | EngineError::NotThereYet => KEY_PAUSE,
            _ => LONGEST_PAUSE,
        };
        error
            .retry_after()
            .unwrap_or(doubled)
            .clamp(FIRST_PAUSE, longest)
    }
}
