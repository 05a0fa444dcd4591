//! The keys of ghosts and the bot: one Olm machine each, or published keys whose private halves
//! nobody has.
//!
//! [`Machines`] is the entry point:
//!
//! | to | call |
//! |---|---|
//! | create a ghost that reads and writes | [`Machines::provision`] |
//! | create a ghost that does neither | [`Machines::provision_keyless`], [`Machines::provision_bare`] |
//! | let a ghost enter a room | [`Machines::expect_room`], [`Machines::mark_device_lists_outdated`] |
//! | receive what came for its device | [`Machines::receive_and_respond`] |
//! | decrypt | [`Machines::decrypt`] |
//! | encrypt | [`Machines::encrypt`] |
//! | get a lost room key once more | [`Machines::renew_olm_sessions`] |
//! | forget a room it has left | [`Machines::forget_room`] |
//! | delete what is needed no longer | [`Machines::sweep`] |
//! | give its handle to a new owner | [`Machines::retire`], then provision |
//! | give it a new device after a restore | [`Machines::rotate_device`] |
//! | make one ours again that changed after the backup | [`Machines::take_over`] |
//! | make it again if the homeserver does not have it | [`Machines::restore_on_homeserver`] |
//! | find those whose keys the homeserver lost | [`Machines::users_with_lost_keys`] |
//!
//! # What holds
//!
//! * A ghost has at most one machine in memory; two would fork its ratchets. No task holds the
//!   machine while it waits for an answer, so a slow server delays nothing else of the ghost.
//! * A person with more devices than [`SIGNED_DEVICES_MAX`] is told so, and does not slow others
//!   down.
//! * A server that does not say which devices its people have is asked once while somebody waits, and
//!   then in the background (`silent_servers`).
//! * No ciphertext and no key is sent before the state behind it is durable.
//! * Only devices signed by their owner get room keys from us, and only messages from such devices
//!   are accepted.
//! * A ghost keeps only the keys of rooms it is in, or about to enter. Those that come a little
//!   before their room is expected are parked for five minutes.
//! * A keyless ghost's private keys exist in memory for a moment, and nowhere else.

mod account;
mod decrypt;
mod device_list_cache;
mod device_lists;
mod encrypt;
mod error;
mod forget;
mod keyless;
mod lenient;
mod loading;
mod locks;
mod lost_keys;
mod machines;
mod outgoing_requests;
mod provision;
mod record;
mod renew_sessions;
mod replay_guard;
mod restore_user;
mod rotate_device;
mod silent_servers;
mod slot;
mod split_request;
pub mod store;
mod sweep;
mod take_over;
mod to_device;

#[cfg(test)]
mod tests;

pub use decrypt::Decrypted;
pub use device_lists::SIGNED_DEVICES_MAX;
pub use encrypt::EncryptTo;
pub use error::{CryptoError, DecryptError, Distrust, EncryptError};
#[cfg(test)]
pub(crate) use lenient::parse_leniently;
pub use machines::{MachineSettings, Machines};
pub use record::{GhostKind, ready_devices};
pub use rotate_device::DeviceRotation;
pub use to_device::{IncomingCrypto, NewRoomKey};
