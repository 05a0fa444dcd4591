//! The errors of keys, and what they mean for the caller.

use matrix_sdk_crypto::{CryptoStoreError, OlmError};
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId};

use super::store::GhostStoreError;
use crate::{
    clock::Timestamp,
    matrix::{Fate, MatrixError},
    store::StoreError,
};

/// An error of a ghost's keys.
#[derive(Debug, thiserror::Error)]
pub enum CryptoError {
    /// The homeserver failed or refused.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ghost's crypto records failed.
    #[error(transparent)]
    GhostStore(#[from] GhostStoreError),
    /// The Olm machine failed.
    #[error("the encryption library failed: {0}")]
    Olm(String),
    /// The user, or a key of it, is not ours. Freeze the handle and tell the admin.
    #[error("{user} is not ours alone: {what}; find out who else uses the name before going on")]
    Foreign {
        /// The ghost.
        user: OwnedUserId,
        /// What was found.
        what: &'static str,
    },
    /// The ghost has no keys, or no longer any.
    #[error("{user} has no keys yet; provision it first")]
    NotProvisioned {
        /// The ghost.
        user: OwnedUserId,
    },
    /// The ghost has keys of the other kind. Retire it first.
    #[error("{user} has keys of another kind; retire it first")]
    OtherKind {
        /// The ghost.
        user: OwnedUserId,
    },
    /// Our record says that the ghost has keys, but the crypto store has others or none.
    #[error("the private keys of {user} are gone from the store; restore a backup or retire it")]
    KeysLost {
        /// The ghost.
        user: OwnedUserId,
    },
    /// Other work kept changing the ghost's keys during this call. Try again.
    #[error("the keys of {user} kept changing; trying again")]
    Busy {
        /// The ghost.
        user: OwnedUserId,
    },
    /// Everything was uploaded, but the homeserver does not show it.
    #[error("the homeserver does not show the keys of {user} as uploaded: {what}")]
    NotAsUploaded {
        /// The ghost.
        user: OwnedUserId,
        /// What is missing.
        what: &'static str,
    },
}

impl CryptoError {
    /// Returns what this error says about trying again.
    pub fn fate(&self) -> Fate {
        match self {
            Self::Matrix(error) => error.fate().of_work(),
            Self::Busy { .. }
            | Self::NotAsUploaded { .. }
            | Self::Store(_)
            | Self::GhostStore(_) => Fate::Failing,
            _ => Fate::Final,
        }
    }

    /// Returns `true` if trying again later makes sense.
    pub fn is_transient(&self) -> bool {
        self.fate() != Fate::Final
    }

    /// Returns `true` if the store answers nothing more, as opposed to one record in it.
    pub fn is_store_down(&self) -> bool {
        match self {
            Self::Store(error) | Self::GhostStore(GhostStoreError::Store(error)) => error.is_down(),
            _ => false,
        }
    }
}

impl From<CryptoStoreError> for CryptoError {
    fn from(error: CryptoStoreError) -> Self {
        let CryptoStoreError::Backend(error) = error else {
            return Self::Olm(error.to_string());
        };
        match error.downcast::<GhostStoreError>().map(|error| *error) {
            // The database is down: that is not about the message or the record, and passes.
            Ok(GhostStoreError::Store(error)) if error.is_down() => Self::Store(error),
            Ok(error) => Self::Olm(error.to_string()),
            Err(error) => Self::Olm(error.to_string()),
        }
    }
}

impl From<OlmError> for CryptoError {
    fn from(error: OlmError) -> Self {
        match error {
            OlmError::Store(error) => error.into(),
            error => Self::Olm(error.to_string()),
        }
    }
}

/// Why an event was not decrypted.
#[derive(Debug, thiserror::Error)]
pub enum DecryptError {
    /// Its key has not arrived, at least not from a device of its sender. Keep the ciphertext and try
    /// again when it does.
    #[error("the key of session {session_id} has not arrived")]
    NoKey {
        /// The id of the session.
        session_id: String,
    },
    /// The key we were given begins after this message.
    #[error("the key of session {session_id} begins after this message")]
    KeyBeginsLater {
        /// The id of the session.
        session_id: String,
    },
    /// The sender's server did not return their devices.
    #[error("the sender's server did not answer: {server}")]
    SenderUnknown {
        /// The server.
        server: OwnedServerName,
        /// Since when no message of its people can be read because of that.
        since: Timestamp,
    },
    /// The sender has not signed the device, even after a new query.
    #[error("the message does not come from a device that its sender has signed: {0}")]
    Untrusted(Distrust),
    /// The ciphertext was decrypted before, in another event.
    #[error("the message was sent before")]
    Replayed {
        /// The event in which it came first, unless that is too long ago.
        first: Option<OwnedEventId>,
    },
    /// The payload is valid JSON that we cannot read: it nests too deeply, or has too large a number.
    #[error("the payload is beyond what we read")]
    NotUnderstood,
    /// The event is not a Megolm message, or a damaged one.
    #[error("the event is malformed: {0}")]
    Malformed(&'static str),
    /// An error that is not about the event.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl DecryptError {
    /// Returns the name under which it is counted; `None` if it is not about the event.
    pub fn reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoKey { .. } => "no_key",
            Self::KeyBeginsLater { .. } => "key_begins_later",
            Self::SenderUnknown { .. } => "sender_unknown",
            Self::Untrusted(Distrust::UnknownDevice) => "unknown_device",
            Self::Untrusted(Distrust::UnsignedDevice) => "unsigned_device",
            Self::Untrusted(Distrust::ChangedIdentity) => "changed_identity",
            Self::Untrusted(Distrust::TooManyDevices) => "too_many_devices",
            Self::Replayed { .. } => "replayed",
            Self::NotUnderstood => "not_understood",
            Self::Malformed(_) => "malformed",
            Self::Crypto(_) => return None,
        })
    }
}

/// What is wrong with a sender's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// The sender has no such device.
    UnknownDevice,
    /// The sender has not signed the device.
    UnsignedDevice,
    /// The sender's identity changed after it had been verified.
    ChangedIdentity,
    /// The sender has more devices than are checked.
    TooManyDevices,
}

impl std::fmt::Display for Distrust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnknownDevice => "the sender has no such device",
            Self::UnsignedDevice => "the sender has not signed the device",
            Self::ChangedIdentity => "the sender's identity changed after it had been verified",
            Self::TooManyDevices => "the sender has too many devices",
        })
    }
}

/// Why an event was not encrypted. Nothing has been sent.
#[derive(Debug, thiserror::Error)]
pub enum EncryptError {
    /// These people have no device that they have signed, so they could not read it.
    #[error("no device signed by its owner: {}", list(users))]
    NoSignedDevice {
        /// These people.
        users: Vec<OwnedUserId>,
    },
    /// The homeservers of these people did not return their devices. Try again later.
    #[error("their homeserver does not answer: {}", list(users))]
    KeysUnknown {
        /// These people.
        users: Vec<OwnedUserId>,
    },
    /// These people have signed devices, but none with a key left to begin a session. Try again
    /// later.
    #[error("no key to begin an encrypted session with: {}", list(users))]
    NoSession {
        /// These people.
        users: Vec<OwnedUserId>,
    },
    /// These people have more devices than may get room keys. The event can be encrypted for the
    /// others without them.
    #[error("too many signed devices: {}", list(users))]
    TooManyDevices {
        /// These people.
        users: Vec<OwnedUserId>,
    },
    /// An error that is not about the recipients.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl EncryptError {
    /// Returns what this error says about trying again.
    pub fn fate(&self) -> Fate {
        match self {
            Self::NoSignedDevice { .. } | Self::TooManyDevices { .. } => Fate::Final,
            Self::KeysUnknown { .. } | Self::NoSession { .. } => Fate::Failing,
            Self::Crypto(error) => error.fate(),
        }
    }

    /// Returns `true` if trying again later makes sense.
    pub fn is_transient(&self) -> bool {
        self.fate() != Fate::Final
    }

    /// Returns `true` if it is about people who cannot read now, but may later. People with too
    /// many devices do not count.
    pub fn is_about_readers(&self) -> bool {
        matches!(
            self,
            Self::NoSignedDevice { .. } | Self::KeysUnknown { .. } | Self::NoSession { .. }
        )
    }
}

impl<E: Into<CryptoErrorSource>> From<E> for EncryptError {
    fn from(error: E) -> Self {
        Self::Crypto(error.into().0)
    }
}

impl<E: Into<CryptoErrorSource>> From<E> for DecryptError {
    fn from(error: E) -> Self {
        Self::Crypto(error.into().0)
    }
}

/// An error of a lower module, which `?` converts into the errors of this one.
pub struct CryptoErrorSource(CryptoError);

macro_rules! sources {
    ($($error:ty),*) => {$(
        impl From<$error> for CryptoErrorSource {
            fn from(error: $error) -> Self {
                Self(error.into())
            }
        }
    )*};
}
sources!(
    MatrixError,
    StoreError,
    GhostStoreError,
    CryptoStoreError,
    OlmError
);

fn list(users: &[OwnedUserId]) -> String {
    users
        .iter()
        .map(|user| user.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_down_says_nothing_about_a_message() {
        let down = GhostStoreError::Store(StoreError::Closed);
        let error = CryptoError::from(OlmError::Store(down.into()));
        assert!(error.is_transient(), "{error}");
        let broken = GhostStoreError::Unseal { kind: "account" };
        let error = CryptoError::from(OlmError::Store(broken.into()));
        assert!(!error.is_transient(), "{error}");
    }
}
