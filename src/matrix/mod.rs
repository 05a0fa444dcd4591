//! The homeserver: requests made as one of our users and its device, and what it pushes to us.
//!
//! * [`Homeserver`] carries the application service's token. [`Homeserver::send`] makes any request
//!   of the client-server API as an [`Actor`]; the other methods are thin, typed names for the
//!   requests Stonechat needs.
//! * [`MatrixError`] knows whether trying again later makes sense, and how much later.
//! * [`transaction`] reads what the homeserver pushes. It is lenient per item, because a transaction
//!   that is refused comes back until it is accepted and holds up everything behind it.
//! * [`json_stream`] reads what strangers can make as large as they like, in bounded memory; [`bounds`]
//!   says how large each thing may be, and what becomes of what is larger.
//!
//! Nothing in here retries: whoever asks knows how long the answer is worth waiting for.

pub mod bounds;
mod devices;
mod ephemeral;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod homeserver;
pub mod json_stream;
mod media;
mod rooms;
mod sync;
mod timeline;
pub mod transaction;
mod users;

#[cfg(test)]
mod proxy_tests;
#[cfg(test)]
mod tests;

pub use devices::ToDeviceMessages;
pub use ephemeral::Receipt;
pub use error::{Fate, MatrixError};
pub use homeserver::{Actor, Homeserver, HomeserverOptions, install_crypto_provider};
pub use rooms::JoinedMembers;
pub use sync::{JoinedRoom, SyncPage, SyncStream};
pub use timeline::{Context, Page};
pub use transaction::{Transaction, TransactionError};
