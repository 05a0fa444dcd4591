//! The homeserver: our requests to it, and the transactions that it pushes.
//!
//! * [`Homeserver`] holds the application service's token. [`Homeserver::send`] makes any request
//!   of the client-server API as an [`Actor`]; the other methods are typed wrappers of the requests
//!   that Stonechat needs.
//! * [`MatrixError`] says whether a request may succeed later, and when to try again.
//! * [`transaction`] reads transactions. It skips single items that it cannot read, because the
//!   homeserver sends a refused transaction again until it is accepted, and nothing else before.
//! * [`json_stream`] reads JSON that strangers can make as large as they like, in bounded memory.
//!   [`bounds`] defines how large each item may be, and what happens to larger ones.
//!
//! Nothing here retries, apart from joins that come too early: the caller knows how long an answer
//! is worth waiting for.

mod about;
mod answer;
pub mod bounds;
mod devices;
mod endpoint;
mod ephemeral;
mod error;
pub mod event_type;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod homeserver;
pub mod json_stream;
mod lately_missing;
mod media;
mod missing_users;
mod room_state;
mod rooms;
mod sync;
mod timeline;
pub mod transaction;
mod upload_limit;
mod users;

#[cfg(test)]
mod media_tests;
#[cfg(test)]
mod proxy_tests;
#[cfg(test)]
mod tests;

pub use about::{ServerVersion, TurnCredentials};
pub use devices::{KEYS_ASKED_MAX, ToDeviceMessages};
pub use ephemeral::Receipt;
pub use error::{Fate, MatrixError};
pub use homeserver::{Actor, Homeserver, HomeserverOptions, install_crypto_provider};
pub use media::{FileLimits, MEDIA_BEGINS_WITHIN, is_media_type, longest_transfer};
pub use room_state::{MEGOLM, RoomState, RoomText, Rotation};
pub use rooms::JoinedMembers;
pub use sync::{JoinedRoom, SyncPage, SyncStream};
pub use timeline::{EventContext, Page};
pub use transaction::{Transaction, TransactionError};
