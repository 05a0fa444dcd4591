//! What the homeserver knows, and what it answers to a request that has come through.

mod account;
mod create;
mod device;
mod event;
mod federation;
pub mod keys;
mod reuse;
mod room;
mod route;
mod server;
mod setup;
mod state;
mod sync;
mod timeline;

pub use device::{Device, Mail, Message};
pub use event::{Event, Shape};
pub use federation::{Arrival, Cut};
pub use reuse::Firsts;
pub use room::{Receipt, Room};
pub use route::{Answer, Ask};
pub use server::{Account, Draft, Registration, Server, now};
pub use setup::Incoming;

pub(crate) use sync::brings_something;
