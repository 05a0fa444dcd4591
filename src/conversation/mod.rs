//! How a masked handle's ghost keeps a conversation going between rooms.
//!
//! Everything in this room is pure. [`decide`] returns what follows from an input of one of a
//! conversation's rooms; the engine carries the [`Effect`]s out. [`crate::relay`] translates a
//! single event from one room to another.

mod call_watch;
mod decide;
mod effect;
mod input;
mod notice;
mod room_names;
mod state;

#[cfg(test)]
mod tests;

pub use call_watch::{CallWatch, Missing, NoRelay, Side, Signs, signs};
pub use decide::{Decision, decide};
pub use effect::Effect;
pub use input::{EventKind, Input};
pub use notice::Notice;
pub use room_names::{names_at, names_to_remember};
pub use state::{Conversation, Home, OnceNotice, Participant, PortalStatus, RoomRole, Secret};
