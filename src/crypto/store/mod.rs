//! The crypto stores of all ghosts, in one database.
//!
//! [`GhostStores`] knows which ghosts have records; [`GhostStore`] is what an Olm machine is given.
//! Everything that a machine saves in one call is one atomic batch. Every reader sees a call that
//! returned; it is durable with the next [`crate::store::Store::flush`], which the machines call
//! before they send anything encrypted or published. Outbound group sessions are not on disk while
//! they are in use (`outbound_sessions.rs`): a message in a room needs no flush.
//!
//! # How records are sealed
//!
//! Values are sealed with XChaCha20-Poly1305. Secret records (the account, sessions, the private
//! identity, …) are sealed under the keys of the ghost's ring (`key_ring.rs`); the ring under a key
//! made of the store's key and a key in the file `shred.keys` that [`GhostStore::rotate_epoch`]
//! replaces and destroys; other people's public keys under one that lasts as long as the ghost.
//! Rooms, people, devices and sessions appear in keys only as keyed hashes.

mod backup;
mod changes;
mod crypto_store;
mod error;
mod ghost;
mod ghost_store;
mod ghost_stores;
mod inbound_cache;
mod inbound_sessions;
mod key_ring;
mod key_rotation;
mod old_records;
mod olm_hashes;
mod outbound_sessions;
mod parked_keys;
mod reception;
mod record;
mod registry;
mod rival_sessions;
mod room_key_filter;
mod sealed_records;
mod shred_keys;

pub use self::{
    backup::{SAVED_IDENTITIES, SavedIdentity},
    error::GhostStoreError,
    ghost_store::GhostStore,
    ghost_stores::GhostStores,
};
pub(in crate::crypto) use self::{
    old_records::STRANGER_FOR,
    reception::while_receiving,
    room_key_filter::{RoomKeyFate, RoomKeyFilter},
};
#[cfg(test)]
pub(in crate::crypto) use self::{
    old_records::{OLM_UNUSED_FOR, SUPERSEDED_FOR},
    parked_keys::{PARKED_FOR, PARKED_MAX},
};

#[cfg(test)]
mod tests;
