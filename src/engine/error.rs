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
    /// The key of a message has not come, and its sender's keys got lost again and again.
    #[error("the key of a message has not come, like others of its sender")]
    KeyUnlikely,
    /// The message that this one refers to is being forwarded at this moment.
    #[error("what a message refers to is still being forwarded")]
    TargetOnItsWay,
    /// Another room of the conversation does not exist yet.
    #[error("the other room of the conversation is not there yet")]
    NotThereYet,
    /// The server of a person who is to be invited does not answer.
    #[error("the server of a portal's owner does not answer: {0}")]
    Unanswered(#[source] Box<EngineError>),
    /// The homeserver fails at everything, and so also at this.
    #[error("the homeserver is down: {0}")]
    HomeserverDown(#[source] Box<EngineError>),
    /// A room's history was not to be had in time.
    #[error("the history of the room takes too long to be read")]
    HistoryTooSlow,
    /// A file was not to be had in time, and is not waited for any longer.
    #[error("the file could not be fetched in time")]
    FileUnavailable,
    /// The homeserver holds a stamp that the store does not know.
    #[error(
        "the homeserver knows a newer state of the data folder: an older copy of the folder or an \
         older snapshot of the machine was put in its place, or another Stonechat runs on a copy of \
         it. To go on would use message keys a second time; put the newest state back, or stop every \
         other Stonechat and run `stonechat backup FILE` and `stonechat restore --force FILE` here: \
         every ghost then gets a new device, and no client warns"
    )]
    StoreSetBack,
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
            Self::Store(error) | Self::Directory(DirectoryError::Store(error)) => {
                fate_of_store(error)
            }
            Self::HomeserverDown(_) | Self::Stopping => Fate::Away,
            Self::KeyOnItsWay
            | Self::KeyUnlikely
            | Self::TargetOnItsWay
            | Self::NotThereYet
            | Self::Unanswered(_)
            | Self::HistoryTooSlow
            | Self::Decrypt(DecryptError::SenderUnknown { .. }) => Fate::Failing,
            Self::Decrypt(_)
            | Self::Directory(_)
            | Self::Refused(_)
            | Self::Record(_)
            | Self::FileUnavailable
            | Self::StoreSetBack => Fate::Final,
        }
    }

    /// Returns `true` if another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        self.fate() != Fate::Final
    }

    /// Returns `true` if a proxy answered that no homeserver is behind it.
    pub fn is_outage(&self) -> bool {
        self.of_homeserver().is_some_and(MatrixError::is_outage)
    }

    /// Returns `true` if the homeserver may be failing as a whole, and not at this alone.
    pub fn may_be_outage(&self) -> bool {
        let is_slow = matches!(self, Self::HistoryTooSlow);
        is_slow || self.of_homeserver().is_some_and(MatrixError::may_be_outage)
    }

    /// Returns `true` if it is about something that comes by itself, unless the homeserver is down.
    pub fn is_on_its_way(&self) -> bool {
        matches!(
            self,
            Self::KeyOnItsWay | Self::KeyUnlikely | Self::TargetOnItsWay | Self::NotThereYet
        )
    }

    fn of_homeserver(&self) -> Option<&MatrixError> {
        match self {
            Self::Matrix(error)
            | Self::Crypto(CryptoError::Matrix(error))
            | Self::Decrypt(DecryptError::Crypto(CryptoError::Matrix(error)))
            | Self::Encrypt(EncryptError::Crypto(CryptoError::Matrix(error))) => Some(error),
            _ => None,
        }
    }

    /// Returns `true` if our own homeserver failed at a request that may need another server.
    pub fn is_of_own_homeserver(&self) -> bool {
        matches!(self, Self::Matrix(error) if error.is_of_own_homeserver())
    }

    /// Returns `true` if the store answers nothing more, as opposed to one record in it.
    pub fn is_store_down(&self) -> bool {
        match self {
            Self::Store(error) | Self::Directory(DirectoryError::Store(error)) => error.is_down(),
            Self::Crypto(error) => error.is_store_down(),
            _ => false,
        }
    }

    /// Returns the user of ours that the homeserver does not have, or whose device it does not have.
    pub fn missing_user(&self) -> Option<&UserId> {
        self.of_homeserver().and_then(MatrixError::missing_user)
    }

    /// Returns how long the homeserver asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Matrix(error) => error.retry_after(),
            _ => None,
        }
    }

    /// Returns the reason that a decider is given for an effect that is given up.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal.clone(),
            Self::Matrix(error)
                if error.status() == Some(413) || error.has_errcode("M_TOO_LARGE") =>
            {
                Refusal::TooLarge
            }
            Self::KeyOnItsWay | Self::KeyUnlikely => Refusal::Unreadable,
            Self::Encrypt(EncryptError::NoSignedDevice { users }) => {
                Refusal::NoSignedDevice(users.clone())
            }
            Self::Encrypt(
                EncryptError::KeysUnknown { users } | EncryptError::NoSession { users },
            ) => Refusal::KeysUnavailable(users.clone()),
            Self::Encrypt(EncryptError::TooManyDevices { users }) => {
                Refusal::TooManyDevices(users.clone())
            }
            _ if self.is_transient() => Refusal::Failing,
            Self::Matrix(error) if error.status() == Some(403) => Refusal::Forbidden,
            Self::Decrypt(_) => Refusal::Unreadable,
            _ => Refusal::Impossible,
        }
    }
}

#[cfg(test)]
mod refusal_tests {
    use ruma::owned_user_id;

    use super::*;

    #[test]
    fn a_decider_learns_why_a_message_was_refused() {
        let users = || vec![owned_user_id!("@sam:hs.test")];
        let refused = |status: u16, errcode: &str| {
            EngineError::Matrix(MatrixError::Refused {
                status: http::StatusCode::from_u16(status).unwrap(),
                errcode: Some(errcode.to_owned()),
                message: String::new(),
            })
        };
        for (error, expected) in [
            (
                EncryptError::NoSignedDevice { users: users() }.into(),
                Refusal::NoSignedDevice(users()),
            ),
            (
                EncryptError::KeysUnknown { users: users() }.into(),
                Refusal::KeysUnavailable(users()),
            ),
            (
                EncryptError::NoSession { users: users() }.into(),
                Refusal::KeysUnavailable(users()),
            ),
            (
                EncryptError::TooManyDevices { users: users() }.into(),
                Refusal::TooManyDevices(users()),
            ),
            (refused(413, "M_TOO_LARGE"), Refusal::TooLarge),
            (refused(413, "M_UNKNOWN"), Refusal::TooLarge),
            (refused(400, "M_TOO_LARGE"), Refusal::TooLarge),
            (refused(403, "M_FORBIDDEN"), Refusal::Forbidden),
            (refused(400, "M_UNKNOWN"), Refusal::Impossible),
        ] {
            assert_eq!(EngineError::refusal(&error), expected, "{error}");
        }
    }
}

/// A store that has failed or was closed is not asked again: the process ends, and the item is
/// there after the next start. A single record that cannot be read never can.
fn fate_of_store(error: &StoreError) -> Fate {
    if error.is_down() {
        Fate::Away
    } else {
        Fate::Final
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::handle::{Handle, HandleRules};

    fn answer(status: StatusCode, errcode: Option<&str>) -> MatrixError {
        let (errcode, message) = (errcode.map(str::to_owned), String::new());
        if status.is_server_error() {
            MatrixError::Failing {
                status,
                errcode,
                message,
                retry_after: None,
            }
        } else {
            MatrixError::Refused {
                status,
                errcode,
                message,
            }
        }
    }

    #[test]
    fn a_failing_store_is_waited_for_and_a_broken_record_is_not() {
        let full = || StoreError::Full {
            path: "/var/lib/stonechat".into(),
            why: "quota".to_owned(),
        };
        let broken = || StoreError::Unseal { table: "Rooms" };
        let in_directory = |error| EngineError::Directory(DirectoryError::Store(error));
        for error in [
            EngineError::Store(full()),
            in_directory(full()),
            EngineError::Store(StoreError::Closed),
            in_directory(StoreError::Closed),
        ] {
            assert_eq!(error.fate(), Fate::Away, "{error}");
        }
        let handle = Handle::parse("sam", &HandleRules::default()).unwrap();
        for error in [
            EngineError::Store(broken()),
            in_directory(broken()),
            EngineError::Directory(DirectoryError::Taken(handle)),
        ] {
            assert_eq!(error.fate(), Fate::Final, "{error}");
        }
    }

    #[test]
    fn what_a_proxy_answers_is_no_refusal() {
        let refusal = |status, errcode| EngineError::Matrix(answer(status, errcode)).refusal();
        let forbidden = StatusCode::FORBIDDEN;
        assert_eq!(refusal(forbidden, Some("M_FORBIDDEN")), Refusal::Forbidden);
        assert_eq!(refusal(forbidden, None), Refusal::Failing);
        assert_eq!(refusal(StatusCode::NOT_FOUND, None), Refusal::Failing);
        let unknown = Some("M_UNKNOWN");
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, unknown), Refusal::Failing);
        assert_eq!(
            refusal(StatusCode::BAD_REQUEST, unknown),
            Refusal::Impossible
        );
        let outage = || CryptoError::Matrix(answer(StatusCode::BAD_GATEWAY, None));
        for error in [
            EngineError::Crypto(outage()),
            EngineError::Encrypt(EncryptError::Crypto(outage())),
            EngineError::Decrypt(DecryptError::Crypto(outage())),
        ] {
            assert!(error.is_outage(), "{error}");
            assert_eq!(error.refusal(), Refusal::Failing, "{error}");
        }
    }
}
