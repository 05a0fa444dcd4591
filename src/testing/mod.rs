//! What tests of several folders share: an engine ([`engine`]), a handle of the fake homeserver
//! ([`FakeHomeserver`]), people with clients ([`Person`]), an application service without an engine
//! ([`FakeAppservice`]), and builders of events and records.

mod appservice;
mod builders;
mod conversation;
mod engine;
mod events;
mod peers;

pub(crate) use appservice::{FakeAppservice, RecordedTransaction};
pub(crate) use builders::{
    alice, conversation, introduction, let_everybody_claim, participant, person,
};
pub(crate) use conversation::{ConversationBuilder, ParticipantBuilder};
pub(crate) use engine::{NOW, TestEngine, bot, engine};
pub(crate) use events::EventFactory;
pub(crate) use peers::{
    FakeHomeserver, Held, Outage, Person, TestClock, When, claimed_devices, encrypted_event,
};

// `appservice` names them by `super::`, since a benchmark includes that file as well.
use crate::{clock, directory, handle, ids, matrix, server};
