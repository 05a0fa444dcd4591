//! Stonechat: handles, and direct messages by handle, for a Matrix homeserver.
//!
//! A **handle** is a name by which an **owner** can be reached. A **ghost** is the Matrix user that
//! stands for a handle: it brings a person who starts a chat with it together with the owner, in an
//! ordinary encrypted room, and leaves. People look after their handles by writing to the
//! **bot**, each in a **control room** of their own.
//!
//! This page is the map of the house. A lower room never imports a higher one.
//!
//! | room | what lives there | open first |
//! |---|---|---|
//! | [`cli`] | one file per subcommand (`init`, `run`, `backup`, …), and the checks of the homeserver | [`cli::run`] |
//! | [`server`] | the application service API, what the module in Synapse asks, and the socket for the admin, over axum | [`server::router`] |
//! | [`engine`] | inbox → decide → outbox; the only place that runs things | [`engine::Engine`] |
//! | [`bot`] | what people type in their control room, and what they are told, one file per command: pure | [`bot::answer`] |
//! | [`introduction`] | how a ghost brings two people together: pure | [`introduction::decide`] |
//! | [`conversation`] | how people talk through a masked handle's ghost, from one room into another: pure | [`conversation::decide`] |
//! | [`relay`] | how an event is translated from one room into another, so that nothing in it names its sender: pure | [`relay::translate()`] |
//! | [`directory`] | who owns which handle, and who may reach whom | [`directory::Directory`], [`directory::DirectoryTransaction`] |
//! | [`crypto`] | one Olm machine per ghost, keys that nobody has, the crypto store | [`crypto::Machines`] |
//! | [`matrix`] | the homeserver: requests made as a ghost and its device, and what it pushes | [`matrix::Homeserver`] |
//! | [`store`] | typed tables over an embedded database; what durable means; backups | [`store::Store`] |
//! | [`metrics`] | what can be measured, and the calls that count it | [`metrics::catalogue`] |
//! | [`config`], [`permissions`], [`handle`], [`ids`], [`clock`], [`text`], [`shutdown`] | value types: what is parsed once and then cannot be wrong | [`handle::Handle`] |
//!
//! # The way of an event
//!
//! The homeserver pushes a transaction to [`server`]; [`engine`] writes it to the inbox and answers
//! 200 when it is durable. Each room has an actor that takes what arrived in order, decrypts it with
//! the machine of the ghost addressed ([`crypto`]), asks a decider what to do ([`introduction`],
//! [`conversation`], [`bot`]), writes the new state, the effects and "event done" in one batch ([`store`]), and
//! carries the effects out one by one through [`matrix`]. An effect that is done, or refused for
//! good, is the decider's next input.
//!
//! What the homeserver pushes is a hint and can get lost; its history is the truth. So ghosts also
//! ask for themselves, by `/sync` and `/messages`, and what comes that way goes through the same
//! inbox.
//!
//! # What holds everywhere
//!
//! * A decider does no I/O and knows no clock: time and randomness are handed in.
//! * Nothing that people write is on disk or in a log in clear: effects name events, and events
//!   wait as the ciphertext they came as.
//! * Nothing leaves before the state behind it is durable, or before a crash would lead to the same
//!   again, as with the messages of a conversation; and everything can be done twice: the
//!   transaction id of what is sent follows from ghost, room and event.
//! * There is one way to send what people write into a room, and it encrypts. (A reaction that came
//!   in clear, as all clients send them, is carried in clear.)
//! * Every field of every event is hostile, and everything that can grow has a bound.

#![recursion_limit = "512"]

pub mod bot;
pub mod cli;
pub mod clock;
pub mod config;
pub mod conversation;
pub mod crypto;
pub mod directory;
pub mod engine;
#[cfg(test)]
mod fuzzing;
pub mod handle;
pub mod ids;
pub mod introduction;
pub mod matrix;
pub mod metrics;
pub mod permissions;
pub mod relay;
pub mod server;
pub mod shutdown;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
