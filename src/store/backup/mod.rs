//! Backups: how a running store is written to one stream, and how it is restored.
//!
//! # The stream
//!
//! A line that names the format and its version, the schema version (4 bytes), the number of the
//! run (8 bytes), and an HMAC of all this under the store's key (32 bytes), which shows a wrong key
//! at once. Then changes: a byte `P` (put) or `D` (delete), the length of the key (4 bytes), the
//! key, and for `P` the length of the value (4 bytes) and the value, as the database stores them:
//! secret values stay sealed. At the end `E`, the number of changes (8 bytes), and an HMAC-SHA256
//! of all that precedes it, under a key derived from the store's. Numbers are big endian.

pub(super) mod export;
pub(super) mod import;
mod restore;

use hkdf::hmac::{Hmac, Mac as _};
use sha2::Sha256;

pub use self::restore::{BackupContents, BackupInfo, REPLACED, Restored};
use super::{StoreError, StoreKey};

/// The first bytes of a backup.
pub(super) const MAGIC: &[u8; 20] = b"stonechat backup 1\r\n";
/// Length of an HMAC, in bytes.
pub(super) const MAC_BYTES: usize = 32;

/// The size of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupStats {
    /// The number of changes in the stream, which is at least the number of records.
    pub changes: u64,
}

pub(super) fn mac(key: &StoreKey) -> Result<Hmac<Sha256>, StoreError> {
    let key = key.derive(&[], &[b"stonechat backup"])?;
    Hmac::new_from_slice(key.as_slice()).map_err(|_| StoreError::Seal("a key could not be derived"))
}

fn failed(why: impl std::fmt::Display) -> StoreError {
    StoreError::Backup(why.to_string())
}
