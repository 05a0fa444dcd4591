//! Time as a value. Deciders take a [`Timestamp`]; only the edge holds a [`Clock`], and lets time pass
//! by [`sleep`].

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, as Matrix counts them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns how long ago `earlier` was, or zero if it lies in the future.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Writes the time like `2026-11-23 16:40:07 UTC`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The year 10000, from which on there is no such form.
        const END: u64 = 253_402_300_800_000;
        let known = Some(self.0)
            .filter(|ms| *ms < END)
            .map(Duration::from_millis);
        let time = known.and_then(|since| std::time::UNIX_EPOCH.checked_add(since));
        let text = time.map(|time| humantime::format_rfc3339_seconds(time).to_string());
        let text = text.as_deref().and_then(|text| text.strip_suffix('Z'));
        match text.and_then(|text| text.split_once('T')) {
            Some((day, hour)) => write!(f, "{day} {hour} UTC"),
            None => f.write_str("an unknown time"),
        }
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, rhs: Duration) -> Timestamp {
        Timestamp(
            self.0
                .saturating_add(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, rhs: Duration) -> Timestamp {
        Timestamp(
            self.0
                .saturating_sub(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

/// A source of the time, for the edge.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Returns the current time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn now(&self) -> Timestamp {
        let elapsed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Timestamp(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Waits until this much time is over: the pause before a request is tried again, or between two
/// rounds. Code that waits for something to happen waits for that, with a limit.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where time alone is waited for"
)]
pub async fn sleep(pause: Duration) {
    tokio::time::sleep(pause).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_to_people_whatever_it_is() {
        assert_eq!(
            Timestamp(1_795_376_395_450).to_string(),
            "2026-11-22 19:39:55 UTC"
        );
        assert_eq!(Timestamp(0).to_string(), "1970-01-01 00:00:00 UTC");
        for beyond in [253_402_300_800_000, u64::MAX] {
            assert_eq!(Timestamp(beyond).to_string(), "an unknown time");
        }
    }
}
