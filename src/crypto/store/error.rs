//! The errors of a ghost's crypto store.

use matrix_sdk_crypto::CryptoStoreError;
use thiserror::Error;

use crate::store::StoreError;

/// An error of a ghost's crypto store. It names kinds of records, never what is in them.
#[derive(Debug, Error)]
pub enum GhostStoreError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot be encoded.
    #[error("cannot write a crypto record of kind {kind}: {why}")]
    Encode {
        /// The kind of record.
        kind: &'static str,
        /// The encoder's message.
        why: String,
    },
    /// A record cannot be decoded.
    #[error("cannot read a crypto record of kind {kind}: {why}; run `stonechat doctor`")]
    Decode {
        /// The kind of record.
        kind: &'static str,
        /// The decoder's message.
        why: String,
    },
    /// The key that sealed a record is gone, or the record was changed.
    #[error("a crypto record of kind {kind} does not open: it was changed, or its key is gone")]
    Unseal {
        /// The kind of record.
        kind: &'static str,
    },
    /// The file with the keys of this ghost is missing or damaged.
    #[error(
        "the file shred.keys beside the database {why}; without it the encryption keys of ghosts \
         cannot be read: put back the file or restore a backup"
    )]
    KeysGone {
        /// What is wrong with the file.
        why: &'static str,
    },
    /// A call needs an account, and there is none yet.
    #[error("this ghost has no account yet")]
    NoAccount,
    /// A machine that was opened without the private half of its identity made another identity.
    #[error("a machine that signs nothing tried to save an identity; please report this")]
    NotToSign,
    /// This ghost's records were deleted while a machine still used them.
    #[error("this ghost's crypto records were deleted")]
    Wiped,
}

impl From<GhostStoreError> for CryptoStoreError {
    fn from(error: GhostStoreError) -> Self {
        match error {
            GhostStoreError::NoAccount => Self::AccountUnset,
            other => Self::backend(other),
        }
    }
}
