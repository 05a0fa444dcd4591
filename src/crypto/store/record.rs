//! Kinds of crypto records, and their keys.
//!
//! A key is: table, ghost (4 bytes), kind (1 byte), then parts. A part that names a room, a
//! person, a device or a session is hashed with a key of the ghost, so that the file does not say
//! in clear whom a ghost talked to; the parts of one room still stand together and can be
//! scanned.

use hkdf::hmac::{Hmac, Mac};
use serde::{Serialize, de::DeserializeOwned};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::GhostStoreError;
use crate::store::{Subkey, decode_failure};

/// The table of all crypto records.
pub(super) const TABLE: u8 = 4;
/// Number of bytes of a hashed part.
pub(super) const PART: usize = 16;

/// A kind of record: its byte in the key, its name in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) byte: u8,
    pub(super) name: &'static str,
    /// Whether it is sealed under the key that lasts as long as the ghost: what others publish
    /// about themselves. The rest is sealed under the keys of the ghost's ring.
    pub(super) lasting: bool,
}

const fn secret(byte: u8, name: &'static str) -> Kind {
    Kind {
        byte,
        name,
        lasting: false,
    }
}

const fn lasting(byte: u8, name: &'static str) -> Kind {
    Kind {
        byte,
        name,
        lasting: true,
    }
}

pub(super) const ACCOUNT: Kind = secret(b'a', "account");
pub(super) const PRIVATE_IDENTITY: Kind = secret(b'p', "private identity");
pub(super) const NEXT_BATCH: Kind = lasting(b'n', "sync token");
pub(super) const BACKUP_KEY: Kind = secret(b'k', "backup key");
pub(super) const BACKUP_VERSION: Kind = lasting(b'v', "backup version");
pub(super) const DEHYDRATED: Kind = secret(b'y', "dehydrated device key");
/// Sender key, session id.
pub(super) const OLM: Kind = secret(b'S', "olm session");
/// Room, session id.
pub(super) const INBOUND: Kind = secret(b'I', "inbound group session");
/// Room, session id, sender key. A session of which the key of another device is in use.
pub(super) const RIVAL: Kind = secret(b'J', "rival group session");
/// Room, session id, sender key. A key that came before its room was expected.
pub(super) const PARKED: Kind = secret(b'P', "parked room key");
/// Room, session id. A session that is deleted, and of which messages were decrypted: its key is not
/// accepted again. The value is empty and unsealed.
pub(super) const DONE: Kind = lasting(b'z', "session that is done");
/// Sender key, session id → the key of the inbound group session, its sender data type, and its
/// place among those of the device.
pub(super) const BY_DEVICE: Kind = lasting(b'D', "group session of a device");
/// Room, session id → the backup version it is in.
pub(super) const BACKED_UP: Kind = lasting(b'B', "backed up session");
/// Room. The number of the run that wrote it stands first.
pub(super) const OUTBOUND: Kind = secret(b'O', "outbound group session");
/// User, device.
pub(super) const DEVICE: Kind = lasting(b'd', "device");
/// User.
pub(super) const IDENTITY: Kind = lasting(b'i', "identity");
/// User.
pub(super) const TRACKED: Kind = lasting(b't', "tracked user");
/// Generation (4 bytes), hash of sender key and message hash. The value is empty and unsealed.
pub(super) const OLM_HASH: Kind = lasting(b'h', "olm message hash");
/// Request id.
pub(super) const REQUEST: Kind = secret(b'r', "secret request");
/// Info → request id.
pub(super) const REQUEST_BY_INFO: Kind = secret(b'R', "secret request by its info");
/// Secret name, hash of the secret.
pub(super) const SECRET: Kind = secret(b's', "received secret");
/// Room, session id.
pub(super) const WITHHELD: Kind = secret(b'w', "withheld key");
/// Room.
pub(super) const ROOM_SETTINGS: Kind = lasting(b'e', "room settings");
/// Room, user.
pub(super) const BUNDLE: Kind = secret(b'x', "room key bundle");
/// Room.
pub(super) const PENDING_BUNDLE: Kind = secret(b'q', "pending room key bundle");
/// Room.
pub(super) const DOWNLOADED: Kind = lasting(b'f', "downloaded room");
/// Name.
pub(super) const CUSTOM: Kind = secret(b'c', "custom value");

/// The keys under which the secret records are sealed.
pub(super) const RING: Kind = secret(b'g', "key ring");

/// The secret kinds whose first part is a room.
pub(super) const ROOM_KINDS: &[Kind] =
    &[INBOUND, RIVAL, OUTBOUND, WITHHELD, BUNDLE, PENDING_BUNDLE];
/// The secret kinds whose first part is a device.
pub(super) const DEVICE_KINDS: &[Kind] = &[OLM];
/// The secret kinds of which a ghost has few records at a time.
pub(super) const PARKED_KINDS: &[Kind] = &[PARKED];
/// The other secret kinds.
pub(super) const OTHER_SECRET_KINDS: &[Kind] = &[
    ACCOUNT,
    PRIVATE_IDENTITY,
    BACKUP_KEY,
    DEHYDRATED,
    REQUEST,
    REQUEST_BY_INFO,
    SECRET,
    CUSTOM,
];
/// All kinds.
#[cfg(test)]
pub(super) const ALL_KINDS: [Kind; 28] = [
    ACCOUNT,
    PRIVATE_IDENTITY,
    NEXT_BATCH,
    BACKUP_KEY,
    BACKUP_VERSION,
    DEHYDRATED,
    OLM,
    INBOUND,
    RIVAL,
    PARKED,
    DONE,
    BY_DEVICE,
    BACKED_UP,
    OUTBOUND,
    DEVICE,
    IDENTITY,
    TRACKED,
    OLM_HASH,
    REQUEST,
    REQUEST_BY_INFO,
    SECRET,
    WITHHELD,
    ROOM_SETTINGS,
    BUNDLE,
    PENDING_BUNDLE,
    DOWNLOADED,
    CUSTOM,
    RING,
];
/// The place of the kind in a key: after table and ghost.
pub(super) const KIND_AT: usize = 1 + 4;

/// Returns the part of a key at a place, such as its room.
pub(super) fn part_at(key: &[u8], place: usize) -> &[u8] {
    let begin = KIND_AT + 1 + place * PART;
    key.get(begin..begin + PART).unwrap_or_default()
}

/// Returns the room and the session in the key of an inbound group session or a rival of one.
pub(super) fn room_and_session(key: &[u8]) -> &[u8] {
    key.get(KIND_AT + 1..KIND_AT + 1 + 2 * PART)
        .unwrap_or_default()
}

/// Returns the prefix of every key of a ghost.
pub(super) fn ghost_prefix(ghost: u32) -> Vec<u8> {
    let mut key = vec![TABLE];
    key.extend_from_slice(&ghost.to_be_bytes());
    key
}

/// Makes the keys of one ghost.
pub(super) struct Keys {
    ghost: u32,
    hash: Hmac<Sha256>,
}

impl Keys {
    pub(super) fn new(ghost: u32, key: &Subkey) -> Option<Self> {
        Some(Self {
            ghost,
            hash: Hmac::new_from_slice(key.as_slice()).ok()?,
        })
    }

    /// Returns the key of a kind and parts, or a prefix of keys.
    pub(super) fn of(&self, kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = ghost_prefix(self.ghost);
        key.push(kind.byte);
        for (place, part) in (0u8..).zip(parts) {
            key.extend_from_slice(&self.part(kind, place, part));
        }
        key
    }

    pub(super) fn part(&self, kind: Kind, place: u8, part: &[u8]) -> [u8; PART] {
        // A session has the same hash in every kind, so that an index can point, and a room in
        // those of its sessions; other rooms and people do not.
        let kind = match kind {
            BY_DEVICE if place == 1 => INBOUND,
            BACKED_UP | RIVAL => INBOUND,
            other => other,
        };
        let mut hash = self.hash.clone();
        hash.update(&[kind.byte, place]);
        hash.update(part);
        let mut out = [0; PART];
        out.copy_from_slice(&hash.finalize().into_bytes()[..PART]);
        out
    }
}

/// Returns the bytes of a value.
pub(super) fn encode<T: Serialize>(
    kind: Kind,
    value: &T,
) -> Result<Zeroizing<Vec<u8>>, GhostStoreError> {
    rmp_serde::to_vec_named(value)
        .map(Zeroizing::new)
        .map_err(|e| GhostStoreError::Encode {
            kind: kind.name,
            why: e.to_string(),
        })
}

/// Returns the value of bytes made by [`encode`].
pub(super) fn decode<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, GhostStoreError> {
    rmp_serde::from_slice(bytes).map_err(|e| GhostStoreError::Decode {
        kind: kind.name,
        why: decode_failure(&e),
    })
}

/// Like [`encode`], for types that hold raw JSON.
pub(super) fn encode_json<T: Serialize>(
    kind: Kind,
    value: &T,
) -> Result<Zeroizing<Vec<u8>>, GhostStoreError> {
    serde_json::to_vec(value)
        .map(Zeroizing::new)
        .map_err(|e| GhostStoreError::Encode {
            kind: kind.name,
            why: e.to_string(),
        })
}

/// Returns the value of bytes made by [`encode_json`].
pub(super) fn decode_json<T: DeserializeOwned>(
    kind: Kind,
    bytes: &[u8],
) -> Result<T, GhostStoreError> {
    // serde_json's own words may quote a part of the value.
    serde_json::from_slice(bytes).map_err(|e| {
        let why = format!("not the JSON expected, at byte {}", e.column());
        GhostStoreError::Decode {
            kind: kind.name,
            why,
        }
    })
}

/// Returns the error of a record that cannot be read. It never holds the value.
pub(super) fn broken(kind: Kind, error: &dyn std::fmt::Display) -> GhostStoreError {
    GhostStoreError::Decode {
        kind: kind.name,
        why: error.to_string(),
    }
}
