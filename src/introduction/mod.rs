//! How an open handle's ghost brings two people together and leaves.
//!
//! Everything in this room is pure. The engine feeds [`decide`] what happened in a room and carries
//! out the [`Effect`]s in order; each effect that is done, or refused for good, comes back as an
//! [`Input`]. An [`Introduction`] holds ids and times, never what people write.
//!
//! # The life of an introduction
//!
//! ```text
//! Invited ─▶ Declining ─▶ Over                                  not now, or not claimed
//!    │
//!    ▼
//! Joining ─▶ Looking ─▶ Listening ─▶ Inviting ─▶ Lingering ─▶ Leaving ─▶ Over
//!               │  ▲        │            ▲  │            ▲
//!        encryption on      └─▶ Asking ──┘  └─▶ Waiting ─┘   owner not joined, or no signed device
//!                               the owner wants to be asked first
//! ```
//!
//! The order is what the promise rests on: the opening line is taken, the owner invited, the line
//! passed on, and only then does the ghost leave; what falls between the invite and the leaving is
//! passed on too, since nobody can tell whether the owner got its key.

mod decide;
mod effect;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gist;
mod group;
mod input;
mod notice;
mod pending;
mod quote;
mod rules;
mod state;

#[cfg(test)]
mod tests;

pub use decide::{Decision, decide, decide_in_room};
pub use effect::{Effect, EffectKind};
pub use gist::gist;
pub use input::{Input, MessageKind, Refusal};
pub use notice::{IntroductionNotice, Reason};
pub use pending::PendingEvent;
pub use quote::{Quote, QuoteError, check_quotable, quote, quote_edit};
pub use rules::Rules;
pub use state::{Admission, GroupRole, Introduction, Invite, InviteRetry, Phase, WaitFor};

pub use crate::text::clean_name;
