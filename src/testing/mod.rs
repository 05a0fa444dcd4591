//! What tests of several folders share: an engine ([`engine`]), a homeserver ([`FakeHomeserver`]),
//! people with clients ([`Person`]), an application service without an engine ([`FakeAppservice`]),
//! and builders of events and records. The benchmarks read this file as well, without what stands on
//! the engine.

#[cfg(test)]
mod appservice;
#[cfg(test)]
mod builders;
#[cfg(test)]
mod conversation;
mod crowd;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod events;
mod homeserver;
mod person;

#[cfg(test)]
pub(crate) use appservice::{FakeAppservice, RecordedTransaction};
#[cfg(test)]
pub(crate) use builders::{alice, conversation, introduction, participant};
#[cfg(test)]
pub(crate) use conversation::{ConversationBuilder, ParticipantBuilder};
pub(crate) use crowd::{claimed_devices, device_keys};
#[cfg(test)]
pub(crate) use engine::{NOW, TestEngine, bot, engine};
#[cfg(test)]
pub(crate) use events::EventFactory;
pub(crate) use homeserver::{FakeHomeserver, Held, When};
pub(crate) use person::{Person, encrypted_event};

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    clock::{self, Clock, Timestamp},
    directory, handle, matrix, server,
};

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
