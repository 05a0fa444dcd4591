//! The keys of ghosts and bot: one Olm machine each, or keys that nobody has.
//!
//! [`Machines`] is the whole of it:
//!
//! | to | call |
//! |---|---|
//! | make a ghost that reads and writes | [`Machines::provision`] |
//! | make a ghost that does neither | [`Machines::provision_keyless`], [`Machines::provision_bare`] |
//! | say that a ghost enters a room | [`Machines::expect_room`], [`Machines::mark_device_lists_outdated`] |
//! | take in what came for its device | [`Machines::receive_and_respond`] |
//! | read | [`Machines::decrypt`] |
//! | write | [`Machines::encrypt`] |
//! | forget a room it has left | [`Machines::forget_room`] |
//! | give the handle to somebody else | [`Machines::retire`], then provision |
//! | come back from a backup | [`Machines::rotate_device`] |
//!
//! # What holds
//!
//! * A ghost has at most one machine in memory; two would fork its ratchets. Nobody holds it while
//!   somebody is asked, so that a slow server keeps nothing else of the ghost waiting.
//! * A person with more devices than [`MAX_SIGNED_DEVICES`] is told so, and costs others nothing.
//! * Nothing that was encrypted and no key leaves before the state behind it is durable.
//! * Only devices signed by their owner get room keys from us, and only such devices are heard.
//! * A ghost keeps the keys of rooms it is in, or about to enter, and of no others.
//! * A keyless ghost's private keys exist for a moment in memory and nowhere else.

mod account;
mod decrypt;
mod device_list_cache;
mod device_lists;
mod encrypt;
mod error;
mod forget;
mod keyless;
mod locks;
mod machines;
mod outgoing_requests;
mod provision;
mod record;
mod replay_guard;
mod rotate_device;
mod slot;
mod split_request;
pub mod store;
mod to_device;

#[cfg(test)]
mod tests;

pub use decrypt::Decrypted;
pub use device_lists::MAX_SIGNED_DEVICES;
pub use encrypt::EncryptTo;
pub use error::{CryptoError, DecryptError, Distrust, EncryptError};
pub use machines::{MachineSettings, Machines};
pub use record::GhostKind;
pub use rotate_device::DeviceRotation;
pub use to_device::{IncomingCrypto, NewRoomKey};
