//! How a masked handle's ghost carries a conversation between rooms, so that neither side sees the
//! other's Matrix ID.
//!
//! Everything in this room is pure. [`decide`] says what follows from what happened in one of a
//! conversation's rooms; the engine carries the [`Effect`]s out.

mod call;
mod call_watch;
mod carried;
mod decide;
mod decide_rooms;
#[cfg(test)]
mod decide_tests;
mod event;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gate;
mod html;
mod html_attributes;
mod html_pieces;
mod identifiers;
mod link;
mod message;
mod naming;
#[cfg(any(test, fuzzing))]
mod oracle;
mod passage;
mod pseudonym;
mod reading;
mod relation;
mod saying;
mod scrub;
mod sdp;
mod state;

#[cfg(test)]
mod tests;

pub use call::{ages, has_relay};
pub use call_watch::{CallWatch, Missing, NoRelay, Side, Signs, signs};
pub use carried::{CannotCarry, Carried, Reload, Remark};
pub use decide::decide;
pub use event::carry;
pub use naming::{NAME_AT_MOST, Names, TOPIC_AT_MOST, carry_text, to_remember};
pub use passage::{Counterparts, Passage, Person};
pub use saying::Saying;
pub use state::{
    Conversation, Decision, Effect, Heard, Input, Participant, Place, Seat, Secret, Standing,
};
