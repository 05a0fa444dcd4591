//! Errors while an effect is carried out, and whether it is tried again.

use std::time::Duration;

use ruma::UserId;

use crate::{
    crypto::{CryptoError, DecryptError, EncryptError},
    directory::DirectoryError,
    introduction::Refusal,
    matrix::{Fate, MatrixError},
    store::StoreError,
};

/// An error of the engine. It says whether to try again later or to give up.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The homeserver failed or refused.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// A machine failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// A message could not be decrypted.
    #[error(transparent)]
    Decrypt(#[from] DecryptError),
    /// A message could not be encrypted.
    #[error(transparent)]
    Encrypt(#[from] EncryptError),
    /// The directory refused or failed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// An effect cannot be carried out, however often it is tried.
    #[error("the effect cannot be carried out: {0:?}")]
    Refused(Refusal),
    /// A record that we wrote ourselves cannot be read.
    #[error("a record cannot be read: {0}")]
    Record(#[from] serde_json::Error),
    /// The key of a message that is to be forwarded has not come yet.
    #[error("the key of a message has not come yet")]
    KeyOnItsWay,
    /// The message that this one refers to is being forwarded at this moment.
    #[error("what a message refers to is still being forwarded")]
    TargetOnItsWay,
    /// Another room of the conversation does not exist yet.
    #[error("the other room of the conversation is not there yet")]
    NotThereYet,
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

impl EngineError {
    /// Returns whether and when to try again.
    pub fn fate(&self) -> Fate {
        match self {
            Self::Matrix(error) => error.fate().of_work(),
            Self::Crypto(error) | Self::Decrypt(DecryptError::Crypto(error)) => error.fate(),
            Self::Encrypt(error) => error.fate(),
            Self::Store(_) | Self::Stopping => Fate::Away,
            Self::KeyOnItsWay
            | Self::TargetOnItsWay
            | Self::NotThereYet
            | Self::Decrypt(DecryptError::SenderUnknown) => Fate::Failing,
            Self::Decrypt(_) | Self::Directory(_) | Self::Refused(_) | Self::Record(_) => {
                Fate::Final
            }
        }
    }

    /// Returns `true` if another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        self.fate() != Fate::Final
    }

    /// Returns the user of ours that the homeserver does not have, or whose device it does not have.
    pub fn missing_user(&self) -> Option<&UserId> {
        match self {
            Self::Matrix(error)
            | Self::Crypto(CryptoError::Matrix(error))
            | Self::Decrypt(DecryptError::Crypto(CryptoError::Matrix(error)))
            | Self::Encrypt(EncryptError::Crypto(CryptoError::Matrix(error))) => {
                error.missing_user()
            }
            _ => None,
        }
    }

    /// Returns how long the homeserver asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Matrix(error) => error.retry_after(),
            _ => None,
        }
    }

    /// Returns the reason that a decider is given for an effect that will never succeed.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal.clone(),
            Self::Matrix(error) if error.status() == Some(403) => Refusal::Forbidden,
            Self::Decrypt(_) | Self::KeyOnItsWay => Refusal::Unreadable,
            // After some attempts, a person for whom nothing can be encrypted counts as having no
            // device.
            Self::Encrypt(
                EncryptError::NoSignedDevice { users }
                | EncryptError::KeysUnknown { users }
                | EncryptError::NoSession { users },
            ) => Refusal::NoSignedDevice(users.clone()),
            Self::Encrypt(EncryptError::TooManyDevices { users }) => {
                Refusal::TooManyDevices(users.clone())
            }
            _ => Refusal::Impossible,
        }
    }
}
