//! The parts of a test that stand outside of the engine: a homeserver, people with clients, a clock.
//! The benchmarks include this folder.

mod crowd;
mod homeserver;
mod person;

pub(crate) use crowd::{claimed_devices, device_keys};
pub(crate) use homeserver::{FakeHomeserver, Held, Outage, When};
pub(crate) use person::{Person, encrypted_event};

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::{Clock, Timestamp};

/// A clock that a test sets.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn at(ms: u64) -> Self {
        Self(AtomicU64::new(ms))
    }

    pub(crate) fn advance(&self, by: std::time::Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}
